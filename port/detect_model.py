"""The model that `detect` runs, with the names of its classes."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, NamedTuple

from detectron_gn.port.classes import BY_PLACE, NUMBERED
from detectron_gn.port.options import given_model
from detectron_gn.port.runs.detect import check_masks, detected_categories
from detectron_gn.port.runs.proposals import stored_proposals

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
        print(NUMBERED if args.annotations is None else BY_PLACE)
    return Loaded(model, categories, stored_proposals(model.cfg, args.proposals))
