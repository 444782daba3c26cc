"""What strangers wrote reaches the terminal without steering it, in one line, and without passwords."""

import io
import subprocess
import sys
from pathlib import Path
from typing import TextIO, cast

import numpy as np
import pytest
import yaml
from argcomplete.shell_integration import shellcode

import detectron_gn
from detectron_gn.weights import WeightsFile, write_blobs
from detectron_gn.weights.shown import ShownStream, one_line, stream_for_progress, without_secrets
from tests.helpers.command_line import Run, assert_one_sentence

ROOT = Path(__file__).parents[2]
EVIL = "\x1b[2J\x9b31m\u202egnp\u2066.\x00\x07\x7f\u2028"
SHOWN = r"\x1b[2J\x9b31m\u202egnp\u2066.\x00\x07\x7f\u2028"


def test_what_steers_a_terminal_is_shown_as_an_escape() -> None:
    assert one_line(EVIL + "a\nb\tc\r") == SHOWN + r"a\nb\tc\r"
    assert one_line("Größe 한국어 é 🦊") == "Größe 한국어 é 🦊"


def test_a_stream_keeps_lines_and_shows_the_rest_as_escapes() -> None:
    stream = io.StringIO()
    assert ShownStream(stream).write(f"a\tb\n{EVIL}\r\n") == len(f"a\tb\n{EVIL}\r\n")
    assert stream.getvalue() == f"a\tb\n{SHOWN}\\r\n"


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "utf-8"])
def test_a_stream_takes_every_character_in_every_encoding(encoding: str) -> None:
    raw = io.BytesIO()
    stream = io.TextIOWrapper(raw, encoding)
    print("한\udcff", file=ShownStream(stream), flush=True)
    assert raw.getvalue() == ("한" if encoding == "utf-8" else r"\ud55c").encode() + b"\\udcff\n"


class Terminal(io.StringIO):
    """A terminal whose width nobody knows."""

    def isatty(self) -> bool:
        return True


