"""Old values of MODEL.TYPE (Detectron modeling/model_builder.py): the network that they fix, and what is refused."""

import pytest

from detectron_gn.mrcnn.config import check_config, idle_training_remarks, model_family, refuse_training
from detectron_gn.mrcnn.config.old_types import OLD_TYPES
from detectron_gn.mrcnn.errors import InputError
from detectron_gn.port.blobs.table import BlobTable
from detectron_gn.port.config.read import bundled_config, merge_overrides, parse_config

# A configuration of the network that each old type is, but for the keys that the type fixes.
SAME = {
    "fast_rcnn_frozen_features": "fast_rcnn_R-50-FPN_1x",
    "mask_rcnn_frozen_features": "mask_rcnn_R-50-FPN_1x",
    "keypoint_rcnn_frozen_features": "keypoint_rcnn_R-50-FPN_1x",
    "rpn_frozen_features": "rpn_R-50-C4_1x",
    "fpn_rpn_frozen_features": "rpn_R-50-FPN_1x",
    "ResNet50_fast_rcnn": "fast_rcnn_R-50-C4_1x",
    "ResNet101_fast_rcnn": "fast_rcnn_R-50-C4_1x",
    "ResNet50_fast_rcnn_frozen_features": "fast_rcnn_R-50-C4_1x",
    "ResNet101_fast_rcnn_frozen_features": "fast_rcnn_R-50-C4_1x",
    "VGG16_fast_rcnn": "fast_rcnn_R-50-C4_1x",
    "VGG_CNN_M_1024_fast_rcnn": "fast_rcnn_R-50-C4_1x",
    "ResNet50_faster_rcnn": "e2e_faster_rcnn_R-50-C4_1x",
    "ResNet101_faster_rcnn": "e2e_faster_rcnn_R-50-C4_1x",
    "VGG16_faster_rcnn": "e2e_faster_rcnn_R-50-C4_1x",
    "ResNet50_rpn_conv4": "rpn_R-50-C4_1x",
    "ResNet101_rpn_conv4": "rpn_R-50-C4_1x",
    "VGG16_rpn": "rpn_R-50-C4_1x",
    "VGG_CNN_M_1024_rpn": "rpn_R-50-C4_1x",
    "ResNet50_rpn_conv4_frozen_features": "rpn_R-50-C4_1x",
    "ResNet101_rpn_conv4_frozen_features": "rpn_R-50-C4_1x",
    "VGG16_rpn_frozen_features": "rpn_R-50-C4_1x",
    "VGG_CNN_M_1024_rpn_frozen_features": "rpn_R-50-C4_1x",
}
BODIES = {
    "ResNet50": ("ResNet.add_ResNet50_conv4_body", "ResNet.add_ResNet_roi_conv5_head"),
    "ResNet101": ("ResNet.add_ResNet101_conv4_body", "ResNet.add_ResNet_roi_conv5_head"),
    "VGG16": ("VGG16.add_VGG16_conv5_body", "VGG16.add_VGG16_roi_fc_head"),
    "VGG_CNN_M_1024": ("VGG_CNN_M_1024.add_VGG_CNN_M_1024_conv5_body",
                       "VGG_CNN_M_1024.add_VGG_CNN_M_1024_roi_fc_head"),
}  # fmt: skip


def test_every_one_is_listed_here():
    assert set(SAME) == set(OLD_TYPES)


@pytest.mark.parametrize("name", SAME)
def test_each_is_the_network_that_generalized_rcnn_makes_of_the_same_parts(name):
    body, head = next((parts for start, parts in BODIES.items() if name.startswith(f"{start}_")), ("", ""))
    spelt_out = bundled_config(SAME[name])
    if body:
        spelt_out = bundled_config(SAME[name], ["MODEL.CONV_BODY", body, "FAST_RCNN.ROI_BOX_HEAD", head])
        # Whatever the keys say, the type decides.
        wrong = ["MODEL.CONV_BODY", "''", "FAST_RCNN.ROI_BOX_HEAD", "''"]
        old = merge_overrides(spelt_out, [*wrong, "MODEL.TYPE", name])
    else:
        old = merge_overrides(spelt_out, ["MODEL.TYPE", name])
    check_config(old)
    assert BlobTable.from_config(old).rows == BlobTable.from_config(spelt_out).rows
    assert model_family(old) == model_family(spelt_out)


