"""One file a paper. A new method is one new file and one line in `METHODS`."""

from __future__ import annotations

from training.method import Method

METHODS: dict[str, type[Method]] = {}
