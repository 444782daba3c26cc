"""Annotation files as people bring them: each a change of a sound file, and whether every command takes it or none."""

import copy
from collections.abc import Callable
from typing import Any, NamedTuple

Content = dict[str, Any]


class Case(NamedTuple):
    """A change in a file.

    Attributes:
        change: changes the content of a sound file in place.
        words: of the sentence that refuses it, or of the remark that says what was mended; none for what needs no word.
        same: for what is taken, whether it then means the same as the sound file, to the last digit.
    """

    change: Callable[[Content], object]
    words: str = ""
    same: bool = True


def _each(key: str, value: Callable[[Content], Any]) -> Callable[[Content], object]:
    """Set a key of every annotation."""
    return lambda content: [each.update({key: value(each)}) for each in content["annotations"]]


def _boxes(form: Callable[[float, float, float, float], list[float]]) -> Callable[[Content], object]:
    """Write every box in another form."""
    return _each("bbox", lambda each: form(*each["bbox"]))


def _first(**fields: Any) -> Callable[[Content], object]:
    """Set keys of the first annotation."""
    return lambda content: content["annotations"][0].update(copy.deepcopy(fields))


def _without(list_name: str, key: str) -> Callable[[Content], object]:
    return lambda content: [each.pop(key) for each in content[list_name]]


def _image(**fields: Any) -> Callable[[Content], object]:
    return lambda content: content["images"][0].update(fields)


def _polygons(form: Callable[[list[Any]], Any]) -> Callable[[Content], object]:
    """Write the polygons of every object in another form."""

    def change(content: Content) -> None:
        for each in content["annotations"]:
            if isinstance(each["segmentation"], list):
                each["segmentation"] = form(each["segmentation"])

    return change


def _pairs(polygon: list[float]) -> list[list[float]]:
    return [polygon[place : place + 2] for place in range(0, len(polygon), 2)]


def _add(list_name: str, **fields: Any) -> Callable[[Content], object]:
    """Add a copy of the first record of a list, with other fields."""
    return lambda content: content[list_name].append({**copy.deepcopy(content[list_name][0]), **fields})


def _renumbered(first: int) -> Callable[[Content], object]:
    return lambda content: [each.update(id=number) for number, each in enumerate(content["annotations"], first)]


def _size_of(content: Content, annotation: Content) -> tuple[int, int]:
    image = next(each for each in content["images"] if each["id"] == annotation["image_id"])
    return image["height"], image["width"]


def _uncompressed(content: Content) -> None:
    """Write the first object's outline as run lengths in a list, column by column."""
    import pycocotools.mask

    annotation = content["annotations"][0]
    size = _size_of(content, annotation)
    mask = pycocotools.mask.decode(pycocotools.mask.frPyObjects(annotation["segmentation"], *size))
    runs, last = [0], 0
    for value in mask.max(axis=2).flatten(order="F").tolist():
        if value != last:
            runs.append(0)
            last = value
        runs[-1] += 1
    annotation["segmentation"] = {"size": [float(side) for side in size], "counts": runs}


def _zigzag(points: int, reach: int) -> list[list[float]]:
    return [[coordinate for n in range(points) for coordinate in (n % 2 * 2 * reach - reach, n % 3 * reach)]]


def _shares(content: Content) -> None:
    for each in content["annotations"]:
        (x, y, w, h), (height, width) = each["bbox"], _size_of(content, each)
        each["bbox"] = [x / width, y / height, w / width, h / height]


def _declared(side: int) -> Callable[[Content], object]:
    """Declare an image of `side` x `side` pixels, and a mask of it in a few characters."""

    def change(content: Content) -> None:
        image_id = content["annotations"][0]["image_id"]
        image = next(each for each in content["images"] if each["id"] == image_id)
        image.update(height=side, width=side)
        content["annotations"][0]["segmentation"] = {"size": [side, side], "counts": [0, side * side]}

    return change


OUTLINE = "an annotation without an outline: its box is used"
LINE = "whose points lie on a line, so that they cover nothing: taken as no outline"
POINTS = "written as points: taken as polygons"
XYXY = "seem to be x1, y1, x2, y2"

