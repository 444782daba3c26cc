"""What must hold between the keys of a configuration before a model of it can be built."""

from detectron_gn.mrcnn.config.functions import (
    a_family,
    body,
    box_head_kind,
    has_box_head,
    keypoint_head_kind,
    mask_head_kind,
    norm_of_backbone,
    pooling_sections,
    takes_proposals,
)
from detectron_gn.mrcnn.config.old_types import OLD_TYPES, OldType
from detectron_gn.mrcnn.config.schema import BboxAug, Config, KpsAug, MaskAug
from detectron_gn.mrcnn.config.supported import unsupported_values
from detectron_gn.mrcnn.errors import InputError


def check_config(cfg: Config) -> None:
    """Raise InputError with one sentence that names the first key at fault, its value and the way out.

    Types are the reader's to check. Widths that GroupNorm's groups do not divide are reported by the layer at fault.
    """
    for unsupported in unsupported_values(cfg):
        raise InputError(str(unsupported))
    _check_parts(cfg)
    if cfg.FPN.FPN_ON:
        _check_pyramid(cfg)
    else:
        _check_single_level(cfg)
    if body(cfg).kind != "VGG":
        _check_backbone(cfg)
    if cfg.RETINANET.RETINANET_ON:
        _check_retinanet(cfg)
    elif cfg.FPN.FPN_ON:
        _check_rois(cfg)
    _check_norm(cfg)
    if has_box_head(cfg):
        _check_box_head(cfg)
    if cfg.MODEL.MASK_ON:
        _check_mask_head(cfg)
    check_keypoints(cfg)
    if cfg.MODEL.KEYPOINTS_ON:
        _check_keypoint_head(cfg)
    _check_minibatches(cfg)
    _check_test(cfg)
    _check_schedule(cfg)


def check_keypoints(cfg: Config) -> None:
    """Raise InputError where keypoints are switched on for a model without RoIs, or without their number.

    Data are held against a configuration before the whole of it is checked, and would be at fault.
    """
    if not cfg.MODEL.KEYPOINTS_ON:
        return
    told = f"MODEL.KEYPOINTS_ON is True, but {a_family(cfg)} has no RoIs, and so no keypoints: set it to False"
    _require(has_box_head(cfg), told)
    count = cfg.KRCNN.NUM_KEYPOINTS
    _require(
        count > 0,
        f"MODEL.KEYPOINTS_ON is True, but KRCNN.NUM_KEYPOINTS is {count}: set it to how many keypoints an object has, "
        "17 for COCO's person",
    )


def refuse_training(cfg: Config) -> None:
    """Raise InputError for a model that detects here but cannot be trained."""
    way_out = (
        "cannot be trained here: give the configuration of a ResNet with RoIAlign, which all of Detectron's are, or "
        "use `test` and `detect` on this one"
    )
    told = f"MODEL.CONV_BODY is {cfg.MODEL.CONV_BODY}, but a model on that body {way_out}"
    _require(body(cfg).kind != "VGG", told)
    for section, pooling in pooling_sections(cfg).items():
        method = pooling.ROI_XFORM_METHOD
        _require(
            method == "RoIAlign",
            f"{section}.ROI_XFORM_METHOD is {method}, but a model that pools in that way {way_out}",
        )
    _check_anchor_field(cfg)
    _refuse_frozen_body(cfg)


def _refuse_frozen_body(cfg: Config) -> None:
    """A body that no gradient reaches, its pyramid included, is not what TRAIN.FREEZE_AT freezes.

    A RetinaNet has none, whatever the key says: see `idle_training_remarks`.
    """
    old = OLD_TYPES.get(cfg.MODEL.TYPE)
    by_type = old is not None and old.is_frozen
    by_key = cfg.TRAIN.FREEZE_CONV_BODY and not cfg.RETINANET.RETINANET_ON
    _require(
        not (by_type or by_key),
        f"{f'MODEL.TYPE is {cfg.MODEL.TYPE}' if by_type else 'TRAIN.FREEZE_CONV_BODY is True'}, but a model whose "
        "whole body is frozen is not trained here: freeze stages with TRAIN.FREEZE_AT (and set MODEL.TYPE to "
        "generalized_rcnn, TRAIN.FREEZE_CONV_BODY to False), or use `test` and `detect` on this one",
    )


