"""The skeleton by search: energies worked out by hand, and the best of all subsets where there are few."""

from __future__ import annotations

from itertools import product

import pytest
import torch
from torch import Tensor

from training.methods.npt_config import NptConfig
from training.methods.npt_losses import foreground_share
from training.methods.skeleton_search import PROHIBITIVE, changes, explained, greedy_tree, link_costs

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


def trees() -> list[tuple[bool, ...]]:
    """All subsets of the three links that are one tree."""
    return [chosen for chosen in product((False, True), repeat=3) if sum(chosen) in (1, 2)]


@pytest.mark.parametrize("seed", range(8))
def test_no_added_link_and_often_no_tree_at_all_is_better(seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    cover, cost = torch.rand(1, 3, 5, generator=generator), torch.rand(1, 3, generator=generator)
    found = tuple(bool(v) for v in greedy_tree(cover, cost, 0.2, PAIRS, 3)[0])
    reached = energy(found, cover[0], cost[0], 0.2)
    grown = [tuple(a or i == added for i, a in enumerate(found)) for added in range(3)]
    assert all(reached <= energy(other, cover[0], cost[0], 0.2) + 1e-6 for other in grown if sum(other) < 3)
    assert reached <= min(0.0, *(energy(other, cover[0], cost[0], 0.2) for other in trees())) + 0.35


def test_a_link_that_explains_nothing_new_is_not_taken_and_a_shared_joint_costs_once() -> None:
    cover = torch.tensor([[[1.0, 1.0, 0.0, 0.0], [0.0, 1.0, 0.0, 0.0], [0.0, 0.0, 0.6, 0.6]]])
    cost = torch.full((1, 3), 0.5)
    assert greedy_tree(cover, cost, 0.4, PAIRS, 3)[0].tolist() == [1, 0, 1]  # 1.2 > 0.5 + 0.4
    assert greedy_tree(cover, cost, 0.8, PAIRS, 3)[0].tolist() == [0, 0, 0]  # 2 < 0.5 + 1.6


def test_links_make_one_tree_without_a_circle() -> None:
    cover = torch.eye(3)[None]  # each link explains something of its own
    assert greedy_tree(cover, torch.zeros(1, 3), 0.0, PAIRS, 3).sum() == 2
    pairs = torch.triu_indices(4, 4, 1)  # 0: (0, 1), 5: (2, 3)
    apart = torch.zeros(1, 6, 2)
    apart[0, 0, 0], apart[0, 5, 1] = 2, 1
    assert greedy_tree(apart, torch.full((1, 6), 0.1), 0.0, pairs, 4)[0].tolist() == [1, 0, 0, 0, 0, 0]


def test_each_picture_of_a_batch_has_a_tree_of_its_own() -> None:
    cover = torch.tensor([[[1.0], [0.0], [0.0]], [[0.0], [0.0], [1.0]], [[0.0], [0.0], [0.0]]])
    found = greedy_tree(cover, torch.full((3, 3), 0.1), 0.1, PAIRS, 3)
    assert found.tolist() == [[1, 0, 0], [0, 0, 1], [0, 0, 0]]


def test_a_thorough_search_finds_the_tree_that_a_greedy_first_link_misses() -> None:
    # Link (0, 2) explains most of all single links, but (0, 1) and (1, 2) together explain everything.
    cover = torch.tensor([[[1.0, 1.0, 0.0, 0.0], [0.8, 0.7, 0.8, 0.0], [0.0, 0.0, 1.0, 1.0]]])
    cost, chain = torch.full((1, 3), 0.5), [1, 0, 1]
    assert greedy_tree(cover, cost, 0.2, PAIRS, 3)[0].tolist() == [0, 1, 1]
    found = greedy_tree(cover, cost, 0.2, PAIRS, 3, thorough=True)
    assert found[0].tolist() == chain
    assert torch.equal(greedy_tree(cover.repeat(2, 1, 1), cost.repeat(2, 1), 0.2, PAIRS, 3, thorough=True)[1:], found)


def test_cover_is_near_times_what_is_needed_times_how_close_the_link_runs() -> None:
    _, points = sure(BENT)
    needed, config = torch.tensor([[1.0, 1.0, 0.5]]), NptConfig(points=3, near=2.0, near_scale=0.5)
    cover = explained(needed, points, PAIRS, config)[0]
    far = torch.exp(torch.tensor(-1.5 / 0.5)).item()  # the third point is 1.5 from the first side
    assert cover[0].tolist() == pytest.approx([2, 2, far], rel=1e-3)
    corner = torch.exp(torch.tensor(-(1.5 / 2**0.5) / 0.5)).item()
    assert cover[1].tolist() == pytest.approx([2, 2 * corner, 1], rel=1e-3)


def test_costs_of_a_link_by_hand() -> None:
    maps, points = sure(BENT, [(1, 1), (1, 5), (7, 7)])
    share, needed = foreground_share(maps, points, PAIRS, 3, 7), torch.ones(2, 3)
    config = NptConfig(points=3, length=100.0, length_range=(0.1, 1.4), uniform=0.0)
    cost = link_costs(share, needed, points, PAIRS, config)
    assert cost[:, 0].tolist() == pytest.approx([100 * 0.1, 0], abs=1e-3)  # lengths 1.5 and 1.0
    assert changes(points, PAIRS)[0, 0].item() == pytest.approx(0.5)
    config = NptConfig(points=3, length=0.0, uniform=2.0, uniform_share=0.8)
    long = link_costs(share, needed, points, PAIRS, NptConfig(points=3, uniform=0.0, length=0.0, extent=2.0))
    assert long[:, 0].tolist() == pytest.approx([2 * 1.5, 2 * 1.0])
    gaps = link_costs(share, needed, points, PAIRS, config)
    assert gaps[0, 1].item() == pytest.approx(2 * (1 - 4 / 7 / 0.8))  # of the diagonal's 7 cells 3 are far from points


def test_a_corner_gets_its_two_sides_and_a_point_that_no_picture_needs_no_link() -> None:
    sides = [(1, row) for row in range(1, 8)] + [(column, 7) for column in range(2, 8)]
    maps, points = sure(sides)
    pairs = torch.triu_indices(len(sides), len(sides), 1)
    config = NptConfig(points=len(sides), near=1, near_scale=0.1, uniform=2, length_range=(0, 2))
    needed = torch.ones(1, len(sides))
    share = foreground_share(maps, points, pairs, config.uniform_pool, config.line_samples)
    cover = explained(needed, points, pairs, config)
    cost = 0.25 + link_costs(share, needed, points, pairs, config)
    found = greedy_tree(cover, cost, 0.1, pairs, len(sides))[0]
    joints = {sides[int(pairs[side][e])] for e in found.nonzero()[:, 0] for side in (0, 1)}
    assert joints == {(1, 1), (1, 7), (7, 7)}
    needed[:, 0] = 0.2
    cost = link_costs(share, needed, points, pairs, config)
    assert (cost[0, (pairs == 0).any(dim=0)] >= PROHIBITIVE).all()
