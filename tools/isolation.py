"""Runs of several processes that nothing else on this machine hears or disturbs."""

from __future__ import annotations

import os
from pathlib import Path

from keypoint_perception.ros.domain import free_domain

_ROOT = Path(__file__).resolve().parent.parent


def own_middleware(logs: str | os.PathLike[str]) -> None:
    """A domain of our own, and a middleware that holds camera images, also for processes started later.

    Must precede rclpy. What the environment says already is kept. logs: the folder of ROS logs.
    """
    for variable in ("FASTRTPS_DEFAULT_PROFILES_FILE", "FASTDDS_DEFAULT_PROFILES_FILE"):
        os.environ.setdefault(variable, str(_ROOT / "config" / "fastdds.xml"))
    os.environ.setdefault("ROS_DOMAIN_ID", str(free_domain()))
    os.environ.setdefault("ROS_AUTOMATIC_DISCOVERY_RANGE", "LOCALHOST")
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    os.environ["ROS_LOG_DIR"] = os.fspath(logs)
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [str(_ROOT), os.environ.get("PYTHONPATH")]))
