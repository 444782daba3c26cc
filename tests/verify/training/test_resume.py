"""Stopped runs that are continued: what may differ, which damage is survived, and what a refused run leaves behind."""

import json

import pytest

from detectron_gn.mrcnn.data.categories import Categories
from detectron_gn.mrcnn.data.coco import read_dataset
from detectron_gn.mrcnn.data.read_image import ImageReading
from detectron_gn.mrcnn.data.roidb import training_roidb
from detectron_gn.mrcnn.errors import InputError
from detectron_gn.port.runs.run_record import recorded_categories
from detectron_gn.verify.training.fingerprint import data_fingerprint
from detectron_gn.verify.training.run import run_training
from detectron_gn.verify.training.run_dir import RunFolder
from detectron_gn.verify.training.run_options import RunOptions
from detectron_gn.weights import read_blobs
from detectron_gn.weights.errors import WriteFailed
from tests.helpers.small_run import ALONE, DATA, assert_equal_blobs, config, dataset, run

# Most of these go on with a whole run, and some with a killed one.
pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning"),
]


@pytest.fixture
def stopped(tmp_path, whole_run):
    """The folder of such a run that was killed before its end."""
    for name in ("run.json", "json_stats.jsonl", "model_iter1.pth", "model_iter3.pth"):
        (tmp_path / name).write_bytes((whole_run / name).read_bytes())
    return tmp_path


def begun(folder, cfg=None, weights=None, **options):
    """The folder of a run that was killed before its first checkpoint."""
    run(folder, cfg or config(), weights, **options)
    for path in folder.glob("model_*"):
        path.unlink()


def test_without_a_checkpoint_a_run_goes_on_from_the_weights_it_began_with_only(tmp_path, whole_run):
    weights = read_blobs(whole_run / "model_final.pkl")
    begun(tmp_path, weights=weights)
    before = (tmp_path / "run.json").read_bytes()
    began = r"started with .*\.pkl of circle, square, triangle, star, but now it would begin with none \(from scratch"
    with pytest.raises(InputError, match=began):
        run(tmp_path, resume=True)
    with pytest.raises(InputError, match=r"begin with .*\.pkl of a, b, c, d: go on with the same --weights"):
        run(tmp_path, weights=weights, source_classes=("__background__", "a", "b", "c", "d"), resume=True)
    assert (tmp_path / "run.json").read_bytes() == before
    run(tmp_path, weights=weights, resume=True)


def test_a_frozen_stem_from_scratch_needs_force_on_resume_too(tmp_path):
    cfg = config("TRAIN.FREEZE_AT", "2", "SOLVER.MAX_ITER", "1", "SOLVER.STEPS", "[0]")
    begun(tmp_path, cfg, force=True)
    with pytest.raises(InputError, match="36.2 instead of 39.5"):
        run(tmp_path, cfg, resume=True)


def test_another_precision_is_refused_by_name(stopped):
    with pytest.raises(InputError, match="--precision is bf16 now and was fp32 when the run"):
        run(stopped, resume=True, precision="bf16")


def test_other_pixels_by_exif_are_told_where_they_are_on_record(stopped):
    lines = []
    run(stopped, lines=lines, resume=True, reading=ImageReading(exif="ignore"))
    assert "--exif is ignore now and was apply when the run" in " ".join(" ".join(lines).split())


def with_segmentation(folder, change):
    """The data set with the outline of its first object changed, by way of a file in a folder."""
    content = json.loads((DATA / "train_images.json").read_text())
    image = min(content["images"], key=lambda image: image["id"])
    first = next(each for each in content["annotations"] if each["image_id"] == image["id"])
    first["segmentation"] = change(first["segmentation"])
    file = folder / "changed.json"
    file.write_text(json.dumps(content))
    return read_dataset(file, DATA / "train_images")


def test_other_outlines_are_refused(stopped, tmp_path_factory):
    folder = tmp_path_factory.mktemp("changed")
    data = with_segmentation(folder, lambda polygons: [[x + 1 for x in polygon] for polygon in polygons])
    with pytest.raises(InputError, match="the annotations, images or proposals are not those"):
        run(stopped, data=data, resume=True)


def test_the_fingerprint_sees_every_outline(tmp_path):
    image = dataset().images[0]
    size = [image.height, image.width]
    before, pixels = 70 * image.height + 30, image.height * image.width
    runs, other_runs = ({"size": size, "counts": [before, run, pixels - before - run]} for run in (5, 6))
    square, triangle = [66, 23, 84, 23, 84, 41, 66, 41], [66, 23, 84, 23, 84, 41]
    outlines = [[square], [triangle], [square, triangle], [triangle, square], runs, other_runs]
    prints = set()
    for outline in outlines:
        data = with_segmentation(tmp_path, lambda _, outline=outline: outline)
        prints.add(data_fingerprint(training_roidb([data], config())))
    assert len(prints) == len(outlines)


