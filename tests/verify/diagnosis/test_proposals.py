"""Wrong proposals, each of its own fault: the boxes of equal score tell the faults apart."""


import numpy as np
import pytest
import torch

from detectron_gn.mrcnn.ops import proposals
from detectron_gn.port.blobs.activations import trace_boxes
from detectron_gn.port.runs.load import load_model
from detectron_gn.verify.diagnosis.proposals import explain_proposals
from detectron_gn.verify.reference.image_dump import read_reference, reference_names
from detectron_gn.verify.reference.reference_blob import ReferenceBlob

LEVELS = range(2, 7)


@pytest.fixture
def model(pickle):
    return load_model(pickle, device="cpu")


def explained(model, demo_model):
    """What is told of one image of the embedded reference."""
    reference = first_reference(model, demo_model)
    return explain_proposals(model.cfg, trace_boxes(model, reference.image), reference.blobs)


def first_reference(model, demo_model):
    path = demo_model / "blobs.h5"
    return read_reference(path, reference_names(path)[0], demo_model / "val", model.cfg)


def explained_of_sample(model, demo_model, stride):
    """The same where the reference holds every n-th value of the proposals."""
    reference = first_reference(model, demo_model)
    sampled = {
        name: ReferenceBlob(blob.values[::stride], blob.shape, stride) if name.startswith("rpn_rois_") else blob
        for name, blob in reference.blobs.items()
    }
    return explain_proposals(model.cfg, trace_boxes(model, reference.image), sampled)


def set_anchors(model, change):
    for level in LEVELS:
        anchors = model.rpn.get_buffer(f"anchors_fpn{level}")
        model.rpn.register_buffer(f"anchors_fpn{level}", change(anchors, 2**level), persistent=False)


def scaled(anchors, factor):
    middle = (anchors[:, :2] + anchors[:, 2:]) / 2
    return torch.cat((middle + (anchors[:, :2] - middle) * factor, middle + (anchors[:, 2:] - middle) * factor), dim=1)


@pytest.mark.parametrize(
    ("change", "evidence", "suspect"),
    [
        (lambda anchors, stride: anchors + 8, "(P2: +8, P3: +8, P4: +8, P5: +8)", "an offset in pixels"),
        (lambda anchors, stride: anchors + stride / 2, "(P2: +2, P3: +4, P4: +8, P5: +16)", "the place of the anchors"),
        (lambda anchors, stride: anchors - (stride - 1) / 2, "(P2: -1.5, P3: -3.5, P4: -7.5, P5: -1", "the place of"),
        (lambda anchors, stride: anchors.flip(0), "1: 7.6e-06 px", "the order of the anchors"),
        (lambda anchors, stride: scaled(anchors, 1.25), "all are 1.24 times as large", "the size of the anchors"),
    ],
)
def test_wrong_anchors(model, demo_model, change, evidence, suspect):
    set_anchors(model, change)
    cause = explained(model, demo_model)
    assert cause.suspect.startswith(suspect) and not cause.may_be
    assert evidence in cause.evidence or suspect == "the order of the anchors" and "1: " in cause.evidence


@pytest.mark.parametrize(
    ("wrong", "suspect", "may_be"),
    [
        (lambda right, boxes, deltas, weights: right(boxes, deltas[:, [1, 0, 3, 2]], weights), "", "decoding deltas"),
        (lambda right, boxes, deltas, weights: right(boxes, deltas, (10.0, 10.0, 5.0, 5.0)), "", "decoding deltas"),
        (lambda right, *args: right(*args) + torch.tensor([0, 0, 0.4, 0.4]), "", "decoding deltas"),
        (lambda right, *args: right(*args) + torch.tensor([0, 0, 1, 1]), "the + 1", ""),
        (lambda right, *args: right(*args).round(), "rounding of proposals", ""),
        (lambda right, *args: right(*args) + 0.3, "an offset in pixels", ""),
    ],
)
def test_wrong_decoding_is_named_only_where_the_boxes_leave_no_other_cause(
    model, demo_model, monkeypatch, wrong, suspect, may_be
):
    right = proposals.decode_boxes
    monkeypatch.setattr(proposals, "decode_boxes", lambda *args: wrong(right, *args))
    cause = explained(model, demo_model)
    assert cause.suspect.startswith(suspect) and bool(cause.suspect) == bool(suspect)
    assert cause.may_be.startswith(may_be) and bool(cause.may_be) == bool(may_be)


def test_wrong_clipping(model, demo_model, monkeypatch):
    right = proposals.clip_boxes
    monkeypatch.setattr(proposals, "clip_boxes", lambda boxes, height, width: right(boxes, height - 12, width))
    found = explained(model, demo_model)
    assert found.evidence.endswith("at the image's border") and found.suspect.startswith("clipping proposals")


def test_equal_boxes_are_a_matter_of_choice(model, demo_model):
    found = explained(model, demo_model)
    assert found.evidence == "those of equal score have equal boxes" and found.suspect.startswith("choosing proposals")


def test_coordinates_that_the_reference_has_not_kept_tell_nothing(model, demo_model):
    set_anchors(model, lambda anchors, stride: anchors + stride / 2)
    cause = explained_of_sample(model, demo_model, 3)
    assert cause.suspect.startswith("the place of the anchors")
    assert np.isclose(float(cause.evidence.split("P3: ")[1].split(",")[0]), 4, atol=0.1)


@pytest.mark.filterwarnings("error")
def test_where_no_corner_is_known_nothing_is_claimed_of_boxes(model, demo_model):
    cause = explained_of_sample(model, demo_model, 5)
    assert cause.evidence.startswith("none of them can be paired")
    assert cause.suspect == "" and cause.may_be.endswith("a reference with whole rpn_rois_* tells which")
