"""A still and its random thin-plate-spline warp as a pair, with the mask of what the loss may look at (IMM, section 4).

A spline maps a point p of the result to where it is taken from: A p + t + Σ_c w_c U(‖p - c‖) with U(r) = r² log r² over
a grid of 10 x 10 centres c, in normalised coordinates; A turns and scales in pixels, so that images that are not square
do not shear. The target is a slight warp of the still, the source a stronger warp of the target; both are sampled from
the still itself, once.

Not as in the authors' code: what lies outside the still is mirrored (`outside: zeros` is theirs), which the mask hides
from the loss, but not from the networks; the random half of the centres is the same for x and y; the mask rises as a
cosine, not as a tanh.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from training.heatmaps import grid, turns_in_pixels

GRID = 10
"""Centres of a spline, a side."""
LATTICE = 64
"""The bend is computed at this many points a side and interpolated: it is smooth, and off by 0.02 px at 128 px."""
REFERENCE_SIZE = 128
"""Pixels a side of the images that the mask's margin and ramp are meant for; they scale with the image."""
MARGIN, RAMP = 10, 20
"""At the border the mask is zero for so many pixels and then rises over so many."""


@dataclass(frozen=True)
class SplineConfig:
    """Standard deviations of one random spline; normalised units."""

    rotation_degrees: float = 0.0
    """Standard deviation, in degrees, of the angle by which the image is turned about its centre."""
    scale: float = 0.0
    """Standard deviation of the factor, around 1, by which the image is scaled."""
    translation: float = 0.1
    """Standard deviation of the shift along each axis, in normalised units."""
    warp_all: float = 0.001
    """Standard deviation of the weights of all centres."""
    warp_half: float = 0.005
    """Standard deviation of what is added to the weights of a random half of the centres."""


@dataclass(frozen=True)
class WarpConfig:
    """The two warps of a pair; the standard deviations are IMM's."""

    target: SplineConfig = field(default_factory=SplineConfig)
    source: SplineConfig = field(
        default_factory=lambda: SplineConfig(rotation_degrees=5.0, scale=0.1, translation=0.1, warp_half=0.01)
    )
    outside: Literal["reflection", "zeros"] = "reflection"
    """What lies outside the still: its mirror image, or black as in the authors' code. There the source, a warp of the
    target, is black outside the target as well."""


def warped_pair(still: Tensor, config: WarpConfig, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
    """still (B, 3, H, W) in [0, 1] to image, reference (both like still) and loss_mask (B, 1, H, W) in [0, 1].

    The mask belongs to image, the target.
    """
    batch, _, height, width = still.shape
    target, source = (Spline(part, batch, (height, width), generator) for part in (config.target, config.source))
    to_still = target.of_pixels()
    mask = border_mask(height, width).expand(batch, 1, -1, -1)
    image = _sample(still, to_still, config.outside)
    loss_mask = _sample(mask, to_still, "zeros")
    to_target = source.of_pixels()
    reference = _sample(still, target(to_target), config.outside)
    if config.outside == "zeros":
        reference = reference * _sample(torch.ones_like(mask), to_target, "zeros")
    return image, reference, loss_mask


class Spline:
    """One random spline for each of B images of a size, (height, width) in pixels."""

    def __init__(self, config: SplineConfig, batch: int, size: tuple[int, int], generator: torch.Generator) -> None:
        def normal(deviation: float, *shape: int) -> Tensor:
            return deviation * torch.randn(*shape, generator=generator)

        angle = normal(math.radians(config.rotation_degrees), batch)
        scale = 1 + normal(config.scale, batch)
        self.size = size
        self.affine = turns_in_pixels(angle, scale, *size)
        self.translation = normal(config.translation, batch, 2, 1)
        half = (torch.rand(batch, GRID**2, 1, generator=generator) < 0.5).float()
        self.weights = normal(config.warp_all, batch, GRID**2, 2) + half * normal(config.warp_half, batch, GRID**2, 2)

        weights = self.weights.transpose(0, 1).reshape(GRID**2, -1)  # one product for all: (GRID², B · 2)
        bend = (_bend_of_lattice() @ weights).view(LATTICE, LATTICE, batch, 2)
        self._bend = bend.permute(2, 3, 0, 1).contiguous()  # (B, 2, LATTICE, LATTICE)

    def __call__(self, points: Tensor) -> Tensor:
        """(B, P, 2) points to (B, P, 2), normalised. Outside the image the bend is that of the nearest border point."""
        bend = F.grid_sample(self._bend, points[:, None], padding_mode="border", align_corners=True)[:, :, 0]
        x, y = points.transpose(1, 2).split(1, dim=1)  # (B, 1, P)
        linear = self.affine[:, :, :1] * x + self.affine[:, :, 1:] * y  # a product of matrices takes longer
        return (linear + self.translation + bend).transpose(1, 2)

    def of_pixels(self) -> Tensor:
        """The spline at all pixels of its size, row by row, (B, H · W, 2), faster."""
        bend = F.interpolate(self._bend, self.size, mode="bilinear", align_corners=True).flatten(2)
        linear = (self.affine.view(-1, 2) @ _cells(*self.size).T).view_as(bend)
        return (linear + self.translation + bend).transpose(1, 2)


@lru_cache(maxsize=1)
def _bend_of_lattice() -> Tensor:
    """(LATTICE², GRID²): U of each centre at each lattice point."""
    squared = torch.cdist(_cells(LATTICE, LATTICE), _cells(GRID, GRID)) ** 2
    return torch.special.xlogy(squared, squared)


@lru_cache(maxsize=8)
def _cells(height: int, width: int) -> Tensor:
    """(H · W, 2) normalised coordinates of an image's pixels, row by row; every spline of a size asks for the same."""
    return grid(height, width, torch.empty(0)).view(-1, 2)


@lru_cache(maxsize=8)
def border_mask(height: int, width: int) -> Tensor:
    """(1, 1, H, W): 0 at the border, then a smooth rise, 1 inside."""
    sides = []
    for length in (height, width):
        from_border = torch.minimum(torch.arange(length), torch.arange(length).flip(0)) * REFERENCE_SIZE / length
        rise = ((from_border - MARGIN) / RAMP).clamp(0, 1)
        sides.append(0.5 - 0.5 * torch.cos(math.pi * rise))
    return (sides[0][:, None] * sides[1])[None, None]


def _sample(image: Tensor, points: Tensor, padding: str) -> Tensor:
    """image (B, C, H, W) looked up at (B, H · W, 2) normalised points."""
    height, width = image.shape[-2:]
    where = points.view(-1, height, width, 2)
    return F.grid_sample(image, where, mode="bilinear", padding_mode=padding, align_corners=True)
