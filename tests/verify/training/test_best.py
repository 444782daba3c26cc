"""The best checkpoint and the early end: both follow from the evaluations in the run's folder alone."""

import json

import pytest

from detectron_gn.mrcnn.errors import InputError
from detectron_gn.verify.training.best import Best, best_of, check_judged_by
from detectron_gn.weights import read_blobs
from tests.helpers.small_run import assert_equal_blobs, config, run

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

SHORT = ("SOLVER.MAX_ITER", "5", "SOLVER.STEPS", "[0]", "TRAIN.SNAPSHOT_ITERS", "1")


@pytest.mark.parametrize(
    ("evaluations", "expected"),
    [
        ({}, None),
        ({3: {"box": 0.5}}, Best(3, "box", 0.5, 0)),
        ({1: {"box": 0.9, "mask": 0.1}, 3: {"box": 0.1, "mask": 0.2}}, Best(3, "mask", 0.2, 0)),
        ({1: {"box": 0.1, "keypoint": 0.4}, 3: {"box": 0.9, "keypoint": 0.3}}, Best(1, "keypoint", 0.4, 1)),
        # Of equal ones the earlier; and what is no better counts as none.
        ({5: {"proposal": 0.7}, 1: {"proposal": 0.7}, 3: {"proposal": 0.6}}, Best(1, "proposal", 0.7, 2)),
    ],
)
def test_masks_decide_or_else_keypoints_boxes_proposals(evaluations, expected):
    assert best_of(evaluations) == expected


def test_the_kind_that_decides_can_be_chosen_and_must_be_the_models():
    evaluations = {1: {"box": 0.9, "mask": 0.1}, 3: {"box": 0.1, "mask": 0.2}}
    assert best_of(evaluations, "box") == Best(1, "box", 0.9, 1)
    check_judged_by("mask", config())
    with pytest.raises(InputError, match="--keep-best mask: a Faster R-CNN has no mask AP to be judged by: leave mask"):
        check_judged_by("mask", config("MODEL.MASK_ON", "False"))


def judge(folder, values):
    """What evaluates checkpoints: the mask AP of each iteration is given."""
    seen = []

    def evaluate(_, iteration):
        seen.append(iteration)
        (folder / f"eval_iter{iteration}").mkdir(exist_ok=True)
        ap = {"val": {"box": {"AP": 0.9 - values[iteration]}, "mask": {"AP": values[iteration]}}}
        (folder / f"eval_iter{iteration}" / "ap.json").write_text(json.dumps(ap))

    return evaluate, seen


def best_record(folder):
    return json.loads((folder / "model_best.json").read_text())


def test_the_best_checkpoint_stays_when_others_go_and_the_run_ends_when_it_gets_no_better(tmp_path):
    whole, lines = tmp_path / "whole", []
    run(whole, config(*SHORT), keep=5)
    out = tmp_path / "out"
    evaluate, seen = judge(out, [0.1, 0.4, 0.3, 0.4, 0.9])
    options = {"keep": 1, "keep_best": True, "patience": 2}
    run(out, config(*SHORT), lines=lines, on_checkpoint=evaluate, **options)
    assert seen == [0, 1, 2, 3]
    assert_equal_blobs(out / "model_best.pth", whole / "model_iter1.pth")
    assert_equal_blobs(out / "model_final.pth", whole / "model_iter3.pth")
    assert read_blobs(out / "model_final.pth").iteration == 3
    assert sorted(path.name for path in out.glob("model_iter*")) == ["model_iter3.pth"]
    assert best_record(out) == {"iteration": 1, "measure": "mask AP", "value": 0.4}
    assert "ended early after iteration 3: 2 evaluations without a better one" in "\n".join(lines)
    assert f"best checkpoint: {out / 'model_best.pth'}, mask AP 40.00 after iteration 1" in lines
    # It has ended: to go on changes nothing, but with more patience it trains to its end.
    again = []
    run(out, config(*SHORT), resume=True, lines=again, on_checkpoint=evaluate, **options)
    assert again[0].startswith("ended early after iteration 3")
    assert seen == [0, 1, 2, 3] and read_blobs(out / "model_final.pth").iteration == 3
    run(out, config(*SHORT), resume=True, on_checkpoint=evaluate, **{**options, "patience": 3})
    assert seen == [0, 1, 2, 3, 4]
    assert_equal_blobs(out / "model_final.pth", whole / "model_final.pth")
    assert_equal_blobs(out / "model_best.pth", whole / "model_final.pth")


def test_what_is_printed_as_0_is_never_the_best(tmp_path):
    evaluate, _ = judge(tmp_path, [1e-6, 3e-5, 0.0, 2e-4, 1e-4])
    run(tmp_path, config(*SHORT), lines=(lines := []), on_checkpoint=evaluate, keep_best=True, keep=1)
    told = [" ".join(line.split()) for line in lines if "best" in line and "mask AP" in line]
    assert told[0] == told[1] == told[2] == (
        "mask AP 0.00 so far: no checkpoint is the best yet; where that stays so, look at what detect --min-score 0.05 "
        "finds"
    )
    assert told[3].startswith("best so far: mask AP 0.02 after iteration 3; kept as")
    assert best_record(tmp_path)["iteration"] == 3


def test_a_kill_between_an_evaluation_and_what_follows_changes_nothing(tmp_path):
    values, options = [0.1, 0.4, 0.3, 0.2, 0.9], {"keep_best": True, "patience": 2}
    whole, out = tmp_path / "whole", tmp_path / "out"
    run(whole, config(*SHORT), on_checkpoint=judge(whole, values)[0], **options)

    for killed_at in (1, 3):
        evaluate, _ = judge(out, values)

        def killed(model, iteration, evaluate=evaluate, killed_at=killed_at):
            evaluate(model, iteration)
            if iteration == killed_at:
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            run(out, config(*SHORT), resume=True, on_checkpoint=killed, **options)
    evaluate, seen = judge(out, values)
    run(out, config(*SHORT), resume=True, on_checkpoint=evaluate, **options)
    assert seen == []
    for name in ("model_best.pth", "model_final.pth"):
        assert_equal_blobs(out / name, whole / name)
    assert best_record(out) == best_record(whole)


def test_without_the_option_nothing_is_kept_and_a_best_one_that_cannot_be_kept_ends_no_run(tmp_path):
    evaluate, _ = judge(tmp_path / "plain", [0.5] * 5)
    run(tmp_path / "plain", config(*SHORT), on_checkpoint=evaluate)
    assert not list((tmp_path / "plain").glob("model_best*"))
    out, lines = tmp_path / "blocked", []
    evaluate, _ = judge(out, [0.5] * 5)

    def blocked(model, iteration):
        (out / "model_best.pth").mkdir(exist_ok=True)
        evaluate(model, iteration)

    run(out, config(*SHORT), lines=lines, on_checkpoint=blocked, keep_best=True)
    assert any("the best checkpoint could not be kept" in line and "training goes on" in line for line in lines)
    assert_equal_blobs(out / "model_final.pth", tmp_path / "plain" / "model_final.pth")