def _check_anchor_field(cfg: Config) -> None:
    """The field of anchors that targets are made on has the positions of the maps, where Detectron trusts the keys.

    Detectron roi_data/rpn.py:add_rpn_blobs, roi_data/retinanet.py:_get_retinanet_blobs.
    """
    if not (cfg.FPN.FPN_ON or takes_proposals(cfg)):
        stride = cfg.RPN.STRIDE
        _require(stride == 16, f"RPN.STRIDE is {stride}, but {cfg.MODEL.CONV_BODY} ends at stride 16: set it to 16")
    if cfg.RETINANET.RETINANET_ON:
        stride, coarsest = cfg.FPN.COARSEST_STRIDE, 2**cfg.FPN.RPN_MAX_LEVEL
        _require(
            stride % coarsest == 0,
            f"FPN.COARSEST_STRIDE is {stride}, but FPN.RPN_MAX_LEVEL is {cfg.FPN.RPN_MAX_LEVEL}, whose stride is "
            f"{coarsest}: set it to {coarsest} to train",
        )


def _require(holds: bool, sentence: str) -> None:
    if not holds:
        raise InputError(sentence)


def _require_positive(key: str, value: float) -> None:
    _require(value > 0, f"{key} is {value}: set it to a number above 0")


def _check_parts(cfg: Config) -> None:
    """The body is there, and the heads that go together."""
    model, dense = cfg.MODEL, cfg.RETINANET.RETINANET_ON
    _require(model.TYPE != "", "MODEL.TYPE is not set: set it to generalized_rcnn or retinanet")
    _require(
        (model.TYPE == "retinanet") == dense,
        f"MODEL.TYPE is {model.TYPE} and RETINANET.RETINANET_ON is {dense}: set them to retinanet and True, or to "
        "generalized_rcnn and False",
    )
    body(cfg)
    _require(
        model.NUM_CLASSES >= 2,
        f"MODEL.NUM_CLASSES is {model.NUM_CLASSES}: set it to the number of classes and one more for the background, "
        "81 for COCO",
    )
    if model.TYPE in OLD_TYPES:
        _check_old_type(cfg, OLD_TYPES[model.TYPE])
    for key, is_on in {"MASK_ON": model.MASK_ON, "KEYPOINTS_ON": model.KEYPOINTS_ON}.items():
        _require(
            not (model.RPN_ONLY and is_on), f"MODEL.RPN_ONLY and MODEL.{key} are both True: set one of them to False"
        )
    pyramid = body(cfg).kind == "FPN"
    wanted = "it is a pyramid" if pyramid else "it has no pyramid"
    _require(
        cfg.FPN.FPN_ON == pyramid,
        f"FPN.FPN_ON is {cfg.FPN.FPN_ON}, but MODEL.CONV_BODY is {model.CONV_BODY}: {wanted}, so set FPN.FPN_ON to "
        f"{pyramid}",
    )
    for section, pooling in pooling_sections(cfg).items():
        ratio = pooling.ROI_XFORM_SAMPLING_RATIO
        _require_positive(f"{section}.ROI_XFORM_RESOLUTION", pooling.ROI_XFORM_RESOLUTION)
        _require(
            ratio >= 0,
            f"{section}.ROI_XFORM_SAMPLING_RATIO is {ratio}: set it to 2, or to 0 to let each RoI's size decide",
        )


