"""The Transporter: transport against a loop over points, the paper's layers, what gets a gradient."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from keypoint_perception.errors import UserError
from training.methods.transporter import Transporter, TransporterConfig, one_map, transport
from training.regularisation import Regularisation

SMALL = TransporterConfig(keypoints=4, width=8, early_stride=True, decoder_least_width=8, softmax="sum")


def moving_squares(count: int = 8, size: int = 32, seed: int = 0) -> dict[str, Tensor]:
    """Frames of a bright square on a dark ground, at another place in the reference."""
    places = torch.randint(2, size - 10, (2, count, 2), generator=torch.Generator().manual_seed(seed))
    frames = torch.full((2, count, 3, size, size), 0.1)
    for view in range(2):
        for index in range(count):
            x, y = places[view, index]
            frames[view, index, :, y : y + 8, x : x + 8] = torch.tensor([1.0, 0.6, 0.2])[:, None, None]
    centres = (places[0] + 3.5) / (size - 1) * 2 - 1
    return {"image": frames[0], "reference": frames[1], "keypoints": centres[:, None]}


def test_transport_equals_erasing_point_after_point_and_pasting_what_is_left() -> None:
    generator = torch.Generator().manual_seed(1)
    source, target = torch.rand(2, 1, 3, 4, 5, generator=generator)
    source_maps, target_maps = torch.rand(2, 1, 2, 4, 5, generator=generator)
    moved = transport(source, one_map(source_maps), target, one_map(target_maps))
    for c, y, x in np.ndindex(3, 4, 5):
        keep, bare = 1.0, 1.0
        for k in range(2):
            keep *= (1 - float(source_maps[0, k, y, x])) * (1 - float(target_maps[0, k, y, x]))
            bare *= 1 - float(target_maps[0, k, y, x])
        wanted = keep * float(source[0, c, y, x]) + (1 - bare) * float(target[0, c, y, x])
        assert float(moved[0, c, y, x]) == pytest.approx(wanted, abs=1e-6)


def test_one_map_of_two_points() -> None:
    maps = torch.tensor([0.5, 0.8]).view(1, 2, 1, 1)
    values = {name: one_map(maps, name).item() for name in ("union", "sum", "max")}
    assert values == pytest.approx({"union": 0.9, "sum": 1.0, "max": 0.8})


def test_features_under_target_points_are_the_targets_and_elsewhere_the_sources() -> None:
    source, target = torch.zeros(1, 1, 1, 3), torch.ones(1, 1, 1, 3)
    source_map, target_map = torch.tensor([[[[1.0, 0, 0]]]]), torch.tensor([[[[0, 1.0, 0]]]])
    assert transport(source + 5, source_map, target, target_map).flatten().tolist() == [0, 1, 5]


@pytest.mark.parametrize(("depth", "sees_all"), [(0, False), (3, True)])
def test_a_deep_detector_sees_the_whole_image(depth: int, sees_all: bool) -> None:
    torch.manual_seed(0)
    # without a norm, as that of an image depends on all of its pixels
    config = replace(SMALL, norm="none", map_stride=2, detector_depth=depth)
    method = Transporter(config, (64, 64))
    image = torch.rand(1, 3, 64, 64, requires_grad=True)
    logits = method.detector(image)
    assert logits.shape == (1, 4, 32, 32)
    logits[..., 0, 0].sum().backward()
    assert bool(image.grad[..., 40:, 40:].any()) == sees_all


def test_what_moves_is_turned_where_asked_for() -> None:
    method = Transporter(replace(SMALL, regularisation=Regularisation(equivariance=2.0)), (32, 32))
    terms = method.loss(moving_squares(), "main")
    assert set(terms) == {"reconstruction", "equivariance"} and terms["equivariance"] > 0


def test_layers_are_those_of_the_papers_appendix() -> None:
    method = Transporter(TransporterConfig(), (80, 80))
    convolutions = [m for m in method.features.modules() if isinstance(m, torch.nn.Conv2d)]
    assert [c.out_channels for c in convolutions] == [32, 32, 64, 64, 128, 128]
    assert [c.stride[0] for c in convolutions] == [1, 1, 2, 1, 2, 1]
    assert [c.kernel_size[0] for c in convolutions] == [7, 3, 3, 3, 3, 3]
    image = torch.rand(1, 3, 80, 80)
    assert method.features(image).shape == (1, 128, 20, 20)
    assert method.detector(image).shape == (1, 10, 20, 20)
    assert method.reconstruct(image, image).shape == image.shape


def test_joint_softmax_puts_a_point_at_the_mean_of_its_map() -> None:
    method = Transporter(TransporterConfig(keypoints=2, width=4, softmax="joint"), (16, 32)).eval()
    image = torch.rand(1, 3, 32, 16)
    logits = method.detector(image)[0].detach()  # (2, 8, 4), cells of 4 x 4 pixels
    for logit, found in zip(logits, method.detect(image).keypoints[0], strict=True):
        weights = torch.exp(logit - logit.max())
        x = sum(float(weights[row, column]) * (8 * column - 12) / 15 for row in range(8) for column in range(4))
        y = sum(float(weights[row, column]) * (8 * row - 28) / 31 for row in range(8) for column in range(4))
        assert found.tolist() == pytest.approx([x / float(weights.sum()), y / float(weights.sum())], abs=1e-5)


@pytest.mark.parametrize("detached", [True, False])
def test_source_gets_no_gradient(detached: bool) -> None:
    config = TransporterConfig(keypoints=3, width=4, early_stride=True, detach_source=detached)
    batch = moving_squares(2)
    batch["image"].requires_grad_()
    batch["reference"].requires_grad_()
    Transporter(config, (32, 32)).loss(batch, "main")["reconstruction"].backward()
    assert batch["image"].grad.abs().sum() > 0
    assert (batch["reference"].grad is None) == detached


def test_gradient_reaches_every_parameter() -> None:
    method = Transporter(SMALL, (32, 32))
    method.loss(moving_squares(), "main")["reconstruction"].backward()
    still = [n for n, p in method.named_parameters() if p.grad is None or not p.grad.any()]
    # A detector's constant shift cancels in the softmax.
    assert still in ([], ["detector.1.bias"])


def test_loss_is_the_mean_squared_error_where_the_mask_is_one() -> None:
    method = Transporter(SMALL, (32, 32)).eval()
    batch = moving_squares(2)
    batch["loss_mask"] = torch.zeros(2, 1, 32, 32)
    batch["loss_mask"][:, :, :, :16] = 1
    gap = (method.reconstruct(batch["reference"], batch["image"]) - batch["image"])[..., :16]
    assert method.loss(batch, "main")["reconstruction"].item() == pytest.approx(gap.square().mean().item(), rel=1e-5)


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_a_point_settles_on_what_moves(seed: int) -> None:
    """With what transporter_small.yaml asks of heatmaps; without it points stay where they began for most seeds."""
    torch.manual_seed(seed)
    terms = Regularisation(concentration=0.01, separation=0.001, separation_distance=0.08, foreground=0.01)
    method = Transporter(replace(SMALL, softmax="joint", regularisation=terms), (32, 32))
    optimizer = torch.optim.Adam(method.parameters(), lr=3e-3)
    for step in range(150):
        optimizer.zero_grad()
        sum(method.loss(moving_squares(seed=step), "main").values()).backward()
        optimizer.step()
    unseen = moving_squares(16, seed=1000)
    distance = (method.eval().detect(unseen["image"]).keypoints - unseen["keypoints"]).norm(dim=-1)  # (16, K)
    assert distance.median(dim=0).values.min() < 8 / 31  # half the square's side, in normalised units


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"keypoints": 0}, "keypoints is 0"),
        ({"map_stride": 3}, "powers of two from 2 to 64"),
        ({"output_stride": 8}, "powers of two from 1 to 4"),
        ({"sigma": 0.0}, "sigma is 0.0"),
        ({"detector_depth": -1}, "detector_depth is -1"),
    ],
)
def test_bad_options_are_refused_with_the_allowed_ones(options: dict, text: str) -> None:
    with pytest.raises(UserError, match=text):
        TransporterConfig(**options)


def test_an_input_size_that_does_not_fit_is_refused() -> None:
    with pytest.raises(UserError, match="multiples of map_stride"):
        Transporter(TransporterConfig(), (80, 81))
    with pytest.raises(UserError, match=r"detector_depth \(32\)"):
        Transporter(replace(SMALL, detector_depth=3), (80, 80))
