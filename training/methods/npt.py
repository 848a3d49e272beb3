"""NPT: the skeleton of a single image, learned from pairs of images of the same object in two poses.

After the paper that introduces the neural point transporter (sections, equations and tables below are its own). A point
extractor π (U-Net) gives P categorical point locations; the neural point transporter moves the colours under the
source's points to the target's and lays them over a background B; ψ looks at the source and its points and says which
points a link joins. Joints are the points with a link, so their number varies by image.

What the paper leaves open is an option with a note in `NptConfig`. Deviations, each with its reason:
- Distances that need the ends of a segment (Eq. 3, 5, 8) use expected positions γ, as Eq. 8 does; γ is the only form of
  the points that has ends. exp(-d) is exp(-d / near_scale): in pixels it would vanish, in [-1, 1] units hardly fall.
- δ (Eq. 5) samples π̄ along the line instead of Eq. 7's sum over all pixels of all P² lines. It is the quantity that the
  text defines; as [δ < α] has no gradient, Eq. 7's reason for avoiding coordinates does not apply, and P² H W is slow.
- The sums over links and joints (Eq. 4, 8) are divided by the number of pairs and of points, so that weights survive a
  change of P.
- Descending the skeleton's losses has two dead ends: linking everything explains everything, and then all links die at
  once. With `search`, Eq. 3, 4, 5 and 8 are minimised over binary S of each pair of frames by a greedy search, and ψ
  learns the links found; the points, which settle in the first `points_steps`, are not moved by them. Eq. 3 then is an
  expectation over the points' places, and `near_contrast` keeps it to points that a picture needs.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from keypoint_perception.errors import UserError
from training.heatmaps import around_mode, expected_position, gaussian_maps, spatial_softmax
from training.losses import pyramid_mse
from training.method import Batch, Detection, Method, OptimizerConfig
from training.methods.npt_losses import (
    as_matrix,
    blur,
    contiguity_loss,
    foreground_share,
    gumbel_softmax,
    length_loss,
    near_loss,
    sparse_losses,
    transport,
    uniform_loss,
)
from training.methods.npt_networks import PSI_KERNELS, BackgroundNetwork, SkeletonPredictor
from training.methods.skeleton_search import contrast, explained, greedy_skeleton, link_costs
from training.networks import UNet

SEARCHED_WEIGHT = 10.0
"""Of the cross-entropy with the links that the search finds; most links of most images are none."""


@dataclass(frozen=True)
class NptConfig:
    """The paper's values (section VIII, weights of Swimmers) or, where it gives none, the ones that worked here."""

    points: int = 32
    """P. Not given."""
    width: int = 64
    """Channels of π's first double convolution, doubled at each of 4 steps down. Not given; the U-Net paper's."""
    psi_widths: tuple[int, ...] = (32, 64, 64, 64, 128, 128, 128, 32)
    """Channels of ψ's 8 layers. Not given."""
    psi_strides: tuple[int, ...] = (2, 1, 2, 1, 2, 1, 1, 1)
    """Strides of ψ's 8 layers. Not given."""
    background_size: int = 64
    """Length of B's background vector. Not given."""
    position: Literal["categorical", "expectation"] = "categorical"
    """`expectation` is the ablation of Table III: a Gaussian at the mean of a spatial softmax."""
    temperature: float = 1.0
    """Of the Gumbel-softmax at step 0. Not given."""
    final_temperature: float = 0.3
    """Of the Gumbel-softmax from `temperature_steps` on, linear in between. Not given."""
    temperature_steps: int = 2000
    straight_through: bool = False
    """One-hot samples with the gradient of the soft ones; the paper relaxes instead."""
    background_weight: float = 0.2
    """Weight of the background in the compositing softmax; a point's centre has 1. Not given."""
    pyramid_levels: int = 5
    contiguity_pool: int = 7
    """β, in pixels."""
    uniform_pool: int = 5
    """τ, in pixels."""
    uniform_share: float = 0.8
    """α of Eq. 5."""
    line_samples: int = 16
    """Positions along a line at which δ is measured."""
    near_scale: float = 0.1
    """Distance in [-1, 1] units at which exp(-d) of Eq. 3 has fallen to 1/e. Not given."""
    near_temperature: float = 0.1
    """Of the softmax that relaxes the maximum of Eq. 3. Not given."""
    power: float = 1.0
    """p of Eq. 4, 0 < p <= 1. Not given."""
    length_range: tuple[float, float] = (0.1, 1.2)
    """l_min and l_max of Eq. 8 in [-1, 1] units. Not given."""
    search: bool = False
    """S is searched for instead of descended to, see above. The weights below are then costs of one link or joint."""
    rigid: float = 0.0
    """In the search, the cost of a link whose length differs by 1 between the frames. Not in the paper."""
    near_contrast: float | None = None
    """A point counts in the search by 1 - exp(-c / near_contrast), c being how far, in [0, 1] units, the image is from
    its background there; from a half on it may be a joint. None counts all by 1, as the paper does."""
    reconstruction: float = 10.0
    contiguity: float = 0.001
    near: float = 10.0
    joints: float = 0.1
    links: float = 7000.0
    uniform: float = 20.0
    length: float = 1000.0
    ramp_steps: int = 10_000
    """`uniform`, `joints` and `links` grow linearly from 0 over so many steps after `points_steps`."""
    points_steps: int = 0
    """Steps in which only the points learn. The paper has none, see above."""
    psi_lr_multiplier: float = 1.0
    optimizer: OptimizerConfig = field(
        default_factory=lambda: OptimizerConfig("adam", 5e-3, (0.9, 0.999), clip_norm=1.0, clip_value=1.0)
    )

    def __post_init__(self) -> None:
        """Raises UserError that names the first bad value."""
        for name in ("points", "width", "background_size", "temperature_steps", "pyramid_levels", "line_samples"):
            if getattr(self, name) < (2 if name == "points" else 1):
                raise UserError(f"npt: {name} is {getattr(self, name)}: give at least {2 if name == 'points' else 1}")
        if self.position not in ("categorical", "expectation"):
            raise UserError(f"npt: position is {self.position!r}: give 'categorical' or 'expectation'")
        for name in ("psi_widths", "psi_strides"):
            if len(getattr(self, name)) != len(PSI_KERNELS):
                raise UserError(f"npt: {name} has {len(getattr(self, name))} entries: give {len(PSI_KERNELS)}")
        for name in ("contiguity_pool", "uniform_pool"):
            if getattr(self, name) < 1 or getattr(self, name) % 2 == 0:
                raise UserError(f"npt: {name} is {getattr(self, name)}: give an odd number of pixels")
        for name in ("temperature", "final_temperature", "near_scale", "near_temperature", "background_weight"):
            if not getattr(self, name) > 0:
                raise UserError(f"npt: {name} is {getattr(self, name)}: give a number above 0")
        weights = ("reconstruction", "contiguity", "near", "joints", "links", "uniform", "length", "rigid")
        for name in (*weights, "ramp_steps", "points_steps"):
            if getattr(self, name) < 0:
                raise UserError(f"npt: {name} is {getattr(self, name)}: give 0 or more")
        if self.near_contrast is not None and not self.near_contrast > 0:
            raise UserError(f"npt: near_contrast is {self.near_contrast}: give a number above 0, or null")
        if not 0 < self.power <= 1:
            raise UserError(f"npt: power is {self.power}: give 0 < power <= 1")
        if not 0 <= self.length_range[0] < self.length_range[1]:
            raise UserError(f"npt: length_range is {self.length_range}: give 0 <= shortest < longest")


