"""The classes of a run: they travel in everything it writes, and an evaluation finds its categories by name."""

import json
import shutil
from dataclasses import replace

import pytest

import detectron_gn
from detectron_gn.mrcnn.errors import InputError
from detectron_gn.mrcnn.evaluation.evaluate import evaluate
from detectron_gn.port.runs.load import load_model
from detectron_gn.verify.training.evaluated import EvaluationData, train_and_evaluate
from detectron_gn.verify.training.run_options import RunOptions
from detectron_gn.weights import read_blobs, write_blobs
from detectron_gn.weights.categories import Category
from tests.helpers.small_run import ALONE, DATA, config, dataset, run

SHAPES = ((3, "circle"), (17, "square"), (44, "triangle"), (62, "star"))


def val(path, categories):
    """The training images under these categories, `(id, name of ours, its name there)` each, in this order."""
    document = json.loads((DATA / "train_images.json").read_text())
    new = {old: next(identity for identity, known, _ in categories if known == name) for old, name in SHAPES}
    document["categories"] = [{"id": identity, "name": name} for identity, _, name in categories]
    document["images"] = document["images"][:1]
    document["annotations"] = [
        {**row, "category_id": new[row["category_id"]]}
        for row in document["annotations"]
        if row["image_id"] == document["images"][0]["id"]
    ]
    path.write_text(json.dumps(document))
    return path


def same(*order):
    return [(SHAPES[place][0], SHAPES[place][1], SHAPES[place][1]) for place in order]


@pytest.fixture(scope="module")
def short_run(tmp_path_factory):
    """A run of three iterations, with a checkpoint after the second."""
    out = tmp_path_factory.mktemp("short")
    run(out, config("SOLVER.MAX_ITER", "3"))
    return out


def test_every_file_of_a_run_holds_its_classes(short_run, tmp_path):
    files = sorted(short_run.glob("model_*.p*"))
    assert {path.name for path in files} >= {"model_iter1.pth", "model_final.pth", "model_final.pkl"}
    assert all(read_blobs(path).categories == tuple(Category(*each) for each in SHAPES) for path in files)
    # They need no run.json beside them.
    moved = tmp_path / "moved.safetensors"
    write_blobs(moved, read_blobs(short_run / "model_final.pkl"))
    model = load_model(moved, device="cpu")
    assert model.classes == ("__background__", "circle", "square", "triangle", "star")
    assert model.categories.ids == (3, 17, 44, 62)


def test_a_model_whose_classes_have_no_names_numbers_them(short_run, tmp_path):
    write_blobs(tmp_path / "m.pkl", replace(read_blobs(short_run / "model_final.pkl"), categories=None))
    model = detectron_gn.load(tmp_path / "m.pkl", device="cpu")
    assert (model.categories, model.classes[4]) == (None, "class 4")
    named = detectron_gn.load(tmp_path / "m.pkl", device="cpu", classes=["a", "b", "c", "d"])
    assert named.classes == ("__background__", "a", "b", "c", "d") and named.categories.ids == (1, 2, 3, 4)


def test_a_checkpoint_of_other_classes_is_of_another_run(short_run, tmp_path):
    shutil.copytree(short_run, tmp_path, dirs_exist_ok=True)
    path = tmp_path / "model_final.pth"
    weights = read_blobs(path)
    write_blobs(path, replace(weights, categories=weights.categories[::-1]))
    with pytest.raises(InputError, match="is of another run: its classes are star, triangle, square, circle"):
        run(tmp_path, config("SOLVER.MAX_ITER", "3"), resume=True)


def test_weights_that_know_their_classes_are_copied_by_name(short_run, tmp_path):
    weights = read_blobs(short_run / "model_final.pkl")
    other = replace(weights, categories=weights.categories[::-1])
    lines = []
    run(tmp_path / "a", config("SOLVER.MAX_ITER", "1"), other, lines)
    assert "the same classes in another order: their rows are copied by name" in " ".join(" ".join(lines).split())
    # run.json beside the file would know them.
    write_blobs(tmp_path / "m.pkl", replace(weights, categories=None))
    lines = []
    run(tmp_path / "b", config("SOLVER.MAX_ITER", "1"), read_blobs(tmp_path / "m.pkl"), lines)
    assert "class k is taken to be the k-th category of the data" in " ".join(" ".join(lines).split())


QUICK = "TEST.SCALE 64 TEST.RPN_POST_NMS_TOP_N 20 TEST.SCORE_THRESH 0.0".split()
OTHER_ORDERS = {
    "reversed": same(3, 2, 1, 0),
    "rotated": same(1, 2, 3, 0),
    "other ids": [(identity + 100, name, name) for identity, name in SHAPES],
    "ids of others": [(i, name, name) for i, (_, name) in zip((17, 3, 62, 44), SHAPES)],
}


