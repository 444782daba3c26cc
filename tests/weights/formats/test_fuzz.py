"""Strange and damaged files are read as the real readers read them, or refused, quickly: a share of fuzz_weights."""

from pathlib import Path

import pytest

from benchmarks import fuzz_weights, fuzzing
from benchmarks.fuzz_weights import KINDS

SEED = 20180416


@pytest.mark.parametrize(
    ("kind", "files", "outcomes"),
    [
        ("pickle", 700, {"read", "TruncatedFile", "MalformedFile", "ForbiddenContent", "UnsupportedArray"}),
        ("pth", 300, {"read", "TruncatedFile", "MalformedFile", "ForbiddenContent", "UnsupportedArray"}),
        ("safetensors", 600, {"read", "MalformedFile", "WrongFormat"}),
        ("hdf5", 250, {"read", "TruncatedFile", "MalformedFile", "ForbiddenContent", "UnsupportedArray"}),
    ],
)
def test_files_are_read_as_the_real_reader_reads_them_or_refused(
    kind: str, files: int, outcomes: set[str], tmp_path: Path
) -> None:
    report = fuzzing.run(kind, KINDS[kind], SEED, tmp_path, files)
    assert report.findings == [] and report.files == files
    assert report.slowest_seconds < 5 and report.most_memory < 100 << 20
    assert outcomes <= set(report.outcomes)
    assert report.compared - report.only_ours > files / 5


def test_an_unexpected_error_is_a_finding(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(path: Path) -> None:
        raise KeyError("conv1_w")

    monkeypatch.setattr(fuzz_weights, "read_blobs", broken)
    assert len(fuzzing.run("pickle", KINDS["pickle"], 0, tmp_path, 3).findings) == 3


def test_a_hang_is_a_finding(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def endless(path: Path) -> None:
        while True:
            pass

    monkeypatch.setattr(fuzz_weights, "read_blobs", endless)
    monkeypatch.setattr(fuzzing, "LONGEST_SECONDS", 0.2)
    assert "Hang" in fuzzing.run("pth", KINDS["pth"], 0, tmp_path, 1).findings[0]


@pytest.mark.parametrize("kind", ["pickle", "pth", "safetensors", "hdf5"])
def test_another_value_than_the_real_readers_is_a_finding(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = fuzz_weights.read_blobs

    def altered(path: Path) -> object:
        weights = real(path)
        name = next(iter(weights.blobs))
        weights.blobs[name] = weights.blobs[name].astype("U")
        return weights

    monkeypatch.setattr(fuzz_weights, "read_blobs", altered)
    report = fuzzing.run(kind, KINDS[kind], 1, tmp_path, 20)
    assert 0 < report.differences == len(report.findings) and "the real reader has" in report.findings[0]
