"""Proposals from a file, made fit for a data set; answers to Detectron datasets/json_dataset.py."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
from pycocotools.coco import COCO

from detectron_gn.mrcnn.errors import InputError
from detectron_gn.mrcnn.ops.boxes import side
from detectron_gn.mrcnn.ops.proposals import first_of_equal

Boxes = npt.NDArray[np.float32]

# Sides of a proposal are longer than this, in pixels (Detectron datasets/json_dataset.py:get_roidb).
MIN_SIZE = 2


@dataclass(frozen=True)
class StoredProposals:
    """The proposals of a file, image by image, as they stand in it.

    Attributes:
        boxes: `[R, 4]` each, inclusive corners in image pixels, best first.
        ids: of the images.
        source: what sentences call the file.
    """

    boxes: Sequence[npt.NDArray[np.floating[Any]]]
    ids: Sequence[int]
    source: str

    @cached_property
    def digest(self) -> str:
        """sha256 of all boxes and ids."""
        digest = hashlib.sha256(repr(list(self.ids)).encode())
        for boxes in self.boxes:
            digest.update(np.ascontiguousarray(boxes).tobytes())
        return digest.hexdigest()

    def of_images(self, coco: COCO, limit: int) -> dict[int, Boxes]:
        """The proposals of every image of a data set, by image id: `[R, 4]` float32 in image pixels, best first.

        Args:
            limit: how many proposals an image has at most; 0 for all (`cfg.TEST.PROPOSAL_LIMIT`).

        Images that the data set does not have are passed over. Raises InputError where one of its own is not in the
        file, or has no size.
        """
        usable = {}
        for image_id, image in sorted(coco.imgs.items()):
            if image.get("height") is None or image.get("width") is None:
                raise InputError(f"image {image_id} of the annotations has no size, which its proposals are clipped to")
            usable[image_id] = self.of_image(image_id, image["height"], image["width"], limit)
        return usable

    def of_image(self, image_id: int, height: int, width: int, limit: int) -> Boxes:
        """The proposals of an image, as `of_images` gives them; InputError where the file has none."""
        return usable_proposals(self.as_stored(image_id), height, width, limit)

    def as_stored(self, image_id: int) -> npt.NDArray[np.floating[Any]]:
        """The proposals `[R, 4]` of an image as they stand in the file; InputError where it has none."""
        if image_id not in self._place:
            raise InputError(
                f"{self.source} holds no proposals for image {image_id}: give those of the same images, which are "
                "found by the id in the annotations, or in a file's name such as COCO_val2014_000000000139.jpg"
            )
        return self.boxes[self._place[image_id]]

    @cached_property
    def _place(self) -> dict[int, int]:
        return {image_id: place for place, image_id in enumerate(self.ids)}


def usable_proposals(boxes: npt.NDArray[np.floating[Any]], height: int, width: int, limit: int) -> Boxes:
    """Clip `[R, 4]` proposals to an image, drop those that are the same to the pixel or too small, keep the first.

    Sides must be longer than `MIN_SIZE`; boxes are the same when all corners round, halves to even, to the same pixels.
    """
    ends = np.array([width - 1.0, height - 1.0, width - 1.0, height - 1.0], boxes.dtype)
    clipped: Boxes = np.minimum(ends, np.maximum(0, boxes)).astype(np.float32)
    clipped = clipped[np.sort(first_of_equal(clipped)[0])]
    widths, heights = side(clipped[:, 0], clipped[:, 2]), side(clipped[:, 1], clipped[:, 3])
    clipped = clipped[(widths > MIN_SIZE) & (heights > MIN_SIZE)]
    # A copy: a view would keep what is left out.
    return clipped[:limit].copy() if limit > 0 else clipped
