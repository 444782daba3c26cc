"""A reference file, read and checked in one place: what Caffe2 Detectron computed for each image.

docs/reference_layout.md describes the layout. Whatever is wrong with a file (another model's, cut short, a byte
changed) comes out here as one InputError that names the file, the image and the dataset.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from detectron_gn.mrcnn.config import Config, has_box_head, model_family, num_mask_classes, takes_proposals
from detectron_gn.mrcnn.data.image_blob import Image
from detectron_gn.mrcnn.data.read_image import AS_IMREAD, ImageReading, read_image
from detectron_gn.mrcnn.data.run_lengths import runs_cover
from detectron_gn.mrcnn.errors import InputError
from detectron_gn.mrcnn.inference.tta import is_augmented
from detectron_gn.mrcnn.wording import with_article
from detectron_gn.verify.reference.guarded_hdf5 import GuardedGroup, first_line, open_hdf5, shape_text, value_text
from detectron_gn.verify.reference.reference_blob import ReferenceBlob

Array = npt.NDArray[Any]

_AGAIN = "make the reference again with dump_blobs.py"
_OTHER_MODEL = "is the reference of another model?"


@dataclass(frozen=True)
class ImageReference:
    """What Caffe2 Detectron computed for one image.

    Attributes:
        name: of the image file.
        image: `[H, W, 3]` uint8 BGR, read from the folder of images.
        blobs: what the workspace held, by name.
        scores, boxes: `[R, K]` and `[R, 4K]` float32 of each RoI, the boxes in image pixels; R is 0 without RoIs.
        det_boxes, det_scores, det_classes: `[D, 4]` float32, `[D]` float32 and `[D]` int64 (from 1 on): detections; of
            an RPN by itself its proposals, all of class 1.
        masks: `[D, M, M]` float32, the soft mask of each detection's own class; None for a model without a mask head.
        rle_counts: COCO run lengths of each pasted mask; they make up the image. Empty without a mask head.
        keypoints: `[D, 4, 17]` float32 (x, y, logit, probability); None for a model without a keypoint head.
        proposals: `[P, 4]` float32 in image pixels that went in, for a model that takes them; None for the others.
    """

    name: str
    image: Image
    blobs: Mapping[str, ReferenceBlob]
    scores: Array
    boxes: Array
    det_boxes: Array
    det_scores: Array
    det_classes: npt.NDArray[np.int64]
    masks: Array | None
    rle_counts: Sequence[str]
    keypoints: Array | None = None
    proposals: npt.NDArray[np.float32] | None = None

    @property
    def image_size(self) -> tuple[int, int]:
        """Height and width."""
        return self.image.shape[0], self.image.shape[1]


def reference_names(path: Path) -> list[str]:
    """The names of the images in a reference file; InputError where it is none."""
    with opened_reference(path) as file:
        names = [name for name in file.names() if f"{name}/det_boxes" in file or f"{name}/proposals" in file]
    if not names:
        raise InputError(f"{path} holds no image with reference detections: make it with dump_blobs.py")
    return names


def read_reference(
    path: Path, name: str, images: Path, cfg: Config, reading: ImageReading = AS_IMREAD
) -> ImageReference:
    """Read and check what a reference file holds of one image.

    Args:
        name: of the image, in the reference and in the folder `images`.
        cfg: of the model it is to be compared with, whose number of classes and mask resolution it must have. Masks
            are read where that has a mask head.
        reading: how the image file is read.

    Raises InputError for a reference that is damaged or of another model, or an image that is missing.
    """
    image = read_image(images / name, reading)
    with opened_reference(path) as file:
        if name not in file:
            raise InputError(f"{path} holds no image {name}")
        return _ImageReader(file.group(name, f"{path}: {name}"), cfg).read(name, image)


def read_references(
    path: Path, images: Path, cfg: Config, reading: ImageReading = AS_IMREAD
) -> Iterator[ImageReference]:
    """`read_reference` of every image of a file, one after another."""
    for name in reference_names(path):
        yield read_reference(path, name, images, cfg, reading)


@contextmanager
def opened_reference(path: Path) -> Iterator[GuardedGroup]:
    """The whole of a reference file; whatever h5py still makes of its bytes comes out as an InputError."""
    with open_hdf5(path, "make one with dump_blobs.py, which `verify dump-script` writes") as file:
        try:
            yield GuardedGroup(file, str(path), _AGAIN)
        except InputError:
            raise
        except Exception as error:
            raise InputError(f"{path} is damaged ({first_line(error)}): {_AGAIN}") from None


class _ImageReader:
    """Takes the datasets of one image from its group, each of them checked."""

    def __init__(self, group: GuardedGroup, cfg: Config) -> None:
        self._group, self._cfg = group, cfg

    def read(self, name: str, image: Image) -> ImageReference:
        self._check_present()
        self._check_size(image)
        scores, boxes = self._of_rois()
        boxes_key, scores_key = self._detections
        det_scores = self._rows(scores_key, (), "[D]")
        count = len(det_scores)
        det_boxes = self._rows(boxes_key, (4,), "[D, 4]", count)
        for key, values in ((scores_key, det_scores), (boxes_key, det_boxes)):
            # Detectron keeps what scores more than a threshold, which nothing does that is not a number.
            if not np.isfinite(values).all():
                self._group.refuse(key, "holds values that are not finite, which no detection has")
        det_classes = np.ones(count, np.int64) if self._cfg.MODEL.RPN_ONLY else self._classes(count)
        points = self._cfg.KRCNN.NUM_KEYPOINTS
        told = f"[D, 4, {points}]"
        return ImageReference(
            name=name,
            image=image,
            blobs=self._blobs(len(scores), count),
            scores=scores,
            boxes=boxes,
            det_boxes=det_boxes,
            det_scores=det_scores,
            det_classes=det_classes,
            masks=self._masks(det_classes) if self._cfg.MODEL.MASK_ON else None,
            rle_counts=self._run_lengths(count, image) if self._cfg.MODEL.MASK_ON else (),
            keypoints=self._rows("keypoints", (4, points), told, count) if self._cfg.MODEL.KEYPOINTS_ON else None,
            proposals=self._given_proposals() if takes_proposals(self._cfg) else None,
        )

    def _check_present(self) -> None:
        masks = ["rle_counts", "masks_of_class" if "masks_of_class" in self._group else "masks"]
        rois = ["blobs/rois", "boxes", "scores"]
        needed = (
            "blobs",
            *(rois if self._has_rois else []),
            *self._detections,
            *([] if self._cfg.MODEL.RPN_ONLY else ["det_classes"]),
            *(masks if self._cfg.MODEL.MASK_ON else []),
            *(["keypoints"] if self._cfg.MODEL.KEYPOINTS_ON else []),
            *(["proposals"] if takes_proposals(self._cfg) else []),
        )
        if any(key not in self._group for key in needed):
            self._refuse_other_kinds()
        self._group.require(*needed)

    def _refuse_other_kinds(self) -> None:
        """Raise InputError for a whole reference of another kind than the model's; one that is damaged is let pass."""
        place = self._group.place
        if "blobs" not in self._group:
            if is_augmented(self._cfg) and "det_boxes" in self._group:
                raise InputError(
                    f"{place} holds results and no blobs, as of a run with test-time augmentation: compare such "
                    "results by `test` and `verify detections`, or give a reference that dump_blobs.py made, which "
                    "looks at an image once"
                )
            return
        theirs, ours = _family_of(self._group), model_family(self._cfg)
        if takes_proposals(self._cfg) and ours != "Fast R-CNN":
            ours += " on proposals"
        if theirs is not None and theirs != ours:
            raise InputError(
                f"{place}: this reference is of {with_article(theirs)}, and the model is {with_article(ours)}: give "
                "the reference of this model, or the model of this reference"
            )

    @property
    def _has_rois(self) -> bool:
        return has_box_head(self._cfg)

    @property
    def _detections(self) -> tuple[str, str]:
        """The names of the boxes that were found, and of their scores."""
        return ("proposals", "proposal_scores") if self._cfg.MODEL.RPN_ONLY else ("det_boxes", "det_scores")

    def _of_rois(self) -> tuple[Array, Array]:
        """Scores `[R, K]` and boxes `[R, 4K]`."""
        classes = self._cfg.MODEL.NUM_CLASSES
        if not self._has_rois:
            return np.zeros((0, classes), np.float32), np.zeros((0, 4 * classes), np.float32)
        scores = self._rows("scores", (classes,), f"[R, {classes}]")
        boxes = self._rows("boxes", (4 * classes,), f"[R, {4 * classes}]")
        if len(boxes) != len(scores):
            self._group.refuse("boxes", f"has {len(boxes)} rows, scores {len(scores)}")
        return scores, boxes

    def _given_proposals(self) -> npt.NDArray[np.float32]:
        values = self._rows("proposals", (4,), "[P, 4]")
        if not np.isfinite(values).all():
            self._group.refuse("proposals", "holds values that are not finite, which no proposal has")
        return values.astype(np.float32)

    def _check_size(self, image: Image) -> None:
        """The image in the folder must be the one that the reference was made of."""
        told = self._group.attribute("shape")
        if told is not None and (np.shape(told) != (3,) or [int(n) for n in told[:2]] != list(image.shape[:2])):
            size = f"{image.shape[0]}x{image.shape[1]}"
            fault = f"is {value_text(told)}, but the image in the folder is {size}: is it another?"
            self._group.refuse("attribute shape", fault)

    def _masks(self, classes: npt.NDArray[np.int64]) -> Array:
        size = self._cfg.MRCNN.RESOLUTION
        if "masks_of_class" in self._group:
            return self._rows("masks_of_class", (size, size), f"[D, {size}, {size}]", len(classes))
        every = (num_mask_classes(self._cfg), size, size)
        masks = self._rows("masks", every, f"[D, {every[0]}, {size}, {size}]", len(classes))
        return np.asarray(masks[np.arange(len(classes)), np.minimum(classes, every[0] - 1)])

    def _classes(self, count: int) -> npt.NDArray[np.int64]:
        values = self._rows("det_classes", (), "[D]", count)
        most = self._cfg.MODEL.NUM_CLASSES - 1
        if not (np.isin(values, np.arange(1, most + 1))).all():
            fault = f"holds other classes than the model's, which are 1 to {most}"
            self._group.refuse("det_classes", fault, _OTHER_MODEL)
        return np.asarray(values.astype(np.int64))

    def _run_lengths(self, count: int, image: Image) -> list[str]:
        values = self._group.values("rle_counts")
        if len(values) != count:
            self._group.refuse("rle_counts", f"has {len(values)} rows, det_scores {count}")
        texts = []
        for number, value in enumerate(values):
            text = value if isinstance(value, bytes) else value.encode("utf-8") if isinstance(value, str) else b""
            if not text.isascii() or not runs_cover(text, image.shape[0] * image.shape[1]):
                fault = f"row {number} does not make up the {image.shape[0]}x{image.shape[1]} pixels of the image"
                self._group.refuse("rle_counts", f"is damaged: {fault}")
            texts.append(text.decode("ascii"))
        return texts

    def _blobs(self, rois: int, detections: int) -> dict[str, ReferenceBlob]:
        group = self._group.group("blobs")
        blobs = {name: group.blob(name) for name in group.names()}
        if self._has_rois:
            # Of proposals that count as equal there is one RoI, so that there may be fewer than rows of scores.
            _check_rois(group, "rois", blobs["rois"], None if takes_proposals(self._cfg) else rois)
        for name in ("mask_rois", "keypoint_rois"):
            if name in blobs and blobs[name].values.size:
                # Where similar people were suppressed after the pass, it saw more of them than there are detections.
                suppressed = name == "keypoint_rois" and self._cfg.KRCNN.NMS_OKS
                _check_rois(group, name, blobs[name], None if suppressed else detections)
        for name in blobs:
            if name.startswith("rpn_rois"):
                _check_rois(group, name, blobs[name], None)
                scores_name = name.replace("rpn_rois", "rpn_roi_probs")
                scores, count = blobs.get(scores_name), blobs[name].shape[0]
                if scores is not None and scores.shape != (count, 1):
                    told = f"is {shape_text(scores.shape)}, not a score for each of {count} proposals"
                    group.refuse(scores_name, told)
        return blobs

    def _rows(self, key: str, row: tuple[int, ...], told: str, count: int | None = None) -> Array:
        """A dataset `[count, *row]` of numbers; without a row in it any shape will do."""
        dataset = self._group.dataset(key)
        shape = tuple(dataset.shape)
        if 0 in shape[:1] and not count:
            return np.zeros((0, *row), np.float32)
        if len(shape) != 1 + len(row) or shape[1:] != row:
            self._group.refuse(key, f"is {shape_text(shape)}, not {told}", _OTHER_MODEL)
        if count is not None and shape[0] != count:
            self._group.refuse(key, f"has {shape[0]} rows, det_scores {count}")
        return self._group.numbers(key)


