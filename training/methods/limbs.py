"""Limbs: joints and a skeleton of each single image, learned from figures drawn onto the recording's own background.

Not a paper but this project's answer to two failures of the others on articulated objects: keypoints that regress well
and lie on no joint, and skeletons that freeze to one graph. As SuperPoint learns corners from drawn shapes before it
sees photographs, a network learns here what a joint is from stick figures, whose joints are known: a root, limbs that
leave it, links that follow one another. They are drawn onto the backgrounds of the recording's images (of two frames,
what is left without thin things), so that nothing of the real background is taken for a limb. No label of the recording
is used; what is put in instead is a prior: either the numbers in `LimbsConfig` (how many limbs, of how many links, how
long, how wide) or, as for KeypointGAN, a file of unpaired poses (`--data.prior`), which the figures then take.

A slot is a joint of one tree that all figures share. Of the numbers' tree "root, limb, link" slot 0 is the root, slot
1 + limb · links + i the end of the limb's link i; a file's tree is its own. A figure uses some of the slots, a pose
lacks those whose link has no length; the presence of a joint is that of the link above it, and S the tree of them.

Where limbs look alike, no picture says which is the first.
- Limbs that leave the root, such as a spider's legs, are found by their ends, however many there are (`limb_ends`), and
  then sorted by their place or their colours (`limb_numbering`).
- Other limbs, and the ends of a chain without a body, are numbered as the network finds best (`limb_matching`).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from torch import Tensor, nn

from keypoint_perception.errors import UserError
from keypoint_perception.limb_tree import depths, inner_limbs, is_chain, root_limbs
from training import bounds
from training.heatmaps import around_mode, heatmap_targets, spatial_softmax
from training.method import Batch, Detection, Method, OptimizerConfig
from training.methods import limb_ends
from training.methods.figures import Figure, background, draw, posed_figure, random_figure
from training.methods.limb_matching import best_order, joint_costs
from training.methods.limb_network import LimbNetwork
from training.methods.limb_numbering import Numbering
from training.preview import to_uint8
from training.prior import Poses, parents_of_tree


@dataclass(frozen=True)
class LimbsConfig:
    """The prior on figures, the network and the losses. Lengths are in [-1, 1] units."""

    above: tuple[int, ...] | None = None
    """The joint above each joint, -1 for the root, of the poses in a file; None for the tree of the next two numbers.
    With poses only numbering, body, either_end, thickness, one_hue, left_out and limbs[0] have an effect."""
    names: tuple[str, ...] = ()
    """Names of the joints of `above`, as the file of poses has them."""
    numbering: Literal["place", "colour"] = "place"
    """What numbers limbs that leave the root and are alike, in an image: their place, or their colours, which an object
    keeps that turns. By colour only where limbs differ in it."""
    limbs: tuple[int, int] = (1, 1)
    """Fewest and most limbs that leave the root."""
    links: tuple[int, int] = (1, 7)
    """Fewest and most links of a limb; all limbs of a figure have the same number."""
    hip: float = 0.0
    """Length of a first link inside the body, as a share of the others'; 0 for limbs that start at the root itself."""
    body: float = 1.0
    """Probability that a body (a box or an ellipse of its own colour) sits at the root."""
    either_end: bool = True
    """Whether a chain without a body may begin at either end, as both look alike."""
    reach: tuple[float, float] = (0.5, 1.7)
    """Length of a whole stretched limb."""
    thickness: tuple[float, float] = (0.015, 0.075)
    """A link's half width over the length of the whole limb."""
    bend: float = 2.6
    """Largest angle between successive links, radians."""
    one_hue: float = 0.5
    """Probability that all limbs are shades of one hue."""
    left_out: float = 0.0
    """Probability that some of a pose's alike limbs are left out; at least limbs[0] stay."""
    width: int = 12
    """Channels of the network's first layer."""
    drawn: int = 32
    """Figures drawn for a step, whatever the batch size."""
    background_window: int = 15
    """Side of the median filter in pixels, odd: above twice the width of the real object's limbs."""
    sigma: float = 0.05
    """Standard deviation of the Gaussians in the target heatmaps."""
    position_weight: float = 1.0
    """Weight of the loss of joints' heatmaps."""
    presence_weight: float = 2.0
    """Weight of the loss of which joints are there."""
    end_weight: float = 1.0
    """Weight of the loss of the ends of limbs that are alike and leave the root."""
    offset_weight: float = 10.0
    """Weight of the loss of how far from those ends such limbs' other joints are."""
    optimizer: OptimizerConfig = field(
        default_factory=lambda: OptimizerConfig("adamw", 3e-3, weight_decay=1e-4, clip_norm=1.0, schedule="cosine")
    )

    def __post_init__(self) -> None:
        """Raises UserError that names the first bad value."""
        for name in ("limbs", "links", "reach", "thickness"):
            least, most = getattr(self, name)
            if not 0 < least <= most:
                raise UserError(f"limbs: {name} is {[least, most]}: give the least, above 0, and the most")
        if self.above is not None and len(self.above) < 2:
            raise UserError("limbs: above, the tree of the poses, has less than two joints: give poses with a link")
        if self.names and len(self.names) != len(self.above or ()):
            raise UserError(f"limbs: names has {len(self.names)} entries: give one for each joint of above, or none")
        bounds.share("limbs", self, "body", "one_hue", "left_out", zero=True)
        bounds.above_zero("limbs", self, "width", "drawn", "sigma")
        bounds.at_least(
            "limbs", self, hip=0, bend=0, position_weight=0, presence_weight=0, end_weight=0, offset_weight=0
        )
        bounds.odd("limbs", self, "background_window", least=3)

    @property
    def joints(self) -> int:
        """Number of slots."""
        return len(tree(self))


