"""Labelled videos from wherever they come: simulated episodes, simulated bags, COCO keypoints files."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from keypoint_perception.errors import UserError
from training.evaluation.bags import read_bag
from training.evaluation.coco import read_coco
from training.evaluation.videos import LabelledVideo, check_split
from training.simulation.episode import read_episode


def read_labelled(path: Path, topic: str = "", fit_on: Path | None = None) -> Iterator[LabelledVideo]:
    """The labelled videos of a path: simulated episodes, one or several simulated bags, a COCO keypoints file (.json).

    topic: the image topic of bags; may be left out where only one camera has ground truth. A folder of bags is one
    video a bag. fit_on: a file with the names of the images, or of the episodes or bags, that regressions are fitted
    on, a line each.
    Raises UserError that says what the path is and what is allowed.
    """
    names = _names(fit_on) if fit_on else None
    if path.is_file() and path.suffix == ".json":
        yield read_coco(path, names)
        return
    recordings = _recordings(path)
    if names is not None:
        those = f"the {len(recordings)} of {path}"
        check_split((name in names for name in recordings), "recordings", those, f"such as {next(iter(recordings))}")
    for name, recording in recordings.items():
        video = _read_episode(recording) if recording.suffix == ".npz" else read_bag(recording, topic)
        yield video if names is None else video._replace(fit=np.full(len(video.frames), name in names))


def _recordings(path: Path) -> dict[str, Path]:
    """Simulated bags or episodes by name."""
    if (path / "metadata.yaml").is_file():
        return {path.name: path}
    bags = sorted(file.parent for file in path.glob("*/metadata.yaml")) if path.is_dir() else []
    bags = [bag for bag in bags if not bag.name.startswith(".")]
    if bags:
        return {bag.name: bag for bag in bags}
    episodes = sorted(path.glob("episode_*.npz")) if path.is_dir() else []
    if not episodes:
        raise UserError(
            f"{path} has no labels that can be measured against: give what `python -m training simulate SCENE -o DIR` "
            "wrote, or a COCO keypoints .json beside its images"
        )
    return {episode.stem: episode for episode in episodes}


def _read_episode(file: Path) -> LabelledVideo:
    episode = read_episode(file)
    return LabelledVideo(
        name=file.stem,
        variant=episode.variant,
        frames=episode.frames,
        joints=episode.keypoints,
        visible=episode.visible,
        adjacency=episode.adjacency,
        mask=episode.mask,
        names=episode.names,
    )


def _names(path: Path) -> frozenset[str]:
    try:
        names = frozenset(line.strip() for line in path.read_text().splitlines() if line.strip())
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path} cannot be read ({error}): give a text file with a name a line") from None
    if not names:
        raise UserError(f"{path} names nothing: give the names to fit on, a line each")
    return names
