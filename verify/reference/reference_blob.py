"""A blob as a reference file holds it: whole, or every n-th value of it."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class ReferenceBlob:
    """A blob of Caffe2's workspace, or an even sample of it.

    Attributes:
        values: `[ceil(size / stride)]`, every `stride`-th value of the flattened blob, in the file's type.
        shape: of the whole blob.
        stride: 1 where the reference holds every value.
    """

    values: Array
    shape: tuple[int, ...]
    stride: int = 1

    @property
    def is_whole(self) -> bool:
        """Whether the reference holds every value."""
        return self.stride == 1

    def known(self) -> Tensor:
        """The blob in its whole shape, float32; what the reference has not kept of it is NaN."""
        whole = torch.full((int(np.prod(self.shape, dtype=np.int64)),), torch.nan)
        whole[:: self.stride] = torch.from_numpy(self.values.astype(np.float32))
        return whole.reshape(self.shape)

    def doubles(self) -> npt.NDArray[np.float64]:
        """The values as float64."""
        return self.values.astype(np.float64)

    def sample_of(self, ours: Tensor | Array) -> npt.NDArray[np.float64]:
        """A copy of the values, of a blob of ours in the same shape, that the reference has kept of its own."""
        if isinstance(ours, Tensor):
            return ours.detach().reshape(-1)[:: self.stride].cpu().to(torch.float64, copy=True).numpy()
        return ours.reshape(-1)[:: self.stride].astype(np.float64)
