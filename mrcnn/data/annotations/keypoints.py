"""The keypoints of objects as annotations give them; answers to Detectron datasets/json_dataset.py.

Detectron's names: _get_gt_keypoints, _init_keypoints.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from detectron_gn.mrcnn.data.annotations.findings import Fault
from detectron_gn.mrcnn.data.json_values import is_number, is_text, told, whole_number
from detectron_gn.mrcnn.errors import InputError
from detectron_gn.mrcnn.ops.keypoints import KEYPOINT_NAMES, MIRRORED, mirrored_places

Keypoints = npt.NDArray[np.int32]

COUNT = len(KEYPOINT_NAMES)
# So many visible keypoints do not lie in a corner of the image by chance.
_ENOUGH = 3


def keypoint_faults(
    categories: Iterable[Mapping[str, Any]], annotations: Iterable[tuple[str, Mapping[str, Any]]], count: int
) -> Iterator[Fault]:
    """Why the keypoints of a file can be neither trained on nor scored: the one rule for whoever uses them.

    Args:
        categories, annotations: records of the file that were read, annotations each with what a sentence calls it.
        count: of the keypoints of the model, or of the results.
    """
    for category in categories:
        fault = names_fault(category, count)
        if fault is not None:
            yield Fault(f"category {category['name']}", fault)
    for subject, annotation in annotations:
        fault = annotation_fault(annotation, count)
        if fault is not None:
            yield Fault(subject, fault, annotation["image_id"])


def annotation_fault(annotation: Mapping[str, Any], count: int) -> str | None:
    """Why the keypoints of an annotation cannot be used; None without fault.

    Without `keypoints`, or with null or `[]`, it has none that is visible, which is no fault. `num_keypoints` may be
    left out.
    """
    given, counted = annotation.get("keypoints"), annotation.get("num_keypoints")
    if given is not None and given != []:
        of_whom = "a person's" if count == COUNT else "the"
        wanted = f"{3 * count}, an x, a y and a visibility for each of {of_whom} {count} keypoints"
        if not isinstance(given, list):
            return f"'keypoints' is {told(given)}, which is no list of numbers: give {wanted}"
        if len(given) != 3 * count:
            return f"'keypoints' has {len(given)} numbers instead of {wanted}"
        for value in given:
            if not is_number(value) or abs(value) >= 2**31:
                return f"'keypoints' holds {told(value)}, which is no number that a place in an image can be"
        for value in given[2::3]:
            if whole_number(value) is None:
                return f"'keypoints' holds the visibility {told(value)}: COCO's are 0, 1 and 2, and visible is above 0"
    if counted is not None and (whole_number(counted) is None or counted < 0):
        return f"num_keypoints is {told(counted)}, which is no count: leave it out to have the visible ones counted"
    return None


def read_keypoints(annotation: Mapping[str, Any], count: int = COUNT) -> Keypoints:
    """Keypoints `[3, count]` of an annotation, rows x, y (pixels, rounded towards zero) and visibility.

    A keypoint counts where its visibility is above 0. An annotation without `keypoints` has none that do. Raises
    InputError for what `annotation_fault` names.
    """
    fault = annotation_fault(annotation, count)
    if fault is not None:
        raise InputError(fault)
    given = annotation.get("keypoints")
    if not given:
        return np.zeros((3, count), np.int32)
    keypoints: Keypoints = np.array([int(value) for value in given], np.int32).reshape(count, 3).T
    return np.ascontiguousarray(keypoints)


def count_visible(annotation: Mapping[str, Any], mend: Callable[[str], None]) -> dict[str, int]:
    """`num_keypoints` for an annotation that has keypoints and leaves it out; nothing for all others."""
    given = annotation.get("keypoints")
    if annotation.get("num_keypoints") is not None or not isinstance(given, list) or not all(map(is_number, given)):
        return {}
    mend("an annotation with keypoints and without 'num_keypoints': the visible ones are counted")
    return {"num_keypoints": sum(visibility > 0 for visibility in given[2::3])}


def scored_keypoints(annotation: Mapping[str, Any], count: int = COUNT) -> dict[str, Any]:
    """`keypoints` and `num_keypoints` of an annotation without fault, as pycocotools needs them: by default none."""
    return {
        "keypoints": annotation.get("keypoints") or [0] * (3 * count),
        "num_keypoints": int(annotation.get("num_keypoints") or 0),
    }


def named_count(category: Mapping[str, Any]) -> int:
    """How many keypoints a category names; a person's, where it names none."""
    names = category.get("keypoints")
    return len(names) if isinstance(names, list) and names else COUNT


