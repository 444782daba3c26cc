"""Facts of the pickle that is written: what Python's own pickle makes of it, and what a failed write leaves."""

import errno
import hashlib
import lzma
import os
import pickle
import pickletools
from pathlib import Path

import numpy as np
import pytest

from detectron_gn.weights import WeightsFile, read_blobs, write_blobs
from detectron_gn.weights.errors import WriteFailed

OPCODES_OF_DETECTRON = set(
    "PROTO EMPTY_DICT BINPUT LONG_BINPUT MARK SHORT_BINSTRING BINSTRING GLOBAL BININT BININT1 BININT2 TUPLE TUPLE1 "
    "TUPLE2 TUPLE3 REDUCE NONE BUILD NEWFALSE BINGET SETITEMS STOP".split()
)


def weights_of(blobs: dict[str, np.ndarray], cfg: str | None = None) -> WeightsFile:
    return WeightsFile(blobs, cfg, None, "test", "pkl")


def test_python_unpickles_detectrons_keys_and_equal_arrays(tmp_path: Path, small: WeightsFile) -> None:
    write_blobs(tmp_path / "m.pkl", small)
    with open(tmp_path / "m.pkl", "rb") as handle:
        found = pickle.load(handle, encoding="latin1")  # as Detectron utils/io.py:load_object does
    assert set(found) == {"blobs", "cfg"} and found["cfg"] == small.cfg
    assert list(found["blobs"]) == list(small.blobs)
    for name, array in small.blobs.items():
        assert found["blobs"][name].dtype == array.dtype and found["blobs"][name].tobytes() == array.tobytes()
        assert found["blobs"][name].shape == array.shape


def test_uses_the_opcodes_that_detectron_files_use(tmp_path: Path) -> None:
    blobs = {f"w{i}": np.full((1, 2, 3, 70000 if i == 0 else 4), i, "f4") for i in range(300)}
    write_blobs(tmp_path / "m.pkl", weights_of(blobs, "a: 1\n"))
    used = {opcode.name for opcode, _, _ in pickletools.genops((tmp_path / "m.pkl").read_bytes())}
    assert used <= OPCODES_OF_DETECTRON


def test_more_than_a_thousand_blobs_are_written_in_batches(tmp_path: Path) -> None:
    blobs = {f"w{i}": np.array([i], "f4") for i in range(2001)}
    write_blobs(tmp_path / "m.pkl", weights_of(blobs))
    content = (tmp_path / "m.pkl").read_bytes()
    names = [opcode.name for opcode, _, _ in pickletools.genops(content)]
    assert names.count("SETITEMS") == 2 and names.count("SETITEM") == 2  # 1000, 1000, 1; and the outer one
    assert list(pickle.loads(content, encoding="latin1")["blobs"]) == list(blobs)


def test_demo_model_is_written_back_byte_for_byte(demo_model: Path, tmp_path: Path) -> None:
    packed = demo_model / "model_final.pkl.xz"
    if not packed.exists():
        pytest.skip("the demo model is not there")
    content = lzma.decompress(packed.read_bytes())
    (tmp_path / "in.pkl").write_bytes(content)
    write_blobs(tmp_path / "out.pkl", read_blobs(tmp_path / "in.pkl"))
    assert hashlib.sha256((tmp_path / "out.pkl").read_bytes()).digest() == hashlib.sha256(content).digest()


@pytest.mark.parametrize("suffix", [".pkl", ".h5", ".safetensors", ".pth"])
def test_failed_write_keeps_the_old_file_and_leaves_nothing_else(
    suffix: str, tmp_path: Path, small: WeightsFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / f"m{suffix}"
    path.write_bytes(b"old")

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(WriteFailed, match=rf"m\{suffix}: could not be written: No space left on device"):
        write_blobs(path, small)
    assert path.read_bytes() == b"old" and list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("suffix", [".pkl", ".h5", ".safetensors", ".pth"])
def test_folder_that_is_missing_is_made_or_named(suffix: str, tmp_path: Path, small: WeightsFile) -> None:
    write_blobs(tmp_path / "a" / "b" / f"m{suffix}", small)
    assert [path.name for path in (tmp_path / "a" / "b").iterdir()] == [f"m{suffix}"]
    (tmp_path / "none").touch()
    with pytest.raises(WriteFailed, match="none/m"):
        write_blobs(tmp_path / "none" / f"m{suffix}", small)


def test_interrupted_write_leaves_nothing(tmp_path: Path, small: WeightsFile, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(descriptor: int) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", interrupt)
    with pytest.raises(KeyboardInterrupt):
        write_blobs(tmp_path / "m.pkl", small)
    assert list(tmp_path.iterdir()) == []


def test_object_arrays_are_not_written(tmp_path: Path) -> None:
    with pytest.raises(WriteFailed, match="w has elements of type object"):
        write_blobs(tmp_path / "m.pkl", weights_of({"w": np.array([print])}))


def test_unknown_suffix_is_refused_with_the_four_that_exist(tmp_path: Path, small: WeightsFile) -> None:
    with pytest.raises(WriteFailed, match=r"must end in \.pkl, \.h5, \.safetensors or \.pth"):
        write_blobs(tmp_path / "m.bin", small)
