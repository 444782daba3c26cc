"""What `verify blobs` shows of hundreds of blobs: each part of the network with its worst one, and the worst of all."""

from collections.abc import Iterator, Sequence

from detectron_gn.mrcnn.tables import text_table
from detectron_gn.port.blobs.parts import ORDER, part_of
from detectron_gn.verify.parity.blobs import BlobParity, ImageParity

_WORST = 10


def part_table(parities: Sequence[ImageParity], tolerance: float) -> str:
    """Each part of the network, over all images: its blobs, how many are out of tolerance, and the worst one."""
    parts: dict[str, list[BlobParity]] = {}
    for row in _rows(parities):
        parts.setdefault(part_of(row.blob), []).append(row)
    ordered = [(part, parts[part]) for part in ORDER if part in parts]
    lines = []
    for part, rows in ordered:
        worst = max(rows, key=lambda row: row.worst_error)
        outside = sum(not row.is_within(tolerance) for row in rows)
        lines.append([part, worst.blob, str(len(rows)), str(outside or "-"), worst.told])
    header = ["part", "worst blob", "blobs", "out", "relative"]
    if not any(line[3] != "-" for line in lines):
        header, lines = [*header[:3], header[4]], [[*line[:3], line[4]] for line in lines]
    return text_table(header, lines, left=2)


def worst_table(parities: Sequence[ImageParity]) -> str:
    """The blobs that are furthest from Caffe2's, the worst first, with the images that they are of."""
    pairs = [(row, parity.image) for parity in parities for row in parity.blobs]
    worst = sorted(pairs, key=lambda pair: -pair[0].worst_error)[:_WORST]
    several = len(parities) > 1
    lines = [[row.blob, *[image] * several, row.told] for row, image in worst]
    return text_table(["worst blobs", *["image"] * several, "relative"], lines, left=1 + several)


def _rows(parities: Sequence[ImageParity]) -> Iterator[BlobParity]:
    for parity in parities:
        yield from parity.blobs
