"""The objects of each image that are trained on; answers to Detectron datasets/json_dataset.py and roidb.py."""

from functools import cached_property
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from detectron_gn.mrcnn.config import Config
from detectron_gn.mrcnn.data.annotations.columns import AnnotationColumns
from detectron_gn.mrcnn.data.annotations.images import ImageColumns
from detectron_gn.mrcnn.data.annotations.keypoints import common_names, places_when_mirrored
from detectron_gn.mrcnn.data.annotations.outlines import SMALLEST_POLYGON
from detectron_gn.mrcnn.data.annotations.ragged import Ragged, starts_of
from detectron_gn.mrcnn.data.coco import CocoDataset, Segm
from detectron_gn.mrcnn.data.objects import clean_boxes, count_for_training, is_any, reasons_to_drop
from detectron_gn.mrcnn.ops.keypoints import MIRRORED

FloatArray = npt.NDArray[np.float32]
IntArray = npt.NDArray[np.int64]
BoolArray = npt.NDArray[np.bool_]


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


class TrainedObjects:
    """The annotations of a data set that Detectron trains on, image by image, in the order of the file.

    Images go by their place in the data set, annotations by their row in its columns.

    Attributes:
        columns: all annotations.
        trains_keypoints: whether the model has a keypoint head.
        rows: `[I]`, those of each image that are trained on.
        boxes: `[A, 4]` float32 of all annotations, inclusive corners, clipped to the image.
        classes: `[A]`, from 1.
    """

    def __init__(self, dataset: CocoDataset, cfg: Config) -> None:
        self._images: ImageColumns = dataset.instances.images
        self.columns: AnnotationColumns = dataset.instances.columns
        self._cfg = cfg
        self.trains_keypoints = cfg.MODEL.KEYPOINTS_ON
        columns, images = self.columns, self._images
        places = images.places(columns.image_ids)
        boxes = clean_boxes(columns.boxes, images.heights[places], images.widths[places])
        self._reasons = reasons_to_drop(boxes, columns.areas, columns.is_ignored, cfg)
        is_trained = ~is_any([met for met, _ in self._reasons])
        self.boxes: FloatArray = boxes.astype(np.float32)
        ids = np.array(dataset.category_ids, np.int64)
        order = np.argsort(ids)
        self.classes: IntArray = order[np.searchsorted(ids, columns.category_ids, sorter=order)] + 1
        kept = dataset.rows.values[is_trained[dataset.rows.values]]
        self.rows = Ragged(kept, starts_of(np.bincount(places[kept], minlength=len(images))))
        self._dataset = dataset

    def __len__(self) -> int:
        return len(self._images)

    def of_image(self, place: int) -> GroundTruth:
        """The objects of an image."""
        rows = self.rows[place]
        return GroundTruth(
            self.boxes[rows],
            self.classes[rows],
            self.columns.is_crowd[rows],
            tuple(self._segm(row, place) for row in rows.tolist()),
            self._keypoints(rows) if self.trains_keypoints else None,
            self.mirrored,
        )

    @cached_property
    def mirrored(self) -> tuple[int, ...]:
        """`[K]`, for each keypoint the one in its place in a mirrored image, for a model of keypoints."""
        return mirrored_keypoints(self._dataset, self._cfg) if self.trains_keypoints else MIRRORED

    def reasons_to_drop(self, place: int) -> list[str | None]:
        """Why Detectron leaves each annotation of an image out of training; None where it does not."""
        areas = self.columns.areas
        return [
            next((words.format(area=areas[row]) for met, words in self._reasons if met[row]), None)
            for row in self._dataset.rows[place].tolist()
        ]

    @cached_property
    def is_trainable(self) -> BoolArray:
        """`[I]`, whether an image has an object or a crowd that counts as foreground or background.

        Where keypoints are trained, one must be visible (Detectron datasets/roidb.py:filter_for_training).
        """
        counts = count_for_training(np.where(self.columns.is_crowd, -1.0, 1.0), self._cfg)
        found = self._any(counts)
        return found & self.has_visible_keypoint if self.trains_keypoints else found

    @cached_property
    def has_visible_keypoint(self) -> BoolArray:
        """`[I]`, whether an object, be it a crowd, has visibilities whose sum is above 0, as Detectron asks."""
        values = self.columns.keypoints.values
        sums = np.zeros(len(self.columns))
        with_some = np.flatnonzero(values.lengths)
        if len(with_some):
            within = np.arange(len(values.values)) - np.repeat(values.starts[:-1], values.lengths)
            whole = np.where(within % 3 == 2, np.trunc(values.values), 0)
            sums[with_some] = np.add.reduceat(whole, values.starts[:-1][with_some])
        return self._any(sums > 0)

    def lacks_keypoints(self, place: int) -> bool:
        """Whether keypoints are trained and there are objects, and none has the visible one that it needs for that."""
        return self.trains_keypoints and len(self.rows[place]) > 0 and not self.has_visible_keypoint[place]

    @cached_property
    def has_mask(self) -> BoolArray:
        """`[I]`, whether an object that is no crowd has an outline."""
        return self._any(self.columns.outlines.is_given & ~self.columns.is_crowd)

    def _any(self, of_annotations: BoolArray) -> BoolArray:
        """`[I]`, whether anything is true of one of the objects of an image."""
        found = np.concatenate(([0], np.cumsum(of_annotations[self.rows.values])))
        return np.diff(found[self.rows.starts]) > 0

    def _segm(self, row: int, place: int) -> Segm:
        outlines = self.columns.outlines
        encoded = outlines.run_lengths_of(row, int(self._images.heights[place]), int(self._images.widths[place]))
        if encoded is not None:
            return encoded
        return tuple(polygon for polygon in outlines.polygons_of(row) if len(polygon) >= SMALLEST_POLYGON)

    def _keypoints(self, rows: IntArray) -> npt.NDArray[np.int32]:
        """`[G, 3, K]`; an annotation without keypoints has none that is visible. Detectron rounds towards zero."""
        count = self._cfg.KRCNN.NUM_KEYPOINTS
        keypoints = np.zeros((len(rows), count, 3), np.int32)
        for place, row in enumerate(rows.tolist()):
            if len(given := self.columns.keypoints.values[row]):
                keypoints[place] = given.reshape(count, 3)
        return np.ascontiguousarray(keypoints.transpose(0, 2, 1))


def mirrored_keypoints(dataset: CocoDataset, cfg: Config) -> tuple[int, ...]:
    """For each keypoint, the one in its place in a mirrored image; InputError where there are such and nobody knows.

    Without mirrored images, a person's.
    """
    names = common_names(dataset.categories, cfg.KRCNN.NUM_KEYPOINTS)
    return places_when_mirrored(names, cfg.KRCNN.NUM_KEYPOINTS) if cfg.TRAIN.USE_FLIPPED else MIRRORED
