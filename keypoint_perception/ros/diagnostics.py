"""The node's state as diagnostics: one status for the model, one for each camera."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from diagnostic_msgs.msg import DiagnosticStatus, KeyValue
from rclpy.node import Node

from keypoint_perception.detector import Detector
from keypoint_perception.ros.faults import Faults
from keypoint_perception.ros.statistics import Statistics

DROP_CAUSES = ("old", "superseded", "unreadable", "failed", "lost")


def model_status(node_name: str, state: str, detector: Detector | None, loading: bool, faults: Faults) -> Any:
    """The lifecycle state, and which model runs in which engine."""
    level, text = faults.worst()
    values = {"state": state, "loading": str(loading).lower()}
    if detector is not None:
        info = detector.model.info
        values |= {
            "model_id": detector.model.id,
            "model_path": str(detector.model.path),
            "method": info.method,
            "backend": detector.backend.describe(),
            "keypoints": str(info.keypoint_count),
            "input_size": f"{info.input_size[0]}x{info.input_size[1]}",
        }
    return _status(f"{node_name}: model", level, text or (detector.model.id if detector else "no model"), values)


def camera_status(node_name: str, camera: str, statistics: Statistics, faults: Faults, now: float) -> Any:
    """Rates, latency, drops by cause and scores. now: seconds of the steady clock."""
    level, text = faults.worst()
    latency = statistics.latency_ms()
    rate = statistics.rate(now)
    values = {
        "rate_hz": f"{rate:.1f}",
        "images_received": str(statistics.received),
        "images_published": str(statistics.published),
        **{f"dropped_{cause}": str(statistics.dropped[cause]) for cause in DROP_CAUSES},
        **{f"latency_{name}_ms": f"{value:.2f}" for name, value in latency.items()},
        "mean_score": f"{statistics.mean_score():.3f}",
        "observed_share": f"{statistics.observed_share():.2f}",
    }
    return _status(f"{node_name}: {camera}", level, text or f"{rate:.1f} Hz", values)


def check_name(node: Node, faults: Faults) -> None:
    """Two nodes of one name take each other's services and parameters: that is a fault."""
    if node.get_node_names_and_namespaces().count((node.get_name(), node.get_namespace())) > 1:
        full = node.get_fully_qualified_name()
        faults.warn("name", f"another node is called {full}: start one with another name or namespace")
    else:
        faults.clear("name")


def _status(name: str, level: bytes, message: str, values: dict[str, str]) -> Any:
    pairs: Iterable[Any] = [KeyValue(key=key, value=value) for key, value in values.items()]
    return DiagnosticStatus(
        level=level, name=name, message=message, hardware_id="keypoint_perception", values=list(pairs)
    )
