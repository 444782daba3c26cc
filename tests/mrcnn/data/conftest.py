"""A small data set that a test writes to disk, and the annotation of one object in it."""

import json

import cv2
import numpy as np
import pytest

SQUARE = [[10.0, 10.0, 30.0, 10.0, 30.0, 30.0, 10.0, 30.0]]


@pytest.fixture
def annotation():
    """A function that makes the annotation of a square, but for the given fields."""

    def make(**fields):
        return {
            "id": 1,
            "image_id": 1,
            "category_id": 17,
            "bbox": [10.0, 10.0, 20.0, 20.0],
            "area": 400.0,
            "iscrowd": 0,
            "segmentation": SQUARE,
        } | fields

    return make


@pytest.fixture
def write_dataset(tmp_path):
    """Write images `{id: (height, width)}` and annotations; returns the annotation file and the image folder."""

    def write(images, annotations, categories=((3, "circle"), (17, "square"))):
        folder = tmp_path / "images"
        folder.mkdir(exist_ok=True)
        records = []
        for image_id, (height, width) in images.items():
            pixels = np.random.default_rng(image_id).integers(0, 256, (height, width, 3), dtype=np.uint8)
            cv2.imwrite(str(folder / f"{image_id}.png"), pixels)
            records.append({"id": image_id, "file_name": f"{image_id}.png", "height": height, "width": width})
        content = {
            "images": records,
            "annotations": [{**a, "id": number} for number, a in enumerate(annotations, 1)],
            "categories": [{"id": i, "name": name} for i, name in categories],
        }
        file = tmp_path / "instances.json"
        file.write_text(json.dumps(content))
        return file, folder

    return write
