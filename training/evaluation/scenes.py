"""The scenes of the benchmark: what data each has, where it comes from, and which configs fit it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from keypoint_perception.errors import UserError

CONFIGS = Path(__file__).resolve().parents[2] / "config" / "train"
SIDE_MULTIPLE = 16
"""Inputs' sides are multiples of so many pixels. NPT on images of half the size, and Keypoint Pyramids, need
twice as many: where the aspect ratio does not give that, they have a config of the scene."""
DEFAULT_EPSILON = 0.20
SPLITS = ("train", "labels", "test")
"""What a scene's data is for: to learn keypoints from without labels, to fit to labels, to measure on."""
EPISODES = {"train": ("train", 0), "labels": ("test", 2), "test": ("test", 1)}
"""By what they are for: which bodies the episodes of a set show, and their seed."""
RECORDINGS = {"train": ("none", 0), "labels": ("png", 2000), "test": ("png", 1000)}
"""By what they are for: the depth of a scene's recordings, and the first of their seeds, one a recording."""
POSES_SEED = 7
"""Of unpaired poses, which come from no recording."""
POSES = 4000
SMALL_TURN = 30
"""Degrees up to which bodies are turned that look the same from several sides,"""
SLIGHTLY_TURNED = ("npt", "transporter", "autolink")
"""for methods that gain by it. IMM's points meet, and those of Keypoint Pyramids lose more than they gain."""


@dataclass(frozen=True)
class Scene:
    """Simulated data of one kind."""

    name: str
    command: tuple[str, ...]
    """What follows `python -m training simulate`."""
    size: tuple[int, int]
    """(width, height) of its frames, pixels."""
    epsilon: float = DEFAULT_EPSILON
    """Largest distance of a matched joint, in [-1, 1] units (NPT, section VIII; the default for what it does not
    have)."""
    most_joints: int | None = None
    """Of a body in the test data. As the paper gave the Transporter so many, all methods that have a fixed number of
    keypoints get it; None leaves what their config says."""
    symmetric: bool = False
    """Whether a body looks the same from two or more sides, as a snake or a spider: then nothing says which of its
    parts a point belongs to once it has turned around, and points need to turn along with it but a little, or not."""
    topic: str = ""
    """Image topic where the data is bags; empty for episodes."""

    def simulation(self, split: str, count: int, folder: Path) -> list[str]:
        """The arguments of `python -m training` that make `count` episodes or recordings of one of SPLITS."""
        arguments = ["simulate", *self.command, "-o", str(folder)]
        if self.topic:
            depth, seed = RECORDINGS[split]
            return [*arguments, "--recordings", str(count), "--seed", str(seed), "--depth", depth]
        bodies, seed = EPISODES[split]
        return [*arguments, "--episodes", str(count), "--seed", str(seed), "--split", bodies]

    def poses(self, file: Path) -> list[str]:
        """The arguments of `python -m training` that make unpaired poses, for methods that learn from such."""
        size = ["--size", f"{self.size[0]}x{self.size[1]}"] if self.topic else []
        return ["simulate", self.command[0], *size, "--poses", str(POSES), "--seed", str(POSES_SEED), "-o", str(file)]

    def sources(self, folder: Path) -> list[str]:
        """What `fit --data` is given: the episodes' folder, or its bags, beside which lie pictures."""
        return [str(bag.parent) for bag in sorted(folder.glob("*/metadata.yaml"))] if self.topic else [str(folder)]

    def fit_options(self, method: str) -> list[str]:
        """The options of `fit METHOD` that this scene needs: its config and what differs there. Raises UserError."""
        file = config_file(method, self.name)
        config = yaml.safe_load(file.read_text())
        options = ["--config", str(file)]
        if file.stem != f"{method}_{self.name}":
            width, height = self.input_size(config["data"]["input_size"])
            options.append(f"--data.input_size=[{width},{height}]")
        options += self._method_options(method, config.get("method", {}))
        return options + (["--topic", self.topic] if self.topic else [])

    def _method_options(self, method: str, given: dict[str, Any]) -> list[str]:
        """What a body of this kind changes of the options that a method's config has given."""
        options = []
        if self.most_joints and isinstance(given.get("keypoints"), int):
            options.append(f"--method.keypoints={self.most_joints}")
        for prefix, section in (("", given), ("regularisation.", given.get("regularisation", {}))):
            if self.symmetric and "equivariance" in section:
                change = f"turn={SMALL_TURN}" if method in SLIGHTLY_TURNED else "equivariance=0"
                options.append(f"--method.{prefix}{change}")
        return options

    def schedule_options(self, method: str, steps: int) -> list[str]:
        """The options of `fit METHOD` that make it last `steps` steps, the stages of its config in proportion."""
        config = yaml.safe_load(config_file(method, self.name).read_text())
        stages = {name: value for name, value in config.get("method", {}).items() if name.endswith("_steps")}
        share = steps / config["steps"]
        return [f"--steps={steps}", *(f"--method.{name}={max(1, round(v * share))}" for name, v in stages.items())]

    def input_size(self, wanted: tuple[int, int]) -> tuple[int, int]:
        """(width, height) with about the wanted width and the frames' aspect ratio, never larger than the frames."""
        width = min(wanted[0], self.size[0])
        sides = (width, width * self.size[1] / self.size[0])
        return tuple(max(1, round(side / SIDE_MULTIPLE)) * SIDE_MULTIPLE for side in sides)  # type: ignore[return-value]


_TABLE_CAMERA = ("--size", "320x240", "--rate", "10", "--seconds", "60", "--cameras", "table", "--jpeg-quality", "92")
SCENES = {
    scene.name: scene
    for scene in (
        Scene("spiders", ("spiders",), (64, 64), most_joints=25, symmetric=True),
        Scene("cartpoles", ("cartpoles",), (64, 64), epsilon=0.15, most_joints=6),
        Scene("whcm", ("whcm",), (64, 64), epsilon=0.30, most_joints=9),
        Scene("swimmers", ("swimmers",), (64, 64), most_joints=8, symmetric=True),
        Scene("spiders0shot", ("spiders0shot",), (64, 64), most_joints=16, symmetric=True),
        Scene("tabletop", ("tabletop", *_TABLE_CAMERA), (320, 240), topic="/table/image_raw/compressed"),
    )
}
"""By name: the paper's five sets and a robot arm before a fixed camera."""
SIBLINGS = {"spiders0shot": "spiders"}
"""Scenes of the same kind of object, which share their configs."""


def config_file(method: str, scene: str) -> Path:
    """The config of a method for a scene, else its small one. Raises UserError where there is neither."""
    names = [f"{method}_{scene}.yaml", f"{method}_{SIBLINGS.get(scene, scene)}.yaml", f"{method}_small.yaml"]
    for name in names:
        if (CONFIGS / name).is_file():
            return CONFIGS / name
    raise UserError(f"no config for {method} on {scene}: write {CONFIGS / names[0]}")


def epsilon_of(description: dict[str, Any]) -> float:
    """The scene's epsilon, from the content of the scene.json that lies beside its episodes."""
    scene = SCENES.get(description.get("scene", ""))
    return scene.epsilon if scene else DEFAULT_EPSILON
