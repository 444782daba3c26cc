"""The ladder as a user climbs it, and the page it leaves."""

import json
import lzma
import math
import os
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import h5py
import numpy as np
import pytest

from detectron_gn import main
from detectron_gn.mrcnn.errors import InputError
from detectron_gn.mrcnn.evaluation.ap import ApSummary
from detectron_gn.mrcnn.evaluation.evaluate import Evaluation, Speed
from detectron_gn.port.runs.load import configured_weights
from detectron_gn.verify import ladder as ladder_module
from detectron_gn.verify.ladder import Ladder, LadderInputs, ap_ladder, told_verdict
from detectron_gn.verify.parity.blobs import BlobParity, DetectionRowParity, ImageParity
from detectron_gn.verify.published import Expectation
from detectron_gn.verify.report.content import Report, Tile, ladder_report
from detectron_gn.verify.report.page import report_html
from detectron_gn.verify.report.plots import depth_plot, depth_plot_downwards
from detectron_gn.verify.rungs import RUNGS, Rung, check_statistics, compare_average_precision, compare_results
from detectron_gn.weights import read_blobs, write_blobs
from detectron_gn.weights.weights_file import WeightsFile

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def pickle(tmp_path_factory, demo_model):
    path = tmp_path_factory.mktemp("model") / "model_final.pkl"
    path.write_bytes(lzma.decompress((demo_model / "model_final.pkl.xz").read_bytes()))
    return path


def verify_all(pickle, out, *arguments):
    """Exit code."""
    given = ["--out", out, "--json", out / "all.json", "--device", "cpu", *arguments]
    return main(["verify", "all", str(pickle), *map(str, given)])


def climb(pickle, out, *arguments):
    """Exit code, the rungs by name, and the page."""
    code = verify_all(pickle, out, *arguments)
    document = json.loads((out / "all.json").read_text())
    assert document["holds"] is (code == 0)
    return code, {rung["name"]: rung for rung in document["rungs"]}, (out / "report.html").read_text()


def test_without_a_reference_the_file_alone_is_climbed_which_compares_nothing(pickle, tmp_path, capsys):
    code, rungs, page = climb(pickle, tmp_path)
    assert code == 2
    assert [rung["state"] for rung in rungs.values()] == ["holds"] * 3 + ["not run"] * 4
    assert "Nothing was compared" in page
    told = capsys.readouterr()
    assert "The file is in order" in told.out and "Nothing was compared with Caffe2's values." in told.out
    assert "--reference R.h5 --images DIR" in told.out and "error" not in told.err


def test_a_file_by_itself_leaves_no_report_that_nobody_asked_for(pickle, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["verify", "all", str(pickle)]) == 2
    wrong = ["--set", "FAST_RCNN.MLP_HEAD_DIM", "32"]
    assert main(["verify", "all", str(pickle), *wrong]) == 1
    assert list(tmp_path.iterdir()) == [] and "report" not in capsys.readouterr().out
    assert main(["verify", "all", str(pickle), "--out", "out/verify"]) == 2
    assert (tmp_path / "out" / "verify" / "report.html").is_file()


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        (["--reference"], "--reference needs --images"),
        (["--images"], "--images says nothing by itself: pass --reference or --annotations"),
        (["--annotations"], "--annotations needs --images"),
        (["--reference-boxes"], "compared on a data set: pass --annotations and --images"),
        (["--images", "--annotations"], "there is nothing to compare with what "),
    ],
    ids=" ".join,
)
def test_an_option_without_its_partner_is_refused_before_anything_is_read(
    given, sentence, demo_model, tmp_path, capsys
):
    files = {
        "--reference": demo_model / "blobs.h5", "--images": demo_model / "val",
        "--annotations": demo_model / "instances_val.json",
        "--reference-boxes": demo_model / "bbox_coco_shapes_val_results.json",
    }  # fmt: skip
    arguments = [each for option in given for each in (option, files[option])]
    assert verify_all("no_model.pkl", tmp_path, *arguments) == 2
    printed = capsys.readouterr()
    assert sentence in printed.err and printed.out == ""


