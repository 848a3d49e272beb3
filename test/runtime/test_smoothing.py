"""Keypoints over time."""

from __future__ import annotations

import numpy as np

from keypoint_perception.observation import Observation
from keypoint_perception.smoothing import Follower, OneEuro, OneEuroConfig, State, StateTracker

SIZE = (640, 480)
STEP = 1 / 30


def _filter(**changes: float) -> OneEuro:
    return OneEuro(OneEuroConfig(**changes), max_gap=0.5)


def test_noise_at_rest_is_smaller_and_its_mean_kept() -> None:
    rng = np.random.default_rng(0)
    smooth = _filter(beta=0.0)
    noisy = np.array([(300, 200), (100, 50)]) + rng.normal(0, 2, (300, 2, 2))
    out = np.array([smooth(frame, 1 + i * STEP, 640) for i, frame in enumerate(noisy)])[60:]
    assert out.std(axis=0).max() < 0.5 * noisy.std(axis=0).min()
    np.testing.assert_allclose(out.mean(axis=0), [(300, 200), (100, 50)], atol=0.6)


def test_fast_motion_lags_less_with_beta() -> None:
    lags = []
    for beta in (0.0, 1.0):
        smooth = _filter(beta=beta)
        for i in range(60):
            truth = np.array([(10.0 * i, 100.0)])
            out = smooth(truth, 1 + i * STEP, 640)
        lags.append(truth[0, 0] - out[0, 0])
    assert lags[1] < 0.3 * lags[0]
    assert lags[0] > 5


def test_each_keypoint_has_its_own_speed() -> None:
    smooth = _filter(beta=1.0)
    alone = _filter(beta=1.0)
    for i in range(30):
        both = smooth(np.array([(10.0 * i, 0.0), (5.0 + (i % 2), 7.0)]), 1 + i * STEP, 640)
        single = alone(np.array([(5.0 + (i % 2), 7.0)]), 1 + i * STEP, 640)
    np.testing.assert_allclose(both[1], single[0])


def test_a_gap_a_step_back_in_time_and_another_model_start_afresh() -> None:
    for jump in (0.6, -5.0):
        smooth = _filter()
        smooth(np.zeros((2, 2)), 10.0, 640)
        np.testing.assert_array_equal(smooth(np.full((2, 2), 50.0), 10.0 + jump, 640), 50)
    smooth = _filter()
    smooth(np.zeros((2, 2)), 10.0, 640)
    np.testing.assert_array_equal(smooth(np.full((3, 2), 50.0), 10.0 + STEP, 640), 50)


def test_a_second_image_of_the_same_time_changes_nothing_for_the_next() -> None:
    smooth, once = _filter(), _filter()
    track = StateTracker(0.5)
    for step in range(4):
        points, time = np.full((2, 2), 10.0 * step), 1 + step * STEP
        wanted = once(points, time, 640)
        np.testing.assert_array_equal(smooth(points, time, 640), wanted)
        np.testing.assert_array_equal(smooth(points + 30, time, 640), points + 30)
        for _ in range(2):
            states = track(points, np.ones(2), time, (640, 480), 0.5)
    assert states.tolist() == [State.OBSERVED] * 2


def test_an_unknown_point_passes_through_and_does_not_infect_what_follows() -> None:
    smooth = _filter()
    smooth(np.zeros((2, 2)), 1.0, 640)
    out = smooth(np.array([(np.nan, np.nan), (1, 1)]), 1.0 + STEP, 640)
    assert np.isnan(out[0]).all() and np.isfinite(out[1]).all()
    np.testing.assert_array_equal(smooth(np.full((2, 2), 9.0), 1.0 + 2 * STEP, 640)[0], 9)


def test_the_points_given_are_left_alone() -> None:
    smooth = _filter()
    first, second = np.zeros((1, 2)), np.ones((1, 2))
    smooth(first, 1.0, 640)
    smooth(second, 1.0 + STEP, 640)
    assert (first == 0).all() and (second == 1).all()


def _states(track: StateTracker, x: float, score: float, time: float) -> int:
    return int(track(np.array([(x, 200.0)]), np.array([score]), time, SIZE, 0.3)[0])


def test_seen_hidden_and_out() -> None:
    track = StateTracker(max_gap=0.5)
    assert _states(track, 300, 0.9, 1.0) == State.OBSERVED
    assert _states(track, 301, 0.1, 1.0 + STEP) == State.OCCLUDED
    assert _states(track, 700, 0.9, 1.0 + 2 * STEP) == State.OUT_OF_IMAGE
    assert _states(track, 302, 0.9, 1.0 + 3 * STEP) == State.OBSERVED


def test_of_a_point_that_is_not_finite_nothing_is_claimed() -> None:
    track = StateTracker(max_gap=0.5)
    for time, x in enumerate((np.nan, 300, np.inf, np.nan)):
        state = _states(track, x, 0.9, 1.0 + time * STEP)
        assert state == (State.OBSERVED if x == 300 else State.UNKNOWN)
    assert _states(track, 301, 0.1, 1.0 + 4 * STEP) == State.OCCLUDED, "what was known before is not forgotten"


def test_what_was_last_seen_leaving_is_out_until_it_is_seen_again() -> None:
    track = StateTracker(max_gap=0.5)
    for i, x in enumerate((600, 615, 630)):
        assert _states(track, x, 0.9, 1.0 + i * STEP) == State.OBSERVED
    assert _states(track, 636, 0.1, 1.0 + 3 * STEP) == State.OUT_OF_IMAGE
    assert _states(track, 400, 0.1, 1.0 + 4 * STEP) == State.OUT_OF_IMAGE
    assert _states(track, 625, 0.9, 1.0 + 5 * STEP) == State.OBSERVED


def test_what_rests_near_the_border_is_hidden_not_out() -> None:
    track = StateTracker(max_gap=0.5)
    for i in range(3):
        _states(track, 630, 0.9, 1.0 + i * STEP)
    assert _states(track, 630, 0.1, 1.0 + 3 * STEP) == State.OCCLUDED


def test_after_a_jump_of_the_clock_nothing_is_remembered() -> None:
    track = StateTracker(max_gap=0.5)
    for i, x in enumerate((600, 620)):
        _states(track, x, 0.9, 1.0 + i * STEP)
    assert _states(track, 636, 0.1, 0.2) == State.OCCLUDED


def test_where_the_size_of_the_images_changes_the_past_is_forgotten() -> None:
    """Half the size, everything at rest: nothing has moved, and nothing is on its way out."""
    follow = Follower(0.5, OneEuroConfig())
    for i in range(5):
        follow(_seen((600.0, 400.0), 0.9, SIZE), 1 + i * STEP, 0.3)
    smaller, states = follow(_seen((299.75, 199.75), 0.9, (320, 240)), 1 + 5 * STEP, 0.3)
    np.testing.assert_array_equal(smaller.keypoints, [(299.75, 199.75)])
    assert states.tolist() == [State.OBSERVED]
    _, states = follow(_seen((299.75, 199.75), 0.1, (320, 240)), 1 + 6 * STEP, 0.3)
    assert states.tolist() == [State.OCCLUDED]


def _seen(point: tuple[float, float], score: float, size: tuple[int, int]) -> Observation:
    return Observation(np.array([point], np.float32), np.array([score], np.float32), np.zeros((1, 1)), size)
