"""The model that `detect` runs, with the names of its classes."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from detectron_gn.mrcnn.data.annotations.json_file import read_annotation_file
from detectron_gn.mrcnn.data.categories import PROPOSALS, Categories, match_categories, numbered
from detectron_gn.mrcnn.data.proposals_file import StoredProposals
from detectron_gn.mrcnn.detectors import Detector, ProposalNetwork
from detectron_gn.mrcnn.distributed import Ranks
from detectron_gn.mrcnn.errors import InputError
from detectron_gn.mrcnn.wording import listed, printable
from detectron_gn.port.classes import BY_PLACE, NUMBERED
from detectron_gn.port.options import given_model
from detectron_gn.port.runs.proposals import stored_proposals
from detectron_gn.weights.command_line import note


class Loaded(NamedTuple):
    """A model, what its detections are called, and where it looks for objects if it has no RPN."""

    model: Detector
    categories: Categories
    proposals: StoredProposals | None


def loaded(args: argparse.Namespace, ranks: Ranks) -> Loaded:
    """The model that the options of `detect` name; where nobody knows what its classes are called, that is said."""
    model = given_model(args, ranks.device)
    if args.save_masks:
        _check_masks(model)
    categories = _detected_categories(model, args.annotations)
    if ranks.is_first and model.categories is None and not model.cfg.MODEL.RPN_ONLY:
        note(NUMBERED if args.annotations is None else f"{BY_PLACE}. Here:\n{_first(categories.names)}")
    return Loaded(model, categories, stored_proposals(model.cfg, args.proposals))


def _first(names: Sequence[str]) -> str:
    """The first classes with their numbers, as a line of a note."""
    told = [f"{number} {printable(name)}" for number, name in enumerate(names, 1)]
    return f"  {listed(told, most=4)}"


def _check_masks(model: Detector) -> None:
    """Raise InputError where masks are asked of a model that has none."""
    if not model.cfg.MODEL.MASK_ON:
        raise InputError("--save-masks asks for masks, and the model has no mask head (MODEL.MASK_ON): leave it out")


def _detected_categories(model: Detector, annotations: Path | None) -> Categories:
    """What detections are called: the model's classes, with the category ids of an annotation file where one is given.

    A model whose classes have no names takes those of the annotation file, class k of category k, or is numbered.
    Raises InputError where the categories of the file are not the model's classes.
    """
    if isinstance(model, ProposalNetwork):
        return PROPOSALS
    known = model.categories
    count = model.cfg.MODEL.NUM_CLASSES - 1
    if annotations is None:
        return known or numbered(count)
    categories = read_annotation_file(annotations)["categories"]
    given = [each.get("id") for each in categories]
    if not all(type(each) is int for each in given) or len(set(given)) < len(given):
        raise InputError(f"{annotations}: every category needs a whole number of its own as 'id', not {given}")
    ids = match_categories(None if known is None else known.names, count, categories, annotations)
    names = known.names if known is not None else tuple(str(each.get("name", each["id"])) for each in categories)
    return Categories(names, tuple(ids))
