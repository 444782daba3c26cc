"""What is installed: one package, whole, beside whatever others are called, and deaf to the working directory."""

import email
import os
import re
import sys
import zipfile
from pathlib import Path

import pytest

import detectron_gn
from tests.helpers.installed_wheel import ROOT, Environment, build_sdist, build_wheel, run, write_wheel
from tests.helpers.small_run import arguments as train_arguments
from tests.helpers.small_run import config_file

ROOMS = ("mrcnn", "port", "verify", "weights", "yaml_configs")
DETECTRON_GN = [sys.executable, "-m", "detectron_gn"]


@pytest.fixture
def crowded(tmp_path):
    """A working directory whose own folders and files have the names of our rooms, and fail when imported."""
    folder = tmp_path / "work"
    for name in ROOMS:
        (folder / name).mkdir(parents=True)
        (folder / name / "__init__.py").write_text(f"raise SystemExit('imported {name}/ of the working directory')\n")
    (folder / "verify.py").write_text("raise SystemExit('imported verify.py of the working directory')\n")
    return folder


def test_the_front_door_opens_in_any_working_directory(crowded):
    assert "48616381" in run(*DETECTRON_GN, "models", cwd=crowded)
    assert "usage: detectron-gn" in run(*DETECTRON_GN, "--help", cwd=crowded)
    assert "48616381" in run(Path(sys.executable).with_name("detectron-gn"), "models", cwd=crowded)


def test_a_checkout_runs_from_its_root_without_being_installed(tmp_path):
    environment = Environment(tmp_path / "venv")
    environment.share_dependencies()
    code = "import detectron_gn.verify.cli as cli; print(cli.__file__)"
    assert run(environment.python, "-c", code, cwd=ROOT).strip() == str(ROOT / "verify" / "cli" / "__init__.py")
    assert "48616381" in run(environment.python, "-m", "detectron_gn", "models", cwd=ROOT)


@pytest.mark.slow
def test_torchrun_starts_it_in_any_working_directory(crowded, pickle, demo_model):
    launcher = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", "2", "-m", "detectron_gn"]
    data = ["--annotations", demo_model / "instances_val.json", "--images", demo_model / "val"]
    run(*launcher, "test", pickle, *data, "--out", "out", "--device", "cpu", cwd=crowded)
    assert (crowded / "out" / "ap.json").is_file()


@pytest.mark.slow
def test_detection_and_training_run_in_any_working_directory(crowded, pickle, demo_model):
    image = min((demo_model / "val").iterdir())
    run(*DETECTRON_GN, "detect", pickle, image, "--out", "found", "--device", "cpu", cwd=crowded)
    assert (crowded / "found" / "detections.json").is_file()
    # With a process that loads the images: it imports everything once more.
    config = config_file(crowded, "SOLVER.MAX_ITER", "2", "SOLVER.STEPS", "[0]")
    run(*DETECTRON_GN, "train", *train_arguments("run", config), cwd=crowded)
    assert (crowded / "run" / "model_final.pkl").is_file()


@pytest.fixture(scope="module")
def sdist(tmp_path_factory):
    return build_sdist(tmp_path_factory.mktemp("sdist"))


@pytest.fixture(scope="module")
def wheel(sdist, tmp_path_factory):
    """The wheel as it comes from the source distribution."""
    return build_wheel(sdist, tmp_path_factory.mktemp("wheel"))


@pytest.mark.slow
def test_the_wheel_holds_every_file_of_the_rooms_and_nothing_else(wheel):
    expected = {f"detectron_gn/{path.name}" for path in (ROOT / "detectron_gn").iterdir() if path.is_file()}
    for room in ROOMS:
        paths = (path for path in (ROOT / room).rglob("*") if path.is_file() and path.parent.name != "__pycache__")
        expected |= {f"detectron_gn/{path.relative_to(ROOT).as_posix()}" for path in paths}
    with zipfile.ZipFile(wheel) as archive:
        held = {name for name in archive.namelist() if ".dist-info/" not in name}
    assert held == expected
    assert {"detectron_gn/py.typed", "detectron_gn/weights/catalog.yaml"} < held
    assert {"detectron_gn/verify/reference/dump_blobs.py", "detectron_gn/verify/demo_model/blobs.h5"} < held


@pytest.mark.slow
def test_the_wheel_brings_its_licences_and_what_it_needs_to_be_used_only(wheel):
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        (metadata,) = [archive.read(name).decode() for name in names if name.endswith(".dist-info/METADATA")]
    assert {"LICENSE", "NOTICE"} < {Path(name).name for name in names if ".dist-info/" in name}
    message = email.message_from_string(metadata)
    needed = [line for line in message.get_all("Requires-Dist", []) if "extra ==" not in line]
    tools = ("mypy", "ruff", "pytest", "hypothesis", "nbclient", "ipykernel", "types-", "matplotlib", "onnx")
    assert not [line for line in needed if line.startswith(tools)] and len(needed) == 14
    assert {"export", "plots", "test", "dev"} <= set(message.get_all("Provides-Extra", []))
    of_test = [line for line in message.get_all("Requires-Dist", []) if 'extra == "test"' in line]
    assert not [line for line in of_test if line.startswith(("mypy", "ruff", "types-"))]


