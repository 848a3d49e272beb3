"""Work on many items, done by several threads and handed out in order."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable, Iterable, Iterator
from typing import Generic, TypeVar

CHUNK = 4
"""Items that a thread takes at a time: threads that wake one another for each item spend their time on that."""
AHEAD = 8
"""Chunks by which the threads may be ahead of what is handed out. Results wait, items do not."""

_Item = TypeVar("_Item")
_Result = TypeVar("_Result")


def map_in_order(function: Callable[[_Item], _Result], items: Iterable[_Item], threads: int) -> Iterator[_Result]:
    """function(item) of each item, in order, done by `threads` threads of which the one that asks is one.

    Items are read by one thread at a time, whichever is free. What `items` or `function` raises is raised here, after
    the results before it. Closing the iterator waits for the threads.
    """
    work = _Work(function, iter(items))
    helpers = [threading.Thread(target=work.help, daemon=True) for _ in range(threads - 1)]
    for helper in helpers:
        helper.start()
    try:
        while not work.has_ended():
            results, error = work.next_chunk()
            yield from results
            if error:
                raise error
    finally:
        work.stop()
        for helper in helpers:
            helper.join()


class _Work(Generic[_Item, _Result]):
    """What the threads share: one reads at a time, all work, one takes the results."""

    def __init__(self, function: Callable[[_Item], _Result], items: Iterator[_Item]) -> None:
        self._function, self._items = function, items
        self._reading = threading.Lock()
        self._changed = threading.Condition()
        self._done: dict[int, tuple[list[_Result], BaseException | None]] = {}
        self._begun = self._taken = 0
        self._last = False
        """Whether no chunk will be begun any more."""

    def has_ended(self) -> bool:
        """Whether all that was read has been taken and nothing is left to read."""
        return self._last and self._taken == self._begun

    def next_chunk(self) -> tuple[list[_Result], BaseException | None]:
        """Results of the next chunk, and what was raised after them. Works itself for as long as they are not there."""
        while self._taken not in self._done:
            if not self._work():
                with self._changed:
                    self._changed.wait_for(lambda: self._taken in self._done)
        with self._changed:
            found = self._done.pop(self._taken)
            self._taken += 1
            self._changed.notify_all()
        return found

    def help(self) -> None:
        """Works until nothing is left to begin."""
        while not self._last:
            if not self._work():
                with self._changed:
                    self._changed.wait_for(lambda: self._last or not self._is_far_ahead())

    def stop(self) -> None:
        """Lets no chunk be begun any more."""
        with self._changed:
            self._last = True
            self._changed.notify_all()

    def _is_far_ahead(self) -> bool:
        return self._begun - self._taken > AHEAD

    def _work(self) -> bool:
        """Reads a chunk and does it, unless there is none or enough is done."""
        chunk: list[_Item] = []
        results: list[_Result] = []
        error: BaseException | None = None
        with self._reading:
            if self._last or self._is_far_ahead():
                return False
            try:
                for item in itertools.islice(self._items, CHUNK):
                    chunk.append(item)
            except BaseException as raised:
                error = raised
            number = self._begun
            self._begun += 1
            if len(chunk) < CHUNK:  # not |=, which would undo a stop() that comes between its reading and its writing
                self._last = True
        try:
            for item in chunk:
                results.append(self._function(item))
        except BaseException as raised:
            error = raised
        with self._changed:
            self._done[number] = results, error
            self._changed.notify_all()
        return True