def _check_old_type(cfg: Config, old: OldType) -> None:
    """The parts are those that the type has functions for; with others Detectron itself ends in an error."""
    model, generic = cfg.MODEL, "or MODEL.TYPE to generalized_rcnn"
    if old.body:
        _require(
            model.CONV_BODY == old.body,
            f"MODEL.TYPE is {model.TYPE}, but MODEL.CONV_BODY is {model.CONV_BODY}: set it to {old.body}, {generic}",
        )
    if not old.heads:
        told = f"MODEL.TYPE is {model.TYPE}, an RPN by itself, but MODEL.RPN_ONLY is False: set it to True, {generic}"
        _require(model.RPN_ONLY, told)
    for head, key, is_on in (("mask", "MASK_ON", model.MASK_ON), ("keypoint", "KEYPOINTS_ON", model.KEYPOINTS_ON)):
        _require(
            not is_on or head in old.heads,
            f"MODEL.TYPE is {model.TYPE}, which has no {head} head, but MODEL.{key} is True: set it to False, "
            f"{generic}",
        )
    _require(
        model.FASTER_RCNN or not old.needs_rpn,
        f"MODEL.TYPE is {model.TYPE}, but MODEL.FASTER_RCNN is False: set it to True, {generic}",
    )


def _check_single_level(cfg: Config) -> None:
    """One map for proposals and RoIs; the anchors of an RPN on it."""
    fpn, rpn = cfg.FPN, cfg.RPN
    for key, is_on in {"MULTILEVEL_ROIS": fpn.MULTILEVEL_ROIS, "MULTILEVEL_RPN": fpn.MULTILEVEL_RPN}.items():
        told = f"FPN.{key} is True, but MODEL.CONV_BODY is {cfg.MODEL.CONV_BODY}, which has one level: set it to False"
        _require(not is_on, told)
    for key, values, example in (
        ("SIZES", rpn.SIZES, "[32, 64, 128, 256, 512]"),
        ("ASPECT_RATIOS", rpn.ASPECT_RATIOS, "[0.5, 1, 2]"),
    ):
        _require(
            len(values) > 0 and min(values) > 0, f"RPN.{key} is {list(values)}: give numbers above 0, such as {example}"
        )


def _check_pyramid(cfg: Config) -> None:
    fpn = cfg.FPN
    switches = {
        "MULTILEVEL_ROIS": not has_box_head(cfg) or fpn.MULTILEVEL_ROIS,
        "MULTILEVEL_RPN": takes_proposals(cfg) or fpn.MULTILEVEL_RPN,
    }
    for key, is_on in switches.items():
        _require(is_on, f"FPN.{key} is False, but a pyramid of one level is not supported: set it to True")
    _require(
        fpn.COARSEST_STRIDE > 0 and fpn.COARSEST_STRIDE % 32 == 0,
        f"FPN.COARSEST_STRIDE is {fpn.COARSEST_STRIDE}, but images are padded to multiples of 32: set it to 32",
    )
    _require_positive("FPN.DIM", fpn.DIM)


