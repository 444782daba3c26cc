"""Which images share a minibatch, in which order and scale, and that the number of workers changes none of it."""

import sys
import threading
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from detectron_gn.mrcnn.config import Config, with_values
from detectron_gn.mrcnn.data.coco import read_dataset
from detectron_gn.mrcnn.data.image_blob import image_blob, prepare_image
from detectron_gn.mrcnn.data.minibatch import MinibatchSchedule, load_minibatch, minibatches, sampling_seed
from detectron_gn.mrcnn.data.roidb import training_roidb
from detectron_gn.mrcnn.errors import InputError

DATA = Path(__file__).parents[2] / "data"

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")


def config(**train):
    cfg = with_values(Config(), {"FPN.FPN_ON": True, "MODEL.NUM_CLASSES": 5})
    return replace(cfg, TRAIN=replace(cfg.TRAIN, **{"SCALES": (160,), "MAX_SIZE": 256} | train))


WIDE, UPRIGHT = True, False


def epoch(schedule, number=0):
    count = schedule.minibatches_per_epoch
    return [schedule.images(number * count + i).tolist() for i in range(count)]


@pytest.fixture
def roidb():
    return training_roidb([read_dataset(DATA / "train_images.json", DATA / "train_images")], config())


def test_a_minibatch_holds_wide_or_upright_images_and_a_square_is_wide():
    roidb = np.array([WIDE, UPRIGHT, WIDE] * 4)
    for images in epoch(MinibatchSchedule(roidb, config(), seed=1)):
        assert len(set(roidb[images].tolist())) == 1


def test_a_square_image_is_a_wide_one(write_dataset, annotation):
    sizes = {1: (60, 80), 2: (80, 60), 3: (60, 60)}
    data = read_dataset(*write_dataset(sizes, [annotation(image_id=number, category_id=3) for number in sizes]))
    roidb = training_roidb([data], with_values(config(), {"MODEL.NUM_CLASSES": 3}))
    assert roidb.is_horizontal.tolist() == [True, False, True] * 2


def test_an_epoch_has_every_image_once_but_for_those_that_do_not_fill_a_minibatch():
    roidb = np.array([WIDE] * 7 + [UPRIGHT] * 5)
    schedule = MinibatchSchedule(roidb, config(IMS_PER_BATCH=2), seed=1)
    images = sum(epoch(schedule), [])
    assert schedule.minibatches_per_epoch == 5
    assert len(set(images)) == len(images) == 10


def test_without_aspect_grouping_the_last_minibatch_is_filled_from_the_front():
    schedule = MinibatchSchedule(np.array([WIDE] * 5), config(ASPECT_GROUPING=False), seed=1)
    images = sum(epoch(schedule), [])
    assert len(images) == 6 and set(images) == set(range(5))


def test_epochs_are_shuffled_anew_and_the_same_for_the_same_seed():
    roidb = np.array([WIDE] * 20)
    schedule = MinibatchSchedule(roidb, config(), seed=1)
    first, second = epoch(schedule, 0), epoch(schedule, 1)
    assert first != second
    again = MinibatchSchedule(roidb, config(), seed=1)
    assert epoch(again, 1) == second and epoch(again, 0) == first
    assert epoch(MinibatchSchedule(roidb, config(), seed=2)) != first


def test_too_few_images_for_one_minibatch_are_refused():
    with pytest.raises(InputError, match="TRAIN.IMS_PER_BATCH 2"):
        MinibatchSchedule(np.array([WIDE, UPRIGHT]), config(), seed=1)


def test_the_image_blob_is_detectrons(data):
    import h5py

    roidb = training_roidb([read_dataset(data / "train_images.json", data / "train_images")], config())
    with h5py.File(data / "train_minibatch.h5") as reference:
        minibatch = load_minibatch(roidb[:2], [160, 160], config())
        theirs = reference["data"][:]
        assert minibatch.data.shape == theirs.shape
        assert np.abs(minibatch.data[:, :, ::4, ::4].numpy() - theirs[:, :, ::4, ::4]).max() < 1e-3
        np.testing.assert_array_equal(np.array(minibatch.im_info, np.float32), reference["im_info"][:])


def test_im_info_is_the_scaled_size_and_not_the_padded_one(roidb):
    entry = roidb[0]
    minibatch = load_minibatch([entry], [160], config())
    (info,) = minibatch.im_info
    assert (info.height, info.width) == (round(entry.height * info.scale), round(entry.width * info.scale))
    assert minibatch.data.shape[2] % 32 == minibatch.data.shape[3] % 32 == 0
    assert minibatch.data[0, :, :, int(info.width) :].abs().max() == 0


