"""What a training run starts from: a weights file fitted to the network and the classes that are to be trained."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np

from detectron_gn.mrcnn.config import Config
from detectron_gn.mrcnn.data.categories import BACKGROUND, Places, equal_names
from detectron_gn.mrcnn.detectors import Detector
from detectron_gn.mrcnn.errors import InputError
from detectron_gn.mrcnn.training.solver import MomentumSGD
from detectron_gn.mrcnn.wording import listed, printable
from detectron_gn.port.blobs.convert import check_leftovers, fill_parameters, told_unfolded
from detectron_gn.port.blobs.family import MOMENTUM, family_of
from detectron_gn.port.blobs.layouts import with_blob_names
from detectron_gn.port.blobs.leftovers import told_preserved
from detectron_gn.port.blobs.match import BlobMatch, match_blobs
from detectron_gn.port.blobs.solver_state import load_momentum
from detectron_gn.port.blobs.table import BlobRow, BlobTable
from detectron_gn.port.keypoint_rows import KeypointRows, fit_keypoints
from detectron_gn.weights.weights_file import Array, WeightsFile

# A fixed kernel, whatever the classes are.
_UPSAMPLING = "mask_head.mask_fcn_logits_up"


@dataclass(frozen=True)
class StartingPoint:
    """What became of a weights file.

    Attributes:
        copied: blobs taken over whole.
        momenta: blobs whose momentum was taken over too.
        partly_copied: blob -> the classes whose rows were taken over, one at least.
        has_other_classes: whether the file has other classes than the network, so that not all rows are taken over.
        has_fresh_rows: whether rows of other classes are among theirs, freshly initialised.
        source_classes: the file's classes, the background first; None where their names were not known.
        by_place: whether the file has as many classes as the network, of unknown names, so that class k was taken to be
            class k.
        reordered: whether the file has the network's classes in another order, so that whole rows changed places.
        initialised: blobs that nothing of the file is in, freshly initialised as Detectron does.
        preserved: blobs that no parameter takes and that travel along, such as an ImageNet classifier.
        iteration: the last iteration that the file's own run had done, if the run can simply go on.
        keypoints: what became of the rows of another number of keypoints; None where there are as many.
    """

    copied: int
    momenta: int
    partly_copied: dict[str, tuple[str, ...]]
    initialised: tuple[str, ...]
    source_classes: tuple[str, ...] | None
    by_place: bool
    reordered: bool
    preserved: dict[str, Array]
    iteration: int | None
    keypoints: KeypointRows | None = None
    has_fresh_rows: bool = False
    has_other_classes: bool = False

    def report(self, *, is_named: bool = False) -> list[str]:
        """Lines that say all of it.

        Args:
            is_named: whether the person has named the file's classes.
        """
        lines = [
            f"{self.copied} blobs (arrays of weights) are copied, {self.momenta} of them with their momentum (the "
            "solver's memory of its steps)"
        ]
        for names in dict.fromkeys(self.partly_copied.values()):
            told = listed(["the background" if name == BACKGROUND else printable(name) for name in names], most=12)
            others = "; the others begin at random" if self.has_fresh_rows else ""
            blobs = ", ".join(blob for blob, found in self.partly_copied.items() if found == names)
            lines.append(f"partly copied, the rows of {told}{others}: {blobs}")
        if self.has_other_classes and self.source_classes is None:
            lines.append("the classes of the file are not known: --weights-classes names them and keeps equal ones")
        elif self.has_other_classes:
            told = listed([printable(name) for name in self.source_classes or ()][1:], most=12)
            advice = "" if is_named else "; where they are others, --weights-classes names them"
            lines.append(f"the classes of the file are {told}{advice}")
        if self.by_place:
            lines.append(
                "warning: the classes of the file are not known: class k is taken to be the k-th category of the "
                "data; --weights-classes names them and copies rows by name"
            )
        if self.reordered:
            lines.append("the file has the same classes in another order: their rows are copied by name")
        if self.keypoints is not None:
            lines.append(self.keypoints.report())
        if self.preserved:
            lines.append(told_preserved("the weights", tuple(self.preserved)))
        if self.initialised:
            lines.append(f"initialised as Detectron does: {', '.join(self.initialised)}")
        return lines


def start_from(
    model: Detector,
    solver: MomentumSGD,
    weights: WeightsFile,
    classes: Sequence[str],
    source_classes: Sequence[str] | None = None,
    *,
    keypoints: Sequence[str] | None = None,
    keep_unused: bool = False,
) -> StartingPoint:
    """Fill a freshly initialised network, and its solver's momentum, from a weights file.

    Args:
        classes: the network's classes, the background first.
        source_classes: those of the file; None for unknown ones. These are taken to be the network's own where there
            are as many, and others where there are not.
        keypoints: the names of the network's keypoints, where it has such and they are known.
        keep_unused: go on although parts of another network are left over; they are preserved.

    An ImageNet file gives the backbone and nothing else. A detector of other classes gives its heads' rows of the
    classes of the same name, and no momentum for those blobs; one of the same classes in another order gives both. One
    of another number of keypoints gives those of the same name. Heads that a detector lacks are initialised. Everything
    else must fit, else InputError names it. Blobs that are not used are preserved.
    """
    table = BlobTable.from_model(model)
    weights = with_blob_names(table, weights)
    fit = _fit_classes(model, table, weights, classes, source_classes)
    fitted, partly_copied = fit.weights, fit.partly_copied
    fitted_keypoints, keypoint_rows = fit_keypoints(model, table, fitted, keypoints)
    made_anew = fit.made_anew
    if keypoint_rows is not None:
        made_anew += keypoint_rows.fixed
    match = match_blobs(table, fitted_keypoints)
    _check_missing(weights, match)
    check_leftovers(match.leftovers, fitted, keep_unused=keep_unused)
    fill_parameters(model, match)
    momenta = load_momentum(model, solver, match)
    preserved = {name: weights.blobs[name] for name in match.leftovers.preserved + match.leftovers.trained}
    whole = not fit.has_other_classes and not match.missing and keypoint_rows is None
    of_keypoints = len(keypoint_rows.blobs) if keypoint_rows else 0
    return StartingPoint(
        copied=len(match.filled) - len(partly_copied) - len(made_anew) - of_keypoints,
        momenta=momenta,
        partly_copied=partly_copied,
        has_other_classes=fit.has_other_classes,
        has_fresh_rows=fit.has_fresh_rows,
        initialised=(*made_anew, *(row.blob for row in match.missing)),
        source_classes=None if source_classes is None else tuple(source_classes),
        by_place=source_classes is None and _class_count(weights, model.cfg) == len(classes),
        reordered=fitted is not weights and not fit.has_other_classes,
        preserved=preserved,
        iteration=weights.iteration if whole else None,
        keypoints=keypoint_rows,
    )


class _ClassRows(NamedTuple):
    """How a blob's rows hang on the classes: `[anchors, classes, rows a class]`, with the background or without it."""

    rows_a_class: int
    anchors: int = 1
    with_background: bool = True

    def of_classes(self, array: Array, count: int) -> Array:
        """A view `[anchors, classes, ...]` of a blob of so many classes, the background among them."""
        return array.reshape(self.anchors, count - (not self.with_background), self.rows_a_class, -1)

    def rows(self, count: int) -> int:
        """How many rows the blob has of so many classes."""
        return self.anchors * (count - (not self.with_background)) * self.rows_a_class