def as_ours(rows, categories):
    ours = {identity: known for identity, known, _ in categories}
    return [(ours[row["category_id"]], row["bbox"], row["score"]) for row in rows]


@pytest.mark.parametrize("order", OTHER_ORDERS)
def test_an_evaluation_finds_its_categories_by_name(order, short_run, tmp_path):
    model = load_model(short_run / "model_final.pkl", overrides=QUICK, device="cpu")
    found = []
    for name, categories in (("own", same(0, 1, 2, 3)), ("other", OTHER_ORDERS[order])):
        evaluation = evaluate(model, val(tmp_path / f"{name}.json", categories), DATA / "train_images")
        found.append((as_ours(evaluation.rows["bbox"], categories), evaluation.ap["bbox"].AP))
    assert found[0][0] and found[0] == found[1]


def test_a_run_evaluates_its_checkpoints_by_name_too(tmp_path):
    categories = OTHER_ORDERS["rotated"]
    data = EvaluationData(val(tmp_path / "val.json", categories), DATA / "train_images")
    cfg = config("SOLVER.MAX_ITER", "1", *QUICK)
    options = RunOptions(tmp_path / "out", workers=0)
    train_and_evaluate(cfg, [dataset()], None, ALONE, options, [data], lambda line: None)
    model = load_model(tmp_path / "out" / "model_final.pkl", device="cpu")
    plain = evaluate(model, val(tmp_path / "plain.json", same(0, 1, 2, 3)), DATA / "train_images")
    rows = json.loads((tmp_path / "out" / "eval_iter0" / "bbox.json").read_text())
    assert rows and as_ours(rows, categories) == as_ours(plain.rows["bbox"], same(0, 1, 2, 3))


@pytest.mark.parametrize(
    ("categories", "sentence"),
    [
        ([*same(0, 2, 3), (17, "square", "moon")], "no category 'square', which is class 2.*; it has 'moon'"),
        ([*same(0, 1, 2, 3), (99, "", "moon")], "has the category 'moon', which the model does not know"),
        ([*same(0, 2, 3), (17, "square", "Square")], "it has 'Square'"),
    ],
)  # fmt: skip
def test_an_evaluation_of_other_classes_is_refused_before_training(categories, sentence, tmp_path):
    data = EvaluationData(val(tmp_path / "val.json", categories), DATA / "train_images")
    with pytest.raises(InputError, match=f"val.json .*{sentence}"):
        train_and_evaluate(config(), [dataset()], None, ALONE, RunOptions(tmp_path / "out", workers=0), [data])
    assert not (tmp_path / "out").exists()


TRAIN = ["--annotations", str(DATA / "train_images.json"), "--images", str(DATA / "train_images")]


def test_an_evaluation_goes_by_the_names_before_or_after_they_were_changed(tmp_path, capsys):
    (tmp_path / "new.txt").write_text("moon\nbox\nwedge\nsun\n")
    small = ["--config", "e2e_mask_rcnn_R-50-FPN_shapes_gn", "--set", "SOLVER.MAX_ITER", "1", "SOLVER.STEPS", "[0]"]
    (tmp_path / "empty").mkdir()
    data = [*TRAIN, "--eval-images", str(tmp_path / "empty")]
    new = ("moon", "box", "wedge", "sun")
    renamed = [(identity, name, other) for (identity, name), other in zip(SHAPES, new)]
    mixed = [(identity, name, other) for (identity, name), other in zip(SHAPES, ("moon", "square", "wedge", "sun"))]
    for name, categories, refused in (("a", renamed[::-1], 0), ("b", same(3, 2, 1, 0), 0), ("c", mixed, 1)):
        file = val(tmp_path / f"{name}.json", categories)
        arguments = [*small, *data, "--classes", str(tmp_path / "new.txt"), "--eval-annotations", str(file)]
        assert detectron_gn.main(["train", *arguments, "--out", str(tmp_path / name)]) == 2
        # Those that are matched get as far as the images, which are not there.
        error = capsys.readouterr().err
        assert ("no category 'box'" if refused else "empty") in error


def test_data_sets_in_another_order_are_not_given_new_names_together(tmp_path, capsys):
    other = val(tmp_path / "other.json", same(1, 0, 2, 3))
    (tmp_path / "new.txt").write_text("moon\nbox\nwedge\nsun\n")
    two = ["--annotations", str(other), "--images", str(DATA / "train_images")]
    arguments = ["--config", "e2e_mask_rcnn_R-50-FPN_shapes_gn", *TRAIN, *two, "--classes", str(tmp_path / "new.txt")]
    assert detectron_gn.main(["train", *arguments, "--out", str(tmp_path / "out")]) == 2
    error = capsys.readouterr().err
    assert "'square' is category 1 of" in error and "other.json, but category 2 of" in error
