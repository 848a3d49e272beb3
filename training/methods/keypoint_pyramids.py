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
- A cell of a coarse map is where four of the finer one are: points of two levels meet in the image's coordinates.
- Gaussians are exp(-d² / σ²) with σ = 0.1, and the K maps of Eq. 2 combine to 1 - Π_k (1 - Ψ_k), as in the Transporter.
- The reference's features and points get no gradient, as in the Transporter: `detach_reference`.
- Squared norms are sums over points and over the image's values, as written, with points in [-1, 1] and brightness in
  [0, 1]; the whole objective is divided by the number of an image's values, which Adam does not notice. Section 3.1
  calls points pixel coordinates: for 128 pixels that is `spring: 4096`, (128 / 2)² times as much.
- The ablation All-Transport redraws from all points as from one level's, with the appearance's features transported;
  All-Reconstruction each level from its maps and its C_l channels of the reference, whose pyramid learns nothing by it.
- Links are the springs: parent to child.
- Scores, which the paper has none of, say how concentrated a heatmap is around its keypoint.
"""

from __future__ import annotations

import math
from itertools import accumulate, pairwise
from typing import ClassVar, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from keypoint_perception.observation import adjacency_of
from training import bounds
from training.heatmaps import concentration, expected_position, gaussian_maps, map_extent, spatial_softmax
from training.losses import difference
from training.method import Batch, Detection, Method
from training.methods.feature_pyramid import FeaturePyramid
from training.methods.keypoint_pyramids_config import KeypointPyramidsConfig, Redraw
from training.methods.transporter import one_map, transport
from training.networks import Decoder, Encoder, conv_block


class Level(NamedTuple):
    """What one level knows about a batch of images."""

    features: Tensor
    """f_l, (B, pyramid_width, H_l, W_l)."""
    keypoints: Tensor
    """K_l, (B, N_l, 2), in the image's coordinates."""
    column: Tensor
    """(B, N_l, W_l) marginal of the heatmaps over their rows."""
    row: Tensor
    """(B, N_l, H_l)."""