def _check_retinanet(cfg: Config) -> None:
    """Levels that the pyramid has, and a head on each of them; what belongs to RoIs is switched off."""
    fpn, dense = cfg.FPN, cfg.RETINANET
    for key, is_on in (("MODEL.MASK_ON", cfg.MODEL.MASK_ON), ("FPN.MULTILEVEL_ROIS", fpn.MULTILEVEL_ROIS)):
        _require(not is_on, f"{key} is True, but a RetinaNet has no RoIs: set it to False")
    last = 7 if fpn.EXTRA_CONV_LEVELS else 6
    _require(
        2 <= fpn.RPN_MIN_LEVEL <= 5 <= fpn.RPN_MAX_LEVEL <= last,
        f"FPN.RPN_MIN_LEVEL is {fpn.RPN_MIN_LEVEL} and FPN.RPN_MAX_LEVEL is {fpn.RPN_MAX_LEVEL}, but the levels of "
        f"RetinaNet begin within 2 to 5 and end within 5 to {last}: set them to 3 and {last}"
        + ("" if fpn.EXTRA_CONV_LEVELS else ", or FPN.EXTRA_CONV_LEVELS to True for a level 7"),
    )
    for key in ("SCALES_PER_OCTAVE", "ANCHOR_SCALE", "NUM_CONVS"):
        _require_positive(f"RETINANET.{key}", getattr(dense, key))
    _require(
        len(dense.ASPECT_RATIOS) > 0 and min(dense.ASPECT_RATIOS) > 0,
        f"RETINANET.ASPECT_RATIOS is {list(dense.ASPECT_RATIOS)}: give ratios above 0, such as [1, 2, 0.5]",
    )
    _require(
        dense.PRE_NMS_TOP_N >= 0, f"RETINANET.PRE_NMS_TOP_N is {dense.PRE_NMS_TOP_N}: set it to 1000, or to 0 for all"
    )
    _require(
        0 < dense.PRIOR_PROB < 1, f"RETINANET.PRIOR_PROB is {dense.PRIOR_PROB}: set it to a share between 0 and 1"
    )
    for key in ("POSITIVE_OVERLAP", "NEGATIVE_OVERLAP", "LOSS_ALPHA"):
        share = getattr(dense, key)
        _require(0 <= share <= 1, f"RETINANET.{key} is {share}: set it to a share from 0 to 1")
    for key in ("LOSS_GAMMA", "BBOX_REG_WEIGHT", "BBOX_REG_BETA"):
        number = getattr(dense, key)
        _require(number >= 0, f"RETINANET.{key} is {number}: set it to a number from 0 up")


def _check_rois(cfg: Config) -> None:
    """Levels and anchors of the RPN, levels of RoIs."""
    fpn = cfg.FPN
    _require(
        (fpn.RPN_MIN_LEVEL, fpn.RPN_MAX_LEVEL) == (2, 6),
        f"FPN.RPN_MIN_LEVEL is {fpn.RPN_MIN_LEVEL} and FPN.RPN_MAX_LEVEL is {fpn.RPN_MAX_LEVEL}, but the pyramid has "
        "the levels 2 to 6: set them to 2 and 6",
    )
    _require(
        2 <= fpn.ROI_MIN_LEVEL <= fpn.ROI_MAX_LEVEL <= 5,
        f"FPN.ROI_MIN_LEVEL is {fpn.ROI_MIN_LEVEL} and FPN.ROI_MAX_LEVEL is {fpn.ROI_MAX_LEVEL}, but RoIs take their "
        "features from levels within 2 to 5: set them to 2 and 5",
    )
    _require_positive("FPN.ROI_CANONICAL_SCALE", fpn.ROI_CANONICAL_SCALE)
    _require_positive("FPN.RPN_ANCHOR_START_SIZE", fpn.RPN_ANCHOR_START_SIZE)
    ratios = fpn.RPN_ASPECT_RATIOS
    _require(
        len(ratios) > 0 and min(ratios) > 0,
        f"FPN.RPN_ASPECT_RATIOS is {list(ratios)}: give ratios above 0, such as [0.5, 1, 2]",
    )


def _check_backbone(cfg: Config) -> None:
    norm_of_backbone(cfg)
    _require_positive("RESNETS.NUM_GROUPS", cfg.RESNETS.NUM_GROUPS)
    _require_positive("RESNETS.WIDTH_PER_GROUP", cfg.RESNETS.WIDTH_PER_GROUP)
    _require(
        cfg.TRAIN.FREEZE_AT in (0, 2, 3, 4, 5),
        f"TRAIN.FREEZE_AT is {cfg.TRAIN.FREEZE_AT}: set it to the last frozen stage, 2 to 5, or to 0 to freeze nothing",
    )


