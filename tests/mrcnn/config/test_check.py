"""What must hold between keys: each rule broken by itself in a configuration that is right otherwise."""

import pytest

from detectron_gn.mrcnn.config import Config, check_config, refuse_training, with_values
from detectron_gn.mrcnn.errors import InputError

BN = with_values(
    Config(),
    {
        "MODEL.TYPE": "generalized_rcnn",
        "MODEL.CONV_BODY": "FPN.add_fpn_ResNet50_conv5_body",
        "MODEL.NUM_CLASSES": 81,
        "MODEL.FASTER_RCNN": True,
        "MODEL.MASK_ON": True,
        "FPN.FPN_ON": True,
        "FPN.MULTILEVEL_ROIS": True,
        "FPN.MULTILEVEL_RPN": True,
        "FAST_RCNN.ROI_BOX_HEAD": "fast_rcnn_heads.add_roi_2mlp_head",
        "FAST_RCNN.ROI_XFORM_METHOD": "RoIAlign",
        "MRCNN.ROI_MASK_HEAD": "mask_rcnn_heads.mask_rcnn_fcn_head_v1up4convs",
    },
)
GN = with_values(
    BN,
    {
        "RESNETS.STEM_FUNC": "basic_gn_stem",
        "RESNETS.TRANS_FUNC": "bottleneck_gn_transformation",
        "RESNETS.SHORTCUT_FUNC": "basic_gn_shortcut",
        "FPN.USE_GN": True,
        "FAST_RCNN.ROI_BOX_HEAD": "fast_rcnn_heads.add_roi_Xconv1fc_gn_head",
        "MRCNN.ROI_MASK_HEAD": "mask_rcnn_heads.mask_rcnn_fcn_head_v1up4convs_gn",
        "MRCNN.DILATION": 1,
    },
)
STEPS = {"SOLVER.LR_POLICY": "steps_with_decay", "SOLVER.STEPS": (0, 60, 80)}
LRS = {**STEPS, "SOLVER.LR_POLICY": "steps_with_lrs", "SOLVER.LRS": (0.02, 0.002, 0.0002)}

KEYPOINTS = {
    "MODEL.KEYPOINTS_ON": True,
    "KRCNN.ROI_KEYPOINTS_HEAD": "keypoint_rcnn_heads.add_roi_pose_head_v1convX",
    "KRCNN.NUM_KEYPOINTS": 17,
    "KRCNN.USE_DECONV_OUTPUT": True,
    "KRCNN.UP_SCALE": 2,
    "KRCNN.ROI_XFORM_RESOLUTION": 14,
    "KRCNN.HEATMAP_SIZE": 56,
}

ACCEPTED = [
    {},
    KEYPOINTS,
    {**KEYPOINTS, "KRCNN.NUM_KEYPOINTS": 5},
    {"MODEL.FASTER_RCNN": False, "FPN.MULTILEVEL_RPN": False},
    {"FAST_RCNN.ROI_XFORM_METHOD": "RoIPoolF"},
    {"MODEL.TYPE": "mask_rcnn"},
    {"GROUP_NORM.NUM_GROUPS": -1, "GROUP_NORM.DIM_PER_GP": 8},
    {"FPN.ROI_MIN_LEVEL": 3, "FPN.ROI_MAX_LEVEL": 3},
    {"FPN.COARSEST_STRIDE": 64},
    {"FAST_RCNN.ROI_XFORM_SAMPLING_RATIO": 0},
    {"TEST.DETECTIONS_PER_IM": 0},
    {"TRAIN.FREEZE_AT": 5},
    {"TRAIN.RPN_STRADDLE_THRESH": -1},
    STEPS,
    LRS,
    {"SOLVER.WARM_UP_ITERS": 0},
]

