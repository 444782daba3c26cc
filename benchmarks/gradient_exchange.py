"""When gradients come, and what their exchange takes: the constants and the check of `benchmarks.many_gpus`.

    python -m benchmarks.gradient_exchange order [--config NAME] [--picture HxW ...]
    python -m benchmarks.gradient_exchange hosts [--hosts 2 4] [--mbit 500 1000] [--per-host 1] [--step SECONDS]

`order` takes training steps on this machine's processor and prints which share of the gradients' bytes is there at
which share of the step, and how the step grows with the picture.

`hosts` lets the real exchange (DistributedDataParallel's buckets over gloo, as `train` has it) run on machines that are
network namespaces, whose network `tc` slows down. A stand-in takes the place of the network: parameters as large as
R-50's, whose gradients come when the model says so, and nothing but waiting between them. Beside what is measured
stands what `benchmarks.scaling_model` says. Linux, as root.
"""

import argparse
import json
import os
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn

from benchmarks.help_text import FoldedHelp
from benchmarks.many_gpus import PROGRESS
from benchmarks.scaling_model import Cluster, Gpu, all_reduce, exposed, moment
from benchmarks.train_step import close_boxes, drawn_objects, training_step
from detectron_gn.mrcnn.config import with_values
from detectron_gn.mrcnn.distributed import Ranks, joined_ranks
from detectron_gn.mrcnn.memory import keep_freed_memory
from detectron_gn.mrcnn.tables import text_table
from detectron_gn.port.config.read import bundled_config
from tests.helpers.hosts import network

MIB = 2**20
# Of a frame of 1514 bytes, 1448 are the data of TCP with time stamps.
PAYLOAD = 1448 / 1514
# Iterations before DistributedDataParallel has ordered its buckets, and everything is warm.
WARM_UP = 2


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=FoldedHelp)
    commands = parser.add_subparsers(dest="command", required=True)
    order = commands.add_parser("order")
    order.add_argument("--config", default="e2e_mask_rcnn_R-50-FPN_2x_gn", help="of yaml_configs/")
    order.add_argument("--picture", nargs="+", default=["480x720", "800x1200"], metavar="HxW")
    order.add_argument("--rounds", type=int, default=1)
    order.add_argument("--json", type=Path, help="write what was measured here")
    hosts = commands.add_parser("hosts")
    hosts.add_argument("--hosts", type=int, nargs="+", default=[2, 4])
    hosts.add_argument("--per-host", type=int, default=1, help="processes on each")
    hosts.add_argument("--mbit", type=int, nargs="+", default=[500, 1000], help="a second that leave each host")
    hosts.add_argument("--step", type=float, default=1.0, help="seconds of a step (default 1)")
    hosts.add_argument("--megabytes", type=float, default=182, help="of gradients (default 182, as R-50 has)")
    hosts.add_argument("--rounds", type=int, default=5)
    hosts.add_argument("--json", type=Path, help="write what was measured here")
    process = commands.add_parser("stand-in", help=argparse.SUPPRESS)
    process.add_argument("--step", type=float)
    process.add_argument("--bytes", type=int)
    process.add_argument("--rounds", type=int)
    args = parser.parse_args()
    {"order": print_order, "hosts": print_hosts, "stand-in": stand_in}[args.command](args)


def print_order(args: argparse.Namespace) -> None:
    """Measure steps of each picture, in processor time of one thread."""
    torch.set_num_threads(1)
    keep_freed_memory()
    found = []
    for size in args.picture:
        height, width = map(int, size.split("x"))
        rounds = [gradient_order(args.config, (height, width)) for _ in range(args.rounds)]
        step = statistics.median(each["step"] for each in rounds)
        found.append({"picture": size, "pixels": height * width, **rounds[0], "step": step})
        print(f"{args.config}, {size}: {step:.2f} s of a processor, backward from {rounds[0]['backward']:.3f} of it")
        rows = [[f"{share:.2f}", f"{at:.3f}"] for at, share in rounds[0]["progress"]]
        print(text_table(["share of bytes", "share of the step"], rows))
    if len(found) > 1:
        first, last = found[0], found[-1]
        slope = (last["step"] - first["step"]) / (last["pixels"] - first["pixels"])
        print(f"{slope * last['pixels'] / last['step']:.2f} of the last picture's step grow with its pixels")
    if args.json is not None:
        args.json.write_text(json.dumps(found, indent=1))


