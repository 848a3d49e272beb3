"""From a path to the recordings it names."""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path

from keypoint_perception.errors import UserError
from training.data.bags import Bag, unpacked
from training.data.pictures import IMAGE_SUFFIXES, Episodes, ImageFolder, Video
from training.data.sources import Source, natural
from training.data.store import STORE_SUFFIX

VIDEO_SUFFIXES = frozenset({".mp4", ".avi", ".mov", ".mkv", ".webm", ".m4v", ".mpg", ".mpeg", ".wmv", ".mjpg"})
BAG_SUFFIXES = frozenset({".mcap", ".db3", ".bag"})


def open_sources(paths: list[str]) -> list[Source]:
    """The sources that paths name; a folder may hold several. Raises UserError where one cannot be a recording."""
    if not paths:
        raise UserError("no recordings given: name at least one bag, video, folder of images or of episodes")
    return [source for path in paths for source in open_source(Path(path))]


def open_source(path: Path) -> list[Source]:
    """The sources of one path: one, or all in a folder of bags and videos."""
    if not path.exists():
        raise UserError(f"{path} is not there: {_ALLOWED}")
    source = Episodes(path) if path.suffix == ".npz" else _source(path)
    sources = [source] if source else _inside(path)
    if not sources:
        raise UserError(f"{path} holds nothing that can be trained on: {_ALLOWED}")
    return sources


_ALLOWED = (
    "allowed are a rosbag2 folder or its .mcap or .db3, a ROS 1 .bag, a video, a folder of images, simulated episodes, "
    "or a folder of these"
)


def _source(path: Path) -> Source | None:
    kind = _kind(path)
    if kind is not None:
        return kind(path)
    names = _names(path) if path.suffix != STORE_SUFFIX else []
    if not _has_pictures(names) or any(_kind(path / name) for name in names):  # pictures beside recordings are of them
        return None
    others = [name for name in names if not _has_pictures([name])]
    more = [name for name in others if _has_pictures(_names(path / name))]
    if more:
        print(f"{path}: its own pictures are used, not those in its folders {', '.join(more)}", file=sys.stderr)
    return ImageFolder(path)


def _has_pictures(names: list[str]) -> bool:
    return any(Path(name).suffix.lower() in IMAGE_SUFFIXES for name in names)


def _kind(path: Path) -> type[Source] | None:
    """What a file or a folder is, if it is a recording and not a folder of images."""
    suffix = Path(path.name.removesuffix(".zstd")).suffix
    if suffix.lower() in IMAGE_SUFFIXES or path.suffix == STORE_SUFFIX:
        return None
    if not path.is_dir():
        return Bag if suffix in BAG_SUFFIXES else Video if suffix.lower() in VIDEO_SUFFIXES else None
    names = _names(path)
    if "metadata.yaml" in names or _is_one_recording(names):
        return Bag
    return Episodes if any(re.fullmatch(r"episode_\d+\.npz", name) for name in names) else None


def _names(path: Path) -> list[str]:
    """What is in a folder, in natural order, without files that are unpacked beside; nothing if unreadable."""
    try:
        return sorted((name for name in unpacked(os.listdir(path)) if not name.startswith(".")), key=natural)
    except OSError:
        return []


def _is_one_recording(names: list[str]) -> bool:
    """Whether the bag files of a folder without metadata.yaml are one recording: run_0.mcap, run_1.mcap, …"""
    parts = [match for name in names if (match := re.fullmatch(r"(.+?)(_\d+)?\.(mcap|db3)(\.zstd)?", name))]
    return len(parts) == 1 or (bool(parts) and len({part[1] for part in parts}) == 1 and all(part[2] for part in parts))


def _inside(path: Path) -> list[Source]:
    found = [_source(path / name) for name in _names(path)]
    return [source for source in found if source is not None]
