"""What every method must do, whatever its paper. A new method adds its smallest config to `SMALLEST`."""

from __future__ import annotations

import copy
import dataclasses
import re
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch

from training.config import LoopConfig
from training.data import DataConfig
from training.methods import METHODS
from training.methods.command import field_comments
from training.onnx_graph import detect_frames, parity, to_onnx
from training.trainer import make_optimizer

SIZE = (32, 32)
BATCH = 8
SMALLEST: dict[str, dict[str, Any]] = {
    "imm": {
        "keypoints": 5,
        "width": 8,
        "map_stride": 4,
        "early_stride": True,
        "generator_width": 32,
        "generator_least_width": 16,
        "features": "pyramid",
    },
    "autolink": {
        "keypoints": 5,
        "detector_widths": (8, 16, 32),
        "decoder_width": 8,
        "decoder_depth": 2,
        "mask_cells": 4,
        "thickness": 5e-3,
        "edge_lr_multiplier": 10.0,  # of a learning rate 50 times the paper's
        "features": "pyramid",
    },
    "npt": {"points": 5, "width": 8, "psi_widths": (8,) * 8, "background_size": 8, "temperature_steps": 50},
    "transporter": {"keypoints": 4, "width": 8, "decoder_least_width": 8},
    "keypoint_pyramids": {
        "keypoints": (2, 4),
        "width": 8,
        "pyramid_width": 16,
        "transport_channels": (16, 8),
        "decoder_width": 16,
        "decoder_least_width": 8,
    },
    "keypointgan": {
        "keypoints": 4,
        "edges": ((0, 1), (1, 2), (2, 3)),
        "width": 8,
        "discriminator_width": 8,
        "discriminator_halvings": 2,
        "scales": 1,
        "heatmap_stride": 4,
        "line_width": 0.1,
        "features": "pyramid",
        "pretrain_steps": 20,
    },
}
SMALLEST["limbs"] = {"links": (1, 3), "width": 8, "drawn": 8, "background_window": 9}
DRAWS_ITS_OWN_DATA = {"limbs"}
"""Learns from figures that it draws and reconstructs nothing; test_limbs.py holds it to its own task."""
OVERFIT_RATE = {
    "imm": 3e-3,
    "autolink": 3e-3,
    "npt": 5e-3,
    "transporter": 3e-3,
    "keypoint_pyramids": 3e-3,
    "keypointgan": 1e-3,
}
OVERFIT_STEPS = {"autolink": 250, "keypointgan": 100, "npt": 80}


def frames(count: int = BATCH, seed: int = 0) -> np.ndarray:
    """(count, 32, 32, 3) uint8: two coloured squares at random places before a grey ramp."""
    rng = np.random.default_rng(seed)
    images = np.broadcast_to(np.linspace(60, 90, SIZE[0])[None, None, :, None], (count, SIZE[1], SIZE[0], 3)).copy()
    for image in images:
        for colour in ((230, 40, 40), (40, 220, 60)):
            x, y = rng.integers(2, SIZE[0] - 10, 2)
            image[y : y + 8, x : x + 8] = colour
    return images.astype(np.uint8)


def make_batch(method: Any) -> dict[str, torch.Tensor]:
    """All keys that a method may require."""
    as_images = [torch.from_numpy(frames(seed=seed)).permute(0, 3, 1, 2).float() / 255 for seed in (0, 1)]
    prior = torch.rand(BATCH, method.keypoint_count, 2, generator=torch.Generator().manual_seed(2)) * 1.6 - 0.8
    batch = {"image": as_images[0], "reference": as_images[1], "loss_mask": torch.ones(BATCH, 1, *SIZE[::-1])}
    return batch | {"prior_keypoints": prior}


@pytest.fixture(params=sorted(METHODS))
def method(request):
    assert request.param in SMALLEST, f"add a smallest config of {request.param} to SMALLEST"
    torch.manual_seed(0)
    kind = METHODS[request.param]
    made = kind(kind.Config(**SMALLEST[request.param]), input_size=SIZE)
    made.name = request.param
    return made


def train_steps(method, batch, steps, rate=None):
    """What the loop does, on one batch."""
    optimizers = {}
    for step in range(steps):
        method.train()
        method.step = step
        for phase in method.phases(step):
            if phase not in optimizers:
                optimizers[phase] = make_optimizer(method.optimizer, method.param_groups(phase))
            for group in optimizers[phase].param_groups:
                group["lr"] = (rate or method.optimizer.lr) * group["lr_multiplier"]
            method.zero_grad()
            torch.stack(list(method.loss(batch, phase).values())).sum().backward()
            parameters = [p for group in optimizers[phase].param_groups for p in group["params"]]
            torch.nn.utils.clip_grad_norm_(parameters, method.optimizer.clip_norm or float("inf"))
            optimizers[phase].step()
    return method.eval()


