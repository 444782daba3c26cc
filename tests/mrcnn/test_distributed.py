"""Which devices can be computed on, and how processes meet, or learn that one of them does not come."""

import time
from collections.abc import Iterator
from datetime import timedelta

import pytest
import torch
import torch.distributed as dist

from detectron_gn.mrcnn import distributed
from detectron_gn.mrcnn.distributed import joined_ranks, tell_failure, usable_device
from detectron_gn.mrcnn.errors import InputError


@pytest.mark.parametrize("device", ["hpu", "foo", "", "cuda:63", "cuda:-1", "meta", "opengl", "privateuseone", "mtia"])
def test_a_device_that_is_not_there_is_told_with_those_that_are(device: str) -> None:
    with pytest.raises(InputError, match=f"^device {device} cannot be used: this machine has cpu.*; pass one of them$"):
        usable_device(device)


def test_a_device_that_is_there_is_taken() -> None:
    assert usable_device("cpu") == torch.device("cpu")
    assert usable_device("auto").type == ("cuda" if torch.cuda.is_available() else "cpu")


@pytest.fixture
def torchrun(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """What torchrun gives the first of two processes: a store that outlives them, and where it is."""
    store = dist.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    variables = {"RANK": "0", "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(store.port)}
    for name, value in {**variables, "TORCHELASTIC_USE_AGENT_STORE": "True"}.items():
        monkeypatch.setenv(name, value)
    yield


@pytest.mark.usefixtures("torchrun")
def test_a_process_that_ends_before_the_others_meet_it_is_not_waited_for() -> None:
    tell_failure()
    start = time.monotonic()
    with pytest.raises(InputError, match="^another process of this run has ended: "), joined_ranks("cpu"):
        pass
    assert time.monotonic() - start < 5


@pytest.mark.usefixtures("torchrun")
def test_a_process_that_never_comes_is_not_waited_for_forever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(distributed, "_MEETING", timedelta(seconds=0.6))
    with pytest.raises(InputError, match=r"^1 of 2 processes have not come within 0\.01 minutes"), joined_ranks("cpu"):
        pass


def test_nobody_is_told_where_no_torchrun_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TORCHELASTIC_USE_AGENT_STORE", raising=False)
    monkeypatch.setattr(distributed, "rendezvous", lambda *_, **__: pytest.fail("there is nobody to meet"))
    tell_failure()
