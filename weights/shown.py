"""What may be shown of text that a file, a server or a user wrote: nothing that steers a terminal, and no password.

A file's names and values, a server's words and an image's name reach the terminal in lines and in error sentences. The
front door prints everything through this module, so that no command has to think of it.
"""

from __future__ import annotations

import contextlib
import os
import re
import sys
import textwrap
from typing import Any, Protocol, TextIO

LINE = 80
"""Characters of the lines of a terminal as it opens; tables and sentences are no wider."""

_C0_AND_C1 = [*range(0x20), *range(0x7F, 0xA0)]
_BIDIRECTIONAL = [0x061C, 0x200E, 0x200F, *range(0x202A, 0x202F), *range(0x2066, 0x206A)]
_LINE_SEPARATORS = [0x2028, 0x2029]
_ESCAPES = {code: ascii(chr(code))[1:-1] for code in [*_C0_AND_C1, *_BIDIRECTIONAL, *_LINE_SEPARATORS]}
_ESCAPES_BUT_LINES = {code: escape for code, escape in _ESCAPES.items() if code not in (0x09, 0x0A)}

_CREDENTIALS = re.compile(r"(?<=://)(?:[^\s/?#]*@|[^\s/?#:@\[]*:(?![0-9]*(?:[/?#\s]|$))\S*@)")
"""User and password of an address: up to the last @ of the host, or up to the last @ where they hold a `/`."""
_QUERY = re.compile(r"(://[^\s?#]*)[?#]\S*[^\s:;,.'\")]")


def one_line(text: str) -> str:
    """`text` without anything that could end its line, steer a terminal or turn its direction, and without secrets."""
    return without_secrets(text.translate(_ESCAPES))


def without_secrets(text: str) -> str:
    """`text` without what is secret in its addresses: user and password are left out, a query becomes `?...`."""
    return _QUERY.sub(r"\1?...", _CREDENTIALS.sub("", text)) if "://" in text else text


def folded(text: str, indent: str = "", width: int = LINE) -> str:
    """`text` in lines that a terminal does not break; those after the first begin with `indent`. Paths stay whole."""
    first = text[: len(text) - len(text.lstrip())]
    return textwrap.fill(
        text.lstrip(), width, initial_indent=first, subsequent_indent=indent or first, break_long_words=False,
        break_on_hyphens=False,
    )  # fmt: skip


class Bar(Protocol):
    """What stands in the last line of a terminal."""

    def clear(self) -> None:
        """Take it away."""

    def refresh(self) -> None:
        """Show it again."""


class ShownStream:
    """A text stream that shows what is written to it as `one_line` does, lines and tabs kept.

    On a terminal, lines that are wider are folded between words, and go on two columns further in. A program that reads
    gets them as they are. What the stream's encoding does not have is written as an escape too.
    """

    def __init__(self, stream: TextIO) -> None:
        self.stream = stream
        self._begins_line = True
        self._bar: Bar | None = None
        self._held = ""
        self.is_quiet = False
        """Whether notes and progress are to be left out: of stderr, what --quiet asks for."""

    def write(self, text: str) -> int:
        shown = without_secrets(text.translate(_ESCAPES_BUT_LINES))
        if self._begins_line and self.stream.isatty():
            width = _columns(self.stream)
            shown = "\n".join(_fold_wide(line, width) for line in shown.split("\n"))
        if text:
            self._begins_line = text.endswith("\n")
        encoding = getattr(self.stream, "encoding", None) or "utf-8"
        shown = shown.encode(encoding, "backslashreplace").decode(encoding)
        if self._bar is None:
            self.stream.write(shown)
        else:
            # Whole lines: the bar stands in the line after them.
            lines, end, self._held = (self._held + shown).rpartition("\n")
            if end:
                self._bar.clear()
                self.stream.write(lines + end)
                self.stream.flush()
                self._bar.refresh()
        return len(text)

    def print_above(self, bar: Bar | None) -> None:
        """Print above a bar in the terminal's last line from now on; None where there is none any more."""
        self._bar = bar
        self.stream.write(self._held)
        self._held = ""

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)


def _fold_wide(line: str, width: int) -> str:
    # JSON in a line, as the training log has it, is for programs that read what a terminal kept.
    if len(line) <= width or '{"' in line:
        return line
    return folded(line, " " * (len(line) - len(line.lstrip()) + 2), width)


def _columns(terminal: TextIO) -> int:
    """The width of a terminal: COLUMNS where it is set, as for the help; LINE where nobody knows."""
    with contextlib.suppress(ValueError, OSError):
        told = int(os.environ.get("COLUMNS", "0")) or os.get_terminal_size(terminal.fileno()).columns
        if told > 0:
            return told
    return LINE


def stream_for_code() -> TextIO:
    """The stdout for what a shell or a program takes: no line of it is folded."""
    stream: TextIO = getattr(sys.stdout, "stream", sys.stdout)
    return stream


def stream_for_progress() -> TextIO:
    """The stderr on which a progress bar may go back in its line; what else is printed goes through a ShownStream."""
    stream: TextIO = getattr(sys.stderr, "stream", sys.stderr)
    return stream