@pytest.mark.parametrize("config", [*(kind.Config for kind in METHODS.values()), LoopConfig, DataConfig])
def test_every_option_says_in_a_sentence_what_it_means(config):
    unexplained = []

    def look(config):
        comments = field_comments(type(config))
        for field in dataclasses.fields(config):
            if dataclasses.is_dataclass(getattr(config, field.name)):
                look(getattr(config, field.name))
            elif not re.fullmatch(r"(?!Of )[^a-z].*\.", comments.get(field.name, "")):
                unexplained.append(field.name)

    look(config())
    assert unexplained == []


def test_losses_are_finite_scalars_and_leave_the_batch_alone(method):
    batch = make_batch(method)
    before = copy.deepcopy(batch)
    for phase in method.phases(0):
        terms = method.loss(batch, phase)
        assert terms
        assert all(term.ndim == 0 and torch.isfinite(term) for term in terms.values()), terms
    assert all(torch.equal(batch[key], before[key]) for key in batch)


def test_only_the_required_keys_are_needed(method):
    batch = {key: value for key, value in make_batch(method).items() if key in method.required_keys}
    assert batch.keys() == method.required_keys
    for phase in method.phases(0):
        method.loss(batch, phase)


def test_each_phase_moves_its_own_parameters(method):
    batch = make_batch(method)
    for phase in method.phases(0):
        parameters = [p for group in method.param_groups(phase) for p in group["params"]]
        assert len({id(p) for p in parameters}) == len(parameters) > 0
        method.zero_grad()
        torch.stack(list(method.loss(batch, phase).values())).sum().backward()
        moved = [p.grad is not None and bool(p.grad.abs().sum() > 0) for p in parameters]
        assert sum(moved) > len(moved) / 2, "most of what a phase steps must get a gradient from it"


def test_detection_is_in_range_deterministic_and_independent_of_the_rest_of_the_batch(method):
    method.eval()
    found = detect_frames(method, frames())
    count = method.keypoint_count
    assert found.keypoints.shape == (BATCH, count, 2)
    assert found.scores.shape == (BATCH, count)
    assert found.adjacency.shape == (BATCH, count, count)
    assert found.parent.shape == found.level.shape == (BATCH, count)
    assert found.keypoints.abs().max() <= 1 + 1e-5
    for field in (found.scores, found.adjacency):
        assert field.min() >= 0
        assert field.max() <= 1
    assert torch.equal(found.adjacency, found.adjacency.transpose(1, 2))
    assert not found.adjacency.diagonal(dim1=1, dim2=2).any()
    child = torch.arange(count)
    for parent, level in zip(found.parent, found.level, strict=True):
        has = parent >= 0
        assert (level[parent[has]] < level[child[has]]).all()
    again, alone = detect_frames(method, frames()), detect_frames(method, frames()[:1])
    assert torch.equal(found.keypoints, again.keypoints)
    assert torch.allclose(found.keypoints[:1], alone.keypoints, atol=1e-5)


def test_static_fields_do_not_depend_on_the_image(method):
    method.eval()
    found = detect_frames(method, frames(seed=3))
    for name in method.static_fields:
        values = getattr(found, name)
        assert (values == values[:1]).all(), name


def test_state_survives_saving(method, tmp_path):
    train_steps(method, make_batch(method), 2)
    torch.save(method.state_dict(), tmp_path / "state.pt")
    other = type(method)(method.Config(**SMALLEST[method.name]), input_size=SIZE)
    other.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
    other.step = method.step
    for mine, theirs in zip(detect_frames(method, frames()), detect_frames(other.eval(), frames()), strict=True):
        assert torch.equal(mine, theirs)


def test_onnx_file_finds_the_same_keypoints_at_any_batch_size(method):
    train_steps(method, make_batch(method), 3)
    data = to_onnx(method, frames(16))
    assert parity(method, data, frames(16)).max < 0.01
    graph = onnx.load_from_string(data).graph
    outputs = [output.name for output in graph.output]
    assert outputs == ["keypoints", "scores"] + ([] if "adjacency" in method.static_fields else ["adjacency"])
    session = onnxruntime.InferenceSession(data, providers=["CPUExecutionProvider"])
    found = detect_frames(method, frames(3))
    for name, value in zip(outputs, session.run(outputs, {"image": frames(3)}), strict=True):
        assert value == pytest.approx(getattr(found, name).numpy(), abs=1e-3), name


def test_preview_shows_pictures_of_the_batch(method):
    batch = make_batch(method)
    pictures = method.eval().preview(batch)
    assert "reconstruction" in pictures or method.name in DRAWS_ITS_OWN_DATA
    for name, picture in pictures.items():
        assert picture.shape == batch["image"].shape, name
        assert torch.isfinite(picture).all(), name


def test_eight_frames_are_overfitted(method):
    """The reconstruction explains most of what varies between the frames after a few seconds of training."""
    if method.name in DRAWS_ITS_OWN_DATA:
        pytest.skip("reconstructs nothing")
    batch = make_batch(method)
    train_steps(method, batch, OVERFIT_STEPS.get(method.name, 120), OVERFIT_RATE.get(method.name))
    torch.manual_seed(0)
    drawn = method.preview(batch)["reconstruction"]
    image = batch["image"]
    unexplained = (drawn - image).square().mean() / (image - image.mean(dim=0)).square().mean()
    assert unexplained < 0.5
