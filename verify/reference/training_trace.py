"""A training trace, read and checked in one place: what the real Detectron did in some iterations.

docs/training_traces.md describes the layout. Whatever is wrong with a file (no trace, another model's, cut short,
without what is to be compared) comes out here as one InputError that names the file, the iteration and the dataset or
attribute.
"""

import re
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from detectron_gn.mrcnn.config import Config, mask_head_kind, num_box_classes
from detectron_gn.mrcnn.errors import InputError
from detectron_gn.mrcnn.training.anchor_targets import AnchorSample, level_suffixes
from detectron_gn.mrcnn.training.dense_targets import DenseField, DenseTargets, Places
from detectron_gn.mrcnn.training.keypoint_targets import KeypointSample
from detectron_gn.mrcnn.training.roi_targets import MaskSample, RoiSample
from detectron_gn.mrcnn.wording import listed
from detectron_gn.verify.reference.guarded_hdf5 import GuardedGroup, open_hdf5, shape_text, value_text
from detectron_gn.verify.reference.reference_blob import ReferenceBlob

Array = npt.NDArray[Any]
Shape = tuple[int, ...]

_AGAIN = "record the run again as docs/training_traces.md describes"
_OTHER_MODEL = "is the trace of another model?"
_ITERATION = re.compile(r"iter(\d{1,9})")
# Of a body's parameters: those of conv1 and of res2 to res5, or of VGG's conv1 to conv5.
_STAGE = re.compile(r"(?:(?:res_)?conv(1)|res([2-5])|conv([1-5])_[1-3])_")
_STAGES = 5


@contextmanager
def open_trace(path: Path) -> Iterator["TrainingTrace"]:
    """Open a training trace while the context lasts; InputError for a file that is none."""
    with open_hdf5(path, "give a training trace") as file:
        yield TrainingTrace(file, path)


class TrainingTrace:
    """An open training trace.

    Attributes:
        iterations: in order, from 0; there is one at least.
    """

    def __init__(self, file: h5py.File, path: Path) -> None:
        root = GuardedGroup(file, str(path), _AGAIN)
        if "iter0" not in root or "final" not in root:
            raise InputError(f"{path} holds no training iteration: give a training trace of Detectron")
        numbers = sorted(int(match[1]) for name in root.names() if (match := _ITERATION.fullmatch(name)))
        absent = next((place for place, number in enumerate(numbers) if place != number), None)
        if absent is not None:
            raise InputError(f"{path} holds iter{numbers[-1]}, but no iter{absent}: {_AGAIN}")
        self.iterations = tuple(
            TraceIteration(root.group(f"iter{number}", f"{path}: iter{number}"), path, number) for number in numbers
        )
        self._final = root.group("final", f"{path}: final")

    def check_blobs(self, shapes: Mapping[str, Shape], trained: Collection[str]) -> None:
        """See that there is something to compare before anything is trained.

        Args:
            shapes: of the model's parameters, by blob name.
            trained: the names of those that are not frozen.

        Raises InputError where Detectron trained more or fewer stages of the body, where the final value of a trained
        parameter is absent, or that of any of another size, or where an iteration holds no update.
        """
        self._check_frozen(shapes, trained)
        self._final.require(*trained)
        for name in filter(self.has_final, shapes):
            self._final.check_blob(name, shapes[name], _OTHER_MODEL)
        for iteration in self.iterations:
            updates = [name for name in trained if iteration.has_update(name)]
            if not updates:
                raise InputError(
                    f"{iteration.place} holds no update (PARAMETER_grad) of a parameter that the model trains, so that "
                    f"there is nothing to compare: {_OTHER_MODEL}"
                )
            for name in updates:
                iteration.check_update(name, shapes[name])

    def _check_frozen(self, shapes: Collection[str], trained: Collection[str]) -> None:
        """See that the same stages of the body are frozen: TRAIN.FREEZE_AT."""
        theirs = [name for name in shapes if f"{name}_momentum" in self._final]
        frozen_at = min([stage for name in theirs if (stage := _stage(name))], default=_STAGES + 1) - 1
        way_out = f"pass --set TRAIN.FREEZE_AT {frozen_at}"
        frozen_here = [name for name in theirs if name not in trained]
        if frozen_here:
            told = listed(frozen_here, most=3)
            raise InputError(
                f"{self._final.place} holds the momentum of {told}, which Detectron trained and this configuration "
                f"does not: {way_out}"
            )
        more = [name for name in trained if not (name in self._final or name in theirs or self._has_update(name))]
        if theirs and more and all(0 < _stage(name) <= frozen_at for name in more):
            raise InputError(
                f"{self._final.place} lacks {listed(more, most=3)}, which this configuration trains and Detectron did "
                f"not: {way_out}"
            )

    def _has_update(self, name: str) -> bool:
        return any(iteration.has_update(name) for iteration in self.iterations)

    def has_final(self, name: str) -> bool:
        """Whether the trace holds a parameter after the last iteration; frozen ones may be left out."""
        return name in self._final

    def final(self, name: str, shape: Shape) -> ReferenceBlob:
        """A parameter after the last iteration."""
        return self._final.blob_of_shape(name, shape, _OTHER_MODEL)

    def final_momentum(self, name: str, shape: Shape) -> ReferenceBlob | None:
        """Its momentum then, where the trace holds it."""
        key = f"{name}_momentum"
        return self._final.blob_of_shape(key, shape, _OTHER_MODEL) if key in self._final else None


