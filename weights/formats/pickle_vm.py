"""A pickle read as data: a loop over its opcodes with values that do nothing, without Python's `pickle`.

Answers to Detectron utils/io.py:load_object, which hands the file to `pickle.load`. Here a GLOBAL is looked
up in a fixed table and pushes a name, REDUCE and BUILD are pattern matches that a `Grammar` makes on such
names, and every other opcode that could import or call is refused. docs/pickle_grammar.md lists what is
accepted.
"""

from __future__ import annotations

import mmap
import struct
from collections.abc import Callable, Mapping
from typing import ClassVar, Literal, NoReturn, Protocol

from detectron_gn.weights.errors import (
    FileError,
    ForbiddenContent,
    MalformedFile,
    OverBudget,
    TruncatedFile,
    UnsupportedArray,
)
from detectron_gn.weights.formats.pickle_values import Symbol, Text, Value, describe, unescape
from detectron_gn.weights.limits import (
    MAX_INTEGER_BYTES,
    MAX_LINE,
    MAX_NAME_BYTES,
    MAX_OPCODES,
    MAX_OPEN_MARKS,
    MAX_STACK,
)


class Grammar(Protocol):
    """What a kind of pickle may say beyond plain values. Each method raises through `machine.error`."""

    symbols: ClassVar[Mapping[tuple[str, str], str]]
    # What to do with a file that asks for another object.
    way_out: ClassVar[str]

    def reduce(self, machine: PickleVM, symbol: Symbol, arguments: tuple[Value, ...]) -> Value: ...

    def build(self, machine: PickleVM, value: Value, state: Value) -> None: ...

    def persistent(self, machine: PickleVM, identifier: Value) -> Value: ...


