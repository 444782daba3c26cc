"""What a replay shows of inputs that are not the reference's: another NUM_GPUS, categories in another order.

And what of a verdict that more replays may change.
"""

from collections.abc import Iterator, Sequence

from detectron_gn.mrcnn.config import Config
from detectron_gn.mrcnn.data.coco import CocoDataset
from detectron_gn.mrcnn.wording import listed, printable
from detectron_gn.verify.parity.training import IterationParity

# How far shares of losses may be apart that are one share, as far as rounding goes.
_SHARE_TOLERANCE = 1e-3
# The share of updates and parameters that are few, and may be beyond what rounding does for want of replays.
_FEW = 0.05


def training_remarks(iterations: Sequence[IterationParity], cfg: Config, dataset: CocoDataset) -> Iterator[str]:
    """A sentence with a way out for each such input, where the samples and the losses of iteration 0 show it."""
    yield from _of_gpus(iterations[0], cfg)
    yield from _of_order(iterations, dataset)


def replicas_remark(beyond: int, count: int, replicas: int) -> Iterator[str]:
    """A sentence for a run of which only a few updates and parameters are apart: more replays may explain them.

    Args:
        beyond: how many of the `count` updates and final parameters are beyond rounding; nothing else is.
    """
    if 0 < beyond <= max(1, _FEW * count):
        yield (
            f"losses and samples agree, and only {beyond} of {count} updates and final parameters are further apart "
            f"than rounding moves them in the replays (--replicas {replicas}): which ReLUs tip over in a replay is "
            f"chance, and more of them do in more replays: try --replicas {max(2 * replicas, 4)}"
        )


def _of_gpus(first: IterationParity, cfg: Config) -> Iterator[str]:
    """What to do where every loss is the same number of times too small or too large: NUM_GPUS divides them all."""
    pairs = [(ours, first.reference_losses[name]) for name, ours in first.losses.items() if ours]
    shares = [theirs / ours for ours, theirs in pairs]
    if not shares or max(shares) - min(shares) > _SHARE_TOLERANCE * max(shares):
        return
    gpus = round(cfg.NUM_GPUS / shares[0]) if shares[0] > 0 else 0
    if gpus > 0 and gpus != cfg.NUM_GPUS and abs(shares[0] * gpus / cfg.NUM_GPUS - 1) <= _SHARE_TOLERANCE:
        yield (
            f"every loss of iteration 0 is the reference's times {gpus}/{cfg.NUM_GPUS}: losses are divided by "
            f"NUM_GPUS, which is {cfg.NUM_GPUS} here and was {gpus} there; pass --set NUM_GPUS {gpus}"
        )


def _of_order(iterations: Sequence[IterationParity], dataset: CocoDataset) -> Iterator[str]:
    """Which class the reference has in place of which, where one stands in place of another throughout."""
    pairs = sorted(set().union(*(iteration.samples.classes for iteration in iterations)))
    ours, theirs = [mine for mine, _ in pairs], [other for _, other in pairs]
    others = [(mine, other) for mine, other in pairs if mine != other]
    if others and len(set(ours)) == len(ours) and len(set(theirs)) == len(theirs):
        names = ((printable(dataset.classes[mine]), mine, other) for mine, other in others)
        told = listed([f"{name} is its class {other}, not {mine}" for name, mine, other in names])
        yield (
            f"the reference has the categories of {dataset.annotation_file} in another order: {told}; give the "
            "annotations that it was trained with"
        )
