"""Detectron's own training of keypoint heads, C4 models and models on proposals from files, replayed step by step.

As in test_dense_training.py: four iterations each, everything trained on, in float64. Two data sets are made for what
Detectron does with crowds, images without objects, proposals beyond the image, mirrored people, and keypoints on edges.
An image without objects lends a mask head one RoI of its background, by lot, with nothing to train on: any is the same.
"""

import lzma
from copy import deepcopy
from dataclasses import replace
from typing import NamedTuple

import h5py
import pytest

from detectron_gn.mrcnn.config import with_values
from detectron_gn.mrcnn.data.coco import read_dataset
from detectron_gn.mrcnn.errors import InputError
from detectron_gn.mrcnn.heads import keypoint
from detectron_gn.mrcnn.heads.mask import MaskHead
from detectron_gn.mrcnn.training import losses, roi_targets
from detectron_gn.port.config.read import dump_config
from detectron_gn.verify.reference.training_trace import open_trace
from detectron_gn.weights import write_blobs
from tests.helpers.command_line import assert_one_sentence
from tests.helpers.training_reference import assert_caffe2s, assert_found, beginning, beginning_on, replayed, unpacked
from tests.helpers.wrong_ports import no_crowd_filter, people_without_keypoints, unclipped, unswapped
from tests.helpers.zoo_reference import zoo_config

# pycocotools under numpy 2, once for every outline.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")


class Counts(NamedTuple):
    """Losses of an iteration, and what is updated and sampled in the first."""

    losses: int
    updates: int
    anchors: int
    rois: int
    masks: int
    keypoints: int


TRACES = {
    "train_mask_c4": Counts(5, 56, 453, 22, 2, 0),
    "train_mask_c4_pair": Counts(5, 56, 765, 45, 6, 0),
    "train_mask_c4_v0up": Counts(5, 66, 765, 45, 5, 0),
    "train_keypoint_flips": Counts(13, 78, 8255, 155, 0, 7),
    "train_keypoint_c4_prop": Counts(3, 58, 0, 118, 0, 34),
    "train_fast_fpn": Counts(2, 66, 0, 304, 0, 0),
    # Two levels of the pyramid have no RoI: what only they use decays all the same.
    "train_fast_levels": Counts(2, 66, 0, 108, 0, 0),
    "train_fast_c4": Counts(2, 46, 0, 108, 0, 0),
    "train_mask_prop": Counts(3, 78, 0, 108, 27, 0),
}


@pytest.fixture(scope="module")
def trace_of(data, tmp_path_factory):
    """The path of a trace by its name, unpacked."""
    folder = tmp_path_factory.mktemp("traces")
    return lambda name: unpacked(data, name, folder)


def assert_as_counted(steps, counts):
    first = steps[0].samples
    assert (first.anchors, first.reference_anchors) == (counts.anchors, counts.anchors)
    assert (first.rois, first.reference_rois) == (counts.rois, counts.rois)
    assert (first.masks, first.keypoints) == (counts.masks, counts.keypoints)


@pytest.mark.slow
@pytest.mark.parametrize("name", TRACES)
def test_losses_gradients_and_parameters_are_caffe2s(data, trace_of, name):
    path, counts = trace_of(name), TRACES[name]
    steps, final = replayed(beginning(data, path), path)
    assert_caffe2s(steps, final, path, counts.losses, counts.updates)
    assert_as_counted(steps, counts)


@pytest.mark.slow
def test_people_on_photos_are_trained_on_as_in_caffe2(data, shared, tmp_path):
    path, annotations = shared / "parity" / "zoo" / "train_keypoint.h5", tmp_path / "train_keypoints.json"
    annotations.write_bytes(lzma.decompress((data / "zoo" / f"{annotations.name}.xz").read_bytes()))
    dataset = read_dataset(annotations, shared / "data" / "coco_ccby" / "val2017")
    steps, final = replayed(beginning_on(dataset, path), path)
    assert_caffe2s(steps, final, path, losses=13, updates=90)
    assert_as_counted(steps, Counts(13, 90, 8176, 169, 0, 20))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["train_keypoint_flips", "train_mask_c4", "train_mask_prop"])
def test_verify_training_holds_in_float32(data, trace_of, name):
    parity = beginning(data, trace_of(name)).check(trace_of(name), replicas=2)
    assert parity.holds and parity.losses.count == 4 * TRACES[name].losses


@pytest.mark.slow
def test_the_command_takes_the_file_of_proposals(run, data, trace_of, tmp_path):
    path = trace_of("train_fast_levels")
    start = beginning(data, path)
    write_blobs(tmp_path / "began.pkl", replace(start.weights, cfg=dump_config(start.cfg)))
    given = ["--annotations", data / "zoo" / "train_crowds.json", "--images", data / "train_images"]
    command = ("verify", "training", tmp_path / "began.pkl", *given, "--reference", path, "--replicas", 1)
    code, printed, _ = run(*command, "--proposals", data / "zoo" / "train_points_proposals.pkl")
    assert code == 0 and "It is the same run, as far as rounding lets one tell: " in printed
    assert_one_sentence(run(*command), "give --proposals")
    other = run(*command, "--proposals", data / "zoo" / "train_proposals.pkl")
    assert_one_sentence(other, "train_proposals.pkl holds no proposals for image")


