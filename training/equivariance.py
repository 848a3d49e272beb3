"""Equivariance: the keypoints of a turned image are the turned keypoints of the image.

A network that is never asked for this may number keypoints by where they are, the topmost first; then an object that
turns around hands its keypoints from one part to another. Where whole images are turned, "nearest to the sky" is as
equivariant as "the head", so only the object is turned, before a background that stays. A method that does not know
where the object is takes what moves between the two images of a pair, and paints over it with what is around.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from training.heatmaps import grid, turns_in_pixels

_SCALE = 0.2
"""By how much an object is made larger or smaller, at most."""
_LEAST_SPREAD = 0.05
"""Of points that are all in one place, so that nothing is divided by 0."""


def random_turns(images: Tensor, degrees: float, scale: float) -> Tensor:
    """(B, 2, 2) matrices A that turn images (B, 3, H, W) about their centre, p -> A p in normalised coordinates.

    By an angle up to `degrees` either way, and larger or smaller by a factor of up to 1 + `scale`; all uniform, the
    factor in its logarithm.
    """
    batch, (height, width) = len(images), images.shape[-2:]
    angle, size = 2 * torch.rand(2, batch, device=images.device) - 1
    angle, size = math.radians(degrees) * angle, (math.log1p(scale) * size).exp()
    return turns_in_pixels(angle, size, height, width)


def turned(images: Tensor, object_map: Tensor, background: Tensor, turns: Tensor) -> Tensor:
    """Images (B, 3, H, W) whose object is turned by `turns` (B, 2, 2).

    object_map (B, 1, H', W') in [0, 1] says where the object is, background (B, 3, H', W') what is behind it.
    """
    size = list(images.shape[-2:])
    mask, behind = (F.interpolate(x, size, mode="bilinear", align_corners=False) for x in (object_map, background))
    without = images + mask * (behind - images)
    cells = grid(size[0], size[1], images).view(1, -1, 2)
    where = taken_by(torch.linalg.inv(turns), cells).view(-1, *size, 2)
    mask, images = F.grid_sample(torch.cat((mask, images), dim=1), where, align_corners=True).split((1, 3), dim=1)
    return without + mask * (images - without)


def taken_by(turns: Tensor, points: Tensor) -> Tensor:
    """A p of points p (B, N, 2), or the same (1, N, 2) for all, and A (B, 2, 2): (B, N, 2).

    Multiplied and summed, since autocast would turn a matrix product into half precision, a tenth of a pixel.
    """
    return (turns[:, None] * points[:, :, None]).sum(dim=-1)


def painted_over(images: Tensor, area: Tensor) -> Tensor:
    """Images (B, 3, H, W) whose `area` (B, 1, H, W) in [0, 1] is filled with the colours around it.

    Colours that are known are averaged to half the size again and again, then holes are filled from the coarser sizes.
    """
    height, width = images.shape[-2:]
    known = 1 - area
    if height == width == 1:
        return images
    share = F.avg_pool2d(known, 2, ceil_mode=True)
    coarse = F.avg_pool2d(images * known, 2, ceil_mode=True) / share.clamp_min(1e-4)
    coarse = painted_over(coarse, 1 - (4 * share).clamp(max=1))
    return known * images + area * F.interpolate(coarse, (height, width), mode="bilinear", align_corners=False)


def turned_points_apart(
    points: Tensor,
    images: Tensor,
    object_map: Tensor,
    background: Tensor,
    locate: Callable[[Tensor], Tensor],
    *,
    degrees: float,
    weight: Tensor | None = None,
    relative: bool = False,
) -> Tensor:
    """`equivariance_loss` of points (B, K, 2) of images (B, 3, H, W) whose object is turned by up to `degrees`.

    object_map and background: see `turned`; `locate` finds the points of images. Only those of the turned images
    learn, or all would meet where a turn does not matter.
    """
    turns = random_turns(images, degrees, _SCALE)
    with torch.no_grad():
        of_turned = turned(images, object_map, background, turns)
    return equivariance_loss(points.detach(), locate(of_turned), turns, weight, relative=relative)


def moving_points_apart(
    points: Tensor,
    images: Tensor,
    moving: Tensor,
    locate: Callable[[Tensor], Tensor],
    *,
    degrees: float = 180.0,
    relative: bool = False,
) -> Tensor:
    """`turned_points_apart` of points (B, K, 2) of images (B, 3, H, W) whose `moving` area (B, 1, H, W) is turned.

    Only points on what moves count.
    """
    background = painted_over(images, (2 * moving).clamp(max=1))
    where = points.detach()[:, :, None].to(moving.dtype)
    weight = F.grid_sample(moving, where, align_corners=True)[:, 0, :, 0]
    return turned_points_apart(
        points, images, moving, background, locate, degrees=degrees, weight=weight, relative=relative
    )


def equivariance_loss(
    points: Tensor, points_when_turned: Tensor, turns: Tensor, weight: Tensor | None = None, *, relative: bool = False
) -> Tensor:
    """Mean ‖A u - u'‖ over the points whose place A u is within the turned image, by their weights (B, K) if given.

    points u (B, K, 2) of the images, points_when_turned u' (B, K, 2) of the turned ones, turns A (B, 2, 2).
    relative: over √(s s'), the spreads of two or more points; where they do not know where they belong, they gain by
    coming together otherwise, until all are in one place.
    """
    expected = taken_by(turns, points)
    counts = (expected.abs() <= 1).all(dim=-1).to(points.dtype)
    if weight is not None:
        counts = counts * weight
    apart = ((expected - points_when_turned).square().sum(dim=-1) + 1e-8).sqrt()
    if relative and points.shape[1] > 1:
        apart = apart / (spread(expected, counts) * spread(points_when_turned, counts)).sqrt()[:, None]
    return (apart * counts).sum() / counts.sum().clamp_min(1)


def spread(points: Tensor, counts: Tensor) -> Tensor:
    """(B,) root mean square distance of points (B, K, 2) from their mean, weighted by counts (B, K); at least 0.05."""
    share = counts / counts.sum(dim=1, keepdim=True).clamp_min(1e-6)
    away = points - (points * share[..., None]).sum(dim=1, keepdim=True)
    return ((away.square().sum(dim=-1) * share).sum(dim=1) + _LEAST_SPREAD**2).sqrt()
