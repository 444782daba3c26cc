"""An exported network in memory, as tests run it beside its model and beside Caffe2's references."""

from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime

from detectron_gn.mrcnn.detectors import Detector
from detectron_gn.port.export.onnx_model import onnx_model

Arrays = dict[str, npt.NDArray[Any]]


def session_of(model: onnx.ModelProto) -> onnxruntime.InferenceSession:
    """ONNX Runtime on one thread, as deterministic as the rest of the tests."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])


def run_session(session: onnxruntime.InferenceSession, **feeds: npt.NDArray[Any]) -> Arrays:
    """The outputs by name."""
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(names, feeds), strict=True))


def run_exported(model: Detector, image: npt.NDArray[np.uint8], proposals: Any = None) -> Arrays:
    """What the exported network of a model finds in an image."""
    feeds = {} if proposals is None else {"proposals": np.asarray(proposals, np.float32)}
    return run_session(session_of(onnx_model(model)), image=image, **feeds)
