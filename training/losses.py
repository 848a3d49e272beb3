"""Reconstruction losses that two or more papers share. Images are (B, 3, H, W) in [0, 1], masks (B, 1, H, W) in [0, 1].

Each is a mean over what its mask keeps, so that weights do not depend on image or batch size.
"""

from __future__ import annotations

from typing import Literal, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def masked_mean(values: Tensor, mask: Tensor | None = None) -> Tensor:
    """Mean of (B, C, H, W) values weighted by a (B, 1, H, W) mask, which is brought to their size by area."""
    if mask is None:
        return values.mean()
    height, width = values.shape[-2:]
    if mask.shape[-2:] != (height, width):
        mask = F.adaptive_avg_pool2d(mask, (height, width))
    return (values * mask).sum() / (mask.sum() * values.shape[1]).clamp_min(1e-6)


def difference(prediction: Tensor, target: Tensor, power: int = 2, mask: Tensor | None = None) -> Tensor:
    """Masked mean of |prediction - target|^power, computed in float32 whatever the inputs are."""
    gap = prediction.float() - target.float()
    return masked_mean(gap.abs() if power == 1 else gap.square(), mask)


def image_pyramid(image: Tensor, levels: int) -> list[Tensor]:
    """The image and its halvings by 2x2 means, `levels` in all or as many as stay at least 2 pixels a side."""
    pyramid = [image]
    while len(pyramid) < levels and min(pyramid[-1].shape[-2:]) >= 4:
        pyramid.append(F.avg_pool2d(pyramid[-1], 2))
    return pyramid


def pyramid_mse(prediction: Tensor, target: Tensor, mask: Tensor | None = None, levels: int = 5) -> Tensor:
    """Mean over pyramid levels of the mean squared error; coarse levels pull at things that do not overlap yet."""
    pairs = zip(image_pyramid(prediction, levels), image_pyramid(target, levels), strict=True)
    return torch.stack([difference(p, t, mask=mask) for p, t in pairs]).mean()


class Features(Protocol):
    """Maps images (B, 3, H, W) in [0, 1] to a fixed number of feature maps, mostly the image itself the first."""

    def __call__(self, image: Tensor) -> list[Tensor]: ...  # noqa: D102

    def __len__(self) -> int: ...


class PerceptualLoss(nn.Module):
    """Σ_l α_l · mean |Γ_l(target) - Γ_l(prediction)|^power over the layers of a frozen network Γ (IMM section 3.2).

    α_l is one over the running mean of layer l's own error, so that every layer contributes about 1; with
    `running_mean_rate` None all α_l are 1. Before the first error, in eval mode, it is the error at hand.

    Args:
        features: Γ, see `training.perceptual.perceptual_features`.
        running_mean_rate: ρ in mean ← ρ · mean + (1 - ρ) · error; the first error is the first mean.
        power: 2 for squared (IMM), 1 for absolute errors (AutoLink).
        reduction: over layers.
    """

    def __init__(
        self,
        features: Features,
        running_mean_rate: float | None = 0.99,
        power: Literal[1, 2] = 2,
        reduction: Literal["sum", "mean"] = "sum",
    ) -> None:
        super().__init__()
        self.features = features
        self.rate = running_mean_rate
        self.power = power
        self.reduction = reduction
        self.running_mean: Tensor
        self.register_buffer("running_mean", torch.zeros(len(features)))

    def errors(self, prediction: Tensor, target: Tensor, mask: Tensor | None = None) -> Tensor:
        """(L,) mean error of every layer, not normalised."""
        with torch.no_grad():
            wanted = self.features(target)
        pairs = zip(self.features(prediction), wanted, strict=True)
        return torch.stack([difference(p, t, self.power, mask) for p, t in pairs])

    def forward(self, prediction: Tensor, target: Tensor, mask: Tensor | None = None) -> Tensor:
        """prediction, target (B, 3, H, W), mask (B, 1, H, W) to a scalar. In training mode the means move on."""
        errors = self.errors(prediction, target, mask)
        if self.rate is not None:
            latest = errors.detach()
            seen = torch.where(self.running_mean == 0, latest, self.running_mean)
            if self.training:
                seen = self.rate * seen + (1 - self.rate) * latest
                self.running_mean.copy_(seen)
            errors = errors / seen.clamp_min(1e-8)
        return errors.sum() if self.reduction == "sum" else errors.mean()
