"""Runs side by side on one machine do not hear one another."""

from __future__ import annotations

import os

from harness import Bench

from keypoint_perception.ros.domain import free_domain


def test_a_domain_in_use_is_not_free(bench: Bench) -> None:
    assert free_domain() != int(os.environ["ROS_DOMAIN_ID"])
    assert 1 <= free_domain() <= 100