REFUSED = [
    ({"MODEL.TYPE": ""}, "MODEL.TYPE is not set: set it to generalized_rcnn"),
    ({"MODEL.CONV_BODY": ""}, "MODEL.CONV_BODY is not set: set it to FPN.add_fpn_ResNet50_conv5_body or"),
    ({"MODEL.NUM_CLASSES": -1}, "MODEL.NUM_CLASSES is -1: set it to the number of classes and one more"),
    ({"MODEL.NUM_CLASSES": 1}, "MODEL.NUM_CLASSES is 1"),
    ({"MODEL.BBOX_REG_WEIGHTS": (1.0, 1.0, 0.0, 1.0)}, "MODEL.BBOX_REG_WEIGHTS is [1.0, 1.0, 0.0, 1.0]: give four"),
    ({"RETINANET.RETINANET_ON": True}, "MODEL.TYPE is generalized_rcnn and RETINANET.RETINANET_ON is True: set them"),
    ({"MODEL.TYPE": "retinanet"}, "MODEL.TYPE is retinanet and RETINANET.RETINANET_ON is False: set them to"),
    ({"MODEL.TYPE": "rfcn"}, "MODEL.TYPE is 'rfcn', which is not supported here"),
    ({"FPN.FPN_ON": False}, "FPN.FPN_ON is False, but MODEL.CONV_BODY is FPN.add_fpn_ResNet50_conv5_body: it is a"),
    ({"MODEL.RPN_ONLY": True}, "MODEL.RPN_ONLY and MODEL.MASK_ON are both True: set one of them to False"),
    ({"FAST_RCNN.ROI_BOX_HEAD": "ResNet.add_ResNet_roi_conv5_head"}, "FAST_RCNN.ROI_BOX_HEAD is ResNet.add_ResNet_roi"),
    ({"MODEL.KEYPOINTS_ON": True}, "MODEL.KEYPOINTS_ON is True, but KRCNN.NUM_KEYPOINTS is -1: set it to how many"),
    ({**KEYPOINTS, "KRCNN.ROI_KEYPOINTS_HEAD": ""}, "KRCNN.ROI_KEYPOINTS_HEAD is not set: set it to keypoint_"),
    ({**KEYPOINTS, "KRCNN.NUM_KEYPOINTS": 0}, "MODEL.KEYPOINTS_ON is True, but KRCNN.NUM_KEYPOINTS is 0: set it to"),
    (
        {**KEYPOINTS, "KRCNN.NUM_KEYPOINTS": 5, "KRCNN.NMS_OKS": True},
        "KRCNN.NMS_OKS is True, which takes the keypoints to be the 17 of COCO's person, but KRCNN.NUM_KEYPOINTS is 5",
    ),
    (
        {**KEYPOINTS, "KRCNN.NUM_KEYPOINTS": 5, "TEST.KPS_AUG.ENABLED": True, "TEST.KPS_AUG.H_FLIP": True},
        "TEST.KPS_AUG.H_FLIP is True, which takes the keypoints to be the 17 of COCO's person",
    ),
    ({**KEYPOINTS, "KRCNN.HEATMAP_SIZE": 28}, "KRCNN.HEATMAP_SIZE is 28, but the layers of the keypoint head make it"),
    ({**KEYPOINTS, "KRCNN.UP_SCALE": 3}, "KRCNN.UP_SCALE is 3: set it to an even number"),
    ({**KEYPOINTS, "KRCNN.DECONV_KERNEL": 3}, "KRCNN.DECONV_KERNEL is 3: set it to an even number"),
    ({**KEYPOINTS, "KRCNN.KEYPOINT_CONFIDENCE": "mean"}, "KRCNN.KEYPOINT_CONFIDENCE is 'mean', which is not supported"),
    ({"FPN.MULTILEVEL_ROIS": False}, "FPN.MULTILEVEL_ROIS is False"),
    ({"FPN.MULTILEVEL_RPN": False}, "FPN.MULTILEVEL_RPN is False"),
    ({"FPN.RPN_MAX_LEVEL": 5}, "FPN.RPN_MIN_LEVEL is 2 and FPN.RPN_MAX_LEVEL is 5"),
    ({"FPN.RPN_MIN_LEVEL": 3}, "FPN.RPN_MIN_LEVEL is 3 and FPN.RPN_MAX_LEVEL is 6"),
    ({"FPN.ROI_MAX_LEVEL": 6}, "FPN.ROI_MIN_LEVEL is 2 and FPN.ROI_MAX_LEVEL is 6"),
    ({"FPN.ROI_MIN_LEVEL": 5, "FPN.ROI_MAX_LEVEL": 4}, "FPN.ROI_MIN_LEVEL is 5 and FPN.ROI_MAX_LEVEL is 4"),
    ({"FPN.COARSEST_STRIDE": 16}, "FPN.COARSEST_STRIDE is 16, but images are padded to multiples of 32: set it to 32"),
    ({"FPN.COARSEST_STRIDE": 0}, "FPN.COARSEST_STRIDE is 0"),
    ({"FPN.DIM": 0}, "FPN.DIM is 0: set it to a number above 0"),
    ({"FPN.ROI_CANONICAL_SCALE": 0}, "FPN.ROI_CANONICAL_SCALE is 0"),
    ({"FPN.RPN_ANCHOR_START_SIZE": -32}, "FPN.RPN_ANCHOR_START_SIZE is -32"),
    ({"FPN.RPN_ASPECT_RATIOS": ()}, "FPN.RPN_ASPECT_RATIOS is []"),
    ({"FPN.RPN_ASPECT_RATIOS": (0.5, 0)}, "FPN.RPN_ASPECT_RATIOS is [0.5, 0]"),
    ({"RESNETS.STEM_FUNC": "basic_bn_stem"}, "RESNETS.STEM_FUNC is basic_bn_stem, RESNETS.TRANS_FUNC is"),
    ({"RESNETS.NUM_GROUPS": 0}, "RESNETS.NUM_GROUPS is 0"),
    ({"RESNETS.WIDTH_PER_GROUP": 0}, "RESNETS.WIDTH_PER_GROUP is 0"),
    ({"TRAIN.FREEZE_AT": 1}, "TRAIN.FREEZE_AT is 1: set it to the last frozen stage, 2 to 5, or to 0"),
    ({"TRAIN.FREEZE_AT": 6}, "TRAIN.FREEZE_AT is 6"),
    ({"GROUP_NORM.DIM_PER_GP": 8}, "GROUP_NORM.DIM_PER_GP is 8 and GROUP_NORM.NUM_GROUPS is 32: give one of them"),
    ({"GROUP_NORM.NUM_GROUPS": -1}, "GROUP_NORM.DIM_PER_GP is -1 and GROUP_NORM.NUM_GROUPS is -1: give one of them"),
    ({"GROUP_NORM.EPSILON": 0.0}, "GROUP_NORM.EPSILON is 0.0"),
    ({"FAST_RCNN.ROI_XFORM_METHOD": "RoIWarp"}, "FAST_RCNN.ROI_XFORM_METHOD is 'RoIWarp', which is not supported"),
    ({"FAST_RCNN.ROI_XFORM_RESOLUTION": 0}, "FAST_RCNN.ROI_XFORM_RESOLUTION is 0"),
    ({"MRCNN.ROI_XFORM_SAMPLING_RATIO": -1}, "MRCNN.ROI_XFORM_SAMPLING_RATIO is -1"),
    ({"FAST_RCNN.NUM_STACKED_CONVS": 0}, "FAST_RCNN.NUM_STACKED_CONVS is 0"),
    ({"MRCNN.DILATION": 2}, "MRCNN.DILATION is 2, but the GroupNorm mask head cannot be dilated: set it to 1"),
    ({"MRCNN.RESOLUTION": 28}, "MRCNN.RESOLUTION is 28, but the mask head doubles MRCNN.ROI_XFORM_RESOLUTION"),
    ({"TRAIN.SCALES": ()}, "TRAIN.SCALES is []: give lengths of the shorter side, such as [800]"),
    ({"TRAIN.SCALES": (800, 0)}, "TRAIN.SCALES is [800, 0]"),
    ({"TRAIN.IMS_PER_BATCH": 0}, "TRAIN.IMS_PER_BATCH is 0"),
    ({"TRAIN.BATCH_SIZE_PER_IM": 0}, "TRAIN.BATCH_SIZE_PER_IM is 0"),
    ({"TRAIN.FG_FRACTION": 1.5}, "TRAIN.FG_FRACTION is 1.5: set it to a share between 0 and 1"),
    ({"TRAIN.RPN_FG_FRACTION": -0.5}, "TRAIN.RPN_FG_FRACTION is -0.5"),
    ({"NUM_GPUS": 0}, "NUM_GPUS is 0"),
    ({"TEST.SCALE": 0}, "TEST.SCALE is 0"),
    ({"TEST.SOFT_NMS.ENABLED": True, "TEST.SOFT_NMS.SIGMA": 0.0}, "TEST.SOFT_NMS.SIGMA is 0.0"),
    ({"SOLVER.MAX_ITER": 0}, "SOLVER.MAX_ITER is 0"),
    ({"SOLVER.STEP_SIZE": 0}, "SOLVER.STEP_SIZE is 0"),
    ({"SOLVER.LR_POLICY": "exp_decay", "SOLVER.GAMMA": 0.0}, "SOLVER.GAMMA is 0.0"),
    ({"SOLVER.LR_POLICY": "poly"}, "SOLVER.LR_POLICY is 'poly', which is not supported here"),
    ({**STEPS, "SOLVER.STEPS": ()}, "SOLVER.STEPS is []: steps_with_decay needs growing iterations, the first"),
    ({**STEPS, "SOLVER.STEPS": (10, 20)}, "SOLVER.STEPS is [10, 20]"),
    ({**STEPS, "SOLVER.STEPS": (0, 80, 60)}, "SOLVER.STEPS is [0, 80, 60]"),
    ({"SOLVER.BASE_LR": -0.1}, "SOLVER.BASE_LR is -0.1: set it to a number above 0"),
    ({"SOLVER.BASE_LR": 0.0}, "SOLVER.BASE_LR is 0.0"),
    ({"SOLVER.MOMENTUM": -0.9}, "SOLVER.MOMENTUM is -0.9: set it to a number from 0 up"),
    ({"SOLVER.MOMENTUM": 1.5}, "SOLVER.MOMENTUM is 1.5, so steps grow without end"),
    ({"SOLVER.GAMMA": -0.5}, "SOLVER.GAMMA is -0.5: set it to a number from 0 up"),
    ({"SOLVER.WARM_UP_FACTOR": -1.0}, "SOLVER.WARM_UP_FACTOR is -1.0: set it to a number from 0 up"),
    ({"SOLVER.WEIGHT_DECAY_GN": -1.0}, "SOLVER.WEIGHT_DECAY_GN is -1.0: set it to a number from 0 up"),
    ({"MRCNN.WEIGHT_LOSS_MASK": -1.0}, "MRCNN.WEIGHT_LOSS_MASK is -1.0: set it to a number from 0 up"),
    ({"SOLVER.WEIGHT_DECAY": -1e-4}, "SOLVER.WEIGHT_DECAY is -0.0001"),
    ({"TRAIN.MAX_SIZE": 1, "TRAIN.SCALES": (64, 80)}, "TRAIN.MAX_SIZE is 1, the most that a longer side may be"),
    ({"RNG_SEED": -1}, "RNG_SEED is -1: set it to a whole number from 0 to 4294967295"),
    ({"RNG_SEED": 2**32}, "RNG_SEED is 4294967296"),
    ({**LRS, "SOLVER.LRS": (0.02, -0.1, 0.1)}, "SOLVER.LRS is [0.02, -0.1, 0.1]: give rates above 0"),
    ({**LRS, "SOLVER.LRS": (0.02,)}, "SOLVER.LRS has 1 rates for the 3 iterations of SOLVER.STEPS: give one rate for"),
]


