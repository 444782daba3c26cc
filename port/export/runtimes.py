"""Exported files as they run: in ONNX Runtime and in torch."""

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from detectron_gn.mrcnn.data.image_blob import Image
from detectron_gn.mrcnn.detectors import Boxes, Detector
from detectron_gn.mrcnn.structures import Detections

Arrays = dict[str, npt.NDArray[Any]]


class OnnxDetector:
    """An exported file in ONNX Runtime, on the CPU.

    Args:
        threads: that it computes with; 0 leaves the number to it.
    """

    def __init__(self, path: Path, threads: int = 0) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3  # errors
        options.intra_op_num_threads = threads
        self.session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        self.form = self.session.get_modelmeta().custom_metadata_map["input"]

    def detect(self, model: Detector, image: Image, proposals: Boxes | None = None) -> Detections:
        """The objects in an `[H, W, 3]` uint8 BGR image.

        Args:
            model: what the file was made of, which prepares the image for a file that takes blobs.
            proposals: `[P, 4]` float32 in its pixels, where the network takes them.
        """
        feeds: Arrays = {"image": image}
        if self.form == "blob":
            feeds = _blobs(model, image, proposals)
        if proposals is not None:
            feeds["proposals"] = proposals
        names = [output.name for output in self.session.get_outputs()]
        found = dict(zip(names, self.session.run(names, feeds), strict=True))
        return _detections(found, image, model)


class ProgramDetector:
    """A program of `torch.export`, read from its file."""

    def __init__(self, path: Path) -> None:
        self.network = torch.export.load(path).module()

    def detect(self, model: Detector, image: Image, proposals: Boxes | None = None) -> Detections:
        """The objects in an `[H, W, 3]` uint8 BGR image, which `model` prepares."""
        feeds = {name: torch.from_numpy(array) for name, array in _blobs(model, image, proposals).items()}
        with torch.no_grad():
            found = self.network(**feeds)
        count = int(found.pop("count"))
        arrays = {name: tensor[:count].numpy() for name, tensor in found.items() if tensor.dim()}
        return _detections(arrays, image, model)


def _blobs(model: Detector, image: Image, proposals: Boxes | None) -> Arrays:
    """An image as files take it whose input is prepared already."""
    batch = model.network_input([image], None if proposals is None else [proposals])
    return {
        "data": batch.data.contiguous().numpy(),
        "im_info": np.array([batch.im_info[0]], dtype=np.float32),
        "image_size": np.array(image.shape[:2], dtype=np.float32),
    }


def _detections(found: Arrays, image: Image, model: Detector) -> Detections:
    points = found.get("keypoints")
    return Detections(
        found["boxes"],
        found["scores"],
        found["classes"],
        (image.shape[0], image.shape[1]),
        mask_probs=found.get("mask_probs"),
        # Rows x, y, logit; the exported network gives no probability.
        keypoints=None if points is None else points.transpose(0, 2, 1),
        mask_threshold=model.cfg.MRCNN.THRESH_BINARIZE,
    )
