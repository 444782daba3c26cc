"""The largest values that keys may have: a stranger's configuration must not ask for the whole memory or for hours.

Detectron has no such bounds. Those here are several times what any published configuration asks for.
"""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

_SIDE = 10_000  # of an image, in pixels; published configurations end at 4000
_WIDTH = 8192  # channels of a layer
_BINS = 64  # per side of what is pooled from an RoI
_SAMPLES = 16  # per bin and axis
_BOXES = 100_000  # left by NMS
_SAMPLED = 10_000_000  # at most as many as there are anchors or RoIs, whatever is asked for
_LAYERS = 64

_TOO_MUCH = "more than can be meant"

# The largest number that a key, or each element of its list, may be.
LARGEST: dict[str, int] = {
    "TRAIN.SCALES": _SIDE,
    "TRAIN.MAX_SIZE": _SIDE,
    "TRAIN.IMS_PER_BATCH": 4096,
    "TRAIN.BATCH_SIZE_PER_IM": _SAMPLED,
    "TRAIN.RPN_BATCH_SIZE_PER_IM": _SAMPLED,
    "TRAIN.RPN_POST_NMS_TOP_N": _BOXES,
    "TEST.SCALE": _SIDE,
    "TEST.MAX_SIZE": _SIDE,
    "TEST.RPN_POST_NMS_TOP_N": _BOXES,
    "TEST.BBOX_AUG.SCALES": _SIDE,
    "TEST.BBOX_AUG.MAX_SIZE": _SIDE,
    "TEST.BBOX_AUG.ASPECT_RATIOS": 100,
    "TEST.MASK_AUG.SCALES": _SIDE,
    "TEST.MASK_AUG.MAX_SIZE": _SIDE,
    "TEST.MASK_AUG.ASPECT_RATIOS": 100,
    "TEST.KPS_AUG.SCALES": _SIDE,
    "TEST.KPS_AUG.MAX_SIZE": _SIDE,
    "TEST.KPS_AUG.ASPECT_RATIOS": 100,
    "MODEL.NUM_CLASSES": 20_000,
    "SOLVER.MAX_ITER": 10**9,
    "SOLVER.WEIGHT_DECAY": 1000,
    "SOLVER.WEIGHT_DECAY_GN": 1000,
    "RETINANET.SCALES_PER_OCTAVE": 64,
    "RETINANET.NUM_CONVS": _LAYERS,
    "FAST_RCNN.MLP_HEAD_DIM": _WIDTH,
    "FAST_RCNN.CONV_HEAD_DIM": _WIDTH,
    "FAST_RCNN.NUM_STACKED_CONVS": _LAYERS,
    "FAST_RCNN.ROI_XFORM_SAMPLING_RATIO": _SAMPLES,
    "FAST_RCNN.ROI_XFORM_RESOLUTION": _BINS,
    "FPN.DIM": _WIDTH,
    "FPN.COARSEST_STRIDE": 1024,
    "MRCNN.ROI_XFORM_SAMPLING_RATIO": _SAMPLES,
    "MRCNN.ROI_XFORM_RESOLUTION": _BINS,
    "MRCNN.RESOLUTION": 2 * _BINS,
    "MRCNN.DIM_REDUCED": _WIDTH,
    "MRCNN.DILATION": _BINS,
    "KRCNN.ROI_XFORM_SAMPLING_RATIO": _SAMPLES,
    "KRCNN.ROI_XFORM_RESOLUTION": _BINS,
    "KRCNN.HEATMAP_SIZE": 8 * _BINS,
    "KRCNN.UP_SCALE": 16,
    "KRCNN.NUM_KEYPOINTS": 1024,
    "KRCNN.NUM_STACKED_CONVS": _LAYERS,
    "KRCNN.CONV_HEAD_DIM": _WIDTH,
    "KRCNN.CONV_HEAD_KERNEL": _BINS,
    "KRCNN.DECONV_DIM": _WIDTH,
    "KRCNN.DECONV_KERNEL": _BINS,
    "KRCNN.DILATION": _BINS,
    "RFCN.PS_GRID_SIZE": _BINS,
    "RESNETS.NUM_GROUPS": _WIDTH,
    "RESNETS.WIDTH_PER_GROUP": _WIDTH,
    "RESNETS.RES5_DILATION": _BINS,
    "NUM_GPUS": 4096,
}

# The most elements of a list, where each costs an anchor at every position or a pass over every image.
LONGEST: dict[str, int] = {
    "FPN.RPN_ASPECT_RATIOS": 64,
    "RPN.SIZES": 64,
    "RPN.ASPECT_RATIOS": 64,
    "RETINANET.ASPECT_RATIOS": 64,
    "TEST.BBOX_AUG.SCALES": 64,
    "TEST.BBOX_AUG.ASPECT_RATIOS": 64,
    "TEST.MASK_AUG.SCALES": 64,
    "TEST.MASK_AUG.ASPECT_RATIOS": 64,
    "TEST.KPS_AUG.SCALES": 64,
    "TEST.KPS_AUG.ASPECT_RATIOS": 64,
}

# Keys that are harmless one by one and not together: what they make, its size for their values, and the largest one.
_TOGETHER: tuple[tuple[tuple[str, ...], str, Callable[..., int], int], ...] = (
    (
        ("FPN.DIM", "FAST_RCNN.ROI_XFORM_RESOLUTION", "FAST_RCNN.MLP_HEAD_DIM"),
        "weights in the box head's first fully connected layer",
        lambda dim, bins, width: dim * bins**2 * width,
        2**30,
    ),
    (
        ("RESNETS.NUM_GROUPS", "RESNETS.WIDTH_PER_GROUP"),
        "channels in the 3x3 convolutions of res2",
        lambda groups, width: groups * width,
        _WIDTH,
    ),
)


def bound_fault(key: str, value: object) -> tuple[str, str] | None:
    """What is wrong where the value of a full key is too large or too long, and what it can be; None if it is not."""
    elements = value if isinstance(value, tuple) else (value,)
    if key in LONGEST and len(elements) > LONGEST[key]:
        return f"{key} has {len(elements)} elements, {_TOO_MUCH}", f"{LONGEST[key]} or fewer"
    largest = max((each for each in elements if isinstance(each, int | float)), default=0)
    if key in LARGEST and largest > LARGEST[key]:
        return f"{key} is {largest}, {_TOO_MUCH}", f"{LARGEST[key]} or less"
    return None


def faults_together(values: Mapping[str, Any]) -> Iterator[tuple[str, tuple[str, str]]]:
    """The first of several full keys whose values are too large together, each with what is wrong and what it can be.

    Args:
        values: all full keys with their values, none of which is too large by itself.
    """
    for keys, meaning, size, most in _TOGETHER:
        found = size(*(values[key] for key in keys))
        if found > most:
            named = " and ".join(f"{key} is {values[key]}" for key in keys)
            smaller = max(1, values[keys[0]] * most // found)
            yield keys[0], (f"{named}, which makes {found} {meaning}, {_TOO_MUCH}", f"{smaller} or less")
