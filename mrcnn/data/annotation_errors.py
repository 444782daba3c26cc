"""What makes a record of an annotation file unusable, apart from what Detectron's rules leave out.

Detectron looks at none of this: a coordinate that is not a number trains a wrong box, or makes pycocotools crash or
never come back, in the middle of a run.
"""

from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from detectron_gn.mrcnn.data.categories import BACKGROUND
from detectron_gn.mrcnn.data.coco import Annotation, CocoDataset, CocoImage, read_segm
from detectron_gn.mrcnn.data.run_lengths import MOST_PIXELS, runs_cover
from detectron_gn.mrcnn.errors import InputError

# In pixels, about twice what JPEG holds.
LARGEST_SIDE = 100_000


def dataset_errors(dataset: CocoDataset) -> Iterator[tuple[str, str]]:
    """What is unusable about the categories and ids of a data set: what it is about, and a text each."""
    if not dataset.category_ids:
        yield str(dataset.annotation_file), "'categories' is empty: list what the annotations' category_id stand for"
    for what, values in (("id", dataset.category_ids), ("name", dataset.classes[1:])):
        for value, count in Counter(values).items():
            if count > 1:
                yield f"category {value}", f"the {what} stands {count} times in 'categories'"
    if BACKGROUND in dataset.classes[1:]:
        yield f"category {BACKGROUND}", "is the name of what is no object: give another one"
    ids = Counter(annotation.get("id") for image in dataset.images for annotation in image.annotations)
    for annotation_id, count in ids.items():
        if annotation_id is not None and count > 1:
            yield f"annotation {annotation_id}", f"the id stands {count} times; pycocotools keeps the last"


def image_errors(image: CocoImage) -> Iterator[tuple[str, str]]:
    """What is unusable about an image and its annotations: what it is about, and a text each."""
    if not all(type(side) is int and 0 < side <= LARGEST_SIDE for side in (image.height, image.width)):
        yield image.file_name, f"height {image.height!r} and width {image.width!r} are no size"
        return
    for annotation in image.annotations:
        error = annotation_error(annotation, image.height, image.width)
        if error is not None:
            yield f"annotation {annotation.get('id')} of {image.file_name}", error


def annotation_error(annotation: Annotation, height: int, width: int) -> str | None:
    """What makes an annotation of a `height` x `width` image unusable, if anything."""
    bbox = annotation["bbox"]
    if not isinstance(bbox, list):
        return "bbox is not a list of x, y, width and height"
    if len(bbox) != 4:
        return f"bbox has {len(bbox)} numbers instead of x, y, width and height"
    for key, value in (*(("bbox", side) for side in bbox), ("area", annotation["area"])):
        if type(value) not in (int, float):
            return f"{key} holds {value!r}, which is not a number"
        if not abs(value) <= LARGEST_SIDE**2:
            return f"{key} holds {value!r}, which is not finite or too large"
    if annotation.get("iscrowd", 0) not in (0, 1):
        return f"iscrowd is {annotation['iscrowd']!r} instead of 0 or 1"
    try:
        segm = read_segm(annotation["segmentation"])
    except InputError as error:
        return str(error)
    if isinstance(segm, Mapping):
        return _run_lengths_error(segm, height, width)
    if not all(polygon.ndim == 1 for polygon in segm):
        return "segmentation holds lists within polygons: a polygon is [x, y, x, y, ...]"
    odd = next((polygon for polygon in segm if len(polygon) % 2), None)
    if odd is not None:
        return f"segmentation holds a polygon of {len(odd)} numbers: x and y come in pairs"
    if not all((np.abs(polygon) <= LARGEST_SIDE).all() for polygon in segm):
        return "segmentation holds a coordinate that is not finite or too large"
    return None


def _run_lengths_error(rle: Mapping[str, Any], height: int, width: int) -> str | None:
    if rle["size"] != [height, width]:
        return f"segmentation has the size {rle['size']!r}, but the image is {height} x {width} (height x width)"
    pixels, counts = height * width, rle["counts"]
    if pixels > MOST_PIXELS:
        return f"segmentation has {height} x {width} pixels, more than pycocotools can count"
    if isinstance(counts, str):
        covers = runs_cover(counts.encode("utf-8", "surrogatepass"), pixels)
    else:
        whole = isinstance(counts, list) and all(type(run) is int and run >= 0 for run in counts)
        covers = whole and sum(counts) == pixels
    return None if covers else f"segmentation holds run lengths that do not make up {height} x {width} pixels"
