"""A command run in this process, as the tests of the front door and of each room's commands share it."""

from collections.abc import Callable

# Runs a command; gives the exit code, what it printed, and its errors. The fixture `run` is one.
Run = Callable[..., tuple[int, str, str]]


def assert_one_sentence(result: tuple[int, str, str], *parts: str) -> None:
    code, _, errors = result
    assert code == 2
    assert errors.startswith("detectron-gn: error: ") and errors.count("\n") == 1
    for part in parts:
        assert part in errors