def test_a_run_that_told_its_data_in_another_way_is_said_to_be_of_another_version(stopped):
    record = json.loads((stopped / "run.json").read_text())
    (stopped / "run.json").write_text(json.dumps({**record, "data": "0" * 64}))
    with pytest.raises(InputError, match="was started by another version"):
        run(stopped, resume=True)


@pytest.mark.parametrize("content", [b"{}", b"[1]", b"", b"\xff\xfe", b'{"config": 3}'])
def test_a_damaged_run_json_is_named_with_the_way_out(stopped, content):
    (stopped / "run.json").write_bytes(content)
    with pytest.raises(InputError, match=r"run\.json is damaged, and without it .*: put back a copy, or start another"):
        run(stopped, resume=True)
    assert (stopped / "model_iter3.pth").exists()


@pytest.mark.parametrize("keep_bytes", [0, 1000, 100_000])
def test_a_damaged_checkpoint_is_set_aside_and_the_one_before_it_counts(stopped, whole_run, keep_bytes):
    damaged = stopped / "model_iter3.pth"
    content = damaged.read_bytes()[:keep_bytes]
    damaged.write_bytes(content)
    lines = []
    run(stopped, resume=True, lines=lines)
    assert "model_iter3.pth" in lines[0] and "it is kept as model_iter3.pth.damaged" in " ".join(lines[0].split())
    assert any("model_iter1.pth at iteration 2" in line for line in lines)
    assert (stopped / "model_iter3.pth.damaged").read_bytes() == content
    assert_equal_blobs(stopped / "model_final.pth", whole_run / "model_final.pth")


def test_a_run_of_damaged_checkpoints_only_does_not_begin_again_by_itself(stopped):
    for name in ("model_iter1.pth", "model_iter3.pth"):
        (stopped / name).write_bytes(b"PK")
    with pytest.raises(InputError, match=r"model_iter3\.pth.*no other checkpoint to go on from: put back a copy"):
        run(stopped, resume=True)
    assert (stopped / "model_iter3.pth").exists() and not (stopped / "model_iter3.pth.damaged").exists()


