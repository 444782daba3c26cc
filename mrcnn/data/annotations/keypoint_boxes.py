"""Keypoints that contradict the box of their object."""

import numpy as np
import numpy.typing as npt

from detectron_gn.mrcnn.data.annotations.columns import AnnotationColumns

APART = "a bbox in which none of its three and more visible keypoints lies: both are taken as they are"
_ENOUGH = 3


def boxes_without_their_keypoints(columns: AnnotationColumns) -> npt.NDArray[np.intp]:
    """The numbers of annotations none of whose visible keypoints, three at least, lies in their box and a tenth around.

    Lists that are no x, y and visibility in turn are passed over.
    """
    values = columns.keypoints.values
    rows = np.flatnonzero(values.lengths % 3 == 0)
    x, y, visibility = values.take(rows).values.reshape(-1, 3).T
    owners = np.repeat(rows, values.lengths[rows] // 3)
    left, top, width, height = columns.boxes[owners].T
    margin = 2 + 0.1 * np.maximum(width, height)
    is_seen = visibility > 0
    along, down = x - left - width / 2, y - top - height / 2
    is_inside = (np.abs(along) <= width / 2 + margin) & (np.abs(down) <= height / 2 + margin)
    seen, inside = (np.bincount(owners[each], minlength=len(columns)) for each in (is_seen, is_seen & is_inside))
    return np.flatnonzero((seen >= _ENOUGH) & (inside == 0))
