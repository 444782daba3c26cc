"""Class names and category ids travel in every format, are passed over by Detectron, and are read without trust."""

import json
import pickle
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from safetensors.numpy import save_file

from detectron_gn.weights import WeightsFile, read_blobs, write_blobs
from detectron_gn.weights.categories import Category
from detectron_gn.weights.convert import convert
from detectron_gn.weights.errors import WriteFailed

SUFFIXES = [".pkl", ".h5", ".safetensors", ".pth"]
CATEGORIES = (
    Category(3, "circle"),
    Category(-17, "a\tb\nc\x1b[2J"),
    Category(2**62, "Käfer \N{LATIN SMALL LETTER E}\N{COMBINING ACUTE ACCENT}"),
    Category(0, "四角"),
    Category(62, ""),
)


@pytest.mark.parametrize("through", SUFFIXES)
def test_a_pickle_with_classes_comes_back_as_the_same_file_through_any_format(
    through: str, tmp_path: Path, small: WeightsFile
) -> None:
    first, second = tmp_path / "model_iter2399.pkl", tmp_path / "back" / "model_iter2399.pkl"
    second.parent.mkdir()
    write_blobs(first, replace(small, categories=CATEGORIES))
    assert convert(first, tmp_path / f"m{through}").weights.categories == CATEGORIES
    assert read_blobs(tmp_path / f"m{through}").categories == CATEGORIES
    convert(tmp_path / f"m{through}", second)
    assert second.read_bytes() == first.read_bytes()


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_file_without_classes_holds_no_word_of_them(suffix: str, tmp_path: Path, small: WeightsFile) -> None:
    write_blobs(tmp_path / f"m{suffix}", small)
    assert read_blobs(tmp_path / f"m{suffix}").categories is None
    assert b"categories" not in (tmp_path / f"m{suffix}").read_bytes()


def test_detectron_passes_over_the_classes_of_a_pickle(tmp_path: Path, small: WeightsFile) -> None:
    """Its rule is written out here (utils/io.py:load_object, utils/net.py:initialize_gpu_from_weights_file)."""
    write_blobs(tmp_path / "m.pkl", replace(small, categories=CATEGORIES))
    write_blobs(tmp_path / "without.pkl", small)
    read = []
    for name in ("m.pkl", "without.pkl"):
        with open(tmp_path / name, "rb") as file:
            source_blobs = pickle.load(file, encoding="latin1")
        cfg = source_blobs["cfg"] if "cfg" in source_blobs else None
        if "blobs" in source_blobs:
            source_blobs = source_blobs["blobs"]
        read.append((cfg, {name: (a.dtype, a.shape, a.tobytes()) for name, a in source_blobs.items()}))
    assert read[0] == read[1]


def test_any_program_reads_the_classes_as_cocos_list_of_categories(tmp_path: Path, small: WeightsFile) -> None:
    for suffix in SUFFIXES:
        write_blobs(tmp_path / f"m{suffix}", replace(small, categories=CATEGORIES))
    expected = [{"id": category.id, "name": category.name} for category in CATEGORIES]
    with open(tmp_path / "m.pkl", "rb") as file, h5py.File(tmp_path / "m.h5") as handle:
        found = [pickle.load(file, encoding="latin1")["categories"], handle.attrs["categories"].decode()]
    found.append(torch.load(tmp_path / "m.pth", weights_only=True)["categories"])
    assert all(json.loads(text) == expected for text in found)


