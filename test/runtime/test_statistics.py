"""What the diagnostics tell of a camera."""

from __future__ import annotations

import numpy as np
import pytest

from keypoint_perception.ros.statistics import WINDOW, Statistics

SCORES = np.array([0.9, 0.5, 0.1])


@pytest.mark.parametrize("hertz", [5.0, 30.0, 200.0, 1000.0])
def test_the_rate_is_that_of_the_last_seconds(hertz: float) -> None:
    statistics, count = Statistics(), int(4 * hertz)
    for index in range(count):
        statistics.note_published(index / hertz, 0.01, SCORES, 0.3)
    assert statistics.rate(count / hertz) == pytest.approx(hertz, rel=0.1)
    assert statistics.rate(count / hertz + 10) == 0


def test_latencies_and_scores_are_those_of_the_last_images() -> None:
    statistics = Statistics()
    assert np.isnan(statistics.latency_ms()["p50"]) and np.isnan(statistics.mean_score())
    for index in range(WINDOW + 50):
        statistics.note_published(index, 5.0 if index < 50 else 0.02, SCORES, 0.3)
    statistics.note_published(WINDOW + 50, 1e6, SCORES, 0.3)  # a stamp of another clock
    assert statistics.latency_ms()["max"] == pytest.approx(20)
    assert statistics.mean_score() == pytest.approx(0.5)
    assert statistics.observed_share() == pytest.approx(2 / 3)
    assert statistics.published == WINDOW + 51
