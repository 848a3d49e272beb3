"""Turned images and turned points agree, by hand."""

import math

import pytest
import torch

from training.equivariance import equivariance_loss, moving_points_apart, painted_over, random_turns, spread, turned

QUARTER = torch.tensor([[[0.0, -1.0], [1.0, 0.0]]])
"""Takes what is on the right to the bottom, as y points down."""


def test_a_quarter_turn_takes_the_right_to_the_bottom():
    """An object of 1 before a background of 0.2, which has a mark of 0.4."""
    background = torch.full((1, 3, 5, 5), 0.2)
    background[:, :, 0, 0] = 0.4
    image, object_map = background.clone(), torch.zeros(1, 1, 5, 5)
    image[:, :, 2, 4] = 1
    object_map[:, :, 2, 4] = 1
    expected = background.clone()
    expected[:, :, 4, 2] = 1
    torch.testing.assert_close(turned(image, object_map, background, QUARTER), expected, atol=1e-5, rtol=0)


def test_turns_are_as_exact_in_half_precision():
    """A tenth of a pixel would pull at points that are right already."""
    torch.manual_seed(0)
    images, object_map, background = torch.rand(4, 3, 64, 64), torch.rand(4, 1, 64, 64), torch.rand(4, 3, 64, 64)
    points, turns = torch.rand(4, 10, 2) - 0.5, random_turns(images, 180, 0.2)
    along, exact = points @ turns.mT, turned(images, object_map, background, turns)
    with torch.autocast("cpu", torch.bfloat16):
        assert equivariance_loss(points, along, turns).item() == pytest.approx(1e-4, abs=1e-5)
        picture = turned(images, object_map, background, turns)
    torch.testing.assert_close(picture, exact, atol=1e-4, rtol=0)


def test_points_that_turn_along_cost_nothing_and_others_their_distance():
    points = torch.tensor([[[1.0, 0.0], [0.0, -0.5]]])
    along = torch.tensor([[[0.0, 1.0], [0.5, 0.0]]])
    assert equivariance_loss(points, along, QUARTER).item() == pytest.approx(0, abs=1e-3)
    # (1, 0) belongs at (0, 1) and is 0.5 away, (0, -0.5) belongs at (0.5, 0) and stays: (0.5 + 0.5 √2) / 2
    stays = torch.tensor([[[0.0, 0.5], [0.0, -0.5]]])
    assert equivariance_loss(points, stays, QUARTER).item() == pytest.approx((0.5 + math.sqrt(0.5)) / 2, abs=1e-3)


def test_a_point_that_leaves_the_image_does_not_count():
    points = torch.tensor([[[0.9, 0.0], [0.1, 0.0]]])
    found = torch.tensor([[[0.0, 0.0], [0.2, 0.0]]])
    twice = 2 * torch.eye(2)[None]  # takes the first to (1.8, 0), the second to (0.2, 0)
    assert equivariance_loss(points, found, twice).item() == pytest.approx(0, abs=1e-3)


def test_points_count_by_their_weights():
    points = torch.tensor([[[1.0, 0.0], [0.0, -0.5]]])
    stays = torch.tensor([[[0.0, 0.5], [0.0, -0.5]]])  # 0.5 and 0.5 √2 away from where they belong, see above
    weight = torch.tensor([[3.0, 1.0]])
    expected = (3 * 0.5 + 0.5 * math.sqrt(2)) / 4
    assert equivariance_loss(points, stays, QUARTER, weight).item() == pytest.approx(expected, abs=1e-3)


def test_relative_distances_are_in_units_of_the_points_spread():
    """Two points 1 apart have a spread of 0.5; turned they are at (0, 0) and (0, 1), and found at (0, 0) and (0, 2)."""
    points = torch.tensor([[[0.0, 0.0], [1.0, 0.0]]])
    found = torch.tensor([[[0.0, 0.0], [0.0, 2.0]]])
    assert equivariance_loss(points, found, QUARTER).item() == pytest.approx(0.5, abs=1e-3)
    relative = equivariance_loss(points, found, QUARTER, relative=True).item()
    assert relative == pytest.approx(0.5 / math.sqrt(0.5 * 1.0), abs=5e-3)
    assert spread(found, torch.tensor([[1.0, 0.0]])).item() == pytest.approx(0.05)  # of one point
    assert spread(found, torch.tensor([[1.0, 3.0]])).item() == pytest.approx(math.sqrt(0.75), abs=5e-3)