def test_the_end_is_one_sentence():
    rungs = [Rung(name, "holds", "") for name in RUNGS]
    assert told_verdict(Ladder(rungs)) == "It agrees with Caffe2."
    part = [*rungs[:6], Rung("AP", "not run", "")]
    assert told_verdict(Ladder(part)) == "It agrees with Caffe2 as far as it was compared, without AP."
    part[5] = Rung("detections", "holds", "", not_compared="masks of the data set")
    assert told_verdict(Ladder(part)).endswith("without AP, masks of the data set.")
    part[3:] = [Rung("blobs", "differs", "")]
    assert told_verdict(Ladder(part)) == "It differs from Caffe2, first in its blobs."
    nothing = Ladder([*rungs[:3], *(Rung(name, "not run", "") for name in RUNGS[3:])])
    assert not nothing.holds
    with pytest.raises(InputError, match="nothing was compared"):
        told_verdict(nothing)


def test_it_stops_at_names_where_the_configuration_is_of_another_model(pickle, tmp_path):
    code, rungs, _ = climb(pickle, tmp_path, "--set", "FAST_RCNN.MLP_HEAD_DIM", "32")
    assert code == 1
    assert list(rungs) == ["file", "names"]
    assert rungs["names"]["seen"].startswith("fc6_w is [64, 1568]")
    told = rungs["names"]
    assert told["suspect"].endswith("as the file holds its own configuration") and "pass --config" not in told["seen"]


@pytest.mark.parametrize(
    ("change", "seen"),
    [
        (lambda blobs: blobs["fc6_w"].__setitem__((0, 0), np.nan), "fc6_w holds 1 values that are not finite"),
        (lambda blobs: blobs["fc6_w"].fill(0), "all values of fc6_w are 0"),
        (lambda blobs: [blobs[name].fill(0) for name in blobs if name.endswith("_b")], "biases are zero, as at first"),
    ],
)
def test_values_that_cannot_be_a_trained_models_are_found(pickle, change, seen):
    cfg, weights = configured_weights(pickle)
    blobs = {name: array.copy() for name, array in weights.blobs.items()}
    change(blobs)
    rung = check_statistics(cfg, WeightsFile(blobs, weights.cfg, None, "x.pkl", "pkl"))
    assert rung.state == "differs" and seen in rung.seen
    assert check_statistics(cfg, weights).state == "holds"


@pytest.mark.slow
def test_other_weights_than_the_references_differ_however_little(pickle, demo_model, tmp_path):
    weights = read_blobs(pickle)
    blobs = {name: array * np.float32(1 + 1e-6) if name == "fc6_w" else array for name, array in weights.blobs.items()}
    write_blobs(tmp_path / "other.pkl", replace(weights, blobs=blobs))
    reference = ["--reference", demo_model / "blobs.h5", "--images", demo_model / "val"]
    code, rungs, _ = climb(tmp_path / "other.pkl", tmp_path, *reference)
    assert code == 1
    assert rungs["blobs"]["seen"] == "the blobs are within the tolerance all the same"
    assert rungs["blobs"]["suspect"].endswith("recorded with: 1 of 223 parameters are not the reference's: fc6_w")


@pytest.mark.slow
def test_it_stops_at_the_blobs_and_names_the_suspect(pickle, demo_model, tmp_path, capsys):
    reference = ["--reference", demo_model / "blobs.h5", "--images", demo_model / "val"]
    wrong = ["--set", "GROUP_NORM.EPSILON", "0.001", "--annotations", demo_model / "instances_val.json"]
    code, rungs, page = climb(pickle, tmp_path, *reference, *wrong)
    assert code == 1
    assert list(rungs) == ["file", "names", "statistics", "blobs"]
    assert rungs["blobs"]["suspect"].startswith("GroupNorm's epsilon")
    assert "Differs: blobs" in page and "Usual suspect: GroupNorm&#39;s epsilon" in page
    printed = capsys.readouterr().out
    assert "suspect: GroupNorm's epsilon" in printed
    assert re.search(r"^AP +not reached$", printed, re.MULTILINE)
    assert len(re.findall(r"^blobs ", printed, re.MULTILINE)) == 1
    assert printed.endswith("\nIt differs from Caffe2, first in its blobs.\n")
    assert [line for line in printed.splitlines() if len(line) > 80 and "report" not in line] == []


