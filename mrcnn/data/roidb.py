"""The images that are trained on; answers to Detectron datasets/roidb.py."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from detectron_gn.mrcnn.config import Config, a_family, check_keypoints, takes_proposals
from detectron_gn.mrcnn.data.annotations.findings import refuse_faults
from detectron_gn.mrcnn.data.annotations.keypoints import common_names
from detectron_gn.mrcnn.data.coco import CocoDataset
from detectron_gn.mrcnn.data.ground_truth import BoolArray, GroundTruth, IntArray, TrainedObjects, mirrored_keypoints
from detectron_gn.mrcnn.data.objects import count_for_training
from detectron_gn.mrcnn.data.on_demand import OnDemand
from detectron_gn.mrcnn.data.proposal_matches import match_stored_proposals
from detectron_gn.mrcnn.data.proposals_file import StoredProposals
from detectron_gn.mrcnn.errors import InputError

NO_OUTLINES = (
    "no object has an outline, which masks are trained on: pass --set MODEL.MASK_ON False to train a model of boxes"
)
NO_KEYPOINTS = (
    "no object has a visible keypoint, which keypoints are trained on: pass --set MODEL.KEYPOINTS_ON False to train a "
    "model without them"
)


@dataclass(frozen=True)
class RoidbEntry:
    """One training image. `height` and `width` are those of the annotation file.

    `proposals [R, 4]` are as they stand in a file, for a model that is trained on such; None for others.

    A flipped entry has the ground truth of its original; `mrcnn.data.minibatch` mirrors it when it is loaded.
    """

    image: Path
    height: int
    width: int
    flipped: bool
    ground_truth: GroundTruth
    proposals: npt.NDArray[np.floating[Any]] | None = None


class TrainedImages:
    """The images of one data set that are trained on, in the order of their ids.

    Attributes:
        objects: of all images of the data set.
        places: `[T]`, those that are trained on, by their place in the data set.
        names: their files, relative to the folder `folder`.
        heights, widths: `[T]`.
        without_objects: images of the data set that have no annotation at all.
        kept_empty: how many of these are trained on because `keep_empty` says so.

    Args:
        keep_empty: train on images without any annotation, too, as background. Detectron leaves them out. One whose
            annotations are all crowds or too small is left out still: it does show objects.

    Raises InputError where an image has no file, or no proposals in theirs.
    """

    def __init__(
        self, dataset: CocoDataset, cfg: Config, proposals: StoredProposals | None, *, keep_empty: bool = False
    ) -> None:
        images = dataset.instances.images
        self.objects = TrainedObjects(dataset, cfg)
        self._ids, self._proposals = images.ids, proposals
        is_trained = self.objects.is_trainable.copy()
        is_empty = dataset.rows.lengths == 0
        self.without_objects = int(is_empty.sum())
        self.kept_empty = int((is_empty & ~is_trained).sum()) if keep_empty else 0
        if keep_empty:
            is_trained |= is_empty
        if proposals is not None:
            for place, image_id in enumerate(images.ids.tolist()):
                stored = proposals.as_stored(image_id)
                if not is_trained[place]:
                    size = int(images.heights[place]), int(images.widths[place])
                    is_trained[place] = self._counts_with(stored, place, *size, cfg)
        self.folder = dataset.image_dir
        # All files are looked for, those of images without objects, too.
        names = dataset.image_names()
        self.places: IntArray = np.flatnonzero(is_trained)
        self.names = [names[place] for place in self.places.tolist()]
        self.heights, self.widths = images.heights[self.places], images.widths[self.places]

    def __len__(self) -> int:
        return len(self.places)

    @property
    def files(self) -> list[Path]:
        """The files of the images that are trained on."""
        return [self.folder / name for name in self.names]

    def proposals(self, number: int) -> npt.NDArray[np.floating[Any]] | None:
        """The proposals of the n-th image that is trained on; None for a model that makes its own."""
        return None if self._proposals is None else self._proposals.as_stored(int(self._ids[self.places[number]]))

    def entry(self, number: int, flipped: bool) -> RoidbEntry:
        """The n-th image that is trained on."""
        return RoidbEntry(
            self.folder / self.names[number],
            int(self.heights[number]),
            int(self.widths[number]),
            flipped,
            self.objects.of_image(int(self.places[number])),
            self.proposals(number),
        )

    def _counts_with(
        self, stored: npt.NDArray[np.floating[Any]], place: int, height: int, width: int, cfg: Config
    ) -> bool:
        """Whether a proposal from the file is foreground or background, in an image whose objects are neither."""
        if cfg.MODEL.KEYPOINTS_ON and not self.objects.has_visible_keypoint[place]:
            return False
        found = self.objects.of_image(place)
        overlaps = match_stored_proposals(stored, found.boxes, found.is_crowd, height, width, cfg).overlaps.numpy()
        return bool(count_for_training(overlaps, cfg).any())


class Roidb(OnDemand[RoidbEntry]):
    """The images of data sets that are trained on, each data set followed, as a whole, by its flipped copies.

    An entry is made when it is asked for: what is held of each image is its place.
    """

    def __init__(self, datasets: Sequence[TrainedImages], flipped: bool) -> None:
        self.datasets = datasets
        self.flips = (False, True) if flipped else (False,)
        self._ends = np.cumsum([len(each) for each in datasets for _ in self.flips])

    def __len__(self) -> int:
        return int(self._ends[-1])

    def make(self, place: int) -> RoidbEntry:
        """The entry at a place."""
        part = int(np.searchsorted(self._ends, place, side="right"))
        dataset, flip = divmod(part, len(self.flips))
        before = int(self._ends[part - 1]) if part else 0
        return self.datasets[dataset].entry(place - before, self.flips[flip])

    @cached_property
    def is_horizontal(self) -> BoolArray:
        """`[N]`, whether an image is at least as wide as high."""
        return np.concatenate([each.widths >= each.heights for each in self.datasets for _ in self.flips])


def training_roidb(
    datasets: Sequence[CocoDataset],
    cfg: Config,
    proposals: Sequence[StoredProposals] = (),
    *,
    keep_empty: bool = False,
) -> Roidb:
    """The images of the data sets that can be trained on.

    Args:
        proposals: those of each data set, for a model that takes them; none for one that makes its own.
        keep_empty: see `TrainedImages`.

    With `cfg.TRAIN.USE_FLIPPED` every image is there twice; nothing is flipped at random
    (Detectron datasets/roidb.py:combined_roidb_for_training).

    Raises InputError when an image file is missing or a record of it is unusable, when data sets differ in their
    classes, when they do not match `cfg.MODEL.NUM_CLASSES`, when an image has no proposals in its file, when no image
    is left, or no outline for a model of masks, or no visible keypoint for one of keypoints.
    """
    if cfg.MODEL.KEYPOINTS_ON:
        common_names([category for each in datasets for category in each.categories], cfg.KRCNN.NUM_KEYPOINTS)
    found: list[TrainedImages] = []
    for place, dataset in enumerate(datasets):
        check_classes(dataset, cfg)
        difference = other_classes(dataset, datasets[0])
        if difference is not None:
            raise InputError(f"{dataset.annotation_file}: {difference}")
        of_images = proposals[place] if proposals else None
        found.append(TrainedImages(dataset, cfg, of_images, keep_empty=keep_empty))
    names = ", ".join(str(dataset.annotation_file) for dataset in datasets)
    if not any(len(each) > each.kept_empty for each in found):
        if any(each.objects.lacks_keypoints(place) for each in found for place in range(len(each.objects))):
            raise InputError(f"{names}: {NO_KEYPOINTS}")
        raise InputError(f"{names}: no image has an object to train on; `detectron-gn check-data` says why")
    if cfg.MODEL.MASK_ON and not any(each.objects.has_mask[each.places].any() for each in found):
        raise InputError(f"{names}: {NO_OUTLINES}")
    return Roidb(found, cfg.TRAIN.USE_FLIPPED)


def check_classes(dataset: CocoDataset, cfg: Config) -> None:
    """Raise InputError unless all records can be used and `cfg.MODEL.NUM_CLASSES` is the categories and background.

    Where keypoints are trained, the model must have some, those of the records must be as many, without
    `keypoint_faults`, and with mirrored images each must have its other side.
    """
    check_keypoints(cfg)
    dataset.refuse_faults()
    if cfg.MODEL.NUM_CLASSES != len(dataset.classes):
        raise InputError(
            f"{dataset.annotation_file} has {len(dataset.category_ids)} categories, which with the background makes "
            f"{len(dataset.classes)} classes, but MODEL.NUM_CLASSES is {cfg.MODEL.NUM_CLASSES}: "
            f"pass --set MODEL.NUM_CLASSES {len(dataset.classes)}"
        )
    if not cfg.MODEL.KEYPOINTS_ON:
        return
    refuse_faults(dataset.annotation_file, dataset.keypoint_faults(cfg.KRCNN.NUM_KEYPOINTS))
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
