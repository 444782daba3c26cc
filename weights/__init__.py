"""Turns files into named arrays and back: model ids, downloads, pickles, HDF5, safetensors, `.pth`."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from detectron_gn.weights.errors import WeightsError
    from detectron_gn.weights.formats.containers import read_blobs, write_blobs
    from detectron_gn.weights.weights_file import WeightsFile
else:
    # Imported at the first use: the front door imports this room's commands, and must not wait for numpy and h5py.
    _HOMES = {
        "WeightsError": "errors",
        "WeightsFile": "weights_file",
        "read_blobs": "formats.containers",
        "write_blobs": "formats.containers",
    }

    def __getattr__(name):
        if name not in _HOMES:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)


__all__ = ["WeightsError", "WeightsFile", "read_blobs", "write_blobs"]
