"""What recordings of every kind have in common."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

from keypoint_perception.errors import UserError
from keypoint_perception.picture_topics import only_picture_topic
from training.data.salvage import Damage


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
    """Gives (H, W, 3) uint8 RGB, in memory perhaps with blue first; raises UserError; may run in any thread."""


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
    is_decoded = False
    """Whether its images are decoded already when they are handed out."""

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
        """The topic itself, or the only topic of pictures where none is asked for. Raises UserError that lists them."""
        images = sorted({t.name for t in self.topics() if t.is_image})  # one topic may have both types of images
        if images == [""]:  # a topic is for the bags among several sources
            return ""
        if not topic:
            return only_picture_topic(self.path, [(t.name, t.type_name) for t in self.topics()], self._encodings)
        if topic not in images:
            listed = ", ".join(images) or "none at all"
            raise UserError(f"{self.path} has no image topic {topic!r}, it has {listed}: choose one that it has")
        return topic

    def _encodings(self, topic: str) -> Iterator[str | None]:
        """See picture_topics.Encodings."""
        return (item.encoding if isinstance(item, Item) else None for item in self.items(topic))

    def count(self, topic: str) -> int:
        """About how many items a topic has, for the progress bar."""
        return sum(t.messages for t in self.topics() if t.name == topic)


def natural(name: str) -> list[tuple[int, int | str]]:
    """A sort key that puts img9 before img10; of names that differ in zeros before a number each has its own place."""
    parts: list[tuple[int, int | str]] = [
        (0, int(part)) if part.isdecimal() else (1, part) for part in re.split(r"(\d+)", name) if part
    ]
    return [*parts, (-1, name)]