TAKEN = {
    "nothing": Case(lambda content: None),
    "no iscrowd": Case(
        lambda content: [each.pop("iscrowd") for each in content["annotations"] if not each["iscrowd"]],
        "without 'iscrowd': taken as no crowd",
    ),
    "iscrowd null": Case(_first(iscrowd=None), "without 'iscrowd'"),
    "iscrowd false and true": Case(_each("iscrowd", lambda each: bool(each["iscrowd"]))),
    "iscrowd 0.0 and 1.0": Case(_each("iscrowd", lambda each: float(each["iscrowd"]))),
    "no area": Case(_without("annotations", "area"), "the pixels that its outline covers are counted", same=False),
    "area null": Case(_first(area=None), "without 'area'", same=False),
    "no area and no outline": Case(
        lambda content: (_without("annotations", "area")(content), _without("annotations", "segmentation")(content)),
        "that of its box is taken",
        same=False,
    ),
    "no bbox": Case(_without("annotations", "bbox"), "the box around its outline is taken"),
    "bbox null": Case(_first(bbox=None), "the box around its outline is taken"),
    "no annotation ids": Case(_without("annotations", "id"), "without 'id': numbered"),
    "one annotation id null": Case(_first(id=None), "without 'id': numbered"),
    "annotation ids from 0": Case(_renumbered(0)),
    "annotation ids below 0": Case(_renumbered(-2)),
    "annotation ids as 1.0": Case(_each("id", lambda each: float(each["id"]))),
    "image ids as 1.0 in annotations": Case(_each("image_id", lambda each: float(each["image_id"]))),
    "image and category ids as 1.0": Case(
        lambda content: [each.update(id=float(each["id"])) for each in content["images"] + content["categories"]]
    ),
    "an image listed twice, equal": Case(_add("images"), "listed twice with the same record: taken once"),
    "sizes as 80.0": Case(
        lambda content: [
            each.update(height=float(each["height"]), width=float(each["width"])) for each in content["images"]
        ]
    ),
    "a category's name a number": Case(lambda content: content["categories"][0].update(name=7), same=False),
    "a category without a name": Case(
        lambda content: content["categories"][0].pop("name"), "without 'name': called by its id", same=False
    ),
    "polygons as pairs": Case(_polygons(lambda segm: [_pairs(p) for p in segm]), POINTS),
    "one polygon as pairs": Case(_polygons(lambda segm: _pairs(segm[0])), POINTS),
    "polygons as objects of x and y": Case(
        _polygons(lambda segm: [[{"x": x, "y": y} for x, y in _pairs(p)] for p in segm]), POINTS
    ),
    "one polygon as objects": Case(_polygons(lambda segm: [{"x": x, "y": y} for x, y in _pairs(segm[0])]), POINTS),
    "GeoJSON's polygons": Case(_polygons(lambda segm: [[_pairs(p)] for p in segm]), POINTS),
    "a polygon without a list around it": Case(_polygons(lambda segm: segm[0]), "without a list around it"),
    "polygons nested twice": Case(_polygons(lambda segm: [segm]), "a list of lists of polygons"),
    "uncompressed run lengths": Case(_uncompressed),
    "run lengths in a list": Case(
        lambda content: (
            _uncompressed(content),
            content["annotations"][0].update(segmentation=[content["annotations"][0]["segmentation"]]),
        ),
        "a list with run lengths in it",
    ),
    "run lengths of nothing": Case(
        lambda content: content["annotations"][0].update(segmentation={"size": [60, 80], "counts": [4800]}),
        "that cover nothing: taken as no outline",
        same=False,
    ),
    "run lengths with empty runs": Case(
        lambda content: (
            _uncompressed(content),
            content["annotations"][0]["segmentation"]["counts"].extend([0] * 99),
        )
    ),
    "segmentation []": Case(_first(segmentation=[]), OUTLINE, same=False),
    "segmentation [[]]": Case(_first(segmentation=[[]]), OUTLINE, same=False),
    "segmentation null": Case(_first(segmentation=None), OUTLINE, same=False),
    "no segmentation at all": Case(_without("annotations", "segmentation"), OUTLINE, same=False),
    "a polygon of two points": Case(_first(segmentation=[[10, 10, 30, 30]]), OUTLINE, same=False),
    "a polygon of one point": Case(_first(segmentation=[[10, 10]]), OUTLINE, same=False),
    "two polygons of two points": Case(_first(segmentation=[[10, 10, 30, 30], [1, 2, 3, 4]]), OUTLINE, same=False),
    "a polygon on a line": Case(_first(segmentation=[[10.1, 10.1, 20.2, 20.2, 30.3, 30.3]]), LINE, same=False),
    "a polygon along an edge": Case(_first(segmentation=[[10, 10, 30, 10, 30, 10, 20, 10]]), LINE, same=False),
    "a polygon in one place": Case(_first(segmentation=[[20, 20] * 4]), LINE, same=False),
    "two polygons on lines": Case(_first(segmentation=[[20, 20] * 3, [10, 10, 30, 30, 10, 10]]), LINE, same=False),
    "a polygon on a line beside a whole one": Case(
        lambda content: content["annotations"][0]["segmentation"].append([15, 15, 20, 20, 25, 25]), same=False
    ),
    "a polygon of two points beside a whole one": Case(
        lambda content: content["annotations"][0]["segmentation"].append([1, 2, 3, 4])
    ),
    "an empty polygon beside a whole one": Case(lambda content: content["annotations"][0]["segmentation"].append([])),
    "keys of other tools": Case(_each("attributes", lambda each: {"a": [{}]})),
    "an outline a little outside": Case(_first(segmentation=[[-3, 10, 30, 10, 30, 30, 10, 30]]), same=False),
}

