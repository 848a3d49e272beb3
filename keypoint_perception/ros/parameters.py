"""The node's parameters, in one place: default, description, range, and when each may change."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, fields, replace
from typing import Any

import numpy as np
from rcl_interfaces.msg import FloatingPointRange, IntegerRange, ParameterDescriptor
from rclpy.node import Node
from rclpy.parameter import Parameter

from keypoint_perception.backends import CHOICES
from keypoint_perception.detector import DEFAULT_BACKEND, MOST_THREADS, shipped_model
from keypoint_perception.drawing import SCORE_THRESHOLD
from keypoint_perception.errors import UserError
from keypoint_perception.lifting import DEPTH_WINDOW
from keypoint_perception.ros.conversions import is_topic_part
from keypoint_perception.ros.depth import MAX_DELAY_S
from keypoint_perception.smoothing import MAX_GAP_S, OneEuroConfig

TRANSPORTS = ("raw", "compressed")
DEPTH_TRANSPORTS = ("none", *TRANSPORTS)
RELOADING = frozenset({"model", "backend", "threads"})
"""Parameters whose change loads a model beside the running one."""


def _parameter(
    default: Any,
    description: str,
    *,
    low: float | None = None,
    high: float | None = None,
    step: int = 1,
    choices: tuple[str, ...] = (),
    fixed: bool = False,
    read_only: bool = False,
) -> Any:
    """A dataclass field. step: between whole numbers, from `low`. fixed: may change only while unconfigured.

    read_only: is set at the start and never changes.
    """
    return field(
        default=default,
        metadata={
            "description": description,
            "low": low,
            "high": high,
            "step": step,
            "choices": choices,
            "fixed": fixed,
            "read_only": read_only,
        },
    )


_EURO = OneEuroConfig()


@dataclass(frozen=True)
class Settings:
    """The parameters of all cameras."""

    autostart: bool = _parameter(
        True, "Configure and activate at the start, and again as soon as a missing model is there.", read_only=True
    )
    model: str = _parameter(
        "", "Model file (.onnx); empty for the shipped one. A change swaps the model while running."
    )
    backend: str = _parameter(
        DEFAULT_BACKEND, "Inference engine; auto measures and takes the fastest.", choices=CHOICES
    )
    threads: int = _parameter(1, "CPU threads of one inference.", low=1, high=MOST_THREADS)
    cameras: tuple[str, ...] = _parameter(
        ("camera",),
        "Camera names. One: topics are image, ~/keypoints. Several: <camera>/image, ~/<camera>/keypoints.",
        fixed=True,
    )
    image_transport: str = _parameter(
        "raw", "Type of image: raw is sensor_msgs/Image, compressed is CompressedImage.", choices=TRANSPORTS, fixed=True
    )
    depth_transport: str = _parameter(
        "none", "Type of depth, aligned with image: none, raw or compressed.", choices=DEPTH_TRANSPORTS, fixed=True
    )
    rectified: bool = _parameter(
        False,
        "Whether images are rectified (image_rect): P of camera_info then holds for them, not K with D.",
        fixed=True,
    )
    max_age: float = _parameter(
        0.0,
        "Seconds; an image whose stamp is older than this is dropped and counted. 0.0 for no limit.",
        low=0.0,
        high=60.0,
    )
    threshold: float = _parameter(
        SCORE_THRESHOLD,
        "A keypoint with a lower score is not OBSERVED; it is published all the same.",
        low=0.0,
        high=1.0,
    )
    smoothing: bool = _parameter(False, "One-Euro smoothing of the pixels of each keypoint.")
    smoothing_min_cutoff: float = _parameter(_EURO.min_cutoff, "Hz; lower is smoother at rest.", low=0.01, high=100.0)
    smoothing_beta: float = _parameter(_EURO.beta, "Higher follows fast motion with less delay.", low=0.0, high=100.0)
    max_gap: float = _parameter(
        MAX_GAP_S, "Seconds without an image after which smoothing and states start afresh.", low=0.01, high=60.0
    )
    depth_window: int = _parameter(
        DEPTH_WINDOW,
        "Side of the square of depth pixels around a keypoint, which is in its middle: odd.",
        low=1,
        high=101,
        step=2,
    )
    max_depth_delay: float = _parameter(MAX_DELAY_S, "Seconds that depth and image may be apart.", low=0.0, high=10.0)
    depth_wait: float = _parameter(0.01, "Seconds that an image waits for its depth.", low=0.0, high=1.0)
    stereo: tuple[str, ...] = _parameter(
        (), "Two of the cameras, left and right, that see the same: keypoints are triangulated.", fixed=True
    )
    stereo_pose: str = _parameter(
        "",
        'Pose of the second stereo camera in the first, "x y z qx qy qz qw", rectified where images are; empty: from '
        "both camera_info.",
        fixed=True,
    )
    max_stereo_delay: float = _parameter(0.02, "Seconds that the two stereo images may be apart.", low=0.0, high=10.0)
    stereo_wait: float = _parameter(
        0.02, "Seconds that a stereo image waits for the other one of its pair.", low=0.0, high=1.0
    )
    marker_depth: float = _parameter(
        1.0, "Metres; where markers are shown when there is no depth.", low=0.01, high=100.0
    )
    marker_labels: bool = _parameter(False, "Show keypoint names in RViz.")
    overlay_labels: bool = _parameter(False, "Show keypoint names on the overlay.")
    overlay_rate: float = _parameter(
        0.0, "Hz; at most this many overlays a second. 0.0 for every image.", low=0.0, high=1000.0
    )
    diagnostics_period: float = _parameter(1.0, "Seconds between diagnostics.", low=0.1, high=60.0, read_only=True)

    def with_changes(self, changes: dict[str, Any], *, configured: bool) -> Settings:
        """A copy with new parameter values. Raises UserError, in words for who set them, where one is not allowed."""
        known = {f.name: f for f in fields(self)}
        for name, value in changes.items():
            choices, fixed = known[name].metadata["choices"], known[name].metadata["fixed"]
            if choices and value not in choices:
                raise UserError(f"{name} is {value!r}: allowed are {', '.join(choices)}")
            if configured and fixed and value != getattr(self, name):
                raise UserError(
                    f"{name} cannot change while the node is configured: `ros2 lifecycle set NODE deactivate`, then "
                    "`cleanup`"
                )
        settings = replace(self, **changes)
        settings._check_cameras()
        return settings

    @property
    def model_path(self) -> str:
        """The model file to load."""
        return self.model or str(shipped_model())

    def one_euro(self) -> OneEuroConfig | None:
        """The filter's settings, None where it is off."""
        return OneEuroConfig(self.smoothing_min_cutoff, self.smoothing_beta) if self.smoothing else None

    def pose(self) -> tuple[np.ndarray, np.ndarray] | None:
        """Rotation (3, 3) and translation (3,) of `stereo_pose`, None where it is empty.

        Raises UserError where it is no pose.
        """
        if not self.stereo_pose.strip():
            return None
        try:
            numbers = np.array([float(word) for word in self.stereo_pose.replace(",", " ").split()])
        except ValueError:
            numbers = np.zeros(0)
        if numbers.size != 7 or not np.isfinite(numbers).all() or not numbers[3:].any():
            raise UserError(f"stereo_pose is {self.stereo_pose!r}: give x y z qx qy qz qw, or leave it empty")
        return rotation_matrix(numbers[3:]), numbers[:3]

    def _check_cameras(self) -> None:
        names = self.cameras
        if not names or len(set(names)) != len(names) or not all(is_topic_part(name) for name in names):
            raise UserError(f"cameras is {list(names)}: give different names of letters, digits and _, at least one")
        if self.stereo and (len(set(self.stereo)) != 2 or len(self.stereo) != 2 or not set(self.stereo) <= set(names)):
            raise UserError(f"stereo is {list(self.stereo)}: give two of the cameras {list(names)}, or leave it empty")
        self.pose()


