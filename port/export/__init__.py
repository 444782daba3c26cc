"""A network that runs without this project: an ONNX graph, written from a detector and checked beside it."""
