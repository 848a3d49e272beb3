"""Transporter: keypoints by transporting features between two frames of one video.

Kulkarni, Gupta, Ionescu, Borgeaud, Reynolds, Zisserman, Mnih: "Unsupervised Learning of Object Keypoints for Perception
and Control", NeurIPS 2019, https://arxiv.org/abs/1906.11883. An encoder Φ gives features, a keypoint network Ψ gives K
points. The source's features are erased at the points of both frames and the target's are pasted at its own points; a
decoder must then redraw the target. Whatever differs between the frames has to lie under a point.

Readings of the paper, with their reasons:
- Gaussian maps are exp(-d² / σ²), as in the authors' code; `gaussian: halved` has the usual ½.
- The K maps of a frame combine to 1 - Π_k (1 - H_k), which stays in [0, 1]: the erasing factor is then exactly what
  erasing point after point gives. `combine` has the sum and the maximum as well. The authors' code erases and pastes
  point after point, so that a later point also erases what an earlier one pasted, and the order of the points counts.
- The loss is the mean, not the sum, of the squared error: Adam does not notice, and weights hold for any image size.
- Scores, which the paper has none of, say how concentrated a heatmap is around its keypoint.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Literal

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
from training.losses import difference
from training.method import Batch, Detection, Method, OptimizerConfig, independent_keypoints
from training.networks import Decoder, Encoder, NormName, UNet
from training.regularisation import Regularisation

CombineName = Literal["union", "sum", "max"]
"""How the maps of K points become one."""
PasteName = Literal["target", "both"]
"""Where features of the target are pasted: under its own points, or under those of both frames."""


def _paper_optimizer() -> OptimizerConfig:
    return OptimizerConfig(lr=1e-3, decay=0.95, decay_steps=100_000)


@dataclass(frozen=True)
class TransporterConfig:
    """Defaults are the paper's (its appendix: 80 x 80 pixels, batches of 64)."""

    keypoints: int = 10
    """K."""
    width: int = 32
    """Channels of the first convolution; doubled at each halving of the size."""
    map_stride: int = 4
    """Input pixels per cell of features and heatmaps, a power of two."""
    early_stride: bool = False
    """Halve the size in the first convolution: several times faster, with a block less."""
    detector_depth: int = 0
    """Ψ is a U-Net of so many steps down from the maps' size, which sees all of the image; 0 for the paper's, which is
    like Φ and sees a part."""
    decoder_least_width: int = 32
    """The decoder never has fewer channels."""
    output_stride: int = 1
    """Reconstruct at 1 / this of the input's size, a power of two up to map_stride."""
    norm: NormName = "batch"
    """Normalisation after each convolution. The authors' code calls layer and instance norm a lot more stable than the
    paper's batch norm; its published example has `instance`, 5 points, 128 x 128 pixels and encoders of 16, 16, 32 and
    32 channels that halve the size once."""
    sigma: float = 0.1
    """σ of the points' Gaussians, normalised units."""
    gaussian: GaussianName = "plain"
    """Form of the points' Gaussians. plain: exp(-d² / σ²); halved: exp(-d² / 2σ²)."""
    combine: CombineName = "union"
    """The one map of K points: 1 - Π (1 - H_k), the sum cut at 1, or the maximum."""
    softmax: SoftmaxName = "mean"
    """How a heatmap becomes a position: a softmax over each axis of the means or the sums over the other axis, or one
    softmax over the whole map, which finds small things sooner."""
    detach_source: bool = True
    """No gradient through the source's features and points: the target's alone are learned."""
    regularisation: Regularisation = field(default_factory=Regularisation)
    """Not in the paper: terms for small objects and short runs; off by default."""
    optimizer: OptimizerConfig = field(default_factory=_paper_optimizer)

    def __post_init__(self) -> None:
        """Raises UserError that names the first bad value."""
        bounds.at_least("transporter", self, keypoints=1, width=1, decoder_least_width=1, detector_depth=0)
        bounds.above_zero("transporter", self, "sigma")
        bounds.power_of_two("transporter", self, "map_stride", 2, 64)
        bounds.power_of_two("transporter", self, "output_stride", 1, self.map_stride)


def one_map(maps: Tensor, combine: CombineName = "union") -> Tensor:
    """H: the maps (B, K, H, W) of K points, each with peak 1, to one (B, 1, H, W) in [0, 1]."""
    if combine == "sum":
        return maps.sum(dim=1, keepdim=True).clamp(max=1)
    if combine == "max":
        return maps.amax(dim=1, keepdim=True)
    return 1 - (1 - maps).prod(dim=1, keepdim=True)


