"""Folders of simulated episodes: the five sets of the paper that learns skeletons from pairs of images, section IX.

    DIR/scene.json          what the folder holds
    DIR/episode_00000.npz   one episode a file, see `training.simulation.episode`
    DIR/episode_00000/      or, where asked for, one episode a rosbag2, see `training.simulation.recording`
    DIR/sheet.png           some frames with joints and limbs drawn

An episode depends on scene, variant, split, seed, size and its number, and on nothing else: not on the other episodes,
nor on how many processes make them.
"""

from __future__ import annotations

import functools
import json
import multiprocessing
import os
import zlib
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from keypoint_perception.errors import UserError
from keypoint_perception.files import written_whole
from training.simulation import cartpoles, spiders, swimmers, whcm
from training.simulation.articulated import SUPERSAMPLING, Actor, Variant
from training.simulation.episode import write_episode
from training.simulation.scene import check_setting

SPLITS = ("train", "test")
SETTINGS_FILE = "scene.json"
_REVISION = 1
"""To be raised when the same settings give other episodes than before."""

Builders = dict[str, Callable[[], Variant]]


def _numbered(build: Callable[[int], Variant], name: str, numbers: tuple[int, ...]) -> Builders:
    return {f"{name}{n}": functools.partial(build, n) for n in numbers}


_SPIDERS = _numbered(spiders.spider, "spider", spiders.LEGS)
_SPIDERS_TRAIN = {name: _SPIDERS[name] for name in ("spider3", "spider6", "spider7", "spider8")}
_SPIDERS_UNSEEN = {name: _SPIDERS[name] for name in ("spider4", "spider5")}
_CARTPOLES = _numbered(cartpoles.cartpole, "cartpole", cartpoles.POLES)
_SWIMMERS = _numbered(swimmers.swimmer, "swimmer", swimmers.RODS)
_WHCM: Builders = {
    "walker": whcm.walker,
    "hopper": whcm.hopper,
    "cheetah": whcm.cheetah,
    "manipulator": whcm.manipulator,
}

SCENES: dict[str, dict[str, Builders]] = {
    "spiders": {"train": _SPIDERS, "test": _SPIDERS},
    "spiders0shot": {"train": _SPIDERS_TRAIN, "test": _SPIDERS_UNSEEN},
    "cartpoles": {"train": _CARTPOLES, "test": _CARTPOLES},
    "swimmers": {"train": _SWIMMERS, "test": _SWIMMERS},
    "whcm": {"train": _WHCM, "test": _WHCM},
}
"""The objects of each set's splits, by name."""


@dataclass(frozen=True)
class Settings:
    """What a folder of episodes holds. Raises UserError for values that are not allowed."""

    scene: str
    split: str
    seed: int
    size: tuple[int, int]
    """(width, height) in pixels."""
    variant: str = ""
    """The only object to appear; empty for all of the set, drawn at random."""
    bag: bool = False
    """Episodes are bags."""
    revision: int = _REVISION

    def __post_init__(self) -> None:
        if self.split not in SPLITS:
            raise UserError(f"no split {self.split!r}: allowed are {', '.join(SPLITS)}")
        variants(self.scene, self.split, self.variant)
        check_setting(self.seed, self.size, self.supersampling)

    @property
    def supersampling(self) -> int:
        """How many times larger than `size` pictures are rendered."""
        return 1 if self.bag else SUPERSAMPLING


def variants(scene: str, split: str = "train", variant: str = "") -> Builders:
    """The objects of a set, or the one asked for. Raises UserError for a name that is not there."""
    if scene not in SCENES:
        raise UserError(f"no set {scene!r}: allowed are {', '.join(SCENES)}")
    builders = SCENES[scene][split]
    if not variant:
        return builders
    if variant not in builders:
        raise UserError(f"{scene} ({split}) has no {variant!r}: allowed are {', '.join(builders)}")
    return {variant: builders[variant]}


def generator(settings: Settings, purpose: str, number: int) -> np.random.Generator:
    """Randomness that nothing else shares."""
    key = zlib.crc32(f"{settings.scene}/{settings.split}/{settings.variant}/{purpose}".encode())
    return np.random.default_rng([settings.seed, key, number])


