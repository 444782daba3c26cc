"""The proposals that a model without an RPN is given: of the command line, or of its configuration."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from detectron_gn.mrcnn.config import Config, takes_proposals
from detectron_gn.mrcnn.data.proposals_file import StoredProposals
from detectron_gn.mrcnn.errors import InputError
from detectron_gn.weights.formats.proposals_pickle import read_proposals

# Of proposals that are corners none ends before it begins; a few may be somebody's mistake.
_INVERTED = 0.05


def stored_proposals(cfg: Config, path: Path | None, option: str = "--proposals") -> StoredProposals | None:
    """The proposals of a file, or of `cfg.TEST.PROPOSAL_FILES` where no file is given and that is one which exists.

    Args:
        option: what the command line calls them, for a sentence.

    None for a model that makes its own, without a file. Raises InputError where a model needs proposals and there are
    none, and FileError for a file that holds something else.
    """
    named = cfg.TEST.PROPOSAL_FILES
    if path is None and takes_proposals(cfg):
        if len(named) != 1 or not Path(named[0]).is_file():
            found = f"names {', '.join(named)}, which is no one file here" if named else "names none"
            raise InputError(
                f"the model has no RPN (MODEL.FASTER_RCNN is False) and TEST.PROPOSAL_FILES {found}: give {option} "
                "with the rpn_proposals.pkl that `test` writes for an RPN on the same images"
            )
        path = Path(named[0])
    return None if path is None else _read(path)


def training_proposals(cfg: Config, paths: Sequence[Path]) -> list[StoredProposals]:
    """The proposals to train on, file by file: of the command line or, where it gives none, TRAIN.PROPOSAL_FILES.

    None for a model that makes its own; that files belong to data sets is `training_roidb`'s to say. Raises FileError
    for a file that holds something else.
    """
    named = [Path(name) for name in cfg.TRAIN.PROPOSAL_FILES]
    if not paths and takes_proposals(cfg) and all(path.is_file() for path in named):
        paths = named
    return [_read(path) for path in paths]


def _read(path: Path) -> StoredProposals:
    proposals = read_proposals(path)
    _check_corners(proposals.boxes, path)
    return StoredProposals(proposals.boxes, proposals.ids, str(path))


def _check_corners(boxes: Sequence[npt.NDArray[np.floating[Any]]], path: Path) -> None:
    """InputError for boxes that are shares of the image, or x, y, width and height: no proposals would be left."""
    known = {id(each): each for each in boxes if each.size}.values()
    if not known:
        return
    if max(float(each.max()) for each in known) <= 1:
        found = "shares of the image: multiply them by its width and height in pixels"
    elif sum(int(_is_inverted(each).sum()) for each in known) > _INVERTED * sum(map(len, known)):
        found = "x, y, width and height: make them x1, y1, x1 + width - 1, y1 + height - 1"
    else:
        return
    raise InputError(f"{path} has boxes that look like {found}; proposals are x1, y1, x2, y2 in pixels")


def _is_inverted(boxes: npt.NDArray[np.floating[Any]]) -> npt.NDArray[np.bool_]:
    return (boxes[:, 2] < boxes[:, 0]) | (boxes[:, 3] < boxes[:, 1])
