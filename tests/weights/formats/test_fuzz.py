"""Damaged weights files are read or refused, quickly: a seeded share of benchmarks/fuzz_weights.py."""

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest

SCRIPT = Path(__file__).resolve().parents[3] / "benchmarks" / "fuzz_weights.py"


@pytest.fixture(scope="module")
def fuzz() -> ModuleType:
    spec = importlib.util.spec_from_file_location("fuzz_weights", SCRIPT)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["fuzz_weights"] = module
    spec.loader.exec_module(module)
    return module


@pytest.mark.slow
def test_damaged_files_are_read_or_refused_quickly(fuzz: ModuleType, tmp_path: Path) -> None:
    report = fuzz.run(3000, 20180416, tmp_path)
    assert report.findings == []
    assert report.files == 3000 and report.slowest_seconds < 5
    assert {"read", "TruncatedFile", "MalformedFile", "ForbiddenContent", "UnsupportedArray"} <= set(report.outcomes)


def test_an_unexpected_error_is_a_finding(fuzz: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(path: Path) -> None:
        raise KeyError("conv1_w")

    monkeypatch.setattr(fuzz, "read_blobs", broken)
    assert len(fuzz.run(3, 0, tmp_path).findings) == 3


def test_a_hang_is_a_finding(fuzz: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def endless(path: Path) -> None:
        while True:
            pass

    monkeypatch.setattr(fuzz, "read_blobs", endless)
    monkeypatch.setattr(fuzz, "LONGEST_SECONDS", 0.2)
    assert "Hang" in fuzz.run(1, 0, tmp_path).findings[0]
