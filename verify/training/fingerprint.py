"""What a run is trained on, as a hash, by which a run that goes on knows its data again."""

import hashlib
from collections.abc import Iterator

import numpy as np

from detectron_gn.mrcnn.data.annotations.ragged import Ragged
from detectron_gn.mrcnn.data.roidb import Roidb, TrainedImages
from detectron_gn.mrcnn.ops.keypoints import MIRRORED

# Of what is hashed, and how.
_FORM = "2"
# Annotations that are gathered at once.
_BLOCK = 50_000


def data_fingerprint(roidb: Roidb) -> str:
    """The number of this form, and a sha256 over what a roidb is trained on, but for the pixels.

    Image names and sizes, order, flips, boxes, classes and outlines, and keypoints and proposals as there are. Image
    files are not looked at: to read them takes as long as an epoch, and one that is mended may be trained on.
    """
    digest = hashlib.sha256(repr(roidb.flips).encode())
    for images in roidb.datasets:
        for piece in _pieces(images):
            digest.update(b"%d " % len(piece))
            digest.update(piece)
    return f"{_FORM}:{digest.hexdigest()}"


def _pieces(images: TrainedImages) -> Iterator[bytes]:
    """All that makes a data set, in an order that hangs on nothing else."""
    objects = images.objects
    names = "\n".join(name.rpartition("/")[2] for name in images.names)
    yield names.encode("utf-8", "surrogateescape")
    yield images.heights.tobytes()
    yield images.widths.tobytes()
    of_images = objects.rows.take(images.places)
    yield of_images.lengths.tobytes()
    rows = of_images.values
    yield objects.boxes[rows].tobytes()
    yield objects.classes[rows].tobytes()
    columns = objects.columns
    yield columns.is_crowd[rows].tobytes()
    outlines = columns.outlines
    numbers = Ragged(np.arange(len(outlines.polygons)), outlines.starts)
    for start in range(0, len(rows), _BLOCK):
        block = rows[start : start + _BLOCK]
        of_block = numbers.take(block)
        yield of_block.lengths.tobytes()
        for each in (outlines.polygons.take(of_block.values), outlines.run_lengths.take(block)):
            yield each.lengths.tobytes()
            yield each.values.tobytes()
        if objects.trains_keypoints:
            yield columns.keypoints.values.take(block).values.tobytes()
    if objects.mirrored != MIRRORED:
        yield np.array(objects.mirrored).tobytes()
    for number in range(len(images)):
        proposals = images.proposals(number)
        if proposals is None:
            return
        yield np.ascontiguousarray(proposals).tobytes()
