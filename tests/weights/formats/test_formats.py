"""Facts of the four formats: what survives every conversion, and how a file is recognised."""

import json
import re
import shlex
import shutil
import subprocess
import sys
import zipfile
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from safetensors import safe_open

from detectron_gn.weights import WeightsFile, read_blobs, write_blobs
from detectron_gn.weights.convert import convert
from detectron_gn.weights.errors import (
    MalformedFile,
    OverBudget,
    UnreadableFile,
    UnsupportedArray,
    WeightsError,
    WriteFailed,
    WrongFormat,
)

SUFFIXES = [".pkl", ".h5", ".safetensors", ".pth"]


def same(left: WeightsFile, right: WeightsFile) -> bool:
    return list(left.blobs) == list(right.blobs) and all(
        a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes()
        for a, b in zip(left.blobs.values(), right.blobs.values())
    )


@pytest.mark.parametrize("through", SUFFIXES)
def test_pickle_through_any_format_and_back_is_the_same_file(through: str, tmp_path: Path, small: WeightsFile) -> None:
    first, second = tmp_path / "model_iter2399.pkl", tmp_path / "back" / "model_iter2399.pkl"
    second.parent.mkdir()
    write_blobs(first, small)
    there = convert(first, tmp_path / f"m{through}")
    back = convert(tmp_path / f"m{through}", second)
    assert second.read_bytes() == first.read_bytes()
    assert there.weights.iteration == back.weights.iteration == 2399 or through == ".pkl"
    assert same(back.weights, small) and back.weights.cfg == small.cfg


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_format_is_recognised_by_content_not_by_name(suffix: str, tmp_path: Path, small: WeightsFile) -> None:
    write_blobs(tmp_path / f"m{suffix}", small)
    for other in SUFFIXES:
        disguised = tmp_path / f"disguised{other}"
        shutil.copy(tmp_path / f"m{suffix}", disguised)
        found = read_blobs(disguised)
        assert found.format == suffix[1:] and same(found, small)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_arrays_read_are_writable_and_aligned(suffix: str, tmp_path: Path, small: WeightsFile) -> None:
    write_blobs(tmp_path / f"m{suffix}", small)
    for array in read_blobs(tmp_path / f"m{suffix}").blobs.values():
        assert array.flags.writeable and array.flags.aligned and array.flags.c_contiguous


def test_torch_opens_what_is_written_with_weights_only(tmp_path: Path, small: WeightsFile) -> None:
    write_blobs(tmp_path / "m.pth", small)
    found = torch.load(tmp_path / "m.pth", weights_only=True)
    assert found["cfg"] == small.cfg and found["iteration"] == 2399
    assert found["blobs"]["conv1_w"].numpy().tobytes() == small.blobs["conv1_w"].tobytes()


def test_h5py_opens_what_is_written_with_its_attributes(tmp_path: Path, small: WeightsFile) -> None:
    write_blobs(tmp_path / "m.h5", small)
    with h5py.File(tmp_path / "m.h5") as handle:
        assert handle.attrs["cfg"].decode() == small.cfg and handle.attrs["iteration"] == 2399
        assert handle.attrs["source"] == b"model_iter2399.pkl" and len(handle.attrs["sha256"]) == 64
        assert set(handle) == {n.replace("%", "%25").replace("/", "%2F") if n != "." else "%2E" for n in small.blobs}
        assert handle["conv1_w"][()].tobytes() == small.blobs["conv1_w"].tobytes()


def test_safetensors_opens_what_is_written_with_its_metadata(tmp_path: Path, small: WeightsFile) -> None:
    write_blobs(tmp_path / "m.safetensors", small)
    with safe_open(str(tmp_path / "m.safetensors"), framework="numpy") as handle:
        assert handle.metadata()["cfg"] == small.cfg and handle.metadata()["iteration"] == "2399"
        assert set(handle.keys()) == set(small.blobs)


def test_hdf5_of_h5py_alone_is_read(tmp_path: Path) -> None:
    """Hundreds of datasets, so that the group's B-tree has more than one level of nodes."""
    chance = np.random.default_rng(0)
    expected = {
        f"blob{i:04}_w": chance.standard_normal(i % 5 + 1).astype(("f4", ">f8", "i2")[i % 3]) for i in range(900)
    }
    with h5py.File(tmp_path / "m.h5", "w") as handle:
        for name, array in expected.items():
            handle[name] = array
    found = read_blobs(tmp_path / "m.h5").blobs
    assert list(found) == sorted(expected)
    assert all(np.array_equal(found[name], array) for name, array in expected.items())


def test_flipped_bit_in_hdf5_data_is_found_by_the_sha256(tmp_path: Path, small: WeightsFile) -> None:
    write_blobs(tmp_path / "m.h5", small)
    content = bytearray((tmp_path / "m.h5").read_bytes())
    at = content.index(small.blobs["conv1_w"].tobytes())
    content[at] ^= 1
    (tmp_path / "m.h5").write_bytes(content)
    with pytest.raises(MalformedFile, match="do not have the sha256"):
        read_blobs(tmp_path / "m.h5")


