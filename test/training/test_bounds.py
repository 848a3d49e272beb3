"""A bad option of any method is refused with one line that names it, its value and what may be given."""

import pytest

from keypoint_perception.errors import UserError
from training.config import parse_config

BAD = [
    ("imm", "optimizer.lr", "-1", "optimizer: lr is -1.0: give a number above 0"),
    ("imm", "optimizer.decay_steps", "0", "optimizer: decay_steps is 0: give 1 or more"),
    ("imm", "optimizer.betas", "[0.5, 1]", "optimizer: betas is [0.5, 1.0]: give two numbers from 0 to below 1"),
    ("imm", "init_std", "-1", "imm: init_std is -1.0: give 0 or more"),
    ("imm", "motion_weight", "-4", "imm: motion_weight is -4.0: give 0 or more"),
    ("npt", "psi_strides", "[2, 1, 2, 1, 2, 1, 1, 0]", "npt: psi_strides is [2, 1, 2, 1, 2, 1, 1, 0]: give 1 or more"),
    ("limbs", "bend", "-1", "limbs: bend is -1.0: give 0 or more"),
    ("imm", "sigma", "0", "imm: sigma is 0.0: give a number above 0"),
    ("imm", "map_stride", "3", "imm: map_stride is 3: allowed are powers of two from 1 to 64"),
    ("transporter", "keypoints", "0", "transporter: keypoints is 0: give 1 or more"),
    ("keypoint_pyramids", "spring", "-1", "keypoint_pyramids: spring is -1.0: give 0 or more"),
    ("keypointgan", "finetune", "[1, -2]", "keypointgan: finetune is [1.0, -2.0]: give 0 or more"),
    ("keypointgan", "keypoints", "0", "keypointgan: keypoints is 0: give 1 or more"),
    ("autolink", "keep", "0", "autolink: keep is 0.0: give a number above 0, up to 1"),
    ("autolink", "detector_widths", "[]", "autolink: detector_widths is empty: give channels for each stage"),
    ("autolink", "regularisation.foreground", "-1", "regularisation: foreground is -1.0: give 0 or more"),
    ("npt", "extent", "-1", "npt: extent is -1.0: give 0 or more"),
    ("npt", "uniform_pool", "4", "npt: uniform_pool is 4: give an odd number of pixels from 1 on"),
    ("npt", "temperature", "-1", "npt: temperature is -1.0: give a number above 0"),
    ("npt", "power", "0", "npt: power is 0.0: give a number above 0, up to 1"),
    ("limbs", "one_hue", "1.5", "limbs: one_hue is 1.5: give a number from 0 to 1"),
    ("limbs", "background_window", "1", "limbs: background_window is 1: give an odd number of pixels from 3 on"),
]


@pytest.mark.parametrize(("method", "option", "value", "message"), BAD)
def test_a_bad_option_is_named(method, option, value, message):
    with pytest.raises(UserError) as raised:
        parse_config(method, [f"--method.{option}={value}"])
    assert str(raised.value) == message


@pytest.mark.parametrize(("option", "value"), [("keypoints", "null"), ("pool", "0"), ("skeleton_stride", "1")])
def test_what_is_at_the_bound_is_taken(option, value):
    config = parse_config("keypointgan", [f"--method.{option}={value}"])
    assert getattr(config.options, option) == (None if value == "null" else int(value))