REFUSED = {
    "annotation ids as text": Case(_each("id", lambda each: str(each["id"])), "id is '1', a text"),
    "image ids as text": Case(lambda content: content["images"][0].update(id="1"), "id is '1', a text"),
    "image_id as text": Case(_first(image_id="000000000001"), "image_id is '000000000001', a text"),
    "category ids as text": Case(lambda content: content["categories"][0].update(id="3"), "id is '3', a text"),
    "category_id as text": Case(_first(category_id="3"), "category_id is '3', a text"),
    "annotation id {}": Case(_first(id={}), "id is {}, which is no whole number"),
    "annotation id []": Case(_first(id=[]), "id is [], which is no whole number"),
    "annotation id true": Case(_first(id=True), "id is True, which is no whole number"),
    "annotation id 1.5": Case(_first(id=1.5), "id is 1.5, which is no whole number"),
    "image_id {}": Case(_first(image_id={}), "image_id is {}, which is no whole number"),
    "no image_id": Case(_without("annotations", "image_id"), "annotation 1: has no 'image_id'; 3 more faults"),
    "no category_id": Case(_without("annotations", "category_id"), "has no 'category_id'"),
    "image id beyond float64": Case(lambda content: content["images"][0].update(id=2**60), "pycocotools counts to"),
    "an annotation id twice": Case(_first(id=2), "annotation 2: the id is there 2 times"),
    "an image listed twice, different": Case(_add("images", width=99), "the id 1 is there twice in 'images'"),
    "a category listed twice": Case(_add("categories"), "is there 2 times in 'categories'"),
    "two categories of one name": Case(_add("categories", id=99), "the name is there 2 times in 'categories'"),
    "a category called background": Case(
        lambda content: content["categories"][0].update(name="__background__"), "is the name of what is no object"
    ),
    "no categories": Case(lambda content: content["categories"].clear(), "'categories' is empty"),
    "a category's name a list": Case(lambda content: content["categories"][0].update(name=["a"]), "['a'] is no text"),
    "orphans of images": Case(
        lambda content: content["images"].pop(0), "annotation 1: has image_id 1, which 'images' does not list; 1 more"
    ),
    "orphans of categories": Case(
        lambda content: content["categories"].pop(0), "has category_id 3, which 'categories' does not list"
    ),
    "rings with holes": Case(
        _polygons(lambda segm: [[_pairs(segm[0]), _pairs(segm[0])]]), "rings within a polygon: COCO has no holes"
    ),
    "several run lengths in a list": Case(
        lambda content: (
            _uncompressed(content),
            content["annotations"][0].update(segmentation=[content["annotations"][0]["segmentation"]] * 2),
        ),
        "where a polygon [x, y, x, y, ...] should be",
    ),
    "segmentation an object": Case(_first(segmentation={"0": [1, 2, 3, 4, 5, 6]}), "neither a list of polygons nor"),
    "segmentation a text": Case(_first(segmentation="10,10,20,20"), "neither a list of polygons nor"),
    "coordinates as text": Case(_first(segmentation=[["1", "2", "3", "4", "5", "6"]]), "holds what is no number"),
    "coordinates true": Case(_first(segmentation=[[True] * 6]), "holds what is no number"),
    "a coordinate NaN": Case(_first(segmentation=[[float("nan")] * 6]), "is not finite or too large"),
    "an odd polygon": Case(_first(segmentation=[[1, 2, 3, 4, 5, 6, 7]]), "x and y come in pairs"),
    "lists nested deep": Case(_first(segmentation=[[[[[[[1, 2]]]]]]]), "holds what is no number"),
    "run lengths of another size": Case(
        _first(segmentation={"size": [5, 5], "counts": [25]}), "has the size [5, 5], but the image is"
    ),
    "run lengths that are too short": Case(
        lambda content: (_uncompressed(content), content["annotations"][0]["segmentation"]["counts"].pop()),
        "run lengths that do not make up",
    ),
    "an outline wholly off its box": Case(
        _first(segmentation=[[60, 40, 75, 40, 75, 55, 60, 55]]), "lies wholly outside of its bbox"
    ),
    "xyxy boxes": Case(
        _boxes(lambda x, y, w, h: [x, y, x + w, y + h]),
        XYXY,
    ),
    "xyxy boxes without outlines": Case(
        lambda content: (
            _each("bbox", lambda each: [30, 20, 78, 58])(content), _without("annotations", "segmentation")(content),
        ),
        XYXY,
    ),
    "boxes by their middle": Case(
        _boxes(lambda x, y, w, h: [x + w / 2, y + h / 2, w, h]),
        "seem to be the middle's x and y, width, height",
    ),
    "boxes as shares of the image": Case(_shares, "seem to be shares of the image's width and height"),
    "boxes as shares without outlines": Case(
        lambda content: (_shares(content), _without("annotations", "segmentation")(content)),
        "seem to be shares of the image's width and height",
    ),
    "a box of three numbers": Case(_first(bbox=[1, 2, 3]), "bbox has 3 numbers"),
    "a box of negative width": Case(
        _first(bbox=[30, 10, -20, 20]), "bbox [30, 10, -20, 20] has a negative width or height"
    ),
    "a box of negative height": Case(_first(bbox=[10, 30, 20, -0.5]), "has a negative width or height"),
    "a negative area": Case(_first(area=-400.0), "area is -400.0, which is negative: leave it out"),
    "a box of text": Case(_first(bbox=["1", "2", "3", "4"]), "bbox holds '1', which is not a number"),
    "a box with NaN": Case(_first(bbox=[float("nan"), 2, 3, 4]), "bbox holds nan, which is not finite"),
    "neither box nor outline": Case(_first(bbox=None, segmentation=[]), "has no 'bbox', and no outline to take it"),
    "an area as text": Case(_first(area="12"), "area holds '12', which is not a number"),
    "iscrowd as text": Case(_first(iscrowd="0"), "iscrowd is '0' instead of 0 or 1"),
    "iscrowd 2": Case(_first(iscrowd=2), "iscrowd is 2 instead of 0 or 1"),
    "a size as text": Case(_image(height="60"), "height '60' and width 80 are no size"),
    "a size of 60.5": Case(_image(height=60.5), "height 60.5 and width 80 are no size"),
    "no size": Case(_without("images", "height"), "has no 'height': give the size of every image"),
    "a file name that is a number": Case(_image(file_name=5), "'file_name' is 5, no text that names a file"),
    "half a surrogate in a file name": Case(_image(file_name="a\ud800.png"), r"'file_name' is 'a\ud800.png', no text"),
    "a NUL in a file name": Case(_image(file_name="a\0.png"), r"'file_name' is 'a\x00.png', no text"),
    "an outline with far corners": Case(_first(segmentation=_zigzag(500, 100_000)), "far outside of its"),
    "an outline a million pixels long": Case(_first(segmentation=_zigzag(20_000, 70)), "write it as run lengths"),
    "an outline far away": Case(_first(segmentation=[[9e8, 9e8, 9e8 + 9, 9e8, 9e8, 9e8 + 9]]), "far outside of its"),
    "a mask with too many pixels": Case(_declared(90_000), "more pixels than pycocotools can count"),
}