RETINANET = with_values(
    Config(),
    {
        "MODEL.TYPE": "retinanet",
        "MODEL.CONV_BODY": "FPN.add_fpn_ResNet50_conv5_body",
        "MODEL.NUM_CLASSES": 81,
        "FPN.FPN_ON": True,
        "FPN.MULTILEVEL_RPN": True,
        "FPN.RPN_MIN_LEVEL": 3,
        "FPN.RPN_MAX_LEVEL": 7,
        "FPN.EXTRA_CONV_LEVELS": True,
        "RETINANET.RETINANET_ON": True,
    },
)

OF_RETINANET_ACCEPTED = [
    {},
    {"FPN.RPN_MIN_LEVEL": 2, "FPN.RPN_MAX_LEVEL": 5},
    {"FPN.EXTRA_CONV_LEVELS": False, "FPN.RPN_MAX_LEVEL": 6},
    {"RETINANET.SOFTMAX": True, "RETINANET.SHARE_CLS_BBOX_TOWER": True, "RETINANET.CLASS_SPECIFIC_BBOX": True},
    {"RETINANET.PRE_NMS_TOP_N": 0},
    {"TEST.SOFT_NMS.ENABLED": True},
    {"FPN.USE_GN": True},
]

OF_RETINANET_REFUSED = [
    ({"FPN.MULTILEVEL_RPN": False}, "FPN.MULTILEVEL_RPN is False"),
    ({"FPN.MULTILEVEL_ROIS": True}, "FPN.MULTILEVEL_ROIS is True, but a RetinaNet has no RoIs: set it to False"),
    ({"MODEL.MASK_ON": True}, "MODEL.MASK_ON is True, but a RetinaNet has no RoIs"),
    ({"FPN.RPN_MIN_LEVEL": 6}, "FPN.RPN_MIN_LEVEL is 6 and FPN.RPN_MAX_LEVEL is 7, but the levels of RetinaNet begin"),
    ({"FPN.RPN_MAX_LEVEL": 8}, "FPN.RPN_MIN_LEVEL is 3 and FPN.RPN_MAX_LEVEL is 8"),
    ({"FPN.EXTRA_CONV_LEVELS": False}, "FPN.RPN_MIN_LEVEL is 3 and FPN.RPN_MAX_LEVEL is 7, but the levels of"),
    ({"FPN.COARSEST_STRIDE": 48}, "FPN.COARSEST_STRIDE is 48"),
    ({"RETINANET.NUM_CONVS": 0}, "RETINANET.NUM_CONVS is 0: set it to a number above 0"),
    ({"RETINANET.SCALES_PER_OCTAVE": 0}, "RETINANET.SCALES_PER_OCTAVE is 0"),
    ({"RETINANET.ANCHOR_SCALE": 0}, "RETINANET.ANCHOR_SCALE is 0"),
    ({"RETINANET.ASPECT_RATIOS": (1.0, 0.0)}, "RETINANET.ASPECT_RATIOS is [1.0, 0.0]: give ratios above 0"),
    ({"RETINANET.PRE_NMS_TOP_N": -1}, "RETINANET.PRE_NMS_TOP_N is -1: set it to 1000, or to 0 for all"),
    ({"RETINANET.PRIOR_PROB": 1.0}, "RETINANET.PRIOR_PROB is 1.0"),
    ({"RETINANET.POSITIVE_OVERLAP": 1.5}, "RETINANET.POSITIVE_OVERLAP is 1.5: set it to a share from 0 to 1"),
    ({"RETINANET.NEGATIVE_OVERLAP": -0.1}, "RETINANET.NEGATIVE_OVERLAP is -0.1: set it to a share from 0 to 1"),
    ({"RETINANET.LOSS_ALPHA": 2.0}, "RETINANET.LOSS_ALPHA is 2.0: set it to a share from 0 to 1"),
    ({"RETINANET.LOSS_GAMMA": -1.0}, "RETINANET.LOSS_GAMMA is -1.0: set it to a number from 0 up"),
    ({"RETINANET.BBOX_REG_BETA": -1.0}, "RETINANET.BBOX_REG_BETA is -1.0: set it to a number from 0 up"),
    ({"RETINANET.BBOX_REG_WEIGHT": -1.0}, "RETINANET.BBOX_REG_WEIGHT is -1.0: set it to a number from 0 up"),
]