def gradient_order(name: str, size: tuple[int, int]) -> dict[str, Any]:
    """When the gradients of a step come: moments and shares of bytes, and where the backward pass begins."""
    cfg = bundled_config(name)
    cfg = with_values(cfg, {"TRAIN.IMS_PER_BATCH": 1, "NUM_GPUS": 1})
    image, objects = drawn_objects(size, cfg.MODEL.KEYPOINTS_ON)
    forward, update = training_step(cfg, image, objects, close_boxes(objects, size))
    forward().backward()
    update()
    came: list[tuple[float, int]] = []
    start = time.process_time()
    loss = forward()
    begun = time.process_time()
    for parameter in leaves(loss):
        parameter.register_post_accumulate_grad_hook(
            lambda each: came.append((time.process_time(), each.numel() * each.element_size()))
        )
    loss.backward()
    update()
    step = time.process_time() - start
    total = sum(size for _, size in came)
    shares = np.cumsum([size for _, size in came]) / total
    moments = [(at - start) / step for at, _ in came]
    wanted = np.linspace(0, 1, 21)
    places = [int(np.searchsorted(shares, share - 1e-9)) for share in wanted]
    return {
        "step": step,
        "bytes": total,
        "backward": (begun - start) / step,
        "progress": [(moments[place], float(share)) for place, share in zip(places, wanted, strict=True)],
    }


def leaves(loss: Tensor) -> list[Tensor]:
    """The parameters that a loss is differentiated by."""
    seen, found, todo = set(), [], [loss.grad_fn]
    while todo:
        node = todo.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        if hasattr(node, "variable"):
            found.append(node.variable)
        todo += [each for each, _ in node.next_functions]
    return found


class Wait(torch.autograd.Function):
    """A layer that computes nothing: its backward pass returns when it is time."""

    @staticmethod
    def forward(ctx: Any, before: Tensor, parameter: Tensor, wait: Callable[[], None]) -> Tensor:
        ctx.wait, ctx.like = wait, parameter
        return before + 0 * parameter[0]

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor, None]:
        ctx.wait()
        return gradients[0], torch.ones_like(ctx.like), None


