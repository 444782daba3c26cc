"""Old values of MODEL.TYPE that are more than a name: they fix the body, the heads, or that the body is frozen.

Answers to the deprecated functions of Detectron modeling/model_builder.py. At test time each is the network that
`generalized_rcnn` makes of the same parts.
"""

from typing import Literal, NamedTuple

Head = Literal["box", "mask", "keypoint"]


class OldType(NamedTuple):
    """What a type fixes.

    Attributes:
        heads: that there may be; without any it is an RPN by itself.
        body, box_head: the functions in place of those of MODEL.CONV_BODY and FAST_RCNN.ROI_BOX_HEAD; empty where those
            count.
        is_frozen: whether no gradient reaches the body in training, as with TRAIN.FREEZE_CONV_BODY.
        needs_rpn: whether MODEL.FASTER_RCNN must be True.
    """

    heads: tuple[Head, ...]
    body: str = ""
    box_head: str = ""
    is_frozen: bool = False
    needs_rpn: bool = False


_BODIES = {
    "ResNet50": ("ResNet.add_ResNet50_conv4_body", "ResNet.add_ResNet_roi_conv5_head"),
    "ResNet101": ("ResNet.add_ResNet101_conv4_body", "ResNet.add_ResNet_roi_conv5_head"),
    "VGG16": ("VGG16.add_VGG16_conv5_body", "VGG16.add_VGG16_roi_fc_head"),
    "VGG_CNN_M_1024": (
        "VGG_CNN_M_1024.add_VGG_CNN_M_1024_conv5_body",
        "VGG_CNN_M_1024.add_VGG_CNN_M_1024_roi_fc_head",
    ),
}
_RPNS = {
    "ResNet50_rpn_conv4": "ResNet50",
    "ResNet101_rpn_conv4": "ResNet101",
    "VGG16_rpn": "VGG16",
    "VGG_CNN_M_1024_rpn": "VGG_CNN_M_1024",
}

OLD_TYPES: dict[str, OldType] = {
    "fast_rcnn_frozen_features": OldType(("box",), is_frozen=True),
    "mask_rcnn_frozen_features": OldType(("box", "mask"), is_frozen=True),
    "keypoint_rcnn_frozen_features": OldType(("box", "keypoint"), is_frozen=True),
    "rpn_frozen_features": OldType((), is_frozen=True),
    "fpn_rpn_frozen_features": OldType((), is_frozen=True),
    **{f"{name}_fast_rcnn": OldType(("box",), *parts) for name, parts in _BODIES.items()},
    **{
        f"{name}_fast_rcnn_frozen_features": OldType(("box",), *_BODIES[name], is_frozen=True)
        for name in ("ResNet50", "ResNet101")
    },
    **{
        f"{name}_faster_rcnn": OldType(("box",), *_BODIES[name], needs_rpn=True)
        for name in ("ResNet50", "ResNet101", "VGG16")
    },
    **{name: OldType((), _BODIES[body][0]) for name, body in _RPNS.items()},
    **{f"{name}_frozen_features": OldType((), _BODIES[body][0], is_frozen=True) for name, body in _RPNS.items()},
}


def fixed_values(model_type: str) -> dict[str, object]:
    """The keys whose values a value of MODEL.TYPE fixes, whatever a configuration gives them."""
    old = OLD_TYPES.get(model_type)
    if old is None:
        return {}
    fixed = {"MODEL.CONV_BODY": old.body, "FAST_RCNN.ROI_BOX_HEAD": old.box_head}
    return {key: value for key, value in fixed.items() if value}
