"""Which keys of a Detectron configuration are supported, which have no effect here, and which it refuses.

A key is *supported* unless it stands in one of the tables below. An *inert* key takes any value: it does not change
what comes out. A *limited* key takes the values in its row; and Detectron's default, so that a configuration can be
read in parts, though a model of that value may be one that `check_config` refuses. `SECTION.*` stands for all keys of
a section that have no row of their own.
"""

import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any, Literal, NamedTuple, TypeVar

from detectron_gn.mrcnn.config import functions
from detectron_gn.mrcnn.config.bounds import bound_fault, faults_together
from detectron_gn.mrcnn.config.old_types import OLD_TYPES
from detectron_gn.mrcnn.config.schema import Config

KeyUse = Literal["supported", "inert", "unsupported"]
Row = TypeVar("Row")


class Limit(NamedTuple):
    """The values of a key that are supported (none: Detectron's default alone), and why there are no others.

    Attributes:
        advised: those that a sentence names; all of them where this is empty.
        why: the reason of a value that has its own.
    """

    values: tuple[object, ...]
    reason: str
    advised: tuple[str, ...] = ()
    why: Mapping[object, str] = {}


_RFCN = "R-FCN is not supported: Detectron has its pooling for CUDA only, and no configuration of it"
_ONE_LEVEL = "a pyramid of one level is not supported"
_RES5_BODY = "a body up to res5 without a pyramid is not supported"
_UNREAD = "Detectron reads it nowhere"
_CAFFE2 = "it is about how Caffe2 runs"
_COMMAND_LINE = "the command line says it"

POOLING = ("RoIAlign", "RoIPoolF")
FILLERS = ("GaussianFill", "MSRAFill", "XavierFill")

INERT: dict[str, str] = {
    "TRAIN.DATASETS": _COMMAND_LINE,
    "TRAIN.GENERATE_PROPOSALS_ON_GPU": _CAFFE2,
    "TRAIN.AUTO_RESUME": _COMMAND_LINE,
    "DATA_LOADER.*": _CAFFE2,
    "TEST.WEIGHTS": _COMMAND_LINE,
    "TEST.DATASETS": _COMMAND_LINE,
    "TEST.GENERATE_PROPOSALS_ON_GPU": _CAFFE2,
    "TEST.COMPETITION_MODE": "result files are always kept",
    "TEST.FORCE_JSON_DATASET_EVAL": "COCO's evaluation is the only one",
    "TEST.PRECOMPUTED_PROPOSALS": "it is inferred",
    "TEST.BBOX_AUG.AREA_TH_LO": _UNREAD,
    "TEST.BBOX_AUG.AREA_TH_HI": _UNREAD,
    "TEST.MASK_AUG.AREA_TH": _UNREAD,
    "TEST.BBOX_VOTE.SCORING_METHOD_BETA": _UNREAD,
    "MODEL.EXECUTION_TYPE": _CAFFE2,
    "SOLVER.LOG_LR_CHANGE_THRESHOLD": "it is about log lines",
    "RPN.RPN_ON": "it is inferred",
    "USE_NCCL": _CAFFE2,
    "EPS": _UNREAD,
    "ROOT_DIR": _COMMAND_LINE,
    "OUTPUT_DIR": _COMMAND_LINE,
    "MATLAB": "no Matlab is called",
    "MEMONGER": _CAFFE2,
    "MEMONGER_SHARE_ACTIVATIONS": _CAFFE2,
    "VIS": _COMMAND_LINE,
    "VIS_TH": _COMMAND_LINE,
    "EXPECTED_RESULTS": _COMMAND_LINE,
    "EXPECTED_RESULTS_RTOL": _COMMAND_LINE,
    "EXPECTED_RESULTS_ATOL": _COMMAND_LINE,
    "EXPECTED_RESULTS_SIGMA_TOL": _COMMAND_LINE,
    "EXPECTED_RESULTS_EMAIL": _COMMAND_LINE,
    "DOWNLOAD_CACHE": _COMMAND_LINE,
    "CLUSTER.*": "it is about Facebook's cluster",
}

