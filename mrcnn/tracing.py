"""Whether torch is watching: the operators that it is to write down, and what cannot be written down.

A graph that torch traces knows neither what was written in place into parts of a tensor nor what the host decided by
the numbers it saw. So the kernels take plain operators then, and what the host decides is refused.
"""

from collections.abc import Callable
from functools import wraps
from typing import ParamSpec, TypeVar

import torch

from detectron_gn.mrcnn.errors import InputError

P = ParamSpec("P")
R = TypeVar("R")


def is_traced() -> bool:
    """Whether operators are being written down: by `torch.jit.trace`, `torch.export`, `torch.onnx` or a compiler."""
    return is_exported() or torch.compiler.is_compiling()


def is_exported() -> bool:
    """Whether they are written down for good, so that the host's decisions would be too; a compiler asks again."""
    # torch 2.6 does not know `is_exporting`; there an export is seen as a compiler.
    exporting = getattr(torch.compiler, "is_exporting", torch.compiler.is_compiling)
    return is_jit_traced() or torch.onnx.is_in_onnx_export() or exporting()


def is_jit_traced() -> bool:
    """Whether it is `torch.jit.trace`, to which sizes are numbers."""
    tracing: bool = torch._C._is_tracing()
    return tracing


def uncompiled(function: Callable[P, R]) -> Callable[P, R]:
    """Keep a compiler out of a function, as `torch.compiler.disable` does, which is asked only where one is at work.

    That function loads the compiler, 1.5 seconds of every command's start.
    """

    @wraps(function)
    def run(*args: P.args, **kwargs: P.kwargs) -> R:
        if torch.compiler.is_compiling():
            return torch.compiler.disable(function)(*args, **kwargs)  # type: ignore[no-untyped-call,no-any-return]
        return function(*args, **kwargs)

    return run


def refuse_export(what: str) -> None:
    """Raise InputError while operators are written down for good; `what` is what the host decides."""
    if is_exported():
        raise InputError(
            f"{what} by the numbers it sees, which no trace keeps: export the whole network with `detectron-gn export`,"
            " or trace the parts that are tensors alone (`model.features`, the heads on pooled features)"
        )
