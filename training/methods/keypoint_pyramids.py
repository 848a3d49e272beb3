"""Keypoint Pyramids: keypoints in levels from coarse to fine, each coarse one with children of its own.

Qian, Panagopoulos, Jayaraman: "Discovering Deformable Keypoint Pyramids", ECCV 2022. A feature pyramid gives one map a
level; each level's keypoint encoder also sees the points of the level above it. All points together must redraw the
image (Eq. 1); each level for itself must redraw it from transported features, with fewer channels the finer it is
(Eqs. 2, 3); springs tie children to their parent (Eq. 4).

What the paper leaves open, and what stands here:
- δ's range of indices is inconsistent; child m of the next level belongs to parent ⌊m / M⌋, M children a parent.
- The trunk is IMM's encoder (the paper's keypoint encoders are IMM's); the pyramid above it is that of Lin et al. 2017.
- Maps have the size of their level (Eq. 1: of the finest), not of the image: what lies between the cells of a smooth
  Gaussian holds nothing new.
- Gaussians are exp(-d² / σ²) with σ = 0.1, and the K maps of Eq. 2 combine to 1 - Π_k (1 - Ψ_k), as in the Transporter.
- The reference's features and points get no gradient, as in the Transporter: `detach_reference`.
- Squared norms are sums over points and over the image's values, as written, with points in [-1, 1] and brightness in
  [0, 1]; the whole objective is divided by the number of an image's values, which Adam does not notice. Section 3.1
  calls points pixel coordinates: for 128 pixels that is `spring: 4096`, (128 / 2)² times as much.
- The ablations All-Transport (Eq. 1 from transported features as well) and All-Reconstruction (each level from its
  points and the reference's appearance, without features of its own) are not options; the others are.
- Links are the springs: parent to child.
- Scores, which the paper has none of, say how concentrated a heatmap is around its keypoint.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from itertools import accumulate, pairwise
from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from keypoint_perception.errors import UserError
from training import bounds
from training.heatmaps import concentration, expected_position, gaussian_maps, spatial_softmax
from training.losses import difference
from training.method import Batch, Detection, Method, OptimizerConfig
from training.methods.feature_pyramid import FeaturePyramid
from training.methods.transporter import CombineName, one_map
from training.networks import Decoder, Encoder, NormName, conv_block
from training.regularisation import Regularisation


@dataclass(frozen=True)
class KeypointPyramidsConfig:
    """Defaults are the paper's, section 3.5; sizes that it does not give are marked."""

    keypoints: tuple[int, ...] = (10, 20)
    """N_l, coarse to fine; each a multiple of the one before. Their number is L."""
    coarsest_stride: int = 8
    """Input pixels per cell of the coarsest map, a power of two; each finer level has half of it. 128 px: 16, 32."""
    width: int = 32
    """Channels of the trunk's first block, doubled at each halving (not given)."""
    early_stride: bool = False
    """Halve the size in the trunk's first convolution: several times faster, with a block less."""
    pyramid_width: int = 128
    """Channels of every level of the feature pyramid (not given)."""
    transport_channels: tuple[int, ...] = (64, 32)
    """C_l of Eq. 2, falling from coarse to fine (not given)."""
    decoder_width: int = 128
    """Channels of each decoder's first block, halved at each doubling (not given)."""
    decoder_least_width: int = 32
    """Decoders never have fewer channels."""
    output_stride: int = 1
    """Reconstruct at 1 / this of the input's size, a power of two up to the finest level's stride."""
    norm: NormName = "batch"
    """Normalisation after each convolution (not given)."""
    sigma: float = 0.1
    """σ of the points' Gaussians exp(-d² / σ²), normalised units (not given)."""
    combine: CombineName = "union"
    """How the maps of a level become the one map of Eq. 2."""
    conditioned: bool = True
    """Keypoint encoders see the points of the level above; False is the paper's ablation Unconditioned."""
    transport_mask: Literal["both", "target"] = "both"
    """Where features of x are pasted: under the points of both images (Eq. 2), or of x alone (the Transporter)."""
    detach_reference: bool = True
    """No gradient through the reference's pyramid and points (not given)."""
    reconstruction: float = 1.0
    """Weight of Eq. 1; 0 is the ablation No-Reconstruction."""
    transport: tuple[float, ...] = (0.1, 1.0)
    """λ_l of Eq. 3; all 0 is the ablation No-Transport."""
    spring: float = 1.0
    """λ_s of Eq. 4; 0 is the ablation No-Spring."""
    regularisation: Regularisation = field(default_factory=Regularisation)
    """Not in the paper: terms of every level for small objects and short runs; off by default."""
    optimizer: OptimizerConfig = field(default_factory=lambda: OptimizerConfig(lr=1e-4))

    def __post_init__(self) -> None:
        """Raises UserError that names the first bad value."""
        counts, levels = self.keypoints, len(self.keypoints)
        if not counts or counts[0] < 1 or any(fine % coarse or fine < coarse for coarse, fine in pairwise(counts)):
            raise UserError(f"keypoint_pyramids: keypoints are {list(counts)}: give multiples of the level before")
        for name in ("transport_channels", "transport"):
            if len(getattr(self, name)) != levels:
                given = f"{name} has {len(getattr(self, name))} entries for {levels} levels of keypoints"
                raise UserError(f"keypoint_pyramids: {given}: give one a level")
        if any(fine >= coarse for coarse, fine in pairwise(self.transport_channels)):
            channels = list(self.transport_channels)
            raise UserError(f"keypoint_pyramids: transport_channels are {channels}: give fewer to each finer level")
        bounds.at_least("keypoint_pyramids", self, width=1, pyramid_width=1, decoder_width=1, decoder_least_width=1)
        bounds.at_least("keypoint_pyramids", self, reconstruction=0, spring=0, transport=0)
        bounds.above_zero("keypoint_pyramids", self, "sigma")
        least = 2 ** (levels - 1) * (2 if self.early_stride else 1)
        bounds.power_of_two("keypoint_pyramids", self, "coarsest_stride", least, 64)
        bounds.power_of_two("keypoint_pyramids", self, "output_stride", 1, self.finest_stride)

    @property
    def finest_stride(self) -> int:
        """Input pixels per cell of the finest map."""
        return self.coarsest_stride >> (len(self.keypoints) - 1)


