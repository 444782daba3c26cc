"""What every detector is and can do; answers to Detectron core/test.py:im_detect_all."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from os import PathLike
from typing import TYPE_CHECKING, Any, get_args, overload

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from detectron_gn.mrcnn.backbones import Backbone
from detectron_gn.mrcnn.config import (
    Config,
    a_family,
    check_config,
    padding_stride,
    takes_proposals,
    with_values,
)
from detectron_gn.mrcnn.data.any_boxes import AnyBoxes, as_boxes
from detectron_gn.mrcnn.data.any_image import AnyImage, as_image
from detectron_gn.mrcnn.data.categories import Categories, numbered
from detectron_gn.mrcnn.data.image_blob import Image, PreparedImage, image_scale, padded_size, scaled_size
from detectron_gn.mrcnn.data.minibatch import Minibatch
from detectron_gn.mrcnn.data.targets import Target, minibatch_of
from detectron_gn.mrcnn.errors import InputError
from detectron_gn.mrcnn.inference.network_input import NetworkInput, network_input, prepare_for_test, to_device
from detectron_gn.mrcnn.inference.static_shapes import (
    StaticDetections,
    StaticNetwork,
    begin_static,
    supports_static_shapes,
)
from detectron_gn.mrcnn.inference.tta import check_views, is_augmented
from detectron_gn.mrcnn.precision import ROUNDED, Precision, round_products, tf32_products
from detectron_gn.mrcnn.structures import Detections, Features
from detectron_gn.mrcnn.tracing import uncompiled
from detectron_gn.mrcnn.training.outputs import losses_of
from detectron_gn.mrcnn.training.samplers import RandomSampler, Sampler

if TYPE_CHECKING:
    from typing_extensions import Self

Boxes = npt.NDArray[np.float32]

# Images of a list that run together at most: more of them need more memory, and no less time each on a CPU.
TOGETHER = 4

_ROUNDED_FOR_GOOD = "the weights were rounded to {} for good: load the model again for another precision"


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
        raise InputError(f"{a_family(self.cfg)} has no outputs of static shape: use `detect_batch`")

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
        if self.precision in ROUNDED and precision != self.precision:
            raise InputError(_ROUNDED_FOR_GOOD.format(self.precision))
        self.precision = precision
        if precision in ROUNDED:
            round_products(self, ROUNDED[precision])

    def half(self) -> Self:
        """`use_precision("fp16")`: normalisation, boxes and scores stay in float32."""
        self.use_precision("fp16")
        return self

    def bfloat16(self) -> Self:
        """`use_precision("bf16")`: normalisation, boxes and scores stay in float32."""
        self.use_precision("bf16")
        return self

    def float(self) -> Self:
        """torch's `float`; InputError where the weights were rounded."""
        return self.to(torch.float32)

    def double(self) -> Self:
        """Raises InputError: Detectron computes in float32."""
        raise InputError("a detector computes in float32, as Detectron does, and not in float64")

    def to(self, *args: Any, **kwargs: Any) -> Self:
        """torch's `to`; a type of 16 bits is what `use_precision` makes of it, and float64 raises InputError."""
        device, dtype, non_blocking, memory_format = torch._C._nn._parse_to(*args, **kwargs)
        if dtype is not None and dtype != torch.float32:
            names = {torch.float16: self.half, torch.bfloat16: self.bfloat16}
            names.get(dtype, self.double)()
        if dtype != torch.float32 or self.precision not in ROUNDED:
            if device is not None:
                super().to(device=device, non_blocking=non_blocking)
            if memory_format is not None:
                super().to(memory_format=memory_format)  # type: ignore[call-overload]
            return self
        raise InputError(_ROUNDED_FOR_GOOD.format(self.precision))

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
                f"{a_family(self.cfg)} without an RPN (MODEL.FASTER_RCNN False) takes its proposals from outside: give "
                "--proposals with the rpn_proposals.pkl that `test` writes for an RPN on the same images, or in Python "
                "`detect(image, proposals)` with boxes [R, 4] in pixels of the image"
            )
        if given and not self.takes_proposals:
            raise InputError(
                f"{a_family(self.cfg)} makes its own proposals or needs none: leave --proposals (in Python "
                "`proposals`) out"
            )

    def proposals(self, image: AnyImage) -> tuple[Tensor, Tensor]:
        """What the RPN proposes in an image, best first: boxes `[R, 4]` in its pixels and objectness `[R]`.

        Boxes are inclusive corners, clipped to the padded image, as a second stage takes them. Raises InputError for a
        network without an RPN.
        """
        raise InputError(f"{a_family(self.cfg)} has no RPN, so that it proposes nothing: use `detect`")

    def region_features(self, image: AnyImage, boxes: AnyBoxes) -> Tensor:
        """What the box head is given of boxes in an image: `[R, C, S, S]` float32.

        Args:
            boxes: `[R, 4]`, inclusive corners in the image's pixels.

        Raises InputError for a network without a box head.
        """
        raise InputError(f"{a_family(self.cfg)} has no box head, so that boxes have no features: use `features`")

    def network_input(self, images: Sequence[AnyImage], proposals: Sequence[AnyBoxes] | None = None) -> NetworkInput:
        """Scale and pad images for testing; detection and the parity trace both begin here.

        Args:
            images: in any form of `mrcnn.data.any_image.as_image`.
            proposals: `[R, 4]` numbers of each image, inclusive corners in its own pixels; only for a network that
                `takes_proposals`.

        Raises InputError for images that are not padded to one and the same size or are too narrow for a view of
        test-time augmentation, and where proposals are missing, not taken or no boxes.
        """
        self.check_proposals(proposals is not None)
        if proposals is not None:
            if len(proposals) != len(images):
                raise InputError(f"{len(images)} images and proposals of {len(proposals)}: give them for each")
            proposals = [as_boxes(boxes, "proposals") for boxes in proposals]
        images = [as_image(image) for image in images]
        prepared = [self.prepare(image) for image in images]
        batch = network_input(images, prepared, padding_stride(self.cfg), self.device, proposals)
        if not is_augmented(self.cfg):
            return batch
        for image in images:
            check_views(image, self.cfg)
        return batch._replace(images=images)

    @overload
    def forward(self, images: Sequence[AnyImage], targets: None = None) -> list[Detections]: ...
    @overload
    def forward(self, images: Sequence[AnyImage], targets: Sequence[Target]) -> dict[str, Tensor]: ...
    @uncompiled
    def forward(
        self, images: Sequence[AnyImage], targets: Sequence[Target] | None = None
    ) -> list[Detections] | dict[str, Tensor]:
        """torchvision's calling convention, Detectron's arithmetic: detections in eval mode, losses in training mode.

        Args:
            images: in any form of `mrcnn.data.any_image.as_image`, of any sizes.
            targets: in training mode, as `mrcnn.data.targets.minibatch_of` describes them.

        Returns:
            In eval mode the detections of each image. In training mode the losses under Detectron's names, already
            weighted: their sum is what is minimised. Anchors and RoIs are sampled from torch's own generator.

        `torch.compile` of a whole network leaves it as it is: its host decides by numbers. Compile `features`.

        Raises InputError where targets are missing, or given in eval mode, or are not what they should be.
        """
        if isinstance(images, str | PathLike | np.ndarray):
            raise InputError("a detector is called with a list of images: give [image], or take model.detect(image)")
        if not self.training:
            if targets is not None:
                raise InputError("targets are for training: call model.train() first, or leave them out to detect")
            return self.detect(list(images))
        if targets is None:
            raise InputError("in training mode a detector takes targets with its images: call model.eval() to detect")
        sampler = RandomSampler(self.cfg, self.device, int(torch.randint(2**62, ())))
        outputs = self.losses(minibatch_of(images, targets, self.cfg), sampler)
        return losses_of(outputs)

    @overload
    def detect(
        self, image: list[AnyImage] | tuple[AnyImage, ...], proposals: Sequence[AnyBoxes] | None = None
    ) -> list[Detections]: ...
    @overload
    def detect(
        self, image: Image | str | PathLike[str] | bytes | Tensor, proposals: AnyBoxes = None
    ) -> Detections: ...
    @uncompiled
    def detect(
        self,
        image: AnyImage | list[AnyImage] | tuple[AnyImage, ...],
        proposals: AnyBoxes | Sequence[AnyBoxes] | None = None,
    ) -> Detections | list[Detections]:
        """Find the objects in one image, or in each of a list or tuple of images of any sizes.

        Args:
            image: a path, the bytes of an image file, an array `[H, W, 3]` uint8 BGR, a PIL image, or a tensor
                `[3, H, W]` RGB.
            proposals: `[R, 4]` numbers in its pixels, where the network takes them; of a list, those of each image.

        Images of a list that are padded to one and the same size run together, up to `TOGETHER` of them.
        """
        if not isinstance(image, list | tuple):
            given = None if proposals is None else [proposals]
            return self.detect_batch([as_image(image)], given)[0]
        if proposals is not None:
            count = len(proposals) if hasattr(proposals, "__len__") and not isinstance(proposals, str) else 0
            if count != len(image):
                raise InputError(f"{len(image)} images and proposals of {count}: give them for each, as a list")
        found: dict[int, Detections] = {}
        groups: dict[tuple[int, int], list[int]] = defaultdict(list)
        images = [as_image(each) for each in image]
        for number, each in enumerate(images):
            groups[self.padded_size(each)].append(number)
        for numbers in groups.values():
            for start in range(0, len(numbers), TOGETHER):
                part = numbers[start : start + TOGETHER]
                of_part = None if proposals is None else [proposals[number] for number in part]
                found |= zip(part, self.detect_batch([images[number] for number in part], of_part), strict=True)
        return [found[number] for number in range(len(images))]

    def padded_size(self, image: Image) -> tuple[int, int]:
        """The height and width that an `[H, W, 3]` image has for the network; images of one size may share a batch."""
        height, width = image.shape[:2]
        scale = image_scale(height, width, self.cfg.TEST.SCALE, self.cfg.TEST.MAX_SIZE)
        return padded_size(*scaled_size(height, width, scale), padding_stride(self.cfg))

    def detect_batch(self, images: Sequence[Image], proposals: Sequence[AnyBoxes] | None = None) -> list[Detections]:
        """Find the objects in `[H, W, 3]` uint8 BGR images that are padded to one size; others raise InputError."""
        names = self.classes
        found = self.start_batch(self.network_input(images, proposals))()
        return [replace(each, class_names=names) for each in found]

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