LIMITED: dict[str, Limit] = {
    "TRAIN.COPY_WEIGHTS": Limit((), "--weights is how a run goes on from a file"),
    "TEST.BBOX_AUG.SCORE_HEUR": Limit(("ID", "AVG", "UNION"), "Detectron has no other way"),
    "TEST.BBOX_AUG.COORD_HEUR": Limit(("ID", "AVG", "UNION"), "Detectron has no other way"),
    "TEST.BBOX_AUG.SCALE_SIZE_DEP": Limit((), "Detectron has it only for keypoints"),
    "TEST.MASK_AUG.SCALE_SIZE_DEP": Limit((), "Detectron has it only for keypoints"),
    "TEST.MASK_AUG.HEUR": Limit(("SOFT_AVG", "SOFT_MAX", "LOGIT_AVG"), "Detectron has no other way"),
    "TEST.KPS_AUG.HEUR": Limit(("HM_AVG", "HM_MAX"), "Detectron has no other way"),
    "TEST.SOFT_NMS.METHOD": Limit(("linear", "gaussian", "hard"), "Detectron has no other method"),
    "TEST.BBOX_VOTE.SCORING_METHOD": Limit(
        ("ID", "TEMP_AVG", "AVG", "IOU_AVG", "GENERALIZED_AVG", "QUASI_SUM"), "Detectron has no other method"
    ),
    "MODEL.TYPE": Limit(
        (*functions.TWO_STAGE_TYPES, *OLD_TYPES, "retinanet"),
        "other types are not supported",
        advised=("generalized_rcnn", "retinanet"),
        why=dict.fromkeys(("rfcn", "ResNet50_rfcn", "ResNet101_rfcn"), _RFCN),
    ),
    "MODEL.CONV_BODY": Limit(
        tuple(functions.CONV_BODIES),
        "other bodies are not supported",
        why={
            **{f"FPN.add_fpn_ResNet{depth}_conv5_P2only_body": _ONE_LEVEL for depth in (50, 101, 152)},
            **{f"ResNet.add_ResNet{depth}_conv5_body": _RES5_BODY for depth in (50, 101, 152)},
        },
    ),
    "FAST_RCNN.ROI_BOX_HEAD": Limit(tuple(functions.ROI_BOX_HEADS), "other heads are not supported"),
    "FAST_RCNN.ROI_XFORM_METHOD": Limit(POOLING, "other ways of pooling are not supported"),
    "MRCNN.ROI_MASK_HEAD": Limit(tuple(functions.ROI_MASK_HEADS), "other heads are not supported"),
    "MRCNN.ROI_XFORM_METHOD": Limit(POOLING, "other ways of pooling are not supported"),
    "MRCNN.CONV_INIT": Limit(FILLERS, "the port has no other of Caffe2's fillers"),
    "SOLVER.LR_POLICY": Limit(
        ("step", "steps_with_decay", "steps_with_lrs", "cosine_decay", "exp_decay"), "Detectron has no other policy"
    ),
    "SOLVER.WARM_UP_METHOD": Limit(("linear", "constant"), "Detectron has no other method"),
    "KRCNN.ROI_KEYPOINTS_HEAD": Limit(tuple(functions.ROI_KEYPOINT_HEADS), "other heads are not supported"),
    "KRCNN.ROI_XFORM_METHOD": Limit(POOLING, "other ways of pooling are not supported"),
    "KRCNN.CONV_INIT": Limit(FILLERS, "the port has no other of Caffe2's fillers"),
    "KRCNN.KEYPOINT_CONFIDENCE": Limit(("bbox", "logit", "prob"), "Detectron has no other confidence"),
    "RFCN.*": Limit((), _RFCN),
    "RESNETS.TRANS_FUNC": Limit(tuple(functions.TRANS_FUNCS), "other blocks are not supported"),
    "RESNETS.STEM_FUNC": Limit(tuple(functions.STEM_FUNCS), "other stems are not supported"),
    "RESNETS.SHORTCUT_FUNC": Limit(tuple(functions.SHORTCUT_FUNCS), "other shortcuts are not supported"),
    "RESNETS.RES5_DILATION": Limit((), "a pyramid needs the stride of res5"),
    "BBOX_XFORM_CLIP": Limit((), "the bound is fixed where boxes are decoded"),
}


