"""The processes that train or evaluate together under `torchrun`.

Answers to Detectron modeling/optimizer.py:_add_allreduce_graph and utils/subprocess.py:process_in_parallel.
"""

import os
import time
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.rendezvous import rendezvous
from torch.nn.parallel import DistributedDataParallel

from detectron_gn.mrcnn.errors import InputError
from detectron_gn.mrcnn.stopping import end_with_parent
from detectron_gn.mrcnn.wording import listed

Item = TypeVar("Item")

# The first process waits this long for the others: one of them may sit on a slower machine.
_PATIENCE = timedelta(days=1)
# All are started at once, but one may have weights to download before it comes.
_MEETING = timedelta(minutes=30)
# How many processes have come, and how many will not, in the store that torchrun keeps for them.
_COME, _FAILED = "detectron_gn/come", "detectron_gn/failed"
# What gloo says where another process has ended.
_LOST = ("Connection closed by peer", "Connection reset by peer", "Broken pipe", "Socket closed")
_ENDED = "another process of this run has ended: see what it said last, and start all of them again (train --resume)"


@dataclass(frozen=True)
class Ranks:
    """This process among those that work together: `rank` of `count`, and the device it computes on.

    On its own machine it is `local_rank` of `local_count`.
    """

    rank: int = 0
    count: int = 1
    device: torch.device = torch.device("cpu")
    local_rank: int = 0
    local_count: int = 1
    _objects: Any = None
    """The process group that Python objects travel in, where it is not the one that gradients travel in."""

    @property
    def is_first(self) -> bool:
        """Whether this is the process that writes files, scores and prints."""
        return self.rank == 0

    def minibatches(self, iteration: int, num_gpus: int) -> range:
        """The numbers of this process's minibatches of an iteration, which has one for each of `cfg.NUM_GPUS`."""
        return range(iteration * num_gpus + self.rank, (iteration + 1) * num_gpus, self.count)

    def share(self, work: Sequence[Item]) -> Sequence[Item]:
        """Every `count`-th item, so that no two processes have one in common and together they have all."""
        return work[self.rank :: self.count]

    def share_here(self, work: Sequence[Item]) -> Sequence[Item]:
        """What is this process's of what all processes of its machine see: every `local_count`-th item."""
        return work[self.local_rank :: self.local_count]

    def share_gradients(self, network: nn.Module) -> nn.Module:
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

    def exchange(self, item: Item) -> list[Item]:
        """What every process gave, in the order of ranks."""
        if self.count == 1:
            return [item]
        items: list[Item] = [item] * self.count
        dist.all_gather_object(items, item, group=self._objects)
        return items

    def collect(self, item: Item) -> list[Item]:
        """What every process gave, in the order of ranks, for the first process; nothing for the others."""
        if self.count == 1:
            return [item]
        items = [item] * self.count if self.is_first else None
        dist.gather_object(item, items, group=self._objects)
        return items or []


ALONE = Ranks()


@contextmanager
def joined_ranks(device: str = "auto", num_gpus: int | None = None) -> Iterator[Ranks]:
    """Meet the other processes that `torchrun` started, if it did; leave them at the end.

    Args:
        device: what a process computes on, as `usable_device` takes it; under torchrun "auto" and "cuda" are the GPU
            of its local rank.
        num_gpus: `cfg.NUM_GPUS` for training: the minibatches of an iteration, of which every process needs one at
            least. Left out, the processes exchange results only, over gloo.

    Raises InputError for more processes than minibatches, several of them on one GPU, a device that is not there, and
    where another process cannot be met or is lost.
    """
    rank, count = _number("RANK", 0), process_count()
    # A NUM_GPUS below 1 is for `check_config` to refuse.
    if num_gpus is not None and count > max(num_gpus, 1):
        raise InputError(
            f"torchrun started {count} processes for NUM_GPUS {num_gpus}: start at most {num_gpus}, "
            f"or pass --set NUM_GPUS {count} and a schedule for it (--scale-schedule {count})"
        )
    own = usable_device(_device_of_rank(device))
    on_gpu = own.type == "cuda"
    if on_gpu:
        torch.cuda.set_device(own)
    if count == 1:
        yield Ranks(device=own)
        return
    if on_gpu and num_gpus is not None and device not in ("auto", "cuda"):
        raise InputError(f"{count} processes cannot train on {device} together: pass --device cuda, one GPU for each")
    over_nccl = on_gpu and num_gpus is not None
    here = int(os.environ.get("LOCAL_WORLD_SIZE", count))
    if over_nccl and here > torch.cuda.device_count():
        raise InputError(
            f"torchrun started {here} processes on this machine, which has {torch.cuda.device_count()} GPUs: start one "
            "process per GPU"
        )
    if "TORCHELASTIC_RUN_ID" in os.environ:
        end_with_parent()  # torchrun itself may be killed, or get a signal that it does not pass on, as SIGUSR1
    with _told_in_a_sentence():
        backend = "nccl" if over_nccl else "gloo"
        dist.init_process_group(backend, store=_met(count), rank=rank, world_size=count, timeout=_PATIENCE)
        try:
            objects = dist.new_group(backend="gloo", timeout=_PATIENCE) if over_nccl else None
            yield Ranks(rank, count, own, _number("LOCAL_RANK", rank), here, objects)
        finally:
            dist.destroy_process_group()


