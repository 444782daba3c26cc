"""Samples that Detectron drew by lot: what our rules make of them is what the traces hold, and what is wrong is found.

The five `train_*_drawn` traces hold two iterations of the real Detectron each, with small minibatches, mirrored images
and a scale that is not 1. Traces of whole minibatches are looked at as if they had been drawn.
"""

import lzma

import numpy as np
import pytest
import torch

from detectron_gn.mrcnn.config import with_values
from detectron_gn.mrcnn.data import segms
from detectron_gn.mrcnn.data.coco import read_dataset
from detectron_gn.mrcnn.data.ground_truth import GroundTruth
from detectron_gn.mrcnn.data.minibatch import Minibatch
from detectron_gn.mrcnn.data.proposal_matches import match_proposals
from detectron_gn.mrcnn.data.roidb import training_roidb
from detectron_gn.mrcnn.ops import keypoints as keypoint_ops
from detectron_gn.mrcnn.ops.proposals import ImInfo
from detectron_gn.mrcnn.training import anchor_targets, keypoint_targets, roi_targets, samplers
from detectron_gn.mrcnn.training.anchor_targets import AnchorField
from detectron_gn.mrcnn.training.roi_targets import join_samples, sample_matched
from detectron_gn.port.config.read import bundled_config
from detectron_gn.verify.parity import recorded_targets
from detectron_gn.verify.parity.recorded_targets import by_image, compare_recorded, recomputed_rois
from detectron_gn.verify.parity.sample_parity import SampleParity, with_rois
from detectron_gn.verify.parity.training import reference_minibatch
from detectron_gn.verify.parity.training_check import training_tables
from detectron_gn.verify.parity.training_samples import ReferenceSampler
from detectron_gn.verify.reference.training_trace import open_trace
from tests.helpers.training_reference import assert_caffe2s, assert_found, beginning, beginning_on, replayed, unpacked
from tests.helpers.wrong_ports import no_crowd_filter, people_without_keypoints, unclipped, unswapped

# pycocotools under numpy 2, once for every outline.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

DRAWN = {
    "train_agnostic_drawn": (12, 72),
    "train_keypoint_drawn": (13, 78),
    "train_keypoint_prop_drawn": (3, 72),
    "train_mask_c4_drawn": (5, 56),
    "train_mask_prop_drawn": (3, 78),
}
WHOLE = (
    "train_fast_c4",
    "train_fast_fpn",
    "train_fast_levels",
    "train_faster_agnostic",
    "train_faster_fpn",
    "train_keypoint_c4_prop",
    "train_keypoint_flips",
    "train_mask_c4",
    "train_mask_c4_pair",
    "train_mask_c4_v0up",
    "train_mask_prop",
    "train_rpn_c4",
    "train_rpn_fpn",
)


@pytest.fixture(scope="module")
def trace_of(data, tmp_path_factory):
    """The path of a trace by its name, unpacked."""
    folder = tmp_path_factory.mktemp("traces")
    return lambda name: unpacked(data, name, folder)


def recorded(start, path):
    """Of each iteration of a trace: the anchors and RoIs that it holds, the field, and the minibatch."""
    cfg, device = start.cfg, torch.device("cpu")
    roidb = training_roidb([start.dataset], cfg, start.proposals)
    entries = {(entry.image.name, entry.flipped): entry for entry in roidb}
    field = AnchorField(cfg)
    with open_trace(path) as trace:
        for iteration in trace.iterations:
            sampler = ReferenceSampler(iteration, cfg, device)
            found = reference_minibatch(iteration, entries, cfg)
            has_anchors = found.proposals is None and iteration.has_anchors(cfg)
            anchors = sampler.anchors(field, found) if has_anchors else ()
            rois = None if cfg.MODEL.RPN_ONLY else sampler.rois(None, found)
            yield anchors, rois, field, found


def compared(start, path):
    """How the samples of each iteration compare with our rules."""
    return [compare_recorded(*samples, start.cfg) for samples in recorded(start, path)]