@pytest.mark.parametrize("changes", OF_RETINANET_ACCEPTED, ids=str)
def test_a_retinanet_that_can_be_built_is_accepted(changes):
    check_config(with_values(RETINANET, changes))


@pytest.mark.parametrize(("changes", "sentence"), OF_RETINANET_REFUSED, ids=lambda value: "")
def test_a_retinanet_that_cannot_be_built_is_refused_by_key_and_value(changes, sentence):
    with pytest.raises(InputError) as error:
        check_config(with_values(RETINANET, changes))
    assert str(error.value).startswith(sentence)


C4 = with_values(
    Config(),
    {
        "MODEL.TYPE": "generalized_rcnn",
        "MODEL.CONV_BODY": "ResNet.add_ResNet50_conv4_body",
        "MODEL.NUM_CLASSES": 81,
        "MODEL.FASTER_RCNN": True,
        "MODEL.MASK_ON": True,
        "FAST_RCNN.ROI_BOX_HEAD": "ResNet.add_ResNet_roi_conv5_head",
        "FAST_RCNN.ROI_XFORM_METHOD": "RoIAlign",
        "MRCNN.ROI_MASK_HEAD": "mask_rcnn_heads.mask_rcnn_fcn_head_v0upshare",
        "MRCNN.ROI_XFORM_RESOLUTION": 14,
        "MRCNN.DILATION": 1,
    },
)

