"""Detectron's proposals file, `rpn_proposals.pkl`, read without unpickling it and written as Detectron writes it.

It holds `{'boxes': [array, ...], 'scores': [array, ...], 'ids': [image id, ...], 'cfg': text}`, one row per image;
files of Fast R-CNN's time call the ids `indexes` (Detectron core/rpn_generator.py:generate_rpn_on_dataset,
datasets/json_dataset.py:_add_proposals_from_file).
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from detectron_gn.weights.errors import MalformedFile, OverBudget, WrongFormat
from detectron_gn.weights.files.atomic import replacing
from detectron_gn.weights.files.mapped_file import MappedFile
from detectron_gn.weights.formats.pickle_reader import NumpyGrammar, PickledArray, read_array
from detectron_gn.weights.formats.pickle_values import Text, Value, describe
from detectron_gn.weights.formats.pickle_vm import PickleVM
from detectron_gn.weights.formats.pickle_writer import Pickler
from detectron_gn.weights.formats.recognise import is_pickle
from detectron_gn.weights.limits import (
    BYTES_OF_AN_OPCODE,
    MAX_CFG_BYTES,
    MAX_OPCODES,
    MAX_PROPOSALS_OPCODES,
    MAX_SHARED_PROPOSALS_BYTES,
)
from detectron_gn.weights.weights_file import Array, array_bytes

_HEAD = 64
_FORM = (
    "a pickle as `test` of an RPN writes it: {'boxes': [array [R, 4], ...], 'scores': [array [R], ...], "
    "'ids': [image id, ...]}"
)


@dataclass(frozen=True)
class ProposalsPickle:
    """What a proposals file holds, image by image.

    Attributes:
        boxes: `[R, 4]` each, inclusive corners in image pixels, best first.
        scores: `[R]` each.
        ids: of the images, none twice.
        cfg: the configuration of the model that made them, as YAML; None if absent.
    """

    boxes: Sequence[Array]
    scores: Sequence[Array]
    ids: Sequence[int]
    cfg: str | None


def read_proposals(path: str | os.PathLike[str]) -> ProposalsPickle:
    """Read a proposals file. Nothing in it is imported, called or executed.

    Raises a `weights.errors.FileError` with one sentence where the file is something else, is damaged, or asks for more
    than proposals need.
    """
    with MappedFile(path) as file:
        if not is_pickle(file):
            found = "JSON" if bytes(file.map[:_HEAD]).lstrip()[:1] in (b"{", b"[") else "no pickle"
            raise WrongFormat(file.source, f"is {found}, and proposals are {_FORM}")
        budget = min(MAX_PROPOSALS_OPCODES, MAX_OPCODES + file.size // BYTES_OF_AN_OPCODE)
        machine = PickleVM(file.map, file.source, NumpyGrammar(), budget)
        top = machine.run()
        if not isinstance(top, dict):
            raise MalformedFile(file.source, f"holds {describe(top)}, not a dictionary with boxes and ids")
        id_key = "indexes" if "indexes" in top else "ids"
        boxes, scores, ids = (_rows(top, key, file.source) for key in ("boxes", "scores", id_key))
        if not len(boxes) == len(scores) == len(ids):
            told = f"{len(boxes)} boxes, {len(scores)} scores and {len(ids)} {id_key}"
            raise MalformedFile(file.source, f"holds {told}, which must be one for each image")
        image_ids = [_image_id(file, value, id_key) for value in ids]
        if len(set(image_ids)) < len(image_ids):
            raise MalformedFile(file.source, f"names an image twice in {id_key!r}")
        _check_budget(file, [*boxes, *scores])
        cfg = top.get("cfg")
        return ProposalsPickle(
            _each_once(boxes, image_ids, partial(_boxes, file)),
            _each_once(scores, image_ids, partial(_scores, file)),
            image_ids,
            machine.text(cfg, MAX_CFG_BYTES) if isinstance(cfg, Text) else None,
        )


def write_proposals(path: Path, proposals: ProposalsPickle) -> None:
    """Write a proposals file, opcode for opcode as Python 2's cPickle would; WriteFailed where that is not possible."""

    def arrays(values: Sequence[Array]) -> Callable[[], None]:
        return lambda: pickler.sequence((partial(pickler.array, array) for array in values), len(values))

    def ids() -> None:
        pickler.sequence((partial(pickler.integer, value) for value in proposals.ids), len(proposals.ids))

    with replacing(path) as temporary, open(temporary, "wb") as handle:
        pickler = Pickler(handle)
        entries: list[tuple[str, Callable[[], None]]] = [
            ("boxes", arrays(proposals.boxes)),
            ("scores", arrays(proposals.scores)),
            ("ids", ids),
        ]
        if proposals.cfg is not None:
            text = proposals.cfg.encode()
            entries.append(("cfg", lambda: pickler.string(text)))
        pickler.write_top(entries)


