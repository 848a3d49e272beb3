"""The options that each scene adds to `fit`."""

from dataclasses import replace

import numpy as np
import pytest

from keypoint_perception.errors import UserError
from training.checkpoint import build_method
from training.config import method_class, parse_config
from training.evaluation import scenes
from training.evaluation.scenes import SCENES, config_file
from training.methods import METHODS
from training.prior import Poses
from training.simulation import episodes as simulation

SMALL = """
steps: 6000
method: {points: 24, points_steps: 1500, ramp_steps: 2000}
data: {input_size: [128, 128]}
"""


@pytest.fixture
def configs(tmp_path, monkeypatch):
    (tmp_path / "npt_small.yaml").write_text(SMALL)
    (tmp_path / "npt_spiders.yaml").write_text("steps: 500\ndata: {input_size: [64, 64]}")
    monkeypatch.setattr(scenes, "CONFIGS", tmp_path)
    return tmp_path


def test_small_configs_take_the_size_of_the_scene(configs):
    small = ["--config", str(configs / "npt_small.yaml")]
    assert SCENES["cartpoles"].fit_options("npt") == [*small, "--data.input_size=[64,64]"]  # frames have no more
    topic = ["--topic", "/table/image_raw/compressed"]
    assert SCENES["tabletop"].fit_options("npt") == [*small, "--data.input_size=[128,96]", *topic]


def test_a_fixed_number_of_keypoints_is_the_largest_number_of_joints(configs):
    (configs / "imm_small.yaml").write_text("method: {keypoints: 10}\ndata: {input_size: [64, 64]}")
    assert SCENES["swimmers"].fit_options("imm")[-1] == "--method.keypoints=8"
    assert not any("keypoints" in option for option in SCENES["tabletop"].fit_options("imm"))
    (configs / "keypoint_pyramids_small.yaml").write_text("method: {keypoints: [5, 10]}\ndata: {input_size: [64, 64]}")
    assert not any("keypoints" in option for option in SCENES["swimmers"].fit_options("keypoint_pyramids"))


def test_points_of_a_symmetric_body_need_not_turn_along(configs):
    for method, option in (("imm", "equivariance=0"), ("transporter", "turn=30")):
        content = "method: {regularisation: {equivariance: 1}}\ndata: {input_size: [64, 64]}"
        (configs / f"{method}_small.yaml").write_text(content)
        assert f"--method.regularisation.{option}" in SCENES["swimmers"].fit_options(method)
        assert not any("regularisation" in given for given in SCENES["cartpoles"].fit_options(method))
    (configs / "npt_small.yaml").write_text("method: {equivariance: 1}\ndata: {input_size: [64, 64]}")
    assert "--method.turn=30" in SCENES["swimmers"].fit_options("npt")


@pytest.mark.parametrize("name", simulation.SCENES)
def test_bodies_have_as_many_joints_as_the_scene_says(name):
    built = [build() for build in simulation.variants(name, "test").values()]
    assert SCENES[name].most_joints == max(len({end for edge in body.edges for end in edge}) for body in built)


def test_a_config_of_the_scene_knows_its_size(configs):
    own = configs / "npt_tabletop.yaml"
    own.write_text(SMALL)
    assert SCENES["tabletop"].fit_options("npt")[:3] == ["--config", str(own), "--topic"]


def test_sets_of_the_same_animals_share_their_config(configs):
    assert config_file("npt", "spiders0shot") == configs / "npt_spiders.yaml"


def test_a_missing_config_is_named(configs):
    with pytest.raises(UserError, match=r"nothing_cartpoles\.yaml"):
        config_file("nothing", "cartpoles")


def test_a_shorter_run_has_shorter_stages(configs):
    assert SCENES["cartpoles"].schedule_options("npt", 600) == [
        "--steps=600", "--method.points_steps=150", "--method.ramp_steps=200",
    ]  # fmt: skip
    assert SCENES["spiders"].schedule_options("npt", 250) == ["--steps=250"]


def test_no_test_recording_is_a_training_recording(tmp_path):
    seeds = []
    for split in ("train", "test"):
        command = SCENES["tabletop"].simulation(split, 8, tmp_path)
        first = int(command[command.index("--seed") + 1])
        seeds.append(set(range(first, first + 8)))
    assert not seeds[0] & seeds[1]


def test_bags_are_named_one_by_one_since_pictures_lie_beside_them(tmp_path):
    for name in ("recording_00", "recording_01"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "metadata.yaml").touch()
        (tmp_path / f"{name}.png").touch()
    assert SCENES["tabletop"].sources(tmp_path) == [str(tmp_path / name) for name in ("recording_00", "recording_01")]
    assert SCENES["cartpoles"].sources(tmp_path) == [str(tmp_path)]


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("scene", SCENES)
def test_every_method_can_be_built_for_every_scene(scene, method):
    config = parse_config(method, replace(SCENES[scene], topic="").fit_options(method))
    poses = Poses(np.zeros((1, 3, 2), np.float32), np.array([[0, 1], [1, 2]]))
    kind = method_class(method)
    options = kind.fill_from_prior(config.options, poses if kind.uses_prior else None)
    assert build_method(replace(config, options=options)).keypoint_count > 0
