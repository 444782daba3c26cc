"""What every detector is and can do; answers to Detectron core/test.py:im_detect_all."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import get_args

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from detectron_gn.mrcnn.backbones import Backbone
from detectron_gn.mrcnn.config import (
    Config,
    check_config,
    model_family,
    padding_stride,
    takes_proposals,
    with_values,
)
from detectron_gn.mrcnn.data.categories import Categories, numbered
from detectron_gn.mrcnn.data.image_blob import Image, PreparedImage
from detectron_gn.mrcnn.data.minibatch import Minibatch
from detectron_gn.mrcnn.errors import InputError
from detectron_gn.mrcnn.inference.network_input import NetworkInput, network_input, prepare_for_test, to_device
from detectron_gn.mrcnn.inference.static_shapes import (
    StaticDetections,
    StaticNetwork,
    begin_static,
    supports_static_shapes,
)
from detectron_gn.mrcnn.inference.tta import is_augmented
from detectron_gn.mrcnn.precision import ROUNDED, Precision, round_products, tf32_products
from detectron_gn.mrcnn.structures import Detections, Features
from detectron_gn.mrcnn.training.samplers import Sampler

Boxes = npt.NDArray[np.float32]


class Detector(nn.Module, ABC):
    """A network of one configuration: images to features, to detections, and, in training, to losses.

    Attributes:
        cfg: the configuration.
        backbone: images to features.
        precision: of convolutions and matrix products in detection.
        categories: names and ids of its classes; None where they are not known.

    Building one changes nothing outside of it. Raises InputError where the configuration asks for something that is
    not supported.
    """

    backbone: Backbone

    def __init__(self, cfg: Config) -> None:
        super().__init__()
        check_config(cfg)
        self.cfg = cfg
        self.precision: Precision = "fp32"
        self.categories: Categories | None = None

    def features(self, data: Tensor) -> Features:
        """The feature maps of `[N, 3, H, W]` prepared images, finest first."""
        with self.products():
            features: Features = self.backbone(data.to(next(self.backbone.parameters()).dtype))
        return features

    @abstractmethod
    def detect_dynamic(self, batch: NetworkInput) -> list[Detections]:
        """The objects in a batch, step by step with as many boxes as there are."""

    def static_outputs(self, data: Tensor, scales: Tensor, image_sizes: Tensor) -> StaticDetections:
        """The detections of a batch in tensors of static shape, where `supports_static_shapes`.

        The host looks at no number.

        Args:
            data: `[N, 3, H, W]` as `network_input` gives it.
            scales: `[N]` float64, network pixels per image pixel.
            image_sizes: `[N, 2]` float32, (height, width) of the images as they were read.
        """
        raise InputError(f"a {model_family(self.cfg)} has no outputs of static shape: use `detect_batch`")

    @abstractmethod
    def losses(self, minibatch: Minibatch, sampler: Sampler) -> dict[str, Tensor]:
        """The losses of a minibatch under Detectron's names, and its metrics; none of them summed."""

    @property
    def classes(self) -> tuple[str, ...]:
        """The names of all classes, the background first, so that `classes[k]` names a detection of class k.

        `class 1`, `class 2`, ... where they are not known.
        """
        return (self.categories or numbered(self.cfg.MODEL.NUM_CLASSES - 1)).classes

    @property
    def device(self) -> torch.device:
        """Where the parameters are."""
        return next(self.parameters()).device

    def use_precision(self, precision: Precision) -> None:
        """Detect in fewer bits from now on; a new network computes in float32, without TF32.

        Args:
            precision: `tf32` computes with TF32 on GPUs that have it; `bf16` and `fp16` round the weights to bfloat16
                or float16, for good. Normalisation, boxes and scores stay in float32 always.
        """
        if precision not in get_args(Precision):
            raise InputError(f"precision {precision!r} is not known: give one of {', '.join(get_args(Precision))}")
        self.precision = precision
        if precision in ROUNDED:
            round_products(self, ROUNDED[precision])

    def products(self) -> AbstractContextManager[None]:
        """While this context is open, GPUs take products in the network's precision and in no other."""
        return tf32_products(self.precision == "tf32")

    @contextmanager
    def without_augmentation(self) -> Iterator[None]:
        """While this context is open, detection looks at an image once, as a reference's dump does."""
        own, off = self.cfg, {f"TEST.{section}.ENABLED": False for section in ("BBOX_AUG", "MASK_AUG", "KPS_AUG")}
        self.cfg = with_values(own, off)
        try:
            yield
        finally:
            self.cfg = own

    def prepare(self, image: Image) -> PreparedImage:
        """Scale an `[H, W, 3]` uint8 BGR image for testing."""
        return prepare_for_test(image, self.cfg)

    @property
    def takes_proposals(self) -> bool:
        """Whether the network needs proposals with each image, as Fast R-CNN does."""
        return takes_proposals(self.cfg)

    def check_proposals(self, given: bool) -> None:
        """Raise InputError where the network takes proposals and none are given, or the reverse."""
        if self.takes_proposals and not given:
            raise InputError(
                f"a {model_family(self.cfg)} without an RPN (MODEL.FASTER_RCNN False) takes its proposals from a file: "
                "give --proposals with the rpn_proposals.pkl that `test` writes for an RPN on the same images"
            )
        if given and not self.takes_proposals:
            raise InputError(f"a {model_family(self.cfg)} makes its own proposals or needs none: leave --proposals out")

    def network_input(self, images: Sequence[Image], proposals: Sequence[Boxes] | None = None) -> NetworkInput:
        """Scale and pad `[H, W, 3]` uint8 BGR images for testing; detection and the parity trace both begin here.

        Args:
            proposals: `[R, 4]` float32 of each image, inclusive corners in its own pixels; only for a network that
                `takes_proposals`.

        Raises InputError for images that are not padded to one and the same size, and where proposals are missing or
        not taken.
        """
        self.check_proposals(proposals is not None)
        prepared = [self.prepare(image) for image in images]
        batch = network_input(images, prepared, padding_stride(self.cfg), self.device, proposals)
        return batch._replace(images=images) if is_augmented(self.cfg) else batch

    def detect(self, image: Image, proposals: Boxes | None = None) -> Detections:
        """Find the objects in one `[H, W, 3]` uint8 BGR image, among its proposals where the network takes them."""
        return self.detect_batch([image], None if proposals is None else [proposals])[0]

    def detect_batch(self, images: Sequence[Image], proposals: Sequence[Boxes] | None = None) -> list[Detections]:
        """Find the objects in images that are padded to one and the same size; others raise InputError."""
        return self.start_batch(self.network_input(images, proposals))()

    @torch.inference_mode()
    def start_batch(self, batch: NetworkInput, network: StaticNetwork | None = None) -> Callable[[], list[Detections]]:
        """Begin to find the objects in a batch; what is returned waits for them, in any thread.

        Args:
            network: `static_outputs` or what does the same. Left out, it is `static_outputs` on a GPU, which is given
                everything at one go and computes while the host goes on, and none on a CPU, which takes as many boxes
                as there are and has finished on return.
        """
        if network is None and self.device.type != "cpu" and supports_static_shapes(self.cfg):
            network = self.static_outputs
        with self.products():
            if network is None:
                found = self.detect_dynamic(batch)
                return lambda: found
            scales = torch.tensor([info.scale for info in batch.im_info], dtype=torch.float64)
            sizes = torch.tensor(batch.image_sizes, dtype=torch.float32)
            outputs = network(batch.data, to_device(scales, self.device), to_device(sizes, self.device))
            return begin_static(outputs, batch, self.cfg, self.detect_dynamic)
