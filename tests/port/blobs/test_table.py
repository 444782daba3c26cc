"""The blob table has Caffe2's names, order, shapes, kinds and initial values for each published architecture."""

import json
import lzma
from pathlib import Path

import pytest
import torch

from detectron_gn.mrcnn.detectors import build_detector
from detectron_gn.port.blobs.table import BlobTable
from detectron_gn.port.config.read import bundled_config

DATA = Path(__file__).parents[2] / "data"
PARAMS = DATA / "params"
# Of each of Detectron's 87 configurations the parameters that Caffe2 creates for training, in its order: name, shape,
# whether it is trained, a bias, of GroupNorm.
LISTS = json.loads(lzma.decompress((DATA / "blob_lists.json.xz").read_bytes()))

COUNTS = {
    "e2e_mask_rcnn_R-50-FPN_2x_gn": 223,
    "e2e_mask_rcnn_R-101-FPN_2x_gn": 376,
    "scratch_e2e_mask_rcnn_R-50-FPN_3x_gn": 223,
    "e2e_mask_rcnn_R-50-FPN_2x": 201,
    "e2e_mask_rcnn_R-101-FPN_2x": 354,
}


def caffe2_parameters(name):
    return json.loads((PARAMS / f"{name}.json").read_text())


@pytest.mark.parametrize("name", COUNTS)
def test_blobs_and_shapes_are_caffe2s_in_its_order(name):
    rows = BlobTable.from_config(bundled_config(name)).rows
    reference = caffe2_parameters(name)
    assert len(rows) == COUNTS[name]
    assert [(row.blob, list(row.shape)) for row in rows] == [(blob["name"], blob["shape"]) for blob in reference]


@pytest.mark.parametrize("name", LISTS)
def test_blobs_shapes_and_what_is_trained_are_caffe2s_for_every_configuration(name):
    with torch.device("meta"):
        model = build_detector(bundled_config(name))
    trained = {parameter for parameter, value in model.named_parameters() if value.requires_grad}
    ours = [(row.blob, list(row.shape), row.parameter in trained) for row in BlobTable.from_model(model).rows]
    assert ours == [(blob, shape, is_trained) for blob, shape, is_trained, _, _ in LISTS[name]]


@pytest.mark.parametrize("name", COUNTS)
def test_kinds_are_caffe2s(name):
    # Detectron keeps GN shifts among the biases and among the GN parameters, and asks for biases first.
    by_blob = {row.blob: row for row in BlobTable.from_config(bundled_config(name)).rows}
    for blob in caffe2_parameters(name):
        kind = by_blob[blob["name"]].kind
        if kind == "affine":
            # Caffe2 lists an AffineChannel's shift among the biases, to no effect: it has no gradient.
            assert not blob["gn"] and not blob["trainable"], blob["name"]
            continue
        assert (kind in ("bias", "gn_shift")) == blob["bias"], blob["name"]
        assert (kind in ("gn_scale", "gn_shift")) == blob["gn"], blob["name"]


@pytest.mark.parametrize("name", COUNTS)
def test_what_is_trained_is_what_caffe2_trains(name):
    with torch.device("meta"):
        model = build_detector(bundled_config(name))
    trained = {parameter for parameter, value in model.named_parameters() if value.requires_grad}
    table = BlobTable.from_model(model)
    assert {table.by_parameter[parameter].blob for parameter in trained} == {
        blob["name"] for blob in caffe2_parameters(name) if blob["trainable"]
    }


@pytest.mark.parametrize("name", ["scratch_e2e_mask_rcnn_R-50-FPN_3x_gn", "e2e_mask_rcnn_R-50-FPN_2x"])
def test_initial_values_spread_as_caffe2s(name):
    torch.manual_seed(3)
    model = build_detector(bundled_config(name))
    parameters = dict(model.named_parameters())
    by_blob = {row.blob: row for row in BlobTable.from_model(model).rows}
    for blob in caffe2_parameters(name):
        values = parameters[by_blob[blob["name"]].parameter].detach()
        # Both spreads are measured on n draws: their relative error is at most 1 / sqrt(2 n) each; five of both.
        tolerance = 5 * blob["std"] / values.numel() ** 0.5
        assert values.std(correction=0).item() == pytest.approx(blob["std"], abs=tolerance), blob["name"]
        assert values.mean().item() == pytest.approx(blob["mean"], abs=2 * tolerance), blob["name"]
        assert values.abs().max().item() <= 1.2 * max(abs(blob["min"]), abs(blob["max"])) + 1e-12, blob["name"]
