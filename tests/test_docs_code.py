"""The code in the documentation: commands and Python that can run here are run, all others are parsed.

Blocks of `sh` and `python` are run, page by page and in their order, unless a remark before them says why not:
`<!-- not run: needs COCO -->`. A block of `text` right after one is what it prints, where `...` stands for any lines
and numbers may be others. Every command line anywhere, and every option that the prose names, must be the parser's.
"""

import argparse
import itertools
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import cv2
import pytest

import detectron_gn
from tests.helpers.markdown import PAGES, ROOT, Block, blocks, command_lines, last_cells, spans

NAMES = [str(page.relative_to(ROOT)) for page in PAGES]
TEXTS = {name: (ROOT / name).read_text(encoding="utf-8") for name in NAMES}
# What ends a command in a shell.
SHELL = {"&", "|", ">", ">>", "<", "&&", "||", ";"}
# Where the left column is another project's.
OTHERS_LEFT = [name for name in NAMES if name.startswith("docs/from_")]

# Options that the prose names of programs whose parser is not asked: ours, and others.
SCRIPTS = [*ROOT.glob("benchmarks/*.py"), ROOT / "verify" / "reference" / "dump_blobs.py"]
FOREIGN = {option for path in SCRIPTS for option in re.findall(r"[\"'](--[a-z][\w-]*)[\"']", path.read_text())} | {
    "--nnodes", "--nproc_per_node", "--rdzv_backend", "--rdzv_endpoint", "--rdzv_conf", "--local_addr", "--standalone",
    "--shutdown-timeout",  # torchrun
    "--time", "--shm-size", "--user", "--build-arg", "--cpus", "--env",  # docker
    "--requeue", "--signal",  # Slurm
}  # fmt: skip

# The same lines in less time, and beside whatever else runs: what a reader would wait for.
SHORTER = {
    "docs/finetune.md": [
        ("--epochs 40 --checkpoint-every 200", "--iterations 4 --checkpoint-every 2"),
        ("model_iter199.pth", "model_iter1.pth"),
    ],
    # Any port that is free, and a thread that ends with the tests where one fails.
    "docs/deployment.md": [
        ('("127.0.0.1", 8000)', '("127.0.0.1", 0)'),
        ("target=server.serve_forever", "target=server.serve_forever, daemon=True"),
    ],
}


def leaf(arguments: list[str]) -> tuple[argparse.ArgumentParser, list[str]]:
    """The parser of the command that the arguments begin with, and what follows its name."""
    parser, rest = detectron_gn._parser(), arguments
    while groups := [action for action in parser._actions if isinstance(action, argparse._SubParsersAction)]:
        if not rest or rest[0].startswith("-") or rest[0].isupper():
            break
        assert rest[0] in groups[0].choices, f"no command {rest[0]!r}"
        parser, rest = groups[0].choices[rest[0]], rest[1:]
    return parser, rest


def options_of(parser: argparse.ArgumentParser) -> set[str]:
    return {option for action in parser._actions for option in action.option_strings}


def check_options(arguments: list[str]) -> None:
    parser, rest = leaf(arguments)
    for word in rest:
        if word.startswith("--"):
            assert word.partition("=")[0] in options_of(parser), f"{' '.join(arguments[:2])} has no {word}"


def arguments_of(line: str) -> list[str]:
    """What a command line gives to our program, whoever starts it."""
    words = shlex.split(line, comments=True)
    start = next(place for place, word in enumerate(words) if word in ("detectron-gn", "detectron_gn"))
    return list(itertools.takewhile(lambda word: word not in SHELL, words[start + 1 :]))


def test_a_command_that_is_not_there_would_be_seen() -> None:
    assert arguments_of("srun detectron-gn models --json m.json >> log") == ["models", "--json", "m.json"]
    for line in ("detectron-gn detonate x", "detectron-gn verify blob x", "detectron-gn detect m.pkl a.jpg --louder"):
        with pytest.raises(AssertionError):
            check_options(arguments_of(line))


