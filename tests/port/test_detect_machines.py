"""`detect` on several machines: no image lost and none twice, whether they share a disk, and where one dies."""

import json
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from tests.helpers.hosts import ended, hosts_are_possible, network, start_torchrun

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform != "linux" or not hosts_are_possible(), reason="needs root and Linux's ip netns"),
]


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory, demo_model: Path) -> Path:
    """Eight images, of which either machine has some."""
    folder = tmp_path_factory.mktemp("photos")
    for image in sorted((demo_model / "val").iterdir())[:8]:
        shutil.copy(image, folder / image.name)
    return folder


def command(pickle: Path, photos: Path, out: Path, *more: str) -> list[str]:
    given = ["detect", str(pickle), str(photos), "--out", str(out), "--device", "cpu", "--workers", "0", *more]
    return ["-m", "detectron_gn", *given]


def lines_of(*outs: Path) -> list[dict[str, Any]]:
    """The lines of all files, by the names of their images."""
    files = [path for out in outs for path in out.glob("detections_*.jsonl")]
    lines = [json.loads(line) for path in files for line in path.read_text().splitlines()]
    return sorted(lines, key=lambda line: str(line["file_name"]))


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory, pickle: Path, photos: Path) -> list[dict[str, Any]]:
    """What one process finds."""
    out = tmp_path_factory.mktemp("alone")
    subprocess.run([sys.executable, *command(pickle, photos, out)], check=True, capture_output=True)
    return lines_of(out)


def test_machines_find_what_one_process_finds_on_a_disk_that_they_share_and_on_their_own(
    pickle: Path, photos: Path, alone: list[dict[str, Any]], tmp_path: Path
) -> None:
    shared, own = [tmp_path / "shared"] * 2, [tmp_path / "first", tmp_path / "second"]
    for outs in (shared, own):
        with network(2) as hosts:
            codes, told = ended(start_torchrun(hosts, [command(pickle, photos, out, "--coco") for out in outs]))
        assert codes == [0, 0], told
        assert "8 images: 0 were done before, 8 now" in told[0] and "images:" not in told[1]
        assert lines_of(*set(outs)) == alone
    assert all(lines_of(out) for out in own)
    whole = json.loads((tmp_path / "shared" / "detections.json").read_text())
    assert len(whole) == sum(len(line["detections"]) for line in alone)


def test_what_a_machine_that_died_did_is_kept_and_the_same_command_goes_on(
    pickle: Path, photos: Path, alone: list[dict[str, Any]], tmp_path: Path
) -> None:
    outs = [tmp_path / "first", tmp_path / "second"]
    with network(2) as hosts:
        first, second = start_torchrun(hosts, [command(pickle, photos, out) for out in outs])
        lines = outs[1] / "detections_1.jsonl"
        while not (lines.exists() and lines.read_bytes().count(b"\n")):
            assert first.poll() is None and second.poll() is None, ended([first, second])
            time.sleep(0.02)
        hosts[1].signal(signal.SIGKILL)
        codes, told = ended([first, second])
        assert codes[0] != 0
        done = len(lines_of(*outs))
        assert done < 8
        codes, told = ended(start_torchrun(hosts, [command(pickle, photos, out) for out in outs]))
    assert codes == [0, 0] and "8 images: " in told[0], told
    # A torn last line is detected again.
    before = int(told[0].split("8 images: ")[1].split()[0])
    assert before in (done, done - 1) and lines_of(*outs) == alone


def test_a_machine_without_the_images_ends_the_job_and_says_so(pickle: Path, photos: Path, tmp_path: Path) -> None:
    with network(2) as hosts:
        own = [command(pickle, each, tmp_path / "out") for each in (photos, tmp_path / "none")]
        codes, told = ended(start_torchrun(hosts, own))
    assert 0 not in codes
    assert f"{tmp_path / 'none'}" in told[1] and "Traceback" not in told[1].split("torch/distributed")[0]
