"""What `detect` draws: of the rows that are on record only, so that it is the same whenever that is."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2

from detectron_gn.mrcnn.data.categories import Categories
from detectron_gn.mrcnn.data.image_blob import Image
from detectron_gn.mrcnn.visualize import class_colour, draw_objects, row_object
from detectron_gn.port.runs.mask_picture import mask_png
from detectron_gn.port.runs.read_ahead import ImageToDetect
from detectron_gn.weights.errors import WriteFailed
from detectron_gn.weights.files.atomic import replacing

# What is drawn scores at least so much, where the command line does not say it.
DRAWN_SCORE = 0.5

Row = dict[str, Any]


def shown_score(least_score: float | None) -> float:
    """What is drawn scores at least so much."""
    return DRAWN_SCORE if least_score is None else least_score


def best_score(rows: Sequence[Row]) -> float:
    """The score of the first of an image's rows, which is its best; 0 where there are none."""
    return rows[0]["score"] if rows else 0.0


def shown_rows(rows: Sequence[Row], least_score: float | None) -> list[Row]:
    """The rows of an image that are drawn."""
    return [row for row in rows if row["score"] >= shown_score(least_score)]


def draw_rows(pixels: Image, rows: Sequence[Row], categories: Categories) -> Image:
    """A picture of an image, `[H, W, 3]` uint8 BGR, with rows, the best first; `[kH, kW, 3]` as `draw_objects`."""
    labels = {category: label for label, category in enumerate(categories.ids, 1)}
    return draw_objects(
        pixels,
        [
            row_object(row, f"{row['category_name']} {row['score']:.2f}", class_colour(labels[row["category_id"]]))
            for row in rows
        ],
    )


def write_drawn(image: ImageToDetect, pixels: Image, rows: Sequence[Row], categories: Categories) -> None:
    """Write the pictures that are wanted of an image, of the rows that `shown_rows` leaves."""
    if image.picture is not None:
        write_picture(image.picture, cv2.imencode(".png", draw_rows(pixels, rows, categories))[1].tobytes())
    if image.masks is not None:
        write_masks(image.masks, rows, pixels.shape[:2])


def write_masks(path: Path, rows: Sequence[Row], size: Sequence[int]) -> None:
    """Write the picture of masks of rows; `size` is (height, width) of the image."""
    height, width = size
    write_picture(path, mask_png([row["segmentation"] for row in rows], (height, width)))


def written_since(path: Path, begun: float) -> bool:
    """Whether a picture is there and no older than its run, which has begun at this time of the disk."""
    try:
        return path.stat().st_mtime >= begun
    except OSError:
        return False


def make_folder(folder: Path) -> None:
    """Make a folder for what is written, with those it lies in; WriteFailed where a file is in its place."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise WriteFailed(str(folder), f"cannot be made a folder: {error.strerror or error}") from None


def write_picture(path: Path, content: bytes) -> None:
    """Write a picture, whole or not at all, and the folders that it lies in."""
    make_folder(path.parent)
    with replacing(path) as temporary:
        temporary.write_bytes(content)
