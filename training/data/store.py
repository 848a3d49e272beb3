"""The frame store: a recording's frames, cropped and resized once, in one file that is mapped into memory.

A store is a folder `<recording>.frames/<topic>_<W>x<H>_<settings>/`:

    frames.u8     frames one after another, (H, W, 3) uint8 RGB each
    stamps.i64    their times in nanoseconds
    store.json    sequences, what was skipped, a checksum, and the state of the recording it was made from

While it is made it is called `….partial` and holds `progress.json`, from which an interrupted run goes on. It takes its
name when it is complete. The file may be larger than memory; processes that map it share its pages.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any
from zlib import crc32

import numpy as np

from keypoint_perception.errors import UserError
from keypoint_perception.files import make_folder, writing, written_whole
from training.data.skips import Skips
from training.data.sources import Source

try:
    import fcntl
except ImportError:  # Windows has no such locks; there two processes must not make one store at once
    fcntl = None  # type: ignore[assignment]

FORMAT = 1
FRAMES, STAMPS, STORE, PROGRESS = "frames.u8", "stamps.i64", "store.json", "progress.json"
STORE_SUFFIX = ".frames"
"""Of the folder that holds a recording's frame stores; never a recording itself."""
FALLBACK = Path("out/frames")
"""Where the stores of recordings in read-only folders are."""


@dataclass(frozen=True)
class View:
    """What of the images is stored."""

    topic: str
    input_size: tuple[int, int]
    """(width, height)."""
    roi: tuple[float, float, float, float] | None

    @property
    def frame_shape(self) -> tuple[int, int, int]:
        """(H, W, 3)."""
        return self.input_size[1], self.input_size[0], 3


@dataclass
class SequenceInfo:
    """Frames that follow one another in time, without a jump backwards and all of one size."""

    recording: str
    start: int
    """Index of its first frame in the store,"""
    stop: int
    """and of the one after its last."""
    size: tuple[int, int]
    """(width, height) of the recorded images."""

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> SequenceInfo:
        """The inverse of `asdict`, after JSON made a list of the size."""
        return cls(**{**values, "size": tuple(values["size"])})