def holding(folder: Path, suffix: str, text: object) -> Path:
    """A file of `suffix` that holds `text` where the classes are."""
    path = folder / f"m{suffix}"
    array = np.ones(2, "f4")
    if suffix == ".pkl":
        path.write_bytes(pickle.dumps({"blobs": {"conv1_w": array}, "categories": text}, protocol=2))
    elif suffix == ".pth":
        torch.save({"blobs": {"conv1_w": torch.from_numpy(array)}, "categories": text}, path)
    elif suffix == ".h5":
        with h5py.File(path, "w") as handle:
            handle["conv1_w"] = array
            content = str(text).encode()
            handle.attrs.create("categories", content, dtype=h5py.string_dtype("utf-8", len(content)))
    else:
        save_file({"conv1_w": array}, path, {"categories": str(text)})
    return path


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("person", "is not JSON"),
        ("[" * 60_000, "is not JSON"),
        ('[{"id": 1' + "0" * 50_000 + ', "name": "cat"}]', "is not JSON"),
        ('{"id": 1, "name": "cat"}', "is no list of objects"),
        ('["cat", "dog"]', "is no list of objects"),
        ('[{"id": 1}]', "is no list of objects"),
        ("[]", "names 0 classes"),
        ('[{"id": 1, "name": 7}]', "names class 1 by what is no text"),
        ('[{"id": 1, "name": "\\ud800"}]', "names class 1 by what is no text"),
        (f'[{{"id": 1, "name": "{"x" * 1025}"}}]', "names class 1 by a text longer than 1024 bytes"),
        ('[{"id": true, "name": "cat"}]', "gives class 1 an id that is no whole number"),
        ('[{"id": 1.5, "name": "cat"}]', "gives class 1 an id that is no whole number"),
        ('[{"id": 9223372036854775808, "name": "cat"}]', "gives class 1 an id that is no whole number"),
        ('[{"id": 1, "name": "cat"}, {"id": 2, "name": "cat"}]', "gives 2 classes the name 'cat'"),
        ('[{"id": 1, "name": "cat"}, {"id": 1, "name": "dog"}]', "gives 2 classes the id 1"),
    ],
)
def test_classes_that_cannot_be_used_are_told_and_left_out(
    suffix: str, text: str, reason: str, tmp_path: Path
) -> None:
    found = read_blobs(holding(tmp_path, suffix, text))
    assert list(found.blobs) == ["conv1_w"]
    assert found.categories is None and found.left_out["categories"].startswith(reason)


@pytest.mark.parametrize("value", [None, 5, ["cat", "dog"], {"1": "cat"}, b"\xff\xfe", "x" * (5 << 20)])
def test_another_value_under_that_name_is_told_and_left_out(value: object, tmp_path: Path) -> None:
    for suffix in (".pkl", ".pth"):
        if suffix == ".pth" and isinstance(value, bytes):
            continue
        found = read_blobs(holding(tmp_path, suffix, value))
        assert found.categories is None and "categories" in found.left_out


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_bare_dictionary_may_hold_an_array_of_that_name(suffix: str, tmp_path: Path) -> None:
    array = np.arange(3, dtype="f4")
    write_blobs(tmp_path / f"m{suffix}", WeightsFile({"categories": array}, None, None, "x", "pkl"))
    assert read_blobs(tmp_path / f"m{suffix}").blobs["categories"].tolist() == [0, 1, 2]
    (tmp_path / "bare.pkl").write_bytes(pickle.dumps({"categories": array}, protocol=2))
    assert read_blobs(tmp_path / "bare.pkl").blobs["categories"].tolist() == [0, 1, 2]


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_classes_that_could_not_be_read_again_are_not_written(suffix: str, tmp_path: Path, small: WeightsFile) -> None:
    twice = (Category(1, "cat"), Category(2, "cat"))
    with pytest.raises(WriteFailed, match="gives 2 classes the name 'cat'"):
        write_blobs(tmp_path / f"m{suffix}", replace(small, categories=twice))
    assert list(tmp_path.iterdir()) == []


def test_hdf5_says_that_it_holds_no_more_names(tmp_path: Path, small: WeightsFile) -> None:
    many = tuple(Category(number, f"{number:030}") for number in range(1500))
    for suffix in (".pkl", ".safetensors", ".pth"):
        write_blobs(tmp_path / f"m{suffix}", replace(small, categories=many))
        assert read_blobs(tmp_path / f"m{suffix}").categories == many
    with pytest.raises(WriteFailed, match="categories has .* bytes, an HDF5 attribute holds 64000"):
        write_blobs(tmp_path / "m.h5", replace(small, categories=many))