def test_points_that_do_not_turn_along_gain_nothing_by_coming_together():
    generator = torch.Generator().manual_seed(0)
    points, found = torch.randn(2, 500, 6, 2, generator=generator) * 0.3
    stays = torch.eye(2).expand(500, 2, 2)
    alone = [equivariance_loss(points, size * found, stays).item() for size in (1.0, 0.3)]
    assert alone[1] < 0.8 * alone[0]
    relative = [equivariance_loss(points, size * found, stays, relative=True).item() for size in (1.0, 0.3)]
    assert relative[1] > 1.2 * relative[0]


def test_holes_are_filled_from_around_them():
    image = torch.full((1, 3, 7, 10), 0.25)
    image[..., 5:] = 0.75
    hole = torch.zeros(1, 1, 7, 10)
    hole[..., 2:5, 1:3] = 1
    hole[..., 3, 8] = 1
    spoilt = image + hole * 0.2
    filled = painted_over(spoilt, hole)
    torch.testing.assert_close(filled[..., :, :3], image[..., :, :3], atol=0.06, rtol=0)
    torch.testing.assert_close(filled[..., 3, 8], image[..., 3, 8], atol=0.06, rtol=0)
    assert torch.equal(filled[hole.expand_as(image) == 0], image[hole.expand_as(image) == 0])
    torch.testing.assert_close(painted_over(spoilt, 0 * hole), spoilt)


def brightest(images):
    """(B, 1, 2) the brightest place, normalised."""
    where = images.mean(dim=1).flatten(1).argmax(dim=1)
    side = images.shape[-1]
    return torch.stack((where % side, where // side), dim=-1)[:, None] * 2 / (side - 1) - 1


def test_a_point_on_what_moves_must_turn_along():
    torch.manual_seed(0)
    images = torch.full((64, 3, 33, 33), 0.2)
    images[..., 20:25, 20:25] = 0.6
    images[..., 22, 22] = 1.0
    moving = torch.zeros(64, 1, 33, 33)
    moving[..., 17:28, 17:28] = 1
    points = brightest(images)
    one_cell = 2 / 32
    assert moving_points_apart(points, images, moving, brightest) < one_cell
    assert moving_points_apart(points, images, moving, lambda turned: points) > 4 * one_cell  # they stay
    assert moving_points_apart(points, images, 0 * moving, lambda turned: points) == 0  # nothing moves


def test_only_the_points_of_the_turned_image_learn():
    torch.manual_seed(0)
    images, moving = torch.rand(2, 3, 16, 16), torch.ones(2, 1, 16, 16)
    points, found = (torch.zeros(2, 4, 2).uniform_(-0.5, 0.5).requires_grad_() for _ in range(2))
    moving_points_apart(points, images, moving, lambda turned: found).backward()
    assert points.grad is None and found.grad is not None and found.grad.abs().sum() > 0


def test_turns_are_of_pixels_and_within_their_limits():
    torch.manual_seed(0)
    images = torch.zeros(500, 3, 11, 21)
    turns = random_turns(images, degrees=30, scale=0.2)
    half = torch.diag(torch.tensor([10.0, 5.0]))  # normalised units to pixels
    pixels = half @ turns @ torch.linalg.inv(half)
    size = torch.linalg.det(pixels).sqrt()
    rotation = pixels / size[:, None, None]
    torch.testing.assert_close(rotation @ rotation.transpose(1, 2), torch.eye(2).expand(500, 2, 2), atol=1e-5, rtol=0)
    angle = torch.rad2deg(torch.atan2(rotation[:, 1, 0], rotation[:, 0, 0]))
    assert 28 < angle.abs().max() <= 30
    assert 1 / 1.2 - 1e-5 <= size.min() < 0.85
    assert 1.18 < size.max() <= 1.2 + 1e-5
