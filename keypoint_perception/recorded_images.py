"""The images of a recording, and the depth and the calibration that were recorded beside them."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
from rosbags.highlevel import AnyReader

from keypoint_perception.bags import connections_of
from keypoint_perception.errors import UserError
from keypoint_perception.images import image_to_rgb
from keypoint_perception.lifting import Intrinsics
from keypoint_perception.ros.depth import DepthBuffer
from keypoint_perception.stamps import after_stamp, stamp_ns

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

    @property
    def size(self) -> tuple[int, int]:
        """(width, height)."""
        return self.image.shape[1], self.image.shape[0]


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
        self._calibrations: deque[tuple[int, Intrinsics | str]] = deque()
        """When the bag received it and what it says, or why that is of no use; from that of the next image on."""
        self._newest_info = b""
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
            elif after_stamp(data) != self._newest_info:
                self._newest_info = after_stamp(data)
                self._calibrate(received, message)
            if len(waiting) >= size + _LOOK_AHEAD:
                yield waiting[:size]
                del waiting[:size]
        for start in range(0, len(waiting), size):
            yield waiting[start : start + size]

    def intrinsics(self, image: RecordedImage) -> Intrinsics | None:
        """The calibration of an image of the last batch, where there is one that fits."""
        try:
            return self._calibration(image)
        except UserError:
            return None

    def depth(self, image: RecordedImage, max_delay: float) -> np.ndarray | None:
        """Depth (H, W) for an image of the last batch, where there is all for it.

        It has the units of the message (`images.to_metres`). max_delay: seconds that they may be apart.
        """
        if self._depth_topic is None:
            return None
        try:
            self._calibration(image)
            return self._depths.at(image.header, image.size, max_delay)
        except UserError as error:
            self.note_flat(str(error))
            return None

    def note_flat(self, fault: str) -> None:
        """Counts an image that keypoints could not be lifted in; `fault` is empty where they could."""
        self.flat += bool(fault)
        self.first_flat_fault = self.first_flat_fault or fault

    def _calibration(self, image: RecordedImage) -> Intrinsics:
        """The newest that had come by then; where that does not fit, or none had come, one that came soon after.

        Raises UserError that says why there is none.
        """
        known = self._calibrations
        while len(known) > 1 and known[1][0] <= image.received_ns:
            known.popleft()
        if not known:
            raise UserError("no camera_info had come by then, or soon after")
        fitting = [c for _, c in known if isinstance(c, Intrinsics) and c.size == image.size]
        if fitting:
            return fitting[0]
        first = known[0][1]
        if isinstance(first, str):
            raise UserError(first)
        first.check_size(image.size)
        return first

    def _add_depth(self, received: int, message: Any, waiting: list[RecordedImage]) -> None:
        """Keeps what may belong to an image, of those `waiting` or to come, however much more depth there is."""
        self._depths.add(message)
        self._since_thinned += 1
        if received - self._thinned_ns > _ALL_DEPTH_NS:
            self._depths.thin([stamp_ns(image.header) for image in waiting], self._since_thinned)
            self._thinned_ns, self._since_thinned = received, 0

    def _calibrate(self, received: int, camera_info: Any) -> None:
        try:
            known: Intrinsics | str = Intrinsics.from_camera_info(camera_info, rectified=self._rectified)
        except UserError as error:
            known = str(error)
        self._calibrations.append((received, known))

    def _decoded(self, received: int, message: Any) -> list[RecordedImage]:
        try:
            return [RecordedImage(received, message.header, image_to_rgb(message))]
        except UserError as error:
            self._note(str(error))
            return []

    def _note(self, fault: str) -> None:
        self.unreadable += 1
        self.first_fault = self.first_fault or fault
