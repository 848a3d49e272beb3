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
- Which end of a single limb is the root must be visible: the end with a body, or, without one, the brighter end link.
- Which of several limbs is which: limbs are sorted by the hue of their first link, which no rotation changes.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from keypoint_perception.errors import UserError
from training.heatmaps import around_mode, gaussian_maps, spatial_softmax
from training.method import Batch, Detection, Method, OptimizerConfig
from training.methods.figures import background, draw, posed_figure, random_figure
from training.networks import ResidualBlock, conv_block, upsample
from training.prior import Poses


@dataclass(frozen=True)
class LimbsConfig:
    """The prior on figures, the network and the losses. Lengths are in [-1, 1] units."""

    above: tuple[int, ...] | None = None
    """The joint above each joint, -1 for the root, of the poses in a file; None for the tree of the next two numbers.
    With poses, of the prior's numbers only body, thickness and one_hue count."""
    limbs: tuple[int, int] = (1, 1)
    """Fewest and most limbs that leave the root."""
    links: tuple[int, int] = (1, 7)
    """Fewest and most links of a limb; all limbs of a figure have the same number."""
    hip: float = 0.0
    """Length of a first link inside the body, as a share of the others'; 0 for limbs that start at the root itself."""
    body: float = 1.0
    """Probability that a body (a box or an ellipse of its own colour) sits at the root."""
    reach: tuple[float, float] = (0.5, 1.7)
    """Length of a whole stretched limb."""
    thickness: tuple[float, float] = (0.015, 0.075)
    """A link's half width over the length of the whole limb."""
    bend: float = 2.6
    """Largest angle between successive links, radians."""
    one_hue: float = 0.5
    """Probability that all limbs are shades of one hue."""
    width: int = 12
    """Channels of the network's first layer."""
    drawn: int = 32
    """Figures drawn for a step, whatever the batch size."""
    background_window: int = 15
    """Side of the median filter in pixels, odd: above twice the width of the real object's limbs."""
    sigma: float = 0.05
    """Of the target heatmaps."""
    position_weight: float = 1.0
    presence_weight: float = 2.0
    optimizer: OptimizerConfig = field(
        default_factory=lambda: OptimizerConfig("adamw", 3e-3, weight_decay=1e-4, clip_norm=1.0, schedule="cosine")
    )

    def __post_init__(self) -> None:
        """Raises UserError that names the first bad value."""
        for name in ("limbs", "links", "reach", "thickness"):
            least, most = getattr(self, name)
            if not 0 < least <= most:
                raise UserError(f"limbs: {name} is {[least, most]}: give the least, above 0, and the most")
        for name in ("body", "one_hue"):
            if not 0 <= getattr(self, name) <= 1:
                raise UserError(f"limbs: {name} is {getattr(self, name)}: give a probability")
        for name in ("width", "drawn", "sigma"):
            if not getattr(self, name) > 0:
                raise UserError(f"limbs: {name} is {getattr(self, name)}: give a number above 0")
        if self.background_window < 3 or self.background_window % 2 == 0:
            raise UserError(
                f"limbs: background_window is {self.background_window}: give an odd number of pixels from 3"
            )

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


def rooted(edges: np.ndarray, joints: int) -> tuple[int, ...]:
    """The joint above each of `joints` joints in the tree of edges (E, 2) whose root is joint 0. Raises UserError."""
    above = {0: -1}
    reached = [0]
    for joint in reached:  # grows as it goes
        neighbours = [int(other) for edge in edges if joint in edge for other in edge if other not in above]
        above |= dict.fromkeys(neighbours, joint)
        reached += neighbours
    if len(above) < joints or len(edges) != joints - 1:
        raise UserError(
            f"limbs: the prior has {len(edges)} edges, which join {len(above)} of its {joints} joints to the first: "
            "give edges that are one tree"
        )
    return tuple(above[joint] for joint in range(joints))


def depths(above: np.ndarray) -> list[int]:
    """How many links each joint is away from the root."""
    found = []
    for joint in range(len(above)):
        depth = 0
        while above[joint] >= 0:
            joint, depth = int(above[joint]), depth + 1
        found.append(depth)
    return found