def tree(config: LimbsConfig) -> np.ndarray:
    """(K,) the slot above each slot, -1 for the root."""
    if config.above is not None:
        return np.array(config.above)
    above = [-1]
    for limb in range(config.limbs[1]):
        first = 1 + limb * config.links[1]
        above += [0, *range(first, first + config.links[1] - 1)]
    return np.array(above)


class Limbs(Method):
    """A network that finds joints and links of the image at hand; see the module's text."""

    Config = LimbsConfig
    required_keys: ClassVar[frozenset[str]] = frozenset({"image", "reference"})
    static_fields: ClassVar[frozenset[str]] = frozenset({"parent", "level"})
    uses_prior: ClassVar[bool] = True
    parent: Tensor
    level: Tensor

    @classmethod
    def fill_from_prior(cls, options: Any, prior: Poses | None) -> LimbsConfig:
        """Tree and names of the prior poses. Raises UserError where they have no tree, or `above` another."""
        joints = 0 if prior is None else prior.keypoints.shape[1]
        if options.above is not None and len(options.above) != joints:
            given = f"{len(options.above)} joints and the poses of --data.prior {joints or 'are not given'}"
            raise UserError(f"limbs: above has {given}: give poses of as many joints, or leave above out")
        if prior is None or options.above is not None:
            return options
        if prior.edges is None:
            raise UserError(
                "limbs: the file of --data.prior has no `edges` (E, 2): add them, they are the tree to find"
            )
        return replace(options, above=parents_of_tree(prior.edges, joints), names=prior.names)

    def __init__(self, config: LimbsConfig, input_size: tuple[int, int]) -> None:
        super().__init__()
        if any(side % 16 for side in input_size):
            raise UserError(f"limbs: the input is {input_size}: give multiples of 16 pixels a side")
        self.config = config
        self.optimizer = config.optimizer
        self.keypoint_count = config.joints
        self.keypoint_names = config.names
        self.above = tree(config)
        self.limbs = root_limbs(self.above)
        self.alike = tuple(tuple(map(tuple, limbs.tolist())) for limbs in self.limbs)
        self.single = np.setdiff1d(np.arange(len(self.above)), np.concatenate([[], *(g.ravel() for g in self.limbs)]))
        """The slots that have a heatmap of their own; a group of limbs has one for all its ends."""
        maps, offsets = len(self.single) + len(self.limbs), sum(2 * limbs.shape[1] for limbs in self.limbs)
        self.network = LimbNetwork(len(self.single), maps, offsets, config.width, input_size)
        self.numbering = Numbering(self.above, self.limbs, config.numbering)
        self.register_buffer("parent", torch.tensor(self.above), persistent=False)
        self.register_buffer("level", torch.tensor(depths(self.above)), persistent=False)
        self.deepest = int(self.level.max())
        self.turns = is_chain(self.above) and config.either_end
        self.either_end = self.turns and config.body == 0

    def detect(self, image: Tensor) -> Detection:
        """A joint's score is the probability that the object has it and all above it; so is that of the link above."""
        heat, presence, offsets = self.network(image)
        single = len(self.single)
        keypoints = [around_mode(spatial_softmax(heat[:, :single]))]
        scores = [presence.float().sigmoid()]
        slots = [self.single]
        for group, (limbs, reach) in enumerate(self._groups(offsets)):
            found, score = limb_ends.find(heat[:, single + group], reach, len(limbs))
            keypoints.append(found.flatten(1, 2))
            scores.append(score.repeat_interleave(limbs.shape[1], dim=1))
            slots.append(limbs.ravel())
        places = torch.from_numpy(np.argsort(np.concatenate(slots))).to(image.device)
        return self._in_order(image, torch.cat(keypoints, 1)[:, places], torch.cat(scores, 1)[:, places])

    def _groups(self, offsets: Tensor | None) -> Iterator[tuple[np.ndarray, Tensor]]:
        """The limbs (L, M) of each group and its own offsets (B, 2 M, h, w)."""
        sizes = [2 * limbs.shape[1] for limbs in self.limbs]
        return zip(self.limbs, [] if offsets is None else offsets.split(sizes, dim=1), strict=True)

    def _in_order(self, image: Tensor, keypoints: Tensor, scores: Tensor) -> Detection:
        """With the limbs sorted and the graph added."""
        above = self.parent.clamp_min(0)
        for _ in range(self.deepest):
            scores = torch.minimum(scores, scores[:, above])
        order = self.numbering(image, keypoints, scores)
        keypoints, scores = keypoints.gather(1, order[..., None].expand_as(keypoints)), scores.gather(1, order)
        child = nn.functional.one_hot(above, self.keypoint_count).to(scores) * (self.parent >= 0)[:, None]
        link = scores[:, :, None] * child  # (B, slot, the slot above)
        batch = image.shape[0]
        return Detection(
            keypoints,
            scores,
            link + link.transpose(1, 2),
            parent=self.parent.expand(batch, -1),
            level=self.level.expand(batch, -1),
        )

    def loss(self, batch: Batch, phase: str) -> dict[str, Tensor]:
        """Cross-entropy of heatmaps and presence on figures drawn over the batch's backgrounds; of limbs the ends."""
        images, figures = self.figures(batch)
        joints = _stacked([figure.joints for figure in figures], images)
        heat, presence, offsets = self.network(images)
        single = len(self.single)
        terms = self._slot_loss(heat[:, :single].float(), presence.float(), joints[:, self.single], figures)
        for group, (limbs, reach) in enumerate(self._groups(offsets)):
            wanted, ends, steps = limb_ends.targets(joints[:, limbs], heat.shape[-2:], self.config.sigma)
            end = limb_ends.end_loss(heat[:, single + group].float(), wanted, ends)
            terms[f"ends{group or ''}"] = self.config.end_weight * end
            away = limb_ends.offset_loss(reach.float(), steps, wanted)
            terms[f"offsets{group or ''}"] = self.config.offset_weight * away
        return terms

    def _slot_loss(self, heat: Tensor, presence: Tensor, joints: Tensor, figures: list[Figure]) -> dict[str, Tensor]:
        """Of the slots that have heatmaps (N, S, h, w) and presence (N, S) of their own; joints (N, S, 2)."""
        config = self.config
        present = joints[..., 0].isfinite()
        target = heatmap_targets(joints, heat.shape[-2], heat.shape[-1], config.sigma)
        log_heat = heat.flatten(2).contiguous().log_softmax(dim=-1)
        weights = (config.position_weight, config.presence_weight)
        order = self.order(figures, joint_costs(log_heat, target, presence, present, weights))
        present = present.gather(1, order)
        target = target.gather(1, order[..., None].expand_as(target))
        entropy = -(target * log_heat).sum(dim=-1)
        seen = nn.functional.binary_cross_entropy_with_logits(presence, present.float())
        return {
            "position": config.position_weight * entropy[present].mean(),
            "presence": config.presence_weight * seen,
        }

    def order(self, figures: list[Figure], costs: np.ndarray) -> Tensor:
        """(N, S) which of the S single slots' joints each of them stands for; costs (N, S, S) of slot and joint."""
        present = np.stack([np.isfinite(figure.joints[:, 0]) for figure in figures])
        alike = [[np.searchsorted(self.single, g) for g in inner_limbs(self.above, there)] for there in present]
        turns = np.array([self.turns and not figure.body for figure in figures])
        return torch.from_numpy(best_order(costs, present[:, self.single], alike, turns)).to(self.parent.device)

    @torch.no_grad()
    def figures(self, batch: Batch) -> tuple[Tensor, list[Figure]]:
        """Drawings (N, 3, H, W) in [0, 1] over the batch's backgrounds, and their N figures."""
        frames = [to_uint8(batch[key]) for key in ("image", "reference")]
        rng = np.random.default_rng(int(torch.randint(2**31, ())))
        pairs = zip(*frames, strict=True)
        grounds = [background(image, reference, self.config.background_window) for image, reference in pairs]
        poses = batch["prior_keypoints"].cpu().numpy() if self.config.above is not None else None
        figures, images = [], []
        for index in range(self.config.drawn):
            if poses is None:
                figure = random_figure(self.config, self.above, rng)
            else:
                figure = posed_figure(poses[index % len(poses)], self.above, self.config, rng)
            figures.append(figure)
            images.append(draw(figure, grounds[index % len(grounds)], self.above, rng))
        return _stacked(images, batch["image"]).permute(0, 3, 1, 2) / 255, figures

    @torch.no_grad()
    def preview(self, batch: Batch) -> dict[str, Tensor]:
        """What the network learns from."""
        return {"drawn": self.figures(batch)[0][: len(batch["image"])]}


def _stacked(arrays: list[np.ndarray], like: Tensor) -> Tensor:
    return torch.from_numpy(np.stack(arrays)).to(like)
