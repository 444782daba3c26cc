"""The files that people have, as facsimiles: what public logs and code tell of them, full names and narrow widths.

The numbers of the groups are those of the list that they were built from; its facts stand beside them.
"""

from collections.abc import Callable, Iterator
from functools import partial

import numpy as np
import torch

from detectron_gn.port.blobs.table import BlobTable
from detectron_gn.port.config.read import bundled_config
from tests.helpers.facsimile import (
    BN_50,
    BN_101,
    GN_50,
    GN_101,
    NARROW,
    X_101,
    Blobs,
    Facsimile,
    april,
    baseline,
    biases,
    body_of,
    classifier,
    config,
    detector,
    gn_baseline,
    gn_file,
    january,
    momenta,
    msra_file,
    parameters,
    pickled,
    saved_by_torch,
    shuffled,
    without,
    without_momenta,
    write_python3_pickle,
)
from tests.helpers.saved_config import STATE_2018, AttrDict, Values, april_2018, autumn_2017, dumped, january_2018

_X_NARROW = [*NARROW, "RESNETS.WIDTH_PER_GROUP", "1"]
_BN_TITLE = "training checkpoint, R-50 FPN, BN*, 2fc box head, masks, 81 classes"
_HEADS = ("cls_score", "bbox_pred", "mask_fcn_logits")

def imagenet() -> Iterator[Facsimile]:
    """1 and 4: ImageNet files, which detect nothing and train detectors."""
    for body, name, count in (("R-50", BN_50, 214), ("R-101", BN_101, 418)):
        yield Facsimile(
            f"{body}.pkl of MSRA",
            pickled(partial(msra_file, name)),
            f"ImageNet backbone, {body}, BN*, 1000 classes",
            (count, 0, 0),
            f"{body}.pkl",
            "is an ImageNet backbone",
            config=(name, "--set", *NARROW),
        )
    for body, name, count in (("R-50", GN_50, 161), ("R-101", GN_101, 314)):
        yield _gn_imagenet(f"{body}-GN.pkl", body, name, count, partial(gn_file, name))
    more: Blobs = {"lr": np.array(0.1, np.float32)}
    rate = "R-50-GN.pkl with a learning rate of no dimensions"
    yield _gn_imagenet(rate, "R-50", GN_50, 162, partial(gn_file, GN_50, more))
    more = {"model_iter": 450_000, "lr": 0.1}
    yield _gn_imagenet("R-50-GN.pkl with an iteration and a rate", "R-50", GN_50, 161, partial(gn_file, GN_50, more))
    yield _gn_imagenet("R-50-GN.pkl, bare", "R-50", GN_50, 161, lambda: gn_file(GN_50)["blobs"])


def _gn_imagenet(name: str, body: str, config_name: str, count: int, content: Callable[[], Blobs]) -> Facsimile:
    return Facsimile(
        name,
        pickled(content),
        f"ImageNet backbone, {body}, GN, 1000 classes",
        (count, 0, 0),
        f"{body}-GN.pkl",
        "is an ImageNet backbone",
        config=(config_name, "--set", *NARROW),
    )


def baselines() -> Iterator[Facsimile]:
    """2 and 3: the four models that the project is named after, and their older sisters."""
    for number, name, counts in (("35859007", BN_50, (201, 84, 55)), ("35861858", BN_101, (354, 135, 106))):
        body = "R-50" if name == BN_50 else "R-101"
        yield Facsimile(
            number,
            detector(partial(baseline, name), partial(january, name)),
            f"training checkpoint, {body} FPN, BN*, 2fc box head, masks, 81 classes",
            counts,
            remark=f"{counts[2]} blobs that the network does not use are preserved",
        )
    for number, name, counts in (("48616381", GN_50, (223, 190, 2)), ("48616724", GN_101, (376, 343, 2))):
        body = "R-50" if name == GN_50 else "R-101"
        yield Facsimile(
            number,
            detector(partial(gn_baseline, name), partial(april, name)),
            f"training checkpoint, {body} FPN, GN, 4conv1fc box head, masks, 81 classes",
            counts,
            remark="2 blobs that the network does not use are preserved (pred_",
        )