def _class_rows(table: BlobTable, cfg: Config) -> dict[str, tuple[BlobRow, _ClassRows]]:
    """The rows of the dictionary that have rows a class, by blob, and how these are laid out."""
    layers = {"box_head.cls_score": _ClassRows(1)}
    if not cfg.MODEL.CLS_AGNOSTIC_BBOX_REG:
        layers["box_head.bbox_pred"] = _ClassRows(4)
    if cfg.MRCNN.CLS_SPECIFIC_MASK:
        layers["mask_head.mask_fcn_logits"] = _ClassRows(cfg.MRCNN.RESOLUTION**2 if cfg.MRCNN.USE_FC_OUTPUT else 1)
    if cfg.RETINANET.RETINANET_ON:
        layers["head.cls_pred"] = _ClassRows(1, _anchors(cfg), with_background=cfg.RETINANET.SOFTMAX)
        if cfg.RETINANET.CLASS_SPECIFIC_BBOX:
            layers["head.bbox_pred"] = _ClassRows(4, _anchors(cfg), with_background=False)
    return {
        row.blob: (row, layers[layer])
        for row in table.rows
        if (layer := row.parameter.rpartition(".")[0]) in layers
    }


def _anchors(cfg: Config) -> int:
    return cfg.RETINANET.SCALES_PER_OCTAVE * len(cfg.RETINANET.ASPECT_RATIOS)


def _class_count(weights: WeightsFile, cfg: Config) -> int | None:
    """The classes of a weights file, the background included; None where it has no head for them.

    Args:
        cfg: which tells how many rows a RetinaNet has for each class, and whether the background is among them.
    """
    if cfg.RETINANET.RETINANET_ON:
        bias = weights.blobs.get(f"retnet_cls_pred_fpn{cfg.FPN.RPN_MIN_LEVEL}_b")
        return None if bias is None else bias.size // _anchors(cfg) + (not cfg.RETINANET.SOFTMAX)
    family = family_of(weights.blobs)
    return family.classes if family.is_detector else None


