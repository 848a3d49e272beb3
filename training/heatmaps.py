"""Between heatmaps and coordinates: the blocks that the papers share.

Coordinates are (x, y) in [-1, 1]; the ends are the CENTRES of the first and last cell of a map.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

SoftmaxName = Literal["mean", "sum", "joint"]
"""How a heatmap becomes probabilities: a softmax over each axis of the means or the sums over the other axis, or one
over the whole map."""
GaussianName = Literal["plain", "halved"]
"""exp(-d² / σ²), or exp(-d² / 2σ²)."""
MODE_RADIUS = 2
"""Cells to each side of a map's highest one that `around_mode` looks at."""


def axis(length: int, like: Tensor) -> Tensor:
    """(length,) cell centres from -1 to 1, of the dtype and device of `like`."""
    return torch.linspace(-1, 1, length, dtype=like.dtype, device=like.device)


def grid(height: int, width: int, like: Tensor) -> Tensor:
    """(height, width, 2) cell centres (x, y)."""
    y, x = torch.meshgrid(axis(height, like), axis(width, like), indexing="ij")
    return torch.stack((x, y), dim=-1)


def map_extent(input_size: tuple[int, int], stride: float) -> Tensor:
    """(2,) where in the image the centre of a map's last cell is, of cells that are `stride` pixels wide and high.

    In a map ±1 are the centres of the outermost cells, as in the papers, in the image those of the outermost pixels:
    map coordinates times this are the image's. input_size is (width, height) in pixels. Strided 3 x 3 convolutions with
    padding 1 look (s - 1) / 2 pixels to the left and above of such a centre, s their total stride; what is learned may
    make up for it.
    """
    return torch.tensor([(side - stride) / (side - 1) for side in input_size])


def spatial_softmax(logits: Tensor) -> Tensor:
    """(B, K, H, W) logits to maps that each sum to 1 over H x W; float32 where the network ran in half precision."""
    precision = torch.promote_types(logits.dtype, torch.float32)
    return logits.flatten(2).softmax(dim=-1, dtype=precision).view(logits.shape)


def marginals(logits: Tensor, softmax: SoftmaxName) -> tuple[Tensor, Tensor]:
    """(B, K, H, W) logits to probabilities of the columns (B, K, W) and of the rows (B, K, H), in float32.

    Of a joint softmax these are its marginals.
    """
    logits = logits.float()
    if softmax == "joint":
        probability = spatial_softmax(logits)
        return probability.sum(dim=-2), probability.sum(dim=-1)
    over = torch.mean if softmax == "mean" else torch.sum
    return over(logits, dim=-2).softmax(dim=-1), over(logits, dim=-1).softmax(dim=-1)


def expected_position(probability: Tensor) -> Tensor:
    """(B, K, H, W) maps that sum to 1 to their means (B, K, 2): Σ_p p · probability(p)."""
    return mean_position(probability.sum(dim=-2), probability.sum(dim=-1))


def mean_position(columns: Tensor, rows: Tensor) -> Tensor:
    """(B, K, 2) means of distributions that are given as their `marginals` (B, K, W) and (B, K, H)."""
    return torch.stack((axis_mean(columns), axis_mean(rows)), dim=-1)


def axis_mean(probability: Tensor) -> Tensor:
    """(..., L) probabilities of the cells of an axis to their mean coordinates (...).

    Multiplied and summed, since autocast would turn a matrix product into half precision.
    """
    return (probability * axis(probability.shape[-1], probability)).sum(dim=-1)


def from_mean(probability: Tensor) -> Tensor:
    """(..., L) probabilities of the cells of an axis to how far each cell is from their mean (..., L)."""
    return axis(probability.shape[-1], probability) - axis_mean(probability)[..., None]


def concentration(columns: Tensor, rows: Tensor, sigma: float) -> Tensor:
    """How much of a heatmap lies at its mean m: Σ_p p_x · p_y · exp(-‖p - m‖² / 2σ²), in [0, 1].

    columns (B, K, W) and rows (B, K, H) are its `marginals`, sigma is in the map's units.
    Returns (B, K): 1 for a single cell, near 0 where the map is spread out or has several modes.
    """
    mass = []
    for probability in (columns, rows):
        mass.append((probability * torch.exp(-(from_mean(probability) ** 2) / (2 * sigma**2))).sum(-1))
    return (mass[0] * mass[1]).clamp(0, 1)