@pytest.mark.parametrize("name", [*DRAWN, *WHOLE])
def test_what_our_rules_make_of_the_samples_is_what_the_trace_holds(data, trace_of, name):
    found = compared(beginning(data, trace_of(name)), trace_of(name))
    assert len(found) == (2 if name in DRAWN else 4)
    assert [parity.different for parity in found] == [0] * len(found)
    assert all(parity.box_target_error < 1e-4 and parity.are_given for parity in found)
    assert all(parity.rois == parity.reference_rois and parity.anchors == parity.reference_anchors for parity in found)
    assert found[0].rois + found[0].anchors > 40
    assert ("mask" in name) == (found[0].masks > 0) and ("keypoint" in name) == (found[0].keypoints > 0)


def test_people_on_photos_are_as_the_trace_holds_them(data, shared, tmp_path):
    path, annotations = shared / "parity" / "zoo" / "train_keypoint.h5", tmp_path / "train_keypoints.json"
    annotations.write_bytes(lzma.decompress((data / "zoo" / f"{annotations.name}.xz").read_bytes()))
    dataset = read_dataset(annotations, shared / "data" / "coco_ccby" / "val2017")
    found = compared(beginning_on(dataset, path), path)
    assert [parity.different for parity in found] == [0] * 4 and found[0].keypoints == 20


@pytest.mark.slow
@pytest.mark.parametrize("name", DRAWN)
def test_losses_gradients_and_parameters_are_caffe2s(data, trace_of, name):
    path, (losses, updates) = trace_of(name), DRAWN[name]
    steps, final = replayed(beginning(data, path), path)
    assert_caffe2s(steps, final, path, losses, updates)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["train_keypoint_drawn", "train_mask_prop_drawn"])
def test_verify_training_holds_in_float32(data, trace_of, name):
    parity = beginning(data, trace_of(name)).check(trace_of(name), replicas=1)
    assert parity.holds and parity.losses.count == 2 * DRAWN[name][0]
    assert "0 of given ones" in training_tables(parity)


# What may be wrong: how it is made so, and what differs then. `anchors` are those of the RPN.


def _wrong_sign(monkeypatch):
    encode = roi_targets.encode_boxes
    monkeypatch.setattr(roi_targets, "encode_boxes", lambda *given: -encode(*given))


def _class_specific(monkeypatch):
    """The class's own box outputs are trained where all classes share two."""
    monkeypatch.setattr(roi_targets, "num_box_classes", lambda cfg: cfg.MODEL.NUM_CLASSES)


def _next_class(monkeypatch):
    """Each class is the next one."""
    found = roi_targets.roi_targets

    def turned(drawn, is_object, objects, *others):
        classes = objects.classes % 4 + 1
        return found(drawn, is_object, objects._replace(classes=classes), *others)

    monkeypatch.setattr("detectron_gn.verify.parity.recorded_targets.roi_targets", turned)


def _inclusive_mask(monkeypatch):
    """A box's sides with + 1, as elsewhere."""

    def wider(segm, box, resolution):
        return segms.segm_in_box(segm, box + np.array([0, 0, 1, 1], np.float32), resolution)

    monkeypatch.setattr(roi_targets, "segm_in_box", wider)


def _moved_mask(monkeypatch):
    """All of a mask one pixel to the right."""

    def moved(*given):
        mask = segms.segm_in_box(*given)
        return None if mask is None else np.pad(mask, ((0, 0), (1, 0)))[:, :-1]

    monkeypatch.setattr(roi_targets, "segm_in_box", moved)


def _outline_of_another(monkeypatch):
    """The outline that is next to the nearest one in the file."""
    bounds = roi_targets.segm_boxes

    def next_one(segms, fallback):
        return np.roll(bounds(segms, fallback=fallback), 1, axis=0)

    monkeypatch.setattr(roi_targets, "segm_boxes", next_one)


