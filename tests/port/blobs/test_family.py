"""What a set of blobs belongs to, told from Caffe2's own lists of blobs."""

import json
from pathlib import Path

import numpy as np
import pytest

from detectron_gn.port.blobs.family import Family, family_of

PARAMS = Path(__file__).parents[2] / "data" / "params"


def blobs(name: str = "e2e_mask_rcnn_R-50-FPN_2x_gn") -> dict[str, np.ndarray]:
    """Caffe2's blobs of a configuration, of their real shapes; they take no memory."""
    rows = json.loads((PARAMS / f"{name}.json").read_text())
    return {row["name"]: np.broadcast_to(np.float32(0), row["shape"]) for row in rows}


def backbone(**more: np.ndarray) -> dict[str, np.ndarray]:
    body = {name: array for name, array in blobs().items() if name.startswith(("conv1", "res"))}
    return body | more


CLASSIFIER = np.zeros((1000, 2048), np.float32)


@pytest.mark.parametrize(
    ("name", "depth", "norm"),
    [
        ("e2e_mask_rcnn_R-50-FPN_2x", 50, "BN*"),
        ("e2e_mask_rcnn_R-101-FPN_2x", 101, "BN*"),
        ("e2e_mask_rcnn_R-50-FPN_2x_gn", 50, "GN"),
        ("e2e_mask_rcnn_R-101-FPN_2x_gn", 101, "GN"),
    ],
)
def test_a_detector_is_told_by_depth_and_norm_and_names_its_configuration(name: str, depth: int, norm: str) -> None:
    family = family_of(blobs(name))
    box_head = "4conv1fc" if norm == "GN" else "2fc"
    blocks = {50: 16, 101: 33}[depth]
    assert family == Family("detector", (norm,), blocks, "FPN", box_head, True, 81, None, 0)
    assert (family.depth, family.norm, family.config_name) == (depth, norm, name)


@pytest.mark.parametrize("classifier", ["pred", "fc1000"])
def test_an_imagenet_file_is_a_backbone_with_a_classifier(classifier: str) -> None:
    family = family_of(backbone(**{f"{classifier}_w": CLASSIFIER}))
    assert (family.kind, family.classifier, family.neck, family.is_detector) == ("backbone", classifier, None, False)
    assert (family.depth, family.masks, family.box_head) == (50, False, None)


def test_a_detector_that_preserves_a_classifier_has_its_own_number_of_classes() -> None:
    family = family_of(blobs() | {"pred_w": CLASSIFIER})
    assert (family.kind, family.classifier, family.classes) == ("detector", "pred", 81)


def test_a_detector_without_a_pyramid_is_of_c4() -> None:
    family = family_of(backbone(conv_rpn_w=np.zeros(1), cls_score_w=np.zeros((81, 1)), cls_score_b=np.zeros(81)))
    assert (family.kind, family.neck, family.masks, family.classes) == ("detector", "C4", False, 81)


def test_momenta_make_a_checkpoint_and_count_for_nothing_else() -> None:
    momenta = {f"{name}_momentum": array for name, array in blobs().items()}
    family = family_of(blobs() | momenta)
    assert (family.momenta, family.blocks, family.norms) == (len(momenta), 16, ("GN",))


def test_a_body_that_no_configuration_here_has_names_none() -> None:
    damaged = backbone()
    del damaged["res4_5_branch2a_w"]
    counts = {2: 3, 3: 8, 4: 36, 5: 3}
    r152 = {f"res{stage}_{i}_branch2a_w": CLASSIFIER for stage, count in counts.items() for i in range(count)}
    assert [family_of(each).depth for each in (damaged, r152, {})] == [47, 152, None]
    assert [family_of(each).config_name for each in (damaged, r152, {})] == [None, None, None]


def test_blobs_of_something_else_are_unknown() -> None:
    family = family_of({"a": np.ones(1)})
    assert (family.kind, family.norms, family.classes, family.neck) == ("unknown", (), None, None)
