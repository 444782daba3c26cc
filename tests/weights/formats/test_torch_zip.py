"""A `.pth` is read as torch reads it, or refused: flags, strides, storages, members, and what stands beside tensors."""

import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch

from detectron_gn.weights import read_blobs
from detectron_gn.weights.errors import ForbiddenContent, MalformedFile, OverBudget, UnsupportedArray


def saved(path: Path, content: object) -> dict[str, bytes]:
    """The members of what torch.save writes, under their names without the folder."""
    torch.save(content, path)
    with zipfile.ZipFile(path) as archive:
        return {name.split("/", 1)[1]: archive.read(name) for name in archive.namelist()}


def archive(path: Path, members: dict[str, bytes], folder: str = "archive/") -> None:
    with zipfile.ZipFile(path, "w") as handle:
        for name, content in members.items():
            handle.writestr(f"{folder}{name}", content)


def changed(path: Path, tensor: torch.Tensor, old: bytes, new: bytes) -> None:
    """`tensor` as `w` in a `.pth` of whose pickle a part is changed."""
    members = saved(path, {"w": tensor})
    assert members["data.pkl"].count(old) == 1
    archive(path, members | {"data.pkl": members["data.pkl"].replace(old, new)})


def read(path: Path) -> np.ndarray:
    return read_blobs(path).blobs["w"]


@pytest.mark.parametrize(
    "make",
    [
        lambda: torch.tensor([1 + 2j, 3 + 4j]).conj().imag,
        lambda: torch.arange(12.0).reshape(2, 3, 2)._neg_view().transpose(0, 1),
        lambda: torch.arange(6)._neg_view()[2:],
    ],
    ids=["imaginary part of a conjugate", "negative transposed view", "whole numbers"],
)
def test_a_tensor_whose_elements_count_negated_is_read_negated(make, tmp_path: Path) -> None:
    torch.save({"w": make()}, tmp_path / "m.pth")
    expected = torch.load(tmp_path / "m.pth", weights_only=True)["w"].resolve_neg()
    found = read(tmp_path / "m.pth")
    assert found.tolist() == expected.tolist() and found.flags.c_contiguous


@pytest.mark.parametrize("flags", [b"}X\x04\0\0\0conj\x88s", b"}X\x03\0\0\0neg\x89s", b"}X\x03\0\0\0abc\x88s", b"]"])
def test_every_other_flag_of_a_tensor_is_refused(flags: bytes, tmp_path: Path) -> None:
    tensor = torch.ones(2)._neg_view()
    changed(tmp_path / "m.pth", tensor, b"}q\x0cX\x03\0\0\0negq\x0d\x88s", flags)
    with pytest.raises(UnsupportedArray, match="a tensor with flags that change its elements"):
        read(tmp_path / "m.pth")


def test_a_tensor_with_hooks_is_refused(tmp_path: Path) -> None:
    changed(tmp_path / "m.pth", torch.ones(2), b"ccollections\nOrderedDict\nq\x0a)Rq\x0b", b"}K\x01K\x02s")
    with pytest.raises(ForbiddenContent, match="not as torch.save does"):
        read(tmp_path / "m.pth")


@pytest.mark.parametrize("shape", [(1, 3), (0, 3), (3, 1, 1)], ids=str)
def test_any_stride_is_read_on_an_axis_without_a_second_element(shape: tuple[int, ...], tmp_path: Path) -> None:
    strides = [2**60 if size < 2 else 1 for size in shape]
    tensor = torch.arange(3.0).as_strided(shape, strides)
    torch.save({"w": tensor}, tmp_path / "m.pth")
    assert torch.load(tmp_path / "m.pth", weights_only=True)["w"].tolist() == read(tmp_path / "m.pth").tolist()
    assert read(tmp_path / "m.pth").shape == shape


def test_an_untyped_storage_of_odd_length_is_read(tmp_path: Path) -> None:
    storage = torch.UntypedStorage(7)
    tensor = torch.empty(0, dtype=torch.uint16).set_(storage, 1, (2,), (1,)).fill_(513)
    torch.save({"w": tensor}, tmp_path / "m.pth")
    assert torch.load(tmp_path / "m.pth", weights_only=True)["w"].tolist() == read(tmp_path / "m.pth").tolist()
    assert read(tmp_path / "m.pth").tolist() == [513, 513]


