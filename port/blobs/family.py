"""What a weights file is, told in one place from the names and shapes of its blobs.

Detectron's names carry the facts: `*_gn_s` is a GN scale, `*_bn_s` a frozen BatchNorm, `res4_5_branch2a_w` the sixth
block of the fourth stage, `cls_score_w` has one row per class (Detectron modeling/*.py).
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy.typing as npt

MOMENTUM = "_momentum"

# The fully connected layers of the ImageNet files: of the Caffe2 models, and of the MSRA ones. Detectron carries them
# along in every finetuned model without using them.
CLASSIFIERS = ("pred", "fc1000")
CLASSIFIER_BLOBS = tuple(f"{name}_{ending}" for name in CLASSIFIERS for ending in "wb")

_OF_DETECTORS = ("conv_rpn", "rpn_cls_logits", "cls_score", "retnet_cls_pred")

# What the blobs of each box head begin with that no other has.
_BOX_HEADS = {"4conv1fc": "head_conv1_", "2fc": "fc7_", "RetinaNet": "retnet_cls_pred"}


@dataclass(frozen=True)
class Family:
    """What a set of blobs belongs to.

    Attributes:
        kind: `detector`, `backbone` (residual blocks and no detector), `unknown`.
        norms: `GN`, `BN*` (frozen BatchNorm as a per-channel scale and shift), as there are, the more frequent first.
        blocks: how many residual blocks there are.
        neck: `FPN`, `C4`, or None where it is no detector on a ResNet.
        box_head: `2fc`, `4conv1fc`, `RetinaNet`, or None.
        masks: whether there is a mask head.
        classes: rows of a detector's classifier, the background included, or of a backbone's; None without one, and of
            a RetinaNet, whose rows do not tell whether the background is among them.
        classifier: the ImageNet classifier in the file, `pred` or `fc1000`; None without one.
        momenta: how many blobs are momenta. A detector with momenta is a training checkpoint.
        groups: (groups, channels per group in res2) of a ResNeXt's 3x3 convolutions; None for a ResNet.
        has_unfolded_norms: whether BatchNorms keep their running statistics, as only classification trainers do.
    """

    kind: Literal["detector", "backbone", "unknown"]
    norms: tuple[str, ...]
    blocks: int
    neck: str | None
    box_head: str | None
    masks: bool
    classes: int | None
    classifier: str | None
    momenta: int
    groups: tuple[int, int] | None = None
    has_unfolded_norms: bool = False

    @property
    def is_detector(self) -> bool:
        """Whether there are blobs that only detectors have."""
        return self.kind == "detector"

    @property
    def depth(self) -> int | None:
        """50, 101 or 152 layers; another number where blocks are missing, None without any block."""
        return 3 * self.blocks + 2 if self.blocks else None

    @property
    def norm(self) -> str:
        """The one that most layers have, `BN*` without any: how configurations differ."""
        return self.norms[0] if self.norms else "BN*"

    @property
    def body(self) -> str:
        """`R-50`, `X-101-32x8d`, as Detectron names it."""
        return f"R-{self.depth}" if self.groups is None else f"X-{self.depth}-{self.groups[0]}x{self.groups[1]}d"

    @property
    def config_name(self) -> str | None:
        """A configuration in `yaml_configs/` with this body and these heads; None where there is none, as for R-152."""
        is_mask_rcnn = self.masks or not self.is_detector
        name = {
            ("GN", "4conv1fc", True): "e2e_mask_rcnn_{body}-FPN_2x_gn",
            ("BN*", "2fc", True): "e2e_mask_rcnn_{body}-FPN_2x",
            ("BN*", "2fc", False): "e2e_faster_rcnn_{body}-FPN_2x",
            ("BN*", "4conv1fc", True): "e2e_mask_rcnn_{body}-FPN_2x_bn_4conv1fc" if self.body == "R-50" else None,
            ("BN*", "RetinaNet", False): "retinanet_{body}-FPN_2x",
        }.get((self.norm, self.box_head or ("4conv1fc" if self.norm == "GN" else "2fc"), is_mask_rcnn))
        bodies = ("R-50", "R-101") if self.norm == "GN" else ("R-50", "R-101", "X-101-32x8d", "X-101-64x4d")
        return None if name is None or self.body not in bodies else name.format(body=self.body)


def _neck(blobs: Iterable[str]) -> str:
    return "FPN" if any(name.startswith("fpn_inner") for name in blobs) else "C4"


def family_of(blobs: Mapping[str, npt.NDArray[Any]]) -> Family:
    """What these blobs belong to: told from their names, and from the number of rows of the classifier."""
    is_detector = any(name.startswith(_OF_DETECTORS) for name in blobs)
    blocks = {match[0] for name in blobs if (match := re.match(r"res[2-5]_\d+_branch2a_w$", name))}
    counts = {word: sum(n.endswith(ending) for n in blobs) for ending, word in (("_gn_s", "GN"), ("_bn_s", "BN*"))}
    norms = [word for word in sorted(counts, key=lambda word: -counts[word]) if counts[word]]
    classifiers = [name for name in CLASSIFIERS if f"{name}_w" in blobs]
    # A whole one, or else what is left of one.
    classifier = next((name for name in classifiers if f"{name}_b" in blobs), next(iter(classifiers), None))
    rows = blobs.get("cls_score_b", blobs.get("cls_score_w")) if is_detector else blobs.get(f"{classifier}_w")
    return Family(
        kind="detector" if is_detector else "backbone" if blocks else "unknown",
        norms=tuple(norms),
        blocks=len(blocks),
        neck=_neck(blobs) if is_detector and blocks else None,
        box_head=next((head for head, prefix in _BOX_HEADS.items() if any(n.startswith(prefix) for n in blobs)), None),
        masks="mask_fcn_logits_w" in blobs,
        classes=rows.shape[0] if rows is not None and rows.ndim else None,
        classifier=classifier,
        momenta=sum(name.endswith(MOMENTUM) for name in blobs),
        groups=_groups(blobs.get("res2_0_branch2b_w")),
        has_unfolded_norms=any(name.endswith(("_bn_rm", "_bn_riv")) for name in blobs),
    )


def _groups(weight: npt.NDArray[Any] | None) -> tuple[int, int] | None:
    """Groups and channels of each, from a block's 3x3 convolution `[out, in / groups, 3, 3]`; None for one group."""
    if weight is None or weight.ndim != 4 or weight.shape[0] == weight.shape[1] or not weight.shape[1]:
        return None
    return weight.shape[0] // weight.shape[1], weight.shape[1]
