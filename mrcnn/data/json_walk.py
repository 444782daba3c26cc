"""A walk over JSON that is read piece by piece, so that memory holds a value and a piece at a time."""

import json
from collections.abc import Callable, Iterator
from typing import Any

_SPACE = " \t\n\r"
# What may stand behind a number that ends here only because the piece does.
_OF_NUMBERS = ".eE"
# A value of more characters is not walked over: with each piece it is decoded from its beginning.
_LONGEST = 2**26


class JsonWalk:
    """Where a walk over a list or an object is; ValueError for what is not JSON.

    Args:
        read: gives the next piece of the text, "" at its end.

    Attributes:
        began: where the value began that was passed last.
    """

    def __init__(self, read: Callable[[], str]) -> None:
        self._read = read
        self._text, self._before, self._at = "", 0, 0
        self.began = 0
        self._decode = json.JSONDecoder().raw_decode

    @property
    def place(self) -> int:
        """How many characters lie behind."""
        return self._before + self._at

    def starts_with(self, text: str) -> bool:
        """Whether the rest begins so."""
        while len(self._text) - self._at < len(text) and self._more():
            pass
        return self._text.startswith(text, self._at)

    def next(self) -> str:
        """The next character that is no space, which is not passed; "" at the end."""
        while True:
            while self._at < len(self._text):
                if self._text[self._at] not in _SPACE:
                    return self._text[self._at]
                self._at += 1
            if not self._more():
                return ""

    def take(self, text: str) -> None:
        """Pass a character, or a beginning that `starts_with` has found."""
        if self.next() != text[0]:
            raise ValueError(f"no {text}")
        self._at += len(text)

    def value(self) -> Any:
        """Pass a value, which something must follow: a number may go on in the next piece."""
        self.next()
        self.began = self.place
        while True:
            try:
                value, end = self._decode(self._text, self._at)
            except ValueError:
                end = len(self._text)
            if end < len(self._text) and self._text[end] not in _OF_NUMBERS:
                self._at = end
                return value
            if len(self._text) - self._at > _LONGEST or not self._more():
                raise ValueError("no whole value")

    def items(self) -> Iterator[Any]:
        """The items of a list, each when it is passed."""
        self.take("[")
        if self.next() != "]":
            yield self.value()
            while self.next() != "]":
                self.take(",")
                yield self.value()
        self.take("]")

    def _more(self) -> bool:
        """Read on; what lies behind is forgotten."""
        piece = self._read()
        self._text, self._before, self._at = self._text[self._at :] + piece, self.place, 0
        return bool(piece)