def _check_norm(cfg: Config) -> None:
    """GroupNorm's groups are given in one way, where there is any GroupNorm."""
    in_mask_head = cfg.MODEL.MASK_ON and mask_head_kind(cfg) == "v1up4convs_gn"
    in_box_head = has_box_head(cfg) and box_head_kind(cfg) == "Xconv1fc_gn"
    in_body = body(cfg).kind != "VGG" and norm_of_backbone(cfg) == "gn"
    if not any((in_body, in_box_head, in_mask_head, cfg.FPN.FPN_ON and cfg.FPN.USE_GN)):
        return
    norm = cfg.GROUP_NORM
    _require(
        (norm.DIM_PER_GP > 0) != (norm.NUM_GROUPS > 0),
        f"GROUP_NORM.DIM_PER_GP is {norm.DIM_PER_GP} and GROUP_NORM.NUM_GROUPS is {norm.NUM_GROUPS}: give one of them "
        "and set the other to -1",
    )
    _require_positive("GROUP_NORM.EPSILON", norm.EPSILON)


def _check_box_head(cfg: Config) -> None:
    box, kind, weights = cfg.FAST_RCNN, box_head_kind(cfg), cfg.MODEL.BBOX_REG_WEIGHTS
    _require(
        min(weights) > 0,
        f"MODEL.BBOX_REG_WEIGHTS is {list(weights)}: give four factors above 0, such as [10, 10, 5, 5]",
    )
    if kind == "res5":
        _require(
            body(cfg).kind == "C4",
            f"FAST_RCNN.ROI_BOX_HEAD is {box.ROI_BOX_HEAD}, which goes on where a C4 body ends, but MODEL.CONV_BODY is "
            f"{cfg.MODEL.CONV_BODY}: set it to ResNet.add_ResNet50_conv4_body, or take another head",
        )
        _check_res5("FAST_RCNN", box.ROI_XFORM_RESOLUTION)
    if kind in ("2mlp", "Xconv1fc", "Xconv1fc_gn"):
        _require_positive("FAST_RCNN.MLP_HEAD_DIM", box.MLP_HEAD_DIM)
    if kind in ("Xconv1fc", "Xconv1fc_gn"):
        _require_positive("FAST_RCNN.CONV_HEAD_DIM", box.CONV_HEAD_DIM)
        _require_positive("FAST_RCNN.NUM_STACKED_CONVS", box.NUM_STACKED_CONVS)


def _check_res5(section: str, resolution: int) -> None:
    """Res5 of each RoI ends at 7 x 7 positions (Detectron modeling/ResNet.py:add_ResNet_roi_conv5_head)."""
    _require(
        resolution % 7 == 0,
        f"{section}.ROI_XFORM_RESOLUTION is {resolution}, but res5 of a RoI ends at 7 x 7: set it to 14",
    )