def test_a_slice_without_elements_may_begin_anywhere(tmp_path: Path) -> None:
    torch.save({"w": torch.ones(4, 5)[4:, 2:]}, tmp_path / "m.pth")
    assert read(tmp_path / "m.pth").shape == (0, 3)


def test_tied_weights_are_read_as_one_array(tmp_path: Path) -> None:
    weight = torch.arange(1000.0)
    torch.save({"a": weight, "b": weight}, tmp_path / "m.pth")
    found = read_blobs(tmp_path / "m.pth").blobs
    assert found["a"] is found["b"] and found["a"].tolist() == weight.tolist()


def test_views_of_one_storage_that_together_are_larger_than_the_file_are_refused(tmp_path: Path) -> None:
    weight = torch.arange(10_000.0)
    torch.save({str(start): weight[start:] for start in range(9)}, tmp_path / "m.pth")
    with pytest.raises(OverBudget, match="its arrays would take 359856 bytes, but the file has only"):
        read_blobs(tmp_path / "m.pth")


def test_one_storage_under_two_sizes_is_refused(tmp_path: Path) -> None:
    """torch takes the size that is told first for both."""
    members = saved(tmp_path / "m.pth", {"w": torch.arange(4.0), "v": torch.arange(9.0)})
    key = b"X\x01\0\0\0" + b"1"
    assert members["data.pkl"].count(key) == 1
    archive(tmp_path / "m.pth", members | {"data.pkl": members["data.pkl"].replace(key, b"X\x01\0\0\0" + b"0")})
    with pytest.raises(MalformedFile, match="gives a storage two sizes or two element types"):
        read_blobs(tmp_path / "m.pth")


def test_a_file_saved_without_checksums_is_read(tmp_path: Path) -> None:
    torch.serialization.set_crc32_options(False)
    try:
        torch.save({"w": torch.arange(5.0)}, tmp_path / "m.pth")
    finally:
        torch.serialization.set_crc32_options(True)
    assert read(tmp_path / "m.pth").tolist() == [0, 1, 2, 3, 4]


def test_what_training_scripts_put_beside_tensors_is_left_out_and_told(tmp_path: Path) -> None:
    beside = {"size": torch.Size([1, 2]), "number": np.float64(3), "device": torch.device("cuda:1"), "type": torch.half}
    torch.save({"w": torch.ones(2), **beside}, tmp_path / "m.pth")
    assert read_blobs(tmp_path / "m.pth").left_out == {
        "size": "is a tuple, not an array",
        "number": "is a numpy number, not an array",
        "device": "is a text, not an array",
        "type": "is float16, not an array",
    }


@pytest.mark.parametrize(
    ("folder", "name"),
    [("archive/", "archive/xdata.pkl"), ("archive/", "archive/sub/xdata.pkl")],
)
def test_only_a_member_of_exactly_that_name_is_the_pickle(folder: str, name: str, tmp_path: Path) -> None:
    other = saved(tmp_path / "other.pth", {"other": torch.zeros(2)})
    members = saved(tmp_path / "m.pth", {"w": torch.ones(2)})
    archive(tmp_path / "m.pth", {name: other["data.pkl"]} | {folder + key: value for key, value in members.items()}, "")
    assert list(torch.load(tmp_path / "m.pth", weights_only=True)) == ["w"]
    assert list(read_blobs(tmp_path / "m.pth").blobs) == ["w"]


@pytest.mark.parametrize("name", ["other/data.pkl", "archive/DATA.PKL", "archive/Data/0", "data/0"])
def test_members_that_two_readers_may_choose_between_are_refused(name: str, tmp_path: Path) -> None:
    members = saved(tmp_path / "m.pth", {"w": torch.ones(2)})
    archive(tmp_path / "m.pth", {name: b""} | {f"archive/{key}": value for key, value in members.items()}, "")
    with pytest.raises(MalformedFile, match="has two members named|has 2 members named data.pkl"):
        read_blobs(tmp_path / "m.pth")


def test_a_member_whose_name_ends_early_for_one_reader_is_refused(tmp_path: Path) -> None:
    members = saved(tmp_path / "m.pth", {"w": torch.ones(2)})
    archive(tmp_path / "m.pth", members | {"dataX0": b"1234"})
    content = (tmp_path / "m.pth").read_bytes()
    (tmp_path / "m.pth").write_bytes(content.replace(b"archive/dataX0", b"archive/da\0aX0"))
    with pytest.raises(MalformedFile, match="two names"):
        read_blobs(tmp_path / "m.pth")
