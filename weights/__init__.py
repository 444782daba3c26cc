"""Turns files into named arrays and back: model ids, downloads, pickles, HDF5, safetensors, `.pth`."""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from detectron_gn.weights.errors import WeightsError
    from detectron_gn.weights.formats.containers import read_blobs, write_blobs
    from detectron_gn.weights.weights_file import WeightsFile

__all__ = ["WeightsError", "WeightsFile", "read_blobs", "write_blobs"]

_MODULES = {
    "WeightsError": "errors",
    "WeightsFile": "weights_file",
    "read_blobs": "formats.containers",
    "write_blobs": "formats.containers",
}


def __getattr__(name: str) -> object:
    """Import a public name at its first use: the command line opens without numpy (PEP 562)."""
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