class PickleVM:
    """Interprets one pickle: `PickleVM(data, source, grammar).run()` returns the value it stands for.

    Args:
        most_opcodes: of the whole pickle; as many values may be memorised as half of them.
    """

    def __init__(
        self, data: mmap.mmap | bytes, source: str, grammar: Grammar, most_opcodes: int = MAX_OPCODES
    ) -> None:
        self.data = data
        self.source = source
        self.grammar = grammar
        self.most_opcodes = most_opcodes
        self.position = 0
        self.start_of_opcode = 0
        self._frame_end: int | None = None
        self._stack: list[Value] = []
        self._marks: list[int] = []
        self._memo: dict[int, Value] = {}

    def run(self) -> Value:
        """The value at STOP.

        Raises TruncatedFile, MalformedFile, ForbiddenContent or OverBudget, each with the offset of the
        opcode at fault.
        """
        for _ in range(self.most_opcodes):
            self.start_of_opcode = self.position
            if self.position == self._frame_end:
                self._frame_end = None
            self._skip(1)
            code = self.data[self.start_of_opcode]
            if code == ord("."):
                return self._stop()
            handler = _OPCODES.get(code)
            if handler is None:
                self._refuse(code)
            handler(self)
            if len(self._stack) > MAX_STACK:
                raise self.error(OverBudget, f"more than {MAX_STACK} values wait on the stack")
            if len(self._memo) > self.most_opcodes // 2:
                raise self.error(OverBudget, f"more than {self.most_opcodes // 2} values are memorised")
        raise self.error(OverBudget, f"more than {self.most_opcodes} opcodes")

    def error(self, kind: type[FileError], cause: str) -> FileError:
        """An error of `kind` at the opcode being read; of an array, with the name that it was to have."""
        if kind is UnsupportedArray and (name := self._last_text()) is not None:
            cause = f"{name}: {cause}"
        return kind(self.source, cause, self.start_of_opcode)

    def _last_text(self) -> str | None:
        """The text that was put on the stack last: in a dictionary that is being filled, the key of what comes."""
        for value in reversed(self._stack):
            if isinstance(value, Text) and value.kind != "bytes":
                return ascii(bytes(self.data[value.offset : value.offset + min(value.length, 80)]))[1:]
        return None

    def text(self, value: Value, limit: int = MAX_NAME_BYTES) -> str:
        """The text of a string of at most `limit` bytes; raises MalformedFile for everything else."""
        if not isinstance(value, Text):
            raise self.error(MalformedFile, f"found {describe(value)} where a text belongs")
        if value.length > limit:
            raise self.error(MalformedFile, f"a text of {value.length} bytes, the longest that is read is {limit}")
        stored = bytes(self.data[value.offset : value.offset + value.length])
        try:
            if value.written == "plain":
                return stored.decode("utf-8")
            if value.written == "string-escape":
                return unescape(stored).decode("utf-8")
            text = stored.decode(value.written)
            # Encoded, since the escapes of protocol 0 can spell half of a surrogate pair.
            return text.encode().decode() if value.kind == "text" else text.encode("latin-1").decode("utf-8")
        except ValueError:
            raise self.error(MalformedFile, "a text is not valid UTF-8") from None

    def _stop(self) -> Value:
        if self._marks or len(self._stack) != 1:
            raise self.error(MalformedFile, "the pickle ends while values are still waiting on the stack")
        if self.position != len(self.data):
            raise self.error(MalformedFile, f"{len(self.data) - self.position} bytes follow the pickle's end")
        return self._stack[0]

    def _refuse(self, code: int) -> NoReturn:
        if code in _FORBIDDEN:
            raise self.error(ForbiddenContent, f"the opcode {_FORBIDDEN[code]} can run code or reach outside the file")
        name = _UNUSED.get(code, f"0x{code:02x}")
        raise self.error(MalformedFile, f"{name} is no opcode that a weights file uses")

    # What the opcodes are made of.

    def _take(self, count: int) -> bytes:
        return self.data[self._skip(count) : self.position]

    def _skip(self, count: int) -> int:
        """Step over `count` bytes and return where they begin."""
        start, end = self.position, self.position + count
        if end > len(self.data):
            missing = end - len(self.data)
            raise self.error(TruncatedFile, f"ends at least {missing} bytes too early; copy it again")
        if self._frame_end is not None and end > self._frame_end:
            raise self.error(MalformedFile, "an opcode runs past the end of its frame")
        self.position = end
        return start

    def _line(self, limit: int | None = MAX_LINE) -> tuple[int, int]:
        """(offset, length) of the line that starts here, without its newline."""
        start = self.position
        end = self.data.find(b"\n", start, len(self.data) if limit is None else start + limit)
        if end < 0:
            if limit is not None and start + limit < len(self.data):
                raise self.error(MalformedFile, f"a line is longer than {limit} bytes")
            raise self.error(TruncatedFile, "ends within a line; copy it again")
        self._skip(end + 1 - start)
        return start, end - start

    def _short_line(self) -> str:
        start, length = self._line()
        try:
            return bytes(self.data[start : start + length]).decode("ascii")
        except UnicodeDecodeError:
            raise self.error(MalformedFile, "a line that should be plain ASCII is not") from None

    def _push(self, value: Value) -> None:
        self._stack.append(value)

    def _pop(self) -> Value:
        if len(self._stack) <= (self._marks[-1] if self._marks else 0):
            raise self.error(MalformedFile, "an opcode takes more values than there are")
        return self._stack.pop()

    def _peek(self) -> Value:
        value = self._pop()
        self._stack.append(value)
        return value

    def _pop_to_mark(self) -> list[Value]:
        if not self._marks:
            raise self.error(MalformedFile, "an opcode looks for a mark that was never set")
        start = self._marks.pop()
        values = self._stack[start:]
        del self._stack[start:]
        return values

    def _unsigned(self, width: int) -> int:
        return int.from_bytes(self._take(width), "little")

    # The opcodes, grouped as pickletools groups them.

    def _proto(self) -> None:
        version = self._unsigned(1)
        if self.start_of_opcode != 0:
            raise self.error(MalformedFile, "a second PROTO opcode")
        if not 2 <= version <= 5:
            raise self.error(MalformedFile, f"pickle protocol {version} does not exist")

    def _frame(self) -> None:
        length = self._unsigned(8)
        if self._frame_end is not None:
            raise self.error(MalformedFile, "a frame begins inside another frame")
        end = self.position + length
        if end > len(self.data):
            raise self.error(TruncatedFile, f"a frame of {length} bytes runs past the end of the file")
        self._frame_end = end

    def _constant(self, value: Value) -> None:
        self._push(value)

    def _decimal(self, text: str) -> int:
        digits = text[1:] if text[:1] == "-" else text
        if not digits.isdigit() or len(digits) > 40:
            raise self.error(MalformedFile, f"{ascii(text)[:60]} is not a whole number")
        return int(text)

    def _int_line(self) -> None:
        text = self._short_line()
        self._push({"00": False, "01": True}[text] if text in ("00", "01") else self._decimal(text))

    def _long_line(self) -> None:
        text = self._short_line()
        self._push(self._decimal(text[:-1] if text.endswith("L") else text))

    def _long(self, width: int) -> None:
        length = self._unsigned(width)
        if length > MAX_INTEGER_BYTES:
            raise self.error(MalformedFile, f"an integer of {length} bytes")
        self._push(int.from_bytes(self._take(length), "little", signed=True))

    def _float_line(self) -> None:
        text = self._short_line()
        try:
            self._push(float(text))
        except ValueError:
            raise self.error(MalformedFile, f"{ascii(text)[:60]} is not a number") from None

    def _string_line(self) -> None:
        start, length = self._line(limit=None)
        quotes = bytes(self.data[start : start + 1]) + bytes(self.data[start + length - 1 : start + length])
        if length < 2 or quotes not in (b"''", b'""'):
            raise self.error(MalformedFile, "a STRING without its quotes")
        self._push(Text(start + 1, length - 2, "string-escape", "str"))

    def _unicode_line(self) -> None:
        self._push(Text(*self._line(limit=None), "raw-unicode-escape", "text"))

    def _counted(self, width: int, written: Literal["plain", "utf-8"], kind: Literal["text", "bytes", "str"]) -> None:
        length = self._unsigned(width)
        if kind == "str" and width == 4 and length >= 2**31:
            raise self.error(MalformedFile, "a BINSTRING of negative length")
        self._push(Text(self._skip(length), length, written, kind))

    def _mark(self) -> None:
        if len(self._marks) >= MAX_OPEN_MARKS:
            raise self.error(OverBudget, f"values are nested more than {MAX_OPEN_MARKS} deep")
        self._marks.append(len(self._stack))

    def _tuple(self, count: int) -> None:
        self._push(tuple(reversed([self._pop() for _ in range(count)])))

    def _append(self) -> None:
        self._extend([self._pop()])

    def _appends(self) -> None:
        self._extend(self._pop_to_mark())

    def _extend(self, values: list[Value]) -> None:
        target = self._peek()
        if not isinstance(target, list):
            raise self.error(MalformedFile, f"appends to {describe(target)}")
        target.extend(values)

    def _dict(self) -> None:
        values = self._pop_to_mark()
        self._push({})
        self._set(values)

    def _set_item(self) -> None:
        value, key = self._pop(), self._pop()
        self._set([key, value])

    def _set_items(self) -> None:
        self._set(self._pop_to_mark())

    def _set(self, values: list[Value]) -> None:
        target = self._peek()
        if not isinstance(target, dict):
            raise self.error(MalformedFile, f"sets items of {describe(target)}")
        if len(values) % 2:
            raise self.error(MalformedFile, "a dictionary key without its value")
        self.fill(target, list(zip(values[::2], values[1::2], strict=True)))

    def fill(self, target: dict[str | int, Value], pairs: list[tuple[Value, Value]]) -> None:
        """Add pairs to a dictionary; keys are texts or whole numbers, and none may come twice."""
        for key, value in pairs:
            name = key if isinstance(key, int) and not isinstance(key, bool) else self.text(key)
            if name in target:
                raise self.error(MalformedFile, f"the key {ascii(name)[:120]} comes twice")
            target[name] = value

    def _put(self, index: int) -> None:
        if not 0 <= index < 2**32:
            raise self.error(MalformedFile, f"the memo index {index}")
        self._memo[index] = self._peek()

    def _get(self, index: int) -> None:
        if index not in self._memo:
            raise self.error(MalformedFile, f"nothing was memorised under {index}")
        self._push(self._memo[index])

    def _global(self) -> None:
        self._symbol(self._short_line(), self._short_line())

    def _stack_global(self) -> None:
        name, module = self._pop(), self._pop()
        for part in (module, name):
            if not (isinstance(part, Text) and part.kind == "text"):
                raise self.error(ForbiddenContent, f"a global named by {describe(part)}")
        self._symbol(self.text(module), self.text(name))

    def _symbol(self, module: str, name: str) -> None:
        symbol = self.grammar.symbols.get((module, name))
        if symbol is None:
            raise self.error(
                ForbiddenContent,
                f"asks for the Python object {ascii(f'{module}.{name}')[:120]}, which no weights file needs; "
                f"{self.grammar.way_out}",
            )
        self._push(Symbol(symbol))

    def _reduce(self) -> None:
        arguments, symbol = self._pop(), self._pop()
        if not isinstance(symbol, Symbol) or not isinstance(arguments, tuple):
            raise self.error(ForbiddenContent, f"calls {describe(symbol)} with {describe(arguments)}")
        self._push(self.grammar.reduce(self, symbol, arguments))

    def _build(self) -> None:
        state = self._pop()
        self.grammar.build(self, self._peek(), state)

    def _persistent(self) -> None:
        self._push(self.grammar.persistent(self, self._pop()))


