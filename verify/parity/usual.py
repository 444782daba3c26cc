"""What rounding makes of the errors of blobs, and what is said of an error far above it that is still tolerated.

The tolerance of a blob is wide enough for the networks in which rounding grows most, random weights under GroupNorm
(docs/parity.md has what was measured of every family). Weights that are slightly other ones than the reference's pass
under it too, which a reader should know.
"""

from collections.abc import Sequence

from detectron_gn.verify.parity.blobs import BlobParity, ImageParity
from detectron_gn.verify.parity.coverage import is_thin

# About the largest relative error of a blob that rounding gives, in all but networks of random weights under GroupNorm.
USUAL_ERROR = 2e-5
# What it gave in those.
RANDOM_GN_ERROR = 1e-3

# How far boxes, in pixels, and scores are apart in all but such networks, and in those.
USUAL_BOX_ERROR, RANDOM_BOX_ERROR = 1e-3, 0.03
USUAL_SCORE_ERROR, RANDOM_SCORE_ERROR = 1e-5, 7e-4

# An error of so many times the usual one is told.
_FAR = 5


def is_far_above_rounding(row: BlobParity) -> bool:
    """Whether a blob's error is one that rounding gives in none but networks of random weights under GroupNorm."""
    return not row.relative_error <= _FAR * USUAL_ERROR


def remark_of_errors(parities: Sequence[ImageParity], tolerance: float) -> str:
    """A sentence where the largest error that is tolerated is far above what rounding gives; else empty."""
    rows = [row for parity in parities for row in parity.blobs if row.is_within(tolerance) and not is_thin(row)]
    worst = max(rows, key=lambda row: row.relative_error, default=None)
    if worst is None or not is_far_above_rounding(worst):
        return ""
    random = f" (random weights under GroupNorm may give {RANDOM_GN_ERROR:g})"
    return (
        f"the error of {worst.blob}, {worst.told}, is within the tolerance of {tolerance:g}, but "
        f"{worst.relative_error / USUAL_ERROR:.0f} times the {USUAL_ERROR:g} that rounding gives"
        f"{random if any(row.blob.endswith('_gn') for row in rows) else ''}: are these the very weights that the "
        "reference was recorded with?"
    )


def remark_of_detections(box_error: float, score_error: float) -> str:
    """A sentence where boxes (in pixels) or scores are tolerably apart, but far above rounding; else empty."""
    told = [
        f"{what} apart by up to {error:.2g}{unit}, {error / usual:.0f} times the {usual:g} that rounding gives (random "
        f"weights under GroupNorm may give {random:g})"
        for what, unit, error, usual, random in (
            ("boxes are", " pixels", box_error, USUAL_BOX_ERROR, RANDOM_BOX_ERROR),
            ("scores are", "", score_error, USUAL_SCORE_ERROR, RANDOM_SCORE_ERROR),
        )
        if error > _FAR * usual
    ]
    return f"within tolerance, but {' and '.join(told)}: is it the same model?" if told else ""
