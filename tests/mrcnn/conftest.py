"""Reference values of single operators, computed by Caffe2 and Detectron (tests/data/ops.h5)."""

from collections.abc import Iterator
from pathlib import Path

import h5py
import pytest

DATA = Path(__file__).parents[1] / "data"


@pytest.fixture(scope="session")
def ops() -> Iterator[h5py.File]:
    with h5py.File(DATA / "ops.h5") as file:
        yield file
