"""NPT's skeleton predictor ψ and background network B (sections III and VIII); its point extractor is a plain U-Net."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from training.methods.npt_config import PSI_KERNELS, NptConfig
from training.networks import conv_block


class SkeletonPredictor(nn.Module):
    """ψ: an image and its point maps to one logit for each pair of points, (B, P (P - 1) / 2)."""

    def __init__(self, config: NptConfig, input_size: tuple[int, int]) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        channels = 3 + config.points
        for kernel, width, stride in zip(PSI_KERNELS, config.psi_widths, config.psi_strides, strict=True):
            layers.append(conv_block(channels, width, kernel, stride, leak=0.2))
            channels = width
        self.convolutions = nn.Sequential(*layers)
        width, height = input_size
        for stride in config.psi_strides:
            width, height = -(-width // stride), -(-height // stride)
        features = channels * width * height
        self.head = nn.Sequential(nn.LayerNorm(features), nn.Linear(features, config.points * (config.points - 1) // 2))

    def forward(self, image: Tensor, maps: Tensor) -> Tensor:
        """image (B, 3, H, W) and π (B, P, H, W) to logits (B, E)."""
        return self.head(self.convolutions(torch.cat((image, maps.to(image.dtype)), dim=1)).flatten(1))


class BackgroundNetwork(nn.Module):
    """B: an image, shrunk to 16 x 16, to a background image of its own size. Too narrow to hold the object."""

    def __init__(self, code: int, input_size: tuple[int, int]) -> None:
        super().__init__()
        layers = [conv_block(before, after, stride=2, leak=0.2) for before, after in ((3, 16), (16, 32), (32, 32))]
        self.encoder = nn.Sequential(*layers, nn.Flatten(), nn.Linear(32 * 2 * 2, code))
        self.spread = nn.Linear(code, 32 * 4 * 4)
        self.decoder = nn.Sequential(
            nn.Upsample(scale_factor=2), nn.ConvTranspose2d(32, 16, 4, 2, 1), nn.LeakyReLU(0.2),
            nn.Upsample(scale_factor=2), nn.ConvTranspose2d(16, 3, 4, 2, 1), nn.Sigmoid(),
        )  # fmt: skip
        self.size = (input_size[1], input_size[0])

    def forward(self, image: Tensor) -> Tensor:
        """(B, 3, H, W) to (B, 3, H, W) in [0, 1]."""
        code = self.encoder(F.interpolate(image, (16, 16), mode="area"))
        background = self.decoder(self.spread(code).view(-1, 32, 4, 4))
        return F.interpolate(background, self.size, mode="bilinear", align_corners=False)
