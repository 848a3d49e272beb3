"""Terms that keep heatmaps usable where data or time are short. No paper here has them; all are off by default.

On a small object that looks different in every recording, keypoints that are means of spread-out heatmaps stand still
on a grid that covers all places the object visits: that redraws the picture well enough, and nothing pulls them off.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from training import bounds
from training.equivariance import moving_points_apart
from training.heatmaps import from_mean
from training.method import Batch

_TOUCHING = 1e-4
"""Normalised units: nearer points push one another less, or nothing could say in which direction."""


@dataclass(frozen=True)
class Regularisation:
    """Weights of the terms; 0 for none."""

    concentration: float = 0.0
    """Weight of the heatmaps' mean variance, in normalised units; keeps points on what they see."""
    separation: float = 0.0
    """Weight of Σ_j≠k exp(-‖u_j - u_k‖ / separation_distance), the mean over points k."""
    separation_distance: float = 0.1
    """Normalised units. Both terms are of Zhang et al., CVPR 2018, who square the distance: see `crowding`."""
    foreground: float = 0.0
    """Weight of each heatmap's share that lies on pixels that do not change between image and reference."""
    equivariance: float = 0.0
    """Weight of how far points are from their places once what differs between image and reference is turned."""
    turn: float = 180.0
    """Degrees up to which `equivariance` turns it, either way; few for what looks the same from several sides."""
    relative: bool = False
    """Whether `equivariance` counts distances in units of the points' spread, so that it cannot draw them together."""

    def __post_init__(self) -> None:
        """Raises UserError that names the first bad value."""
        bounds.at_least("regularisation", self, concentration=0, separation=0, foreground=0, equivariance=0, turn=0)
        bounds.above_zero("regularisation", self, "separation_distance")

    @property
    def needs_reference(self) -> bool:
        """Whether batches need a `reference`, the object in another pose before the same background."""
        return self.foreground > 0 or self.equivariance > 0

    def motion(self, batch: Batch, *, also: bool = False) -> Tensor | None:
        """`motion` of the batch where a term needs it, or `also` something else does; once a step, as it is slow."""
        return motion(batch) if also or self.needs_reference else None

    def terms(self, column: Tensor, row: Tensor, keypoints: Tensor, moving: Tensor | None) -> dict[str, Tensor]:
        """The weighted terms of heatmaps that are on.

        column (B, K, W') and row (B, K, H') are the heatmaps' marginals, keypoints (B, K, 2) in the image's
        coordinates; moving (B, 1, H, W) is `motion`, which `foreground` needs.
        """
        found = {}
        if self.concentration:
            variance = axis_variance(column) + axis_variance(row)
            found["concentration"] = self.concentration * variance.mean()
        if self.separation:
            found["separation"] = self.separation * crowding(keypoints, self.separation_distance)
        if self.foreground:
            assert moving is not None, "what `motion` gives"
            found["foreground"] = self.foreground * (1 - share_within(moving, column, row)).mean()
        return found

    def turned(
        self, keypoints: Tensor, images: Tensor, moving: Tensor | None, locate: Callable[[Tensor], Tensor]
    ) -> dict[str, Tensor]:
        """The weighted term of `equivariance`, if it is on.

        keypoints (B, K, 2) are what `locate` finds in images (B, 3, H, W), moving (B, 1, H, W) is their `motion`.
        """
        if not self.equivariance:
            return {}
        assert moving is not None, "what `motion` gives"
        apart = moving_points_apart(keypoints, images, moving, locate, degrees=self.turn, relative=self.relative)
        return {"equivariance": self.equivariance * apart}


def motion(batch: Batch) -> Tensor:
    """(B, 1, H, W) in [0, 1]: where image and reference differ, by a quarter of the range or more, and close by."""
    moved = (batch["image"] - batch["reference"]).abs().amax(dim=1, keepdim=True)
    near = F.avg_pool2d(F.max_pool2d(moved, 5, 1, 2), 5, 1, 2, count_include_pad=False)
    return (4 * near).clamp(max=1)


def motion_mask(mask: Tensor | None, moving: Tensor | None, weight: float) -> Tensor | None:
    """(B, 1, H, W): how much the error of a pixel counts, mask times 1 + weight · moving; None for all alike."""
    if not weight:
        return mask
    assert moving is not None, "what `Regularisation.motion` gives"
    return 1 + weight * moving if mask is None else mask * (1 + weight * moving)


def share_within(area: Tensor, column: Tensor, row: Tensor) -> Tensor:
    """Σ_p p_x · p_y · area(p): area (B, 1, H, W) and marginals (B, K, W'), (B, K, H') to (B, K)."""
    weight = F.adaptive_avg_pool2d(area, (row.shape[-1], column.shape[-1]))[:, 0]
    return torch.einsum("bky,byx,bkx->bk", row, weight, column)


def axis_variance(probability: Tensor) -> Tensor:
    """(..., L) probabilities of an axis' cells to their variance (...), in the map's units."""
    return (probability * from_mean(probability) ** 2).sum(dim=-1)


def crowding(keypoints: Tensor, distance: float) -> Tensor:
    """Mean over points k of Σ_j≠k exp(-‖u_j - u_k‖ / distance): keypoints (B, K, 2) to a scalar.

    A Gaussian of the distance pushes the less the nearer two points are, so that points which have met stay together;
    this pushes the most then.
    """
    apart = ((keypoints[:, :, None] - keypoints[:, None]).square().sum(dim=-1) + _TOUCHING**2).sqrt()
    pairs = torch.exp(-apart / distance).triu(diagonal=1).sum(dim=(1, 2))
    return 2 * pairs.mean() / keypoints.shape[1]
