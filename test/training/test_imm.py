from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from keypoint_perception.errors import UserError
from training.methods.imm import IMM, IMMConfig
from training.networks import Decoder, Encoder
from training.regularisation import Regularisation

TINY = IMMConfig(
    keypoints=3, width=4, map_stride=4, code_stride=4, generator_width=8, generator_least_width=4, features="pixels"
)


def build(size=(32, 24), **changes):
    torch.manual_seed(0)
    return IMM(replace(TINY, **changes), size)


def images(seed=0, size=(32, 24)):
    return torch.rand(2, 3, size[1], size[0], generator=torch.Generator().manual_seed(seed))


def convolutions(module: nn.Module) -> list[tuple[int, int, int, int]]:
    parts = [part for part in module.modules() if isinstance(part, nn.Conv2d)]
    return [(part.in_channels, part.out_channels, part.kernel_size[0], part.stride[0]) for part in parts]


def test_detector_is_the_paper_s_table():
    """Section 4.1: blocks of two 3x3 convolutions, the first 7x7, 32 channels doubled by each stride-2 block."""
    assert convolutions(IMM(IMMConfig(), (128, 128)).detector) == [
        (3, 32, 7, 1),
        (32, 32, 3, 1),
        (32, 64, 3, 2),
        (64, 64, 3, 1),
        (64, 128, 3, 2),
        (128, 128, 3, 1),
        (128, 256, 3, 2),
        (256, 256, 3, 1),
        (256, 30, 1, 1),
    ]


def test_generator_is_the_paper_s_table():
    """From 256 channels, halved at each doubling of the size, to the image; never fewer than 32."""
    method = IMM(IMMConfig(), (128, 128))
    assert convolutions(method.generator) == [
        (256 + 30, 256, 3, 1),
        (256, 256, 3, 1),
        (256, 128, 3, 1),
        (128, 128, 3, 1),
        (128, 64, 3, 1),
        (64, 64, 3, 1),
        (64, 32, 3, 1),
        (32, 32, 3, 1),
        (32, 3, 3, 1),
    ]
    assert convolutions(Decoder(8, 16, 3, least_width=8))[-1] == (8, 3, 3, 1)


def test_defaults_are_the_paper_s():
    config = IMMConfig()
    assert (config.sigma, config.gaussian, config.softmax) == (0.1, "halved", "sum")
    assert (config.optimizer.name, config.optimizer.lr, config.optimizer.weight_decay) == ("adam", 1e-2, 5e-4)
    assert config.optimizer.clip_norm == 1.0
    weights = IMM(config, (128, 128)).detector[0].blocks[2][0].weight
    assert weights.abs().max() <= 0.02 and weights.std().item() == pytest.approx(0.0088, rel=0.02)  # cut off at 2 σ


@pytest.mark.parametrize("softmax", ["sum", "mean"])
def test_keypoints_of_an_axis_each_equal_a_slow_loop(softmax):
    method = build(softmax=softmax).eval()
    with torch.no_grad():
        method.detector[1].weight.mul_(300)  # logits of some size
        maps = method.detector(images() - 0.5).double().numpy()
        found = method.detect(images()).keypoints.numpy()
    height, width = maps.shape[-2:]
    for b in range(2):
        for k in range(3):
            x_logits = [sum(maps[b, k, r, c] for r in range(height)) for c in range(width)]
            y_logits = [sum(maps[b, k, r, c] for c in range(width)) for r in range(height)]
            if softmax == "mean":
                x_logits, y_logits = [v / height for v in x_logits], [v / width for v in y_logits]
            expected = []
            for logits in (x_logits, y_logits):
                weights = [math.exp(v) for v in logits]
                places = [-1 + 2 * i / (len(logits) - 1) for i in range(len(logits))]
                expected.append(sum(w * p for w, p in zip(weights, places, strict=True)) / sum(weights))
            assert found[b, k] == pytest.approx(expected, abs=1e-5)


def test_joint_keypoints_are_equation_1():
    method = build(softmax="joint").eval()
    with torch.no_grad():
        method.detector[1].weight.mul_(300)
        maps = method.detector(images() - 0.5).double().numpy()
        found = method.detect(images()).keypoints.numpy()
    weights = np.exp(maps) / np.exp(maps).sum(axis=(2, 3), keepdims=True)
    ys, xs = (np.linspace(-1, 1, n) for n in maps.shape[-2:])
    assert found[..., 0] == pytest.approx((weights * xs).sum(axis=(2, 3)), abs=1e-5)
    assert found[..., 1] == pytest.approx((weights * ys[:, None]).sum(axis=(2, 3)), abs=1e-5)


