"""The processes that evaluate together under `torchrun`; answers to Detectron utils/subprocess.py:process_in_parallel.

They only hand results over, so they meet over gloo also where the network runs on GPUs.
"""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import TypeVar

import torch
import torch.distributed as dist

Item = TypeVar("Item")

# The first process waits this long for the others: one of them may sit on a slower machine.
_PATIENCE = timedelta(days=1)


@dataclass(frozen=True)
class Ranks:
    """This process among those that evaluate together: `rank` of `count`."""

    rank: int = 0
    count: int = 1

    @property
    def is_first(self) -> bool:
        """Whether this is the process that scores, writes the results and prints."""
        return self.rank == 0

    def share(self, work: Sequence[Item]) -> Sequence[Item]:
        """Every `count`-th item, so that no two processes have one in common and together they have all."""
        return work[self.rank :: self.count]

    def exchange(self, item: Item) -> list[Item]:
        """What every process gave, in the order of ranks."""
        if self.count == 1:
            return [item]
        items: list[Item] = [item] * self.count
        dist.all_gather_object(items, item)
        return items

    def collect(self, item: Item) -> list[Item]:
        """What every process gave, in the order of ranks, for the first process; nothing for the others."""
        if self.count == 1:
            return [item]
        items = [item] * self.count if self.is_first else None
        dist.gather_object(item, items)
        return items or []


ALONE = Ranks()


@contextmanager
def joined_ranks() -> Iterator[Ranks]:
    """Meet the other processes that `torchrun` started, if it did; leave them at the end."""
    rank, count = int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))
    if count == 1:
        yield ALONE
        return
    dist.init_process_group("gloo", timeout=_PATIENCE)
    try:
        yield Ranks(rank, count)
    finally:
        dist.destroy_process_group()


def device_of_rank(device: str) -> str:
    """The device a process computes on: "auto" and "cuda" are the GPU of its own local rank under `torchrun`."""
    if device in ("auto", "cuda") and torch.cuda.is_available() and "LOCAL_RANK" in os.environ:
        return f"cuda:{int(os.environ['LOCAL_RANK']) % torch.cuda.device_count()}"
    return device