def names_fault(category: Mapping[str, Any], count: int) -> str | None:
    """What is wrong with the names that a category gives its keypoints, for a model of `count`; None without fault.

    Mirrored images have left and right changed over by these names. 17 are those of COCO's person, whose order a model
    of 17 has.
    """
    names = category.get("keypoints")
    if names is None or names == [] or names == list(KEYPOINT_NAMES) and count == COUNT:
        return None
    if not isinstance(names, list) or not all(map(is_text, names)):
        return f"its 'keypoints' are {told(names)}, which is no list of names"
    if len(names) != count:
        return (
            f"it has {len(names)} keypoints instead of {count}: give annotations with as many, or train a model of "
            f"{len(names)} with --set KRCNN.NUM_KEYPOINTS {len(names)}"
        )
    if len(set(names)) < count:
        return "two of its 'keypoints' have the same name: give each a name of its own"
    if count != COUNT:
        return None
    place = next(place for place, name in enumerate(names) if name != KEYPOINT_NAMES[place])
    return (
        f"keypoint {place + 1} is called {told(names[place])}, but {COUNT} keypoints are taken for those of COCO's "
        f"person, of which it is {KEYPOINT_NAMES[place]}: put a person's into COCO's order, "
        f"{', '.join(KEYPOINT_NAMES[:3])} and so on; of anything else, train more or fewer than {COUNT}"
    )


def common_names(categories: Iterable[Mapping[str, Any]], count: int) -> tuple[str, ...] | None:
    """The names of the `count` keypoints of categories without fault; None for unknown ones.

    Those of 17 are COCO's. Raises InputError where two categories name theirs otherwise.
    """
    if count == COUNT:
        return KEYPOINT_NAMES
    named = [(category["name"], tuple(category["keypoints"])) for category in categories if category.get("keypoints")]
    for other, names in named[1:]:
        if names != named[0][1]:
            raise InputError(
                f"the categories {named[0][0]} and {other} name other keypoints, but a model has the same ones for "
                "every class: give them the same names in the same order"
            )
    return named[0][1] if named else None


def places_when_mirrored(names: tuple[str, ...] | None, count: int) -> tuple[int, ...]:
    """For each of `count` keypoints, the one that is in its place in a mirrored object, by their names.

    Raises InputError where nobody knows: for keypoints without names, and for a left one without a right one.
    """
    if count == COUNT:
        return MIRRORED
    places = None if names is None else mirrored_places(names)
    if places is not None:
        return places
    way_out = "or pass --set TRAIN.USE_FLIPPED False to train without mirrored images"
    if names is None:
        raise InputError(
            f"no category names its {count} keypoints, so that left and right cannot be told apart in mirrored "
            f"images: list their names as its 'keypoints', {way_out}"
        )
    raise InputError(
        f"of the keypoints {', '.join(names[:8])}{' and so on' if len(names) > 8 else ''} a left or a right one has no "
        f"other side to change places with in mirrored images: name both, {way_out}"
    )


def oddities(annotation: Mapping[str, Any], height: int, width: int, count: int = COUNT) -> Iterator[str]:
    """What is odd about the keypoints of an annotation that `read_keypoints` takes.

    Args:
        height, width: of the image.
    """
    if not annotation.get("keypoints"):
        return
    x, y, visibility = read_keypoints(annotation, count)
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
    given = [value for place, value in enumerate(annotation["keypoints"]) if place % 3 < 2 and seen[place // 3]]
    if seen.sum() >= _ENOUGH and 0 <= min(given) and max(given) <= 1 and min(height, width) > 2:
        yield "all visible keypoints lie between 0 and 1: COCO's are pixels, not shares of the image's width and height"
    outside = int((seen & ((x < 0) | (y < 0) | (x >= width) | (y >= height))).sum())
    if outside:
        yield f"{outside} of {int(seen.sum())} visible keypoints lie outside of the image"