class FrameStore:
    """A complete store, open for reading. Cheap to pickle: another process maps the same file again."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        about = json.loads((folder / STORE).read_text())
        self.shape: tuple[int, int, int] = tuple(about["frame_shape"])
        self.sequences = [SequenceInfo.from_dict(sequence) for sequence in about["sequences"]]
        self.skips = Skips.from_dict(about["skips"])
        self.items: int = about["items"]
        """Images that the recording held, used or not."""
        self.checksum: int = about["checksum"]
        self.stamps = np.fromfile(folder / STAMPS, np.int64)
        """(T,) nanoseconds."""
        if len(self.stamps) != about["count"] or not _has_frames(folder, about["count"], self.shape):
            raise ValueError(f"{folder} lacks frames")  # after a power cut a file may be shorter than it was written
        self._frames: np.ndarray | None = None

    @property
    def frames(self) -> np.ndarray:
        """(T, H, W, 3) uint8, read from the file as it is used."""
        if self._frames is None:
            shape = (len(self.stamps), *self.shape)
            mapped = np.memmap(self.folder / FRAMES, np.uint8, mode="r", shape=shape)
            self._frames = mapped.view(np.ndarray)  # a memmap makes a memmap of each frame, which takes time
        return self._frames

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_frames": None}


def fingerprint(source: Source, view: View) -> str:
    """Changes when the recording or the settings do: names, sizes and times of its files, topic, size, roi."""
    states = [(path.name, path.stat().st_size, path.stat().st_mtime_ns) for path in source.files()]
    return hashlib.blake2b(repr((FORMAT, states, asdict(view))).encode(), digest_size=16).hexdigest()


def store_folder(source: Source, view: View, root: Path | None) -> Path:
    """Where the store of a source is: in `root`, beside the recording, or, where neither can be, in `FALLBACK`.

    One that is beside the recording and current is used where nothing can be written, too.
    """
    settings = hashlib.blake2b(repr((FORMAT, asdict(view))).encode(), digest_size=4).hexdigest()
    topic = re.sub(r"\W+", "_", view.topic).strip("_") or "frames"
    name = f"{topic}_{view.input_size[0]}x{view.input_size[1]}_{settings}"
    path = source.path.resolve()
    beside = path.with_name(path.name + STORE_SUFFIX)
    writable = os.access(path.parent, os.W_OK) or os.access(beside, os.W_OK)
    if root is None and (writable or read_if_current(beside / name, fingerprint(source, view))):
        return beside / name
    where = hashlib.blake2b(str(path).encode(), digest_size=4).hexdigest()
    return (root or FALLBACK) / f"{path.name}_{where}{STORE_SUFFIX}" / name


def read_if_current(folder: Path, state: str) -> FrameStore | None:
    """The store at `folder`, if it is complete and of the recording in its present state."""
    try:
        if json.loads((folder / STORE).read_text())["fingerprint"] == state:
            return FrameStore(folder)
    except (OSError, ValueError, KeyError, TypeError):
        pass
    return None


def _has_frames(folder: Path, count: int, shape: tuple[int, int, int]) -> bool:
    """Whether the files of a store hold at least `count` frames (H, W, 3) and their times."""
    sizes = {FRAMES: int(np.prod(shape)), STAMPS: 8}
    return all((folder / name).stat().st_size >= count * size for name, size in sizes.items())


class StoreWriter:
    """Appends frames to a store that is being made; goes on with one that was cut off."""

    def __init__(self, folder: Path, view: View, state: str) -> None:
        """folder: of the complete store. state: the recording's fingerprint."""
        self.folder, self.view, self.state = folder, view, state
        self.partial = folder.with_name(f"{folder.name}.partial")
        self.items = 0
        self.count = 0
        self.checksum = 0
        self.sequences: list[SequenceInfo] = []
        self.skips = Skips()
        self._resume()
        self._frames = (self.partial / FRAMES).open("r+b")
        self._stamps = (self.partial / STAMPS).open("r+b")
        frame_bytes = int(np.prod(view.frame_shape))
        for file, size in ((self._frames, frame_bytes), (self._stamps, 8)):
            file.truncate(self.count * size)
            file.seek(0, os.SEEK_END)
        self.last_stamp = int(np.fromfile(self.partial / STAMPS, np.int64)[-1]) if self.count else 0

    def _resume(self) -> None:
        try:
            progress = json.loads((self.partial / PROGRESS).read_text())
            if progress["fingerprint"] != self.state:
                raise ValueError("the recording has changed")
            if not _has_frames(self.partial, progress["count"], self.view.frame_shape):
                raise ValueError("frames are missing")
        except (OSError, ValueError, KeyError, TypeError):
            shutil.rmtree(self.partial, ignore_errors=True)
            self.partial.mkdir(parents=True)
            for name in (FRAMES, STAMPS):
                (self.partial / name).touch()
            return
        self.items, self.count, self.checksum = progress["items"], progress["count"], progress["checksum"]
        self.sequences = [SequenceInfo.from_dict(sequence) for sequence in progress["sequences"]]
        self.skips = Skips.from_dict(progress["skips"])

    def append(self, frame: np.ndarray, stamp: int, recording: str, size: tuple[int, int], *, new: bool) -> None:
        """One frame (H, W, 3) uint8; `new` begins a sequence."""
        frame = np.ascontiguousarray(frame)
        if new:
            self.sequences.append(SequenceInfo(recording, self.count, self.count, size))
        self._frames.write(frame.data)
        self._stamps.write(np.int64(stamp).tobytes())
        self.checksum = crc32(frame.data, self.checksum)
        self.count += 1
        self.sequences[-1].stop = self.count
        self.last_stamp = stamp

    def save_progress(self) -> None:
        """From here an interrupted run goes on."""
        self._frames.flush()
        self._stamps.flush()
        with written_whole(self.partial / PROGRESS) as path:
            path.write_text(json.dumps(self._about()))

    def finish(self) -> FrameStore:
        """Gives the store its name, in place of an older one."""
        self.close()
        (self.partial / STORE).write_text(json.dumps({**self._about(), "frame_shape": self.view.frame_shape}, indent=1))
        (self.partial / PROGRESS).unlink(missing_ok=True)
        shutil.rmtree(self.folder, ignore_errors=True)
        self.partial.rename(self.folder)
        return FrameStore(self.folder)

    def close(self) -> None:
        """Closes its files."""
        self._frames.close()
        self._stamps.close()

    def discard(self) -> None:
        """Removes what was made of it."""
        self.close()
        shutil.rmtree(self.partial, ignore_errors=True)

    def _about(self) -> dict[str, Any]:
        return {
            "fingerprint": self.state,
            "items": self.items,
            "count": self.count,
            "checksum": self.checksum,
            "sequences": [asdict(sequence) for sequence in self.sequences],
            "skips": self.skips.to_dict(),
        }


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Lets one process at a time make the store `folder`; the others wait and find it made.

    Raises UserError where its lock cannot be written.
    """
    make_folder(folder.parent)
    ignored = folder.parent / ".gitignore"
    with writing(folder):
        if not ignored.exists():
            ignored.write_text("*\n")  # recordings often lie in a repository; their stores do not belong there
        lock = open(folder.with_name(f".{folder.name}.lock"), "w")  # noqa: SIM115, closed below
    with lock:
        if fcntl:
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def enough_space(folder: Path, needed: int) -> None:
    """Raises UserError where the disk of `folder` has not `needed` bytes left."""
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise UserError(
            f"the frame store {folder} needs {_amount(needed)} and {_amount(free)} are free: name another place with "
            "--data.store, or a smaller --data.input_size"
        )


def _amount(size: int) -> str:
    """A number of bytes, in a unit that fits."""
    for power, unit in ((9, "GB"), (6, "MB"), (3, "kB")):
        if size >= 10**power:
            return f"{size / 10**power:.1f} {unit}"
    return f"{size} bytes"