RPN_C4 = with_values(
    Config(),
    {
        "MODEL.TYPE": "rpn",
        "MODEL.CONV_BODY": "ResNet.add_ResNet50_conv4_body",
        "MODEL.NUM_CLASSES": 81,
        "MODEL.RPN_ONLY": True,
    },
)

OF_ANCHORS_REFUSED = [
    (RETINANET, "FPN.COARSEST_STRIDE is 32, but FPN.RPN_MAX_LEVEL is 7, whose stride is 128: set it to 128 to train"),
    (with_values(RPN_C4, {"RPN.STRIDE": 8}), "RPN.STRIDE is 8, but ResNet.add_ResNet50_conv4_body ends at stride 16"),
]


@pytest.mark.parametrize(
    "cfg",
    [
        GN,
        with_values(RETINANET, {"FPN.COARSEST_STRIDE": 128}),
        with_values(GN, {"MODEL.RPN_ONLY": True, "MODEL.MASK_ON": False}),
        RPN_C4,
        with_values(GN, {"MODEL.FASTER_RCNN": False}),
        with_values(GN, KEYPOINTS),
        C4,
    ],
    ids=["Mask R-CNN", "RetinaNet", "RPN", "RPN C4", "on proposals", "keypoints", "C4"],
)
def test_these_families_are_trained(cfg):
    check_config(cfg)
    refuse_training(cfg)


