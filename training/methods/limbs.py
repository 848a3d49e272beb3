"""Limbs: joints and a skeleton of each single image, learned from figures drawn onto the recording's own background.

Not a paper but this project's answer to two failures of the others on articulated objects: keypoints that regress well
and lie on no joint, and skeletons that freeze to one graph. As SuperPoint learns corners from drawn shapes before it
sees photographs, a network learns here what a joint is from stick figures, whose joints are known: a root, limbs that
leave it, links that follow one another. They are drawn onto the backgrounds of the recording's images (of two frames,
what is left without thin things), so that nothing of the real background is taken for a limb. No label of the recording
is used; what is put in instead is the prior in `LimbsConfig`: how many limbs, of how many links, how long, how wide.
KeypointGAN's unpaired poses play the same part.

A slot is a place in the tree "root, limb, link": slot 0 is the root, slot 1 + limb · links + i the end of the limb's
link i. A figure uses some of the slots; the presence of a joint is that of the link above it, and S its tree.
- Which end of a single limb is the root must be visible: the end with a body, or, without one, the brighter end link.
- Which of several limbs is which: limbs are sorted by the hue of their first link, which no rotation changes.
"""

from __future__ import annotations

import colorsys
from dataclasses import dataclass, field
from typing import ClassVar

import cv2
import numpy as np
import torch
from torch import Tensor, nn

from keypoint_perception.errors import UserError
from training.heatmaps import around_mode, gaussian_maps, spatial_softmax
from training.method import Batch, Detection, Method, OptimizerConfig
from training.networks import ResidualBlock, conv_block, upsample


@dataclass(frozen=True)
class LimbsConfig:
    """The prior on figures, the network and the losses. Lengths are in [-1, 1] units."""

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
        return 1 + self.limbs[1] * self.links[1]


def tree(config: LimbsConfig) -> np.ndarray:
    """(K,) the slot above each slot, -1 for the root."""
    above = [-1]
    for limb in range(config.limbs[1]):
        first = 1 + limb * config.links[1]
        above += [0, *range(first, first + config.links[1] - 1)]
    return np.array(above)


# ------------------------------------------------------------------------------------------------- drawn figures


@dataclass
class Figure:
    """A figure before it is drawn."""

    joints: np.ndarray
    """(K, 2) in [-1, 1]; what is not present is NaN."""
    colours: np.ndarray
    """(K, 3) RGB in [0, 255], of the link above each slot; the root's is the body's."""
    radii: np.ndarray
    """(K,) half widths of the links in [-1, 1] units."""
    body: bool


def random_figure(config: LimbsConfig, rng: np.random.Generator) -> Figure:
    """A figure in a random pose, inside the image where it fits."""
    limbs, links = (int(rng.integers(least, most + 1)) for least, most in (config.limbs, config.links))
    reach = rng.uniform(*config.reach)
    base = reach / links
    joints = np.full((config.joints, 2), np.nan)
    colours = np.zeros((config.joints, 3))
    radii = np.zeros(config.joints)
    joints[0] = 0
    hue, spread = rng.uniform(), rng.uniform(0, 0.1) if rng.uniform() < config.one_hue else 1.0
    thickness = rng.uniform(*config.thickness)
    bend = config.bend * rng.uniform(0.1, 1)
    directions = rng.uniform(0, 2 * np.pi) + 2 * np.pi * (np.arange(limbs) + rng.uniform(-0.15, 0.15, limbs)) / limbs
    hues = np.sort((hue + rng.uniform(-spread, spread, limbs)) % 1)
    for limb, direction in enumerate(rng.permutation(directions)):
        angles = direction + np.concatenate(([0], np.cumsum(rng.uniform(-bend, bend, links - 1))))
        lengths = base * rng.uniform(0.85, 1.15, links)
        if config.hip:
            lengths[0] *= config.hip
            angles[1:] += direction - angles[min(1, links - 1)] if links > 1 else 0
        steps = lengths[:, None] * np.stack((np.cos(angles), np.sin(angles)), axis=1)
        slots = 1 + limb * config.links[1] + np.arange(links)
        joints[slots] = np.cumsum(steps, axis=0)
        radii[slots] = reach * thickness * rng.uniform(0.85, 1.15)
        for slot in slots:
            shade = hues[limb] + (rng.uniform(-spread, spread) if limbs == 1 else rng.uniform(-0.02, 0.02))
            colours[slot] = _hsv(shade, rng)
    colours[0] = _hsv(rng.uniform() if rng.uniform() < 0.5 else hue, rng)
    radii[0] = np.nanmax(radii) * rng.uniform(1.5, 5.5)
    body = rng.uniform() < config.body
    if limbs == 1 and not body:
        _brighter_end_first(joints, colours, radii, links)
    low, high = np.nanmin(joints, axis=0), np.nanmax(joints, axis=0)
    room = np.maximum(1.9 - (high - low), 0)
    return Figure(joints - low - 0.95 + rng.uniform(0, 1, 2) * room - np.maximum(high - low - 1.9, 0) / 2, colours,
                  radii, body)  # fmt: skip


def _hsv(hue: float, rng: np.random.Generator) -> np.ndarray:
    return 255 * np.array(colorsys.hsv_to_rgb(hue % 1, rng.uniform(0.35, 1), rng.uniform(0.5, 1)))