def resnexts() -> Iterator[Facsimile]:
    """5: X-101-32x8d, 32 groups, here of one channel, and a detector begun from it."""
    for with_biases in (True, False):
        words = "with" if with_biases else "without"
        yield Facsimile(
            f"X-101-32x8d.pkl {words} convolution biases",
            pickled(partial(_resnext, with_biases, False)),
            "ImageNet backbone, X-101-32x1d, BN*, 1000 classes",
            (314 + 104 * with_biases, 0, 0),
            "X-101-32x8d.pkl",
            "is an ImageNet backbone",
            config=(X_101, "--set", *_X_NARROW),
        )
        yield Facsimile(
            f"a detector begun from X-101-32x8d {words} convolution biases",
            pickled(partial(_resnext, with_biases, True)),
            "training checkpoint, X-101-32x1d FPN, BN*, 2fc box head, masks, 81 classes",
            (354, 135, 2 + 104 * with_biases),
            remark=f"{2 + 104 * with_biases} blobs that the network does not use are preserved",
        )


def _resnext(with_biases: bool, whole: bool) -> Blobs:
    """The content of the ImageNet file, or of the whole detector begun from it."""
    cfg = bundled_config(X_101, _X_NARROW)
    blobs = parameters(cfg)
    more = (biases(blobs) if with_biases else {}) | classifier("pred")
    if not whole:
        return {"blobs": shuffled(body_of(blobs) | more)}
    return {"blobs": shuffled(blobs | momenta(blobs) | more), "cfg": dumped(january_2018(cfg))}


def _switched_on(switch: str, section: str, values: Values) -> None:
    (values[section] if section else values)[switch] = True


STRANGERS: Blobs = {
    "head_conv1_w": np.ones((16, 16, 3, 3), np.float32),
    "cls_score_w_jcvbackup": np.ones((9, 16), np.float32),
    "lr": np.array(0.002, np.float32),
}


def changed() -> Iterator[Facsimile]:
    """6 to 9: what people add, what forks add, what people cut away, what was saved without momentum."""
    yield Facsimile(
        "35859007 with strangers that were preserved",
        detector(lambda: baseline(BN_50) | STRANGERS, partial(january, BN_50)),
        _BN_TITLE.replace("2fc", "4conv1fc"),
        (201, 84, 58),
        remark="58 blobs that the network does not use are preserved",
    )
    yield Facsimile(
        "35859007 with a learning rate as a numpy scalar",
        detector(lambda: baseline(BN_50) | {"lr": np.float32(0.002)}, partial(january, BN_50)),
        _BN_TITLE,
        (201, 84, 56),
        remark="56 blobs that the network does not use are preserved",
    )
    deviation: Blobs = {
        "bbox_pred_std_w": np.ones((324, 16), np.float32),
        "bbox_pred_std_b": np.ones(324, np.float32),
    }
    yield Facsimile(
        "KL-Loss with its own trained layer",
        detector(
            lambda: baseline(BN_50) | deviation | momenta(deviation),
            partial(january, BN_50, change=partial(_switched_on, "PRED_STD", "")),
        ),
        _BN_TITLE,
        (203, 86, 55),
        detect="PRED_STD is True: the model is of KL-Loss",
        train="PRED_STD is True: the model is of KL-Loss",
    )
    yield Facsimile(
        "KL-Loss with its own layer, without momentum",
        detector(
            lambda: baseline(BN_50) | deviation, partial(january, BN_50, change=partial(_switched_on, "PRED_STD", ""))
        ),
        _BN_TITLE,
        (201, 84, 57),
        detect="PRED_STD is True: the model is of KL-Loss",
        train="PRED_STD is True: the model is of KL-Loss",
    )
    yield Facsimile(
        "a layer that no network here has, trained",
        detector(lambda: baseline(BN_50) | deviation | momenta(deviation), partial(january, BN_50)),
        _BN_TITLE,
        (203, 86, 55),
        detect="was trained with bbox_pred_std_",
        train="was trained with bbox_pred_std_",
    )
    for switch, fork, section in (
        ("PRED_STD", "KL-Loss", ""), ("XYXY", "KL-Loss", ""), ("CASCADE_ON", "Cascade R-CNN", "MODEL"),
        ("BODY_UV_ON", "DensePose", "MODEL"),
    ):  # fmt: skip
        yield Facsimile(
            f"{fork}: ordinary blobs, {switch} true",
            detector(partial(baseline, BN_50), partial(january, BN_50, change=partial(_switched_on, switch, section))),
            _BN_TITLE,
            (201, 84, 55),
            detect=f"{switch} is True: the model is of {fork}",
            train=f"{switch} is True: the model is of {fork}",
        )
    for with_classifier, protocol in ((True, 2), (False, 0)):
        cut = _HEADS if with_classifier else (*_HEADS, "fc1000_")
        words = "with" if with_classifier else "without"
        yield Facsimile(
            f"35859007 without its last layers, {words} fc1000, protocol {protocol}",
            detector(partial(_cut, cut), partial(january, BN_50), protocol),
            "training checkpoint, R-50 FPN, BN*, 2fc box head",
            (195, 78, 55 - 2 * (not with_classifier)),
            detect="lacks cls_score_w, cls_score_b, bbox_pred_w, bbox_pred_b",
        )
    yield Facsimile(
        "35859007 without momentum",
        detector(lambda: without_momenta(baseline(BN_50)), partial(january, BN_50)),
        "detector, R-50 FPN, BN*, 2fc box head, masks, 81 classes",
        (201, 0, 55),
        remark="55 blobs that the network does not use are preserved",
    )