def _with(method: Callable[..., None], *arguments: object) -> Callable[[PickleVM], None]:
    return lambda machine: method(machine, *arguments)


_OPCODES: dict[int, Callable[[PickleVM], None]] = {
    ord(code): handler
    for code, handler in {
        "\x80": PickleVM._proto,
        "\x95": PickleVM._frame,
        "N": _with(PickleVM._constant, None),
        "\x88": _with(PickleVM._constant, True),
        "\x89": _with(PickleVM._constant, False),
        "I": PickleVM._int_line,
        "L": PickleVM._long_line,
        "J": lambda m: m._push(int.from_bytes(m._take(4), "little", signed=True)),
        "K": lambda m: m._push(m._unsigned(1)),
        "M": lambda m: m._push(m._unsigned(2)),
        "\x8a": _with(PickleVM._long, 1),
        "\x8b": _with(PickleVM._long, 4),
        "F": PickleVM._float_line,
        "G": lambda m: m._push(struct.unpack(">d", m._take(8))[0]),
        "S": PickleVM._string_line,
        "T": _with(PickleVM._counted, 4, "plain", "str"),
        "U": _with(PickleVM._counted, 1, "plain", "str"),
        "V": PickleVM._unicode_line,
        "X": _with(PickleVM._counted, 4, "utf-8", "text"),
        "\x8c": _with(PickleVM._counted, 1, "utf-8", "text"),
        "\x8d": _with(PickleVM._counted, 8, "utf-8", "text"),
        "B": _with(PickleVM._counted, 4, "plain", "bytes"),
        "C": _with(PickleVM._counted, 1, "plain", "bytes"),
        "\x8e": _with(PickleVM._counted, 8, "plain", "bytes"),
        "\x96": _with(PickleVM._counted, 8, "plain", "bytes"),
        "(": PickleVM._mark,
        ")": lambda m: m._push(()),
        "t": lambda m: m._push(tuple(m._pop_to_mark())),
        "\x85": _with(PickleVM._tuple, 1),
        "\x86": _with(PickleVM._tuple, 2),
        "\x87": _with(PickleVM._tuple, 3),
        "]": lambda m: m._push([]),
        "l": lambda m: m._push(m._pop_to_mark()),
        "a": PickleVM._append,
        "e": PickleVM._appends,
        "}": lambda m: m._push({}),
        "d": PickleVM._dict,
        "s": PickleVM._set_item,
        "u": PickleVM._set_items,
        "p": lambda m: m._put(m._decimal(m._short_line())),
        "q": lambda m: m._put(m._unsigned(1)),
        "r": lambda m: m._put(m._unsigned(4)),
        "\x94": lambda m: m._put(len(m._memo)),
        "g": lambda m: m._get(m._decimal(m._short_line())),
        "h": lambda m: m._get(m._unsigned(1)),
        "j": lambda m: m._get(m._unsigned(4)),
        "c": PickleVM._global,
        "\x93": PickleVM._stack_global,
        "R": PickleVM._reduce,
        "b": PickleVM._build,
        "Q": PickleVM._persistent,
    }.items()
}

_FORBIDDEN = {
    ord("i"): "INST", ord("o"): "OBJ", 0x81: "NEWOBJ", 0x92: "NEWOBJ_EX", 0x82: "EXT1", 0x83: "EXT2",
    0x84: "EXT4", ord("P"): "PERSID", 0x97: "NEXT_BUFFER", 0x98: "READONLY_BUFFER",
}  # fmt: skip
_UNUSED = {
    ord("0"): "POP", ord("1"): "POP_MARK", ord("2"): "DUP", 0x8F: "EMPTY_SET", 0x90: "ADDITEMS",
    0x91: "FROZENSET",
}  # fmt: skip