@pytest.mark.parametrize(("cfg", "sentence"), OF_ANCHORS_REFUSED, ids=["RetinaNet", "RPN C4"])
def test_anchors_that_would_lie_beside_their_maps_are_refused(cfg, sentence):
    check_config(cfg)
    with pytest.raises(InputError) as error:
        refuse_training(cfg)
    assert str(error.value).startswith(sentence)


@pytest.mark.parametrize("changes", ACCEPTED, ids=str)
def test_what_can_be_built_is_accepted(changes):
    check_config(with_values(GN, changes))


@pytest.mark.parametrize(("changes", "sentence"), REFUSED, ids=lambda value: value if isinstance(value, str) else "")
def test_what_cannot_be_built_is_refused_by_key_and_value(changes, sentence):
    with pytest.raises(InputError) as error:
        check_config(with_values(GN, changes))
    assert str(error.value).startswith(sentence)


def test_detectrons_defaults_are_no_model():
    with pytest.raises(InputError, match=r"^MODEL.TYPE is not set"):
        check_config(Config())


def test_a_model_without_group_norm_may_leave_its_groups_unclear():
    check_config(with_values(BN, {"GROUP_NORM.DIM_PER_GP": 8}))


def test_the_mask_head_without_group_norm_may_be_dilated():
    assert BN.MRCNN.DILATION == 2
    check_config(BN)


