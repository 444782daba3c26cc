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
        l2: norm of the whole blob; None where the reference does not tell.
    """

    values: Array
    shape: tuple[int, ...]
    stride: int = 1
    l2: float | None = None

    @property
    def is_whole(self) -> bool:
        """Whether the reference holds every value."""
        return self.stride == 1

    @property
    def largest(self) -> float:
        """At most the largest magnitude in the whole blob: of the sample, or its root mean square where that is more.

        0 for an empty blob.
        """
        of_sample = float(np.abs(self.doubles()).max(initial=0.0))
        size = int(np.prod(self.shape, dtype=np.int64))
        return max(of_sample, self.l2 / size**0.5) if self.l2 is not None and size else of_sample

    def norm_error(self, ours: Tensor) -> float:
        """How far the norm of a blob of ours is from the whole reference's, as a share of it; 0 where it is not told.

        A sample alone would not show what is wrong between its values, nor that a reference was thinned or edited.
        """
        if self.is_whole or self.l2 is None:
            return 0.0
        norm = float(torch.linalg.vector_norm(ours.detach().double()))
        apart = abs(norm - self.l2)
        return apart / (self.l2 + 1e-6) if np.isfinite(apart) else float("inf")

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
