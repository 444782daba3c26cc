"""Pictures of images that an earlier run has detected in: drawn of their lines, without the network."""

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from detectron_gn.mrcnn.data.categories import Categories
from detectron_gn.mrcnn.data.read_image import ImageReading
from detectron_gn.port.runs.detect import FailedFile
from detectron_gn.port.runs.drawn_rows import shown_rows, write_drawn, written_since
from detectron_gn.port.runs.read_ahead import ImageToDetect, read_file


def left_to_draw(image: ImageToDetect, begun: float) -> ImageToDetect:
    """What is wanted of an image, without the pictures that the run has written, which has begun at this time."""

    def left(path: Path | None) -> Path | None:
        return None if path is None or written_since(path, begun) else path

    return image._replace(picture=left(image.picture), masks=left(image.masks))


def draw_recorded(
    lines: Iterable[dict[str, Any]],
    wanted: Callable[[Path], ImageToDetect],
    categories: Categories,
    least_score: float | None,
    reading: ImageReading,
) -> Iterator[ImageToDetect | FailedFile]:
    """Write what is wanted of the images of lines; yields each as it is done.

    Args:
        lines: of `detection_lines.recorded_lines`.
        wanted: says what is to be written of an image.
        least_score: as in `port.runs.detect.detect_in_files`.
    """
    for line in lines:
        image, pixels, error = read_file(wanted(Path(line["file_name"])), reading)
        if pixels is not None and pixels.shape[:2] != (line["height"], line["width"]):
            pixels, error = None, f"{image.path} has another size than when it was detected in: give another --out"
        if pixels is None:
            yield FailedFile(image.path, error)
            continue
        write_drawn(image, pixels, shown_rows(line["detections"], least_score), categories)
        yield image
