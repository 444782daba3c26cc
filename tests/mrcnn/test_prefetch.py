"""Threads that work ahead: the order, the limit, and what happens when something fails."""

import threading
import time

import pytest

from detectron_gn.mrcnn.prefetch import mapped_ahead


@pytest.mark.parametrize("threads", [0, 1, 4])
def test_results_come_in_the_order_of_the_items(threads):
    def late(number):
        time.sleep(0.001 * (7 - number % 8))
        return number * number

    assert list(mapped_ahead(late, range(40), threads)) == [number * number for number in range(40)]


def test_threads_work_while_a_result_is_used():
    running = threading.Event()

    def run(number):
        if number == 1:
            running.set()
        return number

    results = mapped_ahead(run, range(3), 1)
    assert next(results) == 0
    assert running.wait(10)
    assert list(results) == [1, 2]


@pytest.mark.parametrize(("options", "ahead"), [({"threads": 2}, 2), ({"threads": 2, "ahead": 8}, 8)])
def test_no_more_is_begun_than_is_asked_for_ahead(options, ahead):
    taken = []

    def items():
        for number in range(100):
            taken.append(number)
            yield number

    results = mapped_ahead(lambda number: number, items(), **options)
    for asked in range(1, 10):
        next(results)
        assert len(taken) == asked + ahead


@pytest.mark.parametrize("threads", [0, 3])
@pytest.mark.parametrize("where", ["function", "items"])
def test_a_failure_comes_after_the_results_before_it(threads, where):
    def fail(number):
        if number == 5:
            raise ValueError(where)
        return number

    results = (
        mapped_ahead(fail, range(10), threads)
        if where == "function"
        else mapped_ahead(lambda number: number, map(fail, range(10)), threads)
    )
    assert [next(results) for _ in range(5)] == [0, 1, 2, 3, 4]
    with pytest.raises(ValueError, match=where):
        next(results)
    assert list(results) == []


def test_who_stops_asking_leaves_nothing_running():
    done = []
    results = mapped_ahead(done.append, range(100), 2)
    next(results)
    results.close()
    count = len(done)
    time.sleep(0.05)
    assert count == len(done) < 10
