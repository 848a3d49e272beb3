"""AutoLink: keypoints and one graph for all images, learned by inpainting.

He, Wandt, Rhodin: "AutoLink: Self-supervised Learning of Human Skeletons and Object Outlines by Linking Keypoints",
NeurIPS 2022. A detector places K keypoints; a single-channel edge map draws every pair of keypoints as a line whose
weight is shared by all images; a decoder repaints the image from that edge map and a few cells of the image itself.

Where the paper and its official code differ the text is the default:
- Eq. 2 lost its minus sign: S_ij = exp(-d²/σ²).
- Eq. 6 is a squared L2 distance of features, the code takes the mean L1 distance: `feature_error`.
- Adam with betas (0.9, 0.99) against AdamW with (0.9, 0.999) and weight decay 1e-3: `optimizer`.
- σ² of Eq. 2, 5e-5 in the paper, is 1e-3 in the code: `thickness`.
- The code mirrors half of the images of faces, hands, flowers and people; nothing here does.
- The code resizes images to 224 x 224 before Γ: `feature_size`. It sums the layers' errors, of which the mean is taken
  here: Adam's steps are the same.
- The factor of 512 on the edge weights' learning rate is, in the code, a factor inside the softplus. Adam steps by the
  gradient's sign, so the two are equal, where no gradient is clipped, once eps and the weight decay are divided by it;
  decay by its square under `adam`, which adds it to a gradient that is 512 times smaller here: `param_groups`.

From the code, where the paper is silent: all convolutions start after Kaiming with no bias, and the detector's last one
is 3 x 3. Of torch's own start the heatmaps are so flat that all keypoints begin within a few pixels of the centre:
`initialisation`.

Not from the code, of whose networks only the sizes are taken; ours cost less, and other methods share their blocks:
- It convolves at full size and halves bilinearly; the detector here has a stride of 2, the decoder max-pooling. Its
  shortcuts are 3 x 3 with BatchNorm, ours 1 x 1 without. Its decoder opens with one convolution without BatchNorm, ours
  with two with it, and takes in the maps of the way down after a level's convolutions, ours before: its last one, 3 x 3
  here too but for `layered`, is on 64 + 64 channels, ours on 64. Its ReLUs leak 0.2, ours do not.

In neither, but here: the loss compares the image itself too, as a layer before Γ's own, as IMM's and KeypointGAN's do:
`compare_image`.

Options that the paper does not have, all off by default and each with its reason in `AutoLinkConfig`: `layered`,
`motion_weight`, `shadow_free`, `edge_cost`, `regularisation`, `running_mean_rate`, `edge_stride`.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import pairwise
from typing import Any, ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from keypoint_perception.errors import UserError
from training import bounds
from training.heatmaps import (
    expected_position,
    grid,
    half_widths,
    map_extent,
    spatial_softmax,
    squared_distance_maps,
    squared_distance_to_segments,
)
from training.losses import PerceptualLoss
from training.method import Batch, Detection, Method, linked_keypoints, symmetric
from training.methods.autolink_config import AutoLinkConfig
from training.methods.autolink_layers import LayeredDecoder, chromaticity, opacity
from training.networks import ResidualBlock, UNet, conv_block, initialise_kaiming, upsample
from training.perceptual import perceptual_features
from training.regularisation import motion_mask

LEAK = 0.2
"""Slope below 0 that the initial weights allow for; the official code's."""


