"""Detection with fewer bits than float32, as an option; docs/precision.md says what changes."""

from typing import Literal

import torch
from torch import nn

Precision = Literal["fp32", "tf32", "bf16", "fp16"]
ROUNDED: dict[Precision, torch.dtype] = {"bf16": torch.bfloat16, "fp16": torch.float16}


def allow_tf32(allowed: bool) -> None:
    """Let GPUs that can take the products of float32 from 10 bits of mantissa, or not; for the whole process."""
    torch.backends.cuda.matmul.allow_tf32 = allowed
    torch.backends.cudnn.allow_tf32 = allowed


def round_products(model: nn.Module, dtype: torch.dtype) -> None:
    """Round the weights of all convolutions and linear layers, for good, so that they compute in `dtype`.

    The parameters of GroupNorm stay in float32.
    """
    for module in model.modules():
        if isinstance(module, nn.Conv2d | nn.ConvTranspose2d | nn.Linear):
            module.to(dtype)