def _off_by_a_cell(monkeypatch):
    """Keypoints are rounded to the nearest edge between cells."""
    encode = keypoint_targets.encode_keypoints

    def rounded(keypoints, boxes, size):
        sides = (boxes[:, 2:] - boxes[:, :2]).repeat(1, 2)
        return encode(keypoints, boxes - sides / size / 2, size)

    monkeypatch.setattr(keypoint_targets, "encode_keypoints", rounded)


def _far_edge_is_outside(monkeypatch):
    """A keypoint on the far edge of its RoI does not belong to the last position."""
    encode = keypoint_ops._position

    def outside(coordinate, first, last, size):
        return torch.where(coordinate == last, size, encode(coordinate, first, last, size))

    monkeypatch.setattr(keypoint_ops, "_position", outside)


def _sees_nothing(monkeypatch):
    """Only RoIs that hold all their keypoints are drawn for these."""

    def all_within(keypoints, boxes):
        return (keypoints[:, 2] > 0).all(dim=1)

    monkeypatch.setattr(keypoint_targets, "_holds_visible", all_within)


def _wrong_anchor_sign(monkeypatch):
    encode = anchor_targets.encode_boxes
    monkeypatch.setattr(anchor_targets, "encode_boxes", lambda *given: -encode(*given))


def _only_high_overlaps(monkeypatch):
    """The best anchor of a gt box is no object where it overlaps it by little."""
    match = anchor_targets.match_anchors

    def strict(anchors, gt_boxes, overlap):
        found = match(anchors, gt_boxes, overlap)
        return found._replace(is_object=found.best_overlap >= overlap)

    monkeypatch.setattr(anchor_targets, "match_anchors", strict)


# What may be wrong in drawing alone, which no recorded sample is used for.


def _background_beside_objects(monkeypatch):
    """As much background is drawn as RoIs are wanted in all: objects and background are drawn in turns."""
    subset, objects = roi_targets.random_subset, []

    def more(indices, size, generator):
        if objects:
            return subset(indices, size + objects.pop(), generator)
        objects.append(len(found := subset(indices, size, generator)))
        return found

    monkeypatch.setattr(roi_targets, "random_subset", more)


def _thrice_the_objects(monkeypatch):
    most = roi_targets.most_object_rois
    monkeypatch.setattr(roi_targets, "most_object_rois", lambda cfg: 3 * most(cfg))


def _half_are_objects(monkeypatch):
    """Whatever TRAIN.FG_FRACTION is."""
    for module in (roi_targets, keypoint_targets):
        monkeypatch.setattr(module, "most_object_rois", lambda cfg: round(0.5 * cfg.TRAIN.BATCH_SIZE_PER_IM))


def _few_are_objects(monkeypatch):
    """Whatever TRAIN.FG_FRACTION is."""
    for module in (roi_targets, keypoint_targets):
        monkeypatch.setattr(module, "most_object_rois", lambda cfg: 1)


def _anchors_with(monkeypatch, **changed):
    sample = samplers.sample_anchors

    def other(anchors, gt_boxes, im_info, cfg, generator):
        keys = {f"TRAIN.{key}": change(getattr(cfg.TRAIN, key)) for key, change in changed.items()}
        return sample(anchors, gt_boxes, im_info, with_values(cfg, keys), generator)

    monkeypatch.setattr(samplers, "sample_anchors", other)


def _twice_the_background_of_anchors(monkeypatch):
    _anchors_with(monkeypatch, RPN_BATCH_SIZE_PER_IM=lambda size: 2 * size, RPN_FG_FRACTION=lambda share: share / 2)


def _no_more_anchors_than_four_are_objects(monkeypatch):
    _anchors_with(monkeypatch, RPN_FG_FRACTION=lambda share: share / 16)


