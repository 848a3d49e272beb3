"""Limbs that are alike and leave the root, as many as there are: found by their ends, followed back to the root.

Where any of several limbs may be the first, heatmaps of one joint each waver between them: two slots may take one limb
and none another. So all of such limbs share one heatmap of their ends, with a peak for each, and at its end each limb
says how far away its other joints are (as CenterNet does for whole objects).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from training.heatmaps import gaussian_maps, grid

PEAK = 0.3
"""Height of a peak that is a limb as likely as not; CenterNet's heatmaps stay below their targets."""
NEAR_END = 0.3
"""Cells in which the target is at least as high as this learn the offsets of the limb whose end is nearest."""


def targets(limbs: Tensor, size: Sequence[int], sigma: float) -> tuple[Tensor, Tensor, Tensor]:
    """For limbs (N, L, M, 2), NaN where not present, the last joint of which is the end, and maps of (height, width):

    heat (N, h, w), 1 at the cell nearest to an end and a Gaussian of sigma around it; ends (N, h, w) bool, those cells;
    offsets (N, h, w, M, 2) from each cell to the joints of the limb whose end is nearest.
    """
    height, width = size
    present = limbs[:, :, -1, 0].isfinite()
    tips = limbs[:, :, -1].nan_to_num()
    cells = grid(height, width, tips)
    maps = gaussian_maps(tips, height, width, sigma) * present[..., None, None]
    column, row = (((tips[..., axis] + 1) / 2 * (side - 1)).round().long() for axis, side in ((0, width), (1, height)))
    inside = present & (column >= 0) & (column < width) & (row >= 0) & (row < height)
    ends = torch.zeros_like(maps[:, 0], dtype=torch.bool)
    figure = torch.arange(len(tips), device=tips.device)[:, None].expand_as(column)
    ends[figure[inside], row[inside], column[inside]] = True
    heat, nearest = maps.max(dim=1)
    joints = limbs.nan_to_num()[figure[:, :1, None], nearest]  # (N, h, w, M, 2)
    return torch.where(ends, torch.ones_like(heat), heat), ends, joints - cells[None, :, :, None]


def end_loss(logits: Tensor, heat: Tensor, ends: Tensor) -> Tensor:
    """CenterNet's focal loss of maps (N, h, w) by end: there -(1 - p)² log p, elsewhere -(1 - y)⁴ p² log(1 - p)."""
    p = logits.sigmoid()
    there = (1 - p) ** 2 * F.logsigmoid(logits)
    elsewhere = (1 - heat) ** 4 * p**2 * F.logsigmoid(-logits)
    return -torch.where(ends, there, elsewhere).sum() / ends.sum().clamp_min(1)


def offset_loss(offsets: Tensor, wanted: Tensor, heat: Tensor) -> Tensor:
    """Mean distance, in [-1, 1] units, of offsets (N, 2 M, h, w) to those of `targets`, near ends."""
    found = offsets.permute(0, 2, 3, 1).unflatten(-1, wanted.shape[-2:])
    weight = heat * (heat >= NEAR_END)
    distance = (found - wanted).norm(dim=-1).mean(dim=-1)
    return (distance * weight).sum() / weight.sum().clamp_min(1)


def find(logits: Tensor, offsets: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """The `count` highest peaks: their limbs (B, count, M, 2) and the probability of each (B, count).

    logits (B, h, w), offsets (B, 2 M, h, w). A peak of height PEAK has probability one half.
    """
    height, width = logits.shape[-2:]
    heat = logits.float().sigmoid()[:, None]
    heat = (heat * (heat >= F.max_pool2d(heat, 3, 1, 1))).flatten(1)
    peaks, cell = heat.topk(count, dim=1)
    reach = offsets.float().flatten(2).gather(2, cell[:, None].expand(-1, offsets.shape[1], -1))  # (B, 2 M, count)
    start = grid(height, width, reach).flatten(0, 1)[cell]  # (B, count, 2)
    limbs = start[:, :, None] + reach.transpose(1, 2).unflatten(-1, (-1, 2))
    below, above = 0.5 * peaks / PEAK, 0.5 + 0.5 * (peaks - PEAK) / (1 - PEAK)
    return limbs, torch.where(peaks < PEAK, below, above)