@pytest.mark.parametrize("name", NAMES)
def test_every_command_line_in_a_block_is_one_that_the_parser_takes(
    name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    for block in blocks(TEXTS[name]):
        for line in command_lines(block.text):
            arguments = arguments_of(line)
            check_options(arguments)
            if "..." in arguments:
                continue  # a line that leaves something out
            try:
                detectron_gn._parser().parse_args(arguments)
            except SystemExit as exit:
                assert exit.code == 0, f"{name}:{block.line}: {line}: {capsys.readouterr().err}"


def test_every_command_line_that_a_wheel_is_tried_with_is_one_that_the_parser_takes() -> None:
    text = (ROOT / ".ci" / "wheels").read_text(encoding="utf-8").replace("\\\n", " ")
    lines = [line.strip() for line in text.splitlines() if re.search(r"(^|\s)detectron[-_]gn \w", line)]
    lines = [line for line in lines if not line.startswith("#")]
    assert len(lines) > 10
    for line in lines:
        arguments = arguments_of(line.split("2>")[0].removesuffix("; then exit 1; fi"))
        check_options(arguments)
        detectron_gn._parser().parse_args(arguments)


@pytest.mark.parametrize("name", NAMES)
def test_every_command_and_option_that_the_prose_names_is_there(name: str) -> None:
    known = set().union(*(options_of(parser) for parser in all_parsers(detectron_gn._parser()))) | FOREIGN
    commands = {action for parser in [detectron_gn._parser()] for action in top_commands(parser)}
    text = last_cells(TEXTS[name]) if name in OTHERS_LEFT else TEXTS[name]
    for span in spans(text):
        if span.startswith("--"):
            assert span.split()[0].partition("=")[0].rstrip(",") in known, span
        elif re.match(r"detectron-gn |torchrun .*detectron_gn ", span):
            check_options(arguments_of(span.replace("|", " ")))
        elif span.split()[0] in commands and " --" in span:
            check_options(shlex.split(span))


def top_commands(parser: argparse.ArgumentParser) -> list[str]:
    groups = [action for action in parser._actions if isinstance(action, argparse._SubParsersAction)]
    return list(groups[0].choices)


def all_parsers(parser: argparse.ArgumentParser) -> list[argparse.ArgumentParser]:
    groups = [action for action in parser._actions if isinstance(action, argparse._SubParsersAction)]
    return [parser, *(found for group in groups for child in group.choices.values() for found in all_parsers(child))]


@pytest.mark.parametrize("name", NAMES)
def test_every_block_of_python_is_python(name: str) -> None:
    for block in blocks(TEXTS[name]):
        if block.language == "python":
            compile(block.text, f"{name}:{block.line}", "exec")


# Blocks without a language that run here as well, by how they begin.
ALSO_RUN = ("detectron-gn detect model_final.pkl photo.jpg",)


def is_run(block: Block) -> bool:
    return block.language in ("sh", "python") and not block.not_run or block.text.startswith(ALSO_RUN)


RUN = [name for name in NAMES if any(map(is_run, blocks(TEXTS[name])))]


@pytest.fixture
def clone(tmp_path: Path, pickle: Path, demo_model: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory such as the pages suppose: a clone of the repository, a model, photos, a video."""
    monkeypatch.chdir(tmp_path)
    for folder in ("examples", "benchmarks", "verify"):
        (tmp_path / folder).symlink_to(ROOT / folder)
    (tmp_path / "out" / "demo").mkdir(parents=True)
    for copy in ("model_final.pkl", "out/demo/model_final.pkl"):
        shutil.copy(pickle, tmp_path / copy)
    pictures = sorted((demo_model / "val").iterdir())[:5]
    (tmp_path / "photos").mkdir()
    for number, picture in enumerate(pictures):
        cv2.imwrite(str(tmp_path / "photos" / f"{number}.jpg"), cv2.imread(str(picture)))
    shutil.copy(tmp_path / "photos" / "0.jpg", tmp_path / "photo.jpg")
    shutil.copy(pictures[1], tmp_path / "other.png")
    (tmp_path / "more.txt").write_text("photo.jpg\n")
    clip = cv2.VideoWriter(str(tmp_path / "clip.mp4"), cv2.VideoWriter.fourcc(*"mp4v"), 5, (160, 120))
    for _ in range(6):
        clip.write(cv2.resize(cv2.imread("photo.jpg"), (160, 120)))
    clip.release()
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("DETECTRON_GN_OFFLINE", "1")
    return tmp_path


@pytest.mark.slow
@pytest.mark.parametrize("name", RUN)
def test_the_blocks_of_a_page_run_and_print_what_it_shows(
    name: str, clone: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    text = TEXTS[name]
    for long, short in SHORTER.get(name, []):
        assert long in text
        text = text.replace(long, short)
    names: dict[str, object] = given_names(clone)
    for block in blocks(text):
        if not is_run(block):
            continue
        if block.language == "python":
            exec(compile(block.text, f"{name}:{block.line}", "exec"), names)
        else:
            for line in block.text.replace("\\\n", " ").splitlines():
                run_line(line)
        printed = capfd.readouterr().out
        if block.shows is not None:
            assert shown(block.shows).search(levelled(printed)), f"{name}:{block.line} prints:\n{printed}"


def run_line(line: str) -> None:
    """Run a line of a shell: our program in this process, which saves the time of its start."""
    if line.startswith("detectron-gn "):
        try:
            code = detectron_gn.main(shlex.split(line, comments=True)[1:])
        except SystemExit as exit:
            code = int(exit.code or 0)
    else:
        code = subprocess.run(["bash", "-e", "-c", line]).returncode
    assert code == 0, line


def given_names(clone: Path) -> dict[str, object]:
    """What blocks of Python take for granted."""
    outline = [48.0, 30.0, 120.0, 30.0, 120.0, 96.0]
    target = {"boxes": [[48, 30, 120, 96]], "labels": [1], "masks": [[outline]]}
    return {"images": [str(clone / "photo.jpg")], "targets": [target]}


def levelled(text: str) -> str:
    """Text whose numbers, and the spaces and rules that line columns up, are all alike."""
    return re.sub(r"[ -]{2,}", " ", re.sub(r"-?\d[\d,.]*(e-?\d+)?", "0", text))


def shown(block: str) -> re.Pattern[str]:
    """What finds the text of a block, `...` for any lines, in a levelled text."""
    lines = (levelled(line) for line in block.splitlines())
    return re.compile("".join(r"(?:.*\n)*?" if line.strip() == "..." else f"{re.escape(line)}\n" for line in lines))


def test_a_line_that_is_not_printed_would_be_missed() -> None:
    block = "a  1.5\n...\nb 3\n"
    assert shown(block).search(levelled("x\na 20\nany\nb 7,000\n"))
    assert not shown(block).search(levelled("x\na 20\nany\nc 7\n"))
    assert Block("", "", 1, False, None).shows is None