def test_torch_files_of_state_dictionaries_and_views_are_read(tmp_path: Path) -> None:
    parameter = torch.nn.Parameter(torch.arange(6.0).reshape(2, 3).t())
    torch.save({"p": parameter, "part": torch.arange(10)[2:8:3]}, tmp_path / "m.pth")
    found = read_blobs(tmp_path / "m.pth").blobs
    assert found["p"].tolist() == [[0, 3], [1, 4], [2, 5]] and found["part"].tolist() == [2, 5]


def test_conversion_says_what_the_format_cannot_keep(tmp_path: Path, small: WeightsFile) -> None:
    write_blobs(tmp_path / "m.pth", small)
    assert convert(tmp_path / "m.pth", tmp_path / "m.pkl").not_kept == (
        "the iteration 2399: a Detectron pickle tells it by its name only; call it model_iter2399.pkl where training "
        "is to go on at 2400",
    )
    assert convert(tmp_path / "m.pth", tmp_path / "model_iter2399.pkl").not_kept == ()
    # What does not tell its iteration has none to lose.
    write_blobs(tmp_path / "unknown.pth", replace(small, iteration=None))
    assert convert(tmp_path / "unknown.pth", tmp_path / "model_iter7.pkl").not_kept == ()


def test_conversion_onto_itself_works(tmp_path: Path, small: WeightsFile) -> None:
    path = tmp_path / "m.pkl"
    write_blobs(path, small)
    before = path.read_bytes()
    convert(path, path)
    assert path.read_bytes() == before


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"<!doctype html><html>", "is an HTML page that a server sent instead of the file"),
        (b'<?xml version="1.0"?><Error><Code>AccessDenied</Code>', "is an XML error page \\(AccessDenied\\)"),
        (b'{"bbox": [1]}', "is JSON, not a weights file"),
        (b"\x1f\x8b\x08\x00", "is gzip-compressed; unpack it with gunzip first"),
        (b"version https://git-lfs.github.com/spec/v1\n", "is a git-LFS pointer"),
        (b"3ae556bf3de044a56eb3ecb66fea5cda\n", "is the text of an md5 sum"),
        (b"\x08\x09\x12\x07pytorch\x1a\x032.1", "is an ONNX network, which onnxruntime runs; give the weights file"),
        (b"\x08\x08:\x80\x02\n\x10", "is an ONNX network"),
        (b"ftrt\x01\0\0\0", "is a TensorRT engine"),
        (b"\x1c\0\0\0TFL3", "is a TensorFlow Lite network"),
        (b"\x08\x01\x12\xfe\x01\x0a\x10\x0a\x05Const", "is a SavedModel, which TensorFlow runs"),
        (b"\x0a\x08ResNet50\xa2\x06\x20", "is a network of Caffe or Caffe2"),
        (b'<?xml version="1.0"?>\n<net name="m">', "is an OpenVINO network"),
        (b"\nA text of a user's own", "is a text"),
        (b"", "is empty"),
        (b"\0" * 99, "begins with zeros only"),
    ],
)
def test_wrong_file_is_called_what_it_is(content: bytes, words: str, tmp_path: Path) -> None:
    (tmp_path / "model_final.pkl").write_bytes(content)
    with pytest.raises(WrongFormat, match=f"model_final.pkl: {words}"):
        read_blobs(tmp_path / "model_final.pkl")


def test_npz_and_zip_and_tar_are_called_what_they_are(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", a=np.ones(1))
    shutil.make_archive(str(tmp_path / "z"), "zip", tmp_path, "a.npz")
    shutil.make_archive(str(tmp_path / "t"), "tar", tmp_path, "a.npz")
    for name, words in ("a.npz", "numpy arrays"), ("z.zip", "zip archive"), ("t.tar", "tar archive"):
        with pytest.raises(WrongFormat, match=words):
            read_blobs(tmp_path / name)


@pytest.mark.parametrize(
    ("member", "words"),
    [
        ("net/archive_format", "is a program of torch.export, which torch.export.load runs; give the weights file"),
        ("serialized_exported_program.json", "is a program of torch.export"),
        ("model.weights.h5", "is a model of Keras"),
    ],
)
def test_archives_of_other_programs_are_called_what_they_are(member: str, words: str, tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "m.pth", "w") as archive:
        archive.writestr(member, "x")
    with pytest.raises(WrongFormat, match=words):
        read_blobs(tmp_path / "m.pth")


def test_groups_in_hdf5_are_told(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "m.h5", "w") as handle:
        handle["conv1/kernel"] = np.ones(3, "f4")
    with pytest.raises(MalformedFile, match="conv1 is a group, as in models of Keras and in references of dump_"):
        read_blobs(tmp_path / "m.h5")


def test_missing_file_folder_and_pipe_are_named(tmp_path: Path) -> None:
    import os

    os.mkfifo(tmp_path / "pipe")
    for name, words in ("none.pkl", "there is no such file"), ("", "is a folder"), ("pipe", "is not a regular file"):
        with pytest.raises(UnreadableFile, match=words):
            read_blobs(tmp_path / name)


def test_metadata_name_of_safetensors_is_refused(tmp_path: Path, small: WeightsFile) -> None:
    taken = replace(small, blobs={"__metadata__": np.ones(1, "f4")})
    with pytest.raises(WriteFailed, match="keeps the name __metadata__"):
        write_blobs(tmp_path / "m.safetensors", taken)


def test_safetensors_of_a_million_empty_arrays_are_refused(tmp_path: Path) -> None:
    """The library takes them; a minute went by until all of them were arrays."""
    header = {f"w{number}": {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]} for number in range(10_001)}
    for count in (10_000, 10_001):
        text = json.dumps(dict(list(header.items())[:count])).encode()
        (tmp_path / "m.safetensors").write_bytes(len(text).to_bytes(8, "little") + text)
        if count == 10_000:
            assert len(read_blobs(tmp_path / "m.safetensors").blobs) == count
    with pytest.raises(OverBudget, match="has 10001 arrays, but a weights file has at most 10000"):
        read_blobs(tmp_path / "m.safetensors")


