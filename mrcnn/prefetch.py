"""Work that threads do ahead of the one that asks for it: reading the next images while the network runs or trains."""

from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


def mapped_ahead(
    function: Callable[[Item], Result], items: Iterable[Item], threads: int, ahead: int | None = None
) -> Generator[Result, None, None]:
    """`map(function, items)`, in order, by threads that are up to `ahead` items ahead of what was asked for.

    Args:
        threads: 0 is `map` itself.
        ahead: `threads`, where it is left out.

    What the function or the items raise is raised in its place, after the results before it. Whoever stops asking
    (`contextlib.closing`) waits for the items that are being worked on, and no others.
    """
    if threads == 0:
        yield from map(function, items)
        return
    ahead = threads if ahead is None else ahead
    waiting: deque[Future[Result]] = deque()
    pool = ThreadPoolExecutor(threads)
    try:
        for future in _submitted(pool, function, items):
            waiting.append(future)
            if len(waiting) > ahead:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)


def _submitted(
    pool: ThreadPoolExecutor, function: Callable[[Item], Result], items: Iterable[Item]
) -> Iterator[Future[Result]]:
    """The function of each item, begun; the last one has failed where the items failed."""
    try:
        for item in items:
            yield pool.submit(function, item)
    except Exception as error:
        failed: Future[Result] = Future()
        failed.set_exception(error)
        yield failed
