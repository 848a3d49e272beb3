"""Convolutional blocks that two or more papers share. Feature maps are (B, C, H, W)."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

NormName = Literal["batch", "instance", "group", "none"]
"""`batch` is the papers' choice; `group` does not depend on the batch, `instance` not on an image's contrast."""


def normalisation(name: NormName, channels: int) -> nn.Module:
    """A normalisation layer of `channels` channels by its name."""
    if name == "batch":
        return nn.BatchNorm2d(channels)
    if name == "instance":
        return nn.InstanceNorm2d(channels, affine=True)
    if name == "group":
        return nn.GroupNorm(max(g for g in (8, 4, 2, 1) if channels % g == 0), channels)
    return nn.Identity()


def conv_block(
    in_channels: int, out_channels: int, kernel: int = 3, stride: int = 1, norm: NormName = "batch", leak: float = 0.0
) -> nn.Sequential:
    """Convolution, normalisation, (leaky) ReLU; size H x W to ceil(H / stride) x ceil(W / stride)."""
    activation = nn.LeakyReLU(leak, inplace=True) if leak else nn.ReLU(inplace=True)
    convolution = nn.Conv2d(in_channels, out_channels, kernel, stride, kernel // 2, bias=norm == "none")
    return nn.Sequential(convolution, normalisation(norm, out_channels), activation)


class ResidualBlock(nn.Module):
    """x + conv(relu(conv(x))), then ReLU; convolutions have batch norm, and x a 1x1 projection where shapes differ."""

    def __init__(self, in_channels: int, out_channels: int, stride: int = 1) -> None:
        super().__init__()
        self.body = nn.Sequential(
            conv_block(in_channels, out_channels, stride=stride),
            nn.Conv2d(out_channels, out_channels, 3, padding=1, bias=False),
            nn.BatchNorm2d(out_channels),
        )
        self.shortcut: nn.Module = nn.Identity()
        if in_channels != out_channels or stride != 1:
            self.shortcut = nn.Conv2d(in_channels, out_channels, 1, bias=False)
        self.stride = stride

    def forward(self, features: Tensor) -> Tensor:
        """(B, C_in, H, W) to (B, C_out, ceil(H / stride), ceil(W / stride))."""
        # The same as a 1x1 convolution with stride, which crashes torch 2.13 on CPUs for channels_last RGB images.
        subsampled = features[..., :: self.stride, :: self.stride]
        return F.relu(self.body(features) + self.shortcut(subsampled))


class Encoder(nn.Module):
    """Blocks of two convolutions; each block doubles the channels, each but the first halves the size.

    The first filter is 7x7, all others are 3x3 (IMM section 4.1). With `early_stride` the first block halves the size,
    too: as many halvings with a block less, and no convolution at full resolution, which is several times faster.
    """

    def __init__(
        self, in_channels: int, width: int, halvings: int, norm: NormName = "batch", early_stride: bool = False
    ) -> None:
        super().__init__()
        blocks: list[nn.Module] = []
        channels = in_channels
        for index in range(halvings + (0 if early_stride else 1)):
            kernel, stride = (7, 2 if early_stride else 1) if index == 0 else (3, 2)
            out = width * 2**index
            blocks += [conv_block(channels, out, kernel, stride, norm), conv_block(out, out, norm=norm)]
            channels = out
        self.blocks = nn.Sequential(*blocks)
        self.channels = channels
        """Channels of the output."""

    def forward(self, image: Tensor) -> Tensor:
        """(B, C_in, H, W) to (B, channels, H / 2^halvings, W / 2^halvings), rounded up."""
        return self.blocks(image)

    def scales(self) -> nn.ModuleList:
        """Its blocks of two convolutions, finest first, for a module that looks at what comes out of each."""
        return nn.ModuleList(self.blocks[i : i + 2] for i in range(0, len(self.blocks), 2))


class Decoder(nn.Module):
    """Blocks of two 3x3 convolutions; before each but the first the size doubles bilinearly and the channels halve.

    `width` channels in the first block, never fewer than `least_width`; a last convolution to RGB without
    non-linearity (IMM section 4.1).
    """

    def __init__(
        self, in_channels: int, width: int, doublings: int, least_width: int = 32, norm: NormName = "batch"
    ) -> None:
        super().__init__()
        self.blocks = nn.ModuleList()
        channels = in_channels
        for index in range(doublings + 1):
            out = max(width // 2**index, least_width)
            self.blocks.append(nn.Sequential(conv_block(channels, out, norm=norm), conv_block(out, out, norm=norm)))
            channels = out
        self.last = nn.Conv2d(channels, 3, 3, padding=1)

    def forward(self, features: Tensor) -> Tensor:
        """(B, C_in, H, W) to (B, 3, H · 2^doublings, W · 2^doublings)."""
        for index, block in enumerate(self.blocks):
            features = block(upsample(features) if index else features)
        return self.last(features)


class UNet(nn.Module):
    """The U-Net of Ronneberger et al. 2015, with normalisation and padding.

    `depth` steps down (2 x 2 max-pooling) double the channels from `width` to at most `widest`; each step up doubles
    the size (bilinear) and sees the map of the same size on the way down. H and W: multiples of stride · 2^depth.
    With a `stride` above 1 a convolution shrinks the input first, and the output stays that small: cheap. The last
    convolution sees `last_kernel` pixels a side.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        width: int,
        depth: int = 4,
        widest: int | None = None,
        stride: int = 1,
        norm: NormName = "batch",
        last_kernel: int = 1,
    ) -> None:
        super().__init__()
        widths = [min(width * 2**level, widest or width * 2**level) for level in range(depth + 1)]
        self.stem = conv_block(in_channels, width, 5, stride, norm) if stride > 1 else nn.Identity()
        steps = list(pairwise(widths))
        self.down = nn.ModuleList([_double(width if stride > 1 else in_channels, widths[0], norm)])
        self.down.extend(_double(above, below, norm) for above, below in steps)
        self.up = nn.ModuleList(_double(above + below, above, norm) for above, below in reversed(steps))
        self.last = nn.Conv2d(widths[0], out_channels, last_kernel, padding=last_kernel // 2)

    def forward(self, image: Tensor) -> Tensor:
        """(B, C_in, H, W) to (B, C_out, H / stride, W / stride)."""
        features = self.stem(image)
        skips = []
        for level, block in enumerate(self.down):
            features = block(F.max_pool2d(features, 2) if level else features)
            skips.append(features)
        skips.pop()
        for block in self.up:
            features = block(torch.cat((skips.pop(), upsample(features)), dim=1))
        return self.last(features)


def _double(in_channels: int, out_channels: int, norm: NormName) -> nn.Sequential:
    """The U-Net's double convolution."""
    first, second = (conv_block(channels, out_channels, norm=norm) for channels in (in_channels, out_channels))
    return nn.Sequential(first, second)


def upsample(features: Tensor) -> Tensor:
    """To twice the size, bilinear, so that pixel areas (not centres) coincide."""
    return F.interpolate(features, scale_factor=2, mode="bilinear", align_corners=False)


def initialise_normal(module: nn.Module, std: float, *, bound: float | None) -> None:
    """Convolution and linear weights from N(0, std²), biases 0; norms unchanged.

    bound: truncated at so many deviations, None for not at all; at 2 the weights' own deviation is 0.88 std.
    """
    for weight in _weights_without_biases(module):
        if bound is None:
            nn.init.normal_(weight, std=std)
        else:
            nn.init.trunc_normal_(weight, std=std, a=-bound * std, b=bound * std)


def initialise_kaiming(module: nn.Module, leak: float) -> None:
    """Weights from N(0, 2 / (1 + leak²) / a filter's inputs), biases 0 (He et al. 2015); norms stay."""
    for weight in _weights_without_biases(module):
        nn.init.kaiming_normal_(weight, a=leak)


def _weights_without_biases(module: nn.Module) -> Iterator[Tensor]:
    """The weights of convolutions and linear layers, whose biases are set to 0."""
    for part in module.modules():
        if isinstance(part, (nn.Conv2d, nn.ConvTranspose2d, nn.Linear)):
            if part.bias is not None:
                nn.init.zeros_(part.bias)
            yield part.weight


@torch.no_grad()
def update_average(average: nn.Module, module: nn.Module, rate: float) -> None:
    """average = rate · average + (1 - rate) · module, over parameters; buffers are copied."""
    for mean, value in zip(average.parameters(), module.parameters(), strict=True):
        mean.lerp_(value.detach(), 1 - rate)
    for kept, latest in zip(average.buffers(), module.buffers(), strict=True):
        kept.copy_(latest)
