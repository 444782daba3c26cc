"""The keypoints of a person as annotations give them; answers to Detectron datasets/json_dataset.py.

Detectron's names: _get_gt_keypoints, _init_keypoints.
"""

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from detectron_gn.mrcnn.data.json_values import is_number, told
from detectron_gn.mrcnn.errors import InputError
from detectron_gn.mrcnn.ops.keypoints import KEYPOINT_NAMES

Keypoints = npt.NDArray[np.int32]

COUNT = len(KEYPOINT_NAMES)
_WANTED = f"{3 * COUNT}, an x, a y and a visibility for each of a person's {COUNT} keypoints"


def read_keypoints(annotation: Mapping[str, Any]) -> Keypoints:
    """Keypoints `[3, 17]` of an annotation, rows x, y (pixels, rounded towards zero) and visibility.

    A keypoint counts where its visibility is above 0. An annotation without `keypoints` has none that do. Raises
    InputError for what is not 17 times three numbers.
    """
    given = annotation.get("keypoints")
    if given is None:
        return np.zeros((3, COUNT), np.int32)
    if not isinstance(given, list):
        raise InputError(f"'keypoints' is {told(given)}, which is no list of numbers: give {_WANTED}")
    if len(given) != 3 * COUNT:
        raise InputError(f"'keypoints' has {len(given)} numbers instead of {_WANTED}")
    for value in given:
        if not is_number(value) or abs(value) >= 2**31:
            raise InputError(f"'keypoints' holds {told(value)}, which is no number that a place in an image can be")
    keypoints: Keypoints = np.array([int(value) for value in given], np.int32).reshape(COUNT, 3).T
    return np.ascontiguousarray(keypoints)


def names_fault(category: Mapping[str, Any]) -> str | None:
    """What is wrong with the names that a category gives its keypoints; None where they are COCO's, or there are none.

    Mirrored images have left and right changed over by these names, and a model's heatmaps stand in COCO's order.
    """
    names = category.get("keypoints")
    if names is None or names == list(KEYPOINT_NAMES):
        return None
    if not isinstance(names, list) or len(names) != COUNT:
        found = f"{len(names)} keypoints" if isinstance(names, list) else told(names)
        return f"its 'keypoints' are {found}, but a person of COCO has {COUNT}"
    place = next(place for place, name in enumerate(names) if name != KEYPOINT_NAMES[place])
    return (
        f"keypoint {place + 1} is called {told(names[place])}, but COCO's is {KEYPOINT_NAMES[place]}: list the "
        f"{COUNT} keypoints of COCO's person in its order, {', '.join(KEYPOINT_NAMES[:3])} and so on"
    )


def oddities(annotation: Mapping[str, Any], height: int, width: int) -> Iterator[str]:
    """What is odd about the keypoints of an annotation that `read_keypoints` takes.

    Args:
        height, width: of the image.
    """
    if annotation.get("keypoints") is None:
        return
    x, y, visibility = read_keypoints(annotation)
    others = sorted(set(annotation["keypoints"][2::3]) - {0, 1, 2})
    if others:
        yield f"a visibility of {others[0]:g}, where COCO has 0, 1 and 2: it counts as seen where it is above 0"
    seen = visibility > 0
    counted = annotation.get("num_keypoints")
    if counted is not None and counted != int(seen.sum()):
        yield (
            f"num_keypoints is {told(counted)}, but {int(seen.sum())} of the keypoints "
            f"{'is' if seen.sum() == 1 else 'are'} visible: COCO's AP goes by the first, training by the second"
        )
    outside = int((seen & ((x < 0) | (y < 0) | (x >= width) | (y >= height))).sum())
    if outside:
        yield f"{outside} of {int(seen.sum())} visible keypoints lie outside of the image"
