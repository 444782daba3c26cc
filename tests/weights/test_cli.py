"""`models`, `download` and `convert` as users meet them; broken weights files are refused in one sentence."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from detectron_gn import weights
from detectron_gn.weights import read_blobs
from tests.helpers.command_line import Run, assert_one_sentence

ROOT = Path(__file__).resolve().parents[2]


def test_models_lists_the_catalog_without_torch() -> None:
    code = "import detectron_gn, sys; detectron_gn.main(['models']); print({'torch', 'cv2'} & set(sys.modules))"
    result = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert "48616381" in result.stdout and result.stdout.endswith("set()\n")


def test_the_rooms_public_names_are_imported_at_their_first_use() -> None:
    code = (
        "import sys, detectron_gn.weights as w; print('numpy' in sys.modules, w.WeightsError.__name__, "
        "'numpy' in sys.modules, w.read_blobs.__name__, 'numpy' in sys.modules)"
    )
    result = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert result.stdout.split() == ["False", "WeightsError", "False", "read_blobs", "True"]
    for name in weights.__all__:
        assert getattr(weights, name).__name__ == name
    with pytest.raises(AttributeError, match="read_blob"):
        weights.read_blob  # noqa: B018


def test_convert_gives_the_same_blobs_in_another_format(run: Run, pickle: Path, tmp_path: Path) -> None:
    out = tmp_path / "model.safetensors"
    code, printed, _ = run("convert", pickle, "--out", out)
    assert code == 0 and f"{out}: 223 blobs" in printed
    before, after = read_blobs(pickle), read_blobs(out)
    assert after.format == "safetensors" and after.cfg == before.cfg
    assert all(np.array_equal(after.blobs[name], array) for name, array in before.blobs.items())


@pytest.mark.parametrize(
    ("content", "parts"),
    [
        (lambda data: data[:100_000], ["broken.pkl"]),
        (lambda data: b"<!DOCTYPE html><html><body>404</body></html>", ["broken.pkl", "HTML"]),
        (lambda data: b"", ["broken.pkl"]),
    ],
    ids=["truncated", "an error page", "empty"],
)
def test_a_broken_weights_file_is_refused(
    content: Callable[[bytes], bytes], parts: list[str], run: Run, pickle: Path, tmp_path: Path
) -> None:
    path = tmp_path / "broken.pkl"
    path.write_bytes(content(pickle.read_bytes()))
    assert_one_sentence(run("convert", path, "--out", tmp_path / "o.pth"), *parts)
    assert [file.name for file in tmp_path.iterdir()] == ["broken.pkl"]