class Npt(Method):
    """The neural point transporter and its skeleton; see the module's text for the paper."""

    Config = NptConfig
    required_keys: ClassVar[frozenset[str]] = frozenset({"image", "reference"})
    static_fields: ClassVar[frozenset[str]] = frozenset({"parent", "level"})
    pairs: Tensor

    def __init__(self, config: NptConfig, input_size: tuple[int, int]) -> None:
        super().__init__()
        smallest = max(16, 2 ** (config.pyramid_levels - 1))
        if any(side % 16 or side < smallest for side in input_size):
            raise UserError(f"npt: the input is {input_size}: give multiples of 16, at least {smallest} pixels a side")
        self.config = config
        self.optimizer = config.optimizer
        self.keypoint_count = config.points
        self.points = UNet(3, config.points, config.width, depth=4)
        self.skeleton = SkeletonPredictor(config, input_size)
        self.background = BackgroundNetwork(config.background_size, input_size)
        self.register_buffer("pairs", torch.triu_indices(config.points, config.points, 1), persistent=False)

    def detect(self, image: Tensor) -> Detection:
        """Points at the modes of π, links S of ψ; a point's score is its strongest link: how sure it is a joint."""
        maps, position = self._locate(self.points(image))
        strength = self.skeleton(image, maps).sigmoid()
        adjacency = as_matrix(strength, self.pairs, self.keypoint_count)
        root = torch.full_like(position[..., 0], -1, dtype=torch.long)
        return Detection(position, adjacency.amax(dim=-1), adjacency, parent=root, level=torch.zeros_like(root))

    def param_groups(self, phase: str) -> Iterable[dict[str, Any]]:
        """ψ has a learning rate of its own."""
        skeleton = list(self.skeleton.parameters())
        rest = [*self.points.parameters(), *self.background.parameters()]
        return [{"params": rest}, {"params": skeleton, "lr_multiplier": self.config.psi_lr_multiplier}]

    def loss(self, batch: Batch, phase: str) -> dict[str, Tensor]:
        """Eq. 1 and 2, and Eq. 3 to 5 and 8 with their warm-ups."""
        config = self.config
        source, target = batch["reference"], batch["image"]
        logits = self.points(torch.cat((source, target)))
        source_maps, target_maps = self.sample(logits).chunk(2)
        painted = transport(source, source_maps, target_maps, self.background(target), config.background_weight)
        terms = {
            "reconstruction": config.reconstruction * pyramid_mse(painted, target, levels=config.pyramid_levels),
            "contiguity": config.contiguity * contiguity_loss(source_maps, target_maps, config.contiguity_pool),
        }
        if self.step >= config.points_steps:
            if config.search:
                terms["skeleton"] = SEARCHED_WEIGHT * self._searched(source, target, logits.detach())
            else:
                terms |= self._skeleton_terms(source, source_maps, target_maps)
        return terms

    def _skeleton_terms(self, source: Tensor, source_maps: Tensor, target_maps: Tensor) -> dict[str, Tensor]:
        """Section III-B: the skeleton of the source must explain the points of both frames."""
        config, pairs = self.config, self.pairs
        strength = self.skeleton(source, source_maps).sigmoid()
        ramp = min(1.0, (self.step - config.points_steps + 1) / max(1, config.ramp_steps))
        near = uniform = length = strength.new_zeros(())
        for maps in (source_maps, target_maps):
            points = expected_position(maps)
            share = foreground_share(maps, points, pairs, config.uniform_pool, config.line_samples)
            near = near + near_loss(strength, points, pairs, config.near_scale, config.near_temperature)
            uniform = uniform + uniform_loss(strength, share, config.uniform_share)
            length = length + length_loss(strength, points, pairs, config.length_range)
        links, joints = sparse_losses(strength, pairs, config.points, config.power)
        return {
            "near": config.near * near,
            "links": config.links * ramp * links,
            "joints": config.joints * ramp * joints,
            "uniform": config.uniform * ramp * uniform,
            "length": config.length * length,
        }

    def _searched(self, source: Tensor, target: Tensor, logits: Tensor) -> Tensor:
        """Cross-entropy of ψ's links of the source with the links that explain the points of both frames best."""
        config, frames = self.config, torch.cat((source, target))
        maps, points = self._locate(logits)
        with torch.no_grad():
            needed = maps.new_ones(maps.shape[:2])
            if config.near_contrast is not None:
                needed = 1 - torch.exp(-contrast(frames, self.background(frames), maps) / config.near_contrast)
            cover = explained(maps, needed, points, self.pairs, config)
            cost = link_costs(maps, needed, points, self.pairs, config)
            found = greedy_skeleton(cover, cost, config.joints, self.pairs, config.points)
        strength = self.skeleton(source, maps[: len(source)])
        return F.binary_cross_entropy_with_logits(strength, found.to(strength))

    def _locate(self, logits: Tensor) -> tuple[Tensor, Tensor]:
        """π (B, P, H, W) without sampling, and its modes (B, P, 2); or the ablation's Gaussians and means."""
        maps = spatial_softmax(logits)
        if self.config.position == "categorical":
            return maps, around_mode(maps)
        position = expected_position(maps)
        return self._gaussians(position, maps), position

    def sample(self, logits: Tensor) -> Tensor:
        """π(x) of its logits: (B, P, H, W) maps that sum to 1, Gumbel-softmax samples while training."""
        config = self.config
        if config.position == "expectation":
            return self._gaussians(expected_position(spatial_softmax(logits)), logits)
        if not self.training:
            return spatial_softmax(logits)
        progress = min(1.0, self.step / config.temperature_steps)
        temperature = config.temperature + progress * (config.final_temperature - config.temperature)
        flat = logits.flatten(2).float()
        return gumbel_softmax(flat, temperature, straight_through=config.straight_through).view_as(logits)

    @staticmethod
    def _gaussians(position: Tensor, like: Tensor) -> Tensor:
        """Maps that sum to 1, a Gaussian of one pixel around each position: what Table III's ablation transports."""
        height, width = like.shape[-2:]
        maps = gaussian_maps(position, height, width, sigma=2 / (max(height, width) - 1))
        return maps / maps.sum(dim=(2, 3), keepdim=True).clamp_min(1e-6)

    @torch.no_grad()
    def preview(self, batch: Batch) -> dict[str, Tensor]:
        """The reconstruction, the background and where the points are."""
        source_maps, target_maps = self.sample(self.points(torch.cat((batch["reference"], batch["image"])))).chunk(2)
        background = self.background(batch["image"])
        painted = transport(batch["reference"], source_maps, target_maps, background, self.config.background_weight)
        points = blur(target_maps).amax(dim=1, keepdim=True).clamp(0, 1).expand(-1, 3, -1, -1)
        return {"reconstruction": painted, "background": background, "points": points}