class TraceIteration:
    """One iteration of a trace.

    Attributes:
        path, place: the file, and the file with the iteration, for messages.
        number: from 0.
        images: `(file name, whether it is mirrored)` of each image of the minibatch.
        lr: learning rate.
    """

    def __init__(self, group: GuardedGroup, path: Path, number: int) -> None:
        self._group = group
        self.path = path
        self.place = group.place
        self.number = number
        names = self._names("images")
        self.images = tuple(zip(names, self._flags("flipped", len(names)), strict=True))
        self.lr = self._number("lr")

    def loss(self, name: str) -> float:
        """A loss, as Detectron names it."""
        return self._number(name)

    def has_update(self, blob: str) -> bool:
        """Whether the trace holds the update of a parameter."""
        return f"{blob}_grad" in self._group

    def check_update(self, blob: str, shape: Shape) -> None:
        """See that it is as large as the parameter."""
        self._group.check_blob(f"{blob}_grad", shape, _OTHER_MODEL)

    def update(self, blob: str, shape: Shape) -> ReferenceBlob:
        """What was subtracted from a parameter: Caffe2 writes it over the gradient, whose name it keeps."""
        return self._group.blob_of_shape(f"{blob}_grad", shape, _OTHER_MODEL)

    def has_anchors(self, cfg: Config) -> bool:
        """Whether the trace holds the anchors that were sampled."""
        return f"rpn_labels_int32_wide{level_suffixes(cfg)[0]}" in self._group

    def anchors(self, cfg: Config, count: int) -> list[AnchorSample]:
        """The anchors that Detectron sampled in each image, on the CPU.

        From the `*_wide_fpnL` blobs, or `*_wide` without a pyramid, which cover the field of `count` anchors level by
        level.
        """
        parts = [self._level(suffix, cfg) for suffix in level_suffixes(cfg)]
        labels, targets = (np.concatenate(each, axis=1) for each in zip(*parts, strict=True))
        if labels.shape[1] != count:
            fault = f"cover {labels.shape[1]} anchors, the model has {count}"
            self._group.refuse("rpn_labels_int32_wide*", fault, "is TRAIN.MAX_SIZE that of the trace?")
        samples = []
        for image_labels, image_targets in zip(labels[..., 0], targets, strict=True):
            index = np.flatnonzero(image_labels >= 0)
            arrays = (index, image_labels[index].astype(np.float32), image_targets[index].astype(np.float32))
            samples.append(AnchorSample(*map(torch.from_numpy, arrays)))
        return samples

    def dense(self, cfg: Config, field: DenseField) -> tuple[list[DenseTargets], list[Shape]]:
        """What RetinaNet's anchors of each image were trained towards, on the CPU, and the shape of each level's map.

        From `retnet_cls_labels_fpnL`, which cover the maps and not the field: beyond them the labels are -1. Objects
        come from `retnet_roi_fg_bbox_locs_fpnL` and `retnet_roi_bbox_targets_fpnL`, which are absent where there are
        none.
        """
        images, whole = len(self.images), field.maps(torch.arange(len(field.anchors)))
        labels, shapes = torch.full((images, len(field.anchors)), -1), []
        rows = [np.zeros((0, 5), np.int64)]
        targets = [np.zeros((0, 4), np.float32)]
        for number, index in enumerate(whole):
            level = cfg.FPN.RPN_MIN_LEVEL + number
            name = f"retnet_cls_labels_fpn{level}"
            values = self._sampled(name)
            anchors, side, _ = index.shape
            if values.ndim != 4 or values.shape[:2] != (images, anchors) or max(values.shape[2:]) > side:
                fault = f"is {shape_text(values.shape)}, not [{images}, {anchors}, H, W] of up to {side} x {side}"
                self._group.refuse(name, fault, _OTHER_MODEL)
            self._check_values(name, values, -1, cfg.MODEL.NUM_CLASSES - 1)
            shapes.append(values.shape[2:])
            on_map = index[:, : values.shape[2], : values.shape[3]].flatten()
            labels[:, on_map] = _tensor(values.reshape(images, -1).astype(np.int64))
            if f"retnet_roi_fg_bbox_locs_fpn{level}" in self._group:
                located = self._located(level, number, (images, anchors, side), cfg)
                rows.append(located)
                targets.append(self._rows(f"retnet_roi_bbox_targets_fpn{level}", len(located), (4,)).astype(np.float32))
        image, *places = _tensor(np.concatenate(rows)).unbind(1)
        objects, box_targets = field.index(Places(*places)), _tensor(np.concatenate(targets))
        fg_num, bg_num = (torch.tensor(self._rows(f"retnet_{kind}_num", 1, ())[0] / images) for kind in ("fg", "bg"))
        found = []
        for number in range(images):
            order = objects[image == number].argsort()
            own = objects[image == number][order], box_targets[image == number][order]
            found.append(DenseTargets(labels[number], *own, fg_num, bg_num))
        return found, shapes

    def _located(self, level: int, number: int, limits: tuple[int, int, int], cfg: Config) -> Array:
        """Rows `[M, 5]` (image, level, anchor, y, x) of the objects of a level, whose number is from 0."""
        name, (images, anchors, side) = f"retnet_roi_fg_bbox_locs_fpn{level}", limits
        rows = self._sampled(name)
        if rows.ndim != 2 or rows.shape[1] != 4:
            self._group.refuse(name, f"is {shape_text(rows.shape)}, not [M, 4]")
        kinds = cfg.MODEL.NUM_CLASSES - 1 if cfg.RETINANET.CLASS_SPECIFIC_BBOX else 1
        for column, limit in enumerate((images, 4 * kinds * anchors, side, side)):
            self._check_values(f"{name} (column {column})", rows[:, column], 0, limit - 1)
        image, channel, y, x = rows.astype(np.int64).T
        return np.stack((image, np.full_like(image, number), channel // (4 * kinds), y, x), axis=1)

    def rois(self, cfg: Config) -> RoiSample:
        """The RoIs that Detectron sampled, on the CPU.

        From `rois`, `labels_int32`, `bbox_*`; with a mask head `mask_rois` and `masks_int32`, and `roi_has_mask_int32`
        where it shares res5; with a keypoint head `keypoint_rois`, `keypoint_locations_int32` and `keypoint_weights`.
        """
        classes = num_box_classes(cfg)
        rois = self._rois("rois")
        labels = self._rows("labels_int32", len(rois), ())
        self._check_values("labels_int32", labels, 0, cfg.MODEL.NUM_CLASSES - 1)
        weights = self._rows("bbox_inside_weights", len(rois), (classes, 4))
        box_classes = weights.any(axis=2).argmax(axis=1)
        targets = self._rows("bbox_targets", len(rois), (classes, 4))[np.arange(len(rois)), box_classes]
        return RoiSample(
            _tensor(rois.astype(np.float32)),
            _tensor(labels.astype(np.int64)),
            _tensor(box_classes),
            _tensor(targets.astype(np.float32)),
            self._masks(cfg, len(rois)) if cfg.MODEL.MASK_ON else None,
            self._keypoints(cfg) if cfg.MODEL.KEYPOINTS_ON else None,
        )

    def _masks(self, cfg: Config, count: int) -> MaskSample:
        """Those of the `count` RoIs that have a mask."""
        side = cfg.MRCNN.RESOLUTION
        rois = self._rois("mask_rois")
        rows = np.arange(len(rois))
        if mask_head_kind(cfg) == "v0upshare":
            rows = np.flatnonzero(self._rows("roi_has_mask_int32", count, ()))
            if len(rows) != len(rois):
                self._group.refuse("roi_has_mask_int32", f"marks {len(rows)} RoIs, but mask_rois has {len(rois)}")
        class_masks = self._rows("masks_int32", len(rois), (cfg.MODEL.NUM_CLASSES, side, side))
        self._check_values("masks_int32", class_masks, -1, 1)
        classes = (class_masks >= 0).any(axis=(2, 3)).argmax(axis=1)
        targets = class_masks[np.arange(len(rois)), classes]
        arrays: tuple[Array, ...] = (rois.astype(np.float32), classes, targets.astype(np.int8), rows)
        return MaskSample(*map(_tensor, arrays))

    def _keypoints(self, cfg: Config) -> KeypointSample:
        points = cfg.KRCNN
        rois = self._rois("keypoint_rois", least=0)
        by_roi = (len(rois), points.NUM_KEYPOINTS)
        positions, weights = (
            self._rows(name, len(rois) * points.NUM_KEYPOINTS, ()).reshape(by_roi)
            for name in ("keypoint_locations_int32", "keypoint_weights")
        )
        self._check_values("keypoint_locations_int32", positions, 0, points.HEATMAP_SIZE**2 - 1)
        self._check_values("keypoint_weights", weights, 0, 1)
        arrays: tuple[Array, ...] = (rois.astype(np.float32), positions.astype(np.int64), weights.astype(np.bool_))
        return KeypointSample(*map(_tensor, arrays))

    def _level(self, suffix: str, cfg: Config) -> tuple[Array, Array]:
        """Labels `[N, H * W * A, 1]` and targets `[N, H * W * A, 4]` of a level, rows (y, x, anchor)."""
        images, rpn = len(self.images), cfg.RPN
        anchors = len(cfg.FPN.RPN_ASPECT_RATIOS) if cfg.FPN.FPN_ON else len(rpn.ASPECT_RATIOS) * len(rpn.SIZES)
        names = (f"rpn_labels_int32_wide{suffix}", f"rpn_bbox_targets_wide{suffix}")
        labels, targets = map(self._sampled, names)
        for name, blob, values in zip(names, (labels, targets), (1, 4), strict=True):
            expected = (images, values * anchors, *labels.shape[2:])
            if blob.ndim != 4 or blob.shape != expected:
                fault = f"is {shape_text(blob.shape)}, not [{images}, {values * anchors}, H, W]"
                self._group.refuse(name, fault, _OTHER_MODEL)
        self._check_values(names[0], labels, -1, 1)
        return _by_anchor(labels, 1), _by_anchor(targets, 4)

    def _rois(self, name: str, least: int = 1) -> Array:
        """Rows `[R, 5]` (index of the image, x1, y1, x2, y2); Detectron always has one, but for keypoints."""
        rois = self._sampled(name)
        if rois.ndim != 2 or rois.shape[1] != 5 or len(rois) < least:
            self._group.refuse(name, f"is {shape_text(rois.shape)}, not [R, 5]" + " with a RoI at least" * least)
        self._check_values(f"{name} (column 0, the image)", rois[:, 0], 0, len(self.images) - 1)
        return rois

    def _rows(self, name: str, count: int, row: Shape) -> Array:
        """An array `[count, *row]`, whose rows may be flat in the file."""
        values = self._sampled(name)
        if values.shape[:1] != (count,) or values.size != count * int(np.prod(row)):
            self._group.refuse(name, f"is {shape_text(values.shape)}, not {shape_text((count, *row))}", _OTHER_MODEL)
        return values.reshape(count, *row)

    def _sampled(self, name: str) -> Array:
        """An array of the sampled minibatch: numbers that are finite in float32."""
        if name not in self._group:
            raise InputError(
                f"{self.path} has no {name} in /iter{self.number}: a trace of random sampling must hold the sampled "
                "minibatch of every iteration; of a run that was trained on whole minibatches give the options that "
                "it had (--set TRAIN.RPN_BATCH_SIZE_PER_IM and TRAIN.BATCH_SIZE_PER_IM)"
            )
        values = self._group.numbers(name)
        with np.errstate(over="ignore"):
            are_finite = np.isfinite(values.astype(np.float32)).all()
        if not are_finite:
            self._group.refuse(name, "holds values that are not finite, which nothing is trained on")
        return values

    def _check_values(self, name: str, values: Array, least: int, most: int) -> None:
        """Whole numbers of a range."""
        if not np.isin(values, np.arange(least, most + 1)).all():
            self._group.refuse(name, f"holds other values than {least} to {most}", _OTHER_MODEL)

    def _attribute(self, name: str) -> Array:
        value = self._group.attribute(name)
        if value is None:
            self._group.refuse(f"attribute {name}", "is missing")
        return np.asarray(value)

    def _number(self, name: str) -> float:
        """A number; Caffe2 hands its scalars out as arrays of one value."""
        value = self._attribute(name)
        if value.size != 1 or value.dtype.kind not in "iuf" or not np.isfinite(value).all():
            self._group.refuse(f"attribute {name}", f"is {value_text(value)}, not a number")
        return float(value.reshape(-1)[0])

    def _names(self, name: str) -> list[str]:
        value = self._attribute(name)
        items = value.reshape(-1).tolist()
        if value.ndim != 1 or not items or not all(isinstance(item, (str, bytes)) for item in items):
            self._group.refuse(f"attribute {name}", f"is {value_text(value)}, not a list of file names")
        try:
            return [item.decode() if isinstance(item, bytes) else item for item in items]
        except UnicodeDecodeError:
            self._group.refuse(f"attribute {name}", f"is {value_text(value)}, not text in UTF-8")

    def _flags(self, name: str, count: int) -> list[bool]:
        value = self._attribute(name)
        if value.shape != (count,) or value.dtype.kind not in "biuf" or not np.isin(value, (0, 1)).all():
            self._group.refuse(f"attribute {name}", f"is {value_text(value)}, not one flag per image ({count})")
        return [bool(flag) for flag in value]


def _stage(blob: str) -> int:
    """The stage of the body that a parameter belongs to, as TRAIN.FREEZE_AT counts them; 0 for any other."""
    found = _STAGE.match(blob)
    return int(found[found.lastindex or 0]) if found else 0


def _tensor(array: Array) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(array))


def _by_anchor(blob: Array, values: int) -> Array:
    """`[N, values * A, H, W]` of a level to `[N, H * W * A, values]`, rows (y, x, anchor)."""
    return np.ascontiguousarray(blob.transpose(0, 2, 3, 1)).reshape(len(blob), -1, values)