MASKED = ["train_mask_c4_drawn", "train_mask_prop_drawn", "train_mask_c4"]
POINTED = ["train_keypoint_drawn", "train_keypoint_prop_drawn", "train_keypoint_flips", "train_keypoint_c4_prop"]
PROPOSED = ["train_agnostic_drawn", "train_keypoint_drawn", "train_mask_c4_drawn"]
# Where objects other than gt boxes are trained on, whose targets are 0: in `train_mask_c4` there are none.
BOXED = [*DRAWN, "train_mask_c4_pair", "train_fast_fpn", "train_faster_agnostic"]
INJECTED = [
    *((name, _wrong_sign, "rois") for name in BOXED),
    *((name, _next_class, "rois") for name in MASKED),
    *((name, _class_specific, "rois") for name in ("train_agnostic_drawn", "train_faster_agnostic")),
    *((name, _moved_mask, "masks") for name in MASKED),
    *((name, _inclusive_mask, "masks") for name in MASKED),
    *((name, _outline_of_another, "masks") for name in MASKED),
    *((name, unswapped, "keypoints") for name in POINTED),
    *((name, _off_by_a_cell, "keypoints") for name in POINTED),
    *((name, _sees_nothing, "keypoints") for name in POINTED),
    ("train_keypoint_flips", people_without_keypoints, "keypoints"),
    ("train_mask_prop_drawn", no_crowd_filter, "rois"),
    ("train_mask_prop_drawn", unclipped, "rois"),
    *((name, _wrong_anchor_sign, "anchors") for name in PROPOSED),
    *((name, _only_high_overlaps, "anchors") for name in PROPOSED),
    *((name, _background_beside_objects, "rois") for name in ("train_mask_prop_drawn", "train_keypoint_prop_drawn")),
    *((name, _thrice_the_objects, "rois") for name in ("train_mask_prop_drawn", "train_keypoint_prop_drawn")),
    *((name, _half_are_objects, "rois") for name in ("train_mask_prop_drawn", "train_keypoint_prop_drawn")),
    ("train_keypoint_prop_drawn", _half_are_objects, "keypoints"),
    *((name, _few_are_objects, "rois") for name in DRAWN),
    *((name, _few_are_objects, "keypoints") for name in ("train_keypoint_drawn", "train_keypoint_prop_drawn")),
    *((name, _twice_the_background_of_anchors, "anchors") for name in PROPOSED),
    *((name, _no_more_anchors_than_four_are_objects, "anchors") for name in PROPOSED),
]


def different(start, path):
    """How many differ, by kind, in all iterations."""
    parities = compared(start, path)
    kinds = ("anchors", "rois", "masks", "keypoints")
    return {kind: sum(getattr(parity, f"different_{kind}") for parity in parities) for kind in kinds}


def _id(value):
    return getattr(value, "__name__", None)


@pytest.mark.parametrize(("name", "inject", "kind"), INJECTED, ids=_id)
def test_what_is_wrong_is_found(data, trace_of, name, inject, kind, monkeypatch):
    inject(monkeypatch)
    found = different(beginning(data, trace_of(name)), trace_of(name))
    assert found[kind]


def test_wrong_targets_of_drawn_samples_are_told_by_verify_training(data, trace_of, monkeypatch):
    """Losses and updates are right all the same: the reference's samples are trained on."""
    _wrong_sign(monkeypatch)
    parity = beginning(data, trace_of("train_keypoint_drawn")).check(trace_of("train_keypoint_drawn"), replicas=0)
    assert_found(parity, "samples")
    assert not parity.losses.over and not parity.updates.over
    assert "5 of given ones" in training_tables(parity)


