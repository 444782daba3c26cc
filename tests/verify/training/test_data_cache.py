"""Large annotation files are read once for all processes, and a changed or damaged one never stands for another."""

import json
import multiprocessing
import os
import shutil
import time

import numpy as np
import pytest

from detectron_gn.mrcnn.config import with_values
from detectron_gn.mrcnn.data.annotations import reader, stored
from detectron_gn.mrcnn.data.annotations.reader import read_instances
from detectron_gn.mrcnn.data.coco import dataset_of
from detectron_gn.mrcnn.data.minibatch import minibatches
from detectron_gn.mrcnn.data.roidb import training_roidb
from detectron_gn.mrcnn.errors import InputError
from detectron_gn.verify.training import data_cache
from detectron_gn.verify.training.data_cache import read_instances_once
from detectron_gn.verify.training.fingerprint import data_fingerprint
from tests.helpers.small_run import DATA, config

FILE = DATA / "train_images.json"


@pytest.fixture(autouse=True)
def every_file_is_large(monkeypatch):
    monkeypatch.setattr(data_cache, "SMALLEST", 0)


def read(path, cache):
    """The instances, and what was said."""
    lines = []
    return read_instances_once(path, cache, lines.append), lines


def assert_equal(ours, theirs):
    for (name, array), (other, expected) in zip(
        stored._arrays("", ours.columns), stored._arrays("", theirs.columns), strict=True
    ):
        assert name == other and array.dtype == expected.dtype
        np.testing.assert_array_equal(array, expected)
    assert ours.images.records() == theirs.images.records()
    for name in ("path", "categories", "remarks", "image_count", "annotation_count", "faults", "digest"):
        assert getattr(ours, name) == getattr(theirs, name)
    assert list(ours.annotations) == list(theirs.annotations)


def changed(folder, change):
    content = json.loads(FILE.read_text())
    change(content)
    path = folder / "changed.json"
    path.write_text(json.dumps(content))
    return path


def test_what_is_kept_is_what_was_read_and_is_not_read_again(tmp_path, monkeypatch):
    first, lines = read(FILE, tmp_path)
    assert_equal(first, read_instances(FILE))
    assert lines == [f"{FILE}: reading it", f"{FILE}: read once, and kept in {tmp_path}"]
    monkeypatch.setattr(data_cache, "read_instances", None)
    again, lines = read(FILE, tmp_path)
    assert_equal(again, first)
    assert not lines and not [path for path in tmp_path.iterdir() if path.name.startswith(".")]


def test_minibatches_and_the_fingerprint_are_those_of_the_file_itself(tmp_path):
    cfg = with_values(config(), {"TRAIN.SCALES": (96, 128)})
    images = DATA / "train_images"
    read(FILE, tmp_path)
    plain, kept = (
        training_roidb([dataset_of(each, images)], cfg) for each in (read_instances(FILE), read(FILE, tmp_path)[0])
    )
    assert data_fingerprint(plain) == data_fingerprint(kept)
    loading = (minibatches(each, cfg, 3, range(8), workers=0) for each in (plain, kept))
    for one, other in zip(*loading, strict=True):
        assert one.names == other.names and (one.data == other.data).all()
        for ours, theirs in zip(one.ground_truth, other.ground_truth, strict=True):
            for array, expected in zip(ours[:3], theirs[:3], strict=True):
                np.testing.assert_array_equal(array, expected)
            for segm, expected in zip(ours.segms, theirs.segms, strict=True):
                assert str(segm) == str(expected)


def test_odd_keypoints_and_names_that_are_no_utf8_are_kept_as_they_are(tmp_path):
    def change(content):
        content["images"][0]["file_name"] = "caf\udce9.png"
        for each, keypoints in zip(content["annotations"], ([1, 2, 2], "none", [], [1.5, 2, True], [10**12, 1, 1])):
            each["keypoints"] = keypoints
        content["annotations"][5] |= {"keypoints": [4, 5, 1], "num_keypoints": 1}

    path = changed(tmp_path, change)
    read(path, tmp_path / "cache")
    assert_equal(read(path, tmp_path / "cache")[0], read_instances(path))


def test_a_changed_file_is_read_anew(tmp_path):
    path = changed(tmp_path, lambda content: None)
    before, _ = read(path, tmp_path / "cache")
    changed(tmp_path, lambda content: content["annotations"][0].update(area=77.0))
    after, lines = read(path, tmp_path / "cache")
    assert lines and after.columns.areas[0] == 77 != before.columns.areas[0]


def test_a_file_with_faults_is_not_kept(tmp_path):
    path = changed(tmp_path, lambda content: content["annotations"][0].update(bbox=[1, 2]))
    found, _ = read(path, tmp_path / "cache")
    assert found.faults and not [each for each in (tmp_path / "cache").iterdir() if each.is_dir()]


def test_a_file_that_takes_the_name_while_it_is_read_is_kept_as_what_it_is(tmp_path, monkeypatch):
    path, cache = changed(tmp_path, lambda content: None), tmp_path / "cache"
    original = path.read_bytes()

    def other_meanwhile(line):
        changed(tmp_path, lambda content: content["annotations"][0].update(area=77.0))

    assert read_instances_once(path, cache, other_meanwhile).columns.areas[0] == 77
    path.write_bytes(original)
    found, _ = read(path, cache)
    assert_equal(found, read_instances(path))


