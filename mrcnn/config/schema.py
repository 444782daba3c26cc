"""Every key of a Detectron configuration with its type and default; answers to Detectron core/config.py.

Sections and keys have Detectron's names, so that a YAML key and the code that reads it can be found from each other.
Overlaps are intersection over union; sizes and areas are in pixels; a side is an image's side after scaling.
"""

import math
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Train:
    """Training: data, sampling of RoIs and anchors, checkpoints."""

    WEIGHTS: str = ""  # file or URL to start from; empty: from scratch
    DATASETS: tuple[str, ...] = ()
    SCALES: tuple[int, ...] = (600,)  # lengths of the shorter side, one drawn for each image
    MAX_SIZE: int = 1000  # bound on the longer side
    IMS_PER_BATCH: int = 2  # for each GPU
    BATCH_SIZE_PER_IM: int = 64  # RoIs sampled for each image
    FG_FRACTION: float = 0.25  # share of foreground RoIs aimed at
    FG_THRESH: float = 0.5  # foreground from this overlap on
    BG_THRESH_HI: float = 0.5  # background below this overlap ...
    BG_THRESH_LO: float = 0.0  # ... and from this one on
    USE_FLIPPED: bool = True  # every image a second time, mirrored
    BBOX_THRESH: float = 0.5  # overlap from which an RoI has box targets
    SNAPSHOT_ITERS: int = 80000  # iterations times GPUs between checkpoints
    PROPOSAL_FILES: tuple[str, ...] = ()  # one for each of DATASETS
    ASPECT_GROUPING: bool = True  # upright and wide images in separate batches
    GENERATE_PROPOSALS_ON_GPU: bool = False
    RPN_POSITIVE_OVERLAP: float = 0.7  # an anchor is an object from this overlap on
    RPN_NEGATIVE_OVERLAP: float = 0.3  # and background below this one
    RPN_FG_FRACTION: float = 0.5  # share of positive anchors aimed at
    RPN_BATCH_SIZE_PER_IM: int = 256  # anchors sampled for each image
    RPN_NMS_THRESH: float = 0.7
    RPN_PRE_NMS_TOP_N: int = 12000  # proposals that enter NMS, on each pyramid level
    RPN_POST_NMS_TOP_N: int = 2000  # proposals that leave it; with a pyramid, of the whole batch
    RPN_STRADDLE_THRESH: int = 0  # how far an anchor may leave the image; negative: any distance
    RPN_MIN_SIZE: int = 0  # least side of a proposal, in the unscaled image
    CROWD_FILTER_THRESH: float = 0.7  # proposals covered by a crowd to this share are dropped
    GT_MIN_AREA: int = -1  # smaller objects are ignored
    FREEZE_CONV_BODY: bool = False
    AUTO_RESUME: bool = True  # go on from the latest checkpoint in the output folder
    COPY_WEIGHTS: bool = False  # take WEIGHTS for a checkpoint to resume from
    FREEZE_AT: int = 2  # last frozen stage of the body (2 to 5); 0: nothing is frozen


@dataclass(frozen=True)
class DataLoader:
    """Threads and queues that feed Caffe2."""

    NUM_THREADS: int = 4
    MINIBATCH_QUEUE_SIZE: int = 64
    BLOBS_QUEUE_CAPACITY: int = 8


@dataclass(frozen=True)
class BboxAug:
    """Test-time augmentation of the boxes."""

    ENABLED: bool = False
    SCORE_HEUR: str = "UNION"  # how scores are combined: ID, AVG or UNION
    COORD_HEUR: str = "UNION"  # how coordinates are combined: ID, AVG or UNION
    H_FLIP: bool = False
    SCALES: tuple[int, ...] = ()
    MAX_SIZE: int = 4000
    SCALE_H_FLIP: bool = False
    SCALE_SIZE_DEP: bool = False  # keep small objects of large scales and the reverse
    AREA_TH_LO: int = 2500
    AREA_TH_HI: int = 32400
    ASPECT_RATIOS: tuple[float, ...] = ()
    ASPECT_RATIO_H_FLIP: bool = False


@dataclass(frozen=True)
class MaskAug:
    """Test-time augmentation of the masks."""

    ENABLED: bool = False
    HEUR: str = "SOFT_AVG"  # SOFT_AVG, SOFT_MAX or LOGIT_AVG
    H_FLIP: bool = False
    SCALES: tuple[int, ...] = ()
    MAX_SIZE: int = 4000
    SCALE_H_FLIP: bool = False
    SCALE_SIZE_DEP: bool = False
    AREA_TH: int = 32400
    ASPECT_RATIOS: tuple[float, ...] = ()
    ASPECT_RATIO_H_FLIP: bool = False