def test_a_terminal_gets_lines_that_it_does_not_break(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("COLUMNS", raising=False)
    address = "https://host.example/" + "long-name/" * 9
    text = f"detectron-gn: error: {'words ' * 12}{address} and others\n  {'of a list ' * 9}\nshort  line\n"
    terminal, file = Terminal(), io.StringIO()
    for stream in (terminal, file):
        print(text, end="", file=cast(TextIO, ShownStream(stream)))
    assert file.getvalue() == text
    lines = terminal.getvalue().splitlines()
    assert [line for line in lines if len(line) > 80] == [f"  {address}"]
    assert lines[0].startswith("detectron-gn: error: words") and lines[-1] == "short  line"
    assert [line for line in lines[1:-1] if not line.startswith("  ")] == []
    assert " ".join(terminal.getvalue().split()) == " ".join(text.split())
    stats = Terminal()
    ShownStream(cast(TextIO, stats)).write(f'json_stats: {{"iter": 0, "loss": {"1" * 99}}}\n')
    assert stats.getvalue().count("\n") == 1
    monkeypatch.setenv("COLUMNS", "200")
    wide = Terminal()
    ShownStream(cast(TextIO, wide)).write(f"{'words ' * 30}\n")
    assert wide.getvalue().count("\n") == 1


def test_what_a_program_takes_is_not_folded(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Terminal()
    monkeypatch.setattr(sys, "stdout", terminal)
    assert detectron_gn.main(["completion", "bash"]) == 0
    printed = terminal.getvalue()
    assert printed.rstrip() == shellcode(["detectron-gn"], shell="bash").rstrip()


def test_a_progress_bar_gets_the_stream_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = io.StringIO()
    monkeypatch.setattr(sys, "stderr", stream)
    assert stream_for_progress() is stream
    monkeypatch.setattr(sys, "stderr", ShownStream(stream))
    assert stream_for_progress() is stream


@pytest.mark.parametrize(
    ("address", "shown"),
    [
        ("http://user:secret@host/a/b.pkl", "http://host/a/b.pkl"),
        ("https://user:sec@ret@host:80/a", "https://host:80/a"),
        ("http://user:sec/ret@host/a", "http://host/a"),
        ("http://secret@host", "http://host"),
        ("http://host/a.pkl?token=secret&x=1", "http://host/a.pkl?..."),
        ("http://user:secret@host/a.pkl?token=secret: broken", "http://host/a.pkl?...: broken"),
        ("http://host/a.pkl#secret", "http://host/a.pkl?..."),
        ("ftp://user:secret@host/a", "ftp://host/a"),
        ("http://host:80/models@v1/a.pkl", "http://host:80/models@v1/a.pkl"),
        ("http://[::1]:80/models@v1/a.pkl", "http://[::1]:80/models@v1/a.pkl"),
        ("http://a:secret@x/1 and http://b:secret@y/2?secret", "http://x/1 and http://y/2?..."),
        ("no address, me@home?", "no address, me@home?"),
    ],
)
def test_secrets_of_addresses_are_not_shown(address: str, shown: str) -> None:
    assert without_secrets(address) == one_line(address) == shown
    assert without_secrets(shown) == shown


def test_a_weights_file_cannot_steer_the_terminal_or_fake_a_line_of_inspect(run: Run, tmp_path: Path) -> None:
    import torch

    fake = "\n  NaN or infinity: none\n" + EVIL
    cfg = yaml.safe_dump({"MODEL": {"TYPE": fake, "CONV_BODY": EVIL}})
    content = {"blobs": {"a\u009b31m": torch.full((2,), float("nan"))}, "cfg": cfg, fake: 1}
    torch.save(content, tmp_path / "m.pth")
    code, printed, errors = run("inspect", tmp_path / "m.pth")
    assert code == 0 and not errors
    # Long lines go on below, further in than a line of inspect begins.
    assert printed.count("\n  NaN or infinity:") == 1
    told = " ".join(printed.split())
    assert told.count("NaN or infinity: none") == 2
    assert r"MODEL.TYPE: \n NaN or infinity: none\n" + SHOWN in told
    assert r"left out: \n NaN or infinity: none\n" + SHOWN in told
    assert not any(ord(character) < 32 and character != "\n" or "\x7f" <= character <= "\x9f" for character in printed)


def test_a_name_in_an_error_stays_in_its_line(run: Run, tmp_path: Path) -> None:
    assert_one_sentence(run("inspect", tmp_path / f"none{EVIL}\nfake.pkl"), rf"none{SHOWN}\nfake.pkl: there is no such")
    assert_one_sentence(run("models", f"{EVIL}\nfake"), rf"{SHOWN}\nfake")


def test_a_file_name_that_is_not_utf8_is_told(run: Run, tmp_path: Path) -> None:
    name = b"\xff.pkl".decode("utf-8", "surrogateescape")
    assert_one_sentence(run("inspect", tmp_path / name), r"\udcff.pkl: there is no such file")
    write_blobs(tmp_path / name, WeightsFile({"w": np.ones(1, "f4")}, None, None, "x", "pkl"))
    code, printed, _ = run("inspect", tmp_path / name)
    assert code == 0 and r"\udcff.pkl: unknown" in printed


def test_closed_streams_are_told_or_done_without() -> None:
    """A shell closes them with >&- and 2>&-; a file that is opened then would get their numbers."""
    command = f"{sys.executable} -m detectron_gn"

    def run(line: str) -> tuple[int, str, str]:
        done = subprocess.run(["sh", "-c", line], cwd=ROOT, capture_output=True, text=True)
        return done.returncode, done.stdout, done.stderr

    assert_one_sentence(run(f"{command} models >&-"), "standard output is closed; send it to a file or to /dev/null")
    assert run(f"{command} --version 2>&-") == (0, f"detectron-gn {detectron_gn.__version__}\n", "")
    assert run(f"{command} inspect none.pkl 2>&-") == (2, "", "")
    assert run(f"{command} --version <&-")[0] == 0
