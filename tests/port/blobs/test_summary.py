"""What a file is said to be follows from its blobs."""

import json
import math
from pathlib import Path

import numpy as np
import pytest

from detectron_gn.port.blobs.summary import config_summary, describe, summarise
from detectron_gn.weights import WeightsFile, write_blobs

STAGES = {50: (3, 4, 6, 3), 101: (3, 4, 23, 3)}


def backbone(depth: int, norm: str) -> dict[str, np.ndarray]:
    blobs = {"conv1_w": np.ones((1, 1), "f4"), f"res_conv1_{norm}_s": np.ones(1, "f4")}
    for stage, count in enumerate(STAGES[depth], 2):
        blobs |= {f"res{stage}_{block}_branch2a_w": np.ones((1, 1), "f4") for block in range(count)}
    return blobs


HEADS = {
    "fpn_inner_res5_2_sum_w": np.ones(1, "f4"),
    "rpn_cls_logits_fpn2_w": np.ones(1, "f4"),
    "cls_score_w": np.ones((81, 2), "f4"),
    "mask_fcn_logits_w": np.ones((81, 2), "f4"),
}


def title(blobs: dict[str, np.ndarray]) -> str:
    return summarise(WeightsFile(blobs, None, None, "x", "pkl"), 1).title()


def test_imagenet_backbone() -> None:
    blobs = backbone(101, "gn") | {"pred_w": np.ones((1000, 2), "f4")}
    assert title(blobs) == "ImageNet backbone, R-101, GN, 1000 classes"


def test_the_classifier_of_msra_tells_the_classes_too() -> None:
    blobs = backbone(50, "bn") | {"fc1000_w": np.ones((1000, 2), "f4"), "fc1000_b": np.ones(1000, "f4")}
    assert title(blobs) == "ImageNet backbone, R-50, BN*, 1000 classes"


@pytest.mark.parametrize(
    ("shape", "body"),
    [((256, 8, 3, 3), "X-101-32x8d"), ((256, 4, 3, 3), "X-101-64x4d"), ((64, 64, 3, 3), "R-101"), ((64,), "R-101")],
)
def test_a_resnext_is_called_by_its_groups(shape: tuple[int, ...], body: str) -> None:
    blobs = backbone(101, "bn") | {"res2_0_branch2b_w": np.ones(shape, "f4")}
    assert title(blobs) == f"ImageNet backbone, {body}, BN*"
    assert title(blobs | HEADS) == f"detector, {body} FPN, BN*, masks, 81 classes"


def test_gn_detector_with_preserved_classifier() -> None:
    blobs = backbone(50, "gn") | HEADS | {"head_conv1_w": np.ones(1, "f4"), "pred_w": np.ones((1000, 2), "f4")}
    assert title(blobs) == "detector, R-50 FPN, GN, 4conv1fc box head, masks, 81 classes"


def test_bn_training_checkpoint() -> None:
    blobs = backbone(50, "bn") | HEADS | {"fc7_w": np.ones(1, "f4"), "cls_score_w_momentum": np.ones((81, 2), "f4")}
    assert title(blobs) == "training checkpoint, R-50 FPN, BN*, 2fc box head, masks, 81 classes"


def test_something_else() -> None:
    assert title({"a": np.ones(1, "f4")}) == "unknown"


def test_statistics_are_over_finite_values_and_the_others_are_named() -> None:
    blobs = {"w": np.array([1, 2, 3, 6, np.nan, np.inf, -np.inf], "f4"), "none": np.array([np.nan], "f4")}
    found = summarise(WeightsFile(blobs, None, None, "x", "pkl"), 1)
    first, second = found.blobs
    assert (first.mean, first.min, first.max, first.nan, first.inf) == (3.0, 1.0, 6.0, 1, 2)
    assert first.std == pytest.approx(math.sqrt(3.5))
    assert (second.mean, second.std, second.nan) == (None, None, 1)
    assert found.not_finite == ("w", "none")


def test_large_mean_does_not_spoil_the_standard_deviation() -> None:
    array = (1e4 + np.random.default_rng(0).standard_normal(2_500_000)).astype("f4")
    found = summarise(WeightsFile({"w": array}, None, None, "x", "pkl"), 1).blobs[0]
    assert found.std == pytest.approx(array.astype("f8").std(), rel=1e-9)


def test_describe_prints_a_table_and_json(tmp_path: Path) -> None:
    path = tmp_path / "model_iter9.pkl"
    blobs = backbone(50, "gn") | HEADS | {"cls_score_w_momentum": np.ones((81, 2), "f4")}
    write_blobs(path, WeightsFile(blobs, "MODEL:\n  NUM_CLASSES: 81\n", None, "x", "pkl"))
    found = describe(path)
    assert found.iteration == 9 and found.momentum == 1 and found.bytes == path.stat().st_size
    text = str(found)
    assert "MODEL.NUM_CLASSES: 81" in text and "cls_score_w_momentum    81x2" in found.blob_table()
    assert json.loads(json.dumps(found.as_dict()))["family"] == "training checkpoint"


@pytest.mark.parametrize(
    "text",
    [
        f"TRAIN:\n  SCALES: [{','.join(['1'] * 500_000)}]",
        "x" * 100_001,
        "# nothing\n" * 20_000,
        f"MODEL: {{NUM_CLASSES: 81, TYPE: '{'x' * 200_000}'}}",
    ],
    ids=["a list of a megabyte", "a word", "comments", "a value"],
)
def test_a_text_that_no_configuration_is_as_long_as_is_not_even_parsed(text: str) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("yaml.compose", None)
        patch.setattr("yaml.SafeLoader.get_single_node", None)
        assert list(config_summary(text)) == ["not readable"]
    assert "it has more than 100000 characters" in config_summary(text)["not readable"]


def test_config_of_detectron_is_summarised_without_acting_on_its_tags() -> None:
    text = """!!python/object/new:detectron.utils.collections.AttrDict
dictitems:
  MODEL: !!python/object/new:detectron.utils.collections.AttrDict
    dictitems: {NUM_CLASSES: 81, TYPE: !!python/unicode 'generalized_rcnn'}
    state: {__immutable__: true}
  NUM_GPUS: !!python/object/apply:os.system ['touch canary']
  TRAIN: {DATASETS: !!python/tuple [coco_2014_train, coco_2014_valminusminival]}
"""
    assert config_summary(text) == {
        "MODEL.TYPE": "generalized_rcnn",
        "MODEL.NUM_CLASSES": "81",
        "TRAIN.DATASETS": "coco_2014_train, coco_2014_valminusminival",
        "NUM_GPUS": "touch canary",
    }


@pytest.mark.parametrize(
    "text",
    [
        "a: [",
        "[" * 20000,
        "&a {dictitems: *a}",
        "a: &a [x,x]\nb: &b [*a,*a]\n" * 99,
        "\t",
        "",
        "x",
        "- MODEL",
        "a: " + "x" * 2**21,
    ],
)
def test_strange_config_is_no_obstacle(text: str) -> None:
    assert isinstance(config_summary(text), dict)


def test_demo_checkpoint_is_what_it_is(shared: Path) -> None:
    found = describe(shared / "parity" / "demo" / "model_iter2399.pkl")
    assert found.title() == "training checkpoint, R-50 FPN, GN, 4conv1fc box head, masks, 5 classes"
    assert (found.momentum, found.iteration, found.values, found.not_finite) == (223, 2399, 4_515_533, ())


def test_a_configuration_without_known_keys_is_said_to_be_unreadable():
    assert list(config_summary("a: &a [x, x]\nb: [*a, *a]\n")) == ["not readable"]
