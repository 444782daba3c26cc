"""Which weights a reference was recorded with, as Caffe2 held them."""

import hashlib
import shutil
from pathlib import Path

import h5py
import numpy as np
import pytest

from detectron_gn.mrcnn.errors import InputError
from detectron_gn.port.blobs.convert import model_blobs
from detectron_gn.port.runs.load import load_model
from detectron_gn.verify.reference.weights_digests import ATTRIBUTE, compare_weights, digest_of, recorded_digests


def test_the_embedded_models_weights_are_those_that_caffe2_held(pickle: Path, demo_model: Path) -> None:
    blobs = model_blobs(load_model(str(pickle), device="cpu"))
    same = compare_weights(demo_model / "blobs.h5", blobs)
    assert same.compared == len(blobs) == 223 and same.others == ()
    assert same.told == "all 223 parameters are the reference's, to the bit"
    blobs["fc6_w"] = blobs["fc6_w"].copy()
    blobs["fc6_w"].reshape(-1)[7] = np.nextafter(blobs["fc6_w"].reshape(-1)[7], np.float32(1))
    other = compare_weights(demo_model / "blobs.h5", blobs)
    assert other.told == "1 of 223 parameters are not the reference's: fc6_w"
    more = compare_weights(demo_model / "blobs.h5", blobs | {"of_ours_alone": np.zeros(3)})
    assert more.told == (
        "1 of 224 parameters are not the reference's: fc6_w; 1 have no digest in it and were not compared"
    )


def test_a_digest_is_of_float32_in_c_order_lowest_byte_first() -> None:
    array = np.arange(6, dtype=np.float64).reshape(2, 3).T
    assert digest_of(array) == hashlib.sha256(np.array([0, 3, 1, 4, 2, 5], "<f4").tobytes()).hexdigest()


def test_references_of_before_tell_nothing_and_damaged_ones_are_refused(demo_model: Path, tmp_path: Path) -> None:
    path = tmp_path / "old.h5"
    shutil.copyfile(demo_model / "blobs.h5", path)
    with h5py.File(path, "r+") as file:
        del file.attrs[ATTRIBUTE]
    none = compare_weights(path, {"conv1_w": np.zeros(1)})
    assert recorded_digests(path) == {} and none.not_compared == "the weights themselves (no digests)"
    assert none.told.startswith("the weights themselves were not compared: the reference has no digests of them")
    for wrong in (["conv1_w 12"], [3], "conv1_w"):
        with h5py.File(path, "r+") as file:
            file.attrs[ATTRIBUTE] = wrong
        with pytest.raises(InputError, match="weights_sha256 holds other lines than NAME SHA256"):
            recorded_digests(path)


def test_digests_of_some_parameters_are_not_taken_for_all(pickle: Path, demo_model: Path, tmp_path: Path) -> None:
    path = tmp_path / "part.h5"
    shutil.copyfile(demo_model / "blobs.h5", path)
    with h5py.File(path, "r+") as file:
        file.attrs[ATTRIBUTE] = file.attrs[ATTRIBUTE][:3]
    part = compare_weights(path, model_blobs(load_model(str(pickle), device="cpu")))
    assert part.others == () and part.not_compared == "220 of 223 parameters (no digests)"
    assert part.told == (
        "3 of 223 parameters are the reference's, to the bit; 220 have no digest in it and were not compared"
    )
