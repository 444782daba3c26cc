"""A device that is not the CPU, computes on it all the same, and notes whenever the host waits for it.

What runs on a GPU runs on this one with real numbers, on any machine: an operator that is given tensors of the host
and of the device together raises, as it would on a GPU, and asking for a value is put on record. torch calls the device
"meta", the one kind that every build of torch knows and none touches.
"""

from collections import Counter
from contextlib import contextmanager

import torch
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten, tree_map

DEVICE = torch.device("meta")
# What gives the host a number, or a tensor of as many rows as there are.
WAITS = {
    "aten._local_scalar_dense.default",
    "aten.equal.default",
    "aten.is_nonzero.default",
    "aten.item.default",
    "aten.masked_select.default",
    "aten.nonzero.default",
    "aten._unique2.default",
    "aten.unique_consecutive.default",
    "aten.unique_dim.default",
    "aten.bincount.default",
    "aten.repeat_interleave.Tensor",
}
# These take tensors of both sides: copies, and a tensor of the device that is indexed by one of the host.
COPIES = ("aten.copy_", "aten._to_copy", "aten.to.")
INDEXING = ("aten.index.Tensor", "aten.index_put", "aten._index_put")
JOINING = ("aten.cat.", "aten.stack.")


class OnDevice(torch.Tensor):
    """A tensor that says it is on the device, with its values in `value` on the CPU."""

    @staticmethod
    def __new__(cls, value, requires_grad=False):
        return torch.Tensor._make_wrapper_subclass(
            cls,
            value.size(),
            strides=value.stride(),
            storage_offset=value.storage_offset(),
            dtype=value.dtype,
            device=DEVICE,
            requires_grad=requires_grad,
        )

    def __init__(self, value, requires_grad=False):
        self.value = value

    __torch_function__ = torch._C._disabled_torch_function_impl

    @classmethod
    def __torch_dispatch__(cls, func, types, args=(), kwargs=None):
        raise RuntimeError(f"{func} outside of `pretended_gpu`")


class _Operators(TorchDispatchMode):
    def __init__(self, waits):
        super().__init__()
        self._waits = waits

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs, name = kwargs or {}, str(func)
        leaves = [leaf for leaf in tree_flatten((args, kwargs))[0] if isinstance(leaf, torch.Tensor)]
        here = [leaf for leaf in leaves if not isinstance(leaf, OnDevice)]
        there = len(here) < len(leaves)
        assert all(leaf.device != DEVICE for leaf in here), f"torch made a tensor for {name} that holds no values"
        # A number without dimensions may lie on either side, but for where tensors are joined.
        may_mix = name.startswith(COPIES) or (name.startswith(INDEXING) and isinstance(args[0], OnDevice))
        if there and not may_mix and any(leaf.dim() or name.startswith(JOINING) for leaf in here):
            raise RuntimeError(f"{name} of tensors on the host and on the device")
        device = kwargs.get("device") or next((value for value in args if isinstance(value, torch.device)), None)
        to_host = name.startswith(COPIES) and device is not None and torch.device(device).type != DEVICE.type
        by_mask = name.startswith(INDEXING) and (here or any(leaf.dtype == torch.bool for leaf in leaves[1:]))
        if there and (name in WAITS or to_host or by_mask):
            self._waits[name] += 1
        result = func(*tree_map(_values, args), **tree_map(_values, kwargs))
        for leaf in leaves:  # what was written in place stays the tensor it was
            if isinstance(leaf, OnDevice) and leaf.value is result:
                return leaf
        if name.startswith("aten.copy_"):
            return args[0]
        on_device = there if device is None else torch.device(device).type == DEVICE.type
        return tree_map(lambda each: OnDevice(each) if on_device and isinstance(each, torch.Tensor) else each, result)


class _Functions(TorchFunctionMode):
    """What torch does between its functions and its operators that would reach the device."""

    def __init__(self, waits):
        super().__init__()
        self._waits = waits

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs, name = dict(kwargs or {}), getattr(func, "__name__", "")
        if func is torch.tensor and torch.device(kwargs.get("device") or "cpu").type == DEVICE.type:
            self._waits["torch.tensor"] += 1
            return OnDevice(func(*args, **{**kwargs, "device": "cpu"}))
        if name == "new_tensor" and isinstance(args[0], OnDevice):
            self._waits[name] += 1
            return OnDevice(torch.tensor(args[1], dtype=args[0].dtype))
        if name == "tolist" and isinstance(args[0], OnDevice):
            self._waits[name] += 1
            return args[0].value.tolist()
        return func(*args, **kwargs)


def _values(leaf):
    if isinstance(leaf, OnDevice):
        return leaf.value
    return torch.device("cpu") if isinstance(leaf, torch.device) else leaf


@contextmanager
def pretended_gpu():
    """Let tensors go to `DEVICE` while the context is open; gives a Counter of what the host waited for."""
    waits = Counter()
    with _Functions(waits), _Operators(waits):
        yield waits
