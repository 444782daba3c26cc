"""Blobs of a file that no parameter takes: those that are preserved, and those that tell of another network.

Detectron keeps every blob that its network does not use, and writes it into the next file ("preserved in workspace
(unused)", utils/net.py:initialize_gpu_from_weights_file). So files carry the convolution biases and the classifier of
the ImageNet model that they were begun from, or heads of a detector that they were finetuned from.
"""

import re
from collections.abc import Iterable, Sequence, Set
from dataclasses import dataclass

from detectron_gn.mrcnn.wording import listed
from detectron_gn.port.blobs.family import CLASSIFIER_BLOBS, MOMENTUM

# What changes the numbers of every detection where it is left out: weights and norms of the body, the pyramid, the RPN
# and the box head.
_OF_THE_NETWORK = re.compile(
    r"res[2-5]_\d+_branch\w+_(w|[bg]n_[sb])|res_conv1_bn_[sb]|conv1_gn_[sb]|fpn_\w+_(w|b|gn_[sb])"
    r"|(conv_rpn|rpn_cls_logits|rpn_bbox_pred)(_fpn\d)?_[wb]|retnet_\w+_[wb]|head_conv\d+_(w|b|gn_[sb])|fc[67]_[wb]"
)


@dataclass(frozen=True)
class Leftovers:
    """The blobs of a file that no parameter takes, in the order of the file.

    Attributes:
        preserved: not used, harmless, and written again.
        trained: parts of another network than the configuration's, momenta included.
    """

    preserved: tuple[str, ...]
    trained: tuple[str, ...]


def sort_leftovers(blobs: Set[str], used: Set[str], left: Iterable[str]) -> Leftovers:
    """Tell preserved blobs from those of another network.

    Args:
        blobs: names of all blobs of the file.
        used: names of the blobs that parameters take.
        left: the others.

    A blob with a momentum was trained in this file's own run, so it is of its network. Where the file has momenta, a
    blob without one was preserved. Where it has none, only names tell: the weights and norms that a deeper body or
    another head has are of another network; a bias beside a convolution that is used, another task's head, and names
    that no network has are not.
    """
    has_momenta = any(name.endswith(MOMENTUM) for name in blobs)
    preserved: list[str] = []
    trained: list[str] = []
    for name in left:
        blob = name.removesuffix(MOMENTUM)
        if blob in CLASSIFIER_BLOBS:
            is_trained = False
        elif has_momenta:
            is_trained = blob + MOMENTUM in blobs
        else:
            is_bias = blob.endswith("_b") and f"{blob[:-2]}_w" in used
            is_trained = _OF_THE_NETWORK.fullmatch(blob) is not None and not is_bias
        (trained if is_trained else preserved).append(name)
    return Leftovers(tuple(preserved), tuple(trained))


def told_preserved(source: str, preserved: Sequence[str]) -> str:
    """A sentence about the blobs that are preserved."""
    noun = "1 blob that the network does not use is" if len(preserved) == 1 else (
        f"{len(preserved)} blobs that the network does not use are"
    )
    return f"{source}: {noun} preserved ({listed(preserved)})"


def told_trained(source: str, trained: Sequence[str], fitting: str | None) -> str:
    """A sentence about blobs that tell of another network, with the ways out.

    Args:
        fitting: a configuration that has a place for them (`fitting.fitting_config`); None where none is known.
    """
    names = [name for name in trained if not name.endswith(MOMENTUM)] or trained
    found = f"{source} was trained with {listed(names)}, which the configuration has no place for"
    without = "--keep-unused to go on without these blobs"
    if fitting is None:
        return f"{found}: pass {without}, or --config with a YAML that has a place for them"
    return f"{found}: pass --config {fitting}, which the file fits as it is, or {without}"
