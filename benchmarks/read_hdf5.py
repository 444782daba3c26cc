"""Reads HDF5 files with h5py for benchmarks.fuzz_weights, in a process of its own: h5py hangs or dies on damaged ones.

Usage: python -m benchmarks.read_hdf5; takes a path a line, and answers each with a line of JSON: name -> [element type,
shape, sha256 of the bytes] of every dataset, or a text that says why it cannot be read.
"""

import hashlib
import json
import sys

import h5py
import numpy as np


def digests(blobs: dict[str, np.ndarray]) -> dict[str, list[object]]:
    """What is compared of arrays: little-endian, C order."""
    found: dict[str, list[object]] = {}
    for name, array in blobs.items():
        plain = np.require(array, array.dtype.newbyteorder("<"), "C")
        kind = f"{plain.dtype.kind}{plain.dtype.itemsize}"  # numpy can say |u4, too
        found[name] = [kind, list(array.shape), hashlib.sha256(plain.tobytes()).hexdigest()]
    return found


def main() -> None:
    print("ready", flush=True)
    for line in sys.stdin:
        try:
            with h5py.File(line.rstrip("\n"), "r") as file:
                answer: object = digests({name.replace("%2F", "/"): np.asarray(file[name][()]) for name in file})
        except Exception as error:
            answer = repr(error)
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