def test_a_two_layer_box_head_needs_no_convolutions():
    check_config(with_values(BN, {"FAST_RCNN.NUM_STACKED_CONVS": 0}))


OF_C4_REFUSED = [
    ({"FPN.FPN_ON": True}, "FPN.FPN_ON is True, but MODEL.CONV_BODY is ResNet.add_ResNet50_conv4_body: it has no"),
    ({"FPN.MULTILEVEL_RPN": True}, "FPN.MULTILEVEL_RPN is True, but MODEL.CONV_BODY is ResNet.add_ResNet50_conv4_body"),
    ({"RPN.SIZES": ()}, "RPN.SIZES is []: give numbers above 0"),
    ({"RPN.ASPECT_RATIOS": (1.0, 0.0)}, "RPN.ASPECT_RATIOS is [1.0, 0.0]: give numbers above 0"),
    ({"FAST_RCNN.ROI_XFORM_RESOLUTION": 12}, "FAST_RCNN.ROI_XFORM_RESOLUTION is 12, but res5 of a RoI ends at 7 x 7"),
    ({"MRCNN.DILATION": 2}, "MRCNN.DILATION is 2, but the mask head shares res5 with the box head: set it to 1"),
    ({"MRCNN.ROI_XFORM_RESOLUTION": 7}, "MRCNN.ROI_XFORM_RESOLUTION is 7, but the mask head shares res5"),
    ({"MRCNN.RESOLUTION": 28}, "MRCNN.RESOLUTION is 28, but the mask head doubles the 7 x 7 of res5: set it to 14"),
]


@pytest.mark.parametrize("changes", [{}, {"MODEL.MASK_ON": False, "MODEL.FASTER_RCNN": False}], ids=str)
def test_a_c4_model_that_can_be_built_is_accepted(changes):
    check_config(with_values(C4, changes))


@pytest.mark.parametrize(("changes", "sentence"), OF_C4_REFUSED, ids=lambda value: "")
def test_a_c4_model_that_cannot_be_built_is_refused_by_key_and_value(changes, sentence):
    with pytest.raises(InputError) as error:
        check_config(with_values(C4, changes))
    assert str(error.value).startswith(sentence)


@pytest.mark.parametrize(
    ("cfg", "sentence"),
    [
        (with_values(RPN_C4, {"MODEL.CONV_BODY": "VGG16.add_VGG16_conv5_body"}), "MODEL.CONV_BODY is VGG16.add_VGG16"),
        (with_values(GN, {"MRCNN.ROI_XFORM_METHOD": "RoIPoolF"}), "MRCNN.ROI_XFORM_METHOD is RoIPoolF"),
    ],
)
def test_the_training_of_what_only_detects_is_refused(cfg, sentence):
    with pytest.raises(InputError) as error:
        refuse_training(cfg)
    assert str(error.value).startswith(sentence)
    assert "cannot be trained here: give the configuration of a ResNet with RoIAlign" in str(error.value)
