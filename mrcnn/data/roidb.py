"""Ground truth by image, cleaned and filtered; answers to Detectron datasets/json_dataset.py and datasets/roidb.py."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from detectron_gn.mrcnn.config import Config, a_family, takes_proposals
from detectron_gn.mrcnn.data.annotations.findings import annotation_subject, refuse_faults
from detectron_gn.mrcnn.data.annotations.keypoints import (
    Keypoints,
    common_names,
    keypoint_faults,
    places_when_mirrored,
    read_keypoints,
)
from detectron_gn.mrcnn.data.coco import Annotation, CocoDataset, CocoImage, Segm, read_segm
from detectron_gn.mrcnn.data.proposal_matches import match_stored_proposals
from detectron_gn.mrcnn.data.proposals_file import StoredProposals
from detectron_gn.mrcnn.errors import InputError
from detectron_gn.mrcnn.ops.boxes import xywh_to_xyxy
from detectron_gn.mrcnn.ops.keypoints import MIRRORED

FloatArray = npt.NDArray[np.float32]
IntArray = npt.NDArray[np.int64]
BoolArray = npt.NDArray[np.bool_]

NO_OUTLINES = (
    "no object has an outline, which masks are trained on: pass --set MODEL.MASK_ON False to train a model of boxes"
)
NO_KEYPOINTS = (
    "no object has a visible keypoint, which keypoints are trained on: pass --set MODEL.KEYPOINTS_ON False to train a "
    "model without them"
)


class GroundTruth(NamedTuple):
    """The objects of an image, in pixels of the image as it is on disk.

    `boxes [G, 4]` float32 with inclusive corners, `classes [G]` int64 from 1, `is_crowd [G]`, and an outline each;
    `keypoints [G, 3, K]` int32, rows x, y and visibility, or None for a model without keypoints; `mirrored [K]`, for
    each keypoint the one that is in its place in a mirrored image.
    """

    boxes: FloatArray
    classes: IntArray
    is_crowd: BoolArray
    segms: tuple[Segm, ...]
    keypoints: npt.NDArray[np.int32] | None = None
    mirrored: tuple[int, ...] = MIRRORED


@dataclass(frozen=True)
class RoidbEntry:
    """One training image. `height` and `width` are those of the annotation file.

    `proposals [R, 4]` are as they stand in a file, for a model that is trained on such; None for others.

    A flipped entry shares the ground truth of its original; `mrcnn.data.minibatch` mirrors it when it is loaded, so
    that the doubled roidb costs no memory.
    """

    image: Path
    height: int
    width: int
    flipped: bool
    ground_truth: GroundTruth
    proposals: npt.NDArray[np.floating[Any]] | None = None


def clean_box(annotation: Annotation, height: int, width: int) -> tuple[float, float, float, float]:
    """An annotation's `bbox` (x, y, width, height) as inclusive corners clipped to the image.

    Sides under a pixel become a pixel, whose corners coincide (Detectron utils/boxes.py:xywh_to_xyxy,
    clip_xyxy_to_image).
    """
    corners = xywh_to_xyxy(*annotation["bbox"])
    x1, y1, x2, y2 = (min(limit - 1.0, max(0.0, c)) for c, limit in zip(corners, (width, height) * 2, strict=True))
    return x1, y1, x2, y2


def reason_to_drop(annotation: Annotation, height: int, width: int, cfg: Config) -> str | None:
    """Why Detectron leaves an annotation out of training, or None (datasets/json_dataset.py:_add_gt_annotations)."""
    if annotation["area"] < cfg.TRAIN.GT_MIN_AREA:
        return f"area {annotation['area']:g} is under TRAIN.GT_MIN_AREA {cfg.TRAIN.GT_MIN_AREA:g}"
    if annotation.get("ignore", 0) == 1:
        return "ignore is set"
    if not annotation["area"] > 0:
        return "area is 0"
    x1, y1, x2, y2 = clean_box(annotation, height, width)
    if not (x2 > x1 and y2 > y1):
        return "bbox is a pixel or less wide or high within the image"
    return None


def ground_truth(image: CocoImage, class_of_category: Mapping[int, int], cfg: Config) -> GroundTruth:
    """The annotations of an image that Detectron trains on, in the order of the file.

    They are as `mrcnn.data.annotations.reader` leaves them. Raises InputError for keypoints that cannot be trained on,
    where `cfg` has the model trained on such.
    """
    boxes, classes, is_crowd, segms = [], [], [], []
    keypoints: list[Keypoints] = []
    for annotation in image.annotations:
        if reason_to_drop(annotation, image.height, image.width, cfg) is None:
            boxes.append(clean_box(annotation, image.height, image.width))
            classes.append(class_of_category[annotation["category_id"]])
            is_crowd.append(bool(annotation.get("iscrowd", 0)))
            segms.append(read_segm(annotation["segmentation"]))
            if cfg.MODEL.KEYPOINTS_ON:
                keypoints.append(read_keypoints(annotation, cfg.KRCNN.NUM_KEYPOINTS))
    none = np.zeros((0, 3, cfg.KRCNN.NUM_KEYPOINTS), np.int32) if cfg.MODEL.KEYPOINTS_ON else None
    return GroundTruth(
        np.asarray(boxes, dtype=np.float32).reshape(-1, 4),
        np.asarray(classes, dtype=np.int64),
        np.asarray(is_crowd, dtype=np.bool_),
        tuple(segms),
        np.stack(keypoints) if keypoints else none,
    )


def is_trainable(objects: GroundTruth, cfg: Config, proposal_overlaps: FloatArray | None = None) -> bool:
    """Whether an image stays in the roidb: one of its boxes counts as foreground or as background.

    A gt box overlaps itself by 1 and a crowd counts as -1, so an image of crowds alone, or of nothing, goes, unless
    proposals from a file are its background. Where keypoints are trained, one must be visible
    (Detectron datasets/roidb.py:filter_for_training).

    Args:
        proposal_overlaps: `[P]`, of each proposal with an object; None where proposals are made in training.
    """
    if objects.keypoints is not None and not has_visible_keypoint(objects):
        return False
    overlaps = np.where(objects.is_crowd, -1.0, 1.0)
    if proposal_overlaps is not None:
        overlaps = np.concatenate((overlaps, proposal_overlaps))
    foreground = overlaps >= cfg.TRAIN.FG_THRESH
    background = (overlaps < cfg.TRAIN.BG_THRESH_HI) & (overlaps >= cfg.TRAIN.BG_THRESH_LO)
    return bool((foreground | background).any())


def has_visible_keypoint(objects: GroundTruth) -> bool:
    """Whether an object, be it a crowd, has visibilities whose sum is above 0, as Detectron asks."""
    return objects.keypoints is not None and bool((objects.keypoints[:, 2].sum(axis=1) > 0).any())


def lacks_keypoints(objects: GroundTruth) -> bool:
    """Whether there are objects, and none has the visible keypoint that it would be trained on for."""
    return objects.keypoints is not None and len(objects.boxes) > 0 and not has_visible_keypoint(objects)


def has_mask_to_train(objects: GroundTruth) -> bool:
    """Whether an object that is no crowd has an outline."""
    return any(segm and not crowd for segm, crowd in zip(objects.segms, objects.is_crowd.tolist(), strict=True))


def training_roidb(
    datasets: Sequence[CocoDataset], cfg: Config, proposals: Sequence[StoredProposals] = ()
) -> list[RoidbEntry]:
    """The images of the data sets that can be trained on, each followed, as a whole set, by its flipped copies.

    Args:
        proposals: those of each data set, for a model that takes them; none for one that makes its own.

    With `cfg.TRAIN.USE_FLIPPED` every image is there twice; nothing is flipped at random
    (Detectron datasets/roidb.py:combined_roidb_for_training).

    Raises InputError when an image file is missing or a record of it is unusable, when data sets differ in their
    classes, when they do not match `cfg.MODEL.NUM_CLASSES`, when an image has no proposals in its file, when no image
    is left, or no outline for a model of masks, or no visible keypoint for one of keypoints.
    """
    roidb: list[RoidbEntry] = []
    if cfg.MODEL.KEYPOINTS_ON:
        common_names([category for each in datasets for category in each.categories], cfg.KRCNN.NUM_KEYPOINTS)
    for place, dataset in enumerate(datasets):
        check_classes(dataset, cfg)
        difference = other_classes(dataset, datasets[0])
        if difference is not None:
            raise InputError(f"{dataset.annotation_file}: {difference}")
        entries = list(_entries(dataset, cfg, proposals[place] if proposals else None))
        roidb += entries
        if cfg.TRAIN.USE_FLIPPED:
            roidb += [replace(entry, flipped=True) for entry in entries]
    names = ", ".join(str(dataset.annotation_file) for dataset in datasets)
    if not roidb:
        found = (ground_truth(image, each.class_of_category, cfg) for each in datasets for image in each.images)
        if any(map(lacks_keypoints, found)):
            raise InputError(f"{names}: {NO_KEYPOINTS}")
        raise InputError(f"{names}: no image has an object to train on; `detectron-gn check-data` says why")
    if cfg.MODEL.MASK_ON and not any(has_mask_to_train(entry.ground_truth) for entry in roidb):
        raise InputError(f"{names}: {NO_OUTLINES}")
    return roidb


def check_classes(dataset: CocoDataset, cfg: Config) -> None:
    """Raise InputError unless all records can be used and `cfg.MODEL.NUM_CLASSES` is the categories and background.

    Where keypoints are trained, they must be `cfg.KRCNN.NUM_KEYPOINTS` without `keypoint_faults`, and with mirrored
    images each must have its other side.
    """
    dataset.refuse_faults()
    if cfg.MODEL.NUM_CLASSES != len(dataset.classes):
        raise InputError(
            f"{dataset.annotation_file} has {len(dataset.category_ids)} categories, which with the background makes "
            f"{len(dataset.classes)} classes, but MODEL.NUM_CLASSES is {cfg.MODEL.NUM_CLASSES}: "
            f"pass --set MODEL.NUM_CLASSES {len(dataset.classes)}"
        )
    if not cfg.MODEL.KEYPOINTS_ON:
        return
    named = (
        (annotation_subject(annotation, image.file_name), annotation)
        for image in dataset.images
        for annotation in image.annotations
    )
    refuse_faults(
        dataset.annotation_file, tuple(keypoint_faults(dataset.categories, named, cfg.KRCNN.NUM_KEYPOINTS))
    )
    try:
        mirrored_keypoints(dataset, cfg)
    except InputError as error:
        raise InputError(f"{dataset.annotation_file}: {error}") from None


def other_classes(dataset: CocoDataset, first: CocoDataset) -> str | None:
    """Why a data set cannot be trained on together with the first one; None where it can."""
    if dataset.classes == first.classes:
        return None
    if sorted(dataset.classes) == sorted(first.classes):
        return (
            f"lists the categories of {first.annotation_file} in another order: data sets that are trained on together "
            "need the same order of 'categories'; ids and annotations may stay as they are"
        )
    return (
        f"lists other categories than {first.annotation_file}: data sets that are trained on together need the same "
        "ones in the same order"
    )


def mirrored_keypoints(dataset: CocoDataset, cfg: Config) -> tuple[int, ...]:
    """For each keypoint, the one in its place in a mirrored image; InputError where there are such and nobody knows.

    Without mirrored images, a person's.
    """
    names = common_names(dataset.categories, cfg.KRCNN.NUM_KEYPOINTS)
    return places_when_mirrored(names, cfg.KRCNN.NUM_KEYPOINTS) if cfg.TRAIN.USE_FLIPPED else MIRRORED


def check_proposals(datasets: Sequence[CocoDataset], cfg: Config, proposals: Sequence[StoredProposals]) -> None:
    """Raise InputError unless there are proposals for each data set where the model takes them, and none elsewhere."""
    wanted = len(datasets) if takes_proposals(cfg) else 0
    if len(proposals) == wanted:
        return
    if not wanted:
        raise InputError(f"{a_family(cfg)} makes its own proposals or needs none: leave --proposals out")
    raise InputError(
        f"{a_family(cfg)} without an RPN (MODEL.FASTER_RCNN False) takes its proposals from files, one for each "
        f"data set, but there are {len(proposals)} for {len(datasets)}: give --proposals with the rpn_proposals.pkl "
        "that `test` writes for an RPN on the same images, as often as --annotations"
    )


def _entries(dataset: CocoDataset, cfg: Config, proposals: StoredProposals | None) -> Iterable[RoidbEntry]:
    class_of_category = dataset.class_of_category
    mirrored = mirrored_keypoints(dataset, cfg) if cfg.MODEL.KEYPOINTS_ON else MIRRORED
    for image in dataset.images:
        path = dataset.image_path(image)
        objects = ground_truth(image, class_of_category, cfg)._replace(mirrored=mirrored)
        stored = overlaps = None
        if proposals is not None:
            stored = proposals.as_stored(image.id)
            if not is_trainable(objects, cfg):
                size = (image.height, image.width)
                overlaps = match_stored_proposals(stored, objects.boxes, objects.is_crowd, *size, cfg).overlaps.numpy()
        if is_trainable(objects, cfg, overlaps):
            yield RoidbEntry(path, image.height, image.width, False, objects, stored)