def _cut(prefixes: tuple[str, ...]) -> Blobs:
    """A baseline without layers that someone deleted."""
    return without(baseline(BN_50), *prefixes)


def finetuned() -> Iterator[Facsimile]:
    """What people's own runs leave: other classes than the configuration says, and renamed last layers."""

    def nine_classes() -> Blobs:
        return {
            name: blob if not name.startswith(_HEADS) else blob[: len(blob) // 9]
            for name, blob in baseline(BN_50).items()
        }

    def renamed() -> Blobs:
        blobs = without(baseline(BN_50), "cls_score_w_momentum", "cls_score_b_momentum")
        new = {f"cls_score_mine_{end}": blobs[f"cls_score_{end}"] for end in "wb"}
        return blobs | new | momenta(new)

    yield Facsimile(
        "heads of 9 classes under a configuration that says 81",
        detector(nine_classes, partial(january, BN_50)),
        _BN_TITLE.replace("81", "9"),
        (201, 84, 55),
        detect="has 9 classes (cls_score_b), but MODEL.NUM_CLASSES is 81: pass --set MODEL.NUM_CLASSES 9",
    )
    yield Facsimile(
        "a renamed last layer, trained, beside the old one",
        detector(renamed, partial(january, BN_50)),
        _BN_TITLE,
        (203, 84, 55),
        detect="was trained with cls_score_mine_",
        train="was trained with cls_score_mine_",
    )


def configurations() -> Iterator[Facsimile]:
    """10: texts that only the file's owner could have written, around ordinary blobs."""
    texts: dict[str, Callable[[], str]] = {
        "of autumn 2017": lambda: dumped(autumn_2017(config(BN_50))),
        "with an AttrDict that is empty": lambda: january(BN_50, change=lambda v: v.update(CLUSTER=AttrDict())),
        "with AttrDicts of a fork's module": lambda: dumped(january_2018(config(BN_50)), module="core.my.collections"),
        "with an unknown tag under an unknown key": lambda: january(BN_50).rstrip() + "\n  EXTRA: !!my.Thing {a: 1}\n",
        "with EPS of another type": lambda: january(BN_50, change=lambda values: values.update(EPS=1)),
        "in the block style of PyYAML 5": lambda: dumped(april_2018(config(BN_50)), state=STATE_2018, block=True),
    }
    for oddity, text in texts.items():
        name = f"35859007 with a configuration {oddity}"
        yield Facsimile(name, detector(partial(baseline, BN_50), text), _BN_TITLE, (201, 84, 55))


def trainers() -> Iterator[Facsimile]:
    """12: a checkpoint of the trainer that the ImageNet files come from, before its converter folded BatchNorm."""

    def content() -> Blobs:
        blobs = body_of(parameters(config(BN_50))) | classifier("pred")
        scales = [name.removesuffix("_s") for name in blobs if name.endswith("_bn_s")]
        statistics = {f"{name}_{end}": np.ones_like(blobs[f"{name}_s"]) for name in scales for end in ("rm", "riv")}
        return blobs | statistics | momenta(blobs, ()) | {"lr": 0.1, "model_iter": 449_999}

    yield Facsimile(
        "a checkpoint of FAIR's ImageNet trainer",
        detector(content, None),
        "ImageNet backbone, R-50, BN*, 1000 classes",
        (161 + 106, 55, 0),
        detect="is a checkpoint of a classification trainer",
        train="is a checkpoint of a classification trainer",
        config=(BN_50, "--set", *NARROW),
    )


def foreign() -> Iterator[Facsimile]:
    """11: the containers of other projects, which are named for what they are."""
    tensor = torch.ones(4, 4)
    detectron2 = {
        "backbone.bottom_up.stem.conv1.weight": np.ones((64, 3, 7, 7), np.float32),
        "backbone.fpn_lateral2.weight": np.ones((16, 256, 1, 1), np.float32),
        "proposal_generator.rpn_head.conv.weight": np.ones((16, 16, 3, 3), np.float32),
        "roi_heads.box_predictor.cls_score.weight": np.ones((81, 16), np.float32),
    }
    yield Facsimile(
        "a detectron2 pickle",
        lambda path: write_python3_pickle(
            path, {"model": detectron2, "__author__": "Detectron2 Model Zoo", "matching_heuristics": True}
        ),
        "unknown",
        (4, 0, 0),
        detect="has the parameter names of detectron2",
        train="has the parameter names of detectron2",
        config=(BN_50,),
    )
    pytorch = {
        "Conv_Body.conv_body.res1.conv1.weight": tensor,
        "RPN.FPN_RPN_conv.weight": tensor,
        "Box_Head.fc1.weight": tensor,
        "Mask_Head.conv_fcn.0.weight": tensor,
    }
    yield Facsimile(
        "a Detectron.pytorch checkpoint",
        saved_by_torch(
            lambda: {
                "step": 89999, "train_size": 234532, "batch_size": 16, "model": pytorch,
                "optimizer": {"state": {0: {"momentum_buffer": tensor}}, "param_groups": [{"lr": 0.01, "params": [0]}]},
            }
        ),  # fmt: skip
        "unknown",
        (4, 0, 0),
        "model_step89999.pth",
        detect="has the parameter names of Detectron.pytorch",
        train="has the parameter names of Detectron.pytorch",
        config=(BN_50,),
    )
    benchmark = {
        "module.backbone.body.stem.conv1.weight": tensor,
        "module.rpn.head.conv.weight": tensor,
        "module.roi_heads.box.predictor.cls_score.weight": tensor,
    }
    yield Facsimile(
        "a maskrcnn-benchmark checkpoint",
        saved_by_torch(lambda: {"model": benchmark, "iteration": 90000, "scheduler": {"last_epoch": 90000}}),
        "unknown",
        (3, 0, 0),
        "model_final.pth",
        detect="has the parameter names of maskrcnn-benchmark",
        train="has the parameter names of maskrcnn-benchmark",
        config=(BN_50,),
    )
    for wrapped in (False, True):
        yield Facsimile(
            f"a state_dict of this project's{', of a model wrapped by DistributedDataParallel' if wrapped else ''}",
            saved_by_torch(partial(_own_state_dict, "module." if wrapped else "")),
            "unknown",
            (201, 0, 0),
            "model.pth",
            config=(BN_50, "--set", *NARROW),
        )


def _own_state_dict(prefix: str) -> Blobs:
    """What `torch.save(model.state_dict(), ...)` writes."""
    blobs = parameters(config(BN_50))
    rows = BlobTable.from_config(config(BN_50)).rows
    return {f"{prefix}{row.parameter}": torch.from_numpy(blobs[row.blob]) for row in rows}


def all_facsimiles() -> list[Facsimile]:
    """All of them, in the order of the list that they were built from."""
    groups = (imagenet, baselines, resnexts, changed, finetuned, configurations, foreign, trainers)
    return [facsimile for group in groups for facsimile in group()]
