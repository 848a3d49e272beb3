"""Adjacencies and their edges."""

from __future__ import annotations

import numpy as np
import pytest

from keypoint_perception.observation import Observation, adjacency_of


@pytest.mark.parametrize("edges", [[(2, 0), (1, 3)], []])
def test_an_adjacency_has_the_edges_that_it_is_made_of(edges: list[tuple[int, int]]) -> None:
    adjacency = adjacency_of(edges, 4)
    assert adjacency.dtype == bool and np.array_equal(adjacency, adjacency.T)
    found = Observation(np.zeros((4, 2)), np.ones(4), adjacency, (8, 8)).edges()
    assert found.tolist() == sorted(sorted(edge) for edge in edges)


def test_edges_have_their_weights_both_ways() -> None:
    adjacency = adjacency_of(np.array([[0, 1], [2, 1]]), 3, np.array([0.5, 0.25], np.float32))
    assert adjacency.dtype == np.float32
    assert adjacency.tolist() == [[0, 0.5, 0], [0.5, 0, 0.25], [0, 0.25, 0]]