class StandIn(nn.Module):
    """Parameters of a mebibyte each, whose gradients come when `PROGRESS` says."""

    def __init__(self, size: int, step: float) -> None:
        super().__init__()
        count = max(1, round(size / MIB))
        # From the last one, whose gradient comes first.
        self.parts = nn.ParameterList(torch.zeros(size // count // 4) for _ in range(count))
        self.moments = [step * moment(PROGRESS, (place + 1) / count) for place in range(count)]
        self.start = 0.0

    def forward(self, value: Tensor) -> Tensor:
        for place, part in enumerate(self.parts):
            at = self.moments[len(self.moments) - 1 - place]
            value = Wait.apply(value, part, lambda at=at: self.wait(at))
        return value

    def wait(self, at: float) -> None:
        """Sleep until so many seconds after the start of the step."""
        time.sleep(max(0.0, self.start + at - time.perf_counter()))


def stand_in(args: argparse.Namespace) -> None:
    """One process: prints the seconds of every exchange without a step, and of every step with its exchange."""
    torch.set_num_threads(1)
    with joined_ranks("cpu", num_gpus=int(os.environ["WORLD_SIZE"])) as ranks:
        found = {"all_reduce": bare_exchanges(args, ranks), "iteration": steps(args, ranks)}
        if ranks.is_first:
            print(json.dumps(found))


def bare_exchanges(args: argparse.Namespace, ranks: Ranks) -> list[float]:
    """Seconds to sum all gradients at once."""
    values, taken = torch.zeros(args.bytes // 4), []
    for _ in range(args.rounds):
        ranks.wait()
        start = time.perf_counter()
        dist.all_reduce(values)
        taken.append(time.perf_counter() - start)
    return taken


def steps(args: argparse.Namespace, ranks: Ranks) -> list[float]:
    """Seconds of steps with the exchange that `train` has."""
    model = StandIn(args.bytes, args.step)
    network, taken = ranks.share_gradients(model), []
    for turn in range(WARM_UP + args.rounds):
        model.zero_grad(set_to_none=False)
        ranks.wait()
        model.start = start = time.perf_counter()
        network(torch.zeros((), requires_grad=True)).backward()
        model.wait(args.step)
        if turn >= WARM_UP:
            taken.append(time.perf_counter() - start)
    return taken


def print_hosts(args: argparse.Namespace) -> None:
    """Measure every number of hosts at every speed of the network, beside the model."""
    size, found, rows = round(1e6 * args.megabytes), [], []
    for count in args.hosts:
        for mbit in args.mbit:
            measured = on_hosts(count, args.per_host, mbit, args.step, size, args.rounds)
            cluster = Cluster(args.per_host, mbit * 1e6 / 8 * PAYLOAD, np.inf, 0.0, np.inf, 1)
            gpu, gpus = Gpu(args.step, 2, size, PROGRESS), count * args.per_host
            predicted = {
                "all_reduce": all_reduce(size, gpus, cluster),
                "iteration": args.step + exposed(args.step, gpu, gpus, cluster),
            }
            medians = {name: statistics.median(values) for name, values in measured.items()}
            found.append({"hosts": count, "mbit": mbit, "measured": measured, "predicted": predicted})
            rows.append([str(count), str(gpus), str(mbit)])
            for name, value in predicted.items():
                rows[-1] += [f"{medians[name]:.2f}", f"{value:.2f}", f"{medians[name] / value:.3f}"]
            print(" ".join(rows[-1]), file=sys.stderr, flush=True)
    print(f"{args.megabytes:g} MB of gradients, a step of {args.step:g} s, medians of {args.rounds}")
    names = ["hosts", "processes", "Mbit/s", "all-reduce, s", "model", "ratio", "iteration, s", "model", "ratio"]
    print(text_table(names, rows))
    if args.json is not None:
        args.json.write_text(json.dumps(found, indent=1))


def on_hosts(count: int, per_host: int, mbit: int, step: float, size: int, rounds: int) -> dict[str, list[float]]:
    """What the first process measured on so many machines."""
    with network(count) as hosts:
        started = []
        for number, host in enumerate(hosts):
            limit = f"qdisc add dev eth root tbf rate {mbit}mbit burst 1mb latency 100ms"
            subprocess.run(["tc", "-n", host.name, *limit.split()], check=True, capture_output=True)
            for local in range(per_host):
                env = {
                    **os.environ, "GLOO_SOCKET_IFNAME": "eth", "MASTER_ADDR": hosts[0].address, "MASTER_PORT": "29400",
                    "RANK": str(number * per_host + local), "WORLD_SIZE": str(count * per_host),
                    "LOCAL_RANK": str(local), "LOCAL_WORLD_SIZE": str(per_host), "OMP_NUM_THREADS": "1",
                }  # fmt: skip
                command = [sys.executable, "-m", "benchmarks.gradient_exchange", "stand-in"]
                command += ["--step", str(step), "--bytes", str(size), "--rounds", str(rounds)]
                started.append(host.start(command, env=env, stdout=subprocess.PIPE))
        try:
            told = [process.communicate(timeout=500)[0] for process in started]
        finally:
            for process in started:
                if process.poll() is None:
                    os.killpg(process.pid, signal.SIGKILL)
    measured: dict[str, list[float]] = json.loads(told[0])
    return measured


if __name__ == "__main__":
    main()
