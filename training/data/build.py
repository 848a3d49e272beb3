"""From a source to its frame store: decode, crop and resize in several threads, in order, once."""

from __future__ import annotations

import contextlib
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
from tqdm import tqdm

from keypoint_perception.errors import UserError
from keypoint_perception.files import writing
from keypoint_perception.geometry import Viewport
from keypoint_perception.heap import keep_freed_memory
from training.data.ordered import map_in_order
from training.data.salvage import Damage
from training.data.sources import Item, Source
from training.data.store import (
    FrameStore,
    StoreWriter,
    View,
    enough_space,
    fingerprint,
    locked,
    read_if_current,
    store_folder,
)

SAVE_SECONDS = 5.0
"""An interrupted run loses at most this much."""
RESTART_SECONDS = 1.0
"""A stamp that goes back by less is out of order and skipped; one that goes back further begins a new sequence."""


class _Viewed(NamedTuple):
    """An image as it will be stored; without its Item, whose memory the thread that decoded it gives back."""

    recording: str
    stamp: int
    where: str
    frame: np.ndarray
    """(H, W, 3) uint8 of the network's input size."""
    size: tuple[int, int]
    """(width, height) of the recorded image."""


def build_store(
    source: Source, view: View, root: Path | None = None, threads: int = 0, progress: bool = True
) -> FrameStore:
    """The frame store of a source: reused, gone on with, or made anew.

    threads: that decode, 0 for as many as there are cores. Raises UserError where nothing of the source can be used.
    """
    keep_freed_memory()
    folder, state = store_folder(source, view, root), fingerprint(source, view)
    store = read_if_current(folder, state)
    if store is None:
        with locked(folder):
            store = read_if_current(folder, state)  # another process made it meanwhile
            if store is None:
                with writing(folder):
                    writer = StoreWriter(folder, view, state)
                store = _Builder(source, view, writer, threads, progress).run()
    return store


class _Builder:
    """Makes one store."""

    def __init__(self, source: Source, view: View, writer: StoreWriter, threads: int, progress: bool) -> None:
        self.source, self.view, self.writer = source, view, writer
        self.threads = threads or os.cpu_count() or 1
        self.progress = progress
        self.saved = time.monotonic()

    def run(self) -> FrameStore:
        """Reads the source to its end. Progress is kept when it is interrupted."""
        writer, expected = self.writer, self.source.count(self.view.topic)
        enough_space(writer.partial, max(expected - writer.items, 0) * int(np.prod(self.view.frame_shape)))
        with tqdm(
            total=expected,
            initial=writer.items,
            disable=not self.progress,
            desc=f"frames of {self.source.path.name}",
            unit="frame",
            mininterval=0.5 if sys.stderr.isatty() else 10.0,
        ) as bar:
            try:
                for found in self._viewed():
                    self._take(found)
                    bar.update()
            except BaseException as error:
                with contextlib.suppress(OSError):  # where the disk is full, what was saved before stays
                    writer.save_progress()
                with contextlib.suppress(OSError):
                    writer.close()
                if isinstance(error, OSError):
                    raise UserError(
                        f"{writer.partial}, frames of {self.source.path}: {error}: see --data.store"
                    ) from None
                raise
        return self._finish()

    def _viewed(self) -> Iterator[_Viewed | Damage]:
        """What the source holds, in order, seen as the network will see it. Little of it is in memory at a time."""
        items = self.source.items(self.view.topic, self.writer.items)
        return map_in_order(self._view, items, 1 if self.source.is_decoded else self.threads)

    def _view(self, found: Item | Damage) -> _Viewed | Damage:
        if isinstance(found, Damage):
            return found
        try:
            image = found.decode()
        except UserError as error:
            return Damage(found.where, str(error))
        size = image.shape[1], image.shape[0]
        frame = _shrunk(image, Viewport.of(size, self.view.input_size, self.view.roi))
        return _Viewed(found.recording, found.stamp, found.where, frame, size)

    def _take(self, found: _Viewed | Damage) -> None:
        if isinstance(found, Damage):
            self.writer.skips.add(found.why, found.where)
        else:
            self._place(found)
        self.writer.items += 1
        if time.monotonic() - self.saved > SAVE_SECONDS:
            self.writer.save_progress()
            self.saved = time.monotonic()

    def _place(self, found: _Viewed) -> None:
        writer, (recording, stamp, where, frame, size) = self.writer, found
        last = writer.sequences[-1] if writer.sequences else None
        if last is None or last.recording != recording or last.size != size:
            writer.append(frame, stamp, recording, size, new=True)
            return
        back = (writer.last_stamp - stamp) / 1e9
        if 0 <= back <= RESTART_SECONDS:
            writer.skips.add("its stamp does not come after the one before", where)
            return
        writer.append(frame, stamp, recording, size, new=back > 0)

    def _finish(self) -> FrameStore:
        """Keeps the sequences of the most common size: a network sees one shape of picture."""
        writer = self.writer
        frames: dict[tuple[int, int], int] = {}
        for sequence in writer.sequences:
            frames[sequence.size] = frames.get(sequence.size, 0) + sequence.stop - sequence.start
        if not frames:
            writer.discard()
            reasons = "; ".join(f"{s.count} x {why} (at {s.places[0]})" for why, s in writer.skips.by_reason.items())
            what = f"topic {self.view.topic} of {self.source.path}" if self.view.topic else str(self.source.path)
            raise UserError(f"nothing in {what} can be used: {reasons or 'it has no images'}")
        usual = max(frames, key=lambda size: frames[size])
        for sequence in writer.sequences:
            if sequence.size != usual:
                width, height = sequence.size
                reason = f"it has {width} x {height} pixels, most have {usual[0]} x {usual[1]}"
                place = f"frame {sequence.start} of {sequence.recording}"
                writer.skips.add(reason, place, sequence.stop - sequence.start)
        writer.sequences = [sequence for sequence in writer.sequences if sequence.size == usual]
        with writing(writer.folder):
            return writer.finish()


def _shrunk(image: np.ndarray, viewport: Viewport) -> np.ndarray:
    """What a viewport shows of an image (H, W, 3). One in reverse, as OpenCV decodes, is small before it is turned."""
    if image.strides[2] > 0:
        return viewport.view(image)
    return cv2.cvtColor(viewport.view(image[..., ::-1]), cv2.COLOR_BGR2RGB)


def report(source: Source, store: FrameStore) -> list[str]:
    """A line for each reason why images of a source were not used."""
    return [
        f"{source.path}: skipped {skipped.count} of {store.items}: {reason} (at {skipped})"
        for reason, skipped in store.skips.by_reason.items()
    ]
