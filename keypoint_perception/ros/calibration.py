"""The calibration that a camera sends with every image, read when it changes."""

from __future__ import annotations

from typing import Any

from rclpy.serialization import deserialize_message
from sensor_msgs.msg import CameraInfo

from keypoint_perception.errors import UserError
from keypoint_perception.lifting import Intrinsics
from keypoint_perception.stamps import after_stamp


class Calibration:
    """The newest camera_info of one camera."""

    def __init__(self, topic: str, rectified: bool) -> None:
        """topic: where it comes from, for messages about what is missing. rectified: whether the images are."""
        self._topic, self._rectified = topic, rectified
        self._serialised: bytes | None = None
        self._message: Any = None
        self._intrinsics: Intrinsics | None = None

    def add(self, serialised: bytes) -> None:
        """Takes a serialised sensor_msgs/CameraInfo, which often is the one before with another stamp."""
        if self._serialised is None or after_stamp(serialised) != after_stamp(self._serialised):
            self._serialised, self._message, self._intrinsics = serialised, None, None

    @property
    def is_known(self) -> bool:
        """Whether there has been one."""
        return self._serialised is not None

    @property
    def message(self) -> Any:
        """The sensor_msgs/CameraInfo. Raises UserError where there is none, or it is damaged."""
        if self._serialised is None:
            raise UserError(f"nothing on {self._topic} yet")
        if self._message is None:
            try:
                self._message = deserialize_message(self._serialised, CameraInfo)
            except Exception as error:  # the middleware's own
                raise UserError(f"{self._topic} carries a damaged message ({error})") from None
        return self._message

    def intrinsics(self, image_size: tuple[int, int]) -> Intrinsics:
        """The intrinsics of images of `image_size`. Raises UserError that says why they are not known."""
        if self._intrinsics is None:
            self._intrinsics = Intrinsics.from_camera_info(self.message, rectified=self._rectified)
        self._intrinsics.check_size(image_size)
        return self._intrinsics
