"""The pages of the documentation: links, anchors, named tests, generated parts, navigation, and the site itself."""

import importlib.util
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

from tests.helpers.markdown import PAGES, ROOT, anchors, links, prose

NAMES = [str(page.relative_to(ROOT)) for page in PAGES]


def module(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None and spec.loader is not None
    loaded = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(loaded)
    return loaded


def test_anchors_are_those_that_a_reader_of_github_would_click() -> None:
    page = "# What *exact* means\n## `ap.json`\n## Use\n## Use\n```\n# no heading\n```\n### 1. A, b & [c](d.md)\n"
    assert anchors(page) == {"what-exact-means", "apjson", "use", "use-1", "1-a-b--c"}


@pytest.mark.parametrize("name", NAMES)
def test_every_link_leads_to_a_file_and_a_heading(name: str) -> None:
    page = ROOT / name
    for link in links(page.read_text(encoding="utf-8")):
        if re.match(r"[a-z]+:", link):
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), link
        assert not anchor or anchor in anchors(target.read_text(encoding="utf-8")), link


@pytest.mark.parametrize("name", NAMES)
def test_every_test_that_a_page_names_is_there(name: str) -> None:
    for path, test in re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", (ROOT / name).read_text(encoding="utf-8")):
        assert f"def {test}(" in (ROOT / path).read_text(encoding="utf-8"), f"{path}::{test}"


def test_every_difference_from_detectron_names_a_test() -> None:
    page = (ROOT / "docs" / "differences.md").read_text(encoding="utf-8")
    rows = [line for line in page.splitlines() if line.startswith("| ")]
    rows = [row for row in rows if not row.startswith(("| what |", "| --- |"))]
    without = [row for row in rows if not re.search(r"`tests/[\w/]+\.py::\w+`", row)]
    # What is not there at all has nothing to test.
    assert len(rows) > 25 and [row.split("|")[1].strip() for row in without] == ["Pascal VOC and Cityscapes evaluation"]


@pytest.mark.parametrize("name", ["commands.md", "models.md"])
def test_pages_that_are_written_by_the_program_are_what_it_writes(name: str) -> None:
    written = module(ROOT / "docs" / "generate.py").pages()[name]
    assert (ROOT / "docs" / name).read_text(encoding="utf-8") == written, "run: python docs/generate.py"


def test_the_first_page_leads_to_every_other_one_once() -> None:
    index = ROOT / "docs" / "index.md"
    listed = re.findall(r"^- \[[^\]]+\]\(([^)#]+)\)", prose(index.read_text(encoding="utf-8")), re.MULTILINE)
    reached = [str((index.parent / path).resolve().relative_to(ROOT)) for path in listed]
    assert sorted([*reached, "docs/index.md"]) == sorted(NAMES)


@pytest.mark.slow
def test_the_site_is_built_without_a_warning_and_asks_nothing_of_other_machines(tmp_path: Path) -> None:
    pytest.importorskip("sphinx", reason="needs the extra `docs`")
    command = [sys.executable, "-m", "sphinx", "-q", "-W", "--keep-going", "-c", "docs", ".", str(tmp_path)]
    built = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert (built.returncode, built.stderr) == (0, "")
    for name in NAMES:
        assert (tmp_path / name).with_suffix(".html").is_file(), name
    page = (tmp_path / "docs" / "index.html").read_text(encoding="utf-8")
    assert page.count("toctree-l1") > 25
    assert not re.findall(r'<(?:script|link|img)[^>]+(?:src|href)="(?:https?:)?//', page)
    reference = (tmp_path / "docs" / "api.html").read_text(encoding="utf-8")
    for name in ("detectron_gn.load", "Detector.detect", "Detections.to_coco", "read_blobs", "InputError"):
        assert name in reference, name
    assert "docs/index.html" in (tmp_path / "index.html").read_text(encoding="utf-8")
