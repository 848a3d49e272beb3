import itertools
import threading
import time
from collections.abc import Iterator

import pytest

from training.data.ordered import AHEAD, CHUNK, map_in_order


@pytest.mark.parametrize("threads", [1, 2, 5])
@pytest.mark.parametrize("count", [0, 1, CHUNK - 1, CHUNK, CHUNK + 1, 103])
def test_results_come_in_the_order_of_the_items_however_long_each_takes(threads: int, count: int) -> None:
    def slowly(item: int) -> int:
        time.sleep((item * 7 % 5) * 1e-4)
        return item * item

    assert list(map_in_order(slowly, range(count), threads)) == [item * item for item in range(count)]


@pytest.mark.parametrize("threads", [1, 3])
def test_what_the_function_raises_comes_after_the_results_before_it(threads: int) -> None:
    def fails(item: int) -> int:
        if item == 10:
            raise ValueError("ten")
        return item

    before = threading.active_count()
    results = map_in_order(fails, itertools.count(), threads)
    assert list(itertools.islice(results, 10)) == list(range(10))
    with pytest.raises(ValueError, match="ten"):
        next(results)
    assert threading.active_count() == before


@pytest.mark.parametrize("threads", [1, 3])
def test_what_the_items_raise_comes_after_the_results_before_it(threads: int) -> None:
    def items() -> Iterator[int]:
        yield from range(10)
        raise OSError("disk")

    results = map_in_order(str, items(), threads)
    assert list(itertools.islice(results, 10)) == list("0123456789")
    with pytest.raises(OSError, match="disk"):
        next(results)


@pytest.mark.parametrize("threads", [1, 3])
def test_threads_stay_near_to_what_is_asked_for_and_end_when_it_is_closed(threads: int) -> None:
    begun = []
    before = threading.active_count()
    results = map_in_order(begun.append, itertools.count(), threads)
    for _ in range(CHUNK):
        next(results)
    time.sleep(0.05)
    assert len(begun) <= CHUNK * (AHEAD + 2)
    results.close()  # type: ignore[attr-defined]
    after = len(begun)
    assert threading.active_count() == before
    time.sleep(0.02)
    assert len(begun) == after


def test_the_work_is_shared_among_the_threads() -> None:
    workers = set()

    def meets(_: int) -> None:
        workers.add(threading.get_ident())
        time.sleep(1e-3)

    list(map_in_order(meets, range(60), 3))
    assert len(workers) == 3 and threading.get_ident() in workers
