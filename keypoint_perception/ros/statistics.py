"""What a camera did lately, for the diagnostics."""

from __future__ import annotations

from collections import Counter, deque

import numpy as np

WINDOW = 300
"""Images that the rates and percentiles are taken over."""
_RATE_OVER_S = 3.0
_LONGEST_LATENCY_S = 60.0
"""Beyond this, stamps are of another clock, such as a recording's."""


class Statistics:
    """Counts of one camera since the node was configured, and times of its last images."""

    def __init__(self) -> None:
        self.received = 0
        """Published or dropped, but for those that were lost on the way."""
        self.published = 0
        self.dropped: Counter[str] = Counter()
        """By cause: old, superseded (a newer one came first), unreadable, failed (the inference), lost (on the way)."""
        self._published_at: deque[float] = deque(maxlen=WINDOW)
        self._latencies: deque[float] = deque(maxlen=WINDOW)
        self._scores: deque[float] = deque(maxlen=WINDOW)
        self._last: tuple[np.ndarray, float] | None = None

    def note_published(self, now: float, latency: float, scores: np.ndarray, threshold: float) -> None:
        """An image's keypoints went out at `now`, seconds of a steady clock, `latency` seconds after its stamp."""
        self.published += 1
        self._published_at.append(now)
        self._scores.append(sum(scores.tolist()) / len(scores))
        self._last = scores, threshold
        if 0 <= latency < _LONGEST_LATENCY_S:
            self._latencies.append(latency)

    def rate(self, now: float) -> float:
        """Images a second over the last seconds."""
        recent = [at for at in self._published_at if now - at < _RATE_OVER_S]
        if len(recent) == WINDOW:  # there were more than are remembered
            return len(recent) / max(now - recent[0], 1e-9)
        return len(recent) / _RATE_OVER_S

    def latency_ms(self) -> dict[str, float]:
        """Median, 99th percentile and maximum from stamp to publication, NaN where stamps are of another clock."""
        if not self._latencies:
            return {"p50": np.nan, "p99": np.nan, "max": np.nan}
        p50, p99, most = np.percentile(self._latencies, (50, 99, 100)) * 1e3
        return {"p50": float(p50), "p99": float(p99), "max": float(most)}

    def observed_share(self) -> float:
        """The share of keypoints that the last image showed, NaN before the first."""
        return float(np.mean(self._last[0] >= self._last[1])) if self._last else np.nan

    def mean_score(self) -> float:
        """Mean over keypoints and the last images, NaN before the first."""
        return float(np.mean(self._scores)) if self._scores else np.nan