@pytest.mark.slow
@pytest.mark.parametrize(
    ("tolerance", "rung", "evidence"), [(1e-3, "blobs", "conv1 (0000003"), (0.5, "proposals", "rpn_rois_fpn2")]
)
def test_fewer_bits_differ_by_their_rounding_and_no_other_suspect_is_named(
    tolerance, rung, evidence, pickle, demo_model, tmp_path
):
    reference = ["--reference", demo_model / "blobs.h5", "--images", demo_model / "val"]
    code, rungs, page = climb(pickle, tmp_path, *reference, "--precision", "bf16", "--tolerance", tolerance)
    assert code == 1
    assert rungs[rung]["seen"].startswith(evidence)
    assert (rungs[rung]["suspect"], rungs[rung]["may_be"]) == (
        "", "--precision bf16: fp32 shows whether anything else differs",
    )  # fmt: skip
    assert "bf16" in page


def test_the_data_set_is_run_in_the_precision_asked_for(pickle, demo_model, tmp_path):
    document = json.loads((demo_model / "instances_val.json").read_text())
    document["images"] = document["images"][:1]
    document["annotations"] = [row for row in document["annotations"] if row["image_id"] == document["images"][0]["id"]]
    (tmp_path / "one.json").write_text(json.dumps(document))
    data, scores = ["--annotations", tmp_path / "one.json", "--images", demo_model / "val"], {}
    for precision in ("fp32", "bf16"):
        arguments = [*data, "--precision", precision, "--expect-box", "50"]
        assert climb(pickle, tmp_path / precision, *arguments)[1]["AP"]["state"] == "differs"
        rows = json.loads((tmp_path / precision / "bbox.json").read_text())
        scores[precision] = np.array(sorted(row["score"] for row in rows if row["score"] > 0.9))
    assert len(scores["fp32"]) == len(scores["bf16"]) > 0
    assert 1e-5 < abs(scores["fp32"] - scores["bf16"]).max() < 0.1


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_the_other_processes_compute_in_the_same_precision(precision, pickle, monkeypatch, tmp_path):
    ran = []
    monkeypatch.setattr(ladder_module, "evaluate", lambda model, *_, **__: ran.append(model.precision))
    other = SimpleNamespace(is_first=False, exchange=lambda _: [True, False])
    inputs = LadderInputs(
        str(pickle), tmp_path, device="cpu", precision=precision, images=tmp_path, annotations=tmp_path, ranks=other
    )
    assert ladder_module.climb(inputs, print) is None
    assert ran == [precision]


@pytest.mark.slow
def test_a_right_model_climbs_to_the_top(pickle, demo_model, tmp_path):
    code, rungs, page = climb(
        pickle, tmp_path, "--reference", demo_model / "blobs.h5", "--images", demo_model / "val",
        "--annotations", demo_model / "instances_val.json",
        "--reference-boxes", demo_model / "bbox_coco_shapes_val_results.json",
        "--reference-masks", demo_model / "segmentations_coco_shapes_val_results.json",
    )  # fmt: skip
    assert code == 0
    assert [rung["state"] for rung in rungs.values()] == ["holds"] * len(RUNGS)
    assert "Agrees with Caffe2" in page
    assert page.count("data:image/webp;base64,") == 16
    assert len(page) < 3_000_000
    assert_asks_nobody(page)


@pytest.mark.slow
def test_a_reference_alone_is_enough_for_scatter_and_pictures(pickle, demo_model, tmp_path):
    reference = ["--reference", demo_model / "blobs.h5", "--images", demo_model / "val"]
    code, rungs, page = climb(pickle, tmp_path, *reference)
    assert code == 0
    assert [rung["state"] for rung in rungs.values()] == ["holds"] * 6 + ["not run"]
    assert page.count("data:image/webp;base64,") == 4
    assert "2 objects that score 0.5 or more, every one on both sides; masks equal to the pixel" in page
    assert "10 (100.00 %)" in page and "Differences of boxes in pixels" in page
    assert_asks_nobody(page)