def test_the_target_reaches_the_generator_through_the_points_alone():
    """Two targets with the same points give the same reconstruction, and the gradient flows through those points."""
    method = build().eval()
    points = torch.zeros(2, 3, 2, requires_grad=True)
    drawn = method.generate(images(1), points)
    assert drawn.shape == (2, 3, 24, 32)
    drawn.square().sum().backward()
    assert points.grad.abs().sum() > 0


@pytest.mark.parametrize(("gaussian", "expected"), [("halved", math.exp(-0.5)), ("plain", math.exp(-1))])
def test_the_generator_sees_gaussians_of_sigma(gaussian, expected):
    """At the cell that is σ away from a point: the map is 8 cells wide, 2 / 7 apart, and 6 high, 2 / 5 apart.

    The point is in the middle of the 4 x 4 pixels of column 3, row 2.
    """
    method = build(gaussian=gaussian, sigma=2 / 7).eval()
    seen = []
    method.generator.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    method.generate(images(), torch.tensor([-1 + 13.5 * 2 / 31, -1 + 9.5 * 2 / 23]).expand(2, 3, 2))
    maps = seen[0][:, -3:]
    assert maps.shape == (2, 3, 6, 8)
    torch.testing.assert_close(maps[..., 2, 3], torch.ones(2, 3))
    for column in (2, 4):
        torch.testing.assert_close(maps[..., 2, column], torch.full((2, 3), expected))
    for row in (1, 3):  # 7 / 5 σ away
        torch.testing.assert_close(maps[..., row, 3], torch.full((2, 3), expected ** (49 / 25)))


def test_loss_is_the_squared_error_where_the_mask_keeps_it():
    method = build(running_mean_rate=None)
    batch = {"image": images(0), "reference": images(1)}
    with torch.no_grad():
        drawn = method.generate(batch["reference"], method.detect(batch["image"]).keypoints)
        whole = method.loss(batch, "main")["reconstruction"]
        assert whole.item() == pytest.approx((drawn - batch["image"]).square().mean().item(), rel=1e-4)
        mask = torch.zeros(2, 1, 24, 32)
        mask[..., :8] = 1
        part = method.loss({**batch, "loss_mask": mask}, "main")["reconstruction"]
        expected = (drawn - batch["image"])[..., :8].square().mean().item()
        assert part.item() == pytest.approx(expected, rel=1e-4)


def test_half_size_reconstruction_is_compared_at_half_size():
    method = build(output_stride=2)
    batch = {"image": images(0), "reference": images(1)}
    assert method.generate(batch["reference"], torch.zeros(2, 3, 2)).shape == (2, 3, 12, 16)
    assert torch.isfinite(method.loss(batch, "main")["reconstruction"])
    assert method.eval().preview(batch)["reconstruction"].shape == batch["image"].shape


def test_optional_terms_appear_only_when_asked_for():
    batch = {"image": images(0), "reference": images(1)}
    assert set(build().loss(batch, "main")) == {"reconstruction"}
    terms = Regularisation(concentration=1.0, separation=1.0, foreground=1.0, equivariance=1.0)
    extra = build(regularisation=terms, motion_weight=2.0).loss(batch, "main")
    assert set(extra) == {"reconstruction", "concentration", "separation", "foreground", "equivariance"}


def test_early_stride_gives_the_same_map_size_with_a_block_less():
    image = torch.zeros(1, 3, 24, 32)
    late, early = Encoder(3, 4, 2), Encoder(3, 4, 2, early_stride=True)
    assert late(image).shape[-2:] == early(image).shape[-2:] == (6, 8)
    assert (late.channels, early.channels) == (16, 8)


@pytest.mark.parametrize(
    ("changes", "size", "message"),
    [
        ({"keypoints": 0}, (32, 32), "keypoints is 0: give 1 or more"),
        ({"map_stride": 3}, (32, 32), "map_stride is 3: allowed are powers of two"),
        ({"code_stride": 2, "output_stride": 4}, (32, 32), "code_stride is 2: allowed are powers of two from 4"),
        ({}, (30, 32), "input_size"),
    ],
)
def test_bad_settings_are_refused(changes, size, message):
    with pytest.raises(UserError, match=message):
        build(size, **changes)