def tell_failure() -> None:
    """Tell the processes that wait for this one in `joined_ranks` that it will not come, where torchrun started it."""
    if os.environ.get("TORCHELASTIC_USE_AGENT_STORE") != "True":
        return
    with suppress(RuntimeError, ValueError):
        store, _, _ = next(rendezvous("env://", timeout=timedelta(seconds=3)))
        store.add(_FAILED, 1)


def _met(count: int) -> dist.Store:  # type: ignore[name-defined]
    """The store of all processes, when so many have come to it; else they wait for one that has ended long ago."""
    store, _, _ = next(rendezvous("env://", timeout=_MEETING))
    come, patience = store.add(_COME, 1), time.monotonic() + _MEETING.total_seconds()
    while come < count:
        if store.add(_FAILED, 0):
            raise InputError(_ENDED)
        if time.monotonic() > patience:
            raise InputError(
                f"{count - come} of {count} processes have not come within {_MEETING.total_seconds() / 60:g} minutes: "
                "see what they and torchrun said on every machine, and start all of them again"
            )
        time.sleep(0.2)
        come = store.add(_COME, 0)
    store.set_timeout(_PATIENCE)
    return store


def process_count() -> int:
    """How many processes `torchrun` started; 1 without it. InputError where the environment holds no number."""
    return _number("WORLD_SIZE", 1)


def _number(name: str, default: int) -> int:
    """A whole number that torchrun puts into the environment."""
    text = os.environ.get(name, str(default))
    if not text.isdecimal():
        raise InputError(f"the environment variable {name} is {text!r}, not a whole number: start with torchrun")
    return int(text)


@contextmanager
def _told_in_a_sentence() -> Iterator[None]:
    """InputError for what torch raises where the processes cannot meet, or where one is lost."""
    try:
        yield
    except ValueError as error:
        if "rendezvous" not in str(error):
            raise
        raise InputError(f"the processes cannot meet: {str(error).splitlines()[0]}; start with torchrun") from None
    except dist.DistError as error:
        raise InputError(f"the processes cannot meet, or one has ended: {str(error).splitlines()[0]}") from None
    except RuntimeError as error:
        if not any(part in str(error) for part in _LOST):
            raise
        raise InputError(_ENDED) from None


def usable_device(device: str) -> torch.device:
    """A device as torch names it, "auto" made definite (the first GPU, or the CPU where there is none).

    Raises InputError for one that this machine does not have.
    """
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        torch.zeros(1, device=device).cpu()
        return torch.device(device)
    except Exception:  # torch raises whatever comes first: RuntimeError, AssertionError, ModuleNotFoundError, ...
        there = listed(["cpu", *(f"cuda:{index}" for index in range(torch.cuda.device_count()))])
        raise InputError(f"device {device} cannot be used: this machine has {there}; pass one of them") from None


def _device_of_rank(device: str) -> str:
    """The GPU of a process's own local rank, where torchrun started it and "auto" or "cuda" leave it open."""
    if device in ("auto", "cuda") and torch.cuda.is_available() and "LOCAL_RANK" in os.environ:
        return f"cuda:{int(os.environ['LOCAL_RANK']) % torch.cuda.device_count()}"
    return device


def _sum_gradients(_state: None, bucket: dist.GradBucket) -> torch.futures.Future[Tensor]:  # type: ignore[name-defined]
    """What DistributedDataParallel does with a bucket of gradients."""
    summed = dist.all_reduce(bucket.buffer(), async_op=True).get_future()
    reduced: torch.futures.Future[Tensor] = summed.then(lambda future: future.value()[0])
    return reduced
