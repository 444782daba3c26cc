"""How long synchronous training takes on N GPUs: the arithmetic of `benchmarks.many_gpus`, which measures nothing.

An iteration is the step of the slowest GPU and what is left of the exchange of gradients when it is done, or the time
of the loader where that is longer. Gradients travel in a ring, bucket by bucket, while the backward pass goes on, as
DistributedDataParallel sends them. A run has further parts that do not shrink with N: its start, checkpoints, and the
scoring of evaluations, whose images the GPUs share.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from fractions import Fraction

# Images that Detectron's 1x schedule trains on: 90,000 iterations of 16 (Detectron MODEL_ZOO.md, "Training Schedules").
IMAGES_OF_1X = 90_000 * 16
# DistributedDataParallel's buckets: the first one is small, so that the exchange begins early.
FIRST_BUCKET, BUCKET = 2**20, 25 * 2**20

# (a moment, as a share of the step; the share of the gradients' bytes that is there by then), from 0 to 1.
Progress = Sequence[tuple[float, float]]


@dataclass(frozen=True)
class Gpu:
    """What one GPU does in an iteration.

    Attributes:
        step: seconds of its minibatch, forward, backward and update, of the mean cost and without the others.
        images: of its minibatch.
        gradient_bytes: of all parameters that are trained.
        progress: when the gradients come.
        costs: of minibatches whose parts are equally frequent, by the mean, for the slowest of N; `(1.0,)` for none.
    """

    step: float
    images: int
    gradient_bytes: int
    progress: Progress
    costs: Sequence[float] = (1.0,)


@dataclass(frozen=True)
class Cluster:
    """What the GPUs stand in.

    Attributes:
        gpus_per_host: full hosts are used first.
        network, inside: bytes a second that leave a host, and that pass between two GPUs of a host.
        latency: seconds of a message from one GPU to the next.
        loaded: images a second that a thread of the loader reads.
        threads: of the loader, for each GPU.
    """

    gpus_per_host: int
    network: float
    inside: float
    latency: float
    loaded: float
    threads: int

    def hosts(self, gpus: int) -> int:
        """How many hosts hold so many GPUs."""
        return math.ceil(gpus / self.gpus_per_host)


@dataclass(frozen=True)
class Extras:
    """What a run does beside its iterations.

    Attributes:
        start: seconds from the command to the first iteration.
        checkpoints: how many are written, and each is evaluated.
        checkpoint: seconds to write one.
        evaluated_images: of each evaluation; 0 for none.
        detection: seconds of one GPU for an image of them.
        scoring: seconds of the first process for an image of them, while the others wait.
    """

    start: float
    checkpoints: int
    checkpoint: float
    evaluated_images: int
    detection: float
    scoring: float


@dataclass(frozen=True)
class Row:
    """A run on N GPUs.

    Attributes:
        gpus, hosts: how many.
        images: of an iteration.
        iterations: of the schedule, by the linear rule.
        iteration: seconds.
        parts: seconds of the whole run: `computing` is the mean step, and the others are what comes on top.
    """

    gpus: int
    hosts: int
    images: int
    iterations: int
    iteration: float
    parts: dict[str, float]

    @property
    def training(self) -> float:
        """Seconds of the iterations, which is what Detectron publishes as the time of training."""
        return self.iterations * self.iteration

    @property
    def total(self) -> float:
        """Seconds from the command to the end."""
        return sum(self.parts.values())

    @property
    def limit(self) -> str:
        """What costs most beside computing."""
        others = {name: seconds for name, seconds in self.parts.items() if name != "computing"}
        return max(others, key=lambda name: others[name])


def iterations_of(schedule: float | Fraction, images: int) -> int:
    """Iterations of a schedule (2 is Detectron's 2x) with so many images in each, rounded up."""
    return math.ceil(schedule * IMAGES_OF_1X / images)


def slowest(costs: Sequence[float], gpus: int) -> float:
    """The mean cost of the most expensive of so many minibatches, drawn from equally frequent `costs`."""
    ordered = sorted(costs)
    shares = [((place + 1) / len(ordered)) ** gpus - (place / len(ordered)) ** gpus for place in range(len(ordered))]
    return sum(share * cost for share, cost in zip(shares, ordered, strict=True)) * len(ordered) / sum(ordered)


def all_reduce(size: float, gpus: int, cluster: Cluster) -> float:
    """Seconds to sum so many bytes over all GPUs in a ring, which passes each host's network once in and once out."""
    if gpus == 1:
        return 0.0
    slowest_link = cluster.inside if cluster.hosts(gpus) == 1 else min(cluster.inside, cluster.network)
    return 2 * (gpus - 1) / gpus * size / slowest_link + 2 * (gpus - 1) * cluster.latency


def buckets(size: int) -> list[int]:
    """Bytes of the buckets, in the order in which they are sent."""
    sizes: list[int] = []
    while sum(sizes) < size:
        sizes.append(min(size - sum(sizes), BUCKET if sizes else FIRST_BUCKET))
    return sizes


def moment(progress: Progress, share: float) -> float:
    """When so large a share of the gradients is there, as a share of the step; linear between what is known."""
    for (before, had), (after, has) in zip(progress, progress[1:], strict=False):
        if share <= has:
            return before + (after - before) * (share - had) / (has - had) if has > had else after
    return progress[-1][0]


def exposed(step: float, gpu: Gpu, gpus: int, cluster: Cluster) -> float:
    """Seconds that the exchange of gradients takes on after the backward pass of a step of so many seconds."""
    if gpus == 1:
        return 0.0
    end = step * moment(gpu.progress, 1)
    sent, free = 0, 0.0
    for size in buckets(gpu.gradient_bytes):
        sent += size
        ready = step * moment(gpu.progress, sent / gpu.gradient_bytes)
        free = max(free, ready) + all_reduce(size, gpus, cluster)
    return max(0.0, free - end)


def iteration_parts(gpu: Gpu, gpus: int, cluster: Cluster) -> dict[str, float]:
    """Seconds of an iteration: the mean step, and what comes on top of it."""
    waited = gpu.step * slowest(gpu.costs, gpus)
    network = exposed(waited, gpu, gpus, cluster)
    loader = gpu.images / (cluster.loaded * cluster.threads) - waited - network
    return {
        "computing": gpu.step,
        "slowest GPU": waited - gpu.step,
        "network": network,
        "loader": max(0.0, loader),
    }


def calibrated(seconds: float, gpu: Gpu, gpus: int, cluster: Cluster) -> Gpu:
    """The GPU whose step makes an iteration on so many GPUs take so many seconds, as somebody measured it there."""
    low, high = 0.0, seconds
    for _ in range(60):
        middle = (low + high) / 2
        if sum(iteration_parts(replace(gpu, step=middle), gpus, cluster).values()) < seconds:
            low = middle
        else:
            high = middle
    return replace(gpu, step=high)


def run_on(gpus: int, schedule: float | Fraction, gpu: Gpu, cluster: Cluster, extras: Extras) -> Row:
    """A whole run on so many GPUs, each with its own minibatch, so that the images of an iteration grow with them."""
    images = gpus * gpu.images
    iterations = iterations_of(schedule, images)
    parts = iteration_parts(gpu, gpus, cluster)
    evaluations = extras.checkpoints * extras.evaluated_images
    shared = math.ceil(extras.evaluated_images / gpus) * extras.checkpoints if extras.evaluated_images else 0
    whole = {name: iterations * seconds for name, seconds in parts.items()} | {
        "start": extras.start,
        "checkpoints": extras.checkpoints * extras.checkpoint,
        "detection": shared * extras.detection,
        "scoring": evaluations * extras.scoring,
    }
    return Row(gpus, cluster.hosts(gpus), images, iterations, sum(parts.values()), whole)


def efficiency(row: Row, alone: Row) -> float:
    """What share of N times one GPU's speed N GPUs have, the whole run taken."""
    return alone.total / (row.gpus * row.total)


def loader_threads(step: float, images: int, loaded: float) -> int:
    """How many threads of the loader keep a GPU busy."""
    return max(1, math.ceil(images / (loaded * step)))