def _check_mask_head(cfg: Config) -> None:
    mask, kind = cfg.MRCNN, mask_head_kind(cfg)
    _require_positive("MRCNN.DIM_REDUCED", mask.DIM_REDUCED)
    _require_positive("MRCNN.DILATION", mask.DILATION)
    # Detectron's GroupNorm head takes DILATION for its padding alone, so any other value would change the masks' size
    # (Detectron modeling/mask_rcnn_heads.py:mask_rcnn_fcn_head_v1upXconvs_gn).
    _require(
        mask.DILATION == 1 or kind != "v1up4convs_gn",
        f"MRCNN.DILATION is {mask.DILATION}, but the GroupNorm mask head cannot be dilated: set it to 1",
    )
    ratio = mask.UPSAMPLE_RATIO
    _require(
        ratio == 1 or (ratio > 1 and ratio % 2 == 0),
        f"MRCNN.UPSAMPLE_RATIO is {ratio}: set it to an even number, or to 1 for masks that are not upsampled",
    )
    if kind in ("v0up", "v0upshare"):
        _require(
            body(cfg).kind == "C4",
            f"MRCNN.ROI_MASK_HEAD is {mask.ROI_MASK_HEAD}, which goes on where a C4 body ends, but MODEL.CONV_BODY is "
            f"{cfg.MODEL.CONV_BODY}: set it to ResNet.add_ResNet50_conv4_body, or take another head",
        )
        _check_res5("MRCNN", mask.ROI_XFORM_RESOLUTION)
    if kind == "v0upshare":
        _require(
            box_head_kind(cfg) == "res5",
            f"MRCNN.ROI_MASK_HEAD is {mask.ROI_MASK_HEAD}, which shares res5 with the box head, but "
            f"FAST_RCNN.ROI_BOX_HEAD is {cfg.FAST_RCNN.ROI_BOX_HEAD}: set it to ResNet.add_ResNet_roi_conv5_head",
        )
        _require(
            mask.DILATION == 1,
            f"MRCNN.DILATION is {mask.DILATION}, but the mask head shares res5 with the box head: set it to 1",
        )
        _require(
            mask.ROI_XFORM_RESOLUTION == cfg.FAST_RCNN.ROI_XFORM_RESOLUTION,
            f"MRCNN.ROI_XFORM_RESOLUTION is {mask.ROI_XFORM_RESOLUTION}, but the mask head shares res5 with the box "
            f"head: set it to FAST_RCNN.ROI_XFORM_RESOLUTION, which is {cfg.FAST_RCNN.ROI_XFORM_RESOLUTION}",
        )
        side, told = 14, "doubles the 7 x 7 of res5"
    elif kind == "v0up":
        side = 14 if mask.DILATION == 1 else 2 * mask.ROI_XFORM_RESOLUTION
        told = "doubles what res5 gives of a RoI"
    else:
        side = 2 * mask.ROI_XFORM_RESOLUTION
        told = f"doubles MRCNN.ROI_XFORM_RESOLUTION, which is {mask.ROI_XFORM_RESOLUTION}"
    if ratio > 1:
        side, told = side * ratio, f"{told}, and MRCNN.UPSAMPLE_RATIO is {ratio}"
    _require(
        mask.RESOLUTION == side,
        f"MRCNN.RESOLUTION is {mask.RESOLUTION}, but the mask head {told}: set it to {side}",
    )


def _check_keypoint_head(cfg: Config) -> None:
    """Heatmaps of the size that the layers give; what knows a person's keypoints, for as many as COCO's person has."""
    points, kind = cfg.KRCNN, keypoint_head_kind(cfg)
    augmented = cfg.TEST.KPS_AUG
    for key, is_on in {
        "KRCNN.NMS_OKS": points.NMS_OKS,
        "TEST.KPS_AUG.H_FLIP": augmented.ENABLED and augmented.H_FLIP,
        "TEST.KPS_AUG.SCALE_H_FLIP": augmented.ENABLED and augmented.SCALE_H_FLIP,
        "TEST.KPS_AUG.ASPECT_RATIO_H_FLIP": augmented.ENABLED and augmented.ASPECT_RATIO_H_FLIP,
    }.items():
        _require(
            not is_on or points.NUM_KEYPOINTS == 17,
            f"{key} is True, which takes the keypoints to be the 17 of COCO's person, but KRCNN.NUM_KEYPOINTS is "
            f"{points.NUM_KEYPOINTS}: set it to False",
        )
    side = points.ROI_XFORM_RESOLUTION
    if kind == "res5":
        _require(
            body(cfg).kind == "C4",
            f"KRCNN.ROI_KEYPOINTS_HEAD is {points.ROI_KEYPOINTS_HEAD}, which goes on where a C4 body ends, but "
            f"MODEL.CONV_BODY is {cfg.MODEL.CONV_BODY}: set it to ResNet.add_ResNet50_conv4_body, or take another head",
        )
        _check_res5("KRCNN", side)
        _require_positive("KRCNN.DILATION", points.DILATION)
        side = 7 if points.DILATION == 1 else side
    else:
        _require_positive("KRCNN.CONV_HEAD_DIM", points.CONV_HEAD_DIM)
        _require(
            points.CONV_HEAD_KERNEL % 2 == 1,
            f"KRCNN.CONV_HEAD_KERNEL is {points.CONV_HEAD_KERNEL}: set it to an odd number, such as 3",
        )
    weight = points.LOSS_WEIGHT
    _require(weight >= 0, f"KRCNN.LOSS_WEIGHT is {weight}: set it to a number from 0 up")
    if points.USE_DECONV or points.USE_DECONV_OUTPUT:
        kernel = points.DECONV_KERNEL
        _require(
            kernel >= 2 and kernel % 2 == 0, f"KRCNN.DECONV_KERNEL is {kernel}: set it to an even number, such as 4"
        )
    if points.USE_DECONV:
        _require_positive("KRCNN.DECONV_DIM", points.DECONV_DIM)
    up = points.UP_SCALE
    _require(up <= 1 or up % 2 == 0, f"KRCNN.UP_SCALE is {up}: set it to an even number, or to 1 to leave it out")
    side *= (2 if points.USE_DECONV else 1) * (2 if points.USE_DECONV_OUTPUT else 1) * max(up, 1)
    _require(
        points.HEATMAP_SIZE == side,
        f"KRCNN.HEATMAP_SIZE is {points.HEATMAP_SIZE}, but the layers of the keypoint head make it {side}: set it to "
        f"{side}",
    )


