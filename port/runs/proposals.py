"""The proposals that a model without an RPN is given: of the command line, or of its configuration."""

from pathlib import Path

from detectron_gn.mrcnn.config import Config, takes_proposals
from detectron_gn.mrcnn.data.proposals_file import StoredProposals
from detectron_gn.mrcnn.errors import InputError
from detectron_gn.weights.formats.proposals_pickle import read_proposals


def stored_proposals(cfg: Config, path: Path | None) -> StoredProposals | None:
    """The proposals of a file, or of `cfg.TEST.PROPOSAL_FILES` where no file is given and that is one which exists.

    None for a model that makes its own, without a file. Raises InputError where a model needs proposals and there are
    none, and FileError for a file that holds something else.
    """
    named = cfg.TEST.PROPOSAL_FILES
    if path is None and takes_proposals(cfg):
        if len(named) != 1 or not Path(named[0]).is_file():
            found = f"names {', '.join(named)}, which is no one file here" if named else "names none"
            raise InputError(
                f"the model has no RPN (MODEL.FASTER_RCNN is False) and TEST.PROPOSAL_FILES {found}: give --proposals "
                "with the rpn_proposals.pkl that `test` writes for an RPN on the same images"
            )
        path = Path(named[0])
    if path is None:
        return None
    proposals = read_proposals(path)
    return StoredProposals(proposals.boxes, proposals.ids, str(path))
