"""The JSON of a COCO annotation file, before anything is asked of its records."""

from pathlib import Path
from typing import Any

from detectron_gn.mrcnn.data.json_file import read_json
from detectron_gn.mrcnn.errors import InputError

_EXAMPLES = {
    "images": '[{"id": 1, "file_name": "a.jpg", "height": 480, "width": 640}]',
    "annotations": '[{"id": 1, "image_id": 1, "category_id": 1, "bbox": [10, 20, 100, 50], ...}]',
    "categories": '[{"id": 1, "name": "cup"}]',
}
# Keys of other tools' files, at the top or in the first value of it.
_TOOLS: dict[frozenset[str], str] = {
    frozenset({"shapes", "imagePath"}): "LabelMe",
    frozenset({"_via_img_metadata"}): "the VGG Image Annotator",
    frozenset({"filename", "regions"}): "the VGG Image Annotator",
}


def read_annotation_file(path: str | Path) -> dict[str, Any]:
    """The JSON of a COCO annotation file, with `images`, `annotations` and `categories` known to be lists of objects.

    It may be in UTF-8, UTF-16 or UTF-32, with a byte-order mark or without. Raises InputError that names the file and
    what is wrong with it.
    """
    path = Path(path)
    content = read_json(path, "a COCO annotation file")
    if not isinstance(content, dict):
        raise InputError(f"{path} holds a JSON {type(content).__name__}{_told_list(content)}")
    for names, tool in _TOOLS.items():
        if "images" not in content and names <= content.keys() | _keys_within(content):
            raise InputError(f"{path} is of {tool}, not of COCO's form: convert it to COCO's format first")
    for key in ("images", "annotations", "categories"):
        if key not in content:
            raise InputError(f"{path} has no {key!r}: a COCO annotation file with ground truth has it")
        records = content[key]
        if not isinstance(records, list) or not all(isinstance(record, dict) for record in records):
            raise InputError(f"{path}: {key!r} must be a list of objects, such as {_EXAMPLES[key]}")
    return content


def _keys_within(content: dict[str, Any]) -> set[str]:
    first = next(iter(content.values()), None)
    return set(first) if isinstance(first, dict) else set()


def _told_list(content: Any) -> str:
    """What a list or a bare value is instead of an annotation file, as the rest of a sentence."""
    first = content[0] if isinstance(content, list) and content else None
    keys = set(first) if isinstance(first, dict) else set()
    if {"image_id", "score"} <= keys:
        return " of detections: give it to `score` as RESULTS, and the annotation file as --annotations"
    if "image_id" in keys:
        return ", the 'annotations' alone: put them into an object with 'images' and 'categories', as COCO has it"
    if "annotations" in keys:
        return " around an annotation file: take the outermost brackets away"
    return ": a COCO annotation file holds an object"
