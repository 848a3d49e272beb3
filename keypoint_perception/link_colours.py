"""The colours of a body's links: by them limbs of one shape are told apart where they cross."""

from __future__ import annotations

import cv2
import numpy as np

from keypoint_perception.geometry import normalised_to_pixels
from keypoint_perception.limb_tree import is_chain
from keypoint_perception.model import ModelInfo

SAMPLES = (0.15, 0.325, 0.5, 0.675, 0.85)
"""Where on a link, as shares of its length, its colour is looked at."""
_DARK = 20
"""Of 255: what is darker has no colour that could be relied on."""


class LinkColours:
    """Looks at the links in images; for models that follow limbs which may be alike (see `tracking`)."""

    def __init__(self, info: ModelInfo) -> None:
        above = np.array(info.parent)
        self._above = above.clip(min=0) if info.predicts_tree and not is_chain(above) else None

    def __call__(self, image: np.ndarray, keypoints: np.ndarray) -> np.ndarray | None:
        """(K, 3) float32 RGB in [0, 1] of the link above each keypoint, its brightest channel 1; None without limbs.

        image (H, W, 3) uint8 RGB; keypoints (K, 2) normalised in it. Of what is sampled on a link the median counts,
        divided by its brightest channel: how a link is lit says nothing of whose it is.
        """
        if self._above is None:
            return None
        share = np.array(SAMPLES)[:, None]
        on_links = keypoints[self._above][:, None] * (1 - share) + keypoints[:, None] * share  # (K, S, 2)
        x, y = np.moveaxis(normalised_to_pixels(on_links, image.shape[1::-1]).astype(np.float32), -1, 0)
        sampled = np.asarray(cv2.remap(image, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE), np.float32)
        colour = np.median(sampled, axis=1)
        return colour / colour.max(axis=1, keepdims=True).clip(min=_DARK)
