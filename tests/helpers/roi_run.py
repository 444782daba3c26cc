"""Small runs of keypoint heads, C4 models with masks, and models on proposals from files."""

from typing import NamedTuple

from detectron_gn.mrcnn.data.coco import read_dataset
from detectron_gn.mrcnn.data.proposals_file import StoredProposals
from detectron_gn.port.config.read import bundled_config
from detectron_gn.weights.formats.proposals_pickle import read_proposals
from tests.helpers.dense_run import SMALL
from tests.helpers.small_run import DATA, run

_HEADS = "FAST_RCNN.MLP_HEAD_DIM 16 TRAIN.BATCH_SIZE_PER_IM 16 TRAIN.RPN_POST_NMS_TOP_N 50 TRAIN.RPN_PRE_NMS_TOP_N 100"
_PEOPLE = "MODEL.NUM_CLASSES 2 KRCNN.CONV_HEAD_DIM 8 KRCNN.NUM_STACKED_CONVS 2"
_SHAPES, _PERSONS = "train_images.json", "zoo/train_points.json"

PROPOSALS = DATA / "zoo" / "train_points_proposals.pkl"


class Family(NamedTuple):
    """What runs: a bundled configuration, what is set in it, annotations, and whether proposals come from a file."""

    config: str
    options: str
    annotations: str
    proposed: bool = False


FAMILIES = {
    "keypoint": Family("e2e_keypoint_rcnn_R-50-FPN_1x", f"{SMALL} {_HEADS} {_PEOPLE}", _PERSONS),
    "mask_c4": Family("e2e_mask_rcnn_R-50-C4_1x", f"{SMALL} {_HEADS} RPN.SIZES (16,32) MRCNN.DIM_REDUCED 8", _SHAPES),
    "fast": Family("fast_rcnn_R-50-FPN_1x", f"{SMALL} {_HEADS}", _SHAPES, proposed=True),
}


def roi_config(name, *overrides):
    """The configuration of a small run of a family, under further KEY VALUE pairs."""
    family = FAMILIES[name]
    return bundled_config(family.config, [*family.options.split(), "TRAIN.WEIGHTS", "", *overrides])


def roi_data(name):
    """The data set of a family, and its proposals, a sequence of one or none."""
    dataset = read_dataset(DATA / FAMILIES[name].annotations, DATA / "train_images")
    if not FAMILIES[name].proposed:
        return dataset, ()
    read = read_proposals(PROPOSALS)
    return dataset, (StoredProposals(read.boxes, read.ids, PROPOSALS.name),)


def roi_run(name, out, *overrides, **options):
    """A whole small run of a family, under further KEY VALUE pairs; returns its final model."""
    dataset, proposals = roi_data(name)
    return run(out, roi_config(name, *overrides), data=dataset, proposals=proposals, **options)


def roi_arguments(name, out, config_file):
    """The same as arguments of `train`."""
    family = FAMILIES[name]
    data = ["--annotations", str(DATA / family.annotations), "--images", str(DATA / "train_images")]
    proposals = ["--proposals", str(PROPOSALS)] if family.proposed else []
    return ["--config", str(config_file), *data, *proposals, "--out", str(out), "--workers", "0"]
