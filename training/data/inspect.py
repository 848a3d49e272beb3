"""What is in a recording, and what of it can be trained on: `python -m training inspect SOURCE`."""

from __future__ import annotations

import sys
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np
from tqdm import tqdm

from keypoint_perception.command_line import Parser
from keypoint_perception.drawing import contact_sheet, write_png
from keypoint_perception.errors import UserError
from keypoint_perception.heap import keep_freed_memory
from keypoint_perception.images import is_depth
from training.data.opening import open_sources
from training.data.salvage import Damage
from training.data.skips import Skips
from training.data.sources import Item, Source, Topic

SAMPLES = 8
"""Images of a topic that are decoded, and shown on the contact sheet."""
TILE_WIDTH = 240
GAP_PERIODS = 3.0
"""A gap is where no image came for this many periods."""


class Timing(NamedTuple):
    """How the images of a topic follow one another."""

    seconds: float
    rate: float
    """Images a second."""
    gaps: int
    longest_gap: float
    """Seconds between two images that are farthest apart."""
    not_advancing: int
    """Stamps that are not later than the one before."""


@dataclass
class TopicReport:
    """What one image topic holds."""

    topic: Topic
    recordings: set[str] = field(default_factory=set)
    encodings: Counter[str] = field(default_factory=Counter)
    sizes: Counter[tuple[int, int]] = field(default_factory=Counter)
    """(width, height) of the samples."""
    stamps: list[int] = field(default_factory=list)
    """Nanoseconds; of the images of one recording after the other."""
    new_recording: list[int] = field(default_factory=list)
    """Where in `stamps` a recording begins."""
    damage: Skips = field(default_factory=Skips)
    unreadable: Skips = field(default_factory=Skips)
    """Samples that could not be decoded."""
    samples: list[np.ndarray] = field(default_factory=list)
    """(H, W, 3) uint8 RGB."""

    def add(self, item: Item, is_sample: bool) -> None:
        """Takes note of an image, and decodes it where it is a sample."""
        if item.recording not in self.recordings:
            self.recordings.add(item.recording)
            self.new_recording.append(len(self.stamps))
        self.stamps.append(item.stamp)
        self.encodings[item.encoding] += 1
        if not is_sample or is_depth(item.encoding):
            return
        try:
            image = item.decode()
        except UserError as error:
            self.unreadable.add(str(error), item.where)
            return
        self.sizes[image.shape[1], image.shape[0]] += 1
        self.samples.append(image)

    def steps(self) -> np.ndarray:
        """Seconds from each image to the next of its recording."""
        steps = np.diff(np.array(self.stamps, np.int64)) / 1e9
        return np.delete(steps, [start - 1 for start in self.new_recording if 0 < start <= len(steps)])

    def timing(self) -> Timing:
        """Where no stamp advances, all else is 0."""
        steps = self.steps()
        forward, not_advancing = steps[steps > 0], int((steps <= 0).sum())
        if not len(forward):
            return Timing(0.0, 0.0, 0, 0.0, not_advancing)
        period = float(np.median(forward))
        gaps = int((forward > GAP_PERIODS * period).sum())
        return Timing(float(forward.sum()), 1 / period, gaps, float(forward.max()), not_advancing)

    def verdict(self) -> str:
        """Whether it can be trained on, and why not."""
        if any(is_depth(encoding) for encoding in self.encodings):
            return "no: depth"
        damaged, unreadable = (sum(skips.counts().values()) for skips in (self.damage, self.unreadable))
        if not self.samples:
            return "no: none of its images can be read" if damaged or unreadable else "no: it has no images"
        notes = [f"{damaged} damaged places"] if damaged else []
        if unreadable:
            notes.append(f"{unreadable} of {unreadable + len(self.samples)} looked at cannot be read")
        if len(self.sizes) > 1:
            notes.append("its size changes")
        not_advancing = self.timing().not_advancing
        if not_advancing:
            notes.append(f"{not_advancing} stamps do not advance")
        return "yes" + (f", but {', '.join(notes)}" if notes else "")


