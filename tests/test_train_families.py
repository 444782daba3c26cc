"""Every family is trained on drawn shapes by one script, from the demo's body, and its AP held against Detectron's."""

import pytest

from benchmarks.drawn_shapes import SPLITS, Split, draw_data_set
from benchmarks.train_families import DETECTRON, Family, Run, agrees, demo_body, family_table, train
from detectron_gn.weights import read_blobs


def test_the_body_of_the_demo_holds_its_resnet_and_no_more(tmp_path):
    names = read_blobs(demo_body(tmp_path)).blobs
    assert len(names) == 159 and not any(name.endswith("_momentum") for name in names)
    assert {"conv1_w", "res5_2_branch2c_gn_b"} <= set(names)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["fast_rcnn_R-50-FPN_shapes_gn", "e2e_keypoint_rcnn_R-50-FPN_shapes_gn"])
def test_a_family_is_trained_and_evaluated(name, tmp_path):
    """Fast R-CNN trains the RPN that it takes its proposals from as well."""
    for split in ("train", "val"):
        draw_data_set(tmp_path / "data", split, Split(3, SPLITS[split].seed))
    run = train(name, 3, tmp_path, iterations=2)
    assert set(run.ap) == set(DETECTRON[name].ap) and all(0 <= ap < 0.3 for ap in run.ap.values())
    assert run.median > 0
    again = train(name, 3, tmp_path, iterations=2)
    assert again.ap == run.ap and again.median == run.median


def test_means_are_held_against_detectrons_mean():
    detectron = Family({"box": (0.5, 0.54), "mask": (0.4,)}, 1.0, 0.02)

    def runs(*of_masks):
        return [Run({"box": 0.53, "mask": ap}, 0.5, 9.0) for ap in of_masks]

    assert agrees(detectron, runs(0.36, 0.44)) and not agrees(detectron, runs(0.36, 0.4))
    table = family_table(detectron, dict(enumerate(runs(0.36, 0.44), 3)))
    assert "0.5200 (0.5000 to 0.5400)" in table and "0.4000 (0.3600 to 0.4400)" in table
