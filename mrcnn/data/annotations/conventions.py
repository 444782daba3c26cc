"""Boxes that a file gives in another convention than COCO's, told by what contradicts them over the whole file."""

from collections import Counter
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from detectron_gn.mrcnn.data.annotations.ragged import BoolArray, IntArray, NumberArray

_IN_PYTHON = "in Python, where data is the file's content: for a in data['annotations']: x, y, {} = a['bbox']; "
_OTHERS = {
    "x1, y1, x2, y2": (
        "subtract x1 and y1 from the other two ("
        + _IN_PYTHON.format("x2, y2")
        + "a['bbox'] = [x, y, x2 - x, y2 - y])"
    ),
    "the middle's x and y, width, height": (
        "subtract half of the width and height from x and y ("
        + _IN_PYTHON.format("w, h")
        + "a['bbox'] = [x - w / 2, y - h / 2, w, h])"
    ),
    "shares of the image's width and height": "multiply them by these",
}
KEPT = "taken as COCO's all the same, cut to the image in training"
_ENOUGH = 3
_TOLERANCE = 2.0
# So many boxes that are those around their outlines for one that is not make of it a slip. COCO's all are; where many
# are not, as where boxes reach over what hides an object, somebody means it.
_FITTING = 9
_ALIKE = 0.5
UNLIKE = (
    "a bbox that shares less than half with the box around its outline (an IoU below 0.5), as most others do not: both "
    "are taken as they are"
)


class BoxConventions:
    """Watches the boxes of a file go by and counts which convention fits them.

    A box counts for a convention where the outline fits into it to 2 pixels, or to 2 % of the outline's longer side,
    and not into the box that COCO's convention makes. Where no outline fits into a box of any convention, boxes count
    against COCO's where they leave the image.

    Attributes:
        unlike_count: of the boxes that `unlike` has found.
    """

    def __init__(self) -> None:
        self._by_outline: Counter[str | None] = Counter()
        self.unlike_count = 0
        self._boxes = self._could_be_corners = self._leave_the_image = self._could_be_shares = 0

    def watch(
        self, boxes: NumberArray, bounds: NumberArray, heights: IntArray, widths: IntArray
    ) -> Iterator[tuple[npt.NDArray[np.intp], str]]:
        """See some boxes.

        Args:
            boxes: `[N, 4]` as in the file.
            bounds: `[N, 4]`, the corners of the box around each outline; NaN where there is none.
            heights, widths: `[N]`, of their images.

        Yields numbers of boxes, and what speaks against these being COCO's. Few such boxes in a file are no
        convention; they are taken as they are.
        """
        x, y, w, h = boxes.T
        right, bottom = x + w, y + h
        is_outlined = ~np.isnan(bounds[:, 0])
        leaves = (right > widths + _TOLERANCE) | (bottom > heights + _TOLERANCE)
        is_share = (boxes.max(axis=1) <= 1) & (boxes.min(axis=1) >= 0) & (np.maximum(w, h) > 0)
        are_corners = (x >= 0) & (x < w) & (w <= widths + 1) & (y >= 0) & (y < h) & (h <= heights + 1)
        self._boxes += len(boxes)
        self._could_be_shares += int((is_share & (np.minimum(heights, widths) > 2)).sum())
        self._could_be_corners += int(are_corners.sum())
        self._leave_the_image += int(leaves.sum())
        fits = _fits((x, y, right, bottom), bounds)
        self._by_outline[None] += int(fits.sum())
        is_open, is_odd = is_outlined & ~fits, np.zeros(len(boxes), np.bool_)
        for name, corners in zip(
            _OTHERS,
            (
                (x, y, w, h),
                (x - w / 2, y - h / 2, x + w / 2, y + h / 2),
                (x * widths, y * heights, right * widths, bottom * heights),
            ),
            strict=True,
        ):
            found = is_open & _fits(corners, bounds)
            self._by_outline[name] += int(found.sum())
            is_open &= ~found
            is_odd |= found
            if found.any():
                told = f"a bbox that the outline fits into as {name}, not as COCO's x, y, width, height: {KEPT}"
                yield np.flatnonzero(found), told
        tiny = ~is_odd & is_share
        if tiny.any():
            yield np.flatnonzero(tiny), f"a bbox of numbers between 0 and 1, as shares of the image are: {KEPT}"
        outside = ~is_odd & (leaves | (np.minimum(x, y) < -_TOLERANCE))
        if outside.any():
            yield np.flatnonzero(outside), f"a bbox that leaves its image: {KEPT}"

    def unlike(self, boxes: NumberArray, bounds: NumberArray) -> npt.NDArray[np.intp]:
        """See the boxes that `watch` has seen; the numbers of those far from the one around their outline.

        Boxes of a pixel or less, which training drops, are none of them.
        """
        found = np.flatnonzero((boxes[:, 2:].min(axis=1) > 1) & (_overlaps(boxes, bounds) < _ALIKE))
        self.unlike_count += len(found)
        return found

    @property
    def has_slips(self) -> bool:
        """Whether those far from the one around their outline are exceptions in the file."""
        return self._by_outline[None] >= _FITTING * self.unlike_count > 0

    def fault(self) -> str | None:
        """What is wrong with the boxes of the file, with the way out; None where nothing speaks against COCO's."""
        corners, _, shares = _OTHERS
        if self._boxes >= _ENOUGH and self._could_be_shares == self._boxes:
            # Outlines may be shares as well, and then fit their boxes.
            return _sentence(shares, "all numbers are between 0 and 1, and COCO's are pixels")
        outlines = {name: count for name, count in self._by_outline.items() if name is not None and count}
        for name, count in outlines.items():
            if count >= _ENOUGH and count > 9 * self._by_outline[None]:
                return _sentence(name, f"{count} outlines fit into that and not into COCO's x, y, width, height")
        if outlines or self._by_outline[None]:
            return None
        if (
            self._boxes >= _ENOUGH
            and self._could_be_corners == self._boxes
            and 2 * self._leave_the_image >= self._boxes
        ):
            left = f"{self._leave_the_image} of {self._boxes} boxes leave their image"
            return _sentence(corners, f"{left} if they are read as COCO's x, y, width, height")
        return None


def _sentence(convention: str, evidence: str) -> str:
    return f"its 'bbox' numbers seem to be {convention}: {evidence}; {_OTHERS[convention]}"


def _overlaps(boxes: NumberArray, bounds: NumberArray) -> NumberArray:
    """The intersection over union of each box (x, y, width, height) with its bounds; NaN where there are none."""
    x, y, w, h = boxes.T
    x1, y1, x2, y2 = bounds.T
    across = np.maximum(0, np.minimum(x + w, x2) - np.maximum(x, x1))
    down = np.maximum(0, np.minimum(y + h, y2) - np.maximum(y, y1))
    shared = across * down
    with np.errstate(divide="ignore", invalid="ignore"):
        overlaps: NumberArray = shared / (w * h + (x2 - x1) * (y2 - y1) - shared)
    return overlaps


def _fits(corners: tuple[NumberArray, NumberArray, NumberArray, NumberArray], bounds: NumberArray) -> BoolArray:
    """Whether corners are those of the bounds; not where there are none."""
    longer = np.maximum(bounds[:, 2] - bounds[:, 0], bounds[:, 3] - bounds[:, 1])
    tolerance = np.maximum(_TOLERANCE, 0.02 * longer)
    is_near: BoolArray = np.abs(np.stack(corners, axis=1) - bounds) <= tolerance[:, None]
    fits: BoolArray = np.logical_and.reduce(is_near, axis=1)
    return fits