def flatten(cfg: Config) -> dict[str, object]:
    """All 229 values under their full keys (`"TEST.NMS"`), in the order of the sections."""
    return dict(_flatten(cfg, ""))


def with_values(cfg: Config, values: Mapping[str, object]) -> Config:
    """A copy in which the given full keys have other values: `with_values(cfg, {"TEST.NMS": 0.3})`.

    The values must have the types of their fields; keys that do not exist raise KeyError.
    """
    missing = values.keys() - flatten(cfg)
    if missing:
        raise KeyError(f"no such key: {', '.join(sorted(missing))}")
    changed: Config = _replaced(cfg, values, "")
    return changed


def key_use(key: str) -> KeyUse:
    """What becomes of a full key: supported (perhaps with limits), inert, or unsupported but at its default."""
    limit = _row(LIMITED, key)
    if key in INERT or (limit is None and _row(INERT, key) is not None):
        return "inert"
    return "unsupported" if limit is not None and not limit.values else "supported"


class Unsupported(NamedTuple):
    """A full key whose value is not supported, what is said of it, and the values that it can take instead.

    `can_be_meant` is False for a value that is too large for any model to have been trained with it.
    """

    key: str
    problem: str
    choices: str
    can_be_meant: bool = True

    def __str__(self) -> str:
        return f"{self.problem}: set it to {self.choices}"


def unsupported_values(cfg: Config) -> Iterator[Unsupported]:
    """What of a configuration is not supported, and why.

    What is too large is not supported either, by itself or together with others (`bounds.py`). An inert key may hold
    anything.
    """
    defaults, values = flatten(Config()), flatten(cfg)
    all_within = True
    for key, value in values.items():
        limit = _row(LIMITED, key)
        if limit is not None and value != defaults[key] and value not in limit.values:
            way_out = " or ".join(map(str, limit.advised or limit.values or (defaults[key],)))
            reason = limit.why.get(value, limit.reason)
            yield Unsupported(key, f"{key} is {value!r}, which is not supported here ({reason})", way_out)
        elif key_use(key) != "inert" and (fault := bound_fault(key, value)) is not None:
            all_within = False
            yield Unsupported(key, *fault, can_be_meant=False)
    if all_within:
        yield from (Unsupported(key, *fault, can_be_meant=False) for key, fault in faults_together(values))


def _row(table: Mapping[str, Row], key: str) -> Row | None:
    """A key's own row, or its section's."""
    return table.get(key, table.get(f"{key.rpartition('.')[0]}.*"))


def _replaced(section: Any, values: Mapping[str, object], prefix: str) -> Any:
    changes = {}
    for field in dataclasses.fields(section):
        key, value = prefix + field.name, getattr(section, field.name)
        if dataclasses.is_dataclass(value):
            changes[field.name] = _replaced(value, values, f"{key}.")
        elif key in values:
            changes[field.name] = values[key]
    return dataclasses.replace(section, **changes)


def _flatten(section: Any, prefix: str) -> Iterator[tuple[str, object]]:
    for field in dataclasses.fields(section):
        value = getattr(section, field.name)
        if dataclasses.is_dataclass(value):
            yield from _flatten(value, f"{prefix}{field.name}.")
        else:
            yield prefix + field.name, value
