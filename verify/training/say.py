"""How a run says its lines."""

import sys


def say_nothing(_: str) -> None:
    """What processes other than the first say."""


def print_line(line: str) -> None:
    """Print a line at once, also into a pipe."""
    print(line, flush=True, file=sys.stdout)