@pytest.mark.slow
def test_blobs_of_another_shape_are_counted_and_have_no_error(pickle, demo_model, tmp_path):
    reference = ["--reference", demo_model / "blobs.h5", "--images", demo_model / "val"]
    code, rungs, page = climb(pickle, tmp_path, *reference, "--set", "TEST.SCALE", "200", "TEST.MAX_SIZE", "320")
    assert code == 1
    assert rungs["blobs"]["suspect"].startswith("the image's scale")
    assert "blobs not comparable" in page and "data and" in page and "more: another shape, or not finite" in page
    assert not re.search(r"\b(inf|nan)\b", page)


def ladder_in_processes(pickle, demo_model, out, *arguments):
    """Exit code and document of `verify all` in two processes."""
    launcher = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", "2", "-m", "detectron_gn"]
    inputs = ["--reference", demo_model / "blobs.h5", "--images", demo_model / "val", "--device", "cpu",
              "--annotations", demo_model / "instances_val.json", "--out", out, "--json", out / "all.json"]  # fmt: skip
    done = subprocess.run(
        [*launcher, "verify", "all", *map(str, [pickle, *inputs, *arguments])],
        cwd=ROOT, env={**os.environ, "OMP_NUM_THREADS": "1"}, capture_output=True, text=True,
    )  # fmt: skip
    assert (out / "all.json").is_file(), done.stderr[-2000:]
    return done.returncode, json.loads((out / "all.json").read_text()), done.stdout


@pytest.mark.slow
def test_several_processes_climb_one_ladder(pickle, demo_model, tmp_path):
    expected = ["--expect-box", "90.79807369923488", "--expect-mask", "88.86349697999263"]
    code, document, printed = ladder_in_processes(pickle, demo_model, tmp_path, *expected)
    assert code == 0
    assert [rung["state"] for rung in document["rungs"]] == ["holds"] * len(RUNGS)
    assert document["ap"]["measured"]["box"] == pytest.approx(0.9079807369923488, abs=1e-12)
    assert printed.count("file        holds    pkl") == 1


@pytest.mark.slow
def test_processes_that_wait_are_released_where_the_first_one_stops(pickle, demo_model, tmp_path):
    wrong = ["--set", "GROUP_NORM.EPSILON", "0.001"]
    code, document, _ = ladder_in_processes(pickle, demo_model, tmp_path, *wrong)
    assert code == 1
    assert document["rungs"][-1]["name"] == "blobs"


@pytest.mark.slow
def test_an_ap_that_is_not_the_expected_one_fails_the_last_rung(pickle, demo_model, tmp_path):
    data = ["--images", demo_model / "val", "--annotations", demo_model / "instances_val.json"]
    code, rungs, _ = climb(pickle, tmp_path, *data, "--expect-box", "90.8", "--expect-mask", "88.6")
    assert code == 1
    assert rungs["detections"]["state"] == "not run"
    assert rungs["AP"]["state"] == "differs" and "mask AP +0.26" in rungs["AP"]["seen"]


def assert_asks_nobody(page):
    """Nothing on the page is fetched from anywhere: no links, scripts or style sheets, pictures inside it."""
    assert not re.findall(r'(?:src|href|srcset|action|data)="(?!data:image/)[^"]*"', page)
    assert not re.search(r"url\(|@import|<script|<link|<iframe|https?://", page)


def test_what_users_name_is_text_and_never_markup():
    rung = Rung("names", "differs", "<script>alert(1)</script>", "a & b")
    page = report_html(Report("<b>model</b>", False, "Differs: names", "<i>", [Tile("<u>", "1 < 2")], [rung]))
    assert "<script>" not in page and "<b>model" not in page and "<u>" not in page
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in page and "a &amp; b" in page
    assert_asks_nobody(page)