@dataclass(frozen=True)
class KpsAug:
    """Test-time augmentation of keypoints."""

    ENABLED: bool = False
    HEUR: str = "HM_AVG"
    H_FLIP: bool = False
    SCALES: tuple[int, ...] = ()
    MAX_SIZE: int = 4000
    SCALE_H_FLIP: bool = False
    SCALE_SIZE_DEP: bool = False
    AREA_TH: int = 32400
    ASPECT_RATIOS: tuple[float, ...] = ()
    ASPECT_RATIO_H_FLIP: bool = False


@dataclass(frozen=True)
class SoftNms:
    """Soft-NMS in place of NMS; its overlap threshold is TEST.NMS."""

    ENABLED: bool = False
    METHOD: str = "linear"  # linear, gaussian or hard
    SIGMA: float = 0.5  # of the gaussian method


@dataclass(frozen=True)
class BboxVote:
    """Box voting after NMS."""

    ENABLED: bool = False
    VOTE_TH: float = 0.8  # boxes vote from this overlap on
    SCORING_METHOD: str = "ID"  # ID, TEMP_AVG, AVG, IOU_AVG, GENERALIZED_AVG or QUASI_SUM
    SCORING_METHOD_BETA: float = 1.0


@dataclass(frozen=True)
class Test:
    """Inference: scale, proposals, selection of detections."""

    WEIGHTS: str = ""
    DATASETS: tuple[str, ...] = ()
    SCALE: int = 600  # length of the shorter side
    MAX_SIZE: int = 1000  # bound on the longer side
    NMS: float = 0.3  # a box is dropped from this overlap on
    BBOX_REG: bool = True  # apply the box deltas; otherwise a detection is its proposal
    PROPOSAL_FILES: tuple[str, ...] = ()  # one for each of DATASETS
    GENERATE_PROPOSALS_ON_GPU: bool = False
    PROPOSAL_LIMIT: int = 2000  # proposals taken from a file for each image
    RPN_NMS_THRESH: float = 0.7
    RPN_PRE_NMS_TOP_N: int = 12000  # proposals that enter NMS, on each pyramid level
    RPN_POST_NMS_TOP_N: int = 2000  # proposals that leave it, on each level and in all
    RPN_MIN_SIZE: int = 0  # least side of a proposal, in the unscaled image
    DETECTIONS_PER_IM: int = 100  # over all classes; 0: no limit
    SCORE_THRESH: float = 0.05  # detections need more than this
    COMPETITION_MODE: bool = True  # keep the result files
    FORCE_JSON_DATASET_EVAL: bool = False
    PRECOMPUTED_PROPOSALS: bool = True  # inferred: neither RPN nor RetinaNet makes them
    CLASS_SPECIFIC_AR: bool = False
    BBOX_AUG: BboxAug = BboxAug()
    MASK_AUG: MaskAug = MaskAug()
    KPS_AUG: KpsAug = KpsAug()
    SOFT_NMS: SoftNms = SoftNms()
    BBOX_VOTE: BboxVote = BboxVote()


@dataclass(frozen=True)
class Model:
    """What kind of network."""

    TYPE: str = ""
    CONV_BODY: str = ""  # function that builds the body, see `backbone_depth`
    NUM_CLASSES: int = -1  # background included: 81 for COCO
    CLS_AGNOSTIC_BBOX_REG: bool = False
    BBOX_REG_WEIGHTS: tuple[float, float, float, float] = (10.0, 10.0, 5.0, 5.0)  # factors of dx, dy, dw, dh
    FASTER_RCNN: bool = False  # proposals come from the model's own RPN
    MASK_ON: bool = False
    KEYPOINTS_ON: bool = False
    RPN_ONLY: bool = False
    EXECUTION_TYPE: str = "dag"  # of the Caffe2 net


@dataclass(frozen=True)
class Retinanet:
    """RetinaNet, which takes the place of the two stages."""

    RETINANET_ON: bool = False
    ASPECT_RATIOS: tuple[float, ...] = (0.5, 1.0, 2.0)
    SCALES_PER_OCTAVE: int = 3
    ANCHOR_SCALE: int = 4
    NUM_CONVS: int = 4
    BBOX_REG_WEIGHT: float = 1.0
    BBOX_REG_BETA: float = 0.11
    PRE_NMS_TOP_N: int = 1000
    POSITIVE_OVERLAP: float = 0.5
    NEGATIVE_OVERLAP: float = 0.4
    LOSS_ALPHA: float = 0.25
    LOSS_GAMMA: float = 2.0
    PRIOR_PROB: float = 0.01
    SHARE_CLS_BBOX_TOWER: bool = False
    CLASS_SPECIFIC_BBOX: bool = False
    SOFTMAX: bool = False
    INFERENCE_TH: float = 0.05