def rotation_matrix(quaternion: np.ndarray) -> np.ndarray:
    """(3, 3) rotation of a quaternion (4,), x y z w, of any length but 0."""
    x, y, z, w = quaternion / np.linalg.norm(quaternion)
    return np.array(
        [
            [1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)],
            [2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)],
            [2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)],
        ]
    )


def declare(node: Node) -> Settings:
    """Declares the parameters and returns what they were started with. Raises UserError where one is not allowed."""
    values = {}
    for f in fields(Settings):
        value = node.declare_parameter(f.name, _ros_default(f.default), _descriptor(f)).value
        values[f.name] = _from_ros(f.default, value)
    settings = Settings().with_changes(values, configured=False)
    for camera in settings.cameras:
        transports_of(node, camera, settings)
    given = node._parameter_overrides  # rclpy has no public way to those that are not declared
    unknown = [name for name in given if not node.has_parameter(name) and not name.startswith("qos_overrides.")]
    if unknown:
        allowed = ", ".join(f.name for f in fields(Settings))
        node.get_logger().warning(f"no parameters of this node: {', '.join(unknown)}; allowed are {allowed}")
    return settings


def changes_of(parameters: Iterable[Parameter]) -> dict[str, Any]:
    """The new values of those parameters that are ours."""
    defaults = {f.name: f.default for f in fields(Settings)}
    return {p.name: _from_ros(defaults[p.name], p.value) for p in parameters if p.name in defaults}


def transports_of(node: Node, camera: str, settings: Settings) -> tuple[str, str]:
    """How images and depth of one camera come: by its own parameters, which are declared, else as those of all.

    Raises UserError where one is not allowed.
    """
    image = _own_transport(node, f"{camera}.image_transport", TRANSPORTS)
    depth = _own_transport(node, f"{camera}.depth_transport", DEPTH_TRANSPORTS)
    return image or settings.image_transport, depth or settings.depth_transport


def _own_transport(node: Node, name: str, choices: tuple[str, ...]) -> str:
    if not node.has_parameter(name):
        text = f"For this camera alone; empty: as for all cameras. Allowed: {', '.join(choices)}."
        node.declare_parameter(name, "", ParameterDescriptor(description=text, read_only=True))
    value = node.get_parameter(name).value
    if value and value not in choices:
        raise UserError(f"{name} is {value!r}: allowed are {', '.join(choices)}, or leave it empty")
    return value


def _descriptor(f: Any) -> ParameterDescriptor:
    about = f.metadata
    text = about["description"] + (f" Allowed: {', '.join(about['choices'])}." if about["choices"] else "")
    descriptor = ParameterDescriptor(description=text, read_only=about["read_only"])
    if about["low"] is not None and isinstance(f.default, float):
        descriptor.floating_point_range = [FloatingPointRange(from_value=about["low"], to_value=about["high"])]
    elif about["low"] is not None:
        descriptor.integer_range = [IntegerRange(from_value=about["low"], to_value=about["high"], step=about["step"])]
    return descriptor


def _ros_default(default: Any) -> Any:
    """rclpy takes an empty list for one of bytes, so that no strings are written as one empty string."""
    return (list(default) or [""]) if isinstance(default, tuple) else default


def _from_ros(default: Any, value: Any) -> Any:
    """Of an empty list, rclpy makes no value at all."""
    return tuple(entry for entry in value or () if entry != "") if isinstance(default, tuple) else value