def test_names_in_tables_are_text_and_never_markup():
    summary = ApSummary(0.5, 0.5, 0.5, 0.5, 0.5, 0.5, {"<script>alert(1)</script>": 0.5})
    blobs = (BlobParity("<b>", (1, 2), 0, 1e-6),)
    parity = ImageParity("<i>.png", blobs, (), True, DetectionRowParity(0, 0, 0, 0.0, 0.0, 0.0, 0, 1.0), ())
    page = report_html(Report("model", True, "Agrees", "", ap={"box": summary}, blobs=[parity]))
    assert "<script>" not in page and "<b>" not in page.partition("Blob by blob")[2].partition("</details>")[0]
    assert "<td class=\"left\">&lt;script&gt;alert(1)&lt;/script&gt;</td>" in page
    assert "<th>&lt;i&gt;.png</th>" in page
    assert_asks_nobody(page)


def test_the_lead_lists_what_was_compared_and_what_was_not(tmp_path):
    rungs = [Rung(name, "holds", "") for name in RUNGS]
    inputs = LadderInputs("x.pkl", tmp_path)
    whole = ladder_report("x.pkl", Ladder(rungs=rungs), inputs, "reference")
    assert whole.verdict == "Agrees with Caffe2" and whole.lead.startswith("File, values, every blob")
    rungs[3] = Rung("blobs", "holds", "", compared="690 blobs (9 of 99 values)")
    samples = ladder_report("x.pkl", Ladder(rungs=rungs), inputs, "reference")
    assert samples.lead.startswith("File, values, 690 blobs (9 of 99 values), every proposal")
    rungs[3] = Rung("blobs", "holds", "")
    rungs[5] = Rung("detections", "holds", "", compared="182 boxes", not_compared="masks of the data set")
    partly = ladder_report("x.pkl", Ladder(rungs=rungs), inputs, "reference")
    assert partly.verdict == "Agrees as far as it was compared"
    assert partly.lead == (
        "Compared and found equal: file, names, statistics, blobs, proposals, 182 boxes, AP. "
        "Not compared: masks of the data set."
    )
    assert "Not compared: masks of the data set" in report_html(partly).partition("The ladder")[2]


def test_a_rung_says_what_it_may_be_apart_from_what_it_is():
    rungs = [Rung("blobs", "differs", "fc6 differs", may_be="the <b> box head")]
    page = report_html(Report("model", False, "Differs: blobs", "", rungs=rungs))
    assert "It may be: the &lt;b&gt; box head" in page and "Usual suspect" not in page


@pytest.mark.slow
def test_a_reference_of_few_blobs_vouches_for_those_alone(pickle, demo_model, tmp_path):
    few = tmp_path / "few.h5"
    shutil.copyfile(demo_model / "blobs.h5", few)
    few.chmod(0o644)
    with h5py.File(few, "r+") as file:
        for image in file.values():
            for name in set(image["blobs"]) - {"rois"}:
                del image["blobs"][name]
    code, rungs, page = climb(pickle, tmp_path, "--reference", few, "--images", demo_model / "val")
    assert code == 0
    assert rungs["proposals"]["state"] == "not run"
    assert rungs["blobs"]["compared"] == "6 blobs of 2 images (all 46,290 values)"
    assert "data, im_info, conv1, " in rungs["blobs"]["not_compared"]
    assert "not compared: data, im_info" in rungs["blobs"]["seen"]
    assert "Compared and found equal: file, names, statistics, 6 blobs of 2 images (all 46,290 values), 10 " in page
    assert "Not compared: data, im_info" in page


def evaluated(ap):
    """An evaluation that has this AP, and found nothing."""
    summary = ApSummary(ap, ap, ap, ap, ap, ap, {})
    return Evaluation({"bbox": [], "segm": []}, {"bbox": summary, "segm": summary}, Speed(), "", ())


def ap_rung(ap, expected):
    rung, _ = compare_average_precision("x.pkl", evaluated(ap).measured, Expectation(expected), Path("a.json"), {})
    return rung


def test_an_ap_that_there_is_none_of_agrees_with_nothing():
    rung = ap_rung(-1.0, {"box": -100.0, "mask": -100.0})
    assert rung.state == "not run" and "no objects" in rung.seen
    assert ap_rung(-1.0, {"box": 90.0}).state == "differs"


def test_an_expected_ap_of_boxes_alone_says_nothing_of_masks():
    rung = ap_rung(0.9, {"box": 90.0})
    assert (rung.state, rung.compared, rung.not_compared) == ("holds", "box AP", "mask AP")


