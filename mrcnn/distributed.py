"""Processes that train together under `torchrun`; answers to Detectron modeling/optimizer.py:_add_allreduce_graph."""

import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta

import torch
import torch.distributed as dist
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel

from detectron_gn.mrcnn.errors import InputError
from detectron_gn.mrcnn.training.network import TrainingNetwork

# The others wait this long while the first process evaluates; torch's own ten minutes are less than that can take.
_PATIENCE = timedelta(days=1)


@dataclass(frozen=True)
class Ranks:
    """This process among those that train together: `rank` of `count`, and the device it computes on."""

    rank: int
    count: int
    device: torch.device

    @property
    def is_first(self) -> bool:
        """Whether this is the process that writes files and prints."""
        return self.rank == 0

    def minibatches(self, iteration: int, num_gpus: int) -> range:
        """The numbers of this process's minibatches of an iteration, which has one for each of `cfg.NUM_GPUS`."""
        return range(iteration * num_gpus + self.rank, (iteration + 1) * num_gpus, self.count)

    def share(self, network: TrainingNetwork) -> TrainingNetwork | DistributedDataParallel:
        """The network to call: its gradients are summed, not averaged, over all processes.

        Each loss is scaled by 1 / `cfg.NUM_GPUS` already, so the sum is what Detectron's all-reduce gives.
        """
        if self.count == 1:
            return network
        # A 1x1 convolution has two layouts that are the same in memory, and torch warns that they have two names.
        warnings.filterwarnings("ignore", message="Grad strides do not match bucket view strides")
        shared = DistributedDataParallel(network, gradient_as_bucket_view=True)
        shared.register_comm_hook(None, _sum_gradients)
        return shared

    def sum(self, values: Tensor) -> Tensor:
        """The sum of a tensor over all processes."""
        if self.count > 1:
            dist.all_reduce(values)
        return values

    def wait(self) -> None:
        """Return when every process has come here."""
        if self.count > 1:
            dist.barrier()


@contextmanager
def joined_ranks(num_gpus: int, device: str = "auto") -> Iterator[Ranks]:
    """Meet the other processes that `torchrun` started, if it did; leave them at the end.

    Args:
        num_gpus: `cfg.NUM_GPUS`, the minibatches of an iteration, of which every process needs one at least.
        device: what this process computes on, as torch names it. "cuda" is the GPU of its local rank, and "auto" is
            that or, where there is no GPU, the CPU.

    Raises InputError for more processes than minibatches, and for two processes of one machine on the same GPU.
    """
    rank, count = int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))
    if count > num_gpus:
        raise InputError(
            f"torchrun started {count} processes for NUM_GPUS {num_gpus}: start at most {num_gpus}, "
            f"or pass --set NUM_GPUS {count} and a schedule for it (--scale-schedule {count})"
        )
    own = _own_device(device)
    if own.type == "cuda":
        beside, local = int(os.environ.get("LOCAL_WORLD_SIZE", 1)), int(os.environ.get("LOCAL_RANK", 0))
        if beside > 1 and own.index != local:
            raise InputError(
                f"torchrun started {beside} processes on this machine and not each has a GPU of its own: start one "
                "per GPU, with --device cuda, or pass --device cpu"
            )
        torch.cuda.set_device(own)
    if count > 1:
        dist.init_process_group("nccl" if own.type == "cuda" else "gloo", timeout=_PATIENCE)
    try:
        yield Ranks(rank, count, own)
    finally:
        if count > 1:
            dist.destroy_process_group()


def _own_device(name: str) -> torch.device:
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    return torch.device("cuda", int(os.environ.get("LOCAL_RANK", 0))) if name == "cuda" else torch.device(name)


def _sum_gradients(_state: None, bucket: dist.GradBucket) -> torch.futures.Future[Tensor]:  # type: ignore[name-defined]
    """What DistributedDataParallel does with a bucket of gradients."""
    summed = dist.all_reduce(bucket.buffer(), async_op=True).get_future()
    reduced: torch.futures.Future[Tensor] = summed.then(lambda future: future.value()[0])
    return reduced
