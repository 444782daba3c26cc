"""An ONNX file of a detector, written whole or not at all; over 2 GB its weights lie in a file beside it."""

from collections.abc import Mapping
from pathlib import Path

import onnx

from detectron_gn.mrcnn.detectors import Detector
from detectron_gn.port.export.metadata import InputForm
from detectron_gn.port.export.onnx_model import onnx_model
from detectron_gn.weights.files.atomic import replacing

# What one protobuf message may hold; a little is left for what is not weights.
LARGEST = 2**31 - 2**24


def write_onnx(
    model: Detector, path: Path, form: InputForm, facts: Mapping[str, str], largest: int = LARGEST
) -> list[Path]:
    """Write the ONNX model of a detector.

    Args:
        form, facts: see `onnx_model`.
        largest: size in bytes from which on the weights go into `NAME.data` beside the file, which belongs to it.

    Returns:
        The files, the model first. Raises WriteFailed where they cannot be written.
    """
    made = onnx_model(model, form, facts)
    if sum(len(tensor.raw_data) for tensor in made.graph.initializer) <= largest:
        with replacing(path) as temporary:
            temporary.write_bytes(made.SerializeToString())
        return [path]
    beside = path.with_name(f"{path.name}.data")
    with replacing(beside) as temporary:
        _move_weights(made, temporary, beside.name)
    with replacing(path) as temporary:
        temporary.write_bytes(made.SerializeToString())
    return [path, beside]


def _move_weights(model: onnx.ModelProto, path: Path, name: str) -> None:
    """Write the weights of a model to a file and leave in the model where they lie in the file called `name`."""
    end = 0
    with path.open("wb") as file:
        for tensor in model.graph.initializer:
            content = tensor.raw_data
            if len(content) < 1024:
                continue
            # Pages of 4 KiB, so that runtimes can map the file.
            start = -(-end // 4096) * 4096
            file.seek(start)
            file.write(content)
            end = start + len(content)
            tensor.ClearField("raw_data")
            tensor.data_location = onnx.TensorProto.EXTERNAL
            for key, value in (("location", name), ("offset", str(start)), ("length", str(len(content)))):
                tensor.external_data.add(key=key, value=value)
