"""The cameras of one node, served together: one inference for all whose images are there."""

from __future__ import annotations

import time
from contextlib import AbstractContextManager

from rclpy.clock import Clock, ClockType
from rclpy.lifecycle import LifecycleNode

from keypoint_perception.detector import Detector
from keypoint_perception.drawing import Style
from keypoint_perception.ros.camera import Camera, Frame
from keypoint_perception.ros.faults import Faults
from keypoint_perception.ros.inputs import Topics
from keypoint_perception.ros.loading import ModelHost
from keypoint_perception.ros.parameters import Settings, transports_of
from keypoint_perception.ros.results import Look, Result
from keypoint_perception.ros.stereo import StereoPair

_WAIT_STEP_S = 0.004
"""How often an image that waits for its depth is looked at."""
_LONGEST_TURN_S = 0.05
"""Images are served for as long in a row before the node's other callbacks have their turn."""


def camera_topics(node: LifecycleNode, settings: Settings) -> dict[str, Topics]:
    """The topics of each camera. Raises UserError where the parameters of one are not allowed."""
    several = len(settings.cameras) > 1
    return {
        name: Topics(
            f"{name}/" if several else "",
            *transports_of(node, name, settings),
            rectified=settings.rectified,
            in_stereo=name in settings.stereo,
        )
        for name in settings.cameras
    }


class Rig:
    """The cameras, and what serves their images."""

    def __init__(
        self, node: LifecycleNode, settings: Settings, topics: dict[str, Topics], host: ModelHost, faults: Faults
    ) -> None:
        """Opens what is published. topics: of each camera. Where that fails, what was open by then is closed."""
        self._node, self._host, self._faults = node, host, faults
        steady = Clock(clock_type=ClockType.STEADY_TIME)  # simulated time may stand still
        self._wait_timer = node.create_timer(_WAIT_STEP_S, self._serve_all, clock=steady)
        self._wait_timer.cancel()
        self.cameras: list[Camera] = []
        try:
            for name, own in topics.items():
                self.cameras.append(Camera(node, name, own, self._serve_all, self._serve_due))
        except Exception:
            self.close()
            raise
        by_name = {camera.name: camera for camera in self.cameras}
        self._stereo = StereoPair(*(by_name[name] for name in settings.stereo)) if settings.stereo else None
        self.apply(settings)

    def apply(self, settings: Settings) -> None:
        """Takes new settings, or the look of a new model."""
        self._settings = settings
        for camera in self.cameras:
            camera.apply(settings)
        if self._host.detector is not None:
            info = self._host.detector.model.info
            style = Style.of(info, labels=settings.overlay_labels, threshold=settings.threshold)
            self._look = Look(style, info.keypoint_names if settings.marker_labels else (), settings.marker_depth)

    def open(self) -> None:
        """Subscribes."""
        for camera in self.cameras:
            camera.output.forget()
            camera.input.open()

    def close_inputs(self) -> None:
        """Unsubscribes."""
        for camera in self.cameras:
            camera.input.close()
            camera.faults.clear_all()

    def close(self) -> None:
        """Ends topics and subscriptions."""
        self._node.destroy_timer(self._wait_timer)
        for camera in self.cameras:
            camera.close()

    def _serve_all(self) -> None:
        """Serves what is due, and what has come by then, until there is nothing more or others must have a turn."""
        end = time.monotonic() + _LONGEST_TURN_S
        while True:
            for camera in self.cameras:
                camera.input.fetch()
            if not self._serve_due() or time.monotonic() >= end:
                return

    def _serve_due(self) -> bool:
        """Serves every camera whose newest image is there, and what belongs to it. Whether there was one."""
        now = time.monotonic()
        pending = [camera for camera in self.cameras if camera.input.pending is not None]
        due = [camera for camera in pending if not self._waits(camera, now)]
        if len(due) < len(pending):
            self._wait_timer.reset()
        elif not self._wait_timer.is_canceled():
            self._wait_timer.cancel()
        frames: list[tuple[Camera, Frame]] = []
        for camera in due:
            with _image_of(camera):
                frame = camera.take(self._settings)
                frames += [(camera, frame)] if frame is not None else []
        if frames and self._host.detector is not None:
            self._serve(frames, self._host.detector)
        return bool(due)

    def _waits(self, camera: Camera, now: float) -> bool:
        """Whether depth, or the other image of a stereo pair, may still come for a camera's pending image."""
        if camera.input.waits_for_depth(now, self._settings.depth_wait):
            return True
        return self._stereo is not None and self._stereo.waits(camera, now, self._settings)

    def _serve(self, frames: list[tuple[Camera, Frame]], detector: Detector) -> None:
        results: dict[str, Result] = {}
        with self._faults.kept("inference", "an image"):
            observations = detector.detect([frame.image for _, frame in frames])
            for (camera, frame), observation in zip(frames, observations, strict=True):
                with _image_of(camera):
                    results[camera.name] = camera.finish(frame, detector.model, observation, self._settings)
            if self._stereo is not None:
                results = self._stereo.lift(results, self._settings)
        for camera, _ in frames:
            if camera.name in results:
                with _image_of(camera):
                    camera.publish(results[camera.name], detector.model, self._look, self._settings)
            else:
                camera.statistics.dropped["failed"] += 1


def _image_of(camera: Camera) -> AbstractContextManager[None]:
    """One image must not end the service of all that follow, nor one camera that of the others."""
    return camera.faults.kept("service", "an image")
