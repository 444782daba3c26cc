"""The network as a CUDA graph for each shape of batch: all of its kernels are asked for by one call.

A network of this kind is a thousand kernels, and most of them take a GPU less time than the host needs to ask for one.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from detectron_gn.mrcnn.detectors import Detector
from detectron_gn.mrcnn.errors import InputError
from detectron_gn.mrcnn.inference.static_shapes import StaticDetections, supports_static_shapes

# Runs before the recording: libraries choose their algorithms and take their memory in them.
WARM_UP_RUNS = 3

class _Recording(NamedTuple):
    graph: torch.cuda.CUDAGraph
    inputs: tuple[Tensor, Tensor, Tensor]
    outputs: StaticDetections


class CudaGraphs:
    """`Detector.static_outputs`, recorded at the first batch of each shape and replayed, for `Detector.start_batch`.

    The outputs are overwritten by the next call: copy them, in the order of the stream, before it. All recordings
    share their memory, but for the inputs: 12 MB an image of 800 x 1216, and data sets of photos have some 50 shapes.
    To be called by one thread; others may use the GPU meanwhile.

    Raises InputError where the model is not on an NVIDIA GPU, or its configuration does not support static shapes.
    """

    def __init__(self, model: Detector) -> None:
        if model.device.type != "cuda":
            raise InputError(f"CUDA graphs need an NVIDIA GPU, and this is {model.device.type}: leave them out")
        if not supports_static_shapes(model.cfg):
            raise InputError(
                "CUDA graphs need tensors of static shape, which only end-to-end Faster and Mask R-CNNs on a feature "
                "pyramid have, and not with TEST.SOFT_NMS, TEST.BBOX_VOTE, TEST.BBOX_AUG, TEST.MASK_AUG, limits of 0 "
                "in TEST or ROI_XFORM_SAMPLING_RATIO 0: leave them out"
            )
        self._model = model
        self._recordings: dict[torch.Size, _Recording] = {}
        self._pool = torch.cuda.graph_pool_handle()

    @torch.inference_mode()
    def __call__(self, data: Tensor, scales: Tensor, image_sizes: Tensor) -> StaticDetections:
        """What the network gives for the batch."""
        inputs = (data, scales, image_sizes)
        with torch.cuda.device(data.device):
            if data.shape not in self._recordings:
                self._recordings[data.shape] = self._recorded(inputs)
            recording = self._recordings[data.shape]
            for place, value in zip(recording.inputs, inputs, strict=True):
                place.copy_(value)
            recording.graph.replay()
        return recording.outputs

    def _recorded(self, inputs: tuple[Tensor, Tensor, Tensor]) -> _Recording:
        data, scales, image_sizes = (value.clone() for value in inputs)
        current, stream = torch.cuda.current_stream(), torch.cuda.Stream()  # type: ignore[no-untyped-call]
        stream.wait_stream(current)
        with torch.cuda.stream(stream):
            for _ in range(WARM_UP_RUNS):
                self._model.static_outputs(data, scales, image_sizes)
        current.wait_stream(stream)
        graph = torch.cuda.CUDAGraph()
        # Threads that read images take memory of the GPU's meanwhile, which only concerns their own.
        with torch.cuda.graph(graph, pool=self._pool, capture_error_mode="thread_local"):
            outputs = self._model.static_outputs(data, scales, image_sizes)
        return _Recording(graph, (data, scales, image_sizes), outputs)