def test_a_flipped_entry_is_the_mirror_of_its_image_and_of_its_boxes(roidb):
    entry = next(e for e in roidb if e.ground_truth.is_crowd.any())
    mirrored = load_minibatch([replace(entry, flipped=True)], [160], config())
    cfg = config()
    pixels = np.ascontiguousarray(cv2.imread(str(entry.image))[:, ::-1])
    expected = image_blob([prepare_image(pixels, cfg.PIXEL_MEANS, 160, 256).pixels], 32)
    assert torch.equal(mirrored.data, expected)
    boxes, flipped = entry.ground_truth.boxes, mirrored.ground_truth[0].boxes
    np.testing.assert_array_equal(flipped[:, 0], entry.width - boxes[:, 2] - 1)
    np.testing.assert_array_equal(flipped[:, 2], entry.width - boxes[:, 0] - 1)


def test_of_a_truncated_jpeg_the_pixels_are_imreads_and_the_minibatch_says_so(write_dataset, annotation):
    file, folder = write_dataset({1: (60, 80)}, [annotation(), annotation(category_id=3)])
    jpeg = cv2.imencode(".jpg", cv2.imread(str(folder / "1.png")))[1].tobytes()
    (folder / "1.png").write_bytes(jpeg[: len(jpeg) // 2])
    cfg = with_values(config(), {"MODEL.NUM_CLASSES": 3})
    entry = training_roidb([read_dataset(file, folder)], cfg)[0]
    minibatch = load_minibatch([entry], [160], cfg)
    expected = image_blob([prepare_image(cv2.imread(str(entry.image)), cfg.PIXEL_MEANS, 160, 256).pixels], 32)
    assert torch.equal(minibatch.data, expected)
    assert [f"{entry.image} ends early" in remark for remark in minibatch.remarks] == [True]


def test_minibatches_are_the_same_whoever_loads_them(roidb):
    cfg = config(SCALES=(96, 128, 160))
    alone = list(minibatches(roidb, cfg, 3, range(6), workers=0))
    shared = [next(minibatches(roidb, cfg, 3, [number], workers=0)) for number in range(6)]
    with_workers = list(minibatches(roidb, cfg, 3, range(6), workers=2))
    for others in (shared, with_workers):
        for one, other in zip(alone, others, strict=True):
            assert (one.number, one.names, one.im_info) == (other.number, other.names, other.im_info)
            assert torch.equal(one.data, other.data)
    assert len({info.scale for batch in alone for info in batch.im_info}) > 3


@pytest.mark.skipif(sys.platform != "linux", reason="looks for processes as Linux lists them")
def test_images_are_loaded_ahead_without_a_process_that_could_be_left_behind(roidb):
    def children():
        return {path.read_text() for path in Path("/proc/self/task").glob("*/children")}

    before, threads = children(), threading.active_count()
    loading = minibatches(roidb, config(), 3, range(100), workers=2)
    next(loading)
    assert children() == before and threading.active_count() == threads + 2
    loading.close()
    assert threading.active_count() == threads


@pytest.mark.parametrize("workers", [0, 1])
def test_an_image_that_cannot_be_read_stops_with_its_name_when_its_turn_comes(roidb, tmp_path, monkeypatch, workers):
    broken = tmp_path / "broken.png"
    broken.write_text("<html>")
    monkeypatch.setattr(roidb.datasets[0], "names", [str(broken)] * len(roidb))
    with pytest.raises(InputError, match=r"broken\.png cannot be decoded") as error:
        list(minibatches(roidb, config(), 3, [0], workers=workers))
    assert "Traceback" not in str(error.value)


def test_sampling_seeds_differ_from_minibatch_to_minibatch():
    seeds = {sampling_seed(3, number) for number in range(100)} | {sampling_seed(4, 0)}
    assert len(seeds) == 101 and all(0 <= seed < 2**63 for seed in seeds)


def test_every_image_of_every_minibatch_draws_a_scale_of_its_own(roidb):
    cfg = config(SCALES=(96, 128, 160))
    shorter = [
        tuple(int(min(info.height, info.width)) for info in minibatch.im_info)
        for minibatch in minibatches(roidb, cfg, 3, range(12), workers=0)
    ]
    assert len(set(shorter)) > 4
    assert any(first != second for first, second in shorter)
    assert {96, 128} <= {side for sides in shorter for side in sides}
