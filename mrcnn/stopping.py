"""What a process does about SIGINT, SIGTERM, SIGHUP and SIGUSR1, which people and schedulers stop it with.

There are two ways, one within the other. A command as a whole is broken off where it is, and cleans up behind it
(`breaking_off`). A loop in it finishes what it has in hand (`stop_request`, `until_stopped`). A second signal ends the
process at once. A signal that the process was started to ignore, as under nohup, stays ignored.
"""

import ctypes
import math
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import TypeVar

Item = TypeVar("Item")

SIGNALS = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP", "SIGUSR1") if hasattr(signal, name)]
# torchrun passes on what its processes have got from the terminal or from Slurm already: that is no second signal.
_SAME_SECONDS = 1.0
# A process that waits in C code, as for another rank, does not get to clean up.
_CLEAN_UP_SECONDS = 3.0
_PR_SET_PDEATHSIG = 1  # <sys/prctl.h>


class Stopped(KeyboardInterrupt):
    """A signal has ended the work.

    Attributes:
        signal: its number.
        exit_code: 128 + that, as a shell reports a process that the signal has killed.
    """

    def __init__(self, number: int, kept: str = "") -> None:
        """`kept`: what is kept of the work and how to go on with it."""
        how = "interrupted" if number == signal.SIGINT else f"stopped by {signal.Signals(number).name}"
        super().__init__(f"{how}; {kept}" if kept else how)
        self.signal = number
        self.exit_code = 128 + number


def tell_nothing() -> None:
    """What is said of a signal where somebody else says it."""


def tell_finishing() -> None:
    """Say that what is in hand is finished first; of several processes, which all get the signal, one does."""
    if os.environ.get("RANK", "0") == "0":
        print("detectron-gn: finishing what is in hand; once more ends at once", file=sys.stderr, flush=True)


class StopRequest:
    """The first signal that has come, for a loop to look at between two steps.

    Attributes:
        signal: its number; 0 while none has come.
        tell: called once, as soon as it comes and in a thread of its own, to say what is finished before the end.
    """

    def __init__(self, tell: Callable[[], object] = tell_nothing) -> None:
        self.signal = 0
        self.tell = tell


@contextmanager
def breaking_off() -> Iterator[None]:
    """Have a signal raise Stopped wherever the main thread is, once, so that what is half done is cleaned up."""
    request = StopRequest()

    def raise_stopped(number: int, _: FrameType | None) -> None:
        if not request.signal:
            request.signal = number
            raise Stopped(number)

    with _handled(raise_stopped, lambda _: None, _CLEAN_UP_SECONDS):
        try:
            yield
        except Exception:
            # What was broken off may complain: torch.save does, of a file that is not complete.
            if request.signal:
                raise Stopped(request.signal) from None
            raise


@contextmanager
def stop_request(tell: Callable[[], object] = tell_nothing) -> Iterator[StopRequest]:
    """Have a signal be put on record only, and told: see `StopRequest.tell`."""
    request = StopRequest(tell)

    def record(number: int) -> None:
        request.signal = number
        # Whoever reads the output may have stopped to; that must not keep a second signal from ending the process.
        threading.Thread(target=request.tell, daemon=True).start()

    with _handled(lambda *_: None, record, math.inf):
        yield request


def until_stopped(items: Iterable[Item], tell: Callable[[], object] = tell_finishing) -> Iterator[Item]:
    """The items; a signal that comes meanwhile raises Stopped when the caller is done with the one in hand.

    Args:
        tell: see `StopRequest`.
    """
    with stop_request(tell) as stop:
        for item in items:
            yield item
            if stop.signal:
                raise Stopped(stop.signal)


def end_with_parent(number: int = signal.SIGTERM) -> None:
    """Have this process get a signal when the one that started it ends, however it does; on Linux only."""
    prctl = getattr(ctypes.CDLL(None), "prctl", None)
    if prctl is not None:
        prctl(_PR_SET_PDEATHSIG, int(number))


@contextmanager
def _handled(
    react: Callable[[int, FrameType | None], None], note: Callable[[int], None], patience: float
) -> Iterator[None]:
    """Handle the signals that are not ignored; outside of the main thread, where Python cannot, nothing happens.

    Args:
        react: called in the main thread, between two steps of Python.
        note: called at once in a thread, whatever the main thread does.
        patience: seconds after which the process ends if it is still in this context.
    """
    # None is a handler that is not Python's, and could not be put back.
    numbers = [number for number in SIGNALS if signal.getsignal(number) not in (signal.SIG_IGN, None)]
    if threading.current_thread() is not threading.main_thread() or not numbers:
        yield
        return
    with _watching(note, patience) as pipe:
        outer = signal.set_wakeup_fd(pipe, warn_on_full_buffer=False)
        handlers = {number: signal.signal(number, react) for number in numbers}
        try:
            yield
        finally:
            for number, handler in handlers.items():
                signal.signal(number, handler)
            signal.set_wakeup_fd(outer)


@contextmanager
def _watching(note: Callable[[int], None], patience: float) -> Iterator[int]:
    """A thread that learns of signals; yields the file descriptor to which their numbers are to be written."""
    reader, writer = socket.socketpair()
    with reader, writer:
        writer.setblocking(False)
        thread = threading.Thread(target=_watch, args=(reader, note, patience), daemon=True)
        thread.start()
        try:
            yield writer.fileno()
        finally:
            writer.close()
            thread.join()


def _watch(reader: socket.socket, note: Callable[[int], None], patience: float) -> None:
    first, came = 0, math.inf
    while True:
        left = came + patience - time.monotonic()
        reader.settimeout(None if math.isinf(left) else max(left, 0.001))
        try:
            numbers = reader.recv(1)
        except TimeoutError:
            os._exit(128 + first)
        if not numbers:
            return
        (number,) = numbers
        if number in SIGNALS and not first:
            first, came = number, time.monotonic()
            note(number)
        elif number in SIGNALS and time.monotonic() - came > _SAME_SECONDS:
            os._exit(128 + number)
