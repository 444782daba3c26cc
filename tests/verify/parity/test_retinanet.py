"""RetinaNet beside Caffe2's: every blob and every detection of narrow models on two photos."""

import pytest

from detectron_gn.mrcnn.backbones import fpn
from detectron_gn.mrcnn.config import with_values
from detectron_gn.mrcnn.detectors import retinanet
from detectron_gn.mrcnn.heads.retinanet import RetinaNetHead
from detectron_gn.mrcnn.inference.dense_detections import dense_detections
from detectron_gn.verify.diagnosis.diagnose import diagnose
from detectron_gn.verify.parity.blobs import parity_holds
from tests.helpers.zoo_reference import zoo_parities

# Sigmoid; ResNeXt, whose groups make 101 layers; softmax.
BLOBS = {"retinanet": 132, "retinanet_x101": 166, "retinanet_other": 132}


@pytest.mark.slow
@pytest.mark.parametrize("name", BLOBS)
def test_every_blob_and_detection_of_a_retinanet_is_caffe2s(name, shared):
    for model, reference, parity in zoo_parities(shared, name):
        assert (reference.masks, len(parity.blobs), parity.not_compared) == (None, BLOBS[name], ())
        assert max(row.relative_error for row in parity.blobs) < 1e-5
        found = parity.detections
        assert found.matched == found.count == found.reference_count == 40
        assert found.box_error < 1e-3 and found.score_error < 1e-5
        assert parity_holds(parity, 1e-5) and diagnose(model, parity, reference, 1e-3) is None
        # In Detectron's order, too: by class, best first.
        ours = model.detect(reference.image)
        assert ours.classes.tolist() == reference.det_classes.tolist()
        assert abs(ours.boxes - reference.det_boxes).max() < 1e-3


@pytest.mark.slow
@pytest.mark.parametrize(
    ("wrong", "rung", "where", "suspect", "may_be"),
    [
        ("anchors", "detections", "detections (", "the anchors: they are centred", ""),
        ("threshold", "detections", "detections (", "", "the anchors (RETINANET.ASPECT_RATIOS"),
        ("relu", "blobs", "fpn_7 (", "", "other weights than the reference was recorded with; or the pyramid"),
        ("softmax", "blobs", "retnet_cls_prob_fpn3 (", "the softmax: over the classes of each anchor", ""),
    ],
)
def test_a_wrong_retinanet_is_found_where_it_begins(wrong, rung, where, suspect, may_be, shared, monkeypatch):
    if wrong == "relu":
        monkeypatch.setattr(fpn.F, "relu", lambda x: x)
    if wrong == "softmax":
        monkeypatch.setattr(RetinaNetHead, "probabilities", lambda self, cls_pred: cls_pred.sigmoid())
    if wrong == "anchors":
        right = retinanet.retinanet_anchors
        moved = lambda cfg: [base + 2.0 ** (level - 1) for level, base in enumerate(right(cfg), 3)]  # noqa: E731
        monkeypatch.setattr(retinanet, "retinanet_anchors", moved)
    if wrong == "threshold":
        low = {"TEST.NMS": 0.3}
        wrongly = lambda levels, cfg: dense_detections(levels, with_values(cfg, low))  # noqa: E731
        monkeypatch.setattr(retinanet, "dense_detections", wrongly)
    model, reference, parity = next(zoo_parities(shared, "retinanet_other"))
    found = diagnose(model, parity, reference, 1e-3)
    assert (found.rung, found.where[: len(where)]) == (rung, where)
    assert found.suspect.startswith(suspect) and found.may_be.startswith(may_be)
    assert bool(suspect) == bool(found.suspect) and bool(may_be) == bool(found.may_be)
