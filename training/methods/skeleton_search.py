"""NPT's skeleton by search: the links of a pair of frames that minimise Eq. 3, 4, 5 and 8 with S in {0, 1}.

Frames come as one batch of 2B, first all sources, then all targets. Weights are costs: `near` of a point that no link
explains, `links` of a link, `joints` of a joint, `uniform` of a link without foreground, `length` of a unit too much or
too little, `rigid` of a unit of difference in length between the two frames.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from training.heatmaps import grid, points_to_segments
from training.methods.npt_losses import foreground_share, outside

if TYPE_CHECKING:
    from training.methods.npt import NptConfig

SEARCHED_CELLS = 96
"""Of each frame, the cells with the most point probability stand for all of them."""
NEEDED = 0.5
"""What a point must be needed by both pictures to be a joint."""


def contrast(image: Tensor, background: Tensor, maps: Tensor) -> Tensor:
    """(B, P) mean absolute difference of image and background (B, 3, H, W) under each point's map (B, P, H, W)."""
    return torch.einsum("bphw,bhw->bp", maps, (image - background).abs().mean(dim=1))


def explained(maps: Tensor, needed: Tensor, points: Tensor, pairs: Tensor, config: NptConfig) -> Tensor:
    """(B, E, 2Q) of Eq. 3, in expectation over the points' places: what each link explains of each frame's Q cells.

    maps π (2B, P, H, W), needed (2B, P) in [0, 1], points (2B, P, 2), pairs (2, E).
    """
    mass = torch.einsum("bp,bphw->bhw", needed, maps).flatten(1)
    mass, cells = mass.topk(min(SEARCHED_CELLS, mass.shape[1]))
    places = grid(maps.shape[2], maps.shape[3], maps).flatten(0, 1)[cells]
    start, end = points[:, pairs[0], None], points[:, pairs[1], None]
    distance = points_to_segments(places[:, None], start, end).sqrt()
    cover = config.near * mass[:, None] * torch.exp(-distance / config.near_scale)
    return torch.cat(cover.chunk(2), dim=2)


def link_costs(maps: Tensor, needed: Tensor, points: Tensor, pairs: Tensor, config: NptConfig) -> Tensor:
    """(B, E) of Eq. 4, 5 and 8 over both frames; infinite where a picture does not need one of a link's ends."""
    length = (points[:, pairs[0]] - points[:, pairs[1]]).norm(dim=-1)
    excess = outside(length, config.length_range)
    share = foreground_share(maps, points, pairs, config.uniform_pool, config.line_samples)
    gap = (1 - share / config.uniform_share).clamp_min(0)
    unneeded = (needed < NEEDED)[:, pairs].any(dim=1)
    source, target = length.chunk(2)
    of_frames = (config.uniform * gap + config.length * excess).masked_fill(unneeded, torch.inf)
    return config.links + config.rigid * (source - target).abs() + torch.stack(of_frames.chunk(2)).sum(dim=0)


def greedy_skeleton(cover: Tensor, link_cost: Tensor, joint_cost: float, pairs: Tensor, points: int) -> Tensor:
    """Links S that greedily lower Σ_ij S_ij cost_ij + joint_cost · #joints - Σ_q max_ij S_ij cover_ijq.

    Starting from no link, the link that lowers the energy most is added as long as one does; ends that are joints
    already cost nothing.

    Args:
        cover: (B, E, Q) how well each link explains each of Q things.
        link_cost: (B, E) of each link alone, at least 0.
        joint_cost: of a point that becomes a joint.
        pairs: (2, E) the points that each link joins.
        points: how many points there are.

    Returns:
        (B, E) bool.
    """
    batch = torch.arange(len(cover), device=cover.device)
    best = cover.new_zeros(cover.shape[0], cover.shape[2])
    joint = cover.new_zeros(cover.shape[0], points)
    chosen = torch.zeros(cover.shape[:2], dtype=torch.bool, device=cover.device)
    for _ in range(points):  # a forest has fewer links
        new_joints = 2 - joint[:, pairs[0]] - joint[:, pairs[1]]
        gain = (cover - best[:, None]).clamp_min(0).sum(dim=-1) - link_cost - joint_cost * new_joints
        value, link = gain.max(dim=1)
        better = value > 0
        if not better.any():
            break
        row, link = batch[better], link[better]
        chosen[row, link] = True
        joint[row, pairs[0][link]] = joint[row, pairs[1][link]] = 1
        best[row] = torch.maximum(best[row], cover[row, link])
    return chosen