def episode_paths(folder: str | os.PathLike[str]) -> list[Path]:
    """The episodes of a folder, in order."""
    return sorted(Path(folder).glob("episode_*.npz"))


def read_settings(folder: str | os.PathLike[str]) -> Settings:
    """What a folder holds. Raises UserError where that cannot be read."""
    path = Path(folder) / SETTINGS_FILE
    try:
        fields = json.loads(path.read_text())
        fields["size"] = tuple(fields["size"])
        del fields["episodes"]
        return Settings(**fields)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path} does not describe simulated episodes ({error}); give another folder") from error


def simulate(
    scene: str,
    out: str | os.PathLike[str],
    episodes: int,
    seed: int = 0,
    size: int | tuple[int, int] = 64,
    split: str = "train",
    workers: int = 1,
    *,
    variant: str = "",
    bag: bool = False,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> None:
    """Makes the episodes 0 to `episodes` - 1 of a set in the folder `out`; those that are there already stay.

    `size` is one side or (width, height) in pixels. `progress` is told how many are done of how many that were missing.
    Raises UserError for bad values, and where `out` holds something else.
    """
    settings = Settings(scene, split, seed, (size, size) if isinstance(size, int) else size, variant, bag)
    for name, value in (("episodes", episodes), ("workers", workers)):
        if value < 1:
            raise UserError(f"{name} {value}: give a number from 1")
    folder = Path(out)
    _claim(folder, settings, episodes)
    missing = [n for n in range(episodes) if not _path(folder, n, bag).exists()]
    for done, _ in enumerate(_made(settings, folder, missing, min(workers, len(missing))), start=1):
        progress(done, len(missing))


def _claim(folder: Path, settings: Settings, episodes: int) -> None:
    """Writes scene.json, unless the folder belongs to something else."""
    described = folder / SETTINGS_FILE
    if described.exists():
        present = read_settings(folder)
        if present != settings:
            differs = [f"{k} {v!r}" for k, v in asdict(present).items() if v != asdict(settings)[k]]
            raise UserError(f"{folder} holds episodes with {', '.join(differs)}: give another folder, or delete it")
    elif folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UserError(f"{folder} exists and holds no simulated episodes: give another folder")
    description = asdict(settings) | {"episodes": max(episodes, len(list(folder.glob("episode_*"))))}
    with written_whole(described) as temporary:
        temporary.write_text(json.dumps(description, indent=2) + "\n")


def _path(folder: Path, number: int, bag: bool) -> Path:
    return folder / f"episode_{number:05d}{'' if bag else '.npz'}"


def _made(settings: Settings, folder: Path, numbers: list[int], workers: int) -> Iterator[int]:
    """Makes episodes; yields each number when its file is there."""
    if workers <= 1:
        factory = _Factory(settings, folder)
        try:
            yield from map(factory.make, numbers)
        finally:
            factory.close()
        return
    # A forked process cannot use the rendering context of its parent.
    context = multiprocessing.get_context("spawn")
    with context.Pool(workers, _start_worker, (settings, folder)) as pool:
        yield from pool.imap_unordered(_make_in_worker, numbers)


class _Factory:
    """Makes episodes of a set, and builds each object the first time it is drawn."""

    def __init__(self, settings: Settings, folder: Path) -> None:
        self._settings = settings
        self._folder = folder
        self._builders = variants(settings.scene, settings.split, settings.variant)
        self._actors: dict[str, Actor] = {}

    def make(self, number: int) -> int:
        rng = generator(self._settings, "episode", number)
        name = list(self._builders)[rng.integers(len(self._builders))]
        if name not in self._actors:
            self._actors[name] = Actor(self._builders[name](), self._settings.size, self._settings.supersampling)
        actor, path = self._actors[name], _path(self._folder, number, self._settings.bag)
        if self._settings.bag:
            actor.record(path, rng)
        else:
            write_episode(path, actor.episode(self._settings.scene, self._settings.seed, rng))
        return number

    def close(self) -> None:
        for actor in self._actors.values():
            actor.close()


_factory: _Factory | None = None
"""The one of this worker process."""


def _start_worker(settings: Settings, folder: Path) -> None:
    global _factory
    _factory = _Factory(settings, folder)


def _make_in_worker(number: int) -> int:
    assert _factory is not None, "the pool's initializer ran"
    return _factory.make(number)
