"""NPT's skeleton by search: the tree of links that minimises Eq. 3, 4, 5 and 8 with S in {0, 1}.

Weights are costs: `near` of a point that no link explains, `links` of a link, `joints` of a joint, `uniform` of a link
without foreground, `length` of a unit too much or too little, `rigid` of a unit of difference in length between the two
frames of a pair. Units of length are half widths of the image, along both axes.
"""

from __future__ import annotations

import torch
from torch import Tensor

from training.heatmaps import squared_distance_to_segments
from training.methods.npt_config import NptConfig
from training.methods.npt_losses import outside

NEEDED = 0.5
"""What a point must be needed by both pictures to be a joint."""
PROHIBITIVE = 1e4
"""A cost that no link is worth."""


def explained(needed: Tensor, points: Tensor, pairs: Tensor, config: NptConfig) -> Tensor:
    """(B, E, P) of Eq. 3: what each link explains of each point, which counts by how much a picture needs it.

    needed (B, P) in [0, 1], points (B, P, 2), pairs (2, E).
    """
    start, end = points[:, pairs[0], None], points[:, pairs[1], None]
    distance = squared_distance_to_segments(points[:, None], start, end).sqrt()
    return config.near * needed[:, None] * torch.exp(-distance / config.near_scale)


def link_costs(share: Tensor, needed: Tensor, points: Tensor, pairs: Tensor, config: NptConfig) -> Tensor:
    """(B, E) of Eq. 5 and 8 and of `extent` in one frame; prohibitive where a picture does not need one of its ends.

    share (B, E) is δ of each pair, needed (B, P), points (B, P, 2).
    A gap, [δ < α] in Eq. 5, is max(0, 1 - δ/α) here: of two links with gaps the one with less of them is cheaper.
    """
    length = lengths(points, pairs)
    gap = (1 - share / config.uniform_share).clamp_min(0)
    unneeded = (needed < NEEDED)[:, pairs].any(dim=1)
    cost = config.uniform * gap + config.length * outside(length, config.length_range) + config.extent * length
    return cost.masked_fill(unneeded, PROHIBITIVE)


def lengths(points: Tensor, pairs: Tensor) -> Tensor:
    """(B, E) the distance between the ends of each pair: points (B, P, 2), pairs (2, E)."""
    return (points[:, pairs[0]] - points[:, pairs[1]]).norm(dim=-1)


def changes(points: Tensor, pairs: Tensor) -> Tensor:
    """(B, E) by how much the lengths of links differ between sources and targets, which points (2B, P, 2) are."""
    source, target = lengths(points, pairs).chunk(2)
    return (source - target).abs()


def greedy_tree(
    cover: Tensor, link_cost: Tensor, joint_cost: float, pairs: Tensor, points: int, *, thorough: bool = False
) -> Tensor:
    """Links S that greedily lower Σ_ij S_ij cost_ij + joint_cost · #joints - Σ_q max_ij S_ij cover_ijq.

    Starting from the link that lowers the energy most, the best link is added as long as one lowers it. A link must
    join a joint and a point that is none yet: an articulated object is one tree. What the first link gets wrong
    stays; a `thorough` search starts from the best link of each point and keeps the tree of the lowest energy.

    Args:
        cover: (B, E, Q) how well each link explains each of Q things.
        link_cost: (B, E) of each link alone.
        joint_cost: of a point that becomes a joint.
        pairs: (2, E) the points that each link joins.
        points: how many points there are.
        thorough: as many searches as there are points, instead of one.

    Returns:
        (B, E) 1 for a link and 0 for none.
    """
    ends = (pairs[:, None] == torch.arange(points, device=pairs.device)[:, None]).any(dim=0)  # (P, E)
    gain = (cover.sum(dim=-1) - link_cost - 2 * joint_cost)[:, None]  # (B, searches, E), of the first link
    gain = gain.masked_fill(~ends, -PROHIBITIVE) if thorough else gain
    chosen, lowered, best = torch.zeros_like(gain), torch.zeros_like(gain[..., 0]), torch.zeros_like(cover[:, :1])
    joint = gain.new_zeros(*gain.shape[:2], points)
    for _ in range(points - 1):
        value, link = gain.max(dim=-1, keepdim=True)
        if not torch.compiler.is_compiling() and not bool((value > 0).any()):
            break
        taken = (value > 0) * (torch.arange(len(ends[0]), device=link.device) == link).to(cover)
        chosen, lowered = chosen + taken, lowered + value[..., 0].clamp_min(0)
        best = torch.maximum(best, taken @ cover)
        joint = (joint + taken @ ends.to(cover).T).clamp_max(1)
        new_joints = 2 - joint[..., pairs[0]] - joint[..., pairs[1]]
        gain = (cover[:, None] - best[:, :, None]).clamp_min(0).sum(dim=-1) - link_cost[:, None] - joint_cost
        gain = gain.masked_fill(new_joints != 1, -PROHIBITIVE)
    kept = lowered.argmax(dim=1)[:, None, None].expand(-1, 1, chosen.shape[2])
    return chosen.gather(1, kept)[:, 0]
