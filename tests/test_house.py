"""The rules of the house: who imports whom, what a module opens with, and what must not stand in the tree."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
ROOMS = {
    "weights": set(),
    "mrcnn": set(),
    "port": {"weights", "mrcnn"},
    "verify": {"weights", "mrcnn", "port"},
}
# Data only: whoever reads configurations may name it.
ROOMS_WITH_DATA = {*ROOMS, "yaml_configs"}
FRONT_DOOR = "detectron_gn"
MODULES = sorted(path for room in [*ROOMS, FRONT_DOOR] for path in (ROOT / room).rglob("*.py"))
WITH_TESTS = [*MODULES, *sorted(path for room in ("tests", "benchmarks") for path in (ROOT / room).rglob("*.py"))]


def tracked_files() -> list[Path]:
    try:
        listed = subprocess.run(
            ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
            cwd=ROOT, check=True, capture_output=True, text=True,
        )
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("not a git checkout")
    return [ROOT / name for name in listed.stdout.split("\0") if name and (ROOT / name).is_file()]


def imported_rooms(source: str) -> set[str]:
    """The rooms that a module imports anywhere in its text: in functions and under TYPE_CHECKING too."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            # `from detectron_gn import port` names the room last.
            names.update([f"{node.module}.{alias.name}" for alias in node.names])
        elif isinstance(node, ast.Call) and node.args and isinstance(node.args[0], ast.Constant):
            called = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            if called in {"import_module", "__import__"}:
                names.add(str(node.args[0].value))
    parts = [name.split(".") for name in names]
    assert not {first for first, *_ in parts} & ROOMS_WITH_DATA, "rooms are imported as detectron_gn.ROOM"
    ours = [part for part in parts if part[0] == FRONT_DOOR]
    return {part[1] if {*part[1:2]} & ROOMS_WITH_DATA else FRONT_DOOR for part in ours}


def test_imports_are_seen_wherever_they_stand() -> None:
    source = (
        "def f():\n import detectron_gn.port.convert\n from detectron_gn.weights import x\n"
        " importlib.import_module('detectron_gn.verify.ap')\n import detectron_gn\n"
    )
    assert imported_rooms(source) == {"port", "weights", "verify", "detectron_gn"}


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_room_imports_only_the_rooms_it_may(path: Path) -> None:
    room = path.relative_to(ROOT).parts[0]
    allowed = ROOMS.get(room, {*ROOMS, FRONT_DOOR}) | {room}
    assert imported_rooms(path.read_text(encoding="utf-8")) <= allowed


@pytest.mark.parametrize("path", WITH_TESTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_module_opens_with_a_docstring(path: Path) -> None:
    docstring = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8")))
    assert docstring and docstring.split("\n\n")[0].endswith(".")


def test_no_class_is_a_tuple_with_names_and_generic_which_python_3_10_refuses() -> None:
    found = []
    for path in WITH_TESTS:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            bases = [ast.unparse(base) for base in node.bases] if isinstance(node, ast.ClassDef) else []
            if len(bases) > 1 and any(base.endswith("NamedTuple") for base in bases):
                found.append(f"{path.relative_to(ROOT)}: {bases}")
    assert not found


def test_no_path_of_a_machine_and_no_foreign_tool_stands_in_the_tree() -> None:
    forbidden = [b"/wo" b"rk/", b"/tmp/" b"venv", b".li" b"brary", b"far" b"m-"]
    found = [
        f"{path.relative_to(ROOT)}: {word.decode()}"
        for path in tracked_files()
        for word in forbidden
        if word in path.read_bytes()
    ]
    assert not found


def test_embedded_data_stays_under_45_megabytes() -> None:
    embedded = [ROOT / "tests" / "data", ROOT / "verify" / "demo_model"]
    size = sum(path.stat().st_size for folder in embedded for path in folder.rglob("*") if path.is_file())
    assert size < 45_000_000


def test_the_front_door_opens_without_torch_or_opencv() -> None:
    code = "import sys, detectron_gn; print([m for m in ('torch', 'cv2', 'numpy') if m in sys.modules])"
    command = [sys.executable, "-c", code]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"


def test_every_file_that_the_documents_name_is_there() -> None:
    documents = [*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob("benchmarks/*.md")]
    rooms = "|".join([*ROOMS, "yaml_configs", "detectron_gn", "tests", "benchmarks", "docs"])
    missing = []
    for document in documents:
        text = document.read_text(encoding="utf-8")
        named = {ROOT / path for path in re.findall(rf"`((?:{rooms})/[\w/.-]*)`", text)}
        named |= {document.parent / path for path in re.findall(r"\]\(([^)#:]+)\)", text)}
        named |= {ROOT / "benchmarks" / f"{name}.py" for name in re.findall(r"python -m benchmarks\.([a-z]\w*)", text)}
        missing += [f"{document.name}: {path.relative_to(ROOT)}" for path in named if not path.resolve().exists()]
    assert not missing
