"""What Detectron's function names mean, and that no other name gets through."""

import pytest

from detectron_gn.mrcnn.config import (
    Config,
    backbone_depth,
    box_head_kind,
    mask_head_kind,
    norm_of_backbone,
    with_values,
)
from detectron_gn.mrcnn.errors import InputError

HEADS, MASKS = "fast_rcnn_heads.add_roi_", "mask_rcnn_heads.mask_rcnn_fcn_head_"


@pytest.mark.parametrize(
    ("function", "key", "name", "meaning"),
    [
        (backbone_depth, "MODEL.CONV_BODY", "FPN.add_fpn_ResNet50_conv5_body", 50),
        (backbone_depth, "MODEL.CONV_BODY", "FPN.add_fpn_ResNet101_conv5_body", 101),
        (backbone_depth, "MODEL.CONV_BODY", "FPN.add_fpn_ResNet152_conv5_body", 152),
        (box_head_kind, "FAST_RCNN.ROI_BOX_HEAD", f"{HEADS}2mlp_head", "2mlp"),
        (box_head_kind, "FAST_RCNN.ROI_BOX_HEAD", f"{HEADS}Xconv1fc_head", "Xconv1fc"),
        (box_head_kind, "FAST_RCNN.ROI_BOX_HEAD", f"{HEADS}Xconv1fc_gn_head", "Xconv1fc_gn"),
        (mask_head_kind, "MRCNN.ROI_MASK_HEAD", f"{MASKS}v1up4convs", "v1up4convs"),
        (mask_head_kind, "MRCNN.ROI_MASK_HEAD", f"{MASKS}v1up4convs_gn", "v1up4convs_gn"),
        # Names of before, Detectron modeling/name_compat.py.
        (box_head_kind, "FAST_RCNN.ROI_BOX_HEAD", "head_builder.add_roi_2mlp_head", "2mlp"),
        (mask_head_kind, "MRCNN.ROI_MASK_HEAD", "mask_rcnn_heads.ResNet_mask_rcnn_fcn_head_v1up4convs", "v1up4convs"),
    ],
)
def test_a_function_name_means_one_thing(function, key, name, meaning):
    assert function(with_values(Config(), {key: name})) == meaning


@pytest.mark.parametrize(
    ("function", "key", "known"),
    [
        (backbone_depth, "MODEL.CONV_BODY", "FPN.add_fpn_ResNet101_conv5_body"),
        (box_head_kind, "FAST_RCNN.ROI_BOX_HEAD", "fast_rcnn_heads.add_roi_Xconv1fc_gn_head"),
        (mask_head_kind, "MRCNN.ROI_MASK_HEAD", "mask_rcnn_heads.mask_rcnn_fcn_head_v1up4convs_gn"),
        (norm_of_backbone, "RESNETS.TRANS_FUNC", "bottleneck_gn_transformation"),
        (norm_of_backbone, "RESNETS.STEM_FUNC", "basic_gn_stem"),
        (norm_of_backbone, "RESNETS.SHORTCUT_FUNC", "basic_gn_shortcut"),
    ],
)
@pytest.mark.parametrize("name", ["os.system", "__import__('os')", "ResNet.add_ResNet50_roi", ""])
def test_another_name_is_refused_with_the_names_there_are(function, key, known, name):
    with pytest.raises(InputError) as error:
        function(with_values(Config(), {key: name}))
    assert str(error.value).startswith(f"{key} is {name!r}: set it to " if name else f"{key} is not set: set it to ")
    assert known in str(error.value)


GN = {
    "RESNETS.STEM_FUNC": "basic_gn_stem",
    "RESNETS.TRANS_FUNC": "bottleneck_gn_transformation",
    "RESNETS.SHORTCUT_FUNC": "basic_gn_shortcut",
}


def test_stem_blocks_and_shortcuts_have_one_norm():
    assert norm_of_backbone(Config()) == "affine"
    assert norm_of_backbone(with_values(Config(), GN)) == "gn"
    for key in GN:
        with pytest.raises(InputError, match=r"RESNETS.STEM_FUNC is \w+, .* the backbone has one norm"):
            norm_of_backbone(with_values(Config(), {key: GN[key]}))
