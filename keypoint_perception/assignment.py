"""Who is who: things found in an image to things known before."""

from __future__ import annotations

import numpy as np


def assigned(cost: np.ndarray) -> np.ndarray:
    """(N,) for each known thing which of those found it is, so that costs (N, N) add up to little.

    At first the n-th is the n-th. Two exchange their places as long as that costs less; for so few things as a body has
    limbs or points that is hardly ever not the best.
    """
    chosen = np.arange(len(cost))
    least = 1e-6 * np.abs(cost).max(initial=0)  # beyond rounding
    while True:
        paid = cost[:, chosen]
        own = np.diagonal(paid)
        gain = own[:, None] + own - paid - paid.T
        first, second = np.unravel_index(np.argmax(gain), gain.shape)
        if not gain[first, second] > least:  # nor where it is no number
            return chosen
        chosen[[first, second]] = chosen[[second, first]]
