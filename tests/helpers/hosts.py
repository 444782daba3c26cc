"""Machines of a network, each a network namespace of Linux, for tests of jobs on several machines."""

import os
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
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

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to every process of the machine; torchrun's have a session each."""
        found = subprocess.run(["ip", "netns", "pids", self.name], check=True, capture_output=True, text=True)
        for pid in found.stdout.split():
            with suppress(ProcessLookupError):
                os.kill(int(pid), number)


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


def start_torchrun(hosts: Sequence[Host], commands: Sequence[list[str]]) -> list[subprocess.Popen[str]]:
    """Let torchrun start `python` with each host's own words on it; the first host is where they meet (c10d)."""
    started = []
    for number, (host, command) in enumerate(zip(hosts, commands, strict=True)):
        torchrun = [
            sys.executable, "-m", "torch.distributed.run", f"--nnodes={len(hosts)}", "--nproc_per_node=1",
            "--rdzv_backend=c10d", f"--rdzv_endpoint={hosts[0].address}:29400", "--rdzv_id=job", "--max_restarts=0",
            # Names of machines tell torchrun who is where; these have none.
            f"--rdzv_conf=is_host={number == 0}", f"--local_addr={host.address}",
        ]  # fmt: skip
        env = {**os.environ, "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "eth"}
        started.append(host.start([*torchrun, *command], env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT))
    return started


def ended(processes: Sequence[subprocess.Popen[str]], timeout: float = 300) -> tuple[list[int], list[str]]:
    """Exit codes and what was said."""
    try:
        told = [process.communicate(timeout=timeout)[0] for process in processes]
    finally:
        for process in processes:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
    return [process.returncode for process in processes], told


@contextmanager
def stuttering(host: Host) -> Iterator[None]:
    """Let everything on a machine stand still two thirds of the time, as if it were slow."""
    at_end = threading.Event()

    def stutter() -> None:
        while not at_end.wait(0.1):
            host.signal(signal.SIGSTOP)
            at_end.wait(0.2)
            host.signal(signal.SIGCONT)

    thread = threading.Thread(target=stutter)
    thread.start()
    try:
        yield
    finally:
        at_end.set()
        thread.join()


def _ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True)
