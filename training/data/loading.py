"""From a config to samplers, and from a sampler to a stream of batches."""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from keypoint_perception.errors import UserError
from training.data.build import build_store, report
from training.data.config import DataConfig
from training.data.opening import open_sources
from training.data.pairs import CameraPairs, Frames, Sampler, Stills, TimePairs, Track, WarpPairs
from training.data.sources import Source
from training.data.store import FrameStore, View
from training.method import Batch
from training.prior import read_poses

BATCHES_AHEAD = 4
"""That each worker prepares."""


@dataclass(frozen=True)
class Data:
    """Recordings, ready to be trained on."""

    train: Sampler
    validation: Sampler
    fingerprint: str
    """Changes when the frames, or how they are drawn, do; not when files only move."""
    viewport_roi: tuple[float, float, float, float] | None
    """The part of the camera image the frames show: x0, y0, x1, y1 as fractions."""
    frames: Frames
    tracks: tuple[Track, ...]

    def sequences(self) -> Iterator[tuple[str, np.ndarray]]:
        """(name, frames (T, H, W, 3) uint8) of every recording, in time order; read as they are used."""
        for track in self.tracks:
            yield track.name, self.frames.stores[track.store].frames[track.start : track.stop]


def load_data(config: DataConfig, progress: bool = True) -> Data:
    """Opens the recordings, builds or reuses their frame stores and cuts them into training and validation.

    Raises UserError where a recording cannot be used at all; what is skipped of one is printed to stderr,
    and so is that what is held out is too short to validate on.
    """
    sources = open_sources(config.sources)
    stores = [_store(source, config, config.topic, config.roi, progress) for source in sources]
    partners = _partner_stores(sources, config, progress) if config.drawing().pairs == "cameras" else []
    tracks = [track for index, store in enumerate(stores) for track in _tracks(index, store, len(stores))]
    frames = Frames(stores + partners)
    prior = read_poses(config.prior).keypoints if config.prior else None
    train, held_out = split(tracks, config.validation, config.split)
    training = _sampler(config, frames, train, prior)
    try:
        validation = _sampler(config, frames, held_out, prior) if held_out else training
    except UserError as error:
        if progress:
            reason = f"since in what is held out {error}, or a larger --data.validation"
            print(f"warning: validation is on training data, {reason}", file=sys.stderr)
        validation = training
    return Data(
        training,
        validation,
        _fingerprint(config, frames.stores, prior),
        config.roi,
        frames,
        tuple(tracks),
    )


def _sampler(config: DataConfig, frames: Frames, tracks: list[Track], prior: np.ndarray | None) -> Sampler:
    drawing = config.drawing()
    if drawing.pairs == "time":
        return TimePairs(frames, tracks, drawing, prior)
    if drawing.pairs == "cameras":
        return CameraPairs(frames, tracks, config.slop_seconds, prior)
    return WarpPairs(frames, tracks, config.warp, prior) if drawing.pairs == "warp" else Stills(frames, tracks, prior)


def _partner_stores(sources: list[Source], config: DataConfig, progress: bool) -> list[FrameStore]:
    """For each source the store of what its second camera saw."""
    other_topic = bool(config.reference_topic) and config.reference_topic != config.topic
    roi = config.reference_roi or (None if other_topic else config.roi)
    if not other_topic and roi == config.roi:
        raise UserError(
            "pairs are between cameras and only one is named: set --data.reference_topic, or --data.reference_roi"
        )
    topic = config.reference_topic or config.topic
    return [_store(source, config, topic, roi, progress) for source in sources]


def split(tracks: list[Track], share: float, how: str) -> tuple[list[Track], list[Track]]:
    """Tracks to train on and tracks held out: whole recordings, or the end of each, never single frames.

    how: recording, time, or auto, which is by recording where a whole one fits into the share. Raises UserError for
    `recording` where there is only one.
    """
    recordings: dict[tuple[int, str], list[Track]] = {}
    for track in tracks:
        recordings.setdefault((track.store, track.recording), []).append(track)
    if not share:
        return tracks, []
    count = int(share * len(recordings))
    if how == "recording":
        if len(recordings) == 1:
            raise UserError("--data.split is recording and there is one: give more recordings, or --data.split time")
        count = max(count, 1)
    train: list[Track] = []
    held_out: list[Track] = []
    if count and how != "time":
        order = sorted(recordings, key=lambda recording: hashlib.blake2b(repr(recording).encode()).digest())
        for number, recording in enumerate(order):
            (held_out if number < count else train).extend(recordings[recording])
        return sorted(train), sorted(held_out)
    for parts in recordings.values():
        left = max(1, round((1 - share) * sum(track.stop - track.start for track in parts)))
        for track in parts:
            cut = min(track.start + left, track.stop)
            left -= cut - track.start
            train += [track._replace(stop=cut)] if cut > track.start else []
            held_out += [track._replace(start=cut)] if track.stop > cut else []
    return train, held_out


def loader(
    sampler: Sampler,
    start_step: int,
    steps: int,
    batch_size: int,
    seed: int,
    workers: int = 0,
    rank: int = 0,
    world: int = 1,
) -> Iterator[Batch]:
    """The batches of `steps` steps from `start_step` on, for process `rank` of `world`; workers prepare them ahead."""
    batches = _Batches(sampler, batch_size, seed, rank, world)
    plan = range(start_step, start_step + steps)
    return iter(
        DataLoader(
            batches,
            batch_size=None,
            sampler=plan,
            num_workers=workers,
            prefetch_factor=BATCHES_AHEAD if workers else None,
            pin_memory=torch.cuda.is_available(),
        )
    )


class _Batches(Dataset[Batch]):
    """A run's batches by step."""

    def __init__(self, sampler: Sampler, batch_size: int, seed: int, rank: int, world: int) -> None:
        self.sampler, self.batch_size, self.seed, self.rank, self.world = sampler, batch_size, seed, rank, world

    def __getitem__(self, step: int) -> Batch:
        return self.sampler.batch(step * self.world + self.rank, self.batch_size, self.seed)


def _store(
    source: Source, config: DataConfig, topic: str, roi: tuple[float, float, float, float] | None, progress: bool
) -> FrameStore:
    view = View(source.choose(topic), config.input_size, roi)
    store = build_store(source, view, Path(config.store) if config.store else None, progress=progress)
    if progress:
        for line in report(source, store):
            print(line, file=sys.stderr)
    return store


def _tracks(index: int, store: FrameStore, stores: int) -> Iterator[Track]:
    """The sequences of one of several stores; names are unique among all."""
    prefix = f"{index}:" if stores > 1 else ""
    seen: dict[str, int] = {}
    for sequence in store.sequences:
        part = seen[sequence.recording] = seen.get(sequence.recording, 0) + 1
        name = f"{prefix}{sequence.recording}" + (f"#{part}" if part > 1 else "")
        yield Track(name, sequence.recording, index, sequence.start, sequence.stop)


def _fingerprint(config: DataConfig, stores: list[FrameStore], prior: np.ndarray | None) -> str:
    parts = [[(s.start, s.stop, s.size) for s in store.sequences] for store in stores]
    content = [(store.checksum, part) for store, part in zip(stores, parts, strict=True)]
    drawn = (config.drawing(), config.slop_seconds, asdict(config.warp), config.validation, config.split)
    digest = hashlib.blake2b(repr((content, drawn)).encode(), digest_size=8)
    if prior is not None:
        digest.update(np.ascontiguousarray(prior).data)
    return digest.hexdigest()