class _ClassFit(NamedTuple):
    """Weights with the heads' rows brought to the network's classes.

    Attributes:
        partly_copied, has_other_classes, has_fresh_rows: as of `StartingPoint`.
        made_anew: blobs that the file holds and that hang on the number of classes, but of which no row is taken.
    """

    weights: WeightsFile
    partly_copied: dict[str, tuple[str, ...]] = {}
    made_anew: tuple[str, ...] = ()
    has_other_classes: bool = False
    has_fresh_rows: bool = False


def _fit_classes(
    model: Detector,
    table: BlobTable,
    weights: WeightsFile,
    classes: Sequence[str],
    source_classes: Sequence[str] | None,
) -> _ClassFit:
    """The weights with the heads' rows brought to the network's classes, and what became of them."""
    count = _class_count(weights, model.cfg)
    if count is None or (count == len(classes) and source_classes is None):
        return _ClassFit(weights)
    if source_classes is not None and len(source_classes) != count:
        raise InputError(
            f"{weights.source} has {count} classes with the background, but {len(source_classes)} names were given "
            "for them: give one name a class, without the background"
        )
    source_classes = source_classes or (BACKGROUND,)
    if equal_names(classes, source_classes):
        return _ClassFit(weights)
    places = Places(source_classes)
    taken = [(place, source) for place, name in enumerate(classes) if (source := places.find(name)) is not None]
    is_reordered = len(taken) == len(classes) == count

    def with_taken(array: Array, fresh: Array, layout: _ClassRows) -> Array:
        """The rows that are taken, in their new places, among fresh ones."""
        result: Array = fresh.copy()
        by_class = layout.of_classes(result, len(classes))
        source_by_class = layout.of_classes(np.asarray(array, dtype=np.float32), count)
        for place, source in taken:
            if layout.with_background:
                by_class[:, place] = source_by_class[:, source]
            elif place:
                by_class[:, place - 1] = source_by_class[:, source - 1]
        return result

    parameters = dict(model.named_parameters())
    blobs = dict(weights.blobs)
    class_rows = _class_rows(table, model.cfg)
    for row in table.rows:
        if row.parameter.startswith(_UPSAMPLING) and row.blob in blobs:
            blobs[row.blob] = parameters[row.parameter].detach().cpu().numpy()
    for blob, (row, layout) in class_rows.items():
        for name in (blob, blob + MOMENTUM):
            if name not in blobs:
                continue
            shape = blobs[name].shape
            if shape[1:] != row.shape[1:] or shape[0] != layout.rows(count):
                raise InputError(
                    f"{name} is {list(shape)} in {weights.source}, but the configuration makes it {list(row.shape)}: "
                    "only the number of classes may differ"
                )
            if name == blob:
                fresh = parameters[row.parameter].detach().cpu().numpy()
                blobs[name] = with_taken(blobs[name], fresh, layout)
            elif is_reordered:
                blobs[name] = with_taken(blobs[name], np.zeros(row.shape, np.float32), layout)
            else:
                del blobs[name]
    fixed = [row.blob for row in table.rows if row.parameter.startswith(_UPSAMPLING) and row.blob in weights.blobs]
    fitted = replace(weights, blobs=blobs)
    if is_reordered:
        return _ClassFit(fitted, made_anew=tuple(fixed))
    found = {
        blob: tuple(classes[place] for place, _ in taken if place or layout.with_background)
        for blob, (_, layout) in class_rows.items()
        if blob in blobs
    }
    partly_copied = {blob: names for blob, names in found.items() if names}
    made_anew = (*(blob for blob, names in found.items() if not names), *fixed)
    return _ClassFit(fitted, partly_copied, made_anew, True, len(taken) < len(classes))


def _check_missing(weights: WeightsFile, match: BlobMatch) -> None:
    """The body must be whole; whole layers that come after it may be missing, and Detectron initialises them, too."""
    family = family_of(weights.blobs)
    if family.has_unfolded_norms:
        raise InputError(told_unfolded(weights.source))
    held = {_layer(parameter) for parameter in match.filled}
    needed = [row for row in match.missing if "backbone.body." in row.parameter or _layer(row.parameter) in held]
    if needed:
        if family.kind == "unknown":
            what = "it is no Detectron model; give one, or a file that this project wrote"
        else:
            kind = "an ImageNet backbone" if family.kind == "backbone" else "a model"
            body = f"{family.body} {family.norm}"
            what = f"it is {kind} of another depth or normalisation ({body}) or damaged; pass --config with its YAML"
        names = listed([row.blob for row in needed])
        raise InputError(f"{weights.source} lacks {names}, which the configuration needs: {what}")


def _layer(parameter: str) -> str:
    return parameter.rpartition(".")[0]
