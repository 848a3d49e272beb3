"""A contact sheet of simulated episodes: frames over time with joints, limbs and, in the last column, the mask."""

from __future__ import annotations

import os
from collections.abc import Sequence

import cv2
import numpy as np

from keypoint_perception.drawing import Style, contact_sheet, draw, palette, write_png
from keypoint_perception.geometry import rescale_pixels
from keypoint_perception.observation import Observation
from training.simulation.episode import Episode, read_episode

_ROWS, _COLUMNS = 12, 7
_TILE = 256
"""Width of a picture, pixels; it is drawn on at this size, so that lines are thin against limbs."""
_HIDDEN_SCORE = 0.2


def write_sheet(path: str | os.PathLike[str], episodes: Sequence[str | os.PathLike[str]]) -> None:
    """Writes a PNG with one row an episode: of each object one, then of each a second, up to `_ROWS`."""
    seen: dict[str, int] = {}
    chosen: list[tuple[int, str, Episode]] = []
    for file in episodes[: 8 * _ROWS]:
        episode = read_episode(file)
        turn = seen[episode.variant] = seen.get(episode.variant, -1) + 1
        chosen.append((turn, episode.variant, episode))
    chosen.sort(key=lambda entry: entry[:2])
    tiles = [tile for _, _, episode in chosen[:_ROWS] for tile in _row(episode)]
    write_png(path, contact_sheet(tiles, _COLUMNS, _TILE))


def _row(episode: Episode) -> list[np.ndarray]:
    """Frames from first to last with the truth drawn over them; the last again, with all but the object darkened."""
    height, width = episode.frames.shape[1:3]
    size = (_TILE, round(_TILE * height / width))
    style = Style(palette(len(episode.names)))
    tiles = []
    for t in np.linspace(0, len(episode.frames) - 1, _COLUMNS - 1).round().astype(int):
        observation = Observation(
            rescale_pixels(episode.keypoints[t], (width, height), size),
            np.where(episode.visible[t], 1, _HIDDEN_SCORE).astype(np.float32),
            episode.adjacency.astype(np.float32),
            size,
        )
        tiles.append(draw(cv2.resize(episode.frames[t], size, interpolation=cv2.INTER_NEAREST), observation, style))
    masked = np.where(episode.mask[-1, :, :, None], episode.frames[-1], episode.frames[-1] // 4)
    return [*tiles, cv2.resize(masked, size, interpolation=cv2.INTER_NEAREST)]
