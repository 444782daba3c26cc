"""A batch of images as a network takes it, and the ways of tensors between host and device."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from detectron_gn.mrcnn.config import Config
from detectron_gn.mrcnn.data.image_blob import Image, PreparedImage, image_blob, padded_size, prepare_image
from detectron_gn.mrcnn.errors import InputError
from detectron_gn.mrcnn.ops.proposals import ImInfo


class NetworkInput(NamedTuple):
    """A batch as the network takes it.

    Attributes:
        data: `[N, 3, H, W]` float32 on the network's device.
        im_info: of each image.
        image_sizes: (height, width) of each image as it was read.
        proposals: of each image, `[R, 4]` float32 in its own pixels, for a network that takes them from outside.
        images: `[H, W, 3]` uint8 BGR of each, as it was read, for detection that looks at them more than once.
    """

    data: Tensor
    im_info: list[ImInfo]
    image_sizes: list[tuple[int, int]]
    proposals: list[Tensor] | None = None
    images: Sequence[Image] | None = None

    def __repr__(self) -> str:
        """`<network input [1, 3, 800, 1216]>`: the shape of `data`."""
        return f"<network input {list(self.data.shape)}>"

    def image(self, index: int) -> "NetworkInput":
        """One image of the batch."""
        part = slice(index, index + 1)
        given = None if self.proposals is None else self.proposals[part]
        images = None if self.images is None else self.images[part]
        return NetworkInput(self.data[part], self.im_info[part], self.image_sizes[part], given, images)


def prepare_for_test(image: Image, cfg: Config) -> PreparedImage:
    """Scale an `[H, W, 3]` uint8 BGR image for testing."""
    return prepare_image(image, cfg.PIXEL_MEANS, cfg.TEST.SCALE, cfg.TEST.MAX_SIZE)


def network_input(
    images: Sequence[Image],
    prepared: Sequence[PreparedImage],
    stride: int,
    device: torch.device,
    proposals: Sequence[npt.NDArray[np.float32]] | None = None,
) -> NetworkInput:
    """Pad what was prepared of `[H, W, 3]` uint8 BGR images, one each, to a multiple of `stride`, as one batch.

    Args:
        proposals: `[R, 4]` of each image, in its own pixels.

    Raises InputError for images that are not padded to one and the same size: GroupNorm's statistics cover the
    padding, so an image that is padded further than by itself would come out otherwise.
    """
    sizes = {padded_size(image.pixels.shape[0], image.pixels.shape[1], stride) for image in prepared}
    if len(sizes) != 1:
        raise InputError(f"a batch must hold images of one padded size, not of {sorted(sizes)}: detect them apart")
    data = image_blob([image.pixels for image in prepared], stride)
    height, width = data.shape[2:]
    return NetworkInput(
        to_device(data, device),
        [ImInfo(height, width, image.scale) for image in prepared],
        [(image.shape[0], image.shape[1]) for image in images],
        None if proposals is None else [to_device(torch.from_numpy(boxes), device) for boxes in proposals],
    )


def to_device(tensor: Tensor, device: torch.device) -> Tensor:
    """A host's tensor on a device; the host does not wait for the copy to a GPU."""
    if device.type == "cuda":
        return tensor.pin_memory().to(device, non_blocking=True)
    return tensor.to(device)


def to_host(tensors: Sequence[Tensor]) -> Callable[[], list[Tensor]]:
    """Begin to copy tensors to the host; what is returned waits for the copies."""
    if not tensors[0].is_cuda:
        return lambda: [tensor.cpu() for tensor in tensors]
    copies = [tensor.to("cpu", non_blocking=True) for tensor in tensors]
    # Threads that wait for it sleep.
    copied = torch.cuda.Event(blocking=True)  # type: ignore[no-untyped-call]
    copied.record(torch.cuda.current_stream(tensors[0].device))

    def wait() -> list[Tensor]:
        copied.synchronize()
        return copies

    return wait
