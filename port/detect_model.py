"""What both ways of `detect` share: the model and the names of its classes, and how it tells what it could not use."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from detectron_gn.mrcnn.errors import InputError
from detectron_gn.port.classes import BY_PLACE, NUMBERED
from detectron_gn.port.options import given_model
from detectron_gn.port.runs.detect import check_masks, detected_categories
from detectron_gn.port.runs.drawn_rows import shown_score
from detectron_gn.port.runs.proposals import stored_proposals
from detectron_gn.weights.command_line import note
from detectron_gn.weights.shown import one_line

if TYPE_CHECKING:
    from detectron_gn.mrcnn.data.categories import Categories
    from detectron_gn.mrcnn.data.proposals_file import StoredProposals
    from detectron_gn.mrcnn.detectors import Detector
    from detectron_gn.mrcnn.distributed import Ranks


class Loaded(NamedTuple):
    """A model, what its detections are called, and where it looks for objects if it has no RPN."""

    model: Detector
    categories: Categories
    proposals: StoredProposals | None


def loaded(args: argparse.Namespace, ranks: Ranks) -> Loaded:
    """The model that the options of `detect` name; where nobody knows what its classes are called, that is said."""
    model = given_model(args, ranks.device)
    if args.save_masks:
        check_masks(model)
    categories = detected_categories(model, args.annotations)
    if ranks.is_first and model.categories is None and not model.cfg.MODEL.RPN_ONLY:
        note(NUMBERED if args.annotations is None else BY_PLACE)
    return Loaded(model, categories, stored_proposals(model.cfg, args.proposals))


def tell_unread(error: InputError | str) -> None:
    """Say of one image or video that it could not be read."""
    print(one_line(f"detectron-gn: {error}"), file=sys.stderr, flush=True)


def told_unread(unread: int, count: int, kind: str, out: Path) -> str:
    """The sentence about all that could not be read; `kind` is what they are."""
    if unread == count:
        return f"none of the {count:,} {kind} could be read"
    return f"{unread:,} of {count:,} {kind} could not be read, as said above; what was found in the others is in {out}"


def without_unread(unread: int) -> str:
    """What a line of counts says of those that could not be read."""
    return f", {unread:,} could not be read" if unread else ""


def told_shown(least_score: float | None) -> str:
    """What pictures show, which nobody sees in them."""
    return f"what scores at least {shown_score(least_score):g}"
