"""Small runs of the families that are trained without masks: RetinaNet, RPNs by themselves and Faster R-CNN."""

from detectron_gn.port.config.read import bundled_config

_GN = (
    "RESNETS.STEM_FUNC basic_gn_stem RESNETS.SHORTCUT_FUNC basic_gn_shortcut "
    "RESNETS.TRANS_FUNC bottleneck_gn_transformation GROUP_NORM.NUM_GROUPS 4 RESNETS.STRIDE_1X1 False"
)
SMALL = (
    f"{_GN} RESNETS.WIDTH_PER_GROUP 8 FPN.DIM 16 MODEL.NUM_CLASSES 5 TRAIN.FREEZE_AT 0 TRAIN.SCALES (64,80) "
    "TRAIN.MAX_SIZE 128 TEST.SCALE 64 TEST.MAX_SIZE 128 NUM_GPUS 1 TRAIN.RPN_BATCH_SIZE_PER_IM 32 SOLVER.BASE_LR 0.01 "
    "SOLVER.WARM_UP_ITERS 0 SOLVER.STEPS [0,3] SOLVER.MAX_ITER 6 TRAIN.SNAPSHOT_ITERS 2"
)
_FASTER = (
    "MODEL.CLS_AGNOSTIC_BBOX_REG True FAST_RCNN.MLP_HEAD_DIM 16 TRAIN.BATCH_SIZE_PER_IM 16 "
    "TRAIN.RPN_POST_NMS_TOP_N 50 TRAIN.RPN_PRE_NMS_TOP_N 100"
)

# By name, what runs: a bundled configuration and what is set in it.
FAMILIES = {
    "retinanet": ("retinanet_R-50-FPN_1x", SMALL),
    "rpn": ("rpn_R-50-FPN_1x", SMALL),
    "rpn_c4": ("rpn_R-50-C4_1x", f"{SMALL} RPN.SIZES (16,32)"),
    "faster_agnostic": ("e2e_faster_rcnn_R-50-FPN_1x", f"{SMALL} {_FASTER}"),
}


def dense_config(name, *overrides):
    """The configuration of a small run of a family, under further KEY VALUE pairs."""
    base, options = FAMILIES[name]
    return bundled_config(base, [*options.split(), "TRAIN.WEIGHTS", "", *overrides])