def gaussian_maps(keypoints: Tensor, height: int, width: int, sigma: float, *, halved: bool = True) -> Tensor:
    """(B, K, 2) to (B, K, height, width) maps with peak 1: exp(-d² / 2σ²), or exp(-d² / σ²) where not `halved`.

    sigma is in normalised units.
    """
    scale = (2.0 if halved else 1.0) * sigma**2
    x = torch.exp(-((keypoints[..., 0, None] - axis(width, keypoints)) ** 2) / scale)  # (B, K, W)
    y = torch.exp(-((keypoints[..., 1, None] - axis(height, keypoints)) ** 2) / scale)  # (B, K, H)
    return y[..., :, None] * x[..., None, :]


def heatmap_targets(keypoints: Tensor, height: int, width: int, sigma: float) -> Tensor:
    """(B, K, 2) to (B, K, height · width) Gaussians that sum to 1, to learn heatmaps by cross-entropy.

    What is no keypoint, NaN, has zeros.
    """
    maps = gaussian_maps(keypoints.nan_to_num(), height, width, sigma).flatten(2)
    maps = maps * keypoints[..., 0, None].isfinite()
    return maps / maps.sum(dim=-1, keepdim=True).clamp_min(1e-6)


def around_mode(probability: Tensor) -> Tensor:
    """(B, P, H, W) maps to (B, P, 2): the mean position within `MODE_RADIUS` cells of each map's highest cell."""
    height, width = probability.shape[-2:]
    mode = probability.flatten(2).argmax(dim=-1)
    x, y = torch.arange(width, device=mode.device), torch.arange(height, device=mode.device)
    close_x = (x - (mode % width)[..., None]).abs() <= MODE_RADIUS  # (B, P, W)
    close_y = (y - (mode // width)[..., None]).abs() <= MODE_RADIUS
    window = probability * (close_y[..., :, None] & close_x[..., None, :])
    return expected_position(window / window.sum(dim=(2, 3), keepdim=True).clamp_min(1e-12))


def squared_distance_to_segments(points: Tensor, start: Tensor, end: Tensor) -> Tensor:
    """Squared distance of points to the segments start-end, all (..., 2) and broadcast against each other: (...).

    d² = ‖p - (s + t (e - s))‖² with t = clamp((p - s)·(e - s) / ‖e - s‖², 0, 1). A segment of length 0 is a point;
    its gradient is finite.
    """
    along = end - start
    offset = points - start
    t = ((offset * along).sum(-1) / (along**2).sum(-1).clamp_min(1e-8)).clamp(0, 1)
    return ((offset - t[..., None] * along) ** 2).sum(-1)


def root(squared: Tensor) -> Tensor:
    """Distances of squared ones, 0 at 0, where the gradient is finite; elsewhere at most 1e-6 too small."""
    return (squared + 1e-12).sqrt() - 1e-6


def half_widths(points: Tensor, height: int, width: int) -> Tensor:
    """Points (..., 2) with y, like x, in halves of the width of an image: lengths of one unit across and down."""
    return torch.stack((points[..., 0], points[..., 1] * ((height - 1) / (width - 1))), dim=-1)


def turns_in_pixels(angle: Tensor, scale: Tensor, height: int, width: int) -> Tensor:
    """(B, 2, 2) matrices A, p -> A p, that turn normalised points by angles (B,) and scale them by (B,), in pixels."""
    cos, sin, aspect = scale * angle.cos(), scale * angle.sin(), (width - 1) / (height - 1)
    return torch.stack((cos, -sin / aspect, sin * aspect, cos), dim=-1).view(-1, 2, 2)


def squared_distance_maps(start: Tensor, end: Tensor, height: int, width: int) -> Tensor:
    """Squared distance of every cell to the segments start-end: two (..., 2) to (..., height, width), in `half_widths`.

    `squared_distance_to_segments` of the cells with x and y taken apart, which needs a third of the time.
    """
    x = axis(width, start) - start[..., 0, None]  # (..., W)
    y = (axis(height, start) - start[..., 1, None]) * ((height - 1) / (width - 1))  # (..., H)
    along_x, along_y = half_widths(end - start, height, width)[..., None].unbind(-2)  # (..., 1)
    length = (along_x**2 + along_y**2).clamp_min(1e-8)[..., None]
    t = (((along_y * y)[..., :, None] + (along_x * x)[..., None, :]) / length).clamp(0, 1)
    across_x = x[..., None, :] - t * along_x[..., None]
    across_y = y[..., :, None] - t * along_y[..., None]
    return across_x.square() + across_y.square()