def test_an_expected_ap_of_masks_is_not_held_by_a_model_without_masks():
    evaluation = evaluated(0.9)
    del evaluation.ap["segm"]
    expected = Expectation({"mask": 90.0})
    rung, comparison = compare_average_precision("x.pkl", evaluation.measured, expected, Path("a.json"), {})
    assert comparison is None and rung.state == "not run"
    assert rung.seen == "box AP 90.00; mask AP is expected, which the model does not give"
    inputs = LadderInputs("x.pkl", Path("."), annotations=Path("a.json"), expected=expected)
    with pytest.raises(InputError, match="x.pkl: box AP 90.00; mask AP is expected.* pass --expect-box"):
        ap_ladder(inputs, evaluation)


def test_a_result_file_of_boxes_alone_says_nothing_of_masks(demo_model):
    annotations, boxes = demo_model / "instances_val.json", demo_model / "bbox_coco_shapes_val_results.json"
    evaluation = evaluated(0.9)
    evaluation.rows["bbox"] = json.loads(boxes.read_text())
    rung, detections, rows = compare_results(evaluation, annotations, {"bbox": boxes})
    assert (rung.state, rung.compared) == ("holds", "182 boxes of the data set")
    assert rung.not_compared == "masks of the data set"
    assert len(detections) == 1 and list(rows) == ["bbox"]


def test_a_blob_out_of_tolerance_stands_out_in_the_plot():
    blobs = (BlobParity("conv1", (1, 2), 0, 1e-6), BlobParity("res2_0_branch2a", (1, 2), 0, 3e-2))
    detections = DetectionRowParity(0, 0, 0, 0.0, 0.0, 0.0, 0, 1.0)
    plot = depth_plot([ImageParity("a.png", blobs, (), True, detections, ())], 1e-3)
    assert plot.count('class="dot"') == 1 and plot.count('class="dot out"') == 1
    assert "<title>res2_0_branch2a: 3.0e-02</title>" in plot
    infinite = (BlobParity("conv1", (1, 2), math.inf, math.inf, "is 1x3"),)
    plot = depth_plot([ImageParity("a.png", infinite, (), True, detections, ())], 1e-3)
    assert '<circle class="dot out"' in plot and "<title>conv1: is 1x3</title>" in plot


def test_the_plot_for_a_narrow_screen_holds_the_same_blobs_with_every_part_s_name():
    names = ["data", "conv1", "res2_0_branch2a", "fpn_2", "rpn_cls_logits_fpn2", "kps_score", "of_nobody"]
    blobs = tuple(BlobParity(name, (1, 2), 0, 1e-2 if name == "fpn_2" else 1e-6) for name in names)
    images = [ImageParity("a.png", blobs, (), True, DetectionRowParity(0, 0, 0, 0.0, 0.0, 0.0, 0, 1.0), ())]
    wide, narrow = depth_plot(images, 1e-3), depth_plot_downwards(images, 1e-3)
    for plot in (wide, narrow):
        titles = re.findall(r"<title>(\w+): [\d.e-]+</title>", plot)
        assert titles == names and plot.count('class="dot out"') == 1
        parts = re.findall(r">([A-Za-z]\w+)</text>", plot)
        assert parts == ["stem", "res2", "pyramid", "RPN", "keypoints", "other"]
    # From top to bottom, and the one out of tolerance to the right of the line.
    dots = [(float(x), float(y)) for x, y in re.findall(r'cx="([\d.]+)" cy="([\d.]+)"', narrow)]
    assert [y for _, y in dots] == sorted(y for _, y in dots)
    (limit,) = map(float, re.findall(r'class="limit" x1="([\d.]+)"', narrow))
    assert [x > limit for x, _ in dots] == [name == "fpn_2" for name in names]


def test_a_page_without_pictures_or_blobs_has_no_empty_sections(tmp_path):
    ladder = Ladder(rungs=[Rung("file", "holds", "pkl, 3 blobs")])
    page = report_html(ladder_report("x.pkl", ladder, LadderInputs("x.pkl", tmp_path), "reference"))
    assert re.findall(r"<h2>(.*?)</h2>", page) == ["The ladder", "How this page came about"]
