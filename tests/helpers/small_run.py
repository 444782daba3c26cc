"""Whole runs on twelve small images, in this process or in one of their own: what their tests share."""

import os
import sys
from pathlib import Path

import numpy as np

from detectron_gn.mrcnn.data.coco import read_dataset
from detectron_gn.mrcnn.distributed import ALONE
from detectron_gn.port.config.read import bundled_config, dump_config
from detectron_gn.verify.training.run import run_training
from detectron_gn.verify.training.run_options import RunOptions
from detectron_gn.weights import read_blobs

ROOT = Path(__file__).parents[2]
DATA = ROOT / "tests" / "data"
SMALL = (
    "FPN.DIM 16 FAST_RCNN.CONV_HEAD_DIM 16 FAST_RCNN.MLP_HEAD_DIM 16 MRCNN.DIM_REDUCED 16 RESNETS.WIDTH_PER_GROUP 8 "
    "GROUP_NORM.NUM_GROUPS 4 TRAIN.SCALES (64,80) TRAIN.MAX_SIZE 128 TRAIN.BATCH_SIZE_PER_IM 16 "
    "TRAIN.RPN_POST_NMS_TOP_N 50 TRAIN.RPN_PRE_NMS_TOP_N 100 TRAIN.RPN_BATCH_SIZE_PER_IM 32 "
    "SOLVER.BASE_LR 0.01 SOLVER.WARM_UP_ITERS 0 SOLVER.STEPS [0,3] SOLVER.MAX_ITER 6 TRAIN.SNAPSHOT_ITERS 2"
)


def config(*overrides):
    return bundled_config("e2e_mask_rcnn_R-50-FPN_shapes_gn", [*SMALL.split(), *overrides])


def dataset():
    return read_dataset(DATA / "train_images.json", DATA / "train_images")


def run(out, cfg=None, weights=None, lines=None, on_checkpoint=None, data=None, proposals=(), **options):
    return run_training(
        cfg or config(),
        [data or dataset()],
        weights,
        ALONE,
        RunOptions(out, **{"workers": 0} | options),
        say=(lambda line: None) if lines is None else lines.append,
        on_checkpoint=on_checkpoint,
        proposals=proposals,
    )


def assert_equal_blobs(one, other):
    first, second = read_blobs(one).blobs, read_blobs(other).blobs
    assert list(first) == list(second)
    assert [name for name in first if not np.array_equal(first[name], second[name])] == []


COMMAND = [sys.executable, "-m", "detectron_gn", "train"]


def arguments(out, config_file):
    data = ["--annotations", str(DATA / "train_images.json"), "--images", str(DATA / "train_images")]
    return ["--config", str(config_file), *data, "--out", str(out), "--workers", "0"]


def config_file(folder, *overrides):
    path = folder / "config.yaml"
    path.write_text(dump_config(config(*overrides)))
    return path


def environment():
    return {**os.environ, "OMP_NUM_THREADS": "1"}
