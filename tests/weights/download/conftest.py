"""What the tests of downloads share: a server with a real pickle, and options that are quick to give up."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from detectron_gn.weights import WeightsFile, write_blobs
from detectron_gn.weights.catalog import lookup
from detectron_gn.weights.download.cache import Options
from detectron_gn.weights.download.resumable_http import Patience
from tests.helpers.http_server import Server

MODEL = 48616381
PATH = "/" + (lookup(MODEL).path or "")
QUICK = Patience(connect=2, read=0.5, attempts=3, pause=0.01, longest_pause=0.2, slowest=100, window=0.3)


@pytest.fixture(scope="module")
def content(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """A real pickle of a few hundred kB."""
    path = tmp_path_factory.mktemp("made") / "model_final.pkl"
    blobs = {"conv1_w": np.random.default_rng(0).standard_normal(100_000).astype("f4")}
    write_blobs(path, WeightsFile(blobs, "a: 1\n", None, "x", "pkl"))
    return path.read_bytes()


@pytest.fixture
def server(content: bytes) -> Iterator[Server]:
    running = Server()
    running.files[PATH] = content
    yield running
    running.shutdown()
    running.server_close()


@pytest.fixture
def given(server: Server, tmp_path: Path) -> Options:
    return Options(tmp_path / "cache", (server.url,), patience=QUICK)
