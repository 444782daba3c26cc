"""Turns files into named arrays and back: model ids, downloads, pickles, HDF5, safetensors, `.pth`."""

from weights.containers import read_blobs, write_blobs
from weights.errors import WeightsError
from weights.weights_file import WeightsFile

__all__ = ["WeightsError", "WeightsFile", "read_blobs", "write_blobs"]