@dataclass(frozen=True)
class Solver:
    """SGD and its schedule; iterations count minibatches over all GPUs."""

    BASE_LR: float = 0.001
    LR_POLICY: str = "step"  # step, steps_with_decay, steps_with_lrs, cosine_decay or exp_decay
    GAMMA: float = 0.1  # factor of a step; of the whole run for exp_decay
    STEP_SIZE: int = 30000  # iterations of a step, policy step
    STEPS: tuple[int, ...] = ()  # iterations at which steps begin, the first 0, policies steps_with_*
    LRS: tuple[float, ...] = ()  # the rate from each of STEPS on, policy steps_with_lrs
    MAX_ITER: int = 40000
    MOMENTUM: float = 0.9
    WEIGHT_DECAY: float = 0.0005
    WEIGHT_DECAY_GN: float = 0.0  # of GroupNorm scales
    WARM_UP_ITERS: int = 500
    WARM_UP_FACTOR: float = 1.0 / 3.0  # what the rate is multiplied by at iteration 0
    WARM_UP_METHOD: str = "linear"  # linear or constant
    SCALE_MOMENTUM: bool = True  # rescale the momentum when the rate changes ...
    SCALE_MOMENTUM_THRESHOLD: float = 1.1  # ... by more than this ratio
    LOG_LR_CHANGE_THRESHOLD: float = 1.1


@dataclass(frozen=True)
class FastRcnn:
    """The box head."""

    ROI_BOX_HEAD: str = ""  # function that builds it, see `box_head_kind`
    MLP_HEAD_DIM: int = 1024  # width of fc6 and fc7
    CONV_HEAD_DIM: int = 256
    NUM_STACKED_CONVS: int = 4
    ROI_XFORM_METHOD: str = "RoIPoolF"
    ROI_XFORM_SAMPLING_RATIO: int = 0  # samples a bin and axis; 0: as many as the RoI's size asks for
    ROI_XFORM_RESOLUTION: int = 14  # bins an axis


@dataclass(frozen=True)
class Rpn:
    """Anchors of an RPN without a pyramid."""

    RPN_ON: bool = False  # inferred: the model has an RPN
    SIZES: tuple[int, ...] = (64, 128, 256, 512)
    STRIDE: int = 16
    ASPECT_RATIOS: tuple[float, ...] = (0.5, 1, 2)


@dataclass(frozen=True)
class Fpn:
    """The feature pyramid; level l has stride 2^l."""

    FPN_ON: bool = False
    DIM: int = 256  # channels of every level
    ZERO_INIT_LATERAL: bool = False
    COARSEST_STRIDE: int = 32  # images are padded to a multiple of this
    MULTILEVEL_ROIS: bool = False  # RoIs are spread over levels
    ROI_CANONICAL_SCALE: int = 224  # an RoI of this side ...
    ROI_CANONICAL_LEVEL: int = 4  # ... takes its features from this level
    ROI_MAX_LEVEL: int = 5
    ROI_MIN_LEVEL: int = 2
    MULTILEVEL_RPN: bool = False  # the RPN runs on every level
    RPN_MAX_LEVEL: int = 6
    RPN_MIN_LEVEL: int = 2
    RPN_ASPECT_RATIOS: tuple[float, ...] = (0.5, 1, 2)  # height / width of an anchor
    RPN_ANCHOR_START_SIZE: int = 32  # side of the finest level's anchors; doubles with each level
    EXTRA_CONV_LEVELS: bool = False
    USE_GN: bool = False


@dataclass(frozen=True)
class Mrcnn:
    """The mask head."""

    ROI_MASK_HEAD: str = ""  # function that builds it, see `mask_head_kind`
    RESOLUTION: int = 14  # side of a predicted mask
    ROI_XFORM_METHOD: str = "RoIAlign"
    ROI_XFORM_RESOLUTION: int = 7
    ROI_XFORM_SAMPLING_RATIO: int = 0
    DIM_REDUCED: int = 256  # channels of the head
    DILATION: int = 2
    UPSAMPLE_RATIO: int = 1
    USE_FC_OUTPUT: bool = False
    CONV_INIT: str = "GaussianFill"  # Caffe2 filler of the head's weights
    CLS_SPECIFIC_MASK: bool = True
    WEIGHT_LOSS_MASK: float = 1.0
    THRESH_BINARIZE: float = 0.5  # a pixel belongs to the object above this probability