def spring_energy(levels: list[Tensor]) -> Tensor:
    """Eq. 4 without λ_s, mean over the batch: keypoints (B, N_l, 2) of each level in the image, to a scalar."""
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
    graph_origin: ClassVar[str] = "from each keypoint to its children, by construction"
    parent: Tensor
    level: Tensor
    adjacency: Tensor
    map_extents: Tensor
    """(L, 2) of the levels' maps, coarse to fine."""

    def __init__(self, config: KeypointPyramidsConfig, input_size: tuple[int, int]) -> None:
        super().__init__()
        smallest = config.coarsest_stride << config.context
        bounds.multiple("keypoint_pyramids", "coarsest_stride · 2^context", smallest, input_size)
        self.config = config
        self.optimizer = config.optimizer
        self.keypoint_count = sum(config.keypoints)
        self._build_detector()
        self._build_decoders()
        parent, level = hierarchy(config.keypoints)
        links = [(child, above) for child, above in enumerate(parent.tolist()) if above >= 0]
        adjacency = torch.from_numpy(adjacency_of(links, self.keypoint_count)).float()
        strides = [config.coarsest_stride >> index for index in range(len(config.keypoints))]
        self.widths = [input_size[0] // stride for stride in strides]
        map_extents = torch.stack([map_extent(input_size, stride) for stride in strides])
        fixed = {"parent": parent, "level": level, "adjacency": adjacency, "map_extents": map_extents}
        for name, value in fixed.items():
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
        maps = self.keypoint_count if config.redraw_all == "points" else 0
        self.decoder = self._decoder(self.appearance.channels + maps, config.finest_stride)
        self.local = nn.ModuleList(
            conv_block(config.pyramid_width, channels, norm=config.norm) for channels in config.transport_channels
        )
        counts = config.keypoints if config.redraw_level == "points" else (0,) * len(config.keypoints)
        self.level_decoders = nn.ModuleList(
            self._decoder(channels + maps, config.coarsest_stride >> index)
            for index, (channels, maps) in enumerate(zip(config.transport_channels, counts, strict=True))
        )

    def _decoder(self, channels: int, stride: int) -> Decoder:
        doublings = int(math.log2(stride // self.config.output_stride))
        least = self.config.decoder_least_width
        return Decoder(channels, self.config.decoder_width, doublings, least_width=least, norm=self.config.norm)

    def encode(self, image: Tensor) -> list[Level]:
        """Section 3.1: f_l and K_l of every level, coarse to fine; image (B, 3, H, W)."""
        levels: list[Level] = []
        for index, (features, encoder) in enumerate(zip(self.pyramid(image), self.encoders, strict=True)):
            seen = features
            if levels and self.config.conditioned:
                seen = self._with_maps(levels[-1].keypoints, features)
            heat = spatial_softmax(encoder(seen))
            keypoints = expected_position(heat) * self.map_extents[index]
            levels.append(Level(features, keypoints, heat.sum(dim=-2), heat.sum(dim=-1)))
        return levels

    def all_points(self, levels: list[Level]) -> Tensor:
        """(B, K, 2) the keypoints of all levels, coarse to fine."""
        return torch.cat([level.keypoints for level in levels], dim=1)

    def point_maps(self, keypoints: Tensor, like: Tensor) -> Tensor:
        """Ψ: (B, N, 2) to (B, N, H, W) of the size of `like`."""
        height, width = like.shape[-2:]
        points = keypoints / self.map_extents[self.widths.index(width)]
        return gaussian_maps(points, height, width, self.config.sigma, halved=False)

    def detect(self, image: Tensor) -> Detection:
        """See Method.detect. Keypoints are those of all levels, coarse to fine."""
        levels = self.encode(image)
        batch = image.shape[0]
        return Detection(
            self.all_points(levels),
            torch.cat([concentration(x.column, x.row, 2 * self.config.sigma) for x in levels], dim=1),
            self.adjacency.expand(batch, -1, -1),
            self.parent.expand(batch, -1),
            self.level.expand(batch, -1),
        )

    def reconstruct(self, image: Tensor, points: Tensor, reference: Tensor, reference_points: Tensor) -> Tensor:
        """x̂ of Eq. 1: two images (B, 3, H, W), all points (B, K, 2) in each, to (B, 3, H, W) / output_stride."""
        redraw = self.config.redraw_all
        return self.decoder(self._joined(redraw, self.appearance, image, points, reference, reference_points))

    def reconstruct_levels(self, levels: list[Level], reference: list[Level]) -> list[Tensor]:
        """x̂_l of Eq. 3, one a level: (B, 3, H, W) / output_stride."""
        redraw = self.config.redraw_level
        parts = zip(levels, reference, self.local, self.level_decoders, strict=True)
        return [
            decoder(self._joined(redraw, local, here.features, here.keypoints, there.features, there.keypoints))
            for here, there, local, decoder in parts
        ]

    def _joined(
        self, redraw: Redraw, encoder: nn.Module, here: Tensor, points: Tensor, there: Tensor, there_points: Tensor
    ) -> Tensor:
        """What a decoder redraws the target from, Eq. 2: `here`, its points, and the reference `there`."""
        if redraw == "points":
            return self._with_maps(points, encoder(there))
        with self._detached():
            there_features = encoder(there)
            there_map = self._one_map(there_points, there_features)
        features = encoder(here)
        here_map = self._one_map(points, features)
        return transport(there_features, there_map, features, here_map, self.config.transport_mask)

    def _with_maps(self, keypoints: Tensor, features: Tensor) -> Tensor:
        """(B, N, 2) and (B, C, H, W) to (B, N + C, H, W)."""
        return torch.cat((self.point_maps(keypoints, features).to(features.dtype), features), dim=1)

    def _one_map(self, keypoints: Tensor, like: Tensor) -> Tensor:
        return one_map(self.point_maps(keypoints, like), self.config.combine)

    def _detached(self) -> torch.set_grad_enabled:
        """Where the reference is looked at."""
        return torch.set_grad_enabled(torch.is_grad_enabled() and not self.config.detach_reference)

    def loss(self, batch: Batch, phase: str) -> dict[str, Tensor]:
        """Eq. 5, divided by the number of an image's values; Eqs. 1 and 3 count where `loss_mask` does."""
        config, mask = self.config, batch.get("loss_mask")
        levels = self.encode(batch["image"])
        target = F.avg_pool2d(batch["image"], config.output_stride)
        with self._detached():
            reference = self.encode(batch["reference"])
        points = self.all_points(levels)
        everything = self.reconstruct(batch["image"], points, batch["reference"], self.all_points(reference))
        terms = {"reconstruction": config.reconstruction * difference(everything, target, mask=mask)}
        reconstructions = self.reconstruct_levels(levels, reference)
        for index, (weight, reconstruction) in enumerate(zip(config.transport, reconstructions, strict=True)):
            terms[f"transport_{index}"] = weight * difference(reconstruction, target, mask=mask)
        terms["spring"] = (
            config.spring * spring_energy([level.keypoints for level in levels]) / batch["image"][0].numel()
        )
        moving = config.regularisation.motion(batch)
        for index, level in enumerate(levels):
            extra = config.regularisation.terms(level.column, level.row, level.keypoints, moving)
            terms |= {f"{name}_{index}": value for name, value in extra.items()}
        turned = config.regularisation.turned(points, batch["image"], moving, lambda x: self.all_points(self.encode(x)))
        return terms | turned

    @torch.no_grad()
    def preview(self, batch: Batch) -> dict[str, Tensor]:
        """The reconstruction from all points, and that of each level alone."""
        levels, reference = self.encode(batch["image"]), self.encode(batch["reference"])
        points, reference_points = self.all_points(levels), self.all_points(reference)
        together = self.reconstruct(batch["image"], points, batch["reference"], reference_points)
        pictures = {"reconstruction": together}
        for index, picture in enumerate(self.reconstruct_levels(levels, reference)):
            pictures[f"level {index}"] = picture
        size = batch["image"].shape[-2:]
        return {k: F.interpolate(v.float().clamp(0, 1), size, mode="bilinear") for k, v in pictures.items()}