def transport(
    source: Tensor, source_map: Tensor, target: Tensor, target_map: Tensor, paste: PasteName = "target"
) -> Tensor:
    """k Φ_s + H_t Φ_t with k = (1 - H_s) (1 - H_t); with `both` 1 - k in place of H_t.

    Features (B, C, H, W) and maps (B, 1, H, W) to (B, C, H, W).
    """
    keep = (1 - source_map) * (1 - target_map)
    return keep * source + (target_map if paste == "target" else 1 - keep) * target


class Transporter(Method):
    """Φ, Ψ and the decoder. input_size is (width, height) in pixels."""

    Config = TransporterConfig
    map_extent: Tensor

    def __init__(self, config: TransporterConfig, input_size: tuple[int, int]) -> None:
        super().__init__()
        smallest = config.map_stride << config.detector_depth
        bounds.multiple("transporter", "map_stride · 2^detector_depth", smallest, input_size)
        self.config = config
        self.optimizer = config.optimizer
        self.keypoint_count = config.keypoints
        self.register_buffer("map_extent", map_extent(input_size, config.map_stride), persistent=False)
        halvings = int(math.log2(config.map_stride))
        self.features = Encoder(3, config.width, halvings, config.norm, config.early_stride)
        self.detector: nn.Module
        if config.detector_depth:
            depth, stride = config.detector_depth, config.map_stride
            self.detector = UNet(3, config.keypoints, config.width, depth, stride=stride, norm=config.norm)
        else:
            trunk = Encoder(3, config.width, halvings, config.norm, config.early_stride)
            self.detector = nn.Sequential(trunk, nn.Conv2d(trunk.channels, config.keypoints, 1))
        self.decoder = Decoder(
            self.features.channels,
            self.features.channels,
            halvings - int(math.log2(config.output_stride)),
            least_width=config.decoder_least_width,
            norm=config.norm,
        )

    def detect(self, image: Tensor) -> Detection:
        """See Method.detect."""
        column, row, keypoints = self._locate(image)
        scores = concentration(column, row, 2 * self.config.sigma)
        return independent_keypoints(keypoints, scores)

    def _locate(self, image: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Marginals of the heatmaps, (B, K, W_map) and (B, K, H_map), and their means (B, K, 2)."""
        column, row = marginals(self.detector(image), self.config.softmax)
        return column, row, mean_position(column, row) * self.map_extent

    def reconstruct(self, source: Tensor, target: Tensor, keypoints: Tensor | None = None) -> Tensor:
        """x̂_t from two frames (B, 3, H, W) and the target's keypoints, where known: (B, 3, H, W) / output_stride."""
        with torch.set_grad_enabled(torch.is_grad_enabled() and not self.config.detach_source):
            source_features, source_map = self.features(source), self._map(source)
        target_features, target_map = self.features(target), self._map(target, keypoints)
        return self.decoder(transport(source_features, source_map, target_features, target_map))

    def _map(self, image: Tensor, keypoints: Tensor | None = None) -> Tensor:
        """H_Ψ: (B, 1, H_map, W_map), of keypoints that are known already or of those that are detected."""
        keypoints = self._locate(image)[2] if keypoints is None else keypoints
        height, width = (side // self.config.map_stride for side in image.shape[-2:])
        halved = self.config.gaussian == "halved"
        maps = gaussian_maps(keypoints / self.map_extent, height, width, self.config.sigma, halved=halved)
        return one_map(maps, self.config.combine)

    def loss(self, batch: Batch, phase: str) -> dict[str, Tensor]:
        """‖x̂_t - x_t‖², where `loss_mask` counts if the batch has one; and the optional terms."""
        column, row, keypoints = self._locate(batch["image"])
        reconstruction = self.reconstruct(batch["reference"], batch["image"], keypoints)
        target = F.avg_pool2d(batch["image"], self.config.output_stride)
        terms = {"reconstruction": difference(reconstruction, target, mask=batch.get("loss_mask"))}
        moving = self.config.regularisation.motion(batch)
        terms |= self.config.regularisation.terms(column, row, keypoints, moving)
        turned = self.config.regularisation.turned(keypoints, batch["image"], moving, lambda x: self._locate(x)[2])
        return terms | turned

    @torch.no_grad()
    def preview(self, batch: Batch) -> dict[str, Tensor]:
        """The reconstruction, and the one map of the target's points."""
        size = batch["image"].shape[-2:]
        pictures = {
            "reconstruction": self.reconstruct(batch["reference"], batch["image"]).clamp(0, 1),
            "points": self._map(batch["image"]).expand(-1, 3, -1, -1),
        }
        return {name: F.interpolate(picture.float(), size, mode="bilinear") for name, picture in pictures.items()}
