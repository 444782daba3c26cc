"""Reads thousands of strange and damaged weights files and counts what becomes of them.

Usage: python -m benchmarks.fuzz_weights [--seconds 60] [--kinds pickle pth ...] [--seed 0] [--json FILE]

Files of every kind are made and damaged in seeded ways (benchmarks/fuzz_files.py) and read. Each must be read or
refused with one sentence in under 5 seconds. What is read must be what the real reader of that format reads: `pickle`
restricted to numpy, `torch.load(weights_only=True)`, safetensors, h5py. Anything else is a finding, printed with its
seed and kept. Exits with 1 if there was one.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from benchmarks import fuzz_files, fuzzing
from benchmarks.fuzz_oracles import Content, Hdf5Reader, content, of_pickle, of_safetensors, of_torch
from benchmarks.fuzzing import Kind
from detectron_gn.weights import read_blobs


def read_weights(path: Path) -> Content:
    """What ours reads."""
    return content(read_blobs(path).blobs)


_H5PY = Hdf5Reader()
KINDS = {
    "pickle": Kind(fuzz_files.pickles, read_weights, of_pickle, ".pkl"),
    "pth": Kind(fuzz_files.torch_files, read_weights, of_torch, ".pth"),
    "safetensors": Kind(fuzz_files.safetensors_files, read_weights, of_safetensors, ".safetensors"),
    "hdf5": Kind(fuzz_files.hdf5_files, read_weights, _H5PY, ".h5", _H5PY.close),
}


def main(arguments: Sequence[str] | None = None) -> int:
    return fuzzing.main(__doc__, KINDS, arguments)


if __name__ == "__main__":
    sys.exit(main())
