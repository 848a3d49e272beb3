"""The stick figures that Limbs learns from: drawn at random, over a recording's own background."""

from __future__ import annotations

import colorsys
from dataclasses import dataclass
from typing import TYPE_CHECKING

import cv2
import numpy as np

from keypoint_perception.limb_tree import depths, root_limbs

if TYPE_CHECKING:
    from training.methods.limbs import LimbsConfig

NEAR = 60
"""Pixels whose three differences in grey levels sum up to less are alike."""

ROOM = 1.9
"""Side of the square in the middle of an image that a random figure stays in, where it fits, in [-1, 1] units."""

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


def random_figure(config: LimbsConfig, above: np.ndarray, rng: np.random.Generator) -> Figure:
    """A figure in a random pose, inside the image where it fits."""
    count, links = (int(rng.integers(least, most + 1)) for least, most in (config.limbs, config.links))
    reach = rng.uniform(*config.reach)
    bend = config.bend * rng.uniform(0.1, 1)
    joints = np.full((len(above), 2), np.nan)
    joints[0] = 0
    directions = rng.uniform(0, 2 * np.pi) + 2 * np.pi * (np.arange(count) + rng.uniform(-0.15, 0.15, count)) / count
    for limb, direction in enumerate(directions):
        angles = direction + np.concatenate(([0], np.cumsum(rng.uniform(-bend, bend, links - 1))))
        lengths = reach / links * rng.uniform(0.85, 1.15, links)
        if config.hip:
            lengths[0] *= config.hip
            angles[1:] += direction - angles[min(1, links - 1)] if links > 1 else 0
        steps = lengths[:, None] * np.stack((np.cos(angles), np.sin(angles)), axis=1)
        first = 1 + limb * config.links[1]
        joints[first : first + links] = np.cumsum(steps, axis=0)
    low, high = np.nanmin(joints, axis=0), np.nanmax(joints, axis=0)
    slack = ROOM - (high - low)  # negative where the figure is too large: then centred
    joints += rng.uniform(0, 1, 2) * np.maximum(slack, 0) - low - ROOM / 2 + np.minimum(slack, 0) / 2
    return _dressed(joints, reach, config, rng)


def posed_figure(pose: np.ndarray, above: np.ndarray, config: LimbsConfig, rng: np.random.Generator) -> Figure:
    """A figure in a given pose (K, 2), a little moved and resized, with colours and widths of its own.

    A joint that lies, with all below it, on the one above is not there. Of the root's limbs that are alike some are
    left out at times, so that the network is not surprised by a number of limbs that no pose shows.
    """
    joints = np.where(have_length(pose[None], above)[0, :, None], pose, np.nan)
    for limbs in root_limbs(above):
        shown = limbs[np.isfinite(joints[limbs[:, 0], 0])]
        if len(shown) > config.limbs[0] and rng.uniform() < config.left_out:
            count = rng.integers(1, len(shown) - config.limbs[0] + 1)
            joints[np.concatenate(rng.permutation(shown)[:count])] = np.nan
    size = np.hypot(*(np.nanmax(joints, axis=0) - np.nanmin(joints, axis=0)))
    centre = np.nanmean(joints, axis=0)
    joints = centre + (joints - centre) * rng.uniform(0.9, 1.1) + rng.uniform(-0.1, 0.1, 2)
    return _dressed(joints, size, config, rng)


def have_length(poses: np.ndarray, above: np.ndarray) -> np.ndarray:
    """(P, K) bool: which joints of poses (P, K, 2) are there: the root, what does not lie on the joint above, and all
    between them, since a link that points at the camera has no length either.
    """
    there = (np.linalg.norm(poses - poses[:, above], axis=-1) > ABSENT) | (above < 0)
    for joint in np.argsort(depths(above))[:0:-1]:  # from the ends to the root
        there[:, above[joint]] |= there[:, joint]
    return there


def _dressed(joints: np.ndarray, length: float, config: LimbsConfig, rng: np.random.Generator) -> Figure:
    """Colours, half widths and perhaps a body for joints (K, 2)."""
    hue, spread = rng.uniform(), rng.uniform(0, 0.1) if rng.uniform() < config.one_hue else 1.0
    colours = np.array([_hsv(hue + rng.uniform(-spread, spread), rng) for _ in joints])
    if rng.uniform() < 0.5:
        colours[0] = _hsv(rng.uniform(), rng)
    radii = length * rng.uniform(*config.thickness) * rng.uniform(0.85, 1.15, len(joints))
    radii[0] = radii[1:].max() * rng.uniform(1.5, 5.5)
    return Figure(joints, colours, radii, bool(rng.uniform() < config.body))


def _hsv(hue: float, rng: np.random.Generator) -> np.ndarray:
    return 255 * np.array(colorsys.hsv_to_rgb(hue % 1, rng.uniform(0.35, 1), rng.uniform(0.5, 1)))


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
        lit = rng.uniform(0.8, 1)  # by how it is turned to the light
        for share, light in ((1.0, shade * lit), (0.5, lit)):  # A round rod is brighter along its middle.
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
    smooth = cv2.medianBlur(image, window).astype(np.int16)
    medians = (smooth, *(np.median(image, axis=axis, keepdims=True).astype(np.int16) for axis in (0, 1)))
    gaps = []
    for frame in (image.astype(np.int16), reference.astype(np.int16)):
        apart = [np.einsum("hwc->hw", np.abs(frame - median))[..., None] for median in medians]
        gaps.append(np.minimum.reduce(apart))
    nearer = np.where(gaps[0] <= gaps[1], image, reference)
    return np.where(np.minimum(*gaps) < NEAR, nearer, smooth).astype(np.uint8)
