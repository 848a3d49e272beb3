"""The images of a recording, and the depth and the calibration that were recorded beside them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
from rosbags.highlevel import AnyReader

from keypoint_perception.bags import connections_of
from keypoint_perception.errors import UserError
from keypoint_perception.images import image_to_rgb
from keypoint_perception.lifting import Intrinsics
from keypoint_perception.ros.conversions import stamp_ns
from keypoint_perception.ros.depth import DepthBuffer

_ALL_DEPTH_NS = 1_000_000_000
"""For so long all depth is kept, for images that are recorded later; then only what is nearest to a waiting image."""
_LOOK_AHEAD = 3
"""Images read beyond a batch, so that depth recorded a little after its image is known when that is served."""


class RecordedImage(NamedTuple):
    """One image of a recording."""

    received_ns: int
    """When the bag received it."""
    header: Any
    image: np.ndarray
    """(H, W, 3) uint8 RGB."""


class RecordedImages:
    """The images of a topic in batches, and the depth and calibration that were recorded around them."""

    def __init__(
        self,
        reader: AnyReader,
        topic: str,
        depth: str | None = None,
        camera_info: str | None = None,
        *,
        rectified: bool = False,
    ) -> None:
        """depth, camera_info: topics of what lifts keypoints to 3-D. Raises UserError where the bag has no such topic.

        rectified: whether the images are, see Intrinsics.from_camera_info.
        What could not be read is counted in `unreadable`, and `first_fault` says what was wrong with the first of it;
        likewise `flat` and `first_flat_fault` for images that keypoints could not be lifted in, where that was asked.
        """
        self._reader, self.topic, self._depth_topic = reader, topic, depth
        self._wanted = connections_of(reader, topic)
        if depth is not None:
            self._wanted = self._wanted + connections_of(reader, depth)
        if camera_info is not None:
            self._wanted = self._wanted + connections_of(reader, camera_info, ["sensor_msgs/msg/CameraInfo"])
        self._depths = DepthBuffer(depth or "", kept=None)
        self._thinned_ns, self._since_thinned = 0, 0
        self._rectified = rectified
        self._intrinsics: Intrinsics | None = None
        self._uncalibrated = "camera_info comes only later"
        self.unreadable = 0
        self.first_fault = ""
        self.flat = 0
        self.first_flat_fault = ""

    @property
    def count(self) -> int:
        """How many images the bag has on the topic."""
        return sum(c.msgcount for c in self._wanted if c.topic == self.topic)

    def batches(self, size: int) -> Iterator[list[RecordedImage]]:
        """The images in order, up to `size` at a time."""
        waiting: list[RecordedImage] = []
        for connection, received, data in self._reader.messages(self._wanted):
            try:
                message: Any = self._reader.deserialize(data, connection.msgtype)
            except Exception as error:  # rosbags' generated code raises whatever damaged bytes lead it to
                if connection.topic == self.topic:
                    self._note(f"a message cannot be deserialised ({type(error).__name__})")
                continue
            if connection.topic == self.topic:
                waiting += self._decoded(received, message)
            elif connection.topic == self._depth_topic:
                self._add_depth(received, message, waiting)
            elif self._intrinsics is None:
                self._calibrate(message)
            if len(waiting) >= size + _LOOK_AHEAD:
                yield waiting[:size]
                del waiting[:size]
        for start in range(0, len(waiting), size):
            yield waiting[start : start + size]

    def intrinsics(self, size: tuple[int, int]) -> Intrinsics | None:
        """The calibration, where it fits images of `size`, (width, height)."""
        return self._intrinsics if self._intrinsics is not None and self._intrinsics.size == size else None

    def depth(self, header: Any, size: tuple[int, int], max_delay: float) -> np.ndarray | None:
        """Depth (H, W) for the image of `size`, (width, height), with that header, where there is all for it.

        It has the units of the message (`images.to_metres`). max_delay: seconds that they may be apart.
        """
        if self._depth_topic is None:
            return None
        try:
            if self._intrinsics is None:
                raise UserError(self._uncalibrated)
            self._intrinsics.check_size(size)
            return self._depths.at(header, size, max_delay)
        except UserError as error:
            self.flat += 1
            self.first_flat_fault = self.first_flat_fault or str(error)
            return None

    def _add_depth(self, received: int, message: Any, waiting: list[RecordedImage]) -> None:
        """Keeps what may belong to an image, of those `waiting` or to come, however much more depth there is."""
        self._depths.add(message)
        self._since_thinned += 1
        if received - self._thinned_ns > _ALL_DEPTH_NS:
            self._depths.thin([stamp_ns(image.header) for image in waiting], self._since_thinned)
            self._thinned_ns, self._since_thinned = received, 0

    def _calibrate(self, camera_info: Any) -> None:
        try:
            self._intrinsics = Intrinsics.from_camera_info(camera_info, rectified=self._rectified)
        except UserError as error:
            self._uncalibrated = str(error)

    def _decoded(self, received: int, message: Any) -> list[RecordedImage]:
        try:
            return [RecordedImage(received, message.header, image_to_rgb(message))]
        except UserError as error:
            self._note(str(error))
            return []

    def _note(self, fault: str) -> None:
        self.unreadable += 1
        self.first_fault = self.first_fault or fault
