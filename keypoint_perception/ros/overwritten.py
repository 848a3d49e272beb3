"""Images that the middleware replaced by newer ones before we took them: it does so silently, but numbers tell."""

from __future__ import annotations

from collections.abc import Callable


class Overwritten:
    """Counts the numbers that are missing among the messages of one subscription.

    A publisher numbers its messages, and a message does not say which publisher it is from. So what is missing counts
    where all of the messages are from one: there was no other at the first of them, and none has come since.
    """

    def __init__(self, publishers: Callable[[], frozenset[bytes]]) -> None:
        """publishers: finds the ids of those of the topic at present."""
        self._publishers = publishers
        self._last: int | None = None
        self._first_publishers: frozenset[bytes] = frozenset()
        self._missing = 0

    def note(self, number: int | None) -> None:
        """A message was taken. number: None where the middleware does not say."""
        if number is None:
            return
        if self._last is None:
            self._first_publishers, self._missing = self._publishers(), 0
        elif number > self._last:  # else the publisher is a new one
            self._missing += number - self._last - 1
        self._last = number

    def note_lost(self, count: int) -> None:
        """Messages did not arrive: the middleware says so, and their numbers are missing too."""
        self._missing -= count

    def count(self) -> int:
        """How many were overwritten since the last call; 0 where that cannot be told."""
        if self._last is None:
            return 0
        if len(self._first_publishers) != 1 or not self._publishers() <= self._first_publishers:
            self._last = None
            return 0
        count = max(self._missing, 0)
        self._missing -= count
        return count
