"""The real readers that benchmarks.fuzz_weights holds ours against: pickle, torch, safetensors and h5py.

Each is asked only for a file that ours has read, so that none of them runs a stranger's code. h5py, which hangs or dies
on damaged files, is asked in a process of its own.
"""

from __future__ import annotations

import io
import json
import pickle
import select
import subprocess
import sys
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.numpy import load as load_safetensors

from benchmarks.fuzzing import Content
from benchmarks.read_hdf5 import digests

_ALLOWED = {"_reconstruct", "scalar", "_frombuffer", "ndarray", "dtype", "encode", "bytes", "OrderedDict"}


def content(blobs: Mapping[Any, np.ndarray]) -> Content:
    """What is compared of arrays, by their names as ours reads them: element type, shape, a digest of the bytes."""
    return digests({_text(name): array for name, array in blobs.items()})


class _Restricted(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if name not in _ALLOWED:
            raise pickle.UnpicklingError(f"{module}.{name}")
        return super().find_class(module.replace("numpy.core", "numpy._core"), name)


def of_pickle(path: Path) -> Content:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        top = _Restricted(io.BytesIO(path.read_bytes()), encoding="latin1").load()
        blobs = top.get("blobs", top)
    kinds = (np.ndarray, np.generic)
    return content({name: np.asarray(value) for name, value in blobs.items() if isinstance(value, kinds)})


def of_torch(path: Path) -> Content:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        top = torch.load(path, weights_only=True)
    blobs = top.get("blobs", top)
    tensors = {name: value for name, value in blobs.items() if isinstance(value, torch.Tensor)}
    return content({name: tensor.detach().resolve_neg().numpy() for name, tensor in tensors.items()})


def of_safetensors(path: Path) -> Content:
    return content(load_safetensors(path.read_bytes()))


class Hdf5Reader:
    """h5py in a process of its own (benchmarks/read_hdf5.py), started anew after a crash or a hang."""

    def __init__(self, seconds: float = 5.0) -> None:
        self._seconds = seconds
        self._process: subprocess.Popen[str] | None = None

    def __call__(self, path: Path) -> Content:
        if self._process is None:
            command = [sys.executable, "-m", "benchmarks.read_hdf5"]
            root = Path(__file__).parents[1]
            self._process = subprocess.Popen(
                command, cwd=root, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
            )
            assert self._process.stdout is not None
            self._process.stdout.readline()  # it is ready
        stdin, stdout = self._process.stdin, self._process.stdout
        assert stdin is not None and stdout is not None
        stdin.write(f"{path}\n")
        stdin.flush()
        line = stdout.readline() if select.select([stdout], [], [], self._seconds)[0] else ""
        if not line:
            self.close()
            raise RuntimeError("h5py hangs or crashes")
        answer = json.loads(line)
        if isinstance(answer, str):
            raise RuntimeError(answer)
        found: Content = answer
        return found

    def close(self) -> None:
        """End the process."""
        if self._process is not None:
            self._process.kill()
            self._process.communicate()
            self._process = None


def _text(name: Any) -> str:
    """A name as ours reads it: a Python 2 string, which pickle takes for Latin-1, is UTF-8."""
    try:
        return str(name).encode("latin-1").decode("utf-8")
    except ValueError:
        return str(name)
