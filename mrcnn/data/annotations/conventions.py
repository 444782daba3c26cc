"""Boxes that a file gives in another convention than COCO's, told by what contradicts them over the whole file."""

from collections import Counter
from collections.abc import Sequence

from detectron_gn.mrcnn.data.annotations.outlines import Bounds

_OTHERS = {
    "x1, y1, x2, y2": "subtract x1 and y1 from the other two",
    "the middle's x and y, width, height": "subtract half of the width and height from x and y",
    "shares of the image's width and height": "multiply them by these",
}
_KEPT = "taken as COCO's all the same, cut to the image in training"
_ENOUGH = 3
_TOLERANCE = 2.0


class BoxConventions:
    """Watches the boxes of a file go by and counts which convention fits them.

    A box counts for a convention where the outline fits into it to 2 pixels, or to 2 % of the outline's longer side,
    and not into the box that COCO's convention makes. Without outlines, a box counts against COCO's convention where it
    leaves the image.
    """

    def __init__(self) -> None:
        self._by_outline: Counter[str | None] = Counter()
        self._boxes = self._could_be_corners = self._leave_the_image = self._could_be_shares = 0

    def watch(self, bbox: Sequence[float], bounds: Bounds | None, height: int, width: int) -> str | None:
        """See one box of a `height` x `width` image, with the box around the outline where there is one.

        Returns what speaks against this box being COCO's, if anything does. Few such boxes in a file are no convention;
        they are taken as they are.
        """
        x, y, w, h = bbox
        self._boxes += 1
        if max(bbox) <= 1 and min(bbox) >= 0 and max(w, h) > 0 and min(height, width) > 2:
            self._could_be_shares += 1
        if bounds is None:
            self._could_be_corners += 0 <= x < w <= width + 1 and 0 <= y < h <= height + 1
            self._leave_the_image += x + w > width + _TOLERANCE or y + h > height + _TOLERANCE
        elif _fits((x, y, x + w, y + h), bounds):
            self._by_outline[None] += 1
        else:
            for name, corners in zip(
                _OTHERS,
                (
                    (x, y, w, h),
                    (x - w / 2, y - h / 2, x + w / 2, y + h / 2),
                    (x * width, y * height, (x + w) * width, (y + h) * height),
                ),
                strict=True,
            ):
                if _fits(corners, bounds):
                    self._by_outline[name] += 1
                    return f"a bbox that the outline fits into as {name}, not as COCO's x, y, width, height: {_KEPT}"
        if min(x, y) < -_TOLERANCE or x + w > width + _TOLERANCE or y + h > height + _TOLERANCE:
            return f"a bbox that leaves its image: {_KEPT}"
        return None

    def fault(self) -> str | None:
        """What is wrong with the boxes of the file, with the way out; None where nothing speaks against COCO's."""
        corners, _, shares = _OTHERS
        if self._boxes >= _ENOUGH and self._could_be_shares == self._boxes:
            # Outlines may be shares as well, and then fit their boxes.
            return _sentence(shares, "all numbers are between 0 and 1, and COCO's are pixels")
        outlines = {name: count for name, count in self._by_outline.items() if name is not None}
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


def _fits(corners: Sequence[float], bounds: Bounds) -> bool:
    tolerance = max(_TOLERANCE, 0.02 * max(bounds[2] - bounds[0], bounds[3] - bounds[1]))
    return all(abs(a - b) <= tolerance for a, b in zip(corners, bounds, strict=True))
