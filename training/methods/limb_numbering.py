"""Numbers for limbs that look alike: by their place in the picture, or, since an object that turns keeps them, by their
colours.

By place, limbs that leave the root are numbered clockwise from the picture's right. By colour, redder limbs come first.
"""

from __future__ import annotations

import math
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from keypoint_perception.link_colours import SAMPLES
from keypoint_perception.observation import EDGE_THRESHOLD

_LAST = 10.0
"""More than any difference in redness or angle: limbs that are not there come last."""


def redness(red: Tensor, green: Tensor, blue: Tensor) -> Tensor:
    """(R - G - B) / max(R, G, B) of colours in [0, 1]: from -2 to 1, whatever the light."""
    return (red - green - blue) / torch.maximum(torch.maximum(red, green), blue).clamp_min(1 / 255)


class Numbering(nn.Module):
    """Sorts limbs that leave the root and are alike. above (K,): the tree; groups: of such limbs, (L, M) slots each."""

    parent: Tensor

    def __init__(self, above: np.ndarray, groups: list[np.ndarray], by: Literal["place", "colour"]) -> None:
        super().__init__()
        self.register_buffer("parent", torch.tensor(above).clamp_min(0), persistent=False)
        self.groups, self.by = [limbs.tolist() for limbs in groups], by

    def forward(self, image: Tensor, keypoints: Tensor, scores: Tensor) -> Tensor:
        """(B, K) int64, for each place of the order the slot that comes there.

        image (B, 3, H, W) in [0, 1], keypoints (B, K, 2) in [-1, 1], scores (B, K) in [0, 1].
        """
        slots = torch.arange(scores.shape[1], device=scores.device).expand(scores.shape[0], -1)
        order = list(slots.unbind(dim=1))
        for limbs in self.groups:
            first = self._clockwise(keypoints, limbs) if self.by == "place" else self._red(image, keypoints, limbs)
            there = scores[:, [limb[0] for limb in limbs]] >= EDGE_THRESHOLD  # (B, L)
            ranks = torch.arange(len(limbs), device=scores.device, dtype=scores.dtype)
            chosen = torch.where(there, first, -_LAST - ranks).topk(len(limbs), dim=1).indices
            for joint in zip(*limbs, strict=True):
                sorted_slots = torch.tensor(joint, device=scores.device)[chosen]
                for place, slot in enumerate(joint):
                    order[slot] = sorted_slots[:, place]
        return torch.stack(order, dim=1)

    def _red(self, image: Tensor, keypoints: Tensor, limbs: list[list[int]]) -> Tensor:
        """(B, L) redness, a mean along each limb's links."""
        share = torch.tensor(SAMPLES, device=keypoints.device, dtype=keypoints.dtype)[:, None]
        ends = keypoints[:, :, None]
        points = keypoints[:, self.parent][:, :, None] * (1 - share) + ends * share  # (B, K, S, 2)
        sampled = F.grid_sample(image.to(points), points, align_corners=True)  # (B, 3, K, S)
        red = redness(*sampled.unbind(dim=1)).mean(dim=-1)
        return torch.stack([red[:, limb].mean(dim=1) for limb in limbs], dim=1)

    def _clockwise(self, keypoints: Tensor, limbs: list[list[int]]) -> Tensor:
        """(B, L), the larger the sooner a clock's hand that starts on the right meets the limb's end."""
        arms = keypoints[:, [limb[-1] for limb in limbs]] - keypoints[:, :1]
        angle = torch.atan2(arms[..., 1], arms[..., 0])
        return -torch.where(angle < 0, angle + 2 * math.pi, angle)
