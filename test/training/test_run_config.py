"""Settings of a run: what files and flags may say, and that a mistake in them is named."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from tiny_run import tiny_config

from keypoint_perception.errors import UserError
from training.config import config_from_dict, parse_config
from training.methods import METHODS

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--method.keypointz", "3"], "known here are .*method.keypoints"),
        (["--stepz", "3"], "known here are .*steps"),
        (["--steps", "many"], "steps.*int.*many"),
        (["--steps", "0"], "loop: steps is 0: give 1 or more"),
        (["--method.norm", "layer"], "'batch', 'instance', 'group', 'none'.*layer"),
        (["--method.map_stride", "3"], "map_stride is 3: allowed are powers of two"),
        (["--config", "nowhere.yaml"], "nowhere.yaml"),
        (["--accelerator", "abacus"], "auto"),
        (["--method.keypoint", "3"], "known here are .*method.keypoints"),
        (["--data.roi", "[0.5, 0, 0.2, 1]"], "roi is .*0 <= x0 < x1 <= 1"),
    ],
)
def test_bad_settings_are_refused_naming_what_is_allowed(flags, message):
    with pytest.raises(UserError, match=message) as caught:
        tiny_config(*flags)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("steps: [3\n", "bad.yaml is no YAML"),
        ("method: {keypointz: 3}\n", "known here are .*method.keypoints"),
        ("method: {optimizer: {speed: 3}}\n", "known here are .*method.optimizer.lr"),
        ("stepz: 3\n", "known here are .*steps"),
        ("hello\n", "bad.yaml: it is a text: give a mapping such as `steps: 20000`"),
        ("", "it is empty"),
        ("- steps: 50\n", "it is a list"),
        ("[" * 5000, "bad.yaml is no YAML"),
        ("data: 5\n", "bad.yaml: `data` is a single value: give a mapping such as `data: {sampling: default}`"),
        ("data:\n  - topic: a\n", "`data` is a list"),
        ("data: {warp: [1, 2]}\n", r"`data\.warp` is a list: give a mapping such as `data\.warp: {"),
        ("data.warp: [1, 2]\n", r"`data\.warp` is a list"),
        ("steps: 5\nmethod:\n", "`method` is empty: give a mapping such as `method: {keypoints: 30}`"),
        ("method: {optimizer: [lr, 1]}\n", r"`method\.optimizer` is a list"),
    ],
)
def test_bad_files_are_refused_naming_what_is_allowed(tmp_path, text, message):
    (tmp_path / "bad.yaml").write_text(text)
    with pytest.raises(UserError, match=message) as caught:
        tiny_config("--config", str(tmp_path / "bad.yaml"))
    assert "\n" not in str(caught.value)


def test_flags_override_files_and_files_override_defaults(tmp_path):
    (tmp_path / "a.yaml").write_text("steps: 77\nmethod:\n  sigma: 0.3\n  optimizer: {lr: 0.5}\n")
    config = parse_config("imm", ["--config", str(tmp_path / "a.yaml"), "--method.sigma", "0.2"])
    assert (config.loop.steps, config.options.sigma, config.options.optimizer.lr) == (77, 0.2, 0.5)
    assert config.options.optimizer.weight_decay == 5e-4
    assert config_from_dict("imm", config.to_dict()) == config


def test_a_config_may_come_through_a_pipe():
    reading, writing = os.pipe()
    os.write(writing, b"steps: 77")
    os.close(writing)
    assert parse_config("imm", [f"--config=/dev/fd/{reading}"]).loop.steps == 77
    os.close(reading)


@pytest.mark.parametrize("path", sorted((ROOT / "config" / "train").glob("*.yaml")), ids=lambda path: path.stem)
def test_every_shipped_config_is_valid(path):
    name = next(n for n in sorted(METHODS, key=len, reverse=True) if path.stem.startswith(n))
    parse_config(name, ["--config", str(path)])


def test_a_seed_that_is_no_seed_is_named():
    with pytest.raises(UserError, match=r"seed is 9{25}: give a number below 2\^63"):
        parse_config("imm", ["--seed", "9" * 25])