class LimbNetwork(nn.Module):
    """Images to heatmaps of every slot at half the size and a presence logit of each."""

    def __init__(self, slots: int, width: int, input_size: tuple[int, int]) -> None:
        super().__init__()
        half, quarter, eighth, coarse = width, 3 * width, 5 * width, 8 * width
        self.to_half = conv_block(3, half, 5, 2)
        self.to_quarter = nn.Sequential(conv_block(half, quarter, 3, 2), conv_block(quarter, quarter))
        self.to_eighth = nn.Sequential(ResidualBlock(quarter, eighth, 2), ResidualBlock(eighth, eighth))
        self.to_coarse = nn.Sequential(ResidualBlock(eighth, coarse, 2), ResidualBlock(coarse, coarse))
        cells = -(-input_size[0] // 16) * -(-input_size[1] // 16)
        self.presence = nn.Sequential(nn.Flatten(), nn.LayerNorm(coarse * cells), nn.Linear(coarse * cells, slots))
        self.up_eighth = conv_block(coarse + eighth, eighth)
        self.up_quarter = conv_block(eighth + quarter, 4 * width)
        self.up_half = conv_block(4 * width + half, 2 * width)
        self.heat = nn.Conv2d(2 * width, slots, 1)

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """(B, 3, H, W) in [0, 1] to logits (B, K, H / 2, W / 2) and (B, K)."""
        half = self.to_half(2 * image - 1)
        quarter = self.to_quarter(half)
        eighth = self.to_eighth(quarter)
        coarse = self.to_coarse(eighth)
        features = self.up_eighth(torch.cat((upsample(coarse), eighth), dim=1))
        features = self.up_quarter(torch.cat((upsample(features), quarter), dim=1))
        features = self.up_half(torch.cat((upsample(features), half), dim=1))
        return self.heat(features), self.presence(coarse)


class Limbs(Method):
    """A network that finds joints and links of the image at hand; see the module's text."""

    Config = LimbsConfig
    required_keys: ClassVar[frozenset[str]] = frozenset({"image", "reference"})
    static_fields: ClassVar[frozenset[str]] = frozenset({"parent", "level"})
    uses_prior: ClassVar[bool] = True
    parent: Tensor
    level: Tensor

    @classmethod
    def completed(cls, options: Any, prior: Poses | None) -> LimbsConfig:
        """The tree of the prior poses. Raises UserError where they have none."""
        if prior is None or options.above is not None:
            return options
        if prior.edges is None:
            raise UserError(
                "limbs: the file of --data.prior has no `edges` (E, 2): add them, they are the tree to find"
            )
        return replace(options, above=rooted(prior.edges, prior.keypoints.shape[1]))

    def __init__(self, config: LimbsConfig, input_size: tuple[int, int]) -> None:
        super().__init__()
        if any(side % 16 for side in input_size):
            raise UserError(f"limbs: the input is {input_size}: give multiples of 16 pixels a side")
        self.config = config
        self.optimizer = config.optimizer
        self.keypoint_count = config.joints
        self.network = LimbNetwork(config.joints, config.width, input_size)
        self.above = tree(config)
        self.register_buffer("parent", torch.tensor(self.above), persistent=False)
        self.register_buffer("level", torch.tensor(depths(self.above)), persistent=False)
        self.deepest = int(self.level.max())

    def detect(self, image: Tensor) -> Detection:
        """A joint's score is the probability that the object has it and all above it; so is that of the link above."""
        heat, presence = self.network(image)
        scores = presence.sigmoid()
        above = self.parent.clamp_min(0)
        for _ in range(self.deepest):
            scores = torch.minimum(scores, scores[:, above])
        child = nn.functional.one_hot(above, self.keypoint_count).to(scores) * (self.parent >= 0)[:, None]
        link = scores[:, :, None] * child  # (B, slot, the slot above)
        batch = image.shape[0]
        return Detection(
            around_mode(spatial_softmax(heat)),
            scores,
            link + link.transpose(1, 2),
            parent=self.parent.expand(batch, -1),
            level=self.level.expand(batch, -1),
        )

    def loss(self, batch: Batch, phase: str) -> dict[str, Tensor]:
        """Cross-entropy of heatmaps and presence on figures drawn over the batch's backgrounds."""
        config = self.config
        images, joints = self.figures(batch)
        present = joints[..., 0].isfinite()
        heat, presence = self.network(images)
        height, width = heat.shape[-2:]
        target = gaussian_maps(joints.nan_to_num(), height, width, config.sigma).flatten(2)
        target = target / target.sum(dim=-1, keepdim=True).clamp_min(1e-6)
        entropy = -(target * heat.float().flatten(2).log_softmax(dim=-1)).sum(dim=-1)
        seen = nn.functional.binary_cross_entropy_with_logits(presence.float(), present.float())
        return {
            "position": config.position_weight * entropy[present].mean(),
            "presence": config.presence_weight * seen,
        }

    @torch.no_grad()
    def figures(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Images (N, 3, H, W) in [0, 1] over the batch's backgrounds and their joints (N, K, 2), NaN if not present."""
        frames = [_to_uint8(batch[key]) for key in ("image", "reference")]
        rng = np.random.default_rng(int(torch.randint(2**31, ())))
        pairs = zip(*frames, strict=True)
        grounds = [background(image, reference, self.config.background_window) for image, reference in pairs]
        images, joints = [], []
        poses = batch["prior_keypoints"].cpu().numpy() if self.config.above is not None else None
        for index in range(self.config.drawn):
            if poses is None:
                figure = random_figure(self.config, rng)
            else:
                figure = posed_figure(poses[index % len(poses)], self.above, self.config, rng)
            images.append(draw(figure, grounds[index % len(grounds)], self.above, rng))
            joints.append(figure.joints)
        like = batch["image"]
        drawn = torch.from_numpy(np.stack(images)).to(like.device).permute(0, 3, 1, 2).to(like.dtype) / 255
        return drawn, torch.from_numpy(np.stack(joints)).to(like)

    @torch.no_grad()
    def preview(self, batch: Batch) -> dict[str, Tensor]:
        """What the network learns from."""
        return {"drawn": self.figures(batch)[0][: len(batch["image"])]}


def _to_uint8(images: Tensor) -> np.ndarray:
    """(B, 3, H, W) in [0, 1] to (B, H, W, 3) uint8."""
    return (images.detach().float().clamp(0, 1) * 255).round().byte().permute(0, 2, 3, 1).contiguous().cpu().numpy()
