"""The whole hostile corpus, read in one process under an audit hook."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.helpers import hostile_corpus

ROOT = Path(__file__).parents[3]
CASES = {case.name: case for case in hostile_corpus.all_cases()}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("corpus")


@pytest.fixture(scope="module")
def report(folder: Path) -> dict[str, Any]:
    done = subprocess.run(
        [sys.executable, "-m", "tests.helpers.run_corpus", folder],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout)


@pytest.mark.parametrize("name", CASES)
def test_case_is_refused_with_one_sentence_or_read_as_what_it_says(name: str, report: dict[str, Any]) -> None:
    case = CASES[name]
    outcome, names, *_ = report["outcomes"][name]
    if outcome == "read":
        assert "any" in case.expect or names == list(case.blobs)
    else:
        assert outcome in case.expect


def test_corpus_has_several_hundred_cases_of_each_section() -> None:
    count = {section: sum(name.startswith(section) for name in CASES) for section in "ABCDE"}
    assert count["A"] > 600 and count["B"] > 500 and count["C"] > 60 and count["D"] > 100 and count["E"] >= 6


def test_nothing_is_imported_executed_written_or_connected(report: dict[str, Any], folder: Path) -> None:
    assert report["violations"] == []
    assert not list(folder.rglob(hostile_corpus.CANARY))


def test_the_audit_hook_would_see_an_unpickled_payload(folder: Path) -> None:
    """The proof above is worth something: pickle.load of a case of section B trips the same hook."""
    program = (
        "import runpy, sys, pickle\n"
        "module = runpy.run_module('tests.helpers.run_corpus')\n"
        "class Blobs: blobs = {}\n"
        "def unsafe(path): pickle.load(open(path, 'rb'), encoding='latin1'); return Blobs\n"
        "module['main'].__globals__['read_blobs'] = unsafe\n"
        "module['main'].__globals__['hostile_corpus'].all_cases = lambda: [c for c in module['hostile_corpus'].code()"
        " if 'os.system GLOBAL' in c.name or 'subprocess.Popen GLOBAL' in c.name]\n"
        "import pathlib; module['main'](pathlib.Path(sys.argv[1]))\n"
    )
    target = folder / "unsafe"
    target.mkdir()
    done = subprocess.run(
        [sys.executable, "-c", program, target], cwd=ROOT, capture_output=True, text=True, timeout=60
    )
    assert "pickle.find_class" in " ".join(json.loads(done.stdout)["violations"])


def test_no_case_takes_five_seconds(report: dict[str, Any]) -> None:
    assert max(seconds for _, _, seconds, *_ in report["outcomes"].values()) < 5


def test_memory_stays_below_twice_the_file_plus_100_mib(report: dict[str, Any]) -> None:
    for name, (_, _, _, grown, size) in report["outcomes"].items():
        assert grown < 2 * size + (100 << 20), name
