"""A detector as a program of `torch.export`: it runs in torch alone, in tensors whose shapes are known beforehand."""

import io
import json
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram

from detectron_gn.mrcnn.config import model_family, padding_stride
from detectron_gn.mrcnn.data.image_blob import padded_size
from detectron_gn.mrcnn.detectors import Detector
from detectron_gn.mrcnn.errors import InputError
from detectron_gn.mrcnn.inference.static_shapes import supports_static_shapes
from detectron_gn.port.export.metadata import metadata_of
from detectron_gn.weights.files.atomic import replacing

# The name, inside the file, of what ONNX files have as metadata.
METADATA = "metadata.json"
# Shorter sides than this many strides make maps of one position, which torch takes for no axis at all.
LEAST_STRIDES = 4


class PaddedSize(NamedTuple):
    """Height and width of the padded blob."""

    height: int
    width: int


class StaticDetector(nn.Module):
    """`Detector.static_outputs` of one image, with the inputs of an ONNX file that takes blobs."""

    def __init__(self, model: Detector) -> None:
        super().__init__()
        self.model = model

    def forward(self, data: Tensor, im_info: Tensor, image_size: Tensor) -> dict[str, Tensor]:
        """The detections in D = `cfg.TEST.DETECTIONS_PER_IM` places, of which the first `count` hold one.

        Args:
            data: `[1, 3, H, W]` float32, the padded blob.
            im_info: `[1, 3]` float32: height and width, which are not read, and scale.
            image_size: `[2]` float32: height and width of the image as it was read.

        Returns:
            `boxes [D, 4]`, `scores [D]`, `classes [D]` int64, `count []` int64, `complete []` bool (whether the places
            sufficed) and, with a mask head, `mask_probs [D, M, M]`.
        """
        found = self.model.static_outputs(data, im_info[:, 2].double(), image_size[None])
        outputs = {
            "boxes": found.boxes[0],
            "scores": found.scores[0],
            "classes": found.classes[0],
            "count": found.counts[0],
            "complete": found.complete[0],
        }
        if found.mask_probs is not None:
            outputs["mask_probs"] = found.mask_probs[0]
        return outputs


def torch_program(model: Detector, size: PaddedSize | None = None) -> ExportedProgram:
    """The program of a detector.

    Args:
        size: the one size of padded blobs that it takes; None for every size up to `cfg.TEST.MAX_SIZE`, padded.

    Raises InputError for a network that has no outputs of static shape, and a size that no padded blob has.
    """
    cfg = model.cfg
    if not supports_static_shapes(cfg):
        raise InputError(
            "a .pt2 is made of end-to-end Faster and Mask R-CNNs with a feature pyramid, without augmentation, "
            f"Soft-NMS and voting; this is another {model_family(cfg)}: export it to .onnx"
        )
    stride = padding_stride(cfg)
    if size is not None and (min(size) < stride or any(side % stride for side in size)):
        raise InputError(f"--size {size.height}x{size.width}: sides of a padded blob are multiples of {stride}")
    height, width = size or (stride * (LEAST_STRIDES + 2), stride * (LEAST_STRIDES + 4))
    inputs = {
        "data": torch.zeros(1, 3, height, width),
        "im_info": torch.tensor([[height, width, 1.0]]),
        "image_size": torch.tensor([float(height), float(width)]),
    }
    shapes = None
    if size is None:
        most = max(padded_size(cfg.TEST.MAX_SIZE, cfg.TEST.MAX_SIZE, stride)) // stride
        sides = {axis: stride * Dim(name, min=LEAST_STRIDES, max=most) for axis, name in ((2, "rows"), (3, "columns"))}
        shapes = {"data": sides, "im_info": None, "image_size": None}
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return torch.export.export(StaticDetector(model).eval(), (), inputs, dynamic_shapes=shapes)


def write_program(model: Detector, path: Path, size: PaddedSize | None, facts: Mapping[str, str]) -> list[Path]:
    """Write what `torch_program` makes, whole or not at all, with metadata as ONNX files have it."""
    program = torch_program(model, size)
    extra = {METADATA: json.dumps(metadata_of(model, "blob", facts))}
    # In memory first: where a disk is full, torch ends the process.
    content = io.BytesIO()
    with warnings.catch_warnings():
        # torch warns of buffers that share memory, which are kept.
        warnings.simplefilter("ignore")
        torch.export.save(program, content, extra_files=extra)
    with replacing(path) as temporary:
        temporary.write_bytes(content.getvalue())
    return [path]