DAMAGED = [
    ("train_keypoint_flips", "keypoint_rois", lambda values: values[:, :4], "is 7x4, not"),
    ("train_keypoint_flips", "keypoint_rois", lambda values: values[1:], "keypoint_locations_int32 is 119"),
    ("train_keypoint_flips", "keypoint_locations_int32", lambda values: values + 56**2, "other values than 0 to 3135"),
    ("train_keypoint_flips", "keypoint_weights", lambda values: values * 2, "other values than 0 to 1"),
    ("train_mask_c4", "roi_has_mask_int32", lambda values: values * 0, "marks 0 RoIs, but mask_rois has 2"),
]


@pytest.mark.parametrize(("trace", "name", "damage", "told"), DAMAGED)
def test_a_damaged_trace_is_bad_input(trace_of, tmp_path, trace, name, damage, told):
    path = tmp_path / "trace.h5"
    path.write_bytes(trace_of(trace).read_bytes())
    with h5py.File(path, "r+") as file:
        cfg = zoo_config(file)
        group, values = file["iter0"], damage(file["iter0"][name][()])
        del group[name]
        group[name] = values
    with open_trace(path) as trace, pytest.raises(InputError) as error:
        trace.iterations[0].rois(cfg)
    assert told in str(error.value) and "\n" not in str(error.value)


def _wrong_keypoint_normaliser(monkeypatch):
    """The number of visible keypoints, whatever KRCNN.NORMALIZE_BY_VISIBLE_KEYPOINTS says."""

    def by_visible(heatmaps, sample, cfg):
        (value,) = losses.keypoint_loss(heatmaps, sample, cfg).values()
        most = cfg.TRAIN.IMS_PER_BATCH * cfg.TRAIN.BATCH_SIZE_PER_IM * cfg.TRAIN.FG_FRACTION * cfg.KRCNN.NUM_KEYPOINTS
        return {"loss_kps_normalized": value * (most / int(sample.visible.sum()))}

    monkeypatch.setattr(keypoint, "keypoint_loss", by_visible)


def _wrong_keypoint_sign(monkeypatch):
    """Of the gradient, not of the loss."""

    def turned(heatmaps, sample, cfg):
        ((name, value),) = losses.keypoint_loss(heatmaps, sample, cfg).items()
        return {name: 2 * value.detach() - value}

    monkeypatch.setattr(keypoint, "keypoint_loss", turned)


def _unshared_res5(monkeypatch):
    """The mask head has a copy of res5 to itself: the losses are the same, and masks do not train the box head's."""

    def alone(self, features, sample, box_maps):
        masks, res5 = sample.masks, deepcopy(self._shared[0])
        logits = self._of_classes(res5(self.roi_features(features, masks.rois)), masks.classes)
        return losses.mask_loss(logits, masks, self.cfg)

    monkeypatch.setattr(MaskHead, "losses", alone)


def _wrong_box_targets(monkeypatch):
    """Boxes are trained to the other side."""
    encode = roi_targets.encode_boxes
    monkeypatch.setattr(roi_targets, "encode_boxes", lambda *given: -encode(*given))


INJECTED = [
    ("train_mask_prop", _wrong_box_targets, "samples"),
    ("train_keypoint_flips", unswapped, "samples"),
    ("train_keypoint_flips", _wrong_keypoint_normaliser, "losses"),
    ("train_keypoint_flips", _wrong_keypoint_sign, "updates"),
    ("train_keypoint_flips", people_without_keypoints, "samples"),
    ("train_mask_prop", unclipped, "samples"),
    ("train_mask_prop", no_crowd_filter, "samples"),
    ("train_mask_c4", _unshared_res5, "updates"),
]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("key", "value"), [("MODEL.BBOX_REG_WEIGHTS", (10.0, 10.0, 5.0, 6.0)), ("TRAIN.BBOX_THRESH", 0.95)]
)
def test_another_key_of_box_targets_is_found(data, trace_of, key, value):
    path = trace_of("train_mask_prop")
    start = beginning(data, path)
    start = start._replace(cfg=with_values(start.cfg, {key: value}))
    assert_found(start.check(path, replicas=1), "samples")


@pytest.mark.slow
@pytest.mark.parametrize(("name", "inject", "shown_by"), INJECTED, ids=lambda value: getattr(value, "__name__", None))
def test_what_is_wrong_is_found(data, trace_of, name, inject, shown_by, monkeypatch):
    inject(monkeypatch)
    assert_found(beginning(data, trace_of(name)).check(trace_of(name), replicas=1), shown_by)
