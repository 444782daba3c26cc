"""What the function names in a configuration mean; answers to Detectron modeling/model_builder.py:get_func.

A name chooses an entry of the tables below and nothing else: no attribute or module is ever looked up by it.
"""

from collections.abc import Mapping
from typing import Literal, TypeVar

from detectron_gn.mrcnn.config.schema import Config, FastRcnn, Mrcnn
from detectron_gn.mrcnn.errors import InputError

Norm = Literal["affine", "gn"]
BoxHeadKind = Literal["2mlp", "Xconv1fc", "Xconv1fc_gn"]
MaskHeadKind = Literal["v1up4convs", "v1up4convs_gn"]
Meaning = TypeVar("Meaning")

CONV_BODIES: dict[str, int] = {
    "FPN.add_fpn_ResNet50_conv5_body": 50,
    "FPN.add_fpn_ResNet101_conv5_body": 101,
    "FPN.add_fpn_ResNet152_conv5_body": 152,
}
STEM_FUNCS: dict[str, Norm] = {"basic_bn_stem": "affine", "basic_gn_stem": "gn"}
TRANS_FUNCS: dict[str, Norm] = {"bottleneck_transformation": "affine", "bottleneck_gn_transformation": "gn"}
SHORTCUT_FUNCS: dict[str, Norm] = {"basic_bn_shortcut": "affine", "basic_gn_shortcut": "gn"}
ROI_BOX_HEADS: dict[str, BoxHeadKind] = {
    "fast_rcnn_heads.add_roi_2mlp_head": "2mlp",
    "fast_rcnn_heads.add_roi_Xconv1fc_head": "Xconv1fc",
    "fast_rcnn_heads.add_roi_Xconv1fc_gn_head": "Xconv1fc_gn",
    "head_builder.add_roi_2mlp_head": "2mlp",
}
ROI_MASK_HEADS: dict[str, MaskHeadKind] = {
    "mask_rcnn_heads.mask_rcnn_fcn_head_v1up4convs": "v1up4convs",
    "mask_rcnn_heads.mask_rcnn_fcn_head_v1up4convs_gn": "v1up4convs_gn",
    "mask_rcnn_heads.ResNet_mask_rcnn_fcn_head_v1up4convs": "v1up4convs",
}

# Detectron's names of the two-stage model; all but the first are older ones, and the keys say what it is made of
# (Detectron modeling/model_builder.py: "Deprecated: use `MODEL.TYPE: generalized_rcnn`").
TWO_STAGE_TYPES = (
    "generalized_rcnn",
    "fast_rcnn",
    "faster_rcnn",
    "mask_rcnn",
    "keypoint_rcnn",
    "mask_and_keypoint_rcnn",
    "rpn",
    "fpn_rpn",
)


def model_family(cfg: Config) -> str:
    """What papers and Detectron's MODEL_ZOO.md call the network: `Mask R-CNN`, `RetinaNet`, `RPN`, ..."""
    model = cfg.MODEL
    if cfg.RETINANET.RETINANET_ON:
        return "RetinaNet"
    if model.RPN_ONLY:
        return "RPN"
    if model.KEYPOINTS_ON:
        return "Keypoint R-CNN"
    if model.MASK_ON:
        return "Mask R-CNN"
    return "Faster R-CNN" if model.FASTER_RCNN else "Fast R-CNN"


def pyramid_levels(cfg: Config) -> range:
    """The levels of the feature pyramid, finest first: those that proposals or RetinaNet, and those that RoIs need.

    It ends at level 5, where the body ends, or above (Detectron modeling/FPN.py:get_min_max_levels).
    """
    fpn = cfg.FPN
    needed = []
    if fpn.MULTILEVEL_RPN:
        needed += [fpn.RPN_MIN_LEVEL, fpn.RPN_MAX_LEVEL]
    if fpn.MULTILEVEL_ROIS:
        needed += [fpn.ROI_MIN_LEVEL, fpn.ROI_MAX_LEVEL]
    return range(min(needed, default=2), max(5, *needed) + 1)


def backbone_depth(cfg: Config) -> int:
    """50, 101 or 152, from `cfg.MODEL.CONV_BODY`."""
    return _meaning("MODEL.CONV_BODY", cfg.MODEL.CONV_BODY, CONV_BODIES)


def norm_of_backbone(cfg: Config) -> Norm:
    """`gn`, or `affine` for the BN* baselines, from the three functions of `cfg.RESNETS`, which must agree.

    Detectron would build a body of mixed norms without a word; no published model has one.
    """
    resnets = cfg.RESNETS
    norms = {
        "RESNETS.STEM_FUNC": _meaning("RESNETS.STEM_FUNC", resnets.STEM_FUNC, STEM_FUNCS),
        "RESNETS.TRANS_FUNC": _meaning("RESNETS.TRANS_FUNC", resnets.TRANS_FUNC, TRANS_FUNCS),
        "RESNETS.SHORTCUT_FUNC": _meaning("RESNETS.SHORTCUT_FUNC", resnets.SHORTCUT_FUNC, SHORTCUT_FUNCS),
    }
    if len(set(norms.values())) > 1:
        names = (resnets.STEM_FUNC, resnets.TRANS_FUNC, resnets.SHORTCUT_FUNC)
        chosen = ", ".join(f"{key} is {name}" for key, name in zip(norms, names, strict=True))
        raise InputError(f"{chosen}: the backbone has one norm, so choose the gn function for all three or for none")
    return norms["RESNETS.TRANS_FUNC"]


def box_head_kind(cfg: Config) -> BoxHeadKind:
    """Which box head `cfg.FAST_RCNN.ROI_BOX_HEAD` names."""
    return _meaning("FAST_RCNN.ROI_BOX_HEAD", cfg.FAST_RCNN.ROI_BOX_HEAD, ROI_BOX_HEADS)


def mask_head_kind(cfg: Config) -> MaskHeadKind:
    """Which mask head `cfg.MRCNN.ROI_MASK_HEAD` names."""
    return _meaning("MRCNN.ROI_MASK_HEAD", cfg.MRCNN.ROI_MASK_HEAD, ROI_MASK_HEADS)


def num_box_classes(cfg: Config) -> int:
    """How many classes the box head has deltas for: all, or background and object (MODEL.CLS_AGNOSTIC_BBOX_REG)."""
    return 2 if cfg.MODEL.CLS_AGNOSTIC_BBOX_REG else cfg.MODEL.NUM_CLASSES


def num_mask_classes(cfg: Config) -> int:
    """How many classes the mask head has maps for: all, or one for every class (MRCNN.CLS_SPECIFIC_MASK False)."""
    return cfg.MODEL.NUM_CLASSES if cfg.MRCNN.CLS_SPECIFIC_MASK else 1


def pooling_sections(cfg: Config) -> dict[str, FastRcnn | Mrcnn]:
    """The sections, by name, that say how the heads of the model pool their RoIs."""
    sections: dict[str, FastRcnn | Mrcnn] = {"FAST_RCNN": cfg.FAST_RCNN}
    if cfg.MODEL.MASK_ON:
        sections["MRCNN"] = cfg.MRCNN
    return sections


def _meaning(key: str, name: str, meanings: Mapping[str, Meaning]) -> Meaning:
    if name not in meanings:
        found = f"{key} is {name!r}" if name else f"{key} is not set"
        raise InputError(f"{found}: set it to {' or '.join(meanings)}")
    return meanings[name]
