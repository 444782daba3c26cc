"""Signals: what is broken off, what is finished first, and what a second one does; in processes of their own."""

import signal
import subprocess
import sys
import threading
import time

import pytest

from detectron_gn.mrcnn.stopping import SIGNALS, Stopped, breaking_off, stop_request, until_stopped

NAMES = [number.name for number in SIGNALS]


@pytest.mark.parametrize("number", SIGNALS, ids=NAMES)
def test_a_signal_breaks_off_what_is_done_and_its_own_handler_comes_back(number):
    before, cleaned_up = signal.getsignal(number), []
    with pytest.raises(Stopped) as stopped, breaking_off():
        try:
            signal.raise_signal(number)
        finally:
            cleaned_up.append(True)
    assert cleaned_up and stopped.value.exit_code == 128 + number
    assert signal.getsignal(number) is before


def test_what_is_broken_off_does_not_hide_the_signal_by_an_error_of_its_own():
    with pytest.raises(Stopped, match="stopped by SIGTERM"), breaking_off():
        try:
            signal.raise_signal(signal.SIGTERM)
        finally:
            raise RuntimeError("unexpected pos 9321664 vs 9321552")
    with pytest.raises(RuntimeError, match="a fault"), breaking_off():
        raise RuntimeError("a fault")


@pytest.mark.parametrize("number", SIGNALS, ids=NAMES)
def test_a_loop_finishes_the_item_in_hand(number):
    done = []

    def items():
        for item in range(9):
            if item == 3:
                signal.raise_signal(number)
            yield item

    with pytest.raises(Stopped, match="interrupted" if number == signal.SIGINT else f"stopped by {number.name}"):
        for item in until_stopped(items()):
            time.sleep(0.05)
            done.append(item)
    assert done == [0, 1, 2, 3]


def test_a_loop_that_nobody_stops_is_the_items():
    assert list(until_stopped(range(5))) == [0, 1, 2, 3, 4]


def test_the_same_signal_from_two_senders_at_once_is_one():
    with stop_request() as stop:
        signal.raise_signal(signal.SIGTERM)
        signal.raise_signal(signal.SIGINT)
        time.sleep(0.1)
        assert stop.signal == signal.SIGTERM


def test_outside_of_the_main_thread_nothing_is_handled():
    handlers = []

    def look():
        with breaking_off(), stop_request():
            handlers.append(signal.getsignal(signal.SIGTERM))

    thread = threading.Thread(target=look)
    thread.start()
    thread.join()
    assert handlers == [signal.getsignal(signal.SIGTERM)]


# As what waits for another rank: in C, where no handler of Python's runs.
IN_C = "hashlib.pbkdf2_hmac('sha256', b'', b'', 2**31 - 1)"


def started(context, body, launcher=()):
    """A process that runs `body` within the context, and has come to its beginning."""
    lines = ["import hashlib, sys, time", "from detectron_gn.mrcnn.stopping import *", f"with {context}:"]
    program = "\n".join([*lines, "    print('ready', flush=True)", f"    {body}"])
    command = [*launcher, sys.executable, "-c", program]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "ready\n"
    return process


def test_a_second_signal_ends_a_loop_at_once_even_where_it_computes_in_c():
    process = started("stop_request()", IN_C)
    process.send_signal(signal.SIGTERM)
    time.sleep(1.2)
    assert process.poll() is None
    process.send_signal(signal.SIGHUP)
    assert process.wait(2) == 128 + signal.SIGHUP


def test_a_command_that_is_stuck_in_c_ends_all_the_same():
    process = started("breaking_off()", IN_C)
    time.sleep(0.5)  # until it is in C
    process.send_signal(signal.SIGTERM)
    assert process.wait(5) == 128 + signal.SIGTERM


def test_a_signal_that_is_ignored_stays_ignored():
    ignore = "import os, signal, sys; signal.signal(signal.SIGHUP, signal.SIG_IGN); os.execv(sys.argv[1], sys.argv[1:])"
    body = "time.sleep(0.3); sys.exit(stop.signal)"
    process = started("breaking_off(), stop_request() as stop", body, [sys.executable, "-c", ignore])
    process.send_signal(signal.SIGHUP)
    assert process.wait(10) == 0


@pytest.mark.skipif(sys.platform != "linux", reason="a death signal is Linux's")
def test_a_process_ends_with_the_one_that_started_it():
    child = "from detectron_gn.mrcnn.stopping import *; import time; end_with_parent(); print('ready', flush=True); "
    parent = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {child + 'time.sleep(60)'!r}])"
    with subprocess.Popen([sys.executable, "-c", parent], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "ready\n"
        process.kill()
        began = time.monotonic()
        assert process.stdout.read() == ""  # at its end, which is the child's
    assert time.monotonic() - began < 5