def test_what_tells_the_version_tells_the_same():
    told = re.findall(r"^version: (.+)$", (ROOT / "CITATION.cff").read_text(), re.MULTILINE)
    assert told == [detectron_gn.__version__]
    wheels = re.findall(r"detectron_gn-(.+?)-py3", (ROOT / "docs" / "install.md").read_text(encoding="utf-8"))
    assert set(wheels) == {detectron_gn.__version__}


def test_nobody_is_told_to_install_it_from_an_index_which_does_not_have_it():
    """What it needs is told by its own name; the package itself is a folder or the file of a wheel."""
    from_an_index = re.compile(r"pip install\b[^\n`]*detectron[-_]gn(?!-[\d.]+-py3-none-any\.whl)")
    assert from_an_index.search("needs onnx: pip install 'detectron-gn[export]'")
    texts = [path for room in (*ROOMS, "detectron_gn", "examples") for path in (ROOT / room).rglob("*.py")]
    texts += [path for name in ("*.md", "docs/*.md", "benchmarks/*.md", "examples/*.ipynb") for path in ROOT.glob(name)]
    # The change log tells what a message said before.
    texts.remove(ROOT / "CHANGELOG.md")
    assert [str(path) for path in texts if from_an_index.search(path.read_text(encoding="utf-8"))] == []


def test_an_image_is_built_of_what_the_wheel_is_made_of():
    taken = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    assert {*ROOMS, "detectron_gn", "setup.py", "pyproject.toml", "README.md", "LICENSE", "NOTICE"} < taken
    assert all((ROOT / name).exists() for name in taken)


def test_an_image_has_one_base_that_we_support_extras_that_there_are_and_a_user_who_is_not_root():
    lines = (ROOT / "Dockerfile").read_text(encoding="utf-8").splitlines()
    stages = [line.split()[1] for line in lines if line.startswith("FROM ")]
    (base,) = [line.partition("=")[2] for line in lines if line.startswith("ARG BASE=")]
    (version,) = re.findall(r"^python:(3\.\d+)-slim-\w+$", base)
    assert stages == ["${BASE}"] * 2
    setup = (ROOT / "setup.py").read_text(encoding="utf-8")
    assert f'"Programming Language :: Python :: {version}"' in setup
    (extras,) = re.findall(r"whl\)\[([\w,]+)\]", "\n".join(lines))
    assert all(f'"{extra}": ' in setup for extra in extras.split(","))
    # The last one counts, and nothing after it needs root.
    end = next(place for place, line in enumerate(lines) if line == "USER 1000:1000")
    assert not [line for line in lines[end:] if line.startswith(("USER root", "RUN ", "COPY ", "ADD "))]


def test_what_is_needed_has_a_tested_version_in_the_constraints():
    pinned = {line.partition("==")[0].lower() for line in (ROOT / "constraints.txt").read_text().splitlines()}
    text = (ROOT / "setup.py").read_text()
    wanted = {name.lower() for name in re.findall(r'^ +"([A-Za-z][\w-]+)>=', text, re.MULTILINE)}
    assert {"torch", "argcomplete", "nbclient"} < wanted <= pinned


@pytest.mark.slow
def test_the_source_distribution_holds_its_tests_and_what_make_needs(sdist):
    held = {path.relative_to(sdist).as_posix() for path in sdist.rglob("*")}
    assert {"Makefile", "constraints.txt", "pyproject.toml", "LICENSE", "tests/test_packaging.py"} < held
    assert {"tests/data/ops.h5", "benchmarks/common.py", "docs/verify.md"} < held


@pytest.mark.slow
def test_the_wheel_lives_beside_a_package_called_mrcnn_and_leaves_it_behind(wheel, pickle, tmp_path):
    stranger = write_wheel(tmp_path, "mrcnn", {"mrcnn/__init__.py": "", "mrcnn/model.py": "NAME = 'stranger'\n"})
    environment = Environment(tmp_path / "venv")
    environment.pip("install", "--no-index", "--no-deps", stranger)
    without_ours = environment.files()
    environment.pip("install", "--no-index", "--no-deps", wheel)
    environment.share_dependencies()
    both = "import mrcnn.model, detectron_gn.mrcnn.errors as ours; print(mrcnn.model.NAME, ours.__file__)"
    name, file = run(environment.python, "-c", both, cwd=tmp_path).split()
    assert name == "stranger" and Path(file).is_relative_to(environment.site_packages / "detectron_gn")

    script = environment.bin / "detectron-gn"
    assert "48616381" in run(script, "models", cwd=tmp_path)
    assert "R-50 FPN, GN" in run(script, "inspect", pickle, cwd=tmp_path)
    run(script, "demo", "--out", "demo", cwd=tmp_path)
    assert (tmp_path / "demo" / "report.html").is_file()

    environment.pip("uninstall", "--yes", "detectron-gn")
    (environment.site_packages / "dependencies.pth").unlink()
    assert environment.files() == without_ours
    assert not script.exists() and not os.path.lexists(environment.site_packages / "detectron_gn")
