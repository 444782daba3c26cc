"""Draws the pictures in docs/images of what is found: run it when pictures of detections look otherwise than there.

    python docs/draw_images.py out/demo toys

It takes the folders of `make demo` and of the tutorial in docs/finetune.md, and Pillow, which comes with the extra
`plots`. `toys_curves.png` is two panels of the
tutorial's `toys/run/curves.png`, and `toys_train.jpg` shows what `examples/draw_toys.py` draws.
"""

import json
import sys
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from detectron_gn.mrcnn.visualize import class_colour, draw_objects, row_object

IMAGES = Path(__file__).resolve().parent / "images"
PAIR = "000000300009_detectron_and_ours.png"
PAIR_WIDTH = 1000
TOYS = ("02", "04", "05", "08", "09", "11")
# Three pictures share the width of the page, so that letters are drawn so much larger.
LETTERS = 2.4
CELL_WIDTH, CELL_HEIGHT, GAP = 300, 270, 12


def main(demo: Path, toys: Path) -> None:
    pair = read(demo / PAIR)
    height = round(PAIR_WIDTH * pair.shape[0] / pair.shape[1])
    small = cv2.resize(pair, (PAIR_WIDTH, height), interpolation=cv2.INTER_AREA)
    # A third of the bytes, and nobody sees it.
    few_colours = Image.fromarray(small[:, :, ::-1]).quantize(200, dither=Image.Dither.NONE)
    few_colours.save(IMAGES / "detectron_and_ours.png", optimize=True)

    rows = json.loads((toys / "found" / "detections.json").read_text())
    cells = [cell(found(toys / "val" / f"toys_{number}.png", rows)) for number in TOYS]
    sheet = np.concatenate([np.concatenate(cells[start : start + 3], axis=1) for start in (0, 3)])
    cv2.imwrite(str(IMAGES / "toys_found.jpg"), sheet, [cv2.IMWRITE_JPEG_QUALITY, 85])


def read(path: Path) -> np.ndarray:
    picture = cv2.imread(str(path))
    if picture is None:
        sys.exit(f"{path} is not there: run make demo, and the tutorial's commands with all of toys/val/*.png")
    return np.asarray(picture)


def found(path: Path, rows: list[dict]) -> np.ndarray:
    """A picture with what scores at least 0.5 in it, as `detect` draws it but with larger letters."""
    shown = [row for row in rows if row["file_name"] == path.name and row["score"] >= 0.5]
    labels = [f"{row['category_name']} {row['score']:.2f}" for row in shown]
    objects = [row_object(row, label, class_colour(row["category_id"])) for row, label in zip(shown, labels)]
    return draw_objects(read(path), objects, LETTERS)


def cell(picture: np.ndarray) -> np.ndarray:
    """A picture in the middle of a white cell."""
    factor = min((CELL_WIDTH - GAP) / picture.shape[1], (CELL_HEIGHT - GAP) / picture.shape[0])
    small = cv2.resize(picture, None, fx=factor, fy=factor, interpolation=cv2.INTER_AREA)
    top, left = (CELL_HEIGHT - small.shape[0]) // 2, (CELL_WIDTH - small.shape[1]) // 2
    below, right = CELL_HEIGHT - small.shape[0] - top, CELL_WIDTH - small.shape[1] - left
    return np.asarray(cv2.copyMakeBorder(small, top, below, left, right, cv2.BORDER_CONSTANT, value=(255, 255, 255)))


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:3]))