@pytest.mark.parametrize("left", ["model_iter79999.pth", "model_final.pkl", "json_stats.jsonl", "diverged_iter5.pth"])
def test_a_folder_with_what_another_run_left_is_not_begun_in(tmp_path, left):
    (tmp_path / left).write_bytes(b"")
    with pytest.raises(InputError, match=rf"has no run\.json, but {left} of another run: choose another --out"):
        run(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [left]


def test_a_newer_checkpoint_of_another_run_does_not_push_out_ones_own(tmp_path):
    stray = tmp_path / "model_iter79999.pth"
    run(tmp_path, lines=(lines := []), on_checkpoint=lambda model, iteration: stray.write_bytes(b""), keep=1)
    assert sorted(path.name for path in tmp_path.glob("model_iter*")) == ["model_iter3.pth", stray.name]
    assert lines


def test_a_minibatch_that_cannot_be_filled_is_refused_before_anything_is_written(tmp_path):
    with pytest.raises(InputError, match="24 training images .* do not fill one minibatch"):
        run(tmp_path / "run", config("TRAIN.IMS_PER_BATCH", "1000"))
    assert not (tmp_path / "run").exists()


def test_a_run_json_that_cannot_be_written_leaves_nothing(tmp_path, monkeypatch):
    def full(path):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("detectron_gn.weights.files.atomic.sync", full)
    with pytest.raises(ValueError, match=r"run\.json: could not be written: No space left"):
        run(tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_an_evaluation_that_a_kill_cut_short_is_done_first(tmp_path):
    evaluated = []

    def killed(model, iteration):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, on_checkpoint=killed)
    run(tmp_path, resume=True, on_checkpoint=lambda model, iteration: evaluated.append(iteration))
    assert evaluated == [1, 3, 5]


def test_an_evaluation_that_is_there_is_not_done_again(stopped):
    (stopped / "eval_iter3").mkdir()
    ap = {"val": {"box": {"AP": 0.5}, "mask": {"AP": 0.25}}}
    (stopped / "eval_iter3" / "ap.json").write_text(json.dumps(ap))
    evaluated = []
    run(stopped, resume=True, on_checkpoint=lambda model, iteration: evaluated.append(iteration))
    assert evaluated == [5]


def test_damaged_figures_are_left_out_with_a_remark(stopped, whole_run):
    good = (stopped / "json_stats.jsonl").read_text().splitlines()[0]
    bad = ["5", "{}", '{"iter": "0"}', '{"iter": 0, "loss": "x"}', '{"iter": 0, "lo']
    (stopped / "json_stats.jsonl").write_bytes("\n".join([bad[0], good, *bad[1:]]).encode() + b"\n\xff\xfe\n")
    (stopped / "eval_iter3").mkdir()
    (stopped / "eval_iter3" / "ap.json").write_text('{"a')
    lines = []
    run(stopped, resume=True, lines=lines)
    assert "json_stats.jsonl: 6 damaged lines are left out" in lines[0]
    assert "ap.json is damaged and left out of the curves" in lines[1]
    assert [json.loads(line)["iter"] for line in (stopped / "json_stats.jsonl").read_text().splitlines()] == [0, 4, 5]
    assert_equal_blobs(stopped / "model_final.pth", whole_run / "model_final.pth")


def test_a_picture_that_cannot_be_drawn_does_not_end_a_run(tmp_path, whole_run):
    (tmp_path / "curves.png").mkdir()
    lines = []
    run(tmp_path, lines=lines)
    assert sum("curves.png: is a folder; name a file; training goes on" in line for line in lines) == 1
    assert_equal_blobs(tmp_path / "model_final.pth", whole_run / "model_final.pth")


def test_a_final_model_that_cannot_be_written_says_what_is_there(tmp_path):
    def block_the_pickle(line):
        if line.startswith("checkpoint: "):
            (tmp_path / "model_final.pkl").mkdir(exist_ok=True)

    with pytest.raises(InputError, match=r"_final\.pkl: .*--resume goes on from the last checkpoint, model_final\.pth"):
        run_training(config(), [dataset()], None, ALONE, RunOptions(tmp_path, workers=0), say=block_the_pickle)
    (tmp_path / "model_final.pkl").rmdir()
    run(tmp_path, resume=True)
    assert_equal_blobs(tmp_path / "model_final.pkl", tmp_path / "model_final.pth")


def test_the_classes_of_a_run_are_known_and_of_no_run_are_not(stopped, tmp_path_factory):
    names, ids = dataset().classes[1:], dataset().category_ids
    assert recorded_categories(stopped) == Categories(names, ids)
    empty = tmp_path_factory.mktemp("empty")
    assert recorded_categories(empty) is None
    content = json.loads((stopped / "run.json").read_text())
    del content["category_ids"]
    (empty / "run.json").write_text(json.dumps(content))
    assert recorded_categories(empty) == Categories(names, tuple(range(1, len(names) + 1)))


def test_other_category_ids_are_other_categories(stopped, tmp_path):
    document = json.loads((DATA / "train_images.json").read_text())
    for category in document["categories"]:
        category["id"] += 100
    for annotation in document["annotations"]:
        annotation["category_id"] += 100
    (tmp_path / "renumbered.json").write_text(json.dumps(document))
    renumbered = read_dataset(tmp_path / "renumbered.json", DATA / "train_images")
    with pytest.raises(InputError, match="the categories are not those"):
        run(stopped, resume=True, data=renumbered)


def test_the_same_weights_that_begin_at_another_iteration_are_other_weights(tmp_path, whole_run):
    begun(tmp_path, config("SOLVER.MAX_ITER", "9"), read_blobs(whole_run / "model_final.pkl"))
    with pytest.raises(InputError, match=r"now it would begin with .*model_final\.pth"):
        run(tmp_path, config("SOLVER.MAX_ITER", "9"), read_blobs(whole_run / "model_final.pth"), resume=True)


def test_a_checkpoint_of_another_run_is_named(tmp_path, stopped):
    other = tmp_path / "other"
    run(other, config("RNG_SEED", "9"))
    (stopped / "model_iter5.pth").write_bytes((other / "model_final.pth").read_bytes())
    with pytest.raises(InputError, match=r"model_iter5\.pth is of another run: its RNG_SEED is 9, .* is 3: move"):
        run(stopped, resume=True)


def test_files_that_are_only_called_like_checkpoints_do_not_matter(stopped, whole_run):
    (stopped / "model_iter\u00b3.pth").write_bytes(b"")
    (stopped / "model_iter7.pth").mkdir()
    assert_equal_blobs(run(stopped, resume=True), whole_run / "model_final.pkl")


def test_a_divergence_is_told_also_where_its_state_cannot_be_kept(tmp_path, monkeypatch):
    def full(folder, name, weights):
        raise WriteFailed(str(folder.path / name), "could not be written: No space left on device")

    monkeypatch.setattr(RunFolder, "save_as", full)
    cfg = config("SOLVER.BASE_LR", "1e20", "SOLVER.MAX_ITER", "4")
    with pytest.raises(InputError, match=r"the loss is not finite at iteration .* images .* not kept: .*diverged_iter"):
        run(tmp_path / "run", cfg)
