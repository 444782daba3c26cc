"""Machines of a network, each a network namespace of Linux, for tests of jobs on several machines."""

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from uuid import uuid4


def hosts_are_possible() -> bool:
    """Whether this process may make network namespaces."""
    if shutil.which("ip") is None or os.geteuid() != 0:
        return False
    name = f"try{uuid4().hex[:8]}"
    made = subprocess.run(["ip", "netns", "add", name], capture_output=True).returncode == 0
    if made:
        _ip("netns", "del", name)
    return made


class Host:
    """A machine, which others reach under `address`."""

    def __init__(self, name: str, address: str) -> None:
        self.name, self.address = name, address

    def start(self, command: list[str], **options: object) -> subprocess.Popen[str]:
        """Start a command on the machine, in a process group of its own."""
        inside = ["ip", "netns", "exec", self.name, *command]
        return subprocess.Popen(inside, text=True, start_new_session=True, **options)  # type: ignore[call-overload,no-any-return]


@contextmanager
def network(count: int) -> Iterator[list[Host]]:
    """Machines that reach each other, and nothing else."""
    mark = uuid4().hex[:6]
    bridge = f"b{mark}"
    hosts = [Host(f"h{mark}{number}", f"10.77.0.{number + 1}") for number in range(count)]
    _ip("link", "add", bridge, "type", "bridge")
    try:
        _ip("link", "set", bridge, "up")
        for number, host in enumerate(hosts):
            _ip("netns", "add", host.name)
            _ip("link", "add", f"v{mark}{number}", "type", "veth", "peer", "name", "eth", "netns", host.name)
            _ip("link", "set", f"v{mark}{number}", "master", bridge, "up")
            for words in (f"addr add {host.address}/24 dev eth", "link set eth up", "link set lo up"):
                _ip("-n", host.name, *words.split())
        yield hosts
    finally:
        for host in hosts:
            subprocess.run(["ip", "netns", "del", host.name], capture_output=True)
        subprocess.run(["ip", "link", "del", bridge], capture_output=True)


def _ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True)
