"""What is written: whole or not at all, equal each time, with the right permissions, and read again by every reader."""

import hashlib
import json
import os
import stat
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest
from safetensors.numpy import load_file
from safetensors.numpy import save as save_safetensors

from detectron_gn.weights import WeightsFile, read_blobs, write_blobs
from detectron_gn.weights.convert import convert
from detectron_gn.weights.errors import MalformedFile, WriteFailed
from detectron_gn.weights.files import atomic
from detectron_gn.weights.files.atomic import replacing

ROOT = Path(__file__).parents[3]
SUFFIXES = [".pkl", ".h5", ".safetensors", ".pth"]
NOT_UTF8 = b"\xff\xfe".decode("utf-8", "surrogateescape")


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_disk_that_is_full_at_any_byte_leaves_nothing_behind(suffix: str, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "tests.helpers.full_disk", tmp_path, suffix]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    told = json.loads(done.stdout)
    assert told["refused"] == told["sizes"] and told["left"] == []
    assert told["sentence"].endswith(f"m{suffix}: could not be written: File too large; nothing was left behind")


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_equal_weights_give_equal_files(suffix: str, tmp_path: Path, small: WeightsFile) -> None:
    digests = set()
    for _ in range(3):
        write_blobs(tmp_path / f"m{suffix}", small)
        digests.add(hashlib.sha256((tmp_path / f"m{suffix}").read_bytes()).hexdigest())
    assert len(digests) == 1


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_new_file_has_the_usual_permissions_and_an_old_one_keeps_its_own(
    suffix: str, tmp_path: Path, small: WeightsFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / f"m{suffix}"
    usual = os.umask(0o022)
    try:
        write_blobs(path, small)
        assert stat.S_IMODE(path.stat().st_mode) == 0o644
        path.chmod(0o600)
        seen = []
        real = os.replace
        monkeypatch.setattr(os, "replace", lambda a, b: (seen.append(stat.S_IMODE(os.stat(a).st_mode)), real(a, b)))
        write_blobs(path, small)
        assert seen == [0o600] and stat.S_IMODE(path.stat().st_mode) == 0o600
    finally:
        os.umask(usual)


@pytest.mark.skipif(sys.platform != "linux", reason="other systems have no such names")
@pytest.mark.parametrize("suffix", SUFFIXES)
def test_names_that_are_not_utf8_are_written_and_read(suffix: str, tmp_path: Path, small: WeightsFile) -> None:
    source = tmp_path / f"{NOT_UTF8}.pkl"
    write_blobs(source, small)
    convert(source, tmp_path / f"{NOT_UTF8}{suffix}")
    found = read_blobs(tmp_path / f"{NOT_UTF8}{suffix}")
    assert list(found.blobs) == list(small.blobs)
    convert(tmp_path / f"{NOT_UTF8}{suffix}", tmp_path / f"again{suffix}")
    if suffix == ".h5":
        with h5py.File(tmp_path / "again.h5") as handle:
            assert handle.attrs["source"].decode() == "\ufffd\ufffd.h5"


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_name_of_the_greatest_length_is_written(suffix: str, tmp_path: Path, small: WeightsFile) -> None:
    path = tmp_path / f"{'m' * (255 - len(suffix))}{suffix}"
    write_blobs(path, small)
    assert list(read_blobs(path).blobs) == list(small.blobs)


@pytest.mark.parametrize(("name", "words"), [("a\0b.pkl", "holds a zero byte"), ("m" * 300 + ".pkl", "name too long")])
def test_a_name_that_no_file_can_have_is_told(name: str, words: str, tmp_path: Path, small: WeightsFile) -> None:
    with pytest.raises(WriteFailed, match=f"(?i){words}"):
        write_blobs(tmp_path / name, small)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_folder_that_cannot_be_synced_does_not_undo_a_rename(
    suffix: str, tmp_path: Path, small: WeightsFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = os.fsync

    def fsync(descriptor: int) -> None:
        if stat.S_ISDIR(os.fstat(descriptor).st_mode):
            raise OSError(22, "Invalid argument")
        real(descriptor)

    monkeypatch.setattr(atomic.os, "fsync", fsync)
    write_blobs(tmp_path / f"m{suffix}", small)
    assert list(read_blobs(tmp_path / f"m{suffix}").blobs) == list(small.blobs)


@pytest.mark.parametrize("suffix", [".h5", ".safetensors", ".pth"])
@pytest.mark.parametrize("iteration", [0, 10**12, 2**63 - 1])
def test_every_iteration_is_kept(suffix: str, iteration: int, tmp_path: Path, small: WeightsFile) -> None:
    write_blobs(tmp_path / f"m{suffix}", replace(small, iteration=iteration))
    assert read_blobs(tmp_path / f"m{suffix}").iteration == iteration
    back = tmp_path / f"model_iter{iteration}.pkl"
    assert convert(tmp_path / f"m{suffix}", back).not_kept == () and read_blobs(back).iteration == iteration


def test_what_is_no_iteration_is_left_out_and_told(tmp_path: Path, small: WeightsFile) -> None:
    import torch

    write_blobs(tmp_path / "m.h5", small)
    for value in np.int64(-1), np.uint64(2**64 - 1), "7":
        with h5py.File(tmp_path / "m.h5", "r+") as handle:
            handle.attrs["iteration"] = value
        found = read_blobs(tmp_path / "m.h5")
        assert found.iteration is None and found.left_out == {"iteration": "is not a whole number from 0 up"}
    (tmp_path / "m.safetensors").write_bytes(save_safetensors({"w": np.ones(1, "f4")}, {"iteration": str(2**63)}))
    found = read_blobs(tmp_path / "m.safetensors")
    assert found.iteration is None and found.left_out == {"iteration": "is not a whole number from 0 up"}
    for value in 2**64, -1:
        torch.save({"blobs": {"w": torch.ones(1)}, "iteration": value}, tmp_path / "m.pth")
        found = read_blobs(tmp_path / "m.pth")
        assert found.iteration is None and found.left_out == {"iteration": "is a whole number outside 'blobs'"}
        convert(tmp_path / "m.pth", tmp_path / "m.h5")


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"blobs": {}}, "holds 1 to 10000 arrays"),
        ({"blobs": {str(number): np.ones(1, "f4") for number in range(10_001)}}, "not 10001 of 10001"),
        ({"blobs": {str(number): np.ones((1,) * 31, "f4") for number in range(3000)}}, "not 3000 of 93000"),
        ({"cfg": "a" * (4 << 20) + "b"}, "the configuration is longer than 4194304 bytes"),
        ({"cfg": "\ud800"}, "the configuration is not valid Unicode"),
        ({"iteration": 2**63}, "the iteration 9223372036854775808 is no whole number"),
        ({"iteration": -1}, "the iteration -1 is no whole number"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_could_not_be_read_again_is_not_written(
    suffix: str, changes: dict[str, object], words: str, tmp_path: Path, small: WeightsFile
) -> None:
    with pytest.raises(WriteFailed, match=words):
        write_blobs(tmp_path / f"m{suffix}", replace(small, **changes))
    assert list(tmp_path.iterdir()) == []


def test_a_name_with_half_of_a_surrogate_pair_is_not_written(tmp_path: Path, small: WeightsFile) -> None:
    with pytest.raises(MalformedFile, match="a blob's name is not valid Unicode"):
        write_blobs(tmp_path / "m.pth", replace(small, blobs={"\udcff": np.ones(1, "f4")}))


@pytest.mark.slow
@pytest.mark.parametrize("suffix", SUFFIXES)
def test_the_largest_file_that_is_written_is_read_again(suffix: str, tmp_path: Path) -> None:
    many = {f"gpu_0/res{number}_branch2a_w_momentum": np.ones((1,) * 9, "f4") for number in range(9_999)}
    blobs = {"z": np.zeros(2, "f4"), **many}
    weights = WeightsFile(blobs, "a" * 60_000, 7, "x", "pkl")
    write_blobs(tmp_path / f"m{suffix}", weights)
    assert list(read_blobs(tmp_path / f"m{suffix}").blobs) == list(blobs)


def test_safetensors_lie_in_the_file_as_its_library_lays_them(tmp_path: Path, small: WeightsFile) -> None:
    write_blobs(tmp_path / "m.safetensors", small)
    ours, theirs = (tmp_path / "m.safetensors").read_bytes(), save_safetensors(small.blobs)

    def layout(content: bytes) -> tuple[list[tuple[int, int]], bytes]:
        end = 8 + int.from_bytes(content[:8], "little")
        header = json.loads(content[8:end])
        header.pop("__metadata__", None)
        assert end % 8 == 0 and all(
            entry["data_offsets"][0] % small.blobs[name].itemsize == 0 for name, entry in header.items()
        )
        return sorted(entry["data_offsets"][1] - entry["data_offsets"][0] for entry in header.values()), content[end:]

    assert layout(ours)[0] == layout(theirs)[0] and len(layout(ours)[1]) == len(layout(theirs)[1])
    found = load_file(tmp_path / "m.safetensors")
    assert all(found[name].tobytes() == array.tobytes() for name, array in small.blobs.items())


def test_folders_that_are_made_for_a_file_are_not_left_without_it(tmp_path: Path) -> None:
    with pytest.raises(WriteFailed, match="nothing was left behind"), replacing(tmp_path / "a" / "b" / "file"):
        raise OSError(28, "No space left on device")
    assert not list(tmp_path.iterdir())
    with replacing(tmp_path / "a" / "b" / "file") as temporary:
        temporary.write_bytes(b"here")
    assert (tmp_path / "a" / "b" / "file").read_bytes() == b"here"
