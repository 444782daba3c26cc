"""A wrong port of each family of Detectron's zoo is found where it begins, and the part at fault is named."""

import copy

import numpy as np
import pytest
import torch

from detectron_gn.mrcnn import structures
from detectron_gn.mrcnn.data import proposals_file
from detectron_gn.mrcnn.data.proposals_file import StoredProposals
from detectron_gn.mrcnn.heads.keypoint import KeypointHead
from detectron_gn.mrcnn.ops import pool_rois as pool_rois_module
from detectron_gn.mrcnn.ops import proposals as proposals_module
from detectron_gn.mrcnn.ops.keypoints import decode_heatmaps
from detectron_gn.verify.diagnosis.diagnose import diagnose
from detectron_gn.verify.parity.blobs import compare_image, parity_holds, remarks, summary_table
from detectron_gn.verify.reference.image_dump import read_references
from detectron_gn.verify.rungs import compared_given_proposals
from tests.helpers.zoo_reference import zoo_model

TOLERANCE = 1e-3


@pytest.fixture
def found(data, demo_model):
    """Diagnoses a model of a reference, of its first image."""

    def diagnosed(name, change=None):
        path = data / "zoo" / f"{name}.h5"
        model = zoo_model(path)
        if change is not None:
            change(model)
        reference = next(iter(read_references(path, demo_model / "val", model.cfg)))
        return diagnose(model, compare_image(model, reference), reference, TOLERANCE)

    return diagnosed


def assert_found(diagnosis, rung, where, told):
    assert diagnosis is not None
    assert (diagnosis.rung, diagnosis.where[: len(where)]) == (rung, where)
    assert told in f"{diagnosis.evidence}; {diagnosis.suspect}; {diagnosis.may_be}"


def test_keypoints_without_the_half_position(found, monkeypatch):
    def wrong(heatmaps, boxes, min_size):
        points = decode_heatmaps(heatmaps, boxes, min_size)
        points[:, :2] -= 0.5
        return points

    monkeypatch.setattr(structures, "decode_heatmaps", wrong)
    assert_found(found("keypoint"), "detections", "keypoints (", "half a position added")


def test_one_keypoint_elsewhere_is_told_though_it_may_be(data, demo_model, monkeypatch):
    def wrong(heatmaps, boxes, min_size):
        points = decode_heatmaps(heatmaps, boxes, min_size)
        points[:1, 0, 3] += 500
        return points

    path = data / "zoo" / "keypoint.h5"
    model = zoo_model(path)
    monkeypatch.setattr(structures, "decode_heatmaps", wrong)
    reference = next(iter(read_references(path, demo_model / "val", model.cfg)))
    parity = compare_image(model, reference)
    assert parity_holds(parity, TOLERANCE)
    count = parity.detections.keypoints
    assert f"1 of {count} keypoints is elsewhere, by up to 500 pixels; 1 may be" in remarks(parity)


def test_keypoints_of_heatmaps_that_are_interpolated_otherwise(found):
    def change(model):
        model.keypoint_head.upsample.weight.data *= 0.98

    assert_found(found("keypoint", change), "blobs", "kps_score (", "the fixed")


def test_a_keypoint_head_without_its_relus(found, monkeypatch):
    monkeypatch.setattr(KeypointHead, "forward", lambda self, x: self.upsample(self.score(-self.convs(x))))
    assert_found(found("keypoint"), "blobs", "kps_score_lowres (", "the keypoint head")


def test_a_mask_head_whose_res5_is_not_the_box_heads(found):
    def change(model):
        own = copy.deepcopy(model.box_head.res5)
        torch.manual_seed(0)
        for value in own.parameters():
            value.data *= 1 + 0.1 * torch.randn(value.shape)
        model.mask_head._shared = (own,)

    diagnosis = found("mask_c4", change)
    assert diagnosis.rung == "blobs" and diagnosis.where.startswith(("_[mask]_res5_", "conv5_mask"))
    assert "res5" in f"{diagnosis.suspect}{diagnosis.may_be}"


def test_c4_rois_that_are_pooled_with_another_stride(found, monkeypatch):
    right = pool_rois_module.roi_align
    monkeypatch.setattr(
        pool_rois_module, "roi_align", lambda features, rois, scale, *rest: right(features, rois, scale / 2, *rest)
    )
    assert_found(found("fast_c4"), "blobs", "pool5 (", "")


@pytest.mark.parametrize("name", ["rpn_fpn", "rpn_c4"])
def test_anchors_that_are_centred_elsewhere(name, found):
    def change(model):
        for base, stride in zip(model.rpn.anchors, model.backbone.strides, strict=True):
            base += stride / 2

    diagnosis = found(name, change)
    assert diagnosis.rung == "proposals" and "anchors" in f"{diagnosis.suspect}{diagnosis.may_be}"


def test_proposals_of_an_rpn_that_are_not_clipped(found, monkeypatch):
    monkeypatch.setattr(proposals_module, "clip_boxes", lambda boxes, height, width: boxes)
    diagnosis = found("rpn_fpn")
    assert diagnosis.rung == "proposals" and "clip" in f"{diagnosis.suspect}{diagnosis.may_be}"


def given_rung(data, demo_model, unclipped):
    path = data / "zoo" / "fast_fpn.h5"
    cfg = zoo_model(path).cfg
    references = list(read_references(path, demo_model / "val", cfg))
    boxes, ids = [], []
    for reference in references:
        height, width = reference.image_size
        ends = np.array([width - 1, height - 1] * 2, np.float32)
        # What reaches the border reached beyond it in the file.
        beyond = np.where(reference.proposals == 0, -7, reference.proposals)
        boxes.append(np.where(beyond == ends, ends + 7, beyond).astype(np.float32) if unclipped else beyond)
        ids.append(int(reference.name.split(".")[0].rpartition("_")[2]))
    stored = StoredProposals(boxes, ids, "rpn_proposals.pkl")
    return compared_given_proposals(stored, references, None, cfg)


def test_proposals_of_a_file_are_those_that_went_in(data, demo_model):
    rung = given_rung(data, demo_model, unclipped=True)
    assert rung.state == "holds" and "proposals of the file" in rung.compared


def test_proposals_of_a_file_that_are_not_clipped(data, demo_model, monkeypatch):
    monkeypatch.setattr(proposals_file, "usable_proposals", lambda boxes, height, width, limit: boxes)
    rung = given_rung(data, demo_model, unclipped=True)
    assert (rung.state, rung.name) == ("differs", "proposals") and rung.suspect.startswith("clipping")


def test_the_table_tells_of_the_parts_that_a_model_has(data, demo_model):
    for name, column in (("keypoint", "keypoints in place"), ("mask_c4", "equal masks"), ("fast_c4", None)):
        path = data / "zoo" / f"{name}.h5"
        model = zoo_model(path)
        reference = next(iter(read_references(path, demo_model / "val", model.cfg)))
        table = summary_table([compare_image(model, reference)])
        assert [title for title in ("keypoints in place", "equal masks") if title in table] == [column] * bool(column)
