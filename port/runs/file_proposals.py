"""The proposals of image files: found by the ids in the names of the files."""

import os
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path

from detectron_gn.mrcnn.data.image_blob import Image
from detectron_gn.mrcnn.data.image_files import id_in_name
from detectron_gn.mrcnn.data.proposals_file import StoredProposals
from detectron_gn.mrcnn.detectors import Boxes
from detectron_gn.mrcnn.errors import InputError


class FileProposals:
    """The proposals of image files, by the ids in their names; never by their places in the command.

    An image without an id in its name, or with one that another file has as well, has none.
    """

    def __init__(self, stored: StoredProposals, paths: Iterable[Path], limit: int) -> None:
        self._stored, self._limit = stored, limit
        self._named: dict[int | None, set[str]] = defaultdict(set)
        for path in paths:
            self._named[id_in_name(path)].add(os.path.realpath(path))

    def of_image(self, path: Path, image: Image) -> Boxes:
        """`[R, 4]` float32; InputError where the name has no id, another file has the same, or there are none of it."""
        image_id = id_in_name(path)
        if image_id is None:
            raise InputError(
                "its proposals are found by the image's id, and its name has none: give it a name that ends in the id, "
                "such as COCO_val2014_000000000139.jpg"
            )
        if len(self._named[image_id]) > 1:
            raise InputError(
                f"its name has the id {image_id}, and so has that of another image, so that nothing tells whose the "
                "proposals of that id are: give each a name that ends in its own id"
            )
        height, width = image.shape[:2]
        return self._stored.of_image(image_id, height, width, self._limit)