KEYS = [
    *((name, "MODEL.BBOX_REG_WEIGHTS", (10.0, 10.0, 5.0, 6.0), "rois") for name in BOXED),
    *((name, "TRAIN.BBOX_THRESH", 0.95, "rois") for name in BOXED),
    *((name, "TRAIN.FG_THRESH", 0.9, "rois") for name in BOXED),
    *((name, "TRAIN.BG_THRESH_LO", 0.1, "rois") for name in PROPOSED),
    *((name, "TRAIN.FG_FRACTION", 0.05, "rois") for name in DRAWN),
    ("train_mask_prop_drawn", "TRAIN.FG_FRACTION", 0.5, "rois"),
    ("train_mask_prop_drawn", "TRAIN.BATCH_SIZE_PER_IM", 48, "rois"),
    *((name, "TRAIN.BATCH_SIZE_PER_IM", 8, "rois") for name in DRAWN),
    ("train_keypoint_prop_drawn", "TRAIN.FG_FRACTION", 0.5, "keypoints"),
    *((name, "TRAIN.RPN_POSITIVE_OVERLAP", 0.5, "anchors") for name in PROPOSED),
    *((name, "TRAIN.RPN_NEGATIVE_OVERLAP", 0.01, "anchors") for name in PROPOSED),
    *((name, "TRAIN.RPN_BATCH_SIZE_PER_IM", 32, "anchors") for name in PROPOSED),
    *((name, "TRAIN.RPN_FG_FRACTION", 0.02, "anchors") for name in PROPOSED),
]


@pytest.mark.parametrize(("name", "key", "value", "kind"), KEYS, ids=str)
def test_another_key_of_targets_is_found(data, trace_of, name, key, value, kind):
    start = beginning(data, trace_of(name))
    found = different(start._replace(cfg=with_values(start.cfg, {key: value})), trace_of(name))
    assert found[kind]


@pytest.mark.slow
@pytest.mark.parametrize("key", ["TRAIN.RPN_NMS_THRESH", "TRAIN.RPN_POST_NMS_TOP_N", "TRAIN.RPN_MIN_SIZE"])
def test_rois_that_our_rpn_does_not_propose_are_found(data, trace_of, key):
    start, value = beginning(data, trace_of("train_keypoint_drawn")), 0.5 if key.endswith("THRESH") else 30
    start = start._replace(cfg=with_values(start.cfg, {key: value}))
    parity = start.check(trace_of("train_keypoint_drawn"), replicas=0)
    assert_found(parity, "samples")
    samples = parity.iterations[0].samples
    assert samples.different == samples.unproposed + samples.miscounted
    assert samples.different_rois == 0 and samples.unproposed > 10


@pytest.mark.slow
@pytest.mark.parametrize("name", PROPOSED)
def test_more_rois_than_detectron_draws_of_what_an_rpn_proposes_are_found(data, trace_of, name, monkeypatch):
    _background_beside_objects(monkeypatch)
    parity = beginning(data, trace_of(name)).check(trace_of(name), replicas=0)
    assert_found(parity, "samples")
    assert all(i.samples.miscounted == i.samples.different > 1 for i in parity.iterations)
    assert not parity.losses.over and not parity.updates.over


def test_counting_leaves_the_random_state_alone(data, trace_of):
    start, before = beginning(data, trace_of("train_mask_c4_drawn")), torch.get_rng_state()
    compared(start, trace_of("train_mask_c4_drawn"))
    assert torch.equal(torch.get_rng_state(), before)


def test_one_roi_that_is_not_proposed_may_be_by_rounding():
    recorded, found = drawn_on(people([100, 120, 207, 411]), 60)
    cfg, field = with_values(PEOPLE, {"MODEL.FASTER_RCNN": True}), AnchorField(PEOPLE)
    proposals = recorded.rois[recorded.rois[:, 1:].sum(dim=1).argsort()]
    counts = [
        compare_recorded((), recorded, field, found, cfg, proposals[lacking:]).unproposed for lacking in (0, 1, 20)
    ]
    # Each stands twice there: for its box and for its keypoints.
    assert counts == [0, 0, 40]


PEOPLE = with_values(
    bundled_config("e2e_keypoint_rcnn_R-50-FPN_1x"), {"TRAIN.BATCH_SIZE_PER_IM": 4096, "MODEL.MASK_ON": True}
)
# A number of which neither it nor its inverse is exact in float32.
SCALE = float(np.float32(0.968))


