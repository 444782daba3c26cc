"""How much of a reference's blobs is compared: samples are told, thin ones remarked, and norms looked at."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from detectron_gn.port.runs.load import load_model
from detectron_gn.verify.diagnosis.diagnose import diagnose
from detectron_gn.verify.parity.blobs import (
    BlobParity,
    DetectionRowParity,
    ImageParity,
    compare_image,
    first_difference,
)
from detectron_gn.verify.parity.coverage import remark_of_thin, thin_not_compared, told_values
from detectron_gn.verify.parity.usual import remark_of_errors
from detectron_gn.verify.reference.image_dump import read_references
from detectron_gn.verify.reference.reference_blob import ReferenceBlob
from detectron_gn.verify.reference.weights_digests import ComparedWeights
from detectron_gn.verify.rungs import compared_blobs


def image(*rows: BlobParity) -> ImageParity:
    return ImageParity("a.png", rows, (), True, DetectionRowParity(0, 0, 0, 0.0, 0.0, 0.0, 0, 1.0), ())


def test_how_many_values_were_compared_is_told() -> None:
    whole = BlobParity("rois", (8, 5), 0.0, 0.0, values=40)
    sample = BlobParity("data", (1, 3, 100, 100), 0.0, 0.0, values=429)
    assert told_values([image(whole)]) == "all 40 values"
    told = "469 of 30,040 values, as the reference holds samples of the large blobs"
    assert told_values([image(whole), image(sample)]) == told
    assert remark_of_thin([image(whole, sample)]) == thin_not_compared([image(whole, sample)]) == ""


def test_a_blob_of_hardly_a_value_is_remarked_and_no_doubt_of_the_weights() -> None:
    thin = image(BlobParity("head_conv1", (64, 64, 3, 3), 1e-9, 9.8e-4, values=1))
    assert remark_of_errors([thin], 1e-3) == ""
    rung = compared_blobs([thin], 1e-3, ComparedWeights(9, 9, ()))
    assert rung.not_compared == "all but a few values of 1 blob"
    assert "of 1 blob the reference holds fewer than 32 values (head_conv1), where dump_blobs.py" in rung.seen


def test_the_scale_of_a_sample_is_no_smaller_than_that_of_the_whole() -> None:
    values, shape = np.array([1e-9]), (100,)
    assert ReferenceBlob(values, shape, 100, l2=30.0).largest == 3.0
    assert ReferenceBlob(np.array([5.0]), shape, 100, l2=30.0).largest == 5.0
    assert ReferenceBlob(values, shape, 100).largest == 1e-9


def test_the_norm_shows_what_a_sample_does_not() -> None:
    ours = torch.arange(100, dtype=torch.float32)
    theirs = ReferenceBlob(ours.numpy()[::33], (100,), 33, l2=float(ours.double().norm()))
    assert theirs.norm_error(ours) < 1e-12
    assert replace(theirs, l2=None).norm_error(ours) == 0.0
    between = ours.clone()
    between[98] = 0.0
    assert theirs.norm_error(between) == pytest.approx(0.0148, rel=0.01)


def test_a_reference_whose_norms_are_not_its_values_differs(pickle: Path, demo_model: Path) -> None:
    model = load_model(str(pickle), device="cpu")
    reference = next(read_references(demo_model / "blobs.h5", demo_model / "val", model.cfg))
    blobs = {**reference.blobs, "conv1": replace(reference.blobs["conv1"], l2=0.0)}
    edited = replace(reference, blobs=blobs)
    parity = compare_image(model, edited)
    norms = {row.blob: row.norm_error for row in parity.blobs if not row.is_within(1e-3)}
    assert list(norms) == ["conv1"] and first_difference(parity, 1e-3) == "conv1"
    assert max(row.norm_error for row in parity.blobs if row.blob != "conv1") < 1e-5
    found = diagnose(model, parity, edited, 1e-3)
    assert found is not None and found.rung == "blobs" and found.where.startswith("conv1 ")
    assert "values agree, all that the reference holds, but the norm of the whole (l2) does not" in found.evidence
    row = next(row for row in parity.blobs if row.blob == "conv1")
    assert row.told.startswith("norm ") and row.relative_error < 1e-5
