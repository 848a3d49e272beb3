"""Terms beyond the papers, against values worked out by hand."""

from __future__ import annotations

import math

import pytest
import torch

from keypoint_perception.errors import UserError
from training.regularisation import Regularisation, axis_variance, crowding, motion, motion_mask, share_within


def test_terms_against_values_by_hand() -> None:
    probability = torch.tensor([0.5, 0.0, 0.5])  # at -1, 0, 1
    assert axis_variance(probability).item() == pytest.approx(1)
    points = torch.tensor([[[0.0, 0.0], [0.1, 0.0], [1.0, 1.0]]])
    assert crowding(points, 0.1).item() == pytest.approx(2 * math.exp(-1) / 3, abs=1e-4)
    area = torch.zeros(1, 1, 2, 2)
    area[..., 0, 1] = 1
    x, y = torch.tensor([[[0.25, 0.75]]]), torch.tensor([[[0.4, 0.6]]])
    assert share_within(area, x, y).item() == pytest.approx(0.75 * 0.4)


def test_points_that_have_met_are_pushed_apart_the_most() -> None:
    pushes = []
    for apart in (0.002, 0.05, 0.2, 0.0):
        points = torch.tensor([[[0.0, 0.0], [apart, 0.0]]], requires_grad=True)
        crowding(points, 0.1).backward()
        assert points.grad is not None
        pushes.append(points.grad[0, 0, 0].item())  # descent moves the first point to the left of the second
    assert pushes[0] > pushes[1] > pushes[2] > pushes[3] == 0  # one place: no direction, and no NaN
    assert pushes[0] == pytest.approx(math.exp(-0.02) / 0.1, rel=0.01)


def test_motion_is_where_the_images_differ() -> None:
    image = torch.full((1, 3, 32, 32), 0.5)
    reference = image.clone()
    reference[..., 4:8, 4:8] = 0.0
    moved = motion({"image": image, "reference": reference})
    assert moved[0, 0, 5, 5] == 1
    assert moved[0, 0, 20, 20] == 0


def test_only_terms_with_a_weight_are_there_and_are_weighted() -> None:
    sides = torch.tensor([[[0.5, 0.0, 0.5]]])
    points = torch.zeros(1, 1, 2)
    assert Regularisation().terms(sides, sides, points, None) == {}
    (name, value), *more = Regularisation(concentration=3.0).terms(sides, sides, points, None).items()
    assert (name, more) == ("concentration", [])
    assert value.item() == pytest.approx(3 * (1 + 1))


def test_points_of_what_moves_turn_along_by_their_weight() -> None:
    image = torch.full((8, 3, 32, 32), 0.5)
    reference = image.clone()
    image[..., 22:26, 22:26] = 1.0
    points = torch.full((8, 1, 2), 0.5)
    batch = {"image": image, "reference": reference}
    assert Regularisation().motion(batch) is None
    assert Regularisation().turned(points, image, motion(batch), lambda images: points) == {}
    values = []
    for weight in (1.0, 3.0):
        torch.manual_seed(0)
        terms = Regularisation(equivariance=weight)
        found = terms.turned(points, image, terms.motion(batch), lambda images: points)
        values.append(found["equivariance"].item())
    assert values[0] > 0.1 and values[1] == pytest.approx(3 * values[0])


def test_relative_distances_are_of_a_small_object_larger() -> None:
    image = torch.full((8, 3, 32, 32), 0.5)
    reference = image.clone()
    image[..., 20:28, 20:28] = 1.0
    points = torch.tensor([[[0.4, 0.4], [0.6, 0.6]]]).repeat(8, 1, 1)  # a spread of √0.02
    found = []
    for relative in (False, True):
        torch.manual_seed(0)
        terms = Regularisation(equivariance=1.0, relative=relative)
        moving = terms.motion({"image": image, "reference": reference})
        found.append(terms.turned(points, image, moving, lambda images: points)["equivariance"].item())
    assert found[1] == pytest.approx(found[0] / math.sqrt(0.02), rel=0.15)


def test_what_hardly_turns_hardly_moves_its_points() -> None:
    image = torch.full((64, 3, 32, 32), 0.5)
    reference = image.clone()
    image[..., 22:26, 22:26] = 1.0
    points = torch.full((64, 1, 2), 0.5)
    apart = []
    for turn in (0.0, 30.0, 180.0):
        torch.manual_seed(0)
        terms = Regularisation(equivariance=1.0, turn=turn)
        moving = terms.motion({"image": image, "reference": reference})
        found = terms.turned(points, image, moving, lambda images: points)
        apart.append(found["equivariance"].item())
    # At √0.5 from the centre, 15 degrees in the mean are 0.18; what is left without a turn is a change of size.
    assert apart[0] < 0.1 < apart[1] < 0.25 < 0.5 < apart[2]


@pytest.mark.parametrize(
    "bad", [{"foreground": -1.0}, {"separation_distance": 0.0}, {"equivariance": -0.1}, {"turn": -1.0}]
)
def test_bad_weights_are_named(bad: dict[str, float]) -> None:
    with pytest.raises(UserError, match=next(iter(bad))):
        Regularisation(**bad)


def test_moving_pixels_count_more() -> None:
    image = torch.full((1, 3, 32, 32), 0.5)
    reference = image.clone()
    reference[..., 4:8, 4:8] = 0.0
    moving = Regularisation().motion({"image": image, "reference": reference}, also=True)
    weight = motion_mask(None, moving, 3.0)
    assert weight[0, 0, 5, 5] == 4 and weight[0, 0, 20, 20] == 1
    assert torch.equal(motion_mask(torch.full((1, 1, 32, 32), 0.5), moving, 3.0), 0.5 * weight)
    assert motion_mask(None, moving, 0.0) is None
