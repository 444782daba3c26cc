"""Detectron's own training of RetinaNet, of RPNs by themselves and of Faster R-CNN, replayed step by step.

`tests/data/zoo/train_*.h5.xz` are four iterations each on tests/data/train_images, every anchor and RoI trained on, so
that nothing is random (docs/training_traces.md). They are replayed in float64: of the millions of ReLUs of an iteration
rounding decides one or two in float32, which moves what lies below them by up to 3e-3, and none in float64. Where it
decided one in Caffe2, the file's own `noise`, which is Caffe2 run again from weights changed in their last bits, says
how far that moves gradients.
"""

import h5py
import numpy as np
import pytest
import torch

from detectron_gn.mrcnn.errors import InputError
from detectron_gn.mrcnn.heads import rpn
from detectron_gn.mrcnn.training import anchor_targets, dense_targets, focal_losses, losses
from detectron_gn.mrcnn.training.dense_targets import DenseField
from detectron_gn.verify.reference.training_trace import open_trace
from tests.helpers.training_reference import assert_caffe2s, assert_found, beginning, replayed, unpacked
from tests.helpers.zoo_reference import zoo_config

# pycocotools under numpy 2, once for every outline.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

# Losses of an iteration, updates, anchors and RoIs of the first iteration.
TRACES = {
    "train_retinanet": (10, 78, 24299, 0),
    "train_retinanet_softmax": (10, 78, 24299, 0),
    "train_faster_fpn": (12, 72, 8254, 155),
    "train_rpn_fpn": (10, 64, 8254, 0),
    "train_retinanet_specific": (10, 70, 24213, 0),
    "train_rpn_c4": (2, 38, 1395, 0),
    "train_faster_agnostic": (12, 72, 8255, 155),
}


@pytest.fixture(scope="module")
def trace_of(data, tmp_path_factory):
    """The path of a trace by its name, unpacked."""
    folder = tmp_path_factory.mktemp("traces")
    return lambda name: unpacked(data, name, folder)


@pytest.mark.slow
@pytest.mark.parametrize("name", TRACES)
def test_losses_gradients_and_parameters_are_caffe2s(data, trace_of, name):
    path = trace_of(name)
    steps, final = replayed(beginning(data, path), path)
    losses, updates, anchors, rois = TRACES[name]
    assert_caffe2s(steps, final, path, losses, updates)
    first = steps[0].samples
    assert (first.anchors, first.reference_anchors) == (anchors, anchors)
    assert (first.rois, first.reference_rois) == (rois, rois)


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", ["train_retinanet", "train_retinanet_softmax", "train_rpn_c4", "train_faster_agnostic"]
)
def test_verify_training_holds_in_float32(data, trace_of, name):
    parity = beginning(data, trace_of(name)).check(trace_of(name), replicas=2)
    assert parity.holds and parity.losses.count == 4 * TRACES[name][0]


DAMAGED = [
    ("retnet_cls_labels_fpn3", lambda values: values[:, :8], "is 2x8x32x32, not [2, 9, H, W] of up to 32 x 32"),
    ("retnet_cls_labels_fpn4", lambda values: values + 4, "holds other values than -1 to 4"),
    ("retnet_roi_fg_bbox_locs_fpn3", lambda values: values[:, :3], "is 146x3, not [M, 4]"),
    ("retnet_roi_fg_bbox_locs_fpn3", lambda values: values + 1, "(column 0) holds other values than 0 to 1"),
    ("retnet_roi_bbox_targets_fpn3", lambda values: values[1:], "is 145x4, not 146x4"),
    ("retnet_roi_bbox_targets_fpn4", lambda values: values * np.nan, "holds values that are not finite"),
    ("retnet_fg_num", lambda values: np.repeat(values, 2), "is 2, not 1"),
]


@pytest.mark.parametrize(("name", "damage", "told"), DAMAGED, ids=lambda value: value if isinstance(value, str) else "")
def test_a_damaged_trace_of_a_retinanet_is_bad_input(trace_of, tmp_path, name, damage, told):
    path = tmp_path / "trace.h5"
    path.write_bytes(trace_of("train_retinanet").read_bytes())
    with h5py.File(path, "r+") as file:
        cfg = zoo_config(file)
        group, values = file["iter0"], damage(file["iter0"][name][()])
        del group[name]
        group[name] = values
    with open_trace(path) as trace, pytest.raises(InputError) as error:
        trace.iterations[0].dense(cfg, DenseField(cfg))
    assert name in str(error.value) and told in str(error.value) and "\n" not in str(error.value)


