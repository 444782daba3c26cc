"""What a press of Tab offers: commands, options, models of the catalog, files; in the three shells themselves."""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import detectron_gn
from detectron_gn.completion import COMPLETERS, SHELLS, arguments_of
from detectron_gn.weights.catalog import catalog
from tests.helpers.command_line import Run, assert_one_sentence

ROOT = Path(__file__).resolve().parents[1]
SCRIPT = Path(sys.executable).with_name("detectron-gn")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory, with files of all kinds."""
    monkeypatch.chdir(tmp_path)
    for name in ("mine.pkl", "mine.yaml", "mine.jpg"):
        (tmp_path / name).touch()
    (tmp_path / "minefield").mkdir()
    return tmp_path


def offered(line: str, folder: Path) -> list[str]:
    """What bash is told for a line that the cursor stands at the end of."""
    answer = folder / "answer"
    environment = {
        **os.environ, "_ARGCOMPLETE": "1", "_ARGCOMPLETE_SHELL": "bash", "_ARGCOMPLETE_IFS": "\n",
        "_ARGCOMPLETE_STDOUT_FILENAME": str(answer), "COMP_LINE": f"detectron-gn {line}",
        "COMP_POINT": str(len(f"detectron-gn {line}")),
    }  # fmt: skip
    code = "import detectron_gn; detectron_gn.main()"
    done = subprocess.run([sys.executable, "-c", code], cwd=folder, env=environment, capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    return answer.read_text().split("\n")


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("ver", ["verify "]),
        ("verify dum", ["dump-script "]),
        ("verify all --reference-b", ["--reference-boxes "]),
        ("detect 486", ["48616381", "48616724"]),
        ("download R-101", ["R-101", "R-101-GN"]),
        ("train --weights 4861672", ["48616724 "]),
        ("verify published 4861672", ["48616724 "]),
        ("test x --config retinanet_R-50-FPN_2", ["retinanet_R-50-FPN_2x "]),
        ("inspect fast_rcnn_R-50-C4_2", ["fast_rcnn_R-50-C4_2x "]),
        ("models --family keyp", ["keypoint-rcnn "]),
        ("score r.json --type s", ["segm "]),
        ("detect mine", ["mine.pkl", "minefield/"]),
        ("detect x --config mine", ["mine.yaml", "minefield/"]),
        ("test x --out mine", ["minefield/"]),
        ("detect x mine.j", ["mine.jpg "]),
        ("completion f", ["fish "]),
    ],
)
def test_tab_offers_what_belongs_there(line: str, expected: list[str], folder: Path) -> None:
    assert sorted(offered(line, folder)) == expected


def test_only_what_can_be_fetched_is_offered(folder: Path) -> None:
    ids = {str(entry.id) for entry in catalog().entries if entry.id is not None and entry.path is not None}
    offers = {each.strip() for each in offered("download ", folder)}
    assert ids < offers and len(ids) == 81 and not any(each.startswith("-") for each in offers)
    assert not {"56421872", "49024951", "mine.pkl"} & offers
    # An RPN finds no objects.
    assert "35998355" in offers and "35998355" not in offered("verify published 35998", folder)


def test_every_model_every_configuration_and_every_folder_is_completed() -> None:
    """By what an argument is called in the help, so that an argument that takes one must be called so."""
    metavars = {action.metavar for action in arguments_of(detectron_gn._parser())}
    assert set(COMPLETERS) <= metavars
    named = {action.metavar for action in arguments_of(detectron_gn._parser()) if "model id" in str(action.help)}
    assert named <= set(COMPLETERS)


def test_completion_is_told_for_a_known_shell_only(run: Run) -> None:
    for shell in SHELLS:
        code, printed, _ = run("completion", shell)
        assert code == 0 and "detectron-gn" in printed and "_ARGCOMPLETE" in printed
    assert_one_sentence(run("completion", "tcsh"), "argument SHELL: invalid choice: 'tcsh'")


@pytest.fixture
def on_the_path(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    if not SCRIPT.exists():
        pytest.skip("detectron-gn is not installed as a command")
    monkeypatch.setenv("PATH", f"{SCRIPT.parent}{os.pathsep}{os.environ['PATH']}")
    yield


def shell(name: str, code: str, folder: Path) -> str:
    if shutil.which(name) is None:
        pytest.skip(f"{name} is not installed")
    done = subprocess.run([name, "-c", code], cwd=folder, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


def test_bash_completes_with_what_is_printed_for_it(on_the_path: None, folder: Path) -> None:
    code = (
        'eval "$(detectron-gn completion bash)"; COMP_LINE="detectron-gn detect 48616"; COMP_POINT=${#COMP_LINE}; '
        'COMP_WORDS=(detectron-gn detect 48616); COMP_CWORD=2; COMP_TYPE=9; '
        '_python_argcomplete detectron-gn 48616 detect 2>/dev/null; printf "%s\\n" "${COMPREPLY[@]}"'
    )
    assert shell("bash", code, folder).split() == ["48616381", "48616724"]


def test_fish_completes_with_what_is_printed_for_it(on_the_path: None, folder: Path) -> None:
    code = 'detectron-gn completion fish | source; complete -C "detectron-gn detect 486"'
    assert shell("fish", code, folder).splitlines() == [
        "48616381\tMask R-CNN R-50-FPN GN", "48616724\tMask R-CNN R-101-FPN GN",
    ]  # fmt: skip


def test_zsh_takes_what_is_printed_for_it(on_the_path: None, folder: Path) -> None:
    code = (
        'autoload -Uz compinit && compinit -u -d dump && eval "$(detectron-gn completion zsh)"; '
        "print $_comps[detectron-gn]"
    )
    assert shell("zsh", code, folder) == "_python_argcomplete\n"
