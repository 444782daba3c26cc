"""What the function names in a configuration mean; answers to Detectron modeling/model_builder.py:get_func.

A name chooses an entry of the tables below and nothing else: no attribute or module is ever looked up by it.
"""

from collections.abc import Mapping
from typing import Literal, NamedTuple, TypeVar

from detectron_gn.mrcnn.config.schema import Config, FastRcnn, Krcnn, Mrcnn
from detectron_gn.mrcnn.errors import InputError
from detectron_gn.mrcnn.wording import with_article

Norm = Literal["affine", "gn"]
BodyKind = Literal["FPN", "C4", "VGG"]
BoxHeadKind = Literal["2mlp", "Xconv1fc", "Xconv1fc_gn", "res5", "vgg16", "vgg_cnn_m"]
MaskHeadKind = Literal["v1up", "v1up4convs", "v1up4convs_gn", "v0up", "v0upshare"]
KeypointHeadKind = Literal["v1convX", "res5"]
Meaning = TypeVar("Meaning")


class Body(NamedTuple):
    """What a network stands on.

    Attributes:
        kind: `FPN` (a ResNet under a feature pyramid), `C4` (a ResNet up to res4) or `VGG`.
        name: as papers call it.
        depth: layers of a ResNet; 0 for a VGG.
    """

    kind: BodyKind
    name: str
    depth: int


CONV_BODIES: dict[str, Body] = {
    "FPN.add_fpn_ResNet50_conv5_body": Body("FPN", "R-50", 50),
    "FPN.add_fpn_ResNet101_conv5_body": Body("FPN", "R-101", 101),
    "FPN.add_fpn_ResNet152_conv5_body": Body("FPN", "R-152", 152),
    "ResNet.add_ResNet50_conv4_body": Body("C4", "R-50", 50),
    "ResNet.add_ResNet101_conv4_body": Body("C4", "R-101", 101),
    "VGG16.add_VGG16_conv5_body": Body("VGG", "VGG16", 0),
    "VGG_CNN_M_1024.add_VGG_CNN_M_1024_conv5_body": Body("VGG", "VGG_CNN_M_1024", 0),
}
STEM_FUNCS: dict[str, Norm] = {"basic_bn_stem": "affine", "basic_gn_stem": "gn"}
TRANS_FUNCS: dict[str, Norm] = {"bottleneck_transformation": "affine", "bottleneck_gn_transformation": "gn"}
SHORTCUT_FUNCS: dict[str, Norm] = {"basic_bn_shortcut": "affine", "basic_gn_shortcut": "gn"}
ROI_BOX_HEADS: dict[str, BoxHeadKind] = {
    "fast_rcnn_heads.add_roi_2mlp_head": "2mlp",
    "fast_rcnn_heads.add_roi_Xconv1fc_head": "Xconv1fc",
    "fast_rcnn_heads.add_roi_Xconv1fc_gn_head": "Xconv1fc_gn",
    "head_builder.add_roi_2mlp_head": "2mlp",
    "ResNet.add_ResNet_roi_conv5_head": "res5",
    "VGG16.add_VGG16_roi_fc_head": "vgg16",
    "VGG_CNN_M_1024.add_VGG_CNN_M_1024_roi_fc_head": "vgg_cnn_m",
}
ROI_MASK_HEADS: dict[str, MaskHeadKind] = {
    "mask_rcnn_heads.mask_rcnn_fcn_head_v1up4convs": "v1up4convs",
    "mask_rcnn_heads.mask_rcnn_fcn_head_v1up4convs_gn": "v1up4convs_gn",
    "mask_rcnn_heads.mask_rcnn_fcn_head_v1up": "v1up",
    "mask_rcnn_heads.mask_rcnn_fcn_head_v0up": "v0up",
    "mask_rcnn_heads.mask_rcnn_fcn_head_v0upshare": "v0upshare",
    "mask_rcnn_heads.ResNet_mask_rcnn_fcn_head_v1up4convs": "v1up4convs",
    "mask_rcnn_heads.ResNet_mask_rcnn_fcn_head_v1up": "v1up",
    "mask_rcnn_heads.ResNet_mask_rcnn_fcn_head_v0up": "v0up",
    "mask_rcnn_heads.ResNet_mask_rcnn_fcn_head_v0upshare": "v0upshare",
}
ROI_KEYPOINT_HEADS: dict[str, KeypointHeadKind] = {
    "keypoint_rcnn_heads.add_roi_pose_head_v1convX": "v1convX",
    "keypoint_rcnn_heads.add_ResNet_roi_conv5_head_for_keypoints": "res5",
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


def a_family(cfg: Config) -> str:
    """`model_family` with its article: `a Mask R-CNN`, `an RPN`."""
    return with_article(model_family(cfg))


def has_box_head(cfg: Config) -> bool:
    """Whether there is a second stage: the network is neither an RPN by itself nor a RetinaNet."""
    return not (cfg.MODEL.RPN_ONLY or cfg.RETINANET.RETINANET_ON)


def takes_proposals(cfg: Config) -> bool:
    """Whether the network has neither an RPN nor a RetinaNet's head, and takes its proposals from outside."""
    return not (cfg.MODEL.FASTER_RCNN or cfg.MODEL.RPN_ONLY or cfg.RETINANET.RETINANET_ON)


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


def padding_stride(cfg: Config) -> int:
    """What the sides of a batch are padded to a multiple of; 1 without a pyramid, for which nothing is padded.

    Detectron utils/blob.py:im_list_to_blob.
    """
    return cfg.FPN.COARSEST_STRIDE if cfg.FPN.FPN_ON else 1


def body(cfg: Config) -> Body:
    """What `cfg.MODEL.CONV_BODY` names."""
    return _meaning("MODEL.CONV_BODY", cfg.MODEL.CONV_BODY, CONV_BODIES)


def backbone_depth(cfg: Config) -> int:
    """50, 101 or 152, from `cfg.MODEL.CONV_BODY`; 0 for a VGG."""
    return body(cfg).depth


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


def keypoint_head_kind(cfg: Config) -> KeypointHeadKind:
    """Which keypoint head `cfg.KRCNN.ROI_KEYPOINTS_HEAD` names."""
    return _meaning("KRCNN.ROI_KEYPOINTS_HEAD", cfg.KRCNN.ROI_KEYPOINTS_HEAD, ROI_KEYPOINT_HEADS)


def pooling_sections(cfg: Config) -> dict[str, FastRcnn | Mrcnn | Krcnn]:
    """The sections, by name, that say how the heads of the model pool their RoIs."""
    sections: dict[str, FastRcnn | Mrcnn | Krcnn] = {}
    if has_box_head(cfg):
        sections["FAST_RCNN"] = cfg.FAST_RCNN
    if cfg.MODEL.MASK_ON:
        sections["MRCNN"] = cfg.MRCNN
    if cfg.MODEL.KEYPOINTS_ON:
        sections["KRCNN"] = cfg.KRCNN
    return sections


def _meaning(key: str, name: str, meanings: Mapping[str, Meaning]) -> Meaning:
    if name not in meanings:
        found = f"{key} is {name!r}" if name else f"{key} is not set"
        raise InputError(f"{found}: set it to {' or '.join(meanings)}")
    return meanings[name]
