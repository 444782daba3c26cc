"""A reference file, read and checked in one place: what Caffe2 Detectron computed for each image.

The layout is told in docs/reference_layout.md. Whatever is wrong with a file (another model's, cut short, a byte
changed) comes out here, as one InputError that names the file, the image and the dataset.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import h5py
import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from detectron_gn.mrcnn.config import Config
from detectron_gn.mrcnn.data.image_blob import Image
from detectron_gn.mrcnn.data.image_files import read_image
from detectron_gn.mrcnn.data.run_lengths import runs_cover
from detectron_gn.mrcnn.errors import InputError

Array = npt.NDArray[Any]

# Four times as many as the largest blob of a published model in an image of 1333 x 1333 pixels.
_MOST_VALUES = 2**28

_AGAIN = "make the reference again with dump_blobs.py"
_OTHER_MODEL = "is the reference of another model?"


@dataclass(frozen=True)
class ReferenceBlob:
    """A blob of Caffe2's workspace, or an even sample of it.

    Attributes:
        values: `[ceil(size / stride)]`, every `stride`-th value of the flattened blob, in the file's type.
        shape: of the whole blob.
        stride: 1 where the reference holds every value.
    """

    values: Array
    shape: tuple[int, ...]
    stride: int = 1

    @property
    def is_whole(self) -> bool:
        """Whether the reference holds every value."""
        return self.stride == 1

    def known(self) -> Tensor:
        """The blob in its whole shape, float32; what the reference has not kept of it is NaN."""
        whole = torch.full((int(np.prod(self.shape, dtype=np.int64)),), torch.nan)
        whole[:: self.stride] = torch.from_numpy(self.values.astype(np.float32))
        return whole.reshape(self.shape)

    def doubles(self) -> npt.NDArray[np.float64]:
        """The values as float64."""
        return self.values.astype(np.float64)

    def sample_of(self, ours: Tensor) -> npt.NDArray[np.float64]:
        """Of a blob of ours in the same shape, the values that the reference has kept of its own."""
        return np.asarray(ours.detach().cpu().reshape(-1)[:: self.stride].double().numpy())


@dataclass(frozen=True)
class ImageReference:
    """What Caffe2 Detectron computed for one image.

    Attributes:
        name: of the image file.
        image: `[H, W, 3]` uint8 BGR, read from the folder of images.
        blobs: what the workspace held, by name.
        scores, boxes: `[R, K]` and `[R, 4K]` float32 of each RoI, the boxes in image pixels.
        det_boxes, det_scores, det_classes: `[D, 4]` float32, `[D]` float32 and `[D]` int64 (from 1 on): detections.
        masks: `[D, M, M]` float32, the soft mask of each detection's own class.
        rle_counts: COCO run lengths of each pasted mask; they make up the image.
    """

    name: str
    image: Image
    blobs: Mapping[str, ReferenceBlob]
    scores: Array
    boxes: Array
    det_boxes: Array
    det_scores: Array
    det_classes: npt.NDArray[np.int64]
    masks: Array
    rle_counts: Sequence[str]

    @property
    def image_size(self) -> tuple[int, int]:
        """Height and width."""
        return self.image.shape[0], self.image.shape[1]


def reference_names(path: Path) -> list[str]:
    """The names of the images in a reference file; InputError where it is none."""
    with _opened(path) as file:
        names = [name for name in file if isinstance(file.get(name), h5py.Group) and "det_boxes" in file[name]]
    if not names:
        raise InputError(f"{path} holds no image with reference detections: make it with dump_blobs.py")
    return names


def read_reference(path: Path, name: str, images: Path, cfg: Config) -> ImageReference:
    """Read and check what a reference file holds of one image.

    Args:
        name: of the image, in the reference and in the folder `images`.
        cfg: of the model it is to be compared with, whose number of classes and mask resolution it must have.

    Raises InputError for a reference that is damaged or of another model, or an image that is missing.
    """
    image = read_image(images / name)
    with _opened(path) as file:
        if name not in file:
            raise InputError(f"{path} holds no image {name}")
        return _Reader(f"{path}: {name}", file[name], cfg).read(name, image)


def read_references(path: Path, images: Path, cfg: Config) -> Iterator[ImageReference]:
    """`read_reference` of every image of a file, one after another."""
    for name in reference_names(path):
        yield read_reference(path, name, images, cfg)


@contextmanager
def _opened(path: Path) -> Iterator[h5py.File]:
    """An HDF5 file; whatever h5py makes of its bytes comes out as an InputError."""
    if not path.is_file():
        raise InputError(f"{path}: no such reference file: make one with dump_blobs.py")
    try:
        file = h5py.File(path)
    except Exception as error:
        cause = _first_line(error)
        raise InputError(f"{path} is not an HDF5 reference file ({cause}): make one with dump_blobs.py") from None
    with file:
        try:
            yield file
        except InputError:
            raise
        # A changed byte may meet h5py anywhere: OSError, RuntimeError, KeyError, AttributeError, UnicodeError, ...
        except Exception as error:
            raise InputError(f"{path} is damaged ({_first_line(error)}): {_AGAIN}") from None


class _Reader:
    """Takes the datasets of one image from its group, each of them checked."""

    def __init__(self, place: str, group: h5py.Group, cfg: Config) -> None:
        self.place = place
        self.group = group
        self.cfg = cfg

    def read(self, name: str, image: Image) -> ImageReference:
        self._check_present()
        self._check_size(image)
        classes = self.cfg.MODEL.NUM_CLASSES
        scores = self._rows("scores", (classes,), f"[R, {classes}]")
        boxes = self._rows("boxes", (4 * classes,), f"[R, {4 * classes}]")
        if len(boxes) != len(scores):
            self._refuse("boxes", f"has {len(boxes)} rows, scores {len(scores)}")
        det_scores = self._rows("det_scores", (), "[D]")
        count = len(det_scores)
        det_boxes = self._rows("det_boxes", (4,), "[D, 4]", count)
        for key, values in (("det_scores", det_scores), ("det_boxes", det_boxes)):
            # Detectron keeps what scores more than a threshold, which nothing does that is not a number.
            if not np.isfinite(values).all():
                self._refuse(key, "holds values that are not finite, which no detection has")
        det_classes = self._classes(count)
        return ImageReference(
            name=name,
            image=image,
            blobs=self._blobs(len(scores), count),
            scores=scores,
            boxes=boxes,
            det_boxes=det_boxes,
            det_scores=det_scores,
            det_classes=det_classes,
            masks=self._masks(det_classes),
            rle_counts=self._run_lengths(count, image),
        )

    def _check_present(self) -> None:
        required = ["blobs", "blobs/rois", "boxes", "scores", "det_boxes", "det_scores", "det_classes", "rle_counts"]
        lacking = [key for key in required if key not in self.group]
        if "masks" not in self.group and "masks_of_class" not in self.group:
            lacking.append("masks")
        if lacking:
            raise InputError(f"{self.place} lacks {', '.join(lacking)}: {_AGAIN}")
        if not isinstance(self.group["blobs"], h5py.Group):
            self._refuse("blobs", "is no group")

    def _check_size(self, image: Image) -> None:
        """The image in the folder must be the one that the reference was made of."""
        told = self._guarded("attribute shape", lambda: self.group.attrs.get("shape"))
        if told is not None and (np.shape(told) != (3,) or [int(n) for n in told[:2]] != list(image.shape[:2])):
            size = f"{image.shape[0]}x{image.shape[1]}"
            self._refuse("attribute shape", f"is {_told(told)}, but the image in the folder is {size}: is it another?")

    def _masks(self, classes: npt.NDArray[np.int64]) -> Array:
        size = self.cfg.MRCNN.RESOLUTION
        if "masks_of_class" in self.group:
            return self._rows("masks_of_class", (size, size), f"[D, {size}, {size}]", len(classes))
        every = (self.cfg.MODEL.NUM_CLASSES, size, size)
        masks = self._rows("masks", every, f"[D, {every[0]}, {size}, {size}]", len(classes))
        return np.asarray(masks[np.arange(len(classes)), classes])

    def _classes(self, count: int) -> npt.NDArray[np.int64]:
        values = self._rows("det_classes", (), "[D]", count)
        most = self.cfg.MODEL.NUM_CLASSES - 1
        if not (np.isin(values, np.arange(1, most + 1))).all():
            self._refuse("det_classes", f"holds other classes than the model's, which are 1 to {most}", _OTHER_MODEL)
        return np.asarray(values.astype(np.int64))

    def _run_lengths(self, count: int, image: Image) -> list[str]:
        dataset = self._dataset("rle_counts", self.group["rle_counts"])
        values = self._guarded("rle_counts", lambda: np.asarray(dataset[()]).reshape(-1).tolist())
        if len(values) != count:
            self._refuse("rle_counts", f"has {len(values)} rows, det_scores {count}")
        texts = []
        for number, value in enumerate(values):
            text = value if isinstance(value, bytes) else value.encode("utf-8") if isinstance(value, str) else b""
            if not text.isascii() or not runs_cover(text, image.shape[0] * image.shape[1]):
                size = f"{image.shape[0]}x{image.shape[1]}"
                self._refuse("rle_counts", f"is damaged: row {number} does not make up the {size} pixels of the image")
            texts.append(text.decode("ascii"))
        return texts

    def _blobs(self, rois: int, detections: int) -> dict[str, ReferenceBlob]:
        group = self.group["blobs"]
        blobs = {blob: self._blob(blob, self._item(f"blobs/{blob}", group, blob)) for blob in group}
        self._check_rois("rois", blobs["rois"], rois)
        if "mask_rois" in blobs and blobs["mask_rois"].values.size:
            self._check_rois("mask_rois", blobs["mask_rois"], detections)
        for blob in blobs:
            if blob.startswith("rpn_rois_fpn"):
                self._check_rois(blob, blobs[blob], None)
                scores = blobs.get(blob.replace("rpn_rois", "rpn_roi_probs"))
                if scores is not None and scores.shape != (blobs[blob].shape[0], 1):
                    told = f"is {_told(scores.shape)}, not a score for each of {blobs[blob].shape[0]} proposals"
                    self._refuse(f"blobs/{blob.replace('rpn_rois', 'rpn_roi_probs')}", told)
        return blobs

    def _blob(self, name: str, item: Any) -> ReferenceBlob:
        key = f"blobs/{name}"
        dataset = self._dataset(key, item)
        stride, shape = self._guarded(key, lambda: _layout(dataset))
        size = int(np.prod(shape, dtype=object)) if shape else 1
        if stride < 1 or min(shape, default=0) < 0 or dataset.size != -(-size // stride):
            told = f"it holds {dataset.size} values at stride {stride}"
            raise InputError(f"{self.place}: blob {name} is damaged: {told}: {_AGAIN}")
        if size > _MOST_VALUES:
            self._refuse(key, f"is {_told(shape)}, more than any blob")
        return ReferenceBlob(self._numbers(key, dataset).reshape(-1), shape, stride)

    def _check_rois(self, name: str, blob: ReferenceBlob, count: int | None) -> None:
        """RoIs are rows (index of the image, x1, y1, x2, y2), and a run is of one image."""
        key = f"blobs/{name}"
        if len(blob.shape) != 2 or blob.shape[1] != 5:
            self._refuse(key, f"is {_told(blob.shape)}, not [R, 5]")
        if count is not None and blob.shape[0] != count:
            self._refuse(key, f"has {blob.shape[0]} rows, not {count} as what was computed of them")
        index = blob.known()[:, 0]
        if bool((index.nan_to_num(0.0) != 0).any()):
            self._refuse(key, "holds RoIs of other images than the first, and a run is of one image")

    def _rows(self, key: str, row: tuple[int, ...], told: str, count: int | None = None) -> Array:
        """A dataset `[count, *row]` of numbers; without a row in it any shape will do."""
        dataset = self._dataset(key, self._item(key, self.group, key))
        shape = tuple(dataset.shape)
        if 0 in shape[:1] and not count:
            return np.zeros((0, *row), np.float32)
        if len(shape) != 1 + len(row) or shape[1:] != row:
            self._refuse(key, f"is {_told(shape)}, not {told}", _OTHER_MODEL)
        if count is not None and shape[0] != count:
            self._refuse(key, f"has {shape[0]} rows, det_scores {count}")
        if dataset.size > _MOST_VALUES:
            self._refuse(key, f"is {_told(shape)}, more than any image has")
        return self._numbers(key, dataset)

    def _numbers(self, key: str, dataset: h5py.Dataset) -> Array:
        if dataset.dtype.kind not in "iufb":
            self._refuse(key, f"holds {dataset.dtype}, not numbers")
        values: Array = self._guarded(key, lambda: np.asarray(dataset[()]))
        return values

    def _item(self, key: str, group: h5py.Group, name: str) -> Any:
        return self._guarded(key, lambda: group[name])

    def _dataset(self, key: str, item: Any) -> h5py.Dataset:
        if not isinstance(item, h5py.Dataset):
            self._refuse(key, "is no dataset")
        if item.shape is None:
            self._refuse(key, "holds nothing")
        return item

    def _guarded(self, key: str, read: Callable[[], Any]) -> Any:
        """What `read` gives; whatever h5py or numpy raises over it names the dataset."""
        try:
            return read()
        except Exception as error:
            self._refuse(key, f"cannot be read ({_first_line(error)})")

    def _refuse(self, key: str, fault: str, way_out: str = _AGAIN) -> NoReturn:
        raise InputError(f"{self.place}: {key} {fault}: {way_out}")


def _layout(dataset: h5py.Dataset) -> tuple[int, tuple[int, ...]]:
    """Stride and whole shape, as the attributes tell them; ValueError where they are no whole numbers."""
    stride = np.asarray(dataset.attrs.get("stride", 1))
    shape = np.asarray(dataset.attrs.get("shape", dataset.shape))
    for name, value, dimensions in (("stride", stride, 0), ("shape", shape, 1)):
        if value.ndim != dimensions or value.size and (value.dtype.kind not in "iuf" or not (value % 1 == 0).all()):
            raise ValueError(f"its attribute {name} is {_told(value)}")
    return int(stride), tuple(int(size) for size in shape)


def _told(value: Any) -> str:
    """A shape as `3x4`, anything else as it prints."""
    if isinstance(value, tuple):
        return "x".join(map(str, value)) or "a single value"
    return str(np.asarray(value).tolist())[:60]


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0].strip("'\"")
