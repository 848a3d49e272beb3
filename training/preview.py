"""Pictures of what a method has learned so far: keypoints and edges over images, beside its own pictures."""

from __future__ import annotations

from typing import cast

import cv2
import numpy as np
import torch
from torch import Tensor

from keypoint_perception.drawing import Style, contact_sheet, draw, palette
from keypoint_perception.geometry import normalised_to_pixels
from keypoint_perception.observation import Observation
from training.method import Batch, Detection, Method

PICTURES = 6
TILE_WIDTH = 256


@torch.no_grad()
def preview(method: Method, batch: Batch) -> np.ndarray:
    """A contact sheet (H, W, 3) uint8 RGB: one row an image: keypoints and edges, reference, the method's pictures.

    The method is put into eval mode for it and back.
    """
    batch = cast(Batch, {key: value[:PICTURES] for key, value in cast(dict[str, Tensor], batch).items()})
    training = method.training
    method.eval()
    try:
        drawn = draw_detections(batch["image"], method.detect(batch["image"]))
        columns = [drawn]
        if "reference" in batch:
            columns.append(to_uint8(batch["reference"]))
        columns += [to_uint8(picture) for picture in method.preview(batch).values()]
    finally:
        method.train(training)
    tiles = [column[row] for row in range(len(drawn)) for column in columns]
    return contact_sheet(tiles, columns=len(columns), tile_width=TILE_WIDTH)


def draw_detections(image: Tensor, detection: Detection) -> np.ndarray:
    """(B, 3, H, W) images in [0, 1] and what was found in them to (B, H, W, 3) uint8 pictures."""
    enlarged = [_enlarge(picture) for picture in to_uint8(image)]
    size = enlarged[0].shape[1::-1]
    style = Style(palette(detection.keypoints.shape[1]), threshold=0.0)
    found = (field.detach().float().cpu().numpy() for field in detection[:3])
    observations = (
        Observation(normalised_to_pixels(keypoints, size).astype(np.float32), scores, adjacency, size)
        for keypoints, scores, adjacency in zip(*found, strict=True)
    )
    return np.stack([draw(*pair, style) for pair in zip(enlarged, observations, strict=True)])


def to_uint8(image: Tensor) -> np.ndarray:
    """(B, 3 or 1, H, W) in [0, 1] to (B, H, W, 3) uint8."""
    picture = (image.detach().float().clamp(0, 1) * 255).round().byte().permute(0, 2, 3, 1).contiguous().cpu().numpy()
    return picture.repeat(3, axis=-1) if picture.shape[-1] == 1 else picture


def _enlarge(image: np.ndarray) -> np.ndarray:
    width = max(TILE_WIDTH, image.shape[1])
    return cv2.resize(image, (width, round(image.shape[0] * width / image.shape[1])), interpolation=cv2.INTER_CUBIC)
