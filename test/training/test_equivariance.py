"""Turned images and turned points agree, by hand."""

import math

import pytest
import torch

from training.equivariance import equivariance_loss, random_turns, turned

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
