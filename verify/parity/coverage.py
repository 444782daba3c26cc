"""How much of the blobs was compared: a reference holds samples of the large ones, and may have been thinned since."""

from collections.abc import Sequence

from detectron_gn.mrcnn.wording import amount, listed
from detectron_gn.verify.parity.blobs import BlobParity, ImageParity

# A sample of fewer values says little of its blob. dump_blobs.py keeps 171 to 512, or a third of its --values.
LEAST_VALUES = 32


def told_values(parities: Sequence[ImageParity]) -> str:
    """How many values were compared, of how many; of references that hold every value only that."""
    rows = [row for parity in parities for row in parity.blobs]
    compared, whole = sum(row.values for row in rows), sum(row.size for row in rows)
    if compared == whole:
        return f"all {whole:,} values"
    return f"{compared:,} of {whole:,} values, as the reference holds samples of the large blobs"


def is_thin(row: BlobParity) -> bool:
    """Whether too few values of a blob were compared to judge it by them."""
    return 0 < row.values < min(LEAST_VALUES, row.size)


def remark_of_thin(parities: Sequence[ImageParity]) -> str:
    """A sentence about blobs of which the reference holds hardly a value; empty where there is none."""
    rows = [row for parity in parities for row in parity.blobs if is_thin(row)]
    if not rows:
        return ""
    names, count = listed(list(dict.fromkeys(row.blob for row in rows))), amount(len(rows), "blob")
    return (
        f"of {count} the reference holds fewer than {LEAST_VALUES} values ({names}), where dump_blobs.py records 171 "
        "or more: was it thinned?"
    )


def thin_not_compared(parities: Sequence[ImageParity]) -> str:
    """The same in words for a list of what was not compared."""
    count = sum(is_thin(row) for parity in parities for row in parity.blobs)
    return f"all but a few values of {amount(count, 'blob')}" if count else ""
