"""The part of the network that a blob's name tells is the part that has its parameter."""

import pytest

from detectron_gn.port.blobs.parts import OTHERS, by_part, part_of
from detectron_gn.port.blobs.table import BlobTable
from detectron_gn.port.config.read import bundled_config

COMPONENTS = {
    "body": "backbone", "pyramid": "backbone", "RPN": "rpn", "RetinaNet head": "head", "box head": "box_head",
    "mask head": "mask_head", "keypoint head": "keypoint_head",
}  # fmt: skip
CONFIGS = [
    "e2e_mask_rcnn_R-50-FPN_2x_gn", "e2e_mask_rcnn_R-50-C4_1x", "e2e_keypoint_rcnn_R-50-FPN_1x",
    "retinanet_R-50-FPN_1x", "e2e_mask_rcnn_X-101-32x8d-FPN_1x", "rpn_R-50-C4_1x",
]  # fmt: skip


@pytest.mark.parametrize("name", CONFIGS)
def test_a_parameter_is_counted_to_its_part(name: str) -> None:
    for row in BlobTable.from_config(bundled_config(name)).rows:
        if not row.blob.startswith("res5_"):  # of a C4 body, in the box head
            assert COMPONENTS[part_of(row.blob)] == row.parameter.partition(".")[0], row.blob


@pytest.mark.parametrize(
    ("blob", "part"),
    [
        ("data", "input"), ("pool1", "body"), ("res_conv1_bn_s", "body"), ("rpn_rois_fpn2", "RPN"),
        ("roi_feat_fpn2", "box head"), ("_concat_roi_feat", "box head"), ("_concat__mask_roi_feat", "mask head"),
        ("_[pose]_roi_feat", "keypoint head"), ("keypoint_rois", "keypoint head"), ("conv1_w_momentum", "momentum"),
        ("pred_w", OTHERS), ("", OTHERS),
    ],
)  # fmt: skip
def test_activations_and_strangers_have_a_part_too(blob: str, part: str) -> None:
    assert part_of(blob) == part


def test_blobs_are_sorted_by_part_and_number() -> None:
    blobs = ["fc6_w", "res4_10_branch2a_w", "conv1_w", "fpn_res2_2_sum_w", "res4_9_branch2a_w", f"res{'9' * 5000}_w"]
    assert sorted(blobs, key=by_part) == [blobs[2], blobs[4], blobs[1], blobs[5], blobs[3], blobs[0]]