class Level(NamedTuple):
    """What one level knows about a batch of images."""

    features: Tensor
    """f_l, (B, pyramid_width, H_l, W_l)."""
    keypoints: Tensor
    """K_l, (B, N_l, 2)."""
    column: Tensor
    """(B, N_l, W_l) marginal of the heatmaps over their rows."""
    row: Tensor
    """(B, N_l, H_l)."""


def transported(reference: Tensor, reference_map: Tensor, target: Tensor, target_map: Tensor, mask: str) -> Tensor:
    """Φ'_l of Eq. 2: features (B, C_l, H, W), one map a frame (B, 1, H, W), to (B, C_l, H, W)."""
    keep = (1 - reference_map) * (1 - target_map)
    return reference * keep + target * (1 - keep if mask == "both" else target_map)


def spring_energy(levels: list[Tensor]) -> Tensor:
    """Eq. 4 without λ_s, mean over the batch: keypoints (B, N_l, 2) of each level, coarse to fine, to a scalar."""
    energy = levels[0].new_zeros(levels[0].shape[0])
    for parents, children in pairwise(levels):
        anchors = parents.repeat_interleave(children.shape[1] // parents.shape[1], dim=1)
        energy = energy + (anchors - children).square().sum(dim=(1, 2))
    return energy.mean()


def hierarchy(counts: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    """Parent and level of every keypoint, (K,) int64 each: child m belongs to parent ⌊m / M⌋ of the level before."""
    starts = [0, *accumulate(counts)]
    parent = [-1] * counts[0]
    for index, (coarse, fine) in enumerate(pairwise(counts)):
        parent += [starts[index] + child * coarse // fine for child in range(fine)]
    level = [index for index, count in enumerate(counts) for _ in range(count)]
    return torch.tensor(parent), torch.tensor(level)


class KeypointPyramids(Method):
    """Pyramid, keypoint encoders, and the decoders of training. input_size is (width, height) in pixels."""

    Config = KeypointPyramidsConfig
    parent: Tensor
    level: Tensor
    adjacency: Tensor

    def __init__(self, config: KeypointPyramidsConfig, input_size: tuple[int, int]) -> None:
        super().__init__()
        bounds.multiple("keypoint_pyramids", "coarsest_stride", config.coarsest_stride, input_size)
        self.config = config
        self.optimizer = config.optimizer
        self.keypoint_count = sum(config.keypoints)
        self._build_detector()
        self._build_decoders()
        parent, level = hierarchy(config.keypoints)
        adjacency = torch.zeros(self.keypoint_count, self.keypoint_count)
        children = torch.arange(self.keypoint_count)[parent >= 0]
        adjacency[children, parent[children]] = adjacency[parent[children], children] = 1
        for name, value in (("parent", parent), ("level", level), ("adjacency", adjacency)):
            self.register_buffer(name, value, persistent=False)

    def _build_detector(self) -> None:
        config = self.config
        self.pyramid = FeaturePyramid(config)
        above = (0, *config.keypoints[:-1]) if config.conditioned else (0,) * len(config.keypoints)
        width = config.pyramid_width
        self.encoders = nn.ModuleList(
            nn.Sequential(
                conv_block(width + more, width, norm=config.norm),
                conv_block(width, width, norm=config.norm),
                nn.Conv2d(width, count, 1),
            )
            for more, count in zip(above, config.keypoints, strict=True)
        )

    def _build_decoders(self) -> None:
        """The parts of training alone: Φ and x̂ of Eq. 1, Φ_l and x̂_l of Eqs. 2 and 3."""
        config = self.config
        finest = int(math.log2(config.finest_stride))
        self.appearance = Encoder(3, config.width, finest, config.norm, config.early_stride)
        self.decoder = self._decoder(self.appearance.channels + self.keypoint_count, config.finest_stride)
        self.local = nn.ModuleList(
            conv_block(config.pyramid_width, channels, norm=config.norm) for channels in config.transport_channels
        )
        self.level_decoders = nn.ModuleList(
            self._decoder(channels, config.coarsest_stride >> index)
            for index, channels in enumerate(config.transport_channels)
        )

    def _decoder(self, channels: int, stride: int) -> Decoder:
        doublings = int(math.log2(stride // self.config.output_stride))
        least = self.config.decoder_least_width
        return Decoder(channels, self.config.decoder_width, doublings, least_width=least, norm=self.config.norm)

    def encode(self, image: Tensor) -> list[Level]:
        """Section 3.1: f_l and K_l of every level, coarse to fine; image (B, 3, H, W)."""
        levels: list[Level] = []
        for features, encoder in zip(self.pyramid(image), self.encoders, strict=True):
            seen = features
            if levels and self.config.conditioned:
                seen = torch.cat((self._maps(levels[-1].keypoints, features).to(features.dtype), features), dim=1)
            heat = spatial_softmax(encoder(seen))
            keypoints = expected_position(heat)
            levels.append(Level(features, keypoints, heat.sum(dim=-2), heat.sum(dim=-1)))
        return levels

    def _maps(self, keypoints: Tensor, like: Tensor) -> Tensor:
        """Ψ: (B, N, 2) to (B, N, H, W) of the size of `like`."""
        height, width = like.shape[-2:]
        return gaussian_maps(keypoints, height, width, self.config.sigma, halved=False)

    def detect(self, image: Tensor) -> Detection:
        """See Method.detect. Keypoints are those of all levels, coarse to fine."""
        levels = self.encode(image)
        batch = image.shape[0]
        return Detection(
            torch.cat([level.keypoints for level in levels], dim=1),
            torch.cat([concentration(x.column, x.row, x.keypoints, 2 * self.config.sigma) for x in levels], dim=1),
            self.adjacency.expand(batch, -1, -1),
            self.parent.expand(batch, -1),
            self.level.expand(batch, -1),
        )

    def reconstruct(self, keypoints: Tensor, reference: Tensor) -> Tensor:
        """x̂ of Eq. 1: all points (B, K, 2) of x and its reference (B, 3, H, W) to (B, 3, H, W) / output_stride."""
        appearance = self.appearance(reference)
        maps = self._maps(keypoints, appearance).to(appearance.dtype)
        return self.decoder(torch.cat((maps, appearance), dim=1))

    def reconstruct_levels(self, levels: list[Level], reference: list[Level]) -> list[Tensor]:
        """x̂_l of Eq. 3, one a level: (B, 3, H, W) / output_stride."""
        out = []
        for here, there, local, decoder in zip(levels, reference, self.local, self.level_decoders, strict=True):
            with torch.set_grad_enabled(torch.is_grad_enabled() and not self.config.detach_reference):
                there_local, there_map = local(there.features), self._one_map(there)
            features = transported(
                there_local, there_map, local(here.features), self._one_map(here), self.config.transport_mask
            )
            out.append(decoder(features))
        return out

    def _one_map(self, level: Level) -> Tensor:
        return one_map(self._maps(level.keypoints, level.features), self.config.combine)

    def _encode_reference(self, image: Tensor) -> list[Level]:
        with torch.set_grad_enabled(torch.is_grad_enabled() and not self.config.detach_reference):
            return self.encode(image)

    def loss(self, batch: Batch, phase: str) -> dict[str, Tensor]:
        """Eq. 5, divided by the number of an image's values; Eqs. 1 and 3 count where `loss_mask` does."""
        config, mask = self.config, batch.get("loss_mask")
        levels = self.encode(batch["image"])
        target = F.avg_pool2d(batch["image"], config.output_stride)
        keypoints = [level.keypoints for level in levels]
        all_keypoints = torch.cat(keypoints, dim=1)
        everything = self.reconstruct(all_keypoints, batch["reference"])
        terms = {"reconstruction": config.reconstruction * difference(everything, target, mask=mask)}
        reconstructions = self.reconstruct_levels(levels, self._encode_reference(batch["reference"]))
        for index, (weight, reconstruction) in enumerate(zip(config.transport, reconstructions, strict=True)):
            terms[f"transport_{index}"] = weight * difference(reconstruction, target, mask=mask)
        terms["spring"] = config.spring * spring_energy(keypoints) / batch["image"][0].numel()
        for index, level in enumerate(levels):
            extra = config.regularisation.terms(level.column, level.row, level.keypoints, batch)
            terms |= {f"{name}_{index}": value for name, value in extra.items()}
        return terms | config.regularisation.turned(all_keypoints, batch, self._locate)

    def _locate(self, image: Tensor) -> Tensor:
        """(B, K, 2) the keypoints of all levels, coarse to fine."""
        return torch.cat([level.keypoints for level in self.encode(image)], dim=1)

    @torch.no_grad()
    def preview(self, batch: Batch) -> dict[str, Tensor]:
        """The reconstruction from all points, and that of each level alone."""
        levels = self.encode(batch["image"])
        keypoints = torch.cat([level.keypoints for level in levels], dim=1)
        pictures = {"reconstruction": self.reconstruct(keypoints, batch["reference"])}
        for index, picture in enumerate(self.reconstruct_levels(levels, self.encode(batch["reference"]))):
            pictures[f"level {index}"] = picture
        size = batch["image"].shape[-2:]
        return {k: F.interpolate(v.float().clamp(0, 1), size, mode="bilinear") for k, v in pictures.items()}
