"""What must hold between the keys of a configuration before a model of it can be built."""

from mrcnn.config.functions import backbone_depth, box_head_kind, mask_head_kind, norm_of_backbone
from mrcnn.config.keys import unserved_values
from mrcnn.config.sections import Config
from mrcnn.errors import InputError


def check_config(cfg: Config) -> None:
    """Raise InputError with one sentence that names the first key at fault, its value and the way out.

    Types are the reader's to check. Widths that GroupNorm cannot divide are reported where the layer is built.
    """
    for _, sentence in unserved_values(cfg):
        raise InputError(sentence)
    _check_parts(cfg)
    refuse_proposal_files(cfg)
    _check_pyramid(cfg)
    _check_backbone(cfg)
    _check_heads(cfg)
    _check_images(cfg)
    _check_solver(cfg)


def refuse_proposal_files(cfg: Config) -> None:
    """Raise InputError for a model that takes its proposals from files: it has no RPN, and the port reads no such file.

    Such a configuration can be read all the same (`mask_rcnn_R-50-FPN_1x_gn.yaml` is one).
    """
    _require(
        cfg.MODEL.FASTER_RCNN,
        "MODEL.FASTER_RCNN is False, so this model has no RPN and takes its proposals from TEST.PROPOSAL_FILES, "
        "which are not read here: use an end-to-end configuration (e2e_mask_rcnn_...) with MODEL.FASTER_RCNN: True",
    )


def _require(holds: bool, sentence: str) -> None:
    if not holds:
        raise InputError(sentence)


def _check_parts(cfg: Config) -> None:
    """The two stages and their heads are there."""
    model = cfg.MODEL
    _require(model.TYPE != "", "MODEL.TYPE is not set: set it to generalized_rcnn")
    backbone_depth(cfg)
    _require(model.MASK_ON, "MODEL.MASK_ON is False, but only models with a mask head are served: set it to True")
    box_head_kind(cfg)
    mask_head_kind(cfg)
    _require(
        model.NUM_CLASSES >= 2,
        f"MODEL.NUM_CLASSES is {model.NUM_CLASSES}: set it to the number of classes plus 1 for the background, "
        "81 for COCO",
    )
    for name, part in (("FAST_RCNN", cfg.FAST_RCNN), ("MRCNN", cfg.MRCNN)):
        method = part.ROI_XFORM_METHOD
        _require(method == "RoIAlign", f"{name}.ROI_XFORM_METHOD is {method!r}: set it to RoIAlign")


def _check_pyramid(cfg: Config) -> None:
    fpn = cfg.FPN
    for key in ("FPN_ON", "MULTILEVEL_ROIS", "MULTILEVEL_RPN"):
        _require(getattr(fpn, key), f"FPN.{key} is False, but only models on a feature pyramid are served: set it to True")
    _require(
        (fpn.RPN_MIN_LEVEL, fpn.RPN_MAX_LEVEL) == (2, 6),
        f"FPN.RPN_MIN_LEVEL and FPN.RPN_MAX_LEVEL are {fpn.RPN_MIN_LEVEL} and {fpn.RPN_MAX_LEVEL}, but the pyramid "
        "has the levels 2 to 6: set them to 2 and 6",
    )
    _require(
        2 <= fpn.ROI_MIN_LEVEL <= fpn.ROI_MAX_LEVEL <= 5,
        f"FPN.ROI_MIN_LEVEL and FPN.ROI_MAX_LEVEL are {fpn.ROI_MIN_LEVEL} and {fpn.ROI_MAX_LEVEL}, but RoIs take "
        "their features from levels within 2 to 5: set them to 2 and 5",
    )
    _require(
        fpn.COARSEST_STRIDE > 0 and fpn.COARSEST_STRIDE % 32 == 0,
        f"FPN.COARSEST_STRIDE is {fpn.COARSEST_STRIDE}, but images must be padded to a multiple of 32: set it to 32",
    )
    for key in ("DIM", "ROI_CANONICAL_SCALE", "RPN_ANCHOR_START_SIZE"):
        _require_positive(f"FPN.{key}", getattr(fpn, key))
    _require(
        len(fpn.RPN_ASPECT_RATIOS) > 0 and min(fpn.RPN_ASPECT_RATIOS) > 0,
        f"FPN.RPN_ASPECT_RATIOS is {fpn.RPN_ASPECT_RATIOS}: give at least one ratio, all above 0, such as (0.5, 1, 2)",
    )