names = st.text(st.characters(blacklist_categories=["Cc", "Cs"]), min_size=1, max_size=20)
elements = st.sampled_from(["b1", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "f2", "f4", "f8"])
shapes = hnp.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=4)
arrays = st.tuples(elements, shapes).flatmap(lambda pair: hnp.arrays(*pair))


@pytest.mark.slow
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    blobs=st.dictionaries(
        names.filter(lambda name: name not in ("__metadata__", "cfg")), arrays, min_size=1, max_size=4
    ),
    cfg=st.none() | st.text(st.characters(blacklist_categories=["Cc", "Cs"]), min_size=1),
    iteration=st.none() | st.integers(0, 10**6),
)
def test_any_blobs_survive_every_format(
    blobs: dict[str, np.ndarray], cfg: str | None, iteration: int | None, tmp_path: Path
) -> None:
    weights = WeightsFile(blobs, cfg, iteration, "x", "pkl")
    for suffix in SUFFIXES:
        write_blobs(tmp_path / f"m{suffix}", weights)
        found = read_blobs(tmp_path / f"m{suffix}")
        assert same(found, weights) and found.cfg == cfg
        assert found.iteration == (None if suffix == ".pkl" else iteration)


def test_reading_a_pickle_imports_neither_torch_nor_h5py_nor_pickle(tmp_path: Path, small: WeightsFile) -> None:
    path = tmp_path / "m.pkl"
    write_blobs(path, small)
    program = (
        "import sys, numpy; before = {*sys.modules}; from detectron_gn.weights import read_blobs; "
        "count = len(read_blobs(sys.argv[1]).blobs); "
        "print(count, {'torch', 'h5py', 'safetensors', 'pickle'} & {*sys.modules} - before)"
    )
    done = subprocess.run([sys.executable, "-c", program, path], capture_output=True, text=True, check=True)
    assert done.stdout.split() == [str(len(small.blobs)), "set()"]
    sources = [*(Path(__file__).parents[3] / "weights").rglob("*.py")]
    assert len(sources) > 20 and not [path for path in sources if "import pickle\n" in path.read_text()]


def test_every_error_is_a_weights_error_and_a_value_error() -> None:

    from detectron_gn.weights import errors

    kinds = [kind for kind in vars(errors).values() if isinstance(kind, type)]
    assert all(issubclass(kind, WeightsError) and issubclass(kind, ValueError) for kind in kinds) and len(kinds) > 9


@pytest.mark.parametrize("how", [{}, {"compression": "gzip"}, {"fletcher32": True}])
def test_chunked_hdf5_is_refused_with_commands_that_rewrite_it(
    tmp_path: Path, small: WeightsFile, how: dict[str, object]
) -> None:
    blobs = {name: array for name, array in small.blobs.items() if array.ndim == 2 and array.size}
    matrices = replace(small, blobs=blobs)
    write_blobs(tmp_path / "plain.h5", matrices)
    with h5py.File(tmp_path / "plain.h5") as plain, h5py.File(tmp_path / "IN.h5", "w") as chunked:
        for name in plain:
            chunked.create_dataset(name, data=plain[name][()], chunks=True, **how)
        chunked.attrs.update(plain.attrs)
    with pytest.raises(UnsupportedArray, match="only plain contiguous datasets are read: rewrite the file") as refusal:
        read_blobs(tmp_path / "IN.h5")
    commands = [shlex.split(command) for command in re.findall("`([^`]+)`", str(refusal.value))]
    assert [program for program, *_ in commands] == ["h5repack", "python"]
    for program, *arguments in commands:
        found = sys.executable if program == "python" else shutil.which(program)
        if found is not None:
            subprocess.run([found, *arguments], cwd=tmp_path, check=True)
            rewritten = read_blobs(tmp_path / "OUT.h5")
            assert same(rewritten, matrices) and (rewritten.cfg, rewritten.iteration) == (small.cfg, 2399)