def people(*boxes, classes=None):
    """People with a keypoint on every edge of their box and 13 within, on whole pixels, and an outline with corners."""
    boxes = np.array(boxes, np.float32)
    x1, y1, x2, y2 = boxes.T[:, :, None]
    across = np.array([0, 1, 0.5, 0.5, *np.linspace(0.1, 0.9, 13)])
    down = np.array([0.5, 0.5, 0, 1, *np.linspace(0.9, 0.1, 13)])
    points = np.stack((x1 + across * (x2 - x1), y1 + down * (y2 - y1), 0 * x1 + 2 + 0 * across), axis=1)
    outlines = tuple((np.array([*box[:2], box[2], box[1] + 7, *box[2:], box[0] + 9, box[3]], float),) for box in boxes)
    classes = np.ones(len(boxes), np.int64) if classes is None else np.array(classes)
    return GroundTruth(boxes, classes, np.zeros(len(boxes), bool), outlines, points.round().astype(np.int32))


def drawn_on(objects, count=0, cfg=PEOPLE):
    """RoIs drawn here near the first object, its edges rounded to half pixels, and their minibatch."""
    generator = torch.Generator().manual_seed(7)
    near = torch.from_numpy(objects.boxes[:1]) + (torch.randint(-16, 17, (count, 4), generator=generator) / 2)
    matched = match_proposals(near, torch.from_numpy(objects.boxes))
    sample = sample_matched(matched, objects, 0, SCALE, cfg, generator)
    return by_image(join_samples([sample])), Minibatch(0, torch.zeros(0), [ImInfo(600, 800, SCALE)], [objects], ["1"])


@pytest.mark.parametrize("inject", [None, _far_edge_is_outside, _off_by_a_cell], ids=_id)
def test_a_recorded_gt_box_is_that_box_to_the_last_bit(inject, monkeypatch):
    recorded, found = drawn_on(people([10, 20, 107, 211], [30, 25, 207, 311]))
    if inject is not None:
        inject(monkeypatch)
    again = with_rois(SampleParity(0, 0, 0, 0, 0, 0, 0.0, 0, 0), recomputed_rois(recorded, found, PEOPLE), recorded)
    assert (again.rois, again.masks, again.keypoints) == (2, 2, 2)
    assert (again.different_rois, again.different_masks, again.different_keypoints) == (0, 0, 2 if inject else 0)
    assert again.box_target_error == 0


def test_two_objects_in_one_place_each_have_their_label():
    recorded, found = drawn_on(people([10, 20, 107, 211], [10, 20, 107, 211], classes=[1, 2]))
    assert sorted(recorded.labels.tolist()) == [1, 2]
    again = recomputed_rois(recorded, found, PEOPLE)
    assert again.labels.tolist() == recorded.labels.tolist()


def test_what_rounding_decides_counts_as_recorded_and_nothing_else(monkeypatch):
    """Edges on half pixels: outlines and keypoints on whole ones cross edges between cells, now and then exactly."""
    recorded, found = drawn_on(people([100, 120, 207, 411]), 1000)
    nothing = SampleParity(0, 0, 0, 0, 0, 0, 0.0, 0, 0)
    plain = recorded_targets._targets(recorded, found, PEOPLE)
    by_rounding = with_rois(nothing, plain, recorded)
    assert by_rounding.keypoints > 900 and by_rounding.different_keypoints > 20 and by_rounding.different_masks > 0
    settled = recomputed_rois(recorded, found, PEOPLE)
    assert with_rois(nothing, settled, recorded).different == 0
    _off_by_a_cell(monkeypatch)
    _moved_mask(monkeypatch)
    wrong = with_rois(nothing, recomputed_rois(recorded, found, PEOPLE), recorded)
    assert wrong.different_keypoints > 900 and wrong.different_masks > 900
