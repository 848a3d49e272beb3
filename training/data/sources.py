"""Recordings of every kind behind one interface, chosen from the path."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

from keypoint_perception.errors import UserError
from training.data.salvage import Damage

IMAGE_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp", ".ppm", ".pgm"})
VIDEO_SUFFIXES = frozenset({".mp4", ".avi", ".mov", ".mkv", ".webm", ".m4v", ".mpg", ".mpeg", ".wmv", ".mjpg"})
BAG_SUFFIXES = frozenset({".mcap", ".db3", ".bag"})
STORE_SUFFIX = ".frames"
"""Of the folder that holds a recording's frame stores; never a recording itself."""


class Item(NamedTuple):
    """One image of a recording, not decoded yet."""

    recording: str
    """Images of different recordings are never paired over time."""
    stamp: int
    """When it was taken, nanoseconds; only differences within a recording matter."""
    where: str
    """Its place, for messages to the user: "message 12"."""
    encoding: str
    """What its pixels are kept as: a message's encoding or format, a file's suffix."""
    decode: Callable[[], np.ndarray]
    """Gives (H, W, 3) uint8 RGB; raises UserError; may run in any thread."""


class Topic(NamedTuple):
    """One stream of messages in a source."""

    name: str
    type_name: str
    messages: int
    """How many, as far as the source says without being read."""
    is_image: bool


class Source(ABC):
    """One recording, or one folder of episodes or images."""

    kind: str
    """What it is, for the user."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @abstractmethod
    def files(self) -> list[Path]:
        """All files that its content depends on."""

    @abstractmethod
    def topics(self) -> list[Topic]:
        """What it holds. Sources without topics have one with an empty name."""

    @abstractmethod
    def items(self, topic: str, start: int = 0) -> Iterator[Item | Damage]:
        """Images of a topic in the order recorded, from the `start`-th item on, and damage where there is some.

        Damage counts as an item, so that a store that was cut off goes on where it stopped.
        """

    def choose(self, topic: str) -> str:
        """The topic itself, or the only image topic where none is asked for. Raises UserError that lists them."""
        images = [t.name for t in self.topics() if t.is_image]
        if images == [""]:  # a topic is for the bags among several sources
            return ""
        if topic in images:
            return topic
        if not topic and len(images) == 1:
            return images[0]
        listed = ", ".join(sorted(images)) or "none at all"
        what = f"has no image topic {topic!r}" if topic else "has several image topics and none is chosen"
        raise UserError(f"{self.path} {what if images else 'has no image topic'}: it has {listed}")

    def count(self, topic: str) -> int:
        """About how many items a topic has, for the progress bar."""
        return sum(t.messages for t in self.topics() if t.name == topic)


def open_sources(paths: list[str]) -> list[Source]:
    """The sources that paths name; a folder may hold several. Raises UserError where one cannot be a recording."""
    if not paths:
        raise UserError("no recordings given: name at least one bag, video, folder of images or of episodes")
    return [source for path in paths for source in open_source(Path(path))]


def open_source(path: Path) -> list[Source]:
    """The sources of one path: one, or all in a folder of bags and videos."""
    if not path.exists():
        raise UserError(f"{path} is not there: {_ALLOWED}")
    found = [_source(path)] if _source(path) else _inside(path)
    sources = [source for source in found if source is not None]
    if not sources:
        raise UserError(f"{path} holds nothing that can be trained on: {_ALLOWED}")
    return sources


_ALLOWED = (
    "allowed are a rosbag2 folder or its .mcap or .db3, a ROS 1 .bag, a video, a folder of images, simulated episodes, "
    "or a folder of these"
)


def _source(path: Path) -> Source | None:
    from training.data.bags import Bag  # these import this module
    from training.data.pictures import Episodes, ImageFolder, Video

    if path.is_dir():
        if path.suffix == STORE_SUFFIX:
            return None
        names = [entry.name for entry in path.iterdir()]
        if "metadata.yaml" in names or any(_is_storage(name) for name in names):
            return Bag(path)
        if any(re.fullmatch(r"episode_\d+\.npz", name) for name in names):
            return Episodes(path)
        return ImageFolder(path) if any(Path(name).suffix.lower() in IMAGE_SUFFIXES for name in names) else None
    if path.suffix in BAG_SUFFIXES:
        return Bag(path)
    if path.suffix.lower() in VIDEO_SUFFIXES:
        return Video(path)
    return Episodes(path) if path.suffix == ".npz" else None


def _is_storage(name: str) -> bool:
    """Whether a file is a part of a rosbag2, whose other parts are in the same folder."""
    return Path(name.removesuffix(".zstd")).suffix in (".mcap", ".db3")


def _inside(path: Path) -> list[Source | None]:
    if not path.is_dir():
        return []
    entries = sorted(path.iterdir(), key=lambda entry: natural(entry.name))
    return [_source(entry) for entry in entries if not entry.name.startswith(".")]


def natural(name: str) -> list[tuple[int, int | str]]:
    """A sort key that puts img9 before img10."""
    return [(0, int(part)) if part.isdigit() else (1, part) for part in re.split(r"(\d+)", name) if part]