def _family_of(group: GuardedGroup) -> str | None:
    """The family that a reference is of, as what it holds tells: datasets and the names of blobs.

    None where it holds neither an RPN's blobs nor proposals, as no whole reference of a model with RoIs does.
    """
    blobs = group.group("blobs").names()

    def holds(keys: Sequence[str], prefixes: tuple[str, ...]) -> bool:
        return any(key in group for key in keys) or any(name.startswith(prefixes) for name in blobs)

    if holds((), ("retnet_",)):
        return "RetinaNet"
    has_rpn = holds((), ("rpn_", "conv_rpn"))
    if (has_rpn or "proposal_scores" in group) and not holds(("det_boxes", "boxes"), ("cls_score", "cls_prob")):
        return "RPN"
    if not has_rpn and "proposals" not in group:
        return None
    on_proposals = "" if has_rpn else " on proposals"
    if holds(("keypoints",), ("kps_", "_[pose]", "keypoint_rois")):
        return f"Keypoint R-CNN{on_proposals}"
    if holds(("masks", "masks_of_class", "rle_counts"), ("mask_", "_[mask]", "conv5_mask")):
        return f"Mask R-CNN{on_proposals}"
    return "Faster R-CNN" if has_rpn else "Fast R-CNN"


def _check_rois(group: GuardedGroup, name: str, blob: ReferenceBlob, count: int | None) -> None:
    """RoIs are rows (index of the image, x1, y1, x2, y2), and a run is of one image."""
    if len(blob.shape) != 2 or blob.shape[1] != 5:
        group.refuse(name, f"is {shape_text(blob.shape)}, not [R, 5]")
    if count is not None and blob.shape[0] != count:
        group.refuse(name, f"has {blob.shape[0]} rows, not {count} as what was computed of them")
    index = blob.known()[:, 0]
    if bool((index.nan_to_num(0.0) != 0).any()):
        group.refuse(name, "holds RoIs of other images than the first, and a run is of one image")
