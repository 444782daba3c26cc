"""Inputs of `verify training` that are not the reference's: what the replay shows, and the way out."""

import json

import pytest

from detectron_gn.mrcnn.config import with_values
from detectron_gn.mrcnn.data.coco import read_dataset
from detectron_gn.verify.parity.training_check import training_tables
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
