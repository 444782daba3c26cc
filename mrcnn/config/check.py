"""What must hold between the keys of a configuration before a model of it can be built."""

from detectron_gn.mrcnn.config.functions import (
    backbone_depth,
    box_head_kind,
    mask_head_kind,
    norm_of_backbone,
    pooling_sections,
)
from detectron_gn.mrcnn.config.schema import Config
from detectron_gn.mrcnn.config.supported import unsupported_values
from detectron_gn.mrcnn.errors import InputError


def check_config(cfg: Config) -> None:
    """Raise InputError with one sentence that names the first key at fault, its value and the way out.

    Types are the reader's to check. Widths that GroupNorm's groups do not divide are reported by the layer at fault.
    """
    for unsupported in unsupported_values(cfg):
        raise InputError(str(unsupported))
    _check_parts(cfg)
    refuse_proposal_files(cfg)
    _check_pyramid(cfg)
    _check_backbone(cfg)
    _check_norm(cfg)
    _check_heads(cfg)
    _check_minibatches(cfg)
    _check_test(cfg)
    _check_schedule(cfg)


def refuse_proposal_files(cfg: Config) -> None:
    """Raise InputError for a model without an RPN, which takes its proposals from files that the port does not read.

    Such a configuration can be read all the same: `mask_rcnn_R-50-FPN_1x_gn.yaml` is one.
    """
    _require(
        cfg.MODEL.FASTER_RCNN,
        "MODEL.FASTER_RCNN is False, so the model has no RPN and takes its proposals from TEST.PROPOSAL_FILES, which "
        "are not read here: set it to True, or use an end-to-end configuration (e2e_mask_rcnn_...)",
    )


def _require(holds: bool, sentence: str) -> None:
    if not holds:
        raise InputError(sentence)


def _require_positive(key: str, value: float) -> None:
    _require(value > 0, f"{key} is {value}: set it to a number above 0")


def _check_parts(cfg: Config) -> None:
    """The body and the heads are there, and pool with RoIAlign."""
    model = cfg.MODEL
    _require(model.TYPE != "", "MODEL.TYPE is not set: set it to generalized_rcnn")
    backbone_depth(cfg)
    box_head_kind(cfg)
    if model.MASK_ON:
        mask_head_kind(cfg)
    _require(
        model.NUM_CLASSES >= 2,
        f"MODEL.NUM_CLASSES is {model.NUM_CLASSES}: set it to the number of classes and one more for the background, "
        "81 for COCO",
    )
    _require(
        min(model.BBOX_REG_WEIGHTS) > 0,
        f"MODEL.BBOX_REG_WEIGHTS is {list(model.BBOX_REG_WEIGHTS)}: give four factors above 0, such as [10, 10, 5, 5]",
    )
    for section, pooling in pooling_sections(cfg).items():
        method = pooling.ROI_XFORM_METHOD
        _require(method == "RoIAlign", f"{section}.ROI_XFORM_METHOD is {method!r}: set it to RoIAlign")


def _check_pyramid(cfg: Config) -> None:
    fpn = cfg.FPN
    switches = {"FPN_ON": fpn.FPN_ON, "MULTILEVEL_ROIS": fpn.MULTILEVEL_ROIS, "MULTILEVEL_RPN": fpn.MULTILEVEL_RPN}
    for key, is_on in switches.items():
        _require(is_on, f"FPN.{key} is False, but only models on a feature pyramid are supported: set it to True")
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
    _require(
        fpn.COARSEST_STRIDE > 0 and fpn.COARSEST_STRIDE % 32 == 0,
        f"FPN.COARSEST_STRIDE is {fpn.COARSEST_STRIDE}, but images are padded to multiples of 32: set it to 32",
    )
    _require_positive("FPN.DIM", fpn.DIM)
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
    parts = (norm_of_backbone(cfg) == "gn", box_head_kind(cfg) == "Xconv1fc_gn", in_mask_head, cfg.FPN.USE_GN)
    if not any(parts):
        return
    norm = cfg.GROUP_NORM
    _require(
        (norm.DIM_PER_GP > 0) != (norm.NUM_GROUPS > 0),
        f"GROUP_NORM.DIM_PER_GP is {norm.DIM_PER_GP} and GROUP_NORM.NUM_GROUPS is {norm.NUM_GROUPS}: give one of them "
        "and set the other to -1",
    )
    _require_positive("GROUP_NORM.EPSILON", norm.EPSILON)


def _check_heads(cfg: Config) -> None:
    box = cfg.FAST_RCNN
    for section, pooling in pooling_sections(cfg).items():
        ratio = pooling.ROI_XFORM_SAMPLING_RATIO
        _require_positive(f"{section}.ROI_XFORM_RESOLUTION", pooling.ROI_XFORM_RESOLUTION)
        _require(
            ratio >= 0,
            f"{section}.ROI_XFORM_SAMPLING_RATIO is {ratio}: set it to 2, or to 0 to let each RoI's size decide",
        )
    _require_positive("FAST_RCNN.MLP_HEAD_DIM", box.MLP_HEAD_DIM)
    if box_head_kind(cfg) != "2mlp":
        _require_positive("FAST_RCNN.CONV_HEAD_DIM", box.CONV_HEAD_DIM)
        _require_positive("FAST_RCNN.NUM_STACKED_CONVS", box.NUM_STACKED_CONVS)
    if cfg.MODEL.MASK_ON:
        _check_mask_head(cfg)


def _check_mask_head(cfg: Config) -> None:
    mask = cfg.MRCNN
    _require_positive("MRCNN.DIM_REDUCED", mask.DIM_REDUCED)
    _require_positive("MRCNN.DILATION", mask.DILATION)
    # Detectron's GroupNorm head takes DILATION for its padding alone, so any other value would change the masks' size
    # (Detectron modeling/mask_rcnn_heads.py:mask_rcnn_fcn_head_v1upXconvs_gn).
    _require(
        mask.DILATION == 1 or mask_head_kind(cfg) != "v1up4convs_gn",
        f"MRCNN.DILATION is {mask.DILATION}, but the GroupNorm mask head cannot be dilated: set it to 1",
    )
    _require(
        mask.RESOLUTION == 2 * mask.ROI_XFORM_RESOLUTION,
        f"MRCNN.RESOLUTION is {mask.RESOLUTION}, but the mask head doubles MRCNN.ROI_XFORM_RESOLUTION, which is "
        f"{mask.ROI_XFORM_RESOLUTION}: set it to {2 * mask.ROI_XFORM_RESOLUTION}",
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
    if cfg.TEST.SOFT_NMS.ENABLED:
        _require_positive("TEST.SOFT_NMS.SIGMA", cfg.TEST.SOFT_NMS.SIGMA)


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
