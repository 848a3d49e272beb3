"""The skeleton by search: energies worked out by hand, and the best of all subsets where there are few."""

from __future__ import annotations

from itertools import product

import pytest
import torch
from torch import Tensor

from training.methods.npt import NptConfig
from training.methods.skeleton_search import contrast, explained, greedy_skeleton, link_costs

PAIRS = torch.triu_indices(3, 3, 1)  # (0, 1), (0, 2), (1, 2)
BENT = [(1, 1), (1, 7), (7, 7)]
"""Columns and rows of a corner's three points in a 9 x 9 picture."""


def sure(*frames: list[tuple[int, int]], size: int = 9) -> tuple[Tensor, Tensor]:
    """Maps (B, P, size, size) of sure points at (column, row), and the points (B, P, 2)."""
    maps = torch.zeros(len(frames), len(frames[0]), size, size)
    for frame, positions in enumerate(frames):
        for point, (column, row) in enumerate(positions):
            maps[frame, point, row, column] = 1
    return maps, torch.tensor(frames) * 2 / (size - 1) - 1


def energy(chosen: tuple[bool, ...], cover: Tensor, cost: Tensor, joint_cost: float) -> float:
    """What the search lowers, written as a loop."""
    links = [e for e, taken in enumerate(chosen) if taken]
    joints = {int(PAIRS[side][e]) for e in links for side in (0, 1)}
    best = sum(max((float(cover[e, q]) for e in links), default=0.0) for q in range(cover.shape[1]))
    return sum(float(cost[e]) for e in links) + joint_cost * len(joints) - best


@pytest.mark.parametrize("seed", range(8))
def test_no_added_link_and_often_no_subset_at_all_is_better(seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    cover, cost = torch.rand(1, 3, 5, generator=generator), torch.rand(1, 3, generator=generator)
    found = tuple(greedy_skeleton(cover, cost, 0.2, PAIRS, 3)[0].tolist())
    reached = energy(found, cover[0], cost[0], 0.2)
    grown = [tuple(a or i == added for i, a in enumerate(found)) for added in range(3)]
    assert all(reached <= energy(other, cover[0], cost[0], 0.2) + 1e-6 for other in grown)
    best = min(energy(other, cover[0], cost[0], 0.2) for other in product((False, True), repeat=3))
    assert reached <= best + 0.35


def test_a_link_that_explains_nothing_new_is_not_taken_and_a_shared_joint_costs_once() -> None:
    cover = torch.tensor([[[1.0, 1.0, 0.0, 0.0], [0.0, 1.0, 0.0, 0.0], [0.0, 0.0, 0.6, 0.6]]])
    cost = torch.full((1, 3), 0.5)
    assert greedy_skeleton(cover, cost, 0.4, PAIRS, 3)[0].tolist() == [True, False, True]  # 1.2 > 0.5 + 0.4
    assert greedy_skeleton(cover, cost, 0.8, PAIRS, 3)[0].tolist() == [False, False, False]  # 2 < 0.5 + 1.6


def test_cover_is_near_times_mass_times_how_close_the_link_runs() -> None:
    maps, points = sure(BENT, BENT)
    config = NptConfig(points=3, near=2.0, near_scale=0.5)
    cover = explained(maps, torch.ones(2, 3), points, PAIRS, config)
    held = cover[0].sum(dim=-1)  # of both frames: two ends at distance 0, and the third point
    side, diagonal = 1.5, 1.5 / 2**0.5
    expected = [2 * 2 * (2 + torch.exp(torch.tensor(-d / 0.5)).item()) for d in (side, diagonal, side)]
    assert held.tolist() == pytest.approx(expected, rel=1e-3)


def test_costs_of_a_link_by_hand() -> None:
    straight = [(1, 1), (1, 7), (7, 7)]
    shorter = [(1, 1), (1, 5), (7, 7)]
    maps, points = sure(straight, shorter)
    config = NptConfig(points=3, links=1.0, rigid=10.0, length=100.0, length_range=(0.1, 1.4), uniform=0.0)
    cost = link_costs(maps, torch.ones(2, 3), points, PAIRS, config)[0]
    assert cost[0].item() == pytest.approx(1 + 10 * 0.5 + 100 * 0.1, rel=1e-4)  # lengths 1.5 and 1.0
    gaps = link_costs(maps, torch.ones(2, 3), points, PAIRS, NptConfig(points=3, links=0.0, uniform=1.0))[0]
    assert gaps[1] > 0.5  # nothing lies on the diagonal between its ends


def test_a_corner_gets_its_two_sides_and_a_point_that_no_picture_needs_no_link() -> None:
    sides = [(1, row) for row in range(1, 8)] + [(column, 7) for column in range(2, 8)]
    maps, points = sure(sides, sides)
    pairs = torch.triu_indices(len(sides), len(sides), 1)
    config = NptConfig(points=len(sides), near=1, near_scale=0.1, links=0.5, joints=0.2, uniform=2, length_range=(0, 2))
    needed = torch.ones(2, len(sides))
    cover = explained(maps, needed, points, pairs, config)
    found = greedy_skeleton(cover, link_costs(maps, needed, points, pairs, config), 0.2, pairs, len(sides))[0]
    joints = {sides[int(pairs[side][e])] for e in found.nonzero()[:, 0] for side in (0, 1)}
    assert joints == {(1, 1), (1, 7), (7, 7)}
    needed[:, 0] = 0.2
    cost = link_costs(maps, needed, points, pairs, config)
    assert cost[0, (pairs == 0).any(dim=0)].isinf().all()


def test_contrast_is_the_mean_difference_under_the_map() -> None:
    maps, _ = sure([(2, 3)])
    image, background = torch.zeros(1, 3, 9, 9), torch.zeros(1, 3, 9, 9)
    image[0, :, 3, 2] = torch.tensor([0.3, 0.6, 0.0])
    assert contrast(image, background, maps).item() == pytest.approx(0.3)