def _check_minibatches(cfg: Config) -> None:
    train = cfg.TRAIN
    _require(
        len(train.SCALES) > 0 and min(train.SCALES) > 0,
        f"TRAIN.SCALES is {list(train.SCALES)}: give lengths of the shorter side, such as [800]",
    )
    _require(
        train.MAX_SIZE >= max(train.SCALES),
        f"TRAIN.MAX_SIZE is {train.MAX_SIZE}, the most that a longer side may be, but TRAIN.SCALES asks for a shorter "
        f"side of {max(train.SCALES)}: set it to more, such as {round(max(train.SCALES) * 5 / 3)}",
    )
    _require_positive("TRAIN.IMS_PER_BATCH", train.IMS_PER_BATCH)
    _require_positive("TRAIN.BATCH_SIZE_PER_IM", train.BATCH_SIZE_PER_IM)
    _require_positive("TRAIN.RPN_BATCH_SIZE_PER_IM", train.RPN_BATCH_SIZE_PER_IM)
    for key, share in (("FG_FRACTION", train.FG_FRACTION), ("RPN_FG_FRACTION", train.RPN_FG_FRACTION)):
        _require(0 <= share <= 1, f"TRAIN.{key} is {share}: set it to a share between 0 and 1")
    _require_positive("NUM_GPUS", cfg.NUM_GPUS)
    # What numpy.random.seed takes, which Detectron seeds with it.
    _require(0 <= cfg.RNG_SEED < 2**32, f"RNG_SEED is {cfg.RNG_SEED}: set it to a whole number from 0 to {2**32 - 1}")


def _check_test(cfg: Config) -> None:
    _require_positive("TEST.SCALE", cfg.TEST.SCALE)
    _require_positive("TEST.MAX_SIZE", cfg.TEST.MAX_SIZE)
    if cfg.TEST.BBOX_AUG.ENABLED:
        _check_box_augmentation(cfg)
    if cfg.MODEL.MASK_ON and cfg.TEST.MASK_AUG.ENABLED:
        _check_augmentation("TEST.MASK_AUG", cfg.TEST.MASK_AUG)
    if cfg.MODEL.KEYPOINTS_ON and cfg.TEST.KPS_AUG.ENABLED:
        _check_augmentation("TEST.KPS_AUG", cfg.TEST.KPS_AUG)
    if cfg.TEST.BBOX_VOTE.ENABLED:
        threshold = cfg.TEST.BBOX_VOTE.VOTE_TH
        _require(threshold <= 1, f"TEST.BBOX_VOTE.VOTE_TH is {threshold}, so no box has a vote: set it to 1 or less")
    if cfg.TEST.SOFT_NMS.ENABLED:
        _require_positive("TEST.SOFT_NMS.SIGMA", cfg.TEST.SOFT_NMS.SIGMA)


