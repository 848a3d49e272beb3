"""A session of tests on the real middleware, in a domain of its own."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

pytest.importorskip("rclpy", reason="no ROS 2 here")
pytest.importorskip("keypoint_perception_msgs", reason="build keypoint_perception_msgs first: colcon build")

import rclpy
from harness import Bench, environment


@pytest.fixture(scope="session", autouse=True)
def middleware(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """rclpy, in a domain that no other session uses."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in environment(tmp_path_factory.mktemp("log")).items():
            patch.setenv(name, value)
        rclpy.init()
        yield
        rclpy.try_shutdown()


@pytest.fixture(scope="module")
def bench(middleware: None) -> Iterator[Bench]:
    bench = Bench()
    yield bench
    bench.close()
