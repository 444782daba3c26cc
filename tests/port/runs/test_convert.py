"""`convert` of a `state_dict` of this project: Detectron's names and its configuration, or a refusal."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from detectron_gn.port.blobs.convert import model_blobs
from detectron_gn.port.runs.load import load_model
from detectron_gn.weights import read_blobs, write_blobs
from tests.helpers.command_line import Run, assert_one_sentence


@pytest.fixture
def saved(pickle: Path, tmp_path: Path) -> tuple[Path, Path]:
    """The embedded model's `state_dict`, and its configuration."""
    path, config = tmp_path / "sd.pth", tmp_path / "model.yaml"
    config.write_text(str(read_blobs(pickle).cfg))
    torch.save(load_model(pickle).state_dict(), path)
    return path, config


@pytest.mark.parametrize("suffix", [".pkl", ".h5", ".safetensors", ".pth"])
def test_a_state_dict_becomes_detectrons_blobs_with_its_configuration(
    saved: tuple[Path, Path], suffix: str, run: Run, pickle: Path, tmp_path: Path
) -> None:
    path, config = saved
    out = tmp_path / f"model{suffix}"
    code, printed, errors = run("convert", path, "--out", out, "--config", config)
    assert code == 0 and f"{out}: 223 blobs" in printed, errors
    before, after = read_blobs(pickle).blobs, read_blobs(out).blobs
    assert after.keys() == before.keys() and (suffix != ".pkl" or list(after) == list(model_blobs(load_model(pickle))))
    assert not [name for name in after if not np.array_equal(after[name], before[name])]
    # The file needs nothing beside it any more.
    assert load_model(out).cfg == load_model(pickle).cfg


def test_without_a_configuration_it_is_refused_and_nothing_is_written(
    saved: tuple[Path, Path], run: Run, tmp_path: Path
) -> None:
    path, config = saved
    out = tmp_path / "model.pkl"
    assert_one_sentence(run("convert", path, "--out", out), "is a state_dict of this project's", "pass --config")
    assert_one_sentence(run("convert", path, "--out", out, "--config", "e2e_faster_rcnn_R-50-FPN_2x"), "--config")
    state = torch.load(path)
    del state["box_head.fc6.bias"]
    torch.save(state, path)
    assert_one_sentence(run("convert", path, "--out", out, "--config", config), "lacks box_head.fc6.bias")
    assert not out.exists()


@pytest.mark.parametrize("suffix", [".pkl", ".pth"])
def test_a_stripped_model_is_half_the_size_detects_the_same_and_is_no_checkpoint(
    suffix: str, run: Run, pickle: Path, tmp_path: Path
) -> None:
    trained = read_blobs(pickle)
    momenta = {f"{name}_momentum": blob + 1 for name, blob in trained.blobs.items()}
    whole, small = tmp_path / f"model_iter7{suffix}", tmp_path / f"small{suffix}"
    write_blobs(whole, replace(trained, blobs={**trained.blobs, **momenta}, iteration=7))
    code, printed, errors = run("convert", whole, "--out", small, "--strip")
    assert code == 0 and f"{small}: {len(trained.blobs)} blobs" in printed, errors
    assert small.stat().st_size < 0.52 * whole.stat().st_size
    stripped = read_blobs(small)
    assert stripped.iteration is None and stripped.cfg == trained.cfg
    assert all(np.array_equal(stripped.blobs[name], blob) for name, blob in trained.blobs.items())