def inspect_topic(source: Source, topic: Topic, progress: bool = False) -> TopicReport:
    """Reads a topic from end to end and decodes a few of its images."""
    report = TopicReport(topic)
    every = max(topic.messages // SAMPLES, 1)
    with tqdm(
        source.items(topic.name), topic.name or source.path.name, topic.messages, leave=False, disable=not progress
    ) as items:
        for number, found in enumerate(items):
            if isinstance(found, Damage):
                report.damage.add(found.why, found.where)
            else:
                report.add(found, is_sample=number % every == every // 2 and len(report.samples) < SAMPLES)
    return report


def describe(source: Source, reports: list[TopicReport]) -> str:
    """A table of a source's topics, images first, and below it the damage that was found."""
    rows = [("topic", "type", "encoding", "size", "messages", "seconds", "rate", "gaps (longest)", "can be trained on")]
    for report in reports:
        timing = report.timing()
        rows.append(
            (
                report.topic.name or "-",
                report.topic.type_name.split("/")[-1],
                ", ".join(report.encodings) or "-",
                ", ".join(f"{width}x{height}" for width, height in report.sizes) or "-",
                str(len(report.stamps)),
                f"{timing.seconds:.2f}",
                f"{timing.rate:.2f} Hz",
                f"{timing.gaps} ({timing.longest_gap:.2f} s)",
                report.verdict(),
            )
        )
    for topic in source.topics():
        if not topic.is_image:
            kind = topic.type_name.split("/")[-1]
            rows.append((topic.name, kind, "-", "-", str(topic.messages), "-", "-", "-", "no: not images"))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = [f"{source.path}: {source.kind}"]
    lines += ["  " + "  ".join(map(str.ljust, row, widths)).rstrip() for row in rows]
    for report in reports:
        for skips in (report.damage, report.unreadable):
            for reason, skipped in skips.by_reason.items():
                lines.append(f"  {report.topic.name or source.path.name}: {reason} (at {skipped})")
    return "\n".join(lines)


def write_sheet(path: Path, reports: list[TopicReport]) -> None:
    """A png with a row of samples for each topic."""
    tiles: list[np.ndarray] = []
    for report in reports:
        if report.samples:
            blank = np.full_like(report.samples[0], 255)
            tiles += report.samples + [blank] * (SAMPLES - len(report.samples))
    sheet = contact_sheet(tiles, columns=SAMPLES, tile_width=TILE_WIDTH)
    write_png(path, sheet)


def main(argv: list[str]) -> int:
    """Runs `inspect`. Raises UserError where nothing can be trained on."""
    parser = Parser(prog="python -m training inspect", description=__doc__)
    parser.add_argument("sources", nargs="+", metavar="SOURCE", help="bag, video, folder of images or of episodes")
    parser.add_argument("-o", "--out", type=Path, metavar="PNG", help="the contact sheet [out/inspect/NAME.png]")
    given = parser.parse_args(argv)
    keep_freed_memory()
    every: list[TopicReport] = []
    sources = open_sources(given.sources)
    for source in sources:
        images = [topic for topic in source.topics() if topic.is_image]
        reports = [inspect_topic(source, topic, progress=sys.stderr.isatty()) for topic in images]
        print(describe(source, reports))
        every += reports
    if not any(source.topics() for source in sources):
        sources[0].choose("")  # raises, and says why there is none
    if not any(report.samples for report in every):
        raise UserError(f"nothing in {', '.join(given.sources)} can be trained on: see the table's last column")
    out = given.out or Path("out/inspect", f"{Path(given.sources[0]).resolve().name}.png")
    write_sheet(out, every)
    print(f"wrote {out}: a row of {SAMPLES} images for each topic that can be trained on")
    return 0
