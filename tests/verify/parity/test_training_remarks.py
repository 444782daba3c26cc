"""Inputs of `verify training` that are not the reference's: what the replay shows, and the way out."""

import json

import pytest

from detectron_gn.mrcnn.config import idle_training_remarks, with_values
from detectron_gn.mrcnn.data.coco import read_dataset
from detectron_gn.mrcnn.errors import InputError
from detectron_gn.verify.parity import training_check
from detectron_gn.verify.parity.training import IterationParity
from detectron_gn.verify.parity.training_check import training_tables
from detectron_gn.verify.parity.training_remarks import replicas_remark
from tests.helpers.training_reference import beginning, unpacked

# pycocotools under numpy 2, once for every outline.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")


@pytest.fixture(scope="module")
def trace_of(data, tmp_path_factory):
    """The path of a trace by its name, unpacked."""
    folder = tmp_path_factory.mktemp("traces")
    return lambda name: unpacked(data, name, folder)


def in_another_order(dataset, path):
    """The same data set with its categories from last to first."""
    content = json.loads(dataset.annotation_file.read_text())
    content["categories"].reverse()
    path.write_text(json.dumps(content))
    return read_dataset(path, dataset.image_dir)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["train_mask_prop_drawn", "train_retinanet"])
def test_another_number_of_gpus_is_told_with_the_key(data, trace_of, name):
    start = beginning(data, trace_of(name))
    parity = start._replace(cfg=with_values(start.cfg, {"NUM_GPUS": 8})).check(trace_of(name), replicas=0)
    told = (
        "every loss of iteration 0 is the reference's times 1/8: losses are divided by NUM_GPUS, which is 8 here and "
        "was 1 there; pass --set NUM_GPUS 1"
    )
    assert not parity.holds and parity.remarks == (told,)
    assert training_tables(parity).splitlines()[-1] == told


@pytest.mark.slow
@pytest.mark.parametrize("name", ["train_mask_prop_drawn", "train_mask_c4_pair", "train_retinanet"])
def test_categories_in_another_order_are_named(data, trace_of, name, tmp_path):
    start = beginning(data, trace_of(name))
    dataset = in_another_order(start.dataset, tmp_path / "other.json")
    parity = start._replace(dataset=dataset).check(trace_of(name), replicas=0)
    (told,) = parity.remarks
    assert not parity.holds and parity.different_samples
    assert told.startswith(f"the reference has the categories of {tmp_path / 'other.json'} in another order: ")
    assert "star is its class 4, not 1, triangle is its class 3, not 2" in told
    assert "circle is its class 1, not 4" in told
    assert told.endswith("; give the annotations that it was trained with")
    json.dumps(parity.document())


@pytest.mark.slow
def test_of_the_right_inputs_nothing_is_told(data, trace_of):
    assert beginning(data, trace_of("train_mask_prop_drawn")).check(trace_of("train_mask_prop_drawn"), 0).remarks == ()


def test_a_few_updates_apart_call_for_more_replicas():
    (told,) = replicas_remark(3, 200, 4)
    assert told == (
        "losses and samples agree, and only 3 of 200 updates and final parameters are further apart than rounding "
        "moves them in the replays (--replicas 4): which ReLUs tip over in a replay is chance, and more of them do in "
        "more replays: try --replicas 8"
    )
    assert not [*replicas_remark(0, 200, 4), *replicas_remark(11, 200, 4)]
    assert "try --replicas 4" in next(replicas_remark(1, 10, 0))


@pytest.mark.slow
@pytest.mark.parametrize(("keys", "told"), [({}, 1), ({"TRAIN.FG_FRACTION": 0.125}, 0), ({"TRAIN.FG_THRESH": 0.9}, 0)])
def test_more_replicas_are_called_for_only_where_losses_and_samples_agree(data, trace_of, keys, told, monkeypatch):
    """One update that is put apart stands for a ReLU that no replay tips over."""
    found = IterationParity.update_errors.fget
    monkeypatch.setattr(
        IterationParity, "update_errors", property(lambda step: {**found(step), "fc6_w": 1.0 - step.iteration})
    )
    name, start = "train_mask_prop_drawn", beginning(data, trace_of("train_mask_prop_drawn"))
    start = start._replace(cfg=with_values(start.cfg, keys))
    parity = start.check(trace_of(name), replicas=0)
    assert not parity.holds
    assert len([remark for remark in parity.remarks if "try --replicas" in remark]) == told


@pytest.mark.slow
def test_a_key_without_effect_is_told_as_train_tells_it(data, trace_of):
    name, said = "train_retinanet", []
    start = beginning(data, trace_of(name))
    cfg = with_values(start.cfg, {"TRAIN.FREEZE_CONV_BODY": True})
    parity = training_check.check_training(
        cfg, start.weights, start.dataset, trace_of(name), replicas=0, say=said.append
    )
    assert said == list(idle_training_remarks(cfg)) and "has no effect on a RetinaNet" in said[0]
    assert not parity.losses.over


FROZEN = [
    (
        0,
        "final lacks conv1_w, res2_0_branch2a_w, res2_0_branch2b_w and 8 more, which this configuration trains and "
        "Detectron did not: pass --set TRAIN.FREEZE_AT 2",
    ),
    (
        3,
        "final holds the momentum of res3_0_branch2a_w, res3_0_branch2b_w, res3_0_branch2c_w and 10 more, which "
        "Detectron trained and this configuration does not: pass --set TRAIN.FREEZE_AT 2",
    ),
    (
        4,
        "final holds the momentum of res3_0_branch2a_w, res3_0_branch2b_w, res3_0_branch2c_w and 29 more, which "
        "Detectron trained and this configuration does not: pass --set TRAIN.FREEZE_AT 2",
    ),
]


@pytest.mark.parametrize(("frozen_at", "told"), FROZEN, ids=["0", "3", "4"])
@pytest.mark.parametrize("name", ["train_mask_prop_drawn", "train_retinanet"])
def test_other_frozen_stages_are_bad_input_with_the_key(data, trace_of, name, frozen_at, told):
    start = beginning(data, trace_of(name))
    start = start._replace(cfg=with_values(start.cfg, {"TRAIN.FREEZE_AT": frozen_at}))
    with pytest.raises(InputError) as error:
        start.check(trace_of(name), replicas=0)
    assert str(error.value) == f"{trace_of(name)}: {told}"
