"""NPT: the skeleton of a single image, learned from pairs of images of the same object in two poses.

After the paper that introduces the neural point transporter (sections, equations and tables below are its own). A point
extractor π (U-Net) gives P categorical point locations; the neural point transporter moves the colours under the
source's points to the target's and lays them over a background B; ψ looks at the source and its points and says which
points a link joins. Joints are the points with a link, so their number varies by image.

What the paper leaves open is an option with a note in `training.methods.npt_config`. Deviations, each with its reason:
- Distances that need the ends of a segment (Eq. 3, 5, 8) use expected positions γ, as Eq. 8 does; γ is the only form of
  the points that has ends. exp(-d) is exp(-d / near_scale): in pixels it would vanish, in [-1, 1] units hardly fall.
- δ (Eq. 5) samples π̄ along the line instead of Eq. 7's sum over all pixels of all P² lines. It is the quantity that the
  text defines; as [δ < α] has no gradient, Eq. 7's reason for avoiding coordinates does not apply, and P² H W is slow.
- Means over pairs and over points take the place of Eq. 8's sums and of those inside the powers of Eq. 4, so that
  weights survive a change of P. Of n summands Eq. 4's terms are the printed ones divided by n^(1/p): at `power` p < 1,
  where that is more than n, a weight means another thing than at 1 and has to be found anew.
- Descending the skeleton's losses has two dead ends: linking everything explains everything, and then all links die at
  once. With `search`, Eq. 3, 4, 5 and 8 are minimised over binary S of each pair of frames by a greedy search for one
  tree, and ψ learns the links found; the points, which settle in the first `points_steps`, are not moved by them. A
  point counts in Eq. 3 by how much of it lies on the object. Of two points that are as good a joint, pairs pick now
  one, now the other, and no link passes a half; so S of an image is the tree that the same search finds in that image
  alone, where links that ψ believes in are cheaper (`belief`). A joint is a point of that tree.
- In minutes the paper's loss leaves points on what B cannot draw yet, such as the borders of checkers. With
  `background` B learns by an absolute error of its own, which leaves out what covers a pixel in a minority of frames;
  and `foreground` draws points onto what B does not explain, from any distance.
- Nothing in Eq. 1 keeps a point in its place on a body of one colour, or two points from one place. `isometry` does the
  first, better than Eq. 2, which knows near from far only; `separation`, from `training.regularisation`, the second.
- Nor does anything in Eq. 1 keep the topmost point on the head when the head goes down. `equivariance` turns the object
  before its background and asks the points to turn along (`training.equivariance`). Only the points of the turned image
  are asked, and not from the first step: where the two ends of an object look alike, all points could only agree to
  meet in its middle.
- With `stride` 2, π, B, ψ and the transport work on images of half the size, at less than half the cost.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from keypoint_perception.errors import UserError
from training.equivariance import turned_points_apart
from training.heatmaps import around_mode, expected_position, gaussian_maps, half_widths, map_extent, spatial_softmax
from training.losses import difference, pyramid_mse
from training.method import Batch, Detection, Method, linked_keypoints, symmetric
from training.methods.npt_config import NptConfig
from training.methods.npt_losses import (
    blur,
    contiguity_loss,
    foreground_loss,
    foreground_map,
    foreground_share,
    gumbel_softmax,
    isometry_loss,
    length_loss,
    near_loss,
    object_share,
    sparse_losses,
    transport,
    uniform_loss,
)
from training.methods.npt_networks import BackgroundNetwork, SkeletonPredictor
from training.methods.skeleton_search import changes, explained, greedy_tree, link_costs
from training.networks import UNet
from training.regularisation import crowding

MOST_BELIEF = 0.999
"""What ψ's belief counts at most: its sigmoid may be 1, and a link that the search rejects stays below a half."""
SEARCHED_WEIGHT = 10.0
"""Of the cross-entropy with the links that the search finds; most links of most images are none."""