def _wrong_sign(monkeypatch):
    """Of the focal loss's gradient, not of the loss."""
    backward = focal_losses._SigmoidFocalLoss.backward

    def turned(ctx, gradient):
        return backward(ctx, -gradient)

    monkeypatch.setattr(focal_losses._SigmoidFocalLoss, "backward", staticmethod(turned))


def _wrong_normaliser(monkeypatch):
    """Without the one more that Detectron counts in every image."""
    label = dense_targets.label_anchors

    def fewer(*args):
        targets = label(*args)
        return targets._replace(fg_num=targets.fg_num - 1)

    monkeypatch.setattr("detectron_gn.mrcnn.training.samplers.label_anchors", fewer)


def _wrong_class(monkeypatch):
    """The gt box that an anchor is the best of, in place of the one that it overlaps most."""
    match = anchor_targets.match_anchors

    def worst(*args):
        matched = match(*args)
        return matched._replace(best_gt=(matched.best_gt + 1) % len(args[1]))

    monkeypatch.setattr(dense_targets, "match_anchors", worst)


def _wrong_threshold(monkeypatch):
    """Objects that are only the best of a poor lot stay objects."""
    label = dense_targets.label_anchors

    def kept(field, gt_boxes, gt_classes, cfg):
        targets = label(field, gt_boxes, gt_classes, cfg)
        matched = anchor_targets.match_anchors(field.anchors, gt_boxes, cfg.RETINANET.POSITIVE_OVERLAP)
        labels = torch.where(matched.is_object, gt_classes[matched.best_gt], targets.labels)
        return targets._replace(labels=labels)

    monkeypatch.setattr("detectron_gn.mrcnn.training.samplers.label_anchors", kept)


def _wrong_background_number(monkeypatch):
    """Background of one class alone; no loss hangs on it."""
    label = dense_targets.label_anchors

    def of_one_class(*args):
        targets = label(*args)
        return targets._replace(bg_num=targets.bg_num / 4)

    monkeypatch.setattr("detectron_gn.mrcnn.training.samplers.label_anchors", of_one_class)


def _wrong_rpn_normaliser(monkeypatch):
    """The number of anchors that were wanted, as on a pyramid, in place of those that were drawn."""
    rpn_losses = losses.rpn_losses

    def as_on_a_pyramid(outputs, samples, field, cfg):
        found = rpn_losses(outputs, samples, field, cfg)
        drawn = sum(len(sample.anchors) for sample in samples)
        wanted = cfg.TRAIN.RPN_BATCH_SIZE_PER_IM * cfg.TRAIN.IMS_PER_BATCH
        return {**found, "loss_rpn_cls": found["loss_rpn_cls"] * drawn / wanted}

    monkeypatch.setattr(rpn, "rpn_losses", as_on_a_pyramid)


def _wrong_beta(monkeypatch):
    monkeypatch.setattr(losses, "RPN_BOX_BETA", 1.0)


INJECTED = [
    ("train_retinanet", _wrong_sign, "updates"),
    ("train_retinanet", _wrong_normaliser, "losses"),
    ("train_retinanet", _wrong_normaliser, "samples"),
    ("train_retinanet", _wrong_background_number, "samples"),
    ("train_retinanet", _wrong_class, "samples"),
    ("train_retinanet_specific", _wrong_threshold, "samples"),
    ("train_rpn_c4", _wrong_rpn_normaliser, "losses"),
    ("train_rpn_fpn", _wrong_beta, "losses"),
]


@pytest.mark.slow
@pytest.mark.parametrize(("name", "inject", "shown_by"), INJECTED, ids=lambda value: getattr(value, "__name__", None))
def test_what_is_wrong_is_found(data, trace_of, name, inject, shown_by, monkeypatch):
    inject(monkeypatch)
    assert_found(beginning(data, trace_of(name)).check(trace_of(name), replicas=1), shown_by)