def _check_backbone(cfg: Config) -> None:
    norm_of_backbone(cfg)
    _require_positive("RESNETS.NUM_GROUPS", cfg.RESNETS.NUM_GROUPS)
    _require_positive("RESNETS.WIDTH_PER_GROUP", cfg.RESNETS.WIDTH_PER_GROUP)
    norm = cfg.GROUP_NORM
    _require(
        (norm.DIM_PER_GP > 0) != (norm.NUM_GROUPS > 0),
        f"GROUP_NORM.DIM_PER_GP is {norm.DIM_PER_GP} and GROUP_NORM.NUM_GROUPS is {norm.NUM_GROUPS}: give one of "
        "them and set the other to -1",
    )
    _require_positive("GROUP_NORM.EPSILON", norm.EPSILON)
    _require(
        cfg.TRAIN.FREEZE_AT in (0, 2, 3, 4, 5),
        f"TRAIN.FREEZE_AT is {cfg.TRAIN.FREEZE_AT}: set it to the last frozen stage, 2 to 5, or to 0 to freeze nothing",
    )


def _check_heads(cfg: Config) -> None:
    box, mask = cfg.FAST_RCNN, cfg.MRCNN
    for name, part in (("FAST_RCNN", box), ("MRCNN", mask)):
        _require_positive(f"{name}.ROI_XFORM_RESOLUTION", part.ROI_XFORM_RESOLUTION)
        ratio = part.ROI_XFORM_SAMPLING_RATIO
        _require(ratio >= 0, f"{name}.ROI_XFORM_SAMPLING_RATIO is {ratio}: set it to 2, or to 0 to adapt to each RoI")
    _require_positive("FAST_RCNN.MLP_HEAD_DIM", box.MLP_HEAD_DIM)
    if box_head_kind(cfg) != "2mlp":
        _require_positive("FAST_RCNN.CONV_HEAD_DIM", box.CONV_HEAD_DIM)
        _require_positive("FAST_RCNN.NUM_STACKED_CONVS", box.NUM_STACKED_CONVS)
    _require_positive("MRCNN.DIM_REDUCED", mask.DIM_REDUCED)
    # ConvGN passes DILATION on as padding alone, so any other value changes the size of the masks
    # (Detectron modeling/mask_rcnn_heads.py:mask_rcnn_fcn_head_v1upXconvs_gn).
    _require(
        mask_head_kind(cfg) != "v1up4convs_gn" or mask.DILATION == 1,
        f"MRCNN.DILATION is {mask.DILATION}, but the GroupNorm mask head is not dilated: set it to 1",
    )
    _require_positive("MRCNN.DILATION", mask.DILATION)
    _require(
        mask.RESOLUTION == 2 * mask.ROI_XFORM_RESOLUTION,
        f"MRCNN.RESOLUTION is {mask.RESOLUTION}, but the mask head doubles MRCNN.ROI_XFORM_RESOLUTION, which is "
        f"{mask.ROI_XFORM_RESOLUTION}: set it to {2 * mask.ROI_XFORM_RESOLUTION}",
    )


def _check_images(cfg: Config) -> None:
    scales = cfg.TRAIN.SCALES
    _require(
        len(scales) > 0 and min(scales) > 0,
        f"TRAIN.SCALES is {scales}: give at least one length of the shorter side, such as (800,)",
    )
    for key, value in (
        ("TRAIN.MAX_SIZE", cfg.TRAIN.MAX_SIZE),
        ("TEST.SCALE", cfg.TEST.SCALE),
        ("TEST.MAX_SIZE", cfg.TEST.MAX_SIZE),
        ("TRAIN.IMS_PER_BATCH", cfg.TRAIN.IMS_PER_BATCH),
        ("NUM_GPUS", cfg.NUM_GPUS),
    ):
        _require_positive(key, value)


def _check_solver(cfg: Config) -> None:
    solver = cfg.SOLVER
    policies = ("step", "steps_with_decay", "steps_with_lrs", "cosine_decay", "exp_decay")
    _require(
        solver.LR_POLICY in policies, f"SOLVER.LR_POLICY is {solver.LR_POLICY!r}: set it to {' or '.join(policies)}"
    )
    _require(
        solver.WARM_UP_METHOD in ("linear", "constant"),
        f"SOLVER.WARM_UP_METHOD is {solver.WARM_UP_METHOD!r}: set it to linear or constant",
    )
    _require_positive("SOLVER.MAX_ITER", solver.MAX_ITER)
    if solver.LR_POLICY == "step":
        _require_positive("SOLVER.STEP_SIZE", solver.STEP_SIZE)
    if solver.LR_POLICY in ("steps_with_decay", "steps_with_lrs"):
        steps = solver.STEPS
        _require(
            len(steps) > 0 and steps[0] == 0 and all(a < b for a, b in zip(steps, steps[1:])),
            f"SOLVER.STEPS is {list(steps)}: {solver.LR_POLICY} needs growing iterations, the first of them 0",
        )
    if solver.LR_POLICY == "steps_with_lrs":
        _require(
            len(solver.LRS) == len(solver.STEPS),
            f"SOLVER.LRS has {len(solver.LRS)} rates for the {len(solver.STEPS)} iterations of SOLVER.STEPS: "
            "give one rate for each",
        )


def _require_positive(key: str, value: float) -> None:
    _require(value > 0, f"{key} is {value}: set it to a number above 0")
