"""The front door as users and programs meet it: exit codes, one sentence an error, help, version, `load()`.

The commands themselves are tested in their rooms, in test_cli.py and in verify/cli/.
"""

import argparse
import errno
import json
import shlex
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest

import detectron_gn
from detectron_gn.mrcnn.errors import InputError
from detectron_gn.weights.files import atomic
from tests.helpers.command_line import Run, assert_one_sentence

ROOT = Path(__file__).resolve().parents[1]


def subparsers(parser: argparse.ArgumentParser, prefix: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for name, child in action.choices.items():
                yield from subparsers(child, (*prefix, name))
            return
    yield prefix


COMMANDS = list(subparsers(detectron_gn._parser()))


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_every_command_has_help_with_an_example_and_writes_json(run: Run, command: tuple[str, ...]) -> None:
    code, printed, _ = run(*command, "--help")
    assert code == 0
    assert f"example:\n  detectron-gn {' '.join(command)}" in printed
    assert "--json FILE" in printed


def test_the_version_is_told_from_one_source(run: Run) -> None:
    assert run("--version") == run("-V") == (0, f"detectron-gn {detectron_gn.__version__}\n", "")
    command = [sys.executable, "setup.py", "--version"]
    told = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert told.stdout.splitlines()[-1] == detectron_gn.__version__


@pytest.mark.parametrize("arguments", [["--help"], ["train", "--help"], ["--version"], ["verify", "all"]], ids=" ".join)
def test_help_and_refused_arguments_need_no_library_of_numbers(arguments: list[str]) -> None:
    code = (
        "import atexit, sys, detectron_gn\n"
        "heavy = {'torch', 'cv2', 'numpy', 'yaml', 'requests', 'h5py', 'tqdm', 'argcomplete'}\n"
        "atexit.register(lambda: print(heavy & set(sys.modules)))\n"
        f"detectron_gn.main({arguments})"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == (2 if arguments == ["verify", "all"] else 0)
    assert done.stdout.endswith("set()\n")


def test_the_readme_lists_every_command() -> None:
    rows = [line for line in (ROOT / "README.md").read_text().splitlines() if line.startswith("| `")]
    for command in COMMANDS:
        assert any(row.startswith(f"| `{' '.join(command)}") for row in rows), command


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        (["xyzzy"], ["invalid choice: 'xyzzy' (choose from models, download, "]),
        (["models", "--xyzzy"], ["unrecognized arguments: --xyzzy; see detectron-gn models --help"]),
        (["models", "48616381"], ["unrecognized arguments: 48616381; see detectron-gn models --help"]),
        (["score", "r.json"], ["required: --annotations"]),
        (["score", "r.json", "--annotations", "a.json", "--type", "panoptic"], ["invalid choice: 'panoptic'"]),
        (["score", "none.json", "--annotations", "a.json"], ["none.json cannot be read: No such file or directory"]),
        (["convert", "none.pkl", "--out", "o.pth"], ["none.pkl", "no such file"]),
        (["convert", "48616382", "--out", "o.pth"], ["48616382", "no model of the catalog"]),
        (["download", "56421872"], ["no file of it was ever published"]),
        (["detect", "none.pkl", "no.jpg", "--out", "o"], ["no.jpg: no such image file"]),
        (["verify"], ["name one of blobs, detections, ", "; see detectron-gn verify --help"]),
        *(
            (["verify", *command, option, value], [f"argument {option}: {value!r} is no number from 0 {up_to}"])
            for command, option, up_to in [
                (["blobs", "m.pkl"], "--tolerance", "up"),
                (["all", "m.pkl"], "--tolerance", "up"),
                (["detections", "a.json", "b.json"], "--box-iou", "to 1"),
                (["detections", "a.json", "b.json"], "--mask-iou", "to 1"),
                (["detections", "a.json", "b.json"], "--score", "to 1"),
                (["ap", "m.pkl"], "--expect-box", "to 100"),
                (["all", "m.pkl"], "--expect-mask", "to 100"),
                (["imagenet", "m.pkl"], "--expect-error", "to 100"),
            ]
            for value in ("nan", "inf", "-5", "high")
        ),
        (["verify", "detections", "a.json", "b.json", "--box-iou", "1.5"], ["--box-iou: '1.5' is no number from 0 to"]),
        (["verify", "ap", "m.pkl", "--expect-box", "101"], ["--expect-box: '101' is no number from 0 to 100"]),
    ],
)
def test_bad_arguments_end_in_one_sentence_and_exit_code_2(
    run: Run, arguments: list[str], parts: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert_one_sentence(run(*arguments), *parts)
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


@pytest.mark.parametrize(
    ("arguments", "meant"),
    [
        (["verfy"], "verify"),
        (["Models"], "models"),
        (["predict", "model.pkl", "photo.jpg"], "detect"),
        (["tools/train_net.py", "--cfg", "c.yaml"], "train"),
        (["eval"], "test"),
        (["verify", "blob"], "blobs"),
        (["models", "--serch", "GN"], "--search"),
        (["detect", "m.pkl", "a.jpg", "--out", "o", "--minscore=0.7"], "--min-score"),
        (["verify", "ap", "m.pkl", "--annotations", "a", "--images", "b", "--expected-box", "40"], "--expect-box"),
        (["convert", "m.pkl", "--out", "o.pth", "--layout", "torch-vision"], "torchvision"),
        (["completion", "zhs"], "zsh"),
    ],
    ids=lambda value: value if isinstance(value, str) else " ".join(value),
)
def test_a_near_miss_is_told_what_was_probably_meant(run: Run, arguments: list[str], meant: str) -> None:
    assert_one_sentence(run(*arguments), f" (did you mean {meant}?); see detectron-gn")


FOREIGN = [
    # Detectron.
    ("detect m.pkl --cfg c.yaml a.jpg", "here --cfg is --config; see"),
    ("detect --wts m.pkl a.jpg", "--wts: here --wts is SOURCE, without an option; see"),
    ("train --wts m.pkl", "here --wts is --weights; see"),
    ("detect m.pkl a.jpg --thresh=0.7", "arguments: --thresh: here --thresh is --min-score; see"),
    ("detect m.pkl a.jpg --output-dir o", "here --output-dir is --out; see"),
    ("detect m.pkl photos --image-ext jpg", "--image-ext: give a pattern in place of a folder"),
    ("detect m.pkl --im_or_folder photos", "is INPUT, without an option"),
    ("test m.pkl --multi-gpu-testing", "torchrun --nproc_per_node N"),
    ("inspect --wts m.pkl", "here --wts is SOURCE, without"),
    # detectron2 and maskrcnn-benchmark.
    ("train --config-file c.yaml --num-gpus 8", "here --config-file is --config; --num-gpus: start it with `torchrun"),
    ("detect m.pkl --input a.jpg --output o --opts MODEL.WEIGHTS w", "here --output is --out; here --opts is --set"),
    # Some of each, and a slip.
    ("detect m.pkl a.jpg --cfg c.yaml --minscore 0.7", "here --cfg is --config (did you mean --min-score?); see"),
    # Keys without --set, as Detectron takes them.
    ("detect m.pkl a.jpg TEST.NMS 0.3", "TEST.NMS: put --set before TEST.NMS; see"),
    ("train --config c OUTPUT_DIR o TRAIN.WEIGHTS w", "here OUTPUT_DIR is --out; here TRAIN.WEIGHTS is --weights; see"),
    ("score r.json --annotations a.json NUM_GPUS 1", "this command takes no keys of a configuration"),
    ("detect --set TEST.NMS 0.3 m.pkl a.jpg", "SOURCE, INPUT: --set takes every word behind it: write it after them"),
]


@pytest.mark.parametrize(("line", "part"), FOREIGN, ids=[line for line, _ in FOREIGN])
def test_the_options_of_other_programs_are_told_by_their_name_here(run: Run, line: str, part: str) -> None:
    result = run(*line.split())
    assert_one_sentence(result, part, "arguments")
    assert "a.jpg" not in result[2]


def test_a_file_called_like_a_key_is_an_input(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("TEST.JPG").touch()
    assert_one_sentence(run("detect", "none.pkl", "TEST.JPG"), "none.pkl: there is no such file")
    assert_one_sentence(run("detect", "none.pkl", "NONE.JPG"), "NONE.JPG: no such image file")


def test_help_is_a_word_too(run: Run) -> None:
    assert run("help") == run("--help")
    assert run("help", "detect") == run("detect", "help") == run("detect", "--help")
    assert run("verify", "help")[0] == run("help", "verify", "blobs")[0] == 0


def test_a_bare_command_prints_the_help(run: Run) -> None:
    assert run() == run("--help")
    assert run()[0] == 0


GROUPS = sorted({command[:-1] for command in COMMANDS})


@pytest.mark.parametrize("command", [*COMMANDS, *GROUPS], ids=" ".join)
def test_every_help_fits_into_80_columns(run: Run, command: tuple[str, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    printed = run(*command, "--help")[1]
    assert [line for line in printed.splitlines() if len(line) > 80] == []


def test_an_example_is_cut_as_a_shell_takes_it(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    example = run("verify", "all", "--help")[1].partition("example:\n")[2]
    words = ["verify", "all", "model_final.pkl", "--reference", "blobs.h5", "--images", "val2017"]
    assert shlex.split(example.replace(" \\\n", ""))[:8] == ["detectron-gn", *words]
    assert [line.endswith(" \\") for line in example.splitlines()] == [True, False]
    assert "--search 'R-50 GN'" in run("models", "--help")[1]


@pytest.mark.parametrize("command", ["detect", "test", "demo"])
def test_an_output_folder_that_cannot_be_written_is_refused_before_any_work(
    command: str, run: Run, demo_model: Path, tmp_path: Path
) -> None:
    (tmp_path / "file").touch()
    out = ["--out", tmp_path / "file" / "out"]
    data = ["--annotations", demo_model / "instances_val.json"]
    arguments = {
        "detect": ["no_model.pkl", demo_model / "val" / "000000300000.png", *data],
        "test": ["no_model.pkl", *data, "--images", demo_model / "val"],
        "demo": [],
    }[command]
    assert_one_sentence(run(command, *arguments, *out), f"{out[1]}: Not a directory")


def test_a_json_file_that_cannot_be_written_is_refused_before_any_work(run: Run, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert_one_sentence(run("convert", "none.pkl", "--out", "o.pth", "--json", tmp_path / "file" / "j"), "file")


def test_load_gives_a_model_that_detects(pickle: Path, demo_model: Path) -> None:
    model = detectron_gn.load(pickle, overrides=["TEST.DETECTIONS_PER_IM", "1"], device="cpu")
    found = model.detect(cv2.imread(str(demo_model / "val" / "000000300000.png")))
    reference = json.loads((demo_model / "bbox_coco_shapes_val_results.json").read_text())
    best = max((row for row in reference if row["image_id"] == 300000), key=lambda row: row["score"])
    assert len(found) == 1
    np.testing.assert_allclose(found.boxes[0, :2], best["bbox"][:2], atol=0.02)
    with pytest.raises(InputError):
        detectron_gn.load(pickle, config="R-50")


def test_an_interrupted_command_says_so_and_exits_with_130(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(entries: object) -> str:
        raise KeyboardInterrupt

    monkeypatch.setattr("detectron_gn.weights.catalog.table", interrupt)
    assert run("models") == (130, "", "detectron-gn: interrupted\n")


@pytest.mark.parametrize(
    ("error", "sentence"),
    [
        (MemoryError(), "there is not enough memory, or no thread is left: take fewer or smaller images at once"),
        (ImportError("libtorch_cpu.so: failed to map segment from shared object"), "left (libtorch_cpu.so: failed to"),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried\nx"), "can't allocate memory: you"),
        (RuntimeError("CUDA out of memory. Tried to allocate 2 GiB"), "(CUDA out of memory. Tried to allocate 2 GiB)"),
        (RuntimeError("std::bad_alloc"), "(std::bad_alloc): take fewer"),
        (RuntimeError("can't start new thread"), "raise the limits of this shell (ulimit -v, ulimit -u) or container"),
        (cv2.error("OpenCV: (-4:Insufficient memory) Failed to allocate 9 bytes"), "not enough memory"),
        (OSError(errno.EMFILE, "Too many open files", "a.jpg"), "too many files are open: raise the limit (ulimit -n)"),
        (OSError(errno.ENFILE, "Too many open files in system"), "too many files are open"),
        (FileNotFoundError(errno.ENOENT, "No usable temporary directory found in ['/tmp']"), "let TMPDIR name one"),
    ],
    ids=lambda value: value if isinstance(value, str) else type(value).__name__,
)
def test_a_machine_that_is_too_small_is_told_in_one_sentence(
    error: Exception, sentence: str, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> str:
        raise error

    monkeypatch.setattr("detectron_gn.weights.catalog.table", fail)
    assert_one_sentence(run("models"), sentence)


@pytest.mark.skipif(sys.platform != "linux", reason="limits the address space as Linux does")
def test_an_address_space_without_room_for_torch_is_one_sentence(
    pickle: Path, demo_model: Path, tmp_path: Path
) -> None:
    code = (
        "import resource, sys; resource.setrlimit(resource.RLIMIT_AS, (600_000 * 1024,) * 2); import detectron_gn; "
        "sys.exit(detectron_gn.main(sys.argv[1:]))"
    )
    image = demo_model / "val" / "000000300000.png"
    command = [sys.executable, "-c", code, "detect", str(pickle), str(image), "--out", str(tmp_path / "out")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert_one_sentence((done.returncode, "", done.stderr), "there is not enough memory", "ulimit -v")


def test_a_user_without_a_home_is_told_where_else_the_cache_may_be(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_home() -> Path:
        raise RuntimeError("Could not determine home directory.")

    for name in ("XDG_CACHE_HOME", "DETECTRON_GN_CACHE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(Path, "home", no_home)
    assert_one_sentence(run("download", "48616381"), "there is no home folder to keep downloads in: set")


def test_a_signal_leaves_nothing_half_written(
    run: Run, pickle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "model.pth").write_text("before")
    sync = atomic.sync

    def stopped(path: Path) -> None:
        assert len(list(tmp_path.iterdir())) == 2
        signal.raise_signal(signal.SIGTERM)
        sync(path)

    monkeypatch.setattr(atomic, "sync", stopped)
    result = run("convert", pickle, "--out", tmp_path / "model.pth")
    assert result == (143, "", "detectron-gn: stopped by SIGTERM\n")
    assert [path.read_text() for path in tmp_path.iterdir()] == ["before"]


def test_errors_of_the_program_itself_are_not_hidden(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(entries: object) -> str:
        raise ValueError("a bug")

    monkeypatch.setattr("detectron_gn.weights.catalog.table", fail)
    with pytest.raises(ValueError, match="a bug"):
        run("models")


def test_a_reader_that_leaves_early_is_no_error() -> None:
    command = [sys.executable, "-c", "import detectron_gn, sys; sys.exit(detectron_gn.main(['models']))"]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None and process.stderr is not None
        process.stdout.close()
        assert process.stderr.read() == b""
    assert process.returncode == 141


FULL = Path("/dev/full")


@pytest.mark.skipif(not FULL.is_char_device(), reason="needs Linux's device that is always full")
@pytest.mark.parametrize("arguments", [["models"], ["detections"]], ids=" ".join)
def test_an_output_that_cannot_be_written_is_one_sentence(arguments: list[str], demo_model: Path) -> None:
    if arguments == ["detections"]:
        file = str(demo_model / "bbox_coco_shapes_val_results.json")
        arguments = ["verify", "detections", file, file]
    code = f"import detectron_gn, sys; sys.exit(detectron_gn.main({arguments}))"
    with FULL.open("w") as full:
        done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, stdout=full, stderr=subprocess.PIPE, text=True)
    assert_one_sentence((done.returncode, "", done.stderr), "the output cannot be written: No space left on device")


def test_a_demo_without_room_names_the_file(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(self: Path, data: bytes) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", refuse)
    assert_one_sentence(run("demo", "--out", tmp_path), "model_final.pkl: could not be written: No space left")


def test_the_help_names_more_families_than_one(run: Run) -> None:
    told = " ".join(run("--help")[1].split())
    assert all(family in told for family in ("Mask", "Faster", "Keypoint R-CNN", "RetinaNet", "RPN"))


OVERWRITING = [
    "convert model.pkl --strip --out model.pkl",
    "convert model.pkl --strip --out ./folder/../model.pkl",
    "convert model.pkl --out link.pkl",
    "convert link.pkl --out model.pkl",
    "export model.pkl --config c.yaml --out c.yaml",
    "export model.pkl --out m.onnx --json model.pkl",
    "inspect model.pkl --json model.pkl",
    "score bbox.json --annotations a.json --json bbox.json",
    "score bbox.json --annotations a.json --json a.json",
    "verify detections b.json bbox.json --json b.json",
    "verify all model.pkl --annotations a.json --images folder --reference-boxes bbox.json --out .",
    "verify all model.pkl --annotations a.json --images folder --reference-boxes b.json --json b.json",
    "test model.pkl --annotations ap.json --images folder --out .",
    "verify ap model.pkl --annotations a.json --images folder --proposals rpn_proposals.pkl --out .",
    "train --weights model.pkl --annotations a.json --images folder --out run --json a.json",
    "check-data --annotations a.json --images folder --json a.json",
    "convert model.pkl --out m.pth --json m.pth",
]


@pytest.mark.parametrize("line", OVERWRITING)
def test_no_result_takes_the_place_of_an_input(
    run: Run, line: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("folder").mkdir()
    for name in ("model.pkl", "bbox.json", "a.json", "ap.json", "b.json", "c.yaml", "rpn_proposals.pkl"):
        Path(name).write_text("before")
    Path("link.pkl").symlink_to("model.pkl")
    assert_one_sentence(run(*line.split()), "both name" if "m.pth" in line else "is to be read, and a result would be")
    assert {path.read_text() for path in tmp_path.iterdir() if path.is_file()} == {"before"}
