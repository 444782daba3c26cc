"""Wrong proposals, each of its own fault: the boxes of equal score tell the faults apart."""


import h5py
import numpy as np
import pytest
import torch

import mrcnn.proposals
from mrcnn.image import read_image
from port.activations import trace_boxes
from port.model_source import load_model
from verify.proposal_suspects import explain_proposals

LEVELS = range(2, 7)


@pytest.fixture
def model(pickle):
    return load_model(pickle, device="cpu")


def explained(model, demo_model):
    """Evidence and suspect for one image of the embedded reference."""
    with h5py.File(demo_model / "blobs.h5") as reference:
        name, group = next(iter(reference.items()))
        return explain_proposals(model.cfg, trace_boxes(model, read_image(demo_model / "val" / name)), group["blobs"])


def set_anchors(model, change):
    for level in LEVELS:
        anchors = getattr(model, f"anchors_fpn{level}")
        model.register_buffer(f"anchors_fpn{level}", change(anchors, 2**level), persistent=False)


def scaled(anchors, factor):
    middle = (anchors[:, :2] + anchors[:, 2:]) / 2
    return torch.cat((middle + (anchors[:, :2] - middle) * factor, middle + (anchors[:, 2:] - middle) * factor), dim=1)


@pytest.mark.parametrize(
    ("change", "evidence", "suspect"),
    [
        (lambda anchors, stride: anchors + 8, "(P2: +8, P3: +8, P4: +8, P5: +8)", "an offset in pixels"),
        (lambda anchors, stride: anchors + stride / 2, "(P2: +2, P3: +4, P4: +8, P5: +16)", "the place of the anchors"),
        (lambda anchors, stride: anchors.flip(0), "1: 7.6e-06 px", "the order of the anchors"),
        (lambda anchors, stride: scaled(anchors, 1.25), "all are 1.24 times as large", "the size of the anchors"),
    ],
)
def test_wrong_anchors(model, demo_model, change, evidence, suspect):
    set_anchors(model, change)
    told, suspected = explained(model, demo_model)
    assert suspected.startswith(suspect)
    assert evidence in told or suspect == "the order of the anchors" and "1: " in told


@pytest.mark.parametrize(
    ("wrong", "suspect"),
    [
        (lambda right, boxes, deltas, weights: right(boxes, deltas[:, [1, 0, 3, 2]], weights), "decoding deltas"),
        (lambda right, boxes, deltas, weights: right(boxes, deltas, (10.0, 10.0, 5.0, 5.0)), "decoding deltas"),
        (lambda right, boxes, deltas, weights: right(boxes, deltas, weights) + torch.tensor([0, 0, 1, 1]), "the + 1"),
    ],
)
def test_wrong_decoding(model, demo_model, monkeypatch, wrong, suspect):
    right = mrcnn.proposals.decode_boxes
    monkeypatch.setattr(mrcnn.proposals, "decode_boxes", lambda *args: wrong(right, *args))
    assert explained(model, demo_model)[1].startswith(suspect)


def test_wrong_clipping(model, demo_model, monkeypatch):
    right = mrcnn.proposals.clip_boxes
    monkeypatch.setattr(mrcnn.proposals, "clip_boxes", lambda boxes, height, width: right(boxes, height - 12, width))
    evidence, suspect = explained(model, demo_model)
    assert evidence.endswith("at the image's border") and suspect.startswith("clipping proposals")


def test_equal_boxes_are_a_matter_of_choice(model, demo_model):
    evidence, suspect = explained(model, demo_model)
    assert evidence == "those of equal score have equal boxes" and suspect.startswith("choosing proposals")


def test_coordinates_that_the_reference_has_not_kept_tell_nothing(model, demo_model, tmp_path):
    set_anchors(model, lambda anchors, stride: anchors + stride / 2)
    path = tmp_path / "sampled.h5"
    with h5py.File(demo_model / "blobs.h5") as reference, h5py.File(path, "w") as sampled:
        name, group = next(iter(reference.items()))
        for level in LEVELS:
            rois = group[f"blobs/rpn_rois_fpn{level}"][:]
            sampled[f"rpn_rois_fpn{level}"] = rois.reshape(-1)[::3]
            sampled[f"rpn_rois_fpn{level}"].attrs.update(stride=3, shape=rois.shape)
            sampled[f"rpn_roi_probs_fpn{level}"] = group[f"blobs/rpn_roi_probs_fpn{level}"][:]
        trace = trace_boxes(model, read_image(demo_model / "val" / name))
        evidence, suspect = explain_proposals(model.cfg, trace, sampled)
    assert suspect.startswith("the place of the anchors")
    assert np.isclose(float(evidence.split("P3: ")[1].split(",")[0]), 4, atol=0.1)


@pytest.mark.filterwarnings("error")
def test_where_no_corner_is_known_nothing_is_claimed_of_boxes(model, demo_model, tmp_path):
    path = tmp_path / "sampled.h5"
    with h5py.File(demo_model / "blobs.h5") as reference, h5py.File(path, "w") as sampled:
        name, group = next(iter(reference.items()))
        for level in LEVELS:
            rois = group[f"blobs/rpn_rois_fpn{level}"][:]
            sampled[f"rpn_rois_fpn{level}"] = rois.reshape(-1)[::5]
            sampled[f"rpn_rois_fpn{level}"].attrs.update(stride=5, shape=rois.shape)
            sampled[f"rpn_roi_probs_fpn{level}"] = group[f"blobs/rpn_roi_probs_fpn{level}"][:]
        trace = trace_boxes(model, read_image(demo_model / "val" / name))
        evidence, suspect = explain_proposals(model.cfg, trace, sampled)
    assert evidence.startswith("none of them can be paired")
    assert suspect.endswith("a reference with whole rpn_rois_* tells which")