class KeypointDetector(nn.Module):
    """The "ResNet with upsampling": images (B, 3, H, W) in [-1, 1] to K maps of logits."""

    def __init__(self, keypoints: int, widths: tuple[int, ...], upsamplings: int) -> None:
        super().__init__()
        before = (3, *widths[:-1])
        self.down = nn.Sequential(*(ResidualBlock(a, b, stride=2) for a, b in zip(before, widths, strict=True)))
        channels = [widths[-1], *(max(widths[-1] // 2**step, 16) for step in range(1, upsamplings + 1))]
        self.up = nn.ModuleList(conv_block(a, b) for a, b in pairwise(channels))
        self.last = nn.Conv2d(channels[-1], keypoints, 3, padding=1)

    def forward(self, image: Tensor) -> Tensor:
        """Logits (B, K, h, w), smaller than the image by 2^(stages - upsamplings)."""
        features = self.down(image)
        for block in self.up:
            features = block(upsample(features))
        return self.last(features)


def edge_map(keypoints: Tensor, weights: Tensor, pairs: Tensor, height: int, width: int, thickness: float) -> Tensor:
    """S of Eq. 4, (B, 1, height, width): S(p) = max_ij w_ij exp(-d_ij(p)² / σ²).

    keypoints (B, K, 2), weights (E,) above 0, pairs (2, E); d in `half_widths`, so that lines are as wide in all
    directions. Which edge is highest at a pixel is found without a gradient, edge by edge; only that edge is then drawn
    with one. Value and gradient are those of the maximum over all maps, without K² H W numbers in memory.
    """
    with torch.no_grad():
        highest = keypoints.new_full((len(keypoints), height, width), -torch.inf)
        winner = torch.zeros_like(highest, dtype=torch.long)
        for edge, (i, j) in enumerate(pairs.T.tolist()):
            squared = squared_distance_maps(keypoints[:, i], keypoints[:, j], height, width)
            height_here = weights[edge].log() - squared / thickness
            winner.masked_fill_(height_here > highest, edge)
            highest = torch.maximum(highest, height_here)
    cells = half_widths(grid(height, width, keypoints), height, width)
    keypoints = half_widths(keypoints, height, width)
    ends = (keypoints.gather(1, pairs[side][winner].flatten(1)[..., None].expand(-1, -1, 2)) for side in (0, 1))
    start, end = (point.view(-1, height, width, 2) for point in ends)
    drawn = weights[winner] * torch.exp(-squared_distance_to_segments(cells, start, end) / thickness)
    return drawn[:, None]


def random_cells(image: Tensor, cells: int, keep: float) -> Tensor:
    """The mask of section 3.2, (B, 1, H, W): each cell of a cells x cells grid is 1 with probability `keep`, else 0."""
    visible = (torch.rand(len(image), 1, cells, cells, device=image.device) < keep).to(image)
    return F.interpolate(visible, image.shape[-2:], mode="nearest")


class AutoLink(Method):
    """Keypoints linked by edges whose weights all images share; see the module's text for the paper."""

    Config = AutoLinkConfig
    required_keys: ClassVar[frozenset[str]] = frozenset({"image"})
    pairs: Tensor
    map_extent: Tensor
    edge_extent: Tensor

    def __init__(self, config: AutoLinkConfig, input_size: tuple[int, int]) -> None:
        super().__init__()
        factor = max(2 ** len(config.detector_widths), config.edge_stride * 2**config.decoder_depth)
        bounds.multiple("autolink", "the coarsest cell", factor, input_size)
        self.config = config
        self.optimizer = config.optimizer
        self.keypoint_count = config.keypoints
        stride = 2.0 ** (len(config.detector_widths) - config.upsamplings)
        self.register_buffer("map_extent", map_extent(input_size, stride), persistent=False)
        self.register_buffer("edge_extent", map_extent(input_size, config.edge_stride), persistent=False)
        self.detector = KeypointDetector(config.keypoints, config.detector_widths, config.upsamplings)
        size = (config.decoder_width, config.decoder_depth, 512)
        self.decoder = LayeredDecoder(*size) if config.layered else UNet(4, 3, *size, last_kernel=3)
        if config.initialisation == "kaiming":
            initialise_kaiming(self, leak=LEAK)
        self.register_buffer("pairs", torch.triu_indices(config.keypoints, config.keypoints, 1), persistent=False)
        self.edges = nn.Parameter(config.initial_edge + 0.1 * torch.randn(self.pairs.shape[1]))
        self.alpha = nn.Parameter(torch.ones(()))
        features = perceptual_features(
            config.features, config.weights, config.layers, config.feature_size, config.compare_image
        )
        power: Literal[1, 2] = 2 if config.feature_error == "squared" else 1
        self.perceptual = PerceptualLoss(features, config.running_mean_rate, power, reduction="mean")
        self.size = (input_size[1], input_size[0])

    def keypoints(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """Eq. 1: (B, K, 2) positions and the (B, K, h, w) maps they are means of. Images enter in [-1, 1]."""
        maps = spatial_softmax(self.detector(2 * image - 1))
        return expected_position(maps) * self.map_extent, maps

    def weights(self) -> Tensor:
        """w_ij of Eq. 4, (E,) above 0, in the order of `pairs`."""
        return F.softplus(self.edges)

    def adjacency(self) -> Tensor:
        """(K, K) in [0, 1]: w / (w + edge_share · max w), so that 0.5 is where an edge counts.

        The export clusters this graph spectrally (`training.kinematics`), as section 4.4 splits object and background.

        Only the ratio of weights has a meaning, as α and the decoder rescale the edge map; and under the maximum of
        Eq. 4 an edge of a small share of the strongest is drawn too faintly to carry structure. Where the edge map
        composes layers, w is the line's opacity.
        """
        weights = opacity(self.weights()) if self.config.layered else self.weights()
        relative = weights / (weights + self.config.edge_share * weights.max())
        return symmetric(relative, self.pairs, self.keypoint_count)

    def detect(self, image: Tensor) -> Detection:
        """A keypoint's score is the share of its map within a tenth of the image around it."""
        keypoints, maps = self.keypoints(image)
        height, width = maps.shape[-2:]
        cells = grid(height, width, maps) * self.map_extent
        near = ((cells - keypoints[:, :, None, None]) ** 2).sum(dim=-1) < 0.2**2
        adjacency = self.adjacency().expand(image.shape[0], -1, -1)
        scores = (maps * near).sum(dim=(2, 3)).clamp(0, 1)
        return linked_keypoints(keypoints, scores, adjacency)

    def loss(self, batch: Batch, phase: str) -> dict[str, Tensor]:
        """Eq. 6; and the optional terms. Raises UserError where these need pairs and the batch has none."""
        regularisation = self.config.regularisation
        if "reference" not in batch and (self.config.motion_weight or regularisation.needs_reference):
            raise UserError(
                "autolink: motion_weight, regularisation.foreground and regularisation.equivariance need pairs: "
                "add --data.pairs time"
            )
        keypoints, maps = self.keypoints(batch["image"])
        reconstruction, _ = self.reconstruct(batch["image"], keypoints)
        compared = batch
        if self.config.shadow_free:
            reconstruction = chromaticity(reconstruction)
            compared = {**batch, "image": chromaticity(batch["image"])}
            if "reference" in batch:
                compared["reference"] = chromaticity(batch["reference"])
        moving = regularisation.motion(compared, also=self.config.motion_weight > 0)
        mask = motion_mask(compared.get("loss_mask"), moving, self.config.motion_weight)
        terms = {"perceptual": self.perceptual(reconstruction, compared["image"], mask)}
        if self.config.edge_cost:
            ends = half_widths(keypoints.detach(), *self.size)
            terms["edges"] = self.config.edge_cost * drawn_length(ends, self.weights(), self.pairs)
        terms |= regularisation.terms(maps.sum(dim=-2), maps.sum(dim=-1), keypoints, moving)
        return terms | regularisation.turned(keypoints, batch["image"], moving, lambda x: self.keypoints(x)[0])

    def reconstruct(self, image: Tensor, keypoints: Tensor) -> tuple[Tensor, Tensor]:
        """Eq. 5: the repainted image (B, 3, H, W) in [0, 1] units (unclamped) and the edge map."""
        height, width = (side // self.config.edge_stride for side in self.size)
        points = keypoints.float() / self.edge_extent
        edges = edge_map(points, self.weights(), self.pairs, height, width, self.config.thickness)
        visible = (2 * image - 1) * random_cells(image, self.config.mask_cells, self.config.keep)
        visible = F.interpolate(visible, (height, width), mode="area")
        visible = self.alpha * visible
        painted = self.decoder(visible, edges) if self.config.layered else self.decoder(torch.cat((visible, edges), 1))
        return F.interpolate(painted, self.size, mode="bilinear", align_corners=False) / 2 + 0.5, edges

    def param_groups(self, phase: str) -> Iterable[dict[str, Any]]:
        """The edge weights learn `edge_lr_multiplier` times faster; eps and decay as if the factor were inside."""
        factor = self.config.edge_lr_multiplier
        decay = self.optimizer.weight_decay / (factor if self.optimizer.name == "adamw" else factor**2)
        rest = [p for p in self.parameters() if p is not self.edges]
        edges = {"params": [self.edges], "lr_multiplier": factor, "eps": 1e-8 / factor, "weight_decay": decay}
        return [{"params": rest}, edges]

    @torch.no_grad()
    def preview(self, batch: Batch) -> dict[str, Tensor]:
        """The reconstruction and the edge map, scaled to its highest value."""
        reconstruction, edges = self.reconstruct(batch["image"], self.keypoints(batch["image"])[0])
        edges = F.interpolate(edges / edges.amax(dim=(1, 2, 3), keepdim=True), self.size, mode="bilinear")
        return {"reconstruction": reconstruction.clamp(0, 1), "edges": edges.expand(-1, 3, -1, -1)}


def drawn_length(keypoints: Tensor, weights: Tensor, pairs: Tensor) -> Tensor:
    """Σ over edges of opacity(w) times length, the mean over images: (B, K, 2), (E,) and (2, E) to a scalar."""
    length = torch.linalg.vector_norm(keypoints[:, pairs[0]] - keypoints[:, pairs[1]], dim=-1)
    return (opacity(weights) * length).sum(dim=-1).mean()
