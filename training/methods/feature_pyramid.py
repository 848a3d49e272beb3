"""The trunk of Keypoint Pyramids."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch.nn.functional as F
from torch import Tensor, nn

from training.networks import Encoder

if TYPE_CHECKING:
    from training.methods.keypoint_pyramids_config import KeypointPyramidsConfig


class FeaturePyramid(nn.Module):
    """f_1 … f_L of Lin et al. 2017: scales of the trunk, each with what comes down from the coarser ones.

    The coarsest `context` of them are only looked at from below.
    """

    def __init__(self, config: KeypointPyramidsConfig) -> None:
        super().__init__()
        halvings = int(math.log2(config.coarsest_stride)) + config.context
        self.scales = Encoder(3, config.width, halvings, config.norm, config.early_stride).scales()
        levels = len(config.keypoints)
        channels = [config.width * 2**i for i in range(len(self.scales))][-(levels + config.context) :]
        self.lateral = nn.ModuleList(nn.Conv2d(c, config.pyramid_width, 1) for c in reversed(channels))
        self.smooth = nn.ModuleList(
            nn.Conv2d(config.pyramid_width, config.pyramid_width, 3, padding=1) for _ in range(levels)
        )

    def forward(self, image: Tensor) -> list[Tensor]:
        """(B, 3, H, W) to L maps (B, pyramid_width, H_l, W_l), the coarsest first."""
        features, found = image, []
        for scale in self.scales:
            features = scale(features)
            found.append(features)
        pyramid: list[Tensor] = []
        for lateral, features in zip(self.lateral, reversed(found[-len(self.lateral) :]), strict=True):
            merged = lateral(features)
            pyramid.append(merged + F.interpolate(pyramid[-1], scale_factor=2) if pyramid else merged)
        return [smooth(merged) for smooth, merged in zip(self.smooth, pyramid[-len(self.smooth) :], strict=True)]
