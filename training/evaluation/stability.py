"""Does a keypoint stay where it belongs: on the object, on the same part, without jitter?"""

from __future__ import annotations

import numpy as np

MASK_SLACK = 1
"""Pixels by which a keypoint may be beside the object's mask."""
SKELETON_TOLERANCE = 0.1
"""About half the width of a robot arm's links in a picture that shows all of it, [-1, 1] units."""


def on_object_share(keypoints: np.ndarray, masks: np.ndarray) -> float:
    """Share of keypoints (T, K, 2), in pixels, within MASK_SLACK of the object in masks (T, H, W) bool."""
    height, width = masks.shape[1:]
    pixels = np.rint(keypoints).astype(int)
    hits = np.zeros(keypoints.shape[:2], dtype=bool)
    frame = np.arange(len(masks))[:, None]
    reach = range(-MASK_SLACK, MASK_SLACK + 1)
    for dy in reach:
        for dx in reach:
            x, y = pixels[..., 0] + dx, pixels[..., 1] + dy
            inside = (x >= 0) & (x < width) & (y >= 0) & (y < height)
            hits |= inside & masks[frame, y.clip(0, height - 1), x.clip(0, width - 1)]
    return float(hits.mean())


def on_skeleton_share(keypoints: np.ndarray, joints: np.ndarray, adjacency: np.ndarray) -> float:
    """Share of keypoints (T, K, 2) no farther than SKELETON_TOLERANCE from a link of the true skeleton.

    It is what can be said about being on the object where it has no mask.

    joints (T, J, 2), adjacency (J, J) bool with at least one edge; all in [-1, 1] units. Links with an unknown end
    (NaN) are left out, and so are frames without any other; NaN where no frame is left.
    """
    source, target = np.nonzero(np.triu(adjacency))
    start, along = joints[:, None, source], joints[:, None, target] - joints[:, None, source]  # (T, 1, E, 2)
    offset = keypoints[:, :, None] - start  # (T, K, E, 2)
    length_squared = np.maximum((along**2).sum(axis=-1), np.finfo(float).tiny)
    share = ((offset * along).sum(axis=-1) / length_squared).clip(0, 1)
    distance = np.linalg.norm(offset - share[..., None] * along, axis=-1)
    known = ~np.isnan(distance).all(axis=(1, 2))
    nearest = np.nan_to_num(distance[known], nan=np.inf).min(axis=-1)
    return float((nearest <= SKELETON_TOLERANCE).mean()) if known.any() else np.nan


def same_part_share(keypoints: np.ndarray, joints: np.ndarray) -> float:
    """Share of (frame, keypoint) whose nearest joint is the keypoint's most frequent one.

    keypoints (T, K, 2), joints (T, J, 2), both normalised. 1 is perfect; always-the-same-place keypoints on a moving
    object score low.
    """
    nearest = np.linalg.norm(keypoints[:, :, None] - joints[:, None], axis=-1).argmin(axis=-1)  # (T, K)
    favourite = [np.bincount(column, minlength=joints.shape[1]).max() for column in nearest.T]
    return float(np.sum(favourite) / nearest.size)


def jitter(keypoints: np.ndarray) -> float:
    """Median length of the second difference over time, (T, K, 2) with T >= 3: 0 for constant velocity."""
    return float(np.median(np.linalg.norm(np.diff(keypoints, n=2, axis=0), axis=-1)))
