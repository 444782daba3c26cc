"""Evaluation over a data set: shared out, killed and gone on with, batched, always with the same results."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import cv2
import numpy as np
import pytest

from detectron_gn.mrcnn.data.coco import read_annotations
from detectron_gn.mrcnn.data.image_blob import image_scale, scaled_size
from detectron_gn.mrcnn.data.image_files import image_files
from detectron_gn.mrcnn.errors import InputError
from detectron_gn.mrcnn.evaluation.coco_results import ImageResults
from detectron_gn.mrcnn.evaluation.evaluate import evaluate, plan_batches
from detectron_gn.mrcnn.evaluation.partial_results import PartialResults, run_identity
from detectron_gn.port.runs.load import load_model
from detectron_gn.verify.evaluation_files import write_evaluation
from detectron_gn.verify.parity.results import match_detections

ROOT = Path(__file__).resolve().parents[3]
FILES = ("bbox.json", "segm.json", "ap.json")


@pytest.fixture(scope="module")
def model(pickle):
    return load_model(pickle, device="cpu")


@pytest.fixture(scope="module")
def some_images(tmp_path_factory, demo_model):
    """The annotations of the first eight images."""
    return first_images(demo_model, 8, tmp_path_factory.mktemp("data") / "instances_some.json")


def first_images(demo_model, count, path):
    document = json.loads((demo_model / "instances_val.json").read_text())
    document["images"] = document["images"][:count]
    ids = {image["id"] for image in document["images"]}
    document["annotations"] = [row for row in document["annotations"] if row["image_id"] in ids]
    path.write_text(json.dumps(document))
    return path


def command(pickle, annotations, demo_model, out, ranks=1):
    launcher = ["-m", "torch.distributed.run", "--nproc_per_node", str(ranks)] if ranks > 1 else []
    arguments = ["test", pickle, "--annotations", annotations, "--images", demo_model / "val", "--out", out]
    return [sys.executable, *launcher, "-m", "detectron_gn", *map(str, arguments), "--device", "cpu"]


def run(*args, **kwargs):
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command(*args, **kwargs), cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]


def results(out):
    return {name: (out / name).read_bytes() for name in FILES}


@pytest.fixture(scope="module")
def alone(tmp_path_factory, pickle, some_images, demo_model):
    """The results files of one process that was left in peace."""
    out = tmp_path_factory.mktemp("alone")
    run(pickle, some_images, demo_model, out)
    return results(out)


@pytest.mark.slow
@pytest.mark.parametrize("ranks", [2, 3])
def test_results_files_are_the_same_to_the_byte_for_any_number_of_ranks(
    ranks, tmp_path, pickle, some_images, demo_model, alone
):
    run(pickle, some_images, demo_model, tmp_path, ranks=ranks)
    assert results(tmp_path) == alone
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(FILES)


@pytest.mark.slow
def test_a_killed_run_goes_on_with_other_ranks_to_the_same_bytes(tmp_path, pickle, some_images, demo_model, alone):
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(
        command(pickle, some_images, demo_model, tmp_path), cwd=ROOT, env=environment, stderr=subprocess.DEVNULL
    )
    partial = tmp_path / "partial_results_0.jsonl"
    while process.poll() is None and not (partial.exists() and partial.read_bytes().count(b"\n") >= 3):
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    process.wait()
    lines = partial.read_bytes().splitlines(keepends=True)
    assert 3 <= len(lines) < 9 and not (tmp_path / "bbox.json").exists()
    # As if it had been killed in the middle of a line.
    partial.write_bytes(b"".join(lines[:-1]) + lines[-1][:-40])
    run(pickle, some_images, demo_model, tmp_path, ranks=2)
    assert results(tmp_path) == alone


def test_images_on_record_are_not_detected_again(tmp_path, model, some_images, demo_model, monkeypatch):
    whole = evaluate(model, some_images, demo_model / "val", out=tmp_path)
    seen = []
    monkeypatch.setattr(type(model), "start_batch", lambda self, batch, network: seen.append(len(batch.im_info)))
    again = evaluate(model, some_images, demo_model / "val", out=tmp_path)
    assert seen == []
    assert (again.rows["bbox"], again.rows["segm"]) == (whole.rows["bbox"], whole.rows["segm"])


@pytest.mark.slow
def test_the_last_line_is_dropped_where_it_is_torn(tmp_path, model, some_images, demo_model):
    whole = evaluate(model, some_images, demo_model / "val", out=tmp_path)
    path = tmp_path / "partial_results_0.jsonl"
    text = path.read_bytes()
    lines = text.splitlines(keepends=True)
    path.write_bytes(b"".join(lines[:3]) + lines[3][:100])
    files = image_files(read_annotations(some_images), demo_model / "val")
    with PartialResults(tmp_path, run_identity(model, some_images, 1), files) as partial:
        assert len(partial.done) == 2
    assert path.read_bytes() == b"".join(lines[:3])
    # A header that was torn is written again.
    path.write_bytes(lines[0][:20])
    assert evaluate(model, some_images, demo_model / "val", out=tmp_path).rows["segm"] == whole.rows["segm"]
    assert path.read_bytes() == text


HEADERS = ['{"weights"', "[]", "5", "null", '"x"', "{}", "[{}, 0]", "[5, 0]", "[" * 100_000]


@pytest.mark.parametrize("header", HEADERS, ids=lambda header: header[:12])
def test_a_partial_results_with_a_damaged_header_is_named(header, tmp_path, model, some_images):
    (tmp_path / "partial_results_3.jsonl").write_text(f"{header}\n{{}}\n")
    with pytest.raises(InputError, match=r"partial_results_3\.jsonl is damaged: delete it"):
        PartialResults(tmp_path, run_identity(model, some_images, 1), {})


BODIES = {
    "another id": lambda text: text.replace('"image_id": 300000', '"image_id": [1]', 1),
    "an id of no image": lambda text: text.replace("300000", "99"),
    "classes that are no list": lambda text: re.sub(r'"classes": \[[^]]*\]', '"classes": 5', text),
    "one class fewer": lambda text: re.sub(r'"classes": \[\d+, ', '"classes": [', text),
    "a row without its category": lambda text: re.sub(r'"category_id": \d+, ', "", text, count=1),
    "a box of no number": lambda text: re.sub(r'("bbox": \[\d+\.\d)\d', r"\g<1>x", text, count=1),
    "another score": lambda text: text.replace('"score": 0.9', '"score": 0.8', 1),
    "no checksum": lambda text: text.replace("[{", "{", 1).rpartition(",")[0],
    "no image": lambda text: "[[1], 0]",
}


@pytest.fixture(scope="module")
def kept(tmp_path_factory, model, some_images, demo_model):
    folder = tmp_path_factory.mktemp("partial")
    evaluate(model, some_images, demo_model / "val", out=folder)
    return (folder / "partial_results_0.jsonl").read_text()


@pytest.mark.parametrize("body", BODIES)
def test_damaged_partial_results_are_named(body, tmp_path, model, some_images, demo_model, kept):
    header, first, *others = kept.splitlines()
    damaged = BODIES[body](first)
    assert damaged != first
    (tmp_path / "partial_results_0.jsonl").write_text("\n".join([header, damaged, *others, ""]))
    sentence = r"partial_results_0\.jsonl is damaged: delete it, and its images are detected again"
    with pytest.raises(InputError, match=sentence):
        evaluate(model, some_images, demo_model / "val", out=tmp_path)


@pytest.mark.skipif(not Path("/dev/full").is_char_device(), reason="needs Linux's device that is always full")
def test_a_partial_results_that_a_disk_has_no_room_for_is_named(tmp_path, model, some_images):
    with pytest.raises(InputError, match=r"partial_results_0\.jsonl cannot be written: No space left on device"):
        with PartialResults(tmp_path, run_identity(model, some_images, 1), {}) as partial:
            partial._file = Path("/dev/full").open("wb")
            partial.add([ImageResults(300000, [], [], [])], ["0" * 64])


def test_what_is_no_file_in_the_place_of_partial_results_is_refused(tmp_path, model, some_images):
    victim, place = tmp_path / "victim", tmp_path / "out" / "partial_results_0.jsonl"
    place.parent.mkdir()
    victim.write_text("precious")
    for put in (lambda: place.symlink_to(victim), lambda: os.mkfifo(place), place.mkdir):
        put()
        with pytest.raises(InputError, match="is a link, a pipe or a folder, and no partial results: move it away"):
            PartialResults(place.parent, run_identity(model, some_images, 1), {})
        place.rmdir() if place.is_dir() else place.unlink()
    assert victim.read_text() == "precious"


def test_an_image_that_is_not_of_the_data_set_damages_partial_results(tmp_path, model, some_images, kept):
    (tmp_path / "partial_results_0.jsonl").write_text(kept)
    with pytest.raises(InputError, match=r"partial_results_0\.jsonl is damaged"):
        PartialResults(tmp_path, run_identity(model, some_images, 1), {})


@pytest.mark.slow
def test_an_image_whose_file_has_changed_is_detected_again(
    tmp_path, model, some_images, demo_model, kept, monkeypatch
):
    """A run that was begun with another folder of images, under the same names, and goes on with the right one."""
    whole = evaluate(model, some_images, demo_model / "val")
    images, out = tmp_path / "images", tmp_path / "out"
    shutil.copytree(demo_model / "val", images)
    out.mkdir()
    flipped = images / "000000300000.png"
    cv2.imwrite(str(flipped), cv2.imread(str(flipped))[::-1])
    wrong = evaluate(model, some_images, images, out=out)
    assert wrong.rows["segm"] != whole.rows["segm"]
    seen, start = [], type(model).start_batch
    monkeypatch.setattr(
        type(model),
        "start_batch",
        lambda self, batch, network: seen.append(len(batch.im_info)) or start(self, batch, network),
    )
    again = evaluate(model, some_images, demo_model / "val", out=out)
    assert seen == [1]
    assert (again.rows["bbox"], again.rows["segm"]) == (whole.rows["bbox"], whole.rows["segm"])
    # Both entries stand in the file now; the one of the file as it is counts, whichever folder is given.
    assert evaluate(model, some_images, images, out=out).rows["segm"] == wrong.rows["segm"]
    assert seen == [1]


def test_the_partial_results_of_another_run_is_refused_by_what_differs(tmp_path, pickle, some_images, demo_model):
    model = load_model(pickle, device="cpu")
    PartialResults(tmp_path, run_identity(model, some_images, 1), {}).__exit__(None, None, None)
    others = {
        "configuration": (load_model(pickle, overrides=["TEST.NMS", "0.4"], device="cpu"), some_images, 1),
        "annotations": (model, first_images(demo_model, 3, tmp_path / "three.json"), 1),
        r"batch \(1\)": (model, some_images, 2),
    }
    for name, (changed, annotations, batch) in others.items():
        sentence = rf"partial_results_0\.jsonl holds partial results of a run with another {name}"
        with pytest.raises(InputError, match=sentence):
            PartialResults(tmp_path, run_identity(changed, annotations, batch), {})
    model.box_head.fc6.bias.data[0] += 1
    with pytest.raises(InputError, match=r"another weights"):
        PartialResults(tmp_path, run_identity(model, some_images, 1), {})


def test_written_results_leave_no_partial_results(tmp_path, model, some_images, demo_model):
    write_evaluation(evaluate(model, some_images, demo_model / "val", out=tmp_path), "some", tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(FILES)


def test_images_share_a_batch_only_where_their_padded_sizes_are_equal(model, demo_model):
    coco = read_annotations(demo_model / "instances_val.json")
    plan = plan_batches(model, coco, 4)
    files = image_files(coco, demo_model / "val")
    assert sorted(image_id for members in plan for image_id in members) == sorted(coco.imgs)
    assert max(map(len, plan)) == 4
    for members in plan:
        shapes = {model.prepare(cv2.imread(str(files[image_id]))).pixels.shape for image_id in members}
        assert len({(-(-shape[0] // 32), -(-shape[1] // 32)) for shape in shapes}) == 1


@pytest.fixture(scope="module")
def one(model, demo_model):
    """The evaluation of the whole data set, image by image."""
    return evaluate(model, demo_model / "instances_val.json", demo_model / "val")


@pytest.mark.slow
@pytest.mark.parametrize("batch", [2, 4, 8])
def test_batches_change_nothing_but_float32_sums(batch, one, model, demo_model):
    many = evaluate(model, demo_model / "instances_val.json", demo_model / "val", batch=batch)
    parity = match_detections(many.rows["bbox"], one.rows["bbox"], "bbox")
    assert parity.matched == parity.ours == parity.reference
    assert parity.max_box_difference < 1e-3
    assert parity.max_score_difference < 1e-5
    assert many.ap["bbox"].AP == pytest.approx(one.ap["bbox"].AP, abs=1e-6)
    assert many.ap["segm"].AP == pytest.approx(one.ap["segm"].AP, abs=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("threads", [1, 3])
def test_threads_change_nothing(threads, model, some_images, demo_model, tmp_path):
    alone = evaluate(model, some_images, demo_model / "val", batch=2)
    beside = evaluate(model, some_images, demo_model / "val", batch=2, threads=threads, out=tmp_path)
    assert (beside.rows["bbox"], beside.rows["segm"]) == (alone.rows["bbox"], alone.rows["segm"])
    assert beside.speed.images == 8 and beside.speed.network_seconds > 0 and beside.speed.paste_seconds > 0


def test_an_image_that_threads_cannot_read_leaves_those_before_it_on_record(
    model, some_images, demo_model, tmp_path
):
    images, out = tmp_path / "images", tmp_path / "out"
    shutil.copytree(demo_model / "val", images)
    out.mkdir()
    (images / "000000300005.png").write_bytes(b"no picture")
    with pytest.raises(InputError, match=r"000000300005\.png cannot be decoded"):
        evaluate(model, some_images, images, threads=2, out=out)
    assert len((out / "partial_results_0.jsonl").read_text().splitlines()) == 1 + 5


@pytest.mark.parametrize("threads", [0, 2])
def test_what_is_handed_on_is_on_record_already(threads, model, some_images, demo_model, tmp_path):
    def until_the_third(results, _count):
        for number, result in enumerate(results, 1):
            if number == 3:
                raise KeyboardInterrupt
            yield result

    with pytest.raises(KeyboardInterrupt):
        evaluate(model, some_images, demo_model / "val", until_the_third, threads=threads, out=tmp_path)
    assert len((tmp_path / "partial_results_0.jsonl").read_text().splitlines()) == 1 + 3


@pytest.mark.slow
def test_a_network_of_static_shapes_gives_the_same_evaluation(model, some_images, demo_model):
    whole = evaluate(model, some_images, demo_model / "val")
    fixed = evaluate(model, some_images, demo_model / "val", network=model.static_outputs, threads=2)
    assert fixed.rows["bbox"] == whole.rows["bbox"]
    assert fixed.ap["segm"] == whole.ap["segm"]


def test_scaled_sizes_are_opencvs():
    generator = np.random.default_rng(0)
    for height, width in generator.integers(20, 700, (200, 2)).tolist():
        scale = image_scale(height, width, 160, 256)
        resized = cv2.resize(np.zeros((height, width), np.float32), None, fx=scale, fy=scale)
        assert scaled_size(height, width, scale) == resized.shape


@pytest.mark.parametrize(
    ("list_name", "change", "sentence"),
    [
        ("annotations", lambda row: row.pop("category_id"), r"broken\.json: annotation \d+ of .*: has no 'categ"),
        ("annotations", lambda row: row.update(iscrowd="x"), r"broken\.json: annotation \d+ of .*: iscrowd is 'x'"),
        ("images", lambda row: row.pop("height"), r"broken\.json: 000000300000\.png: has no 'height'"),
        ("images", lambda row: row.update(height="x"), r"broken\.json: 000000300000\.png: height 'x' and width"),
    ],
)
def test_what_scoring_will_need_is_checked_before_any_image_runs(
    list_name, change, sentence, tmp_path, model, some_images, demo_model, monkeypatch
):
    document = json.loads(some_images.read_text())
    change(document[list_name][0])
    broken = tmp_path / "broken.json"
    broken.write_text(json.dumps(document))
    monkeypatch.setattr(type(model), "start_batch", lambda self, batch, network: pytest.fail("an image ran"))
    with pytest.raises(InputError, match=sentence):
        evaluate(model, broken, demo_model / "val", batch=2, out=tmp_path)
    # No partial results are left that would refuse the file once it is mended.
    assert not list(tmp_path.glob("partial*"))


def test_a_batch_of_nothing_is_refused(model, some_images, demo_model):
    with pytest.raises(InputError, match="a batch holds at least one image, not 0"):
        evaluate(model, some_images, demo_model / "val", batch=0)
