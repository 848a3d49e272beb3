"""The depth images of one camera, and which of them belongs to a picture: for the live node and for bags alike."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np

from keypoint_perception.errors import UserError
from keypoint_perception.images import depth_pixels
from keypoint_perception.stamps import stamp_ns

if TYPE_CHECKING:
    from keypoint_perception.ros.serialised import SerialisedCompressedImage, SerialisedImage

MAX_DELAY_S = 0.02
"""Seconds, by default, that depth and image may be apart."""
_KEPT = 8
_PATIENCE = 3.5
"""Depth that has missed this many of its periods has fallen silent."""


class DepthBuffer:
    """The last depth images."""

    def __init__(self, topic: str, kept: int | None = _KEPT) -> None:
        """topic: where they come from, for messages about what is missing.

        kept: the number of images; None for all until `thin`.
        """
        self._topic = topic
        self._kept: deque[SerialisedImage | SerialisedCompressedImage | Any] = deque(maxlen=kept)

    def clear(self) -> None:
        """Forgets all."""
        self._kept.clear()

    def add(self, message: SerialisedImage | SerialisedCompressedImage | Any) -> None:
        """Keeps the newest, of the node's or a recording's. Where the clock went back, what was there is forgotten."""
        if self._kept and stamp_ns(message.header) < stamp_ns(self._kept[-1].header):
            self._kept.clear()
        self._kept.append(message)

    def thin(self, instants: Iterable[int], newest: int) -> None:
        """Keeps the `newest` newest images, and of the others only the nearest to each of `instants`, nanoseconds."""
        older = len(self._kept) - newest
        wanted = {id(self._nearest(instant)) for instant in instants} if older > 0 else set()
        kept = [depth for index, depth in enumerate(self._kept) if index >= older or id(depth) in wanted]
        self._kept.clear()
        self._kept.extend(kept)

    def is_due(self, instant: int) -> bool:
        """Whether by the pace of the depth so far, one is due for the image of `instant`, nanoseconds.

        Depth is often slower than the images, and may fall silent.
        """
        if len(self._kept) < 2:
            return False
        stamps = [stamp_ns(depth.header) for depth in self._kept]
        gaps = sorted(after - before for before, after in pairwise(stamps))
        period = gaps[len(gaps) // 4]  # some gaps are longer, as depth was lost, and few shorter
        return 0.75 <= (instant - stamps[-1]) / max(period, 1) <= _PATIENCE

    def at(self, header: Any, image_size: tuple[int, int], max_delay: float) -> np.ndarray:
        """Depth (H, W), as its message has it, that fits the image of `image_size` with that header.

        max_delay: seconds that they may be apart. Raises UserError that says why there is none.
        """
        if not self._kept:
            raise UserError(f"nothing on {self._topic} yet")
        instant = stamp_ns(header)
        nearest = self._nearest(instant)
        apart = abs(stamp_ns(nearest.header) - instant) / 1e9
        if apart > max_delay:
            raise UserError(
                f"the nearest depth is {apart:.3f} s from the image, allowed is max_depth_delay {max_delay} s"
            )
        frame = nearest.header.frame_id
        if frame != header.frame_id:
            raise UserError(
                f"depth is in frame {frame!r}, the image in {header.frame_id!r}: give depth aligned with the image"
            )
        depth = depth_pixels(nearest)
        if depth.shape[1::-1] != image_size:
            raise UserError(
                f"depth has {depth.shape[1]}x{depth.shape[0]} pixels, the image {image_size[0]}x{image_size[1]}: "
                "give depth aligned with the image"
            )
        return depth

    def _nearest(self, instant: int) -> SerialisedImage | SerialisedCompressedImage | Any:
        """The image nearest to `instant`, nanoseconds; there must be one."""
        return min(self._kept, key=lambda depth: abs(stamp_ns(depth.header) - instant))
