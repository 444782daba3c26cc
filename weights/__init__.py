"""Turns files into named arrays and back: model ids, downloads, pickles, HDF5, safetensors, `.pth`."""

from detectron_gn.weights.errors import WeightsError
from detectron_gn.weights.formats.containers import read_blobs, write_blobs
from detectron_gn.weights.weights_file import WeightsFile

__all__ = ["WeightsError", "WeightsFile", "read_blobs", "write_blobs"]
