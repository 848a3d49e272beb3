"""KeypointGAN's networks, after section 4 and appendix E of its paper, and the pool that its discriminators see."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from training.heatmaps import marginals, mean_position
from training.methods.keypointgan_config import KeypointGANConfig
from training.networks import Encoder, NormName, conv_block, normalisation, upsample


class Downsampling(nn.Module):
    """Section 4's downsampling module: an encoder, then a 1 x 1 convolution."""

    def __init__(
        self, in_channels: int, out_channels: int | None, width: int, halvings: int, norm: NormName, early_stride: bool
    ) -> None:
        super().__init__()
        encoder = Encoder(in_channels, width, halvings, norm, early_stride)
        self.blocks = encoder.scales()
        self.widths = [width * 2**index for index in range(len(self.blocks))]
        self.channels = out_channels or encoder.channels
        """Channels of the output; the encoder's where `out_channels` is None."""
        self.last = nn.Conv2d(encoder.channels, self.channels, 1)

    def forward(self, image: Tensor) -> list[Tensor]:
        """(B, C, H, W) to the maps after each block but the last, finest first, and the output."""
        maps = [image]
        for block in self.blocks:
            maps.append(block(maps[-1]))
        return [*maps[1:-1], self.last(maps[-1])]


class Upsampling(nn.Module):
    """Section 4's upsampling module: blocks of two 3 x 3 convolutions, all but the first double the size before.

    Channels halve from block to block; the very last convolution gives `out_channels` (Fig. 17). `skips` are the
    channels that come in from outside at the second block, the third and so on.
    """

    def __init__(
        self, channels: int, width: int, doublings: int, out_channels: int, norm: NormName, skips: list[int]
    ) -> None:
        super().__init__()
        self.blocks = nn.ModuleList()
        incoming = [0, *skips]
        for index in range(doublings + 1):
            out = max(width // 2**index, 1)
            first = conv_block(channels + (incoming[index] if index < len(incoming) else 0), out, norm=norm)
            last = index == doublings
            self.blocks.append(
                nn.Sequential(
                    first, nn.Conv2d(out, out_channels, 3, padding=1) if last else conv_block(out, out, norm=norm)
                )
            )
            channels = out

    def forward(self, code: Tensor, skips: list[Tensor]) -> Tensor:
        """(B, C, H, W) and what the later blocks see beside, to (B, out, H · 2^doublings, W · 2^doublings)."""
        features = code
        for index, block in enumerate(self.blocks):
            if index:
                features = upsample(features)
            if 0 < index <= len(skips):
                features = torch.cat((features, skips[index - 1]), dim=1)
            features = block(features)
        return features


class ImageEncoder(nn.Module):
    """Φ: an image to its skeleton image (Fig. 17, with `skip_connections` Fig. 22)."""

    def __init__(self, config: KeypointGANConfig) -> None:
        super().__init__()
        halvings = int(math.log2(config.code_stride))
        self.down = Downsampling(3, None, config.width, halvings, config.norm, config.early_stride)
        doublings = halvings - int(math.log2(config.skeleton_stride))
        self.skips = min(doublings, len(self.down.blocks) - 1) if config.skip_connections else 0
        skips = self.down.widths[-2::-1][: self.skips]
        self.up = Upsampling(self.down.channels, self.down.channels, doublings, 1, config.norm, skips)

    def forward(self, image: Tensor) -> Tensor:
        """(B, 3, H, W) in [0, 1] to (B, 1, H, W) / skeleton_stride."""
        *maps, code = self.down(image - 0.5)
        return self.up(code, maps[::-1][: self.skips])


class SkeletonEncoder(nn.Module):
    """η: a skeleton image to keypoints (Fig. 19); each is the mean of its heatmap."""

    def __init__(self, config: KeypointGANConfig) -> None:
        super().__init__()
        halvings = int(math.log2(config.heatmap_stride // config.skeleton_stride))
        self.down = Downsampling(1, config.keypoints, config.width, halvings, config.skeleton_norm, False)
        self.softmax = config.skeleton_softmax

    def forward(self, skeleton: Tensor) -> Tensor:
        """(B, 1, h, w) to (B, K, 2)."""
        return mean_position(*marginals(self.down(skeleton)[-1], self.softmax))


class ImageGenerator(nn.Module):
    """Ψ: a clean skeleton image and another frame to the image (Fig. 18)."""

    def __init__(self, config: KeypointGANConfig) -> None:
        super().__init__()
        halvings = int(math.log2(config.code_stride))
        smaller = int(math.log2(config.skeleton_stride))
        self.appearance = Downsampling(3, None, config.width, halvings, config.norm, config.early_stride)
        self.pose = Downsampling(1, self.appearance.channels, config.width, halvings - smaller, config.norm, False)
        channels = self.appearance.channels
        self.up = Upsampling(2 * channels, channels, halvings - smaller, 3, config.norm, [])

    def forward(self, skeleton: Tensor, reference: Tensor) -> Tensor:
        """y* (B, 1, h, w) and x' (B, 3, H, W) to (B, 3, h, w)."""
        codes = (self.appearance(reference - 0.5)[-1], self.pose(skeleton)[-1])
        return self.up(torch.cat(codes, dim=1), [])


class SkeletonDiscriminator(nn.Module):
    """D_y at one scale: a score for each patch (Fig. 20)."""

    def __init__(self, width: int, halvings: int, first_norm: bool) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        channels = 1
        for index in range(halvings + 1):
            out = width * 2**index
            stride = 2 if index < halvings else 1
            norm: NormName = "instance" if index or first_norm else "none"
            layers += [nn.Conv2d(channels, out, 4, stride, 1), normalisation(norm, out), nn.LeakyReLU(0.2)]
            channels = out
        self.layers = nn.Sequential(*layers, nn.Conv2d(channels, 1, 4, 1, 1))

    def forward(self, skeleton: Tensor) -> Tensor:
        """(B, 1, h, w) to (B, 1, h / 2^halvings - 2, w / 2^halvings - 2)."""
        return self.layers(skeleton)


class Discriminator(nn.Module):
    """One patch discriminator for each scale of the skeleton image: 1, 1/2, 1/4 …"""

    def __init__(self, config: KeypointGANConfig) -> None:
        super().__init__()
        shape = (config.discriminator_width, config.discriminator_halvings, config.discriminator_first_norm)
        self.scales = nn.ModuleList(SkeletonDiscriminator(*shape) for _ in range(config.scales))

    def forward(self, skeleton: Tensor, wanted: float) -> Tensor:
        """Mean over scales of E[(wanted - D(y))²], the halves of Eq. 5: (B, 1, h, w) to a scalar."""
        errors = []
        for index, discriminator in enumerate(self.scales):
            scores = discriminator(F.avg_pool2d(skeleton, 2**index)).float()
            errors.append((wanted - scores).square().mean())
        return torch.stack(errors).mean()


class SkeletonPool(nn.Module):
    """Skeleton images of earlier steps, so that the discriminator does not forget them (Shrivastava et al. 2017).

    Its images are buffers: a resumed run goes on with the same ones.
    """

    def __init__(self, size: int, height: int, width: int) -> None:
        super().__init__()
        self.images: Tensor
        self.filled: Tensor
        self.register_buffer("images", torch.zeros(size, 1, height, width))
        self.register_buffer("filled", torch.tensor(0))

    @torch.no_grad()
    def forward(self, images: Tensor) -> Tensor:
        """(B, 1, h, w) to as many: once the pool is full each is swapped for an older one with probability ½."""
        size, start = len(self.images), int(self.filled)
        fresh = min(size - start, len(images))
        self.images[start : start + fresh] = images[:fresh].to(self.images.dtype)
        self.filled += fresh
        later = range(fresh, min(len(images), fresh + size))
        swap = torch.rand(len(later)) < 0.5
        places = torch.randperm(size)[: len(later)][swap].to(images.device)
        chosen = torch.tensor(list(later), dtype=torch.long)[swap].to(images.device)
        shown = images.clone()
        shown[chosen] = self.images[places].to(images.dtype)
        self.images[places] = images[chosen].to(self.images.dtype)
        return shown