def _check_box_augmentation(cfg: Config) -> None:
    """How boxes of several views can be put together (Detectron core/test.py:im_detect_bbox_aug)."""
    section, heuristics = cfg.TEST.BBOX_AUG, (cfg.TEST.BBOX_AUG.SCORE_HEUR, cfg.TEST.BBOX_AUG.COORD_HEUR)
    _check_augmentation("TEST.BBOX_AUG", section)
    told = f"TEST.BBOX_AUG.SCORE_HEUR is {heuristics[0]} and TEST.BBOX_AUG.COORD_HEUR is {heuristics[1]}"
    _require(
        not cfg.MODEL.FASTER_RCNN or heuristics == ("UNION", "UNION"),
        f"{told}, but the proposals of an RPN are others in every view: set both to UNION",
    )
    _require(
        len(set(heuristics) & {"UNION"}) == 0 or heuristics == ("UNION", "UNION"),
        f"{told}: UNION is for both of them or for none",
    )


def _check_augmentation(name: str, section: BboxAug | MaskAug | KpsAug) -> None:
    _require(
        min(section.SCALES, default=1) > 0 and section.MAX_SIZE > 0,
        f"{name}.SCALES is {list(section.SCALES)} and {name}.MAX_SIZE is {section.MAX_SIZE}: give numbers above 0",
    )
    _require(
        min(section.ASPECT_RATIOS, default=1) > 0,
        f"{name}.ASPECT_RATIOS is {list(section.ASPECT_RATIOS)}: give ratios above 0, such as [0.7, 1.4]",
    )


def _check_schedule(cfg: Config) -> None:
    solver = cfg.SOLVER
    _require_positive("SOLVER.MAX_ITER", solver.MAX_ITER)
    _require_positive("SOLVER.BASE_LR", solver.BASE_LR)
    for key in ("MOMENTUM", "WEIGHT_DECAY", "WEIGHT_DECAY_GN", "GAMMA", "WARM_UP_ITERS", "WARM_UP_FACTOR"):
        value = getattr(solver, key)
        _require(value >= 0, f"SOLVER.{key} is {value}: set it to a number from 0 up")
    _require(solver.MOMENTUM < 1, f"SOLVER.MOMENTUM is {solver.MOMENTUM}, so steps grow without end: set it below 1")
    weight = cfg.MRCNN.WEIGHT_LOSS_MASK
    _require(weight >= 0, f"MRCNN.WEIGHT_LOSS_MASK is {weight}: set it to a number from 0 up")
    _require_positive("TRAIN.SNAPSHOT_ITERS", cfg.TRAIN.SNAPSHOT_ITERS)
    if solver.LR_POLICY == "step":
        _require_positive("SOLVER.STEP_SIZE", solver.STEP_SIZE)
    if solver.LR_POLICY == "exp_decay":
        _require_positive("SOLVER.GAMMA", solver.GAMMA)
    if solver.LR_POLICY in ("steps_with_decay", "steps_with_lrs"):
        steps = solver.STEPS
        _require(
            steps[:1] == (0,) and all(step < later for step, later in zip(steps, steps[1:])),
            f"SOLVER.STEPS is {list(steps)}: {solver.LR_POLICY} needs growing iterations, the first of them 0",
        )
    if solver.LR_POLICY == "steps_with_lrs":
        _require(
            len(solver.LRS) == len(solver.STEPS),
            f"SOLVER.LRS has {len(solver.LRS)} rates for the {len(solver.STEPS)} iterations of SOLVER.STEPS: give one "
            "rate for each",
        )
        _require(min(solver.LRS) > 0, f"SOLVER.LRS is {list(solver.LRS)}: give rates above 0")
