"""Work that is done ahead of whoever asks for it: reading the next images while the network runs or trains."""

import multiprocessing
import os
import signal
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor
from typing import TypeVar

from detectron_gn.mrcnn.stopping import SIGNALS, end_with_parent

Item = TypeVar("Item")
Result = TypeVar("Result")


def mapped_ahead(
    function: Callable[[Item], Result],
    items: Iterable[Item],
    threads: int,
    ahead: int | None = None,
    pool: Callable[[int], Executor] = ThreadPoolExecutor,
) -> Generator[Result, None, None]:
    """`map(function, items)`, in order, by threads that are up to `ahead` items ahead of what was asked for.

    Args:
        threads: 0 is `map` itself.
        ahead: `threads`, where it is left out.
        pool: makes so many of what works: threads, or `processes`, to which function, items and results are pickled.

    What the function or the items raise is raised in its place, after the results before it. Whoever stops asking
    (`contextlib.closing`) waits for the items that are being worked on, and no others.
    """
    if threads == 0:
        yield from map(function, items)
        return
    ahead = threads if ahead is None else ahead
    waiting: deque[Future[Result]] = deque()
    workers = pool(threads)
    try:
        for future in _submitted(workers, function, items):
            waiting.append(future)
            if len(waiting) > ahead:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        workers.shutdown(cancel_futures=True)


def processes(count: int) -> ProcessPoolExecutor:
    """A pool of processes that leave signals to this one, and are gone when it is.

    They are spawned: a process that has run torch must not be forked.
    """
    context = multiprocessing.get_context("spawn")
    return ProcessPoolExecutor(count, context, initializer=_work_for, initargs=(os.getpid(),))


def _work_for(parent: int) -> None:
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    end_with_parent(signal.SIGKILL)
    if os.getppid() != parent:  # it has ended before it was watched
        os._exit(0)


def _submitted(
    pool: Executor, function: Callable[[Item], Result], items: Iterable[Item]
) -> Iterator[Future[Result]]:
    """The function of each item, begun; the last one has failed where the items failed."""
    try:
        for item in items:
            yield pool.submit(function, item)
    except Exception as error:
        failed: Future[Result] = Future()
        failed.set_exception(error)
        yield failed
