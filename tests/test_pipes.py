"""A pipe or a device in the place of a file that a user names is told, not waited for, by every reader."""

import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from detectron_gn.mrcnn.data.annotations.reader import read_instances
from detectron_gn.mrcnn.data.categories import read_class_names
from detectron_gn.mrcnn.data.read_image import read_image
from detectron_gn.mrcnn.evaluation.results_files import read_results
from detectron_gn.mrcnn.plain_file import read_plain_file
from detectron_gn.port.config.read import read_config
from detectron_gn.port.runs.run_record import recorded_categories
from detectron_gn.verify.imagenet import labelled_images
from detectron_gn.weights import read_blobs
from detectron_gn.weights.formats.proposals_pickle import read_proposals

pytestmark = pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="there are no named pipes on this system")
READERS: dict[str, Callable[[Path], object]] = {
    "annotations": read_instances,
    "results": read_results,
    "class names": read_class_names,
    "configuration": read_config,
    "picture": read_image,
    "list of images": lambda path: labelled_images(path.parent, 5, path),
    "weights": read_blobs,
    "proposals": read_proposals,
}


@pytest.fixture(autouse=True)
def no_waiting() -> Iterator[None]:
    def too_long(signum: int, frame: object) -> None:
        pytest.fail("it waits")

    previous = signal.signal(signal.SIGALRM, too_long)
    signal.alarm(10)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, previous)


@pytest.mark.parametrize("name", READERS)
@pytest.mark.parametrize("device", [False, True])
def test_what_is_no_file_is_told(name: str, device: bool, tmp_path: Path) -> None:
    path = Path("/dev/zero") if device else tmp_path / "pipe"
    if not device:
        os.mkfifo(path)
    with pytest.raises((OSError, ValueError), match="pipe or a device|not a regular file"):
        READERS[name](path)


def test_a_pipe_beside_weights_is_no_record_of_a_run(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "run.json")
    assert recorded_categories(tmp_path) is None


def test_a_file_is_read_up_to_its_limit_and_a_name_that_no_file_can_have_is_missing(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes(b"12345")
    assert read_plain_file(tmp_path / "a.txt") == b"12345" and read_plain_file(tmp_path / "a.txt", 3) == b"123"
    with pytest.raises(FileNotFoundError):
        read_plain_file("a\0b")
    with pytest.raises(IsADirectoryError):
        read_plain_file(tmp_path)
