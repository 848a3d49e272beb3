import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from training.heatmaps import (
    around_mode,
    axis,
    concentration,
    expected_position,
    gaussian_maps,
    grid,
    half_widths,
    heatmap_targets,
    map_extent,
    root,
    spatial_softmax,
    squared_distance_maps,
    squared_distance_to_segments,
)
from training.networks import upsample


def test_axis_ends_are_the_centres_of_the_first_and_last_cell():
    assert axis(5, torch.zeros(1)).tolist() == [-1.0, -0.5, 0.0, 0.5, 1.0]


def test_expected_position_equals_a_slow_loop():
    logits = torch.randn(2, 3, 4, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    found = expected_position(spatial_softmax(logits)).numpy()
    for b in range(2):
        for k in range(3):
            weights = np.exp(logits[b, k].numpy())
            x = sum(weights[r, c] * (-1 + 2 * c / 5) for r in range(4) for c in range(6)) / weights.sum()
            y = sum(weights[r, c] * (-1 + 2 * r / 3) for r in range(4) for c in range(6)) / weights.sum()
            assert found[b, k] == pytest.approx([x, y], abs=1e-12)


def test_a_single_hot_cell_is_found_at_its_centre():
    logits = torch.full((1, 1, 5, 9), -1e4)
    logits[0, 0, 1, 6] = 0
    assert expected_position(spatial_softmax(logits))[0, 0].tolist() == pytest.approx([0.5, -0.5])


def test_coordinates_keep_float32_precision_under_bfloat16_autocast():
    logits = torch.randn(1, 4, 16, 16, generator=torch.Generator().manual_seed(1))
    exact = expected_position(spatial_softmax(logits))
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.allclose(expected_position(spatial_softmax(logits)), exact, atol=1e-6)
    half = expected_position(spatial_softmax(logits.half()))
    assert half.dtype == torch.float32
    assert torch.allclose(half, exact, atol=1e-3)


@pytest.mark.parametrize("halved", [True, False])
def test_gaussian_maps_against_the_formula(halved):
    point, sigma = (0.25, -0.5), 0.3
    maps = gaussian_maps(torch.tensor([[point]], dtype=torch.float64), 3, 5, sigma, halved=halved)[0, 0]
    for row in range(3):
        for column in range(5):
            squared = (-1 + column / 2 - point[0]) ** 2 + (-1 + row - point[1]) ** 2
            expected = np.exp(-squared / ((2 if halved else 1) * sigma**2))
            assert maps[row, column].item() == pytest.approx(expected, rel=1e-9)


def test_concentration_is_one_for_one_cell_and_small_for_a_flat_map():
    one = torch.zeros(1, 1, 9)
    one[..., 4] = 1
    flat = torch.full((1, 1, 9), 1 / 9)
    assert concentration(one, one, 0.1).item() == pytest.approx(1)
    assert concentration(flat, flat, 0.1).item() < 0.05


def test_squared_distance_maps_beside_beyond_and_for_a_point():
    start, end = torch.tensor([-0.5, 0.0]), torch.tensor([0.5, 0.0])
    squared = squared_distance_maps(start, end, 3, 5)  # cells at x -1, -0.5, 0, 0.5, 1 and y -0.5, 0, 0.5
    assert squared[1].tolist() == pytest.approx([0.25, 0, 0, 0, 0.25])
    assert squared[0].tolist() == pytest.approx([0.5, 0.25, 0.25, 0.25, 0.5])
    point = torch.zeros(2, requires_grad=True)
    squared_distance_maps(point, point, 3, 3).sum().backward()
    assert torch.isfinite(point.grad).all()


def test_distances_are_exact_and_their_gradient_is_finite_where_they_are_nothing():
    points = torch.tensor([[0.0, 0.0], [3e-4, 4e-4], [0.3, 0.4]], requires_grad=True)
    distance = root(points.square().sum(dim=-1))
    assert distance.tolist() == pytest.approx([0, 5e-4, 0.5], abs=1.1e-6) and distance[0].abs() < 1e-9
    distance.sum().backward()
    torch.testing.assert_close(points.grad, torch.tensor([[0.0, 0.0], [0.6, 0.8], [0.6, 0.8]]))


@pytest.mark.parametrize(("stages", "doublings"), [(1, 0), (2, 0), (3, 0), (3, 2)])
def test_strided_convolutions_look_left_and_above_of_their_cells(stages, doublings):
    """By (s - 1) / 2 pixels, s the stride of all stages, where kernels are centred."""
    size = 64
    taps = torch.tensor([0.25, 0.5, 0.25], dtype=torch.float64)
    kernel = (taps[:, None] * taps)[None, None]
    image = torch.zeros(1, 1, size, size, dtype=torch.float64, requires_grad=True)
    features = image
    for _ in range(stages):
        features = F.conv2d(features, kernel, stride=2, padding=1)
    for _ in range(doublings):
        features = upsample(features)
    cells = features.shape[-1]
    cell = cells // 2
    features[0, 0, cell, cell].backward()
    weight = image.grad[0, 0].sum(dim=0)
    looked_at = (weight * torch.arange(size)).sum() / weight.sum()
    extent = map_extent((size, size), size / cells)[0].item()
    middle = (axis(cells, weight)[cell].item() * extent + 1) / 2 * (size - 1)
    assert middle - looked_at.item() == pytest.approx((2**stages - 1) / 2, abs=1e-5)


@pytest.mark.parametrize(("height", "width"), [(8, 8), (5, 8), (8, 5)])
def test_distances_of_cells_to_a_segment_are_those_of_points(height, width):
    start, end = torch.tensor([[-0.5, 0.2], [0.3, 0.3]]), torch.tensor([[0.7, -0.4], [0.3, 0.3]])
    cells, a, b = (half_widths(points, height, width) for points in (grid(height, width, start), start, end))
    wanted = squared_distance_to_segments(cells, a[:, None, None], b[:, None, None])
    torch.testing.assert_close(squared_distance_maps(start, end, height, width), wanted)


def test_distances_in_an_oblong_image_are_those_in_pixels():
    """From a cell of a 9 x 5 image, 3 cells across or down are as far."""
    point = torch.tensor([-0.25, -0.5])  # column 3, row 1
    squared = squared_distance_maps(point, point, 5, 9)
    assert squared[1, 6].item() == squared[4, 3].item() == pytest.approx((3 / 4) ** 2)
    points = torch.tensor([[0.2, -0.6]])
    assert torch.equal(half_widths(points, 7, 7), points)


def test_targets_sum_to_one_and_are_nothing_for_what_is_no_keypoint():
    targets = heatmap_targets(torch.tensor([[[0.0, 0.0], [float("nan")] * 2]]), 3, 3, sigma=1.0)
    side, corner = math.exp(-0.5), math.exp(-1.0)  # cells are 1 apart
    expected = torch.tensor([corner, side, corner, side, 1, side, corner, side, corner]) / (1 + 4 * side + 4 * corner)
    torch.testing.assert_close(targets[0, 0], expected)
    assert not targets[0, 1].any()


def test_position_is_the_mean_around_the_mode_and_ignores_a_far_second_peak():
    maps = torch.zeros(1, 1, 9, 9)
    maps[0, 0, 4, 2], maps[0, 0, 4, 3], maps[0, 0, 0, 8] = 0.4, 0.2, 0.4 - 1e-3
    x, y = around_mode(maps)[0, 0].tolist()
    assert x == pytest.approx((2 * 0.4 + 3 * 0.2) / 0.6 / 4 - 1) and y == 0