def _rows(top: dict[str | int, Value], key: str, source: str) -> Sequence[Value]:
    """The list under a key, one item per image."""
    value = top.get(key)
    if not isinstance(value, list | tuple):
        found = f"{describe(value)} under {key!r}" if key in top else f"no {key!r}"
        raise MalformedFile(source, f"holds {found}, where proposals have a list with one item for each image")
    return value


def _check_budget(file: MappedFile, values: Sequence[Value]) -> None:
    """Refuse arrays that together hold more bytes than the file, one that several images share counted once.

    Counted for each image, they must not be more than what their use can take.
    """
    counts = Counter(map(id, values))
    total = shared = 0
    for value in {id(value): value for value in values}.values():
        if isinstance(value, PickledArray) and value.dtype is not None:
            size = array_bytes(value.shape, value.dtype.itemsize, "an array", file.source)
            total += size
            shared += counts[id(value)] * size
    if total > file.size:
        raise OverBudget(file.source, f"its arrays would take {total} bytes, but the file has only {file.size}")
    if shared > max(file.size, MAX_SHARED_PROPOSALS_BYTES):
        told = f"more than the {MAX_SHARED_PROPOSALS_BYTES} that shared ones may"
        raise OverBudget(file.source, f"its arrays, each for every image that shares it, take {shared} bytes, {told}")


def _each_once(values: Sequence[Value], images: Sequence[int], read: Callable[[Value, int], Array]) -> list[Array]:
    """What is read of each image's value; of one that several images share it is one array."""
    known: dict[int, Array] = {}
    for value, image in zip(values, images, strict=True):
        if id(value) not in known:
            known[id(value)] = read(value, image)
    return [known[id(value)] for value in values]


def _array(file: MappedFile, value: Value, name: str) -> Array:
    if not isinstance(value, PickledArray) or value.dtype is None:
        found = "an array without content" if isinstance(value, PickledArray) else describe(value)
        raise MalformedFile(file.source, f"{name} is {found}, not an array of numbers")
    return read_array(file, name, value)


def _image_id(file: MappedFile, value: Value, key: str) -> int:
    if isinstance(value, PickledArray):
        array = _array(file, value, key)
        if array.size == 1 and array.dtype.kind in "iu":
            return int(array.reshape(-1)[0])
    if isinstance(value, bool) or not isinstance(value, int):
        raise MalformedFile(file.source, f"{key!r} holds {describe(value)}, not the whole number of an image")
    return value


def _boxes(file: MappedFile, value: Value, image: int) -> Array:
    array = _array(file, value, f"the boxes of image {image}")
    if not array.size:
        return np.zeros((0, 4), np.float32)
    if array.ndim != 2 or array.shape[1] != 4:
        raise MalformedFile(file.source, f"the boxes of image {image} are {list(array.shape)}, not [R, 4]")
    if not np.isfinite(array).all():
        raise MalformedFile(file.source, f"the boxes of image {image} hold NaN or infinity")
    return array if array.dtype.kind == "f" else array.astype(np.float64)


def _scores(file: MappedFile, value: Value, image: int) -> Array:
    """`[R]`; of a single proposal Detectron writes a number without dimensions."""
    return _array(file, value, f"the scores of image {image}").reshape(-1)