class Npt(Method):
    """The neural point transporter and its skeleton; see the module's text for the paper."""

    Config = NptConfig
    required_keys: ClassVar[frozenset[str]] = frozenset({"image", "reference"})
    static_fields: ClassVar[frozenset[str]] = frozenset({"parent", "level"})
    pairs: Tensor
    map_extent: Tensor

    def __init__(self, config: NptConfig, input_size: tuple[int, int]) -> None:
        super().__init__()
        multiple = 16 * config.stride
        smallest = max(multiple, config.stride * 2 ** (config.pyramid_levels - 1))
        if any(side % multiple or side < smallest for side in input_size):
            need = f"multiples of {multiple}, at least {smallest} pixels a side"
            raise UserError(f"npt: the input is {input_size}: give {need}")
        self.config = config
        self.optimizer = config.optimizer
        self.keypoint_count = config.points
        self.size = (input_size[1], input_size[0])
        size = (input_size[0] // config.stride, input_size[1] // config.stride)
        self.points = UNet(3, config.points, config.width, depth=4, stride=config.stride)
        self.skeleton = SkeletonPredictor(config, size)
        self.background = BackgroundNetwork(config.background_size, size)
        self.register_buffer("pairs", torch.triu_indices(config.points, config.points, 1), persistent=False)
        self.register_buffer("map_extent", map_extent(input_size, config.stride), persistent=False)

    def detect(self, image: Tensor) -> Detection:
        """Points at the modes of π, links S; a point's score is its strongest link: how sure it is a joint.

        With `search`, a link of the tree is at least a half, by ψ's belief more, and one that is none below a half.
        """
        frames = self._shrunk(image)
        maps, position = self._locate(self.points(image))
        strength = self.skeleton(frames, maps).sigmoid()
        if self.config.search:
            object_map = foreground_map(frames, self.background(frames), self.config.contrast)
            cover, cost = self.energy(object_map, maps, position)
            tree = self._tree(2 * cover, 2 * cost, strength.float(), thorough=True)
            strength = 0.5 * (MOST_BELIEF * strength + tree)
        adjacency = symmetric(strength, self.pairs, self.keypoint_count)
        return linked_keypoints(position * self.map_extent, adjacency.amax(dim=-1), adjacency)

    def param_groups(self, phase: str) -> Iterable[dict[str, Any]]:
        """ψ has a learning rate of its own."""
        skeleton = list(self.skeleton.parameters())
        rest = [*self.points.parameters(), *self.background.parameters()]
        return [{"params": rest}, {"params": skeleton, "lr_multiplier": self.config.psi_lr_multiplier}]

    def loss(self, batch: Batch, phase: str) -> dict[str, Tensor]:
        """Eq. 1 and 2, and Eq. 3 to 5 and 8 with their warm-ups."""
        config = self.config
        images = torch.cat((batch["reference"], batch["image"]))
        logits, frames = self.points(images), self._shrunk(images)
        maps, background = self.sample(logits), self.background(frames)
        (source, target), (source_maps, target_maps) = frames.chunk(2), maps.chunk(2)
        behind = background.chunk(2)[1]
        behind = behind.detach() if config.background else behind
        painted = transport(source, source_maps, target_maps, behind, config.background_weight)
        mask = batch.get("loss_mask")
        redrawn = pyramid_mse(painted, target, mask, levels=config.pyramid_levels)
        terms = {"reconstruction": config.reconstruction * redrawn}
        if config.contiguity:
            source_peaks, target_peaks = self._peaked(maps).chunk(2)
            contiguity = contiguity_loss(source_peaks, target_peaks, config.contiguity_pool)
            terms["contiguity"] = config.contiguity * contiguity
        known = None if mask is None else torch.cat((torch.ones_like(mask), mask))  # of a source there is no mask
        object_map = foreground_map(frames, background.detach(), config.contrast)
        if known is not None:
            object_map = object_map * F.interpolate(known, frames.shape[-2:], mode="area")[:, 0]
        if config.background:
            terms["background"] = config.background * difference(background, frames, power=1, mask=known)
        terms |= self._point_terms(maps, object_map)
        if config.equivariance:
            ramp = min(1.0, self.step / config.equivariance_steps)
            apart = self._equivariance(images, object_map, background, logits)
            terms["equivariance"] = config.equivariance * ramp * apart
        if self.step >= config.points_steps:
            if config.search:
                terms["skeleton"] = SEARCHED_WEIGHT * self._searched(source, object_map, logits.detach())
            else:
                terms |= self._skeleton_terms(source, source_maps, target_maps)
        return terms

    def _point_terms(self, maps: Tensor, object_map: Tensor) -> dict[str, Tensor]:
        """What the paper does not ask of points: maps (2B, P, H, W) of sources and targets, object map (2B, H, W)."""
        config, terms = self.config, {}
        if config.foreground:
            terms["foreground"] = config.foreground * foreground_loss(maps, object_map)
        if config.isometry or config.separation:
            points = half_widths(expected_position(maps), *self.size)
            if config.isometry:
                terms["isometry"] = config.isometry * isometry_loss(points, config.isometry_reach)
            if config.separation:
                terms["separation"] = config.separation * crowding(points, config.separation_distance)
        return terms

    def _equivariance(self, images: Tensor, object_map: Tensor, background: Tensor, logits: Tensor) -> Tensor:
        """How far points are from where turns of the object take them, in the targets of images (2B, 3, H, W).

        object_map (2B, H', W'), B(x) and logits are those of the images.
        """
        images, object_map, background, logits = (x.chunk(2)[1] for x in (images, object_map, background, logits))

        def mean_points(logits: Tensor) -> Tensor:
            return expected_position(spatial_softmax(logits)) * self.map_extent

        return turned_points_apart(
            mean_points(logits),
            images,
            object_map[:, None],
            background,
            lambda x: mean_points(self.points(x)),
            degrees=self.config.turn,
        )

    def _shrunk(self, image: Tensor) -> Tensor:
        """(B, 3, H, W) to (B, 3, H / stride, W / stride)."""
        return image if self.config.stride == 1 else F.avg_pool2d(image, self.config.stride)

    def _skeleton_terms(self, source: Tensor, source_maps: Tensor, target_maps: Tensor) -> dict[str, Tensor]:
        """Section III-B: the skeleton of the source must explain the points of both frames."""
        config, pairs = self.config, self.pairs
        strength = self.skeleton(source, source_maps).sigmoid()
        ramp = min(1.0, (self.step - config.points_steps + 1) / max(1, config.ramp_steps))
        near = uniform = length = strength.new_zeros(())
        for maps in (source_maps, target_maps):
            points = expected_position(maps)
            share = foreground_share(self._peaked(maps), points, pairs, config.uniform_pool, config.line_samples)
            points = half_widths(points, *self.size)
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

    def _searched(self, source: Tensor, object_map: Tensor, logits: Tensor) -> Tensor:
        """Cross-entropy of ψ's links of the source with the tree that explains the points of both frames best.

        object_map (2B, H, W) and logits are of sources and targets.
        """
        config = self.config
        maps, points = self._locate(logits)
        strength = self.skeleton(source, maps[: len(source)])
        with torch.no_grad():
            cover, cost = self.energy(object_map, maps, points)
            cover, (of_source, of_target) = torch.cat(cover.chunk(2), dim=2), cost.chunk(2)
            cost = of_source + of_target + config.rigid * changes(half_widths(points, *self.size), self.pairs)
            found = self._tree(cover, cost, strength.float().sigmoid())
        return F.binary_cross_entropy_with_logits(strength, found.to(strength))

    def energy(self, object_map: Tensor, maps: Tensor, points: Tensor) -> tuple[Tensor, Tensor]:
        """What each link explains of each frame, (B, E, Q), and costs there, (B, E).

        object_map (B, H, W), maps (B, P, H, W), points (B, P, 2).
        """
        maps, config = maps.float(), self.config
        needed = object_share(maps, object_map)
        share = foreground_share(self._peaked(maps), points, self.pairs, config.uniform_pool, config.line_samples)
        points = half_widths(points, *self.size)
        cover = explained(needed, points, self.pairs, config)
        return cover, link_costs(share, needed, points, self.pairs, config)

    def _tree(self, cover: Tensor, cost: Tensor, strength: Tensor, *, thorough: bool = False) -> Tensor:
        """(B, E) the searched links, 1 or 0, of two frames' energies; strength (B, E) is what ψ says of them."""
        config = self.config
        cost = cost + config.links - config.belief * strength
        return greedy_tree(cover, cost, config.joints, self.pairs, config.points, thorough=thorough)

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

    def _peaked(self, maps: Tensor) -> Tensor:
        """Maps whose highest cell is 1, as that of a sure categorical point is: Eq. 2 and 5 count on it."""
        return maps if self.config.position == "categorical" else maps / maps.amax(dim=(2, 3), keepdim=True)

    @staticmethod
    def _gaussians(position: Tensor, like: Tensor) -> Tensor:
        """Maps that sum to 1, a Gaussian of one pixel around each position: what Table III's ablation transports."""
        height, width = like.shape[-2:]
        maps = gaussian_maps(position, height, width, sigma=2 / (max(height, width) - 1))
        return maps / maps.sum(dim=(2, 3), keepdim=True).clamp_min(1e-6)

    @torch.no_grad()
    def preview(self, batch: Batch) -> dict[str, Tensor]:
        """The reconstruction, the background and where the points are."""
        images = torch.cat((batch["reference"], batch["image"]))
        source_maps, target_maps = self.sample(self.points(images)).chunk(2)
        source, target = self._shrunk(images).chunk(2)
        background = self.background(target)
        painted = transport(source, source_maps, target_maps, background, self.config.background_weight)
        points = blur(target_maps).amax(dim=1, keepdim=True).clamp(0, 1).expand(-1, 3, -1, -1)
        return {"reconstruction": painted, "background": background, "points": points}
