"""The one loop over images: read ahead, detect, finish behind; answers to Detectron core/test_engine.py:test_net."""

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Generic, TypeVar

from detectron_gn.mrcnn.data.image_blob import Image
from detectron_gn.mrcnn.detectors import Boxes, Detector
from detectron_gn.mrcnn.errors import InputError
from detectron_gn.mrcnn.inference.network_input import NetworkInput
from detectron_gn.mrcnn.inference.static_shapes import StaticNetwork
from detectron_gn.mrcnn.prefetch import mapped_ahead
from detectron_gn.mrcnn.structures import Detections

Item = TypeVar("Item")
Result = TypeVar("Result")


@dataclass(frozen=True)
class _Read(Generic[Item]):
    """A batch of images that is ready for the network."""

    items: Sequence[Item]
    images: list[Image]
    batch: NetworkInput


@dataclass(frozen=True)
class _Refused(Generic[Item]):
    """A batch that the network cannot be given, and the sentence that says why."""

    items: Sequence[Item]
    error: InputError


@dataclass(frozen=True)
class _Begun(Generic[Item]):
    """A batch that the network has begun with: what waits for its detections, and when it began."""

    items: Sequence[Item]
    images: list[Image]
    wait: Callable[[], list[Detections]]
    start: float


@dataclass(frozen=True)
class Predicted(Generic[Item, Result]):
    """A batch that is done.

    Attributes:
        items: what its images are to the caller.
        results: of each of them, what the caller made of its detections.
        start, detected, finished: moments in seconds (`time.perf_counter`): when the network began with the batch, when
            its detections were there, and when the results were made.
    """

    items: Sequence[Item]
    results: list[Result]
    start: float
    detected: float
    finished: float


def predict(
    model: Detector,
    batches: Iterable[Sequence[Item]],
    read: Callable[[Item], Image],
    finish: Callable[[Item, Image, Detections], Result],
    *,
    refused: Callable[[Item, InputError], Result] | None = None,
    proposals: Callable[[Item, Image], Boxes] | None = None,
    name: Callable[[Item], str] = str,
    threads: int = 0,
    network: StaticNetwork | None = None,
) -> Iterator[Predicted[Item, Result]]:
    """Detect in images, batch by batch; yields each batch when it is done, in order.

    Args:
        batches: what the caller calls the images of each batch; those of one batch are padded to one and the same size.
        read: gives an image as `[H, W, 3]` uint8 BGR.
        finish: makes of an image and its detections what is wanted of them: result rows, a picture.
        refused: makes of an image that cannot be read, or scaled for the network, what stands in its place; then the
            others go on, and those of its batch go through the network one by one.
        proposals: gives those of an image, `[R, 4]` in its own pixels, for a model that takes them.
        name: what a sentence calls an image.
        threads: that read images while the network runs, and as many that finish them; 0 does all in this one.
        network: runs in place of the model's own, as in `Detector.start_batch`.

    Without `refused`, raises InputError, which names the image, where it cannot be scaled for the network; and what
    `read` raises.
    """

    def ready(items: Sequence[Item]) -> _Read[Item]:
        images = [read(item) for item in items]
        try:
            given = None if proposals is None else [proposals(*each) for each in zip(items, images, strict=True)]
            return _Read(items, images, model.network_input(images, given))
        except InputError as error:
            raise InputError(f"{' or '.join(map(name, items))}: {error}") from None

    def prepared(items: Sequence[Item]) -> list[_Read[Item] | _Refused[Item]]:
        try:
            return [ready(items)]
        except InputError as error:
            if refused is None:
                raise
            if len(items) == 1:
                return [_Refused(items, error)]
        return [part for item in items for part in prepared([item])]

    def begun(batch: _Read[Item] | _Refused[Item]) -> list[_Begun[Item] | _Refused[Item]]:
        if isinstance(batch, _Refused):
            return [batch]
        start = time.perf_counter()
        try:
            return [_Begun(batch.items, batch.images, model.start_batch(batch.batch, network), start)]
        except InputError as error:
            if refused is None:
                raise
            if len(batch.items) == 1:
                return [_Refused(batch.items, error)]
        return [result for item in batch.items for part in prepared([item]) for result in begun(part)]

    def finished(batch: _Begun[Item] | _Refused[Item]) -> Predicted[Item, Result]:
        if isinstance(batch, _Refused):
            assert refused is not None
            now = time.perf_counter()
            return Predicted(batch.items, [refused(item, batch.error) for item in batch.items], now, now, now)
        found = batch.wait()
        detected = time.perf_counter()
        results = [finish(*each) for each in zip(batch.items, batch.images, found, strict=True)]
        return Predicted(batch.items, results, batch.start, detected, time.perf_counter())

    whole = chain.from_iterable
    return mapped_ahead(finished, whole(map(begun, whole(mapped_ahead(prepared, batches, threads)))), threads)
