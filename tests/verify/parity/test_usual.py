"""What is said of errors that are tolerated: nothing of rounding, a remark of more."""

import pytest

from detectron_gn.verify.ladder import Ladder, told_verdict
from detectron_gn.verify.parity.blobs import BlobParity, DetectionRowParity, ImageParity
from detectron_gn.verify.parity.usual import remark_of_detections, remark_of_errors
from detectron_gn.verify.reference.weights_digests import ComparedWeights
from detectron_gn.verify.rungs import RUNGS, Rung, compared_blobs


def parity(**errors: float) -> ImageParity:
    rows = tuple(BlobParity(name, (1,), error, error) for name, error in errors.items())
    return ImageParity("a.png", rows, (), True, DetectionRowParity(0, 0, 0, 0.0, 0.0, 0.0, 0, 1.0), ())


@pytest.mark.parametrize("error", [1.3e-5, 1e-4])
def test_rounding_is_not_remarked(error: float) -> None:
    assert remark_of_errors([parity(conv1=error)], 1e-3) == ""
    assert remark_of_errors([], 1e-3) == ""


def test_a_tolerated_error_far_above_rounding_asks_for_the_weights() -> None:
    found = [parity(conv1=1e-6, fc6=1e-5), parity(conv1=1e-6, fc6=2.5e-4)]
    told = remark_of_errors(found, 1e-3)
    assert told.startswith("the error of fc6, 2.5e-04, is within the tolerance of 0.001, but 12 times the 2e-05 that")
    assert told.endswith("are these the very weights that the reference was recorded with?") and "GroupNorm" not in told
    assert "random weights under GroupNorm may give 0.001" in remark_of_errors([parity(conv1_gn=2.5e-4)], 1e-3)
    rung = compared_blobs(found, 1e-3, ComparedWeights(9, 9, ()))
    assert rung.state == "holds" and rung.seen.endswith(f"; all 9 parameters are the reference's, to the bit; {told}")
    assert rung.not_compared == ""


def test_weights_that_a_reference_does_not_tell_are_left_out_of_the_verdict() -> None:
    for compared, left_out in ((0, "the weights themselves (no digests)"), (3, "6 of 9 parameters (no digests)")):
        rung = compared_blobs([parity(conv1=1e-6)], 1e-3, ComparedWeights(9, compared, ()))
        assert rung.state == "holds" and "not compared" in rung.seen and rung.not_compared == left_out
        rungs = [Rung(name, "holds", "") for name in RUNGS]
        rungs[RUNGS.index("blobs")] = rung
        assert told_verdict(Ladder(rungs)) == f"It agrees with Caffe2 as far as it was compared, without {left_out}."


def test_detections_far_above_rounding_are_remarked() -> None:
    assert remark_of_detections(0.005, 5e-5) == ""
    told = remark_of_detections(0.04, 4.5e-4)
    assert told.startswith("within tolerance, but boxes are apart by up to 0.04 pixels, 40 times the 0.001 that ")
    assert "scores are apart by up to 0.00045, 45 times the 1e-05 that rounding gives" in told


def test_what_is_out_of_tolerance_is_a_difference_and_no_remark() -> None:
    assert remark_of_errors([parity(fc6=2.5e-4)], 1e-4) == ""
    assert remark_of_errors([parity(fc6=float("nan"), im_info=1e-5)], 1e-3) == ""
