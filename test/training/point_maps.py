"""Heatmaps of points whose place is sure."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def one_hot(positions: Sequence[tuple[int, int]], size: tuple[int, int] = (9, 9)) -> Tensor:
    """(1, P, H, W) maps of points at (column, row); size is (W, H)."""
    maps = torch.zeros(1, len(positions), size[1], size[0])
    for point, (column, row) in enumerate(positions):
        maps[0, point, row, column] = 1
    return maps