def test_a_file_that_is_written_to_while_it_is_read_is_refused(tmp_path, monkeypatch):
    path = changed(tmp_path, lambda content: None)
    read_images = reader._Reading.read_images

    def and_written_to(self, *given):
        os.utime(path, ns=(1, 1))
        read_images(self, *given)

    monkeypatch.setattr(reader._Reading, "read_images", and_written_to)
    with pytest.raises(InputError, match="was changed while it was read: try again"):
        read(path, tmp_path / "cache")


def test_what_is_kept_on_a_disk_that_is_read_only_is_taken(tmp_path, monkeypatch):
    read(FILE, tmp_path)
    monkeypatch.setattr(data_cache, "locked", None)
    assert not read(FILE, tmp_path)[1]


@pytest.mark.parametrize("name", ["columns.boxes", "columns.category_ids", "columns.outlines.starts", "rest", "sums"])
@pytest.mark.parametrize("byte", [0, 90, -9])
def test_a_byte_that_changed_is_noticed(tmp_path, name, byte):
    read(FILE, tmp_path)
    (path,) = tmp_path.glob(f"*/{name}.*")
    content = bytearray(path.read_bytes())
    content[byte] ^= 0x55
    path.write_bytes(content)
    found, lines = read(FILE, tmp_path)
    assert lines
    assert_equal(found, read_instances(FILE))


@pytest.mark.parametrize("damage", ["cut", "gone", "no rest", "rest cut"])
def test_what_is_damaged_is_read_and_kept_anew(tmp_path, damage):
    read(FILE, tmp_path)
    (folder,) = (path for path in tmp_path.iterdir() if path.is_dir())
    array, rest = folder / "columns.boxes.npy", folder / "rest.json"
    if damage == "cut":
        array.write_bytes(array.read_bytes()[:-8])
    elif damage == "rest cut":
        rest.write_bytes(rest.read_bytes()[:-8])
    else:
        (array if damage == "gone" else rest).unlink()
    found, lines = read(FILE, tmp_path)
    assert lines
    assert_equal(found, read_instances(FILE))
    assert not read(FILE, tmp_path)[1]


def full(*_):
    raise OSError(28, "No space left on device")


def test_a_disk_that_cannot_keep_it_is_no_reason_not_to_train_nor_to_read_twice(tmp_path, monkeypatch):
    reads = []

    def read_and_counted(path):
        reads.append(path)
        return read_instances(path)

    monkeypatch.setattr(data_cache, "store_instances", full)
    monkeypatch.setattr(data_cache, "read_instances", read_and_counted)
    found, lines = read(FILE, tmp_path)
    assert reads == [FILE]
    assert_equal(found, read_instances(FILE))
    assert "cannot keep it (No space left on device)" in lines[-1] and "kept in" not in "".join(lines)
    assert not [path for path in tmp_path.iterdir() if not path.name.endswith(".lock")]
    blocked = tmp_path / "file"
    blocked.write_text("")
    assert "cannot keep it" in read(FILE, blocked)[1][-1] and reads == [FILE] * 2


def test_what_a_killed_process_left_is_cleared_away(tmp_path):
    read(FILE, tmp_path)
    (folder,) = (path for path in tmp_path.iterdir() if path.is_dir())
    left = tmp_path / f".{folder.name}.0123.tmp"
    left.mkdir()
    shutil.rmtree(folder)
    read(FILE, tmp_path)
    assert not left.exists()


def _read_in_process(cache, told):
    data_cache.SMALLEST = 0
    found, lines = read(FILE, cache)
    told.put((len(lines), len(found.columns)))


def test_of_processes_that_start_together_one_reads_it(tmp_path):
    context = multiprocessing.get_context("spawn")
    told = context.Queue()
    processes = [context.Process(target=_read_in_process, args=(tmp_path, told)) for _ in range(3)]
    for process in processes:
        process.start()
    found = [told.get(timeout=120) for _ in processes]
    for process in processes:
        process.join()
    assert sorted(lines for lines, _ in found) == [0, 0, 2] and {count for _, count in found} == {24}


def _read_on_a_full_disk(cache, barrier, told):
    times = []

    def read_slowly(path):
        start = time.monotonic()
        time.sleep(1)
        found = read_instances(path)
        times.append((start, time.monotonic()))
        return found

    data_cache.SMALLEST = 0
    data_cache.store_instances, data_cache.read_instances = full, read_slowly
    barrier.wait(timeout=120)
    told.put((times, len(read(FILE, cache)[0].columns)))


def test_on_a_full_disk_each_process_reads_once_and_those_that_waited_read_side_by_side(tmp_path):
    context = multiprocessing.get_context("spawn")
    told, barrier = context.Queue(), context.Barrier(3)
    processes = [context.Process(target=_read_on_a_full_disk, args=(tmp_path, barrier, told)) for _ in range(3)]
    for process in processes:
        process.start()
    found = [told.get(timeout=120) for _ in processes]
    for process in processes:
        process.join()
    assert [len(times) for times, _ in found] == [1, 1, 1] and {count for _, count in found} == {24}
    (_, second, third) = sorted(times[0] for times, _ in found)
    assert third[0] < second[1]
