"""A decoder for AutoLink in which only what lies under a line can be painted as object; not in the paper.

The paper's U-Net sees the whole edge map from every pixel. Before a background that never changes it needs the lines as
a code of the pose and no more: any lines that change with the pose will do, wherever they are. On small objects whose
looks change, they stand for nothing at all. Here one U-Net paints the background from the masked image alone, another
the object, and the edge map is the mask that composes the two: a line that is not on the object paints something wrong.
The object's U-Net sees where the lines are, since the colours of what moves would be means over its places otherwise,
but no gradient reaches the lines through it.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from training.networks import UNet


class LayeredDecoder(nn.Module):
    """Object over background, two U-Nets of one size, composed by the edge map."""

    def __init__(self, width: int, depth: int, widest: int) -> None:
        super().__init__()
        self.background = UNet(3, 3, width, depth, widest=widest)
        self.object = UNet(4, 3, width, depth, widest=widest)

    def forward(self, visible: Tensor, edges: Tensor) -> Tensor:
        """visible (B, 3, H, W) in [-1, 1], 0 where masked, and the edge map (B, 1, H, W) to an image (B, 3, H, W)."""
        painted = self.object(torch.cat((visible, edges.detach()), dim=1))
        return torch.lerp(self.background(visible).float(), painted.float(), opacity(edges))


def opacity(edges: Tensor) -> Tensor:
    """An edge map S above 0 to a mask in [0, 1): 1 - exp(-S), S where it is faint."""
    return -torch.expm1(-edges)


def chromaticity(image: Tensor) -> Tensor:
    """Images (B, 3, H, W) in [0, 1] without their brightness: c / (r + g + b + 0.1), in which shadows hardly show.

    The 0.1 keeps the noise of dark pixels small.
    """
    image = image.float().clamp_min(0)
    return image / (image.sum(dim=1, keepdim=True) + 0.1)
