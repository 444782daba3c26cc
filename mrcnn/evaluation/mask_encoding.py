"""The outlines of annotations as run lengths, which mask AP is computed from."""

from collections.abc import Mapping

from pycocotools.coco import COCO

from detectron_gn.mrcnn.data.annotation_errors import annotation_error
from detectron_gn.mrcnn.data.run_lengths import MOST_PIXELS
from detectron_gn.mrcnn.errors import InputError


def encode_masks(annotations: COCO) -> None:
    """Turn the annotations' outlines into run lengths in place, as pycocotools would when it scores masks.

    Raises InputError for the first image without a size or annotation without an outline that pycocotools can read.
    What is run lengths already stays as it is, so that a second call costs nothing to speak of.
    """
    source = getattr(annotations, "source", "the annotations")
    for annotation in annotations.dataset["annotations"]:
        place = f"{source}: annotation {annotation['id']}"
        segmentation = annotation.get("segmentation")
        if segmentation is None:
            raise InputError(f"{place} has no 'segmentation', which mask AP needs")
        if isinstance(segmentation, Mapping) and isinstance(segmentation.get("counts"), bytes):
            continue
        image = annotations.imgs[annotation["image_id"]]
        height, width = image.get("height"), image.get("width")
        if height is None or width is None:
            raise InputError(f"{source}: image {image['id']} has no 'height' or no 'width', which mask AP needs")
        if height * width > MOST_PIXELS:
            raise InputError(f"{source}: image {image['id']} has more pixels than pycocotools can count: give its size")
        cause = annotation_error(annotation, height, width)
        if cause is not None:
            raise InputError(f"{place}: {cause}")
        try:
            rle = annotations.annToRLE(annotation)
        except Exception as error:  # pycocotools raises what the malformed polygon happens to run into
            raise InputError(
                f"{place}: its segmentation is not a polygon or run lengths that pycocotools reads "
                f"({type(error).__name__}: {error})"
            ) from None
        counts = rle["counts"]
        annotation["segmentation"] = {**rle, "counts": counts.encode("ascii") if isinstance(counts, str) else counts}
