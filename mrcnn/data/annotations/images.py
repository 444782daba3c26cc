"""The images of an annotation file as columns."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from detectron_gn.mrcnn.data.annotations.ragged import IntArray, Ragged, starts_of


@dataclass(frozen=True)
class ImageColumns:
    """`I` images, by id in rising order.

    Attributes:
        ids: `[I]`.
        heights, widths: `[I]`, in pixels.
        file_names: `[I]`, bytes of UTF-8, in which what is no such stands as it was.
    """

    ids: IntArray
    heights: IntArray
    widths: IntArray
    file_names: Ragged

    def __len__(self) -> int:
        return len(self.ids)

    def file_name(self, place: int) -> str:
        """The name of an image's file."""
        return self.file_names[place].tobytes().decode("utf-8", "surrogateescape")

    def places(self, ids: IntArray) -> IntArray:
        """The places of images by their ids; of an id that is not known, some place."""
        return np.searchsorted(self.ids, ids).clip(max=max(0, len(self.ids) - 1))

    def records(self) -> list[dict[str, Any]]:
        """The images in COCO's form."""
        sizes = zip(self.heights.tolist(), self.widths.tolist(), strict=True)
        return [
            {"id": number, "file_name": self.file_name(place), "height": height, "width": width}
            for place, (number, (height, width)) in enumerate(zip(self.ids.tolist(), sizes, strict=True))
        ]


def image_columns(records: Iterable[Mapping[str, Any]]) -> ImageColumns:
    """The columns of images that were read."""
    ordered: Sequence[Mapping[str, Any]] = sorted(records, key=lambda record: int(record["id"]))
    ids, heights, widths = (np.array([each[key] for each in ordered], np.int64) for key in ("id", "height", "width"))
    names = [each["file_name"].encode("utf-8", "surrogateescape") for each in ordered]
    return ImageColumns(
        ids, heights, widths, Ragged(np.frombuffer(b"".join(names), np.uint8), starts_of([len(name) for name in names]))
    )
