"""Between heatmaps and coordinates: the blocks that the papers share.

Coordinates are (x, y) in [-1, 1]; the ends are the CENTRES of the first and last cell of a map.
"""

from __future__ import annotations

import torch
from torch import Tensor


def axis(length: int, like: Tensor) -> Tensor:
    """(length,) cell centres from -1 to 1, of the dtype and device of `like`."""
    return torch.linspace(-1, 1, length, dtype=like.dtype, device=like.device)


def grid(height: int, width: int, like: Tensor) -> Tensor:
    """(height, width, 2) cell centres (x, y)."""
    y, x = torch.meshgrid(axis(height, like), axis(width, like), indexing="ij")
    return torch.stack((x, y), dim=-1)


def spatial_softmax(logits: Tensor) -> Tensor:
    """(B, K, H, W) logits to maps that each sum to 1 over H x W."""
    return logits.flatten(2).softmax(dim=-1).view_as(logits)


def expected_position(probability: Tensor) -> Tensor:
    """(B, K, H, W) maps that sum to 1 to their means (B, K, 2): Σ_p p · probability(p)."""
    height, width = probability.shape[-2:]
    x = probability.sum(dim=-2) @ axis(width, probability)
    y = probability.sum(dim=-1) @ axis(height, probability)
    return torch.stack((x, y), dim=-1)


def gaussian_maps(keypoints: Tensor, height: int, width: int, sigma: float, *, halved: bool = True) -> Tensor:
    """(B, K, 2) to (B, K, height, width) maps with peak 1: exp(-d² / 2σ²), or exp(-d² / σ²) where not `halved`.

    sigma is in normalised units.
    """
    scale = (2.0 if halved else 1.0) * sigma**2
    x = torch.exp(-((keypoints[..., 0, None] - axis(width, keypoints)) ** 2) / scale)  # (B, K, W)
    y = torch.exp(-((keypoints[..., 1, None] - axis(height, keypoints)) ** 2) / scale)  # (B, K, H)
    return y[..., :, None] * x[..., None, :]


def segment_distance(start: Tensor, end: Tensor, height: int, width: int) -> Tensor:
    """Squared distance of every cell to the segments start-end: two (..., 2) to (..., height, width).

    d² = ‖p - (s + t (e - s))‖² with t = clamp((p - s)·(e - s) / ‖e - s‖², 0, 1). A segment of length 0 is a point;
    its gradient is finite.
    """
    cells = grid(height, width, start)
    along = (end - start)[..., None, None, :]
    offset = cells - start[..., None, None, :]
    t = ((offset * along).sum(-1) / (along**2).sum(-1).clamp_min(1e-8)).clamp(0, 1)
    return ((offset - t[..., None] * along) ** 2).sum(-1)
