"""OpenCV's readers, where a damaged file is no exception."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import cv2
import numpy as np


def decoded(read: Callable[..., Any], *arguments: Any) -> np.ndarray | None:
    """The pixels that cv2.imread or cv2.imdecode gives for the arguments, None where the file is damaged.

    OpenCV raises where a header promises more pixels than it allows, and returns None for all other damage.
    """
    try:
        return read(*arguments)
    except cv2.error:
        return None
