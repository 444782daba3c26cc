"""The outlines of annotations as run lengths, which mask AP is computed from."""

from pycocotools.coco import COCO

from detectron_gn.mrcnn.data.annotations.outlines import encoded_outline, has_outline
from detectron_gn.mrcnn.data.coco import quiet


def lacks_outlines(annotations: COCO) -> bool:
    """Whether there are objects and none has an outline, so that there is no mask AP."""
    objects = annotations.dataset["annotations"]
    return bool(objects) and not any(map(has_outline, objects))


def encode_masks(annotations: COCO) -> COCO:
    """The annotations that have an outline, all outlines as run lengths, as pycocotools has them when it scores masks.

    Outlines are replaced in place, so that a second call costs nothing to speak of. Where all objects have one, the
    annotations themselves are given back.
    """
    outlined = []
    for annotation in annotations.dataset["annotations"]:
        if has_outline(annotation):
            image = annotations.imgs[annotation["image_id"]]
            outline = annotation["segmentation"]
            annotation["segmentation"] = encoded_outline(outline, image["height"], image["width"])
            outlined.append(annotation)
    if len(outlined) == len(annotations.dataset["annotations"]):
        return annotations
    masks = COCO()
    masks.dataset = {**annotations.dataset, "annotations": outlined}
    with quiet():
        masks.createIndex()
    return masks
