"""The network of Limbs."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from training.networks import ResidualBlock, conv_block, upsample


class LimbNetwork(nn.Module):
    """Images to heatmaps at half the size, a presence logit of each of the first `slots` of them, and offsets.

    What all of the image shows is added everywhere, since what a joint is depends on the whole object. A heatmap's
    logits are a sum over three scales, its probabilities so a product: the coarse ones say in which part of the object
    a joint is, the fine ones where there is a joint at all.
    """

    def __init__(self, slots: int, maps: int, offsets: int, width: int, input_size: tuple[int, int]) -> None:
        super().__init__()
        half, quarter, eighth, coarse = width, 3 * width, 5 * width, 8 * width
        self.to_half = conv_block(3, half, 5, 2)
        self.to_quarter = nn.Sequential(conv_block(half, quarter, 3, 2), conv_block(quarter, quarter))
        self.to_eighth = nn.Sequential(ResidualBlock(quarter, eighth, 2), ResidualBlock(eighth, eighth))
        self.to_coarse = nn.Sequential(ResidualBlock(eighth, coarse, 2), ResidualBlock(coarse, coarse))
        cells = -(-input_size[0] // 16) * -(-input_size[1] // 16)
        self.presence = nn.Sequential(
            nn.Flatten(),
            nn.LayerNorm(coarse * cells),
            nn.Linear(coarse * cells, coarse),
            nn.ReLU(),
            nn.Linear(coarse, slots),
        )
        self.context = nn.Linear(coarse, eighth)
        self.up_eighth = nn.Sequential(conv_block(coarse + eighth, eighth), ResidualBlock(eighth, eighth))
        self.up_quarter = conv_block(eighth + quarter, 4 * width)
        self.up_half = conv_block(4 * width + half, 2 * width)
        self.heat_eighth = nn.Conv2d(eighth, maps, 1)
        self.heat_quarter = nn.Conv2d(4 * width, maps, 1)
        self.heat_half = nn.Conv2d(2 * width, maps, 1)
        self.offsets = nn.Conv2d(2 * width, offsets, 1) if offsets else None

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
        """(B, 3, H, W) in [0, 1] to logits (B, maps, H / 2, W / 2) and (B, slots), and offsets (B, ., H / 2, W / 2)."""
        half = self.to_half(2 * image - 1)
        quarter = self.to_quarter(half)
        eighth = self.to_eighth(quarter)
        coarse = self.to_coarse(eighth)
        features = self.up_eighth(torch.cat((upsample(coarse), eighth), dim=1))
        features = features + self.context(coarse.mean(dim=(2, 3)))[..., None, None]
        heat = upsample(self.heat_eighth(features))
        features = self.up_quarter(torch.cat((upsample(features), quarter), dim=1))
        heat = upsample(heat + self.heat_quarter(features))
        features = self.up_half(torch.cat((upsample(features), half), dim=1))
        offsets = None if self.offsets is None else self.offsets(features)
        return heat + self.heat_half(features), self.presence(coarse), offsets