def _brighter_end_first(joints: np.ndarray, colours: np.ndarray, radii: np.ndarray, links: int) -> None:
    """Turns a single limb around, in place, where its last link is brighter than its first."""
    luminance = colours @ (0.299, 0.587, 0.114)
    if links > 1 and luminance[links] > luminance[1]:
        joints[: links + 1] = joints[: links + 1][::-1].copy()
        colours[1 : links + 1] = colours[1 : links + 1][::-1].copy()
        radii[1 : links + 1] = radii[1 : links + 1][::-1].copy()


def draw(figure: Figure, background: np.ndarray, above: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """The figure over a background (H, W, 3) uint8, drawn at twice the size and averaged down."""
    height, width = background.shape[:2]
    canvas = cv2.resize(background, (2 * width, 2 * height), interpolation=cv2.INTER_LINEAR)
    size = np.array([width, height])
    pixels = np.round(((figure.joints + 1) / 2 * (size - 1) + 0.5) * 2 * 16 - 8)  # 4 fractional bits
    scale = width - 1  # half widths in [-1, 1] units to widths in pixels of the doubled canvas: · (W - 1) / 2 · 2 · 2
    shade = rng.uniform(0.6, 1)
    present = [slot for slot in range(1, len(above)) if np.isfinite(figure.joints[slot, 0])]
    order = present if rng.uniform() < 0.5 else present[::-1]
    body_first = rng.uniform() < 0.5
    if figure.body and body_first:
        _draw_body(canvas, figure, pixels, scale, rng)
    for slot in order:
        start, end = (tuple(int(v) for v in pixels[i]) for i in (above[slot], slot))
        for share, light in ((1.0, shade), (0.5, 1.0)):  # A round rod is brighter along its middle.
            thickness = max(1, round(2 * figure.radii[slot] * scale * share))
            cv2.line(canvas, start, end, (figure.colours[slot] * light).tolist(), thickness, cv2.LINE_AA, shift=4)
    if figure.body and not body_first:
        _draw_body(canvas, figure, pixels, scale, rng)
    image = cv2.resize(canvas, (width, height), interpolation=cv2.INTER_AREA).astype(np.float32)
    image = image * rng.uniform(0.85, 1.1) + rng.normal(0, rng.uniform(0, 6), image.shape)
    return np.clip(image, 0, 255).astype(np.uint8)


def _draw_body(canvas: np.ndarray, figure: Figure, pixels: np.ndarray, scale: float, rng: np.random.Generator) -> None:
    """A box or an ellipse around the root, upright or turned."""
    centre = pixels[0] / 16
    axes = figure.radii[0] * scale * np.array([1, rng.uniform(0.4, 1)])
    angle = float(rng.choice([0, rng.uniform(0, 180)]))
    colour = figure.colours[0].tolist()
    if rng.uniform() < 0.5:
        corners = cv2.boxPoints((tuple(centre.tolist()), tuple((2 * axes).tolist()), angle))
        cv2.fillConvexPoly(canvas, np.round(corners * 16).astype(np.int32), colour, cv2.LINE_AA, shift=4)
    else:
        cv2.ellipse(canvas, (tuple(centre.tolist()), tuple((2 * axes).tolist()), angle), colour, -1, cv2.LINE_AA)


def background(image: np.ndarray, reference: np.ndarray, window: int) -> np.ndarray:
    """(H, W, 3) uint8 without the object, as far as two frames tell.

    A pixel is like the background where it is near to a median filter, or to the median of its row or column: rails and
    horizons are as thin as limbs but go all the way. Of the two frames the one that is nearer is taken, or the filter
    where neither is near. That a pixel is the same in both frames says nothing: an object often stays where it is, and
    what is left of it would teach the network to overlook it.
    """
    smooth = cv2.medianBlur(image, window).astype(int)
    medians = (smooth, *(np.median(image, axis=axis, keepdims=True) for axis in (0, 1)))
    gaps = []
    for frame in (image, reference):
        apart = [np.abs(frame - median).sum(axis=-1, keepdims=True) for median in medians]
        gaps.append(np.minimum.reduce(apart))
    nearer = np.where(gaps[0] <= gaps[1], image, reference)
    return np.where(np.minimum(*gaps) < NEAR, nearer, smooth).astype(np.uint8)


NEAR = 60
"""Pixels whose three differences in grey levels sum up to less are alike."""


# ------------------------------------------------------------------------------------------------- network and method


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
    parent: Tensor
    level: Tensor

    def __init__(self, config: LimbsConfig, input_size: tuple[int, int]) -> None:
        super().__init__()
        if any(side % 16 for side in input_size):
            raise UserError(f"limbs: the input is {input_size}: give multiples of 16 pixels a side")
        self.config = config
        self.optimizer = config.optimizer
        self.keypoint_count = config.joints
        self.network = LimbNetwork(config.joints, config.width, input_size)
        self.above = tree(config)
        depth = [0]
        for above in self.above[1:]:
            depth.append(depth[above] + 1)
        self.register_buffer("parent", torch.tensor(self.above), persistent=False)
        self.register_buffer("level", torch.tensor(depth), persistent=False)

    def detect(self, image: Tensor) -> Detection:
        """A joint's score is the probability that the object has it and all above it; so is that of the link above."""
        heat, presence = self.network(image)
        scores = presence.sigmoid()
        above = self.parent.clamp_min(0)
        for _ in range(self.config.links[1]):
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
        for index in range(self.config.drawn):
            figure = random_figure(self.config, rng)
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