@dataclass(frozen=True)
class Krcnn:
    """The keypoint head."""

    ROI_KEYPOINTS_HEAD: str = ""
    HEATMAP_SIZE: int = -1
    UP_SCALE: int = -1
    USE_DECONV: bool = False
    DECONV_DIM: int = 256
    USE_DECONV_OUTPUT: bool = False
    DILATION: int = 1
    DECONV_KERNEL: int = 4
    NUM_KEYPOINTS: int = -1
    NUM_STACKED_CONVS: int = 8
    CONV_HEAD_DIM: int = 256
    CONV_HEAD_KERNEL: int = 3
    CONV_INIT: str = "GaussianFill"
    NMS_OKS: bool = False
    KEYPOINT_CONFIDENCE: str = "bbox"
    ROI_XFORM_METHOD: str = "RoIAlign"
    ROI_XFORM_RESOLUTION: int = 7
    ROI_XFORM_SAMPLING_RATIO: int = 0
    MIN_KEYPOINT_COUNT_FOR_VALID_MINIBATCH: int = 20
    INFERENCE_MIN_SIZE: int = 0
    LOSS_WEIGHT: float = 1.0
    NORMALIZE_BY_VISIBLE_KEYPOINTS: bool = True


@dataclass(frozen=True)
class Rfcn:
    """R-FCN."""

    PS_GRID_SIZE: int = 3


@dataclass(frozen=True)
class Resnets:
    """The ResNet body."""

    NUM_GROUPS: int = 1  # of the 3x3 convolutions; more than 1 makes a ResNeXt
    WIDTH_PER_GROUP: int = 64  # of res2's 3x3 convolutions
    STRIDE_1X1: bool = True  # a stage's stride stands on its first 1x1 convolution, as in MSRA's weights
    TRANS_FUNC: str = "bottleneck_transformation"
    STEM_FUNC: str = "basic_bn_stem"
    SHORTCUT_FUNC: str = "basic_bn_shortcut"
    RES5_DILATION: int = 1


@dataclass(frozen=True)
class GroupNorm:
    """GroupNorm: the channels of a group, or the number of groups; the other one is -1."""

    DIM_PER_GP: int = -1
    NUM_GROUPS: int = 32
    EPSILON: float = 1e-5


@dataclass(frozen=True)
class Cluster:
    """Facebook's cluster."""

    ON_CLUSTER: bool = False


@dataclass(frozen=True)
class Config:
    """A whole configuration: `cfg.TEST.NMS` is Detectron's `TEST.NMS`. `Config()` holds Detectron's defaults.

    `dataclasses.replace` changes a copy. Nothing here is checked: the reader checks types, `check_config` the rest.
    """

    TRAIN: Train = Train()
    DATA_LOADER: DataLoader = DataLoader()
    TEST: Test = Test()
    MODEL: Model = Model()
    RETINANET: Retinanet = Retinanet()
    SOLVER: Solver = Solver()
    FAST_RCNN: FastRcnn = FastRcnn()
    RPN: Rpn = Rpn()
    FPN: Fpn = Fpn()
    MRCNN: Mrcnn = Mrcnn()
    KRCNN: Krcnn = Krcnn()
    RFCN: Rfcn = Rfcn()
    RESNETS: Resnets = Resnets()
    GROUP_NORM: GroupNorm = GroupNorm()
    NUM_GPUS: int = 1  # the GPUs that losses and schedules are meant for
    USE_NCCL: bool = False
    DEDUP_BOXES: float = 0.0625  # scale at which proposals from files count as equal
    BBOX_XFORM_CLIP: float = math.log(1000.0 / 16.0)  # bound on predicted dw and dh
    PIXEL_MEANS: tuple[float, float, float] = (102.9801, 115.9465, 122.7717)  # blue, green, red
    RNG_SEED: int = 3
    EPS: float = 1e-14
    ROOT_DIR: str = "."  # Detectron: the folder it was started in
    OUTPUT_DIR: str = "/tmp"
    MATLAB: str = "matlab"
    MEMONGER: bool = True
    MEMONGER_SHARE_ACTIVATIONS: bool = False
    VIS: bool = False
    VIS_TH: float = 0.9
    EXPECTED_RESULTS: tuple[Any, ...] = ()  # rows of (data set, task, metric, value)
    EXPECTED_RESULTS_RTOL: float = 0.1
    EXPECTED_RESULTS_ATOL: float = 0.005
    EXPECTED_RESULTS_SIGMA_TOL: int = 4
    EXPECTED_RESULTS_EMAIL: str = ""
    DOWNLOAD_CACHE: str = "/tmp/detectron-download-cache"
    CLUSTER: Cluster = Cluster()