@pytest.mark.parametrize(
    ("name", "changes", "sentence"),
    [
        ("fast_rcnn_frozen_features", ["MODEL.MASK_ON", "True"], "which has no mask head, but MODEL.MASK_ON is True"),
        ("mask_rcnn_frozen_features", ["MODEL.KEYPOINTS_ON", "True"], "no keypoint head, but MODEL.KEYPOINTS_ON is T"),
        ("ResNet50_fast_rcnn", ["MODEL.MASK_ON", "True"], "which has no mask head, but MODEL.MASK_ON is True: set it"),
        ("rpn_frozen_features", ["MODEL.RPN_ONLY", "False"], "an RPN by itself, but MODEL.RPN_ONLY is False: set it"),
        ("VGG16_rpn", ["MODEL.RPN_ONLY", "False"], "VGG16_rpn, an RPN by itself, but MODEL.RPN_ONLY is F"),
        ("ResNet50_faster_rcnn", ["MODEL.FASTER_RCNN", "False"], "but MODEL.FASTER_RCNN is False: set it to True, or"),
    ],
)
def test_parts_that_a_type_has_no_function_for_are_refused(name, changes, sentence):
    with pytest.raises(InputError, match=sentence):
        check_config(bundled_config(SAME[name], ["MODEL.TYPE", name, *changes]))


@pytest.mark.parametrize("name", [name for name in SAME if name.endswith("frozen_features")])
def test_training_with_a_frozen_body_is_refused(name):
    body = name.removesuffix("_frozen_features")
    cfg = bundled_config(SAME[name], ["MODEL.TYPE", name])
    with pytest.raises(InputError):
        refuse_training(cfg)
    if SAME[name].startswith("rpn") and not body.startswith("VGG"):
        with pytest.raises(InputError, match=f"MODEL.TYPE is {name}, but a model whose whole body is frozen"):
            refuse_training(cfg)
        refuse_training(bundled_config(SAME[name]))


def test_the_key_that_freezes_a_body_is_for_training_alone():
    cfg = bundled_config("e2e_mask_rcnn_R-50-FPN_1x", ["TRAIN.FREEZE_CONV_BODY", "True"])
    check_config(cfg)
    with pytest.raises(InputError, match="TRAIN.FREEZE_CONV_BODY is True, but a model whose whole body is frozen"):
        refuse_training(cfg)
    assert list(idle_training_remarks(cfg)) == []


def test_a_retinanet_is_trained_whatever_the_key_says_as_detectrons_is_and_that_is_told():
    cfg = bundled_config("retinanet_R-50-FPN_1x", ["TRAIN.FREEZE_CONV_BODY", "True"])
    refuse_training(cfg)
    (told,) = idle_training_remarks(cfg)
    assert told == (
        "TRAIN.FREEZE_CONV_BODY is True and has no effect on a RetinaNet, as in Detectron: TRAIN.FREEZE_AT, here 2, "
        "freezes stages of its body"
    )
    assert list(idle_training_remarks(bundled_config("retinanet_R-50-FPN_1x"))) == []


@pytest.mark.parametrize("name", ["rfcn", "ResNet50_rfcn", "ResNet101_rfcn"])
def test_r_fcn_is_refused_by_name(name):
    sentence = (
        f"MODEL.TYPE is '{name}', which is not supported here .R-FCN is not supported: Detectron has its pooling for "
        "CUDA only, and no configuration of it.: set it to generalized_rcnn or retinanet"
    )
    with pytest.raises(InputError, match=sentence):
        parse_config(f"MODEL: {{TYPE: {name}}}", "r.yaml")


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ("FPN.add_fpn_ResNet50_conv5_P2only_body", "a pyramid of one level is not supported"),
        ("ResNet.add_ResNet50_conv5_body", "a body up to res5 without a pyramid is not supported"),
    ],
)
def test_bodies_that_no_configuration_uses_are_refused_by_name(body, reason):
    with pytest.raises(InputError, match=f"MODEL.CONV_BODY is '{body}', which is not supported here .{reason}."):
        parse_config(f"MODEL: {{CONV_BODY: {body}}}", "r.yaml")
