"""The stick figures that Limbs learns from: drawn at random, over a recording's own background."""

from __future__ import annotations

import colorsys
from dataclasses import dataclass
from typing import TYPE_CHECKING

import cv2
import numpy as np

if TYPE_CHECKING:
    from training.methods.limbs import LimbsConfig

NEAR = 60
"""Pixels whose three differences in grey levels sum up to less are alike."""

ABSENT = 1e-4
"""A link of a pose that is not longer than this, in [-1, 1] units, is not there."""


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


def posed_figure(pose: np.ndarray, above: np.ndarray, config: LimbsConfig, rng: np.random.Generator) -> Figure:
    """A figure in a given pose (K, 2), a little moved and resized, with colours and widths of its own.

    A joint that lies on the one above it is not there. Limbs that look alike are given to the slots by their hue.
    """
    limbs = limbs_of(above)
    alike = len({len(limb) for limb in limbs}) == 1 and len(limbs) > 1
    steps = np.where(above[:, None] >= 0, pose - pose[above], 0)
    present = (np.linalg.norm(steps, axis=1) > ABSENT) | (above < 0)
    if alike:
        shown = np.array([limb for limb in limbs if present[limb[0]]])
        shuffled = rng.permutation(shown)
        steps[shown], present[shown] = steps[shuffled], present[shuffled]
    joints = _follow(steps, above, limbs)
    joints[~present] = np.nan
    colours = _colours(limbs, alike, config, rng)
    size = np.hypot(*np.ptp(joints[present], axis=0))
    radii = size * rng.uniform(*config.thickness) * rng.uniform(0.85, 1.15, len(above))
    radii[0] = radii[1:].max() * rng.uniform(1.5, 5.5)
    body = rng.uniform() < config.body
    if not body and (np.diff(above) == 1).all():
        _brighter_end_first(joints, colours, radii, int(present.sum()) - 1)
    centre = np.nanmean(joints, axis=0)
    joints = centre + (joints - centre) * rng.uniform(0.9, 1.1) + pose[0] + rng.uniform(-0.1, 0.1, 2)
    return Figure(joints, colours, radii, body)


def limbs_of(above: np.ndarray) -> list[list[int]]:
    """The slots of each limb that leaves the root, each in an order in which a slot comes after the one above it."""
    limbs = [[int(first)] for first in np.flatnonzero(above == 0)]
    for limb in limbs:
        for slot in limb:  # grows as it goes
            limb += [int(below) for below in np.flatnonzero(above == slot)]
    return limbs


def _follow(steps: np.ndarray, above: np.ndarray, limbs: list[list[int]]) -> np.ndarray:
    """(K, 2) joints from each joint's step from the one above it, limb by limb; the root is at 0."""
    joints = np.zeros_like(steps)
    for limb in limbs:
        for slot in limb:
            joints[slot] = joints[above[slot]] + steps[slot]
    return joints


def _colours(limbs: list[list[int]], alike: bool, config: LimbsConfig, rng: np.random.Generator) -> np.ndarray:
    """(K, 3): shades of one hue, or a hue for each link; for limbs that are alike one for each limb, in their order."""
    hue, spread = rng.uniform(), rng.uniform(0, 0.1) if rng.uniform() < config.one_hue else 1.0
    colours = np.zeros((1 + sum(map(len, limbs)), 3))
    colours[0] = _hsv(rng.uniform() if rng.uniform() < 0.5 else hue, rng)
    hues = np.sort((hue + rng.uniform(-spread, spread, len(limbs))) % 1)
    for limb, of_limb in zip(limbs, hues, strict=True):
        for slot in limb:
            shift = 0.02 if alike else spread
            colours[slot] = _hsv((of_limb if alike else hue) + rng.uniform(-shift, shift), rng)
    return colours


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
