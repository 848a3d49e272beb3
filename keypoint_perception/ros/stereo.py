"""Two cameras of the node that see the same: their keypoints in metres."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from keypoint_perception.errors import UserError
from keypoint_perception.lifting import Lifted, stereo_pose, triangulate
from keypoint_perception.ros.camera import Camera
from keypoint_perception.ros.parameters import Settings
from keypoint_perception.ros.results import Result
from keypoint_perception.stamps import stamp_ns


class StereoPair:
    """The first and the second camera of a calibrated pair."""

    def __init__(self, first: Camera, second: Camera) -> None:
        self._first, self._second = first, second

    def waits(self, camera: Camera, now: float, settings: Settings) -> bool:
        """Whether the other camera's image of the same instant may still come for what is pending at `camera`."""
        if camera not in (self._first, self._second):
            return False
        other = self._second if camera is self._first else self._first
        mine, theirs = camera.input.pending, other.input.pending
        if mine is None or camera.input.overtaken or now - mine.arrived >= settings.stereo_wait:
            return False
        return theirs is None or _apart(mine.stamp_ns, theirs.stamp_ns) > settings.max_stereo_delay

    def lift(self, results: dict[str, Result], settings: Settings) -> dict[str, Result]:
        """The results by camera name, with positions for both of the pair where it can be done.

        Each has them in its own frame. Where not, the reason is a fault of the first camera.
        """
        first, second = results.get(self._first.name), results.get(self._second.name)
        if first is None and second is None:
            return results
        try:
            if first is None or second is None:
                missing = self._first if first is None else self._second
                raise UserError(
                    f"no image of {missing.name} within max_stereo_delay {settings.max_stereo_delay} s of the other's "
                    f"came within stereo_wait {settings.stereo_wait} s: trigger the cameras together, or raise the two"
                )
            lifted, rotation, translation = self._triangulated(first, second, settings)
        except UserError as error:
            self._first.faults.warn("stereo", f"no 3-D: {error}")
            return results
        self._first.faults.clear("stereo")
        in_second = (lifted.positions - translation) @ rotation
        return results | {
            self._first.name: replace(first, lifted=lifted),
            self._second.name: replace(second, lifted=Lifted(in_second, lifted.stddev)),
        }

    def _triangulated(self, first: Result, second: Result, settings: Settings) -> tuple[Lifted, np.ndarray, np.ndarray]:
        """Positions in the first camera's frame, and the second's pose in it."""
        apart = _apart(stamp_ns(first.header), stamp_ns(second.header))
        if apart > settings.max_stereo_delay:
            raise UserError(
                f"the stereo images are {apart:.3f} s apart, allowed is max_stereo_delay {settings.max_stereo_delay} s"
            )
        if first.intrinsics is None or second.intrinsics is None:
            raise UserError("the stereo cameras need camera_info that fits their images: publish it for both")
        rotation, translation = settings.pose() or stereo_pose(
            self._first.input.calibration.message,
            self._second.input.calibration.message,
            rectified=settings.rectified,
        )
        points = first.observation.keypoints, second.observation.keypoints
        return triangulate(first.intrinsics, second.intrinsics, *points, rotation, translation), rotation, translation


def _apart(first_ns: int, second_ns: int) -> float:
    return abs(first_ns - second_ns) / 1e9
