"""`train --resume --out run` and nothing else: what is on record, what counts where something is given again."""

import json
import signal
from pathlib import Path

import pytest

import detectron_gn
from detectron_gn.mrcnn.config import flatten
from detectron_gn.mrcnn.errors import InputError
from detectron_gn.port.config.read import bundled_config, bundled_names, config_of_keys
from detectron_gn.verify.cli.recorded_run import check_recorded_paths, told_no_run
from detectron_gn.verify.cli.train_options import given_options, recorded_arguments, with_recorded
from detectron_gn.verify.training import say as spoken
from detectron_gn.weights import read_blobs
from tests.helpers.small_run import DATA, SMALL, assert_equal_blobs
from tests.verify.training.test_stop import SignalOn

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

CONFIG = ["--config", "e2e_mask_rcnn_R-50-FPN_shapes_gn", "--set", *SMALL.partition(" SOLVER.STEPS")[0].split()]
TRAIN = ["--annotations", str(DATA / "train_images.json"), "--images", str(DATA / "train_images")]


def parsed(*arguments):
    """The options of a command line, as `train` gets them."""
    given = ["train", *map(str, arguments)]
    return detectron_gn._parser().parse_args(given, detectron_gn.argparse.Namespace(arguments=given))


EVERYTHING = (
    "--config C.yaml --set TEST.NMS 0.3 SOLVER.BASE_LR -1.0 --weights W.pkl --annotations a.json --images i "
    "--annotations b.json --images j --proposals p.pkl --data-cache c --keep-empty --epochs 3 --classes n.txt "
    "--weights-classes m.txt --keep-unused --freeze fpn,rpn --force --checkpoint-every 7 --keep 2 "
    "--detectron-checkpoints --eval-annotations day=v.json --eval-annotations w.json --eval-images k "
    "--eval-proposals q.pkl --eval-loss --keep-best --early-stop 4 --exif ignore --max-pixels 99 --workers 0 "
    "--device cpu --precision bf16 --recompute"
).split()


def test_every_option_is_on_record_and_comes_back_whatever_the_folder(tmp_path, monkeypatch):
    first = tmp_path / "first"
    first.mkdir()
    monkeypatch.chdir(first)
    for name in ("C.yaml", "W.pkl"):
        Path(name).touch()
    began = parsed(*EVERYTHING, "--out", "run")
    record = recorded_arguments(began)
    monkeypatch.chdir(tmp_path)
    goes_on = with_recorded(parsed("--resume", "--out", "first/run"), record, Path("run.json"))
    not_kept = {"arguments", "out", "resume", "json", "quiet", "run", "scale_schedule"}
    options = vars(parsed("--out", "x")).keys() - not_kept
    unlike = {name for name in options if getattr(goes_on, name) == vars(parsed("--out", "x"))[name]}
    assert unlike == {"iterations"}  # which excludes --epochs
    assert goes_on.annotations == [first / "a.json", first / "b.json"] and goes_on.weights == str(first / "W.pkl")
    assert goes_on.eval_annotations == [f"day={first / 'v.json'}", str(first / "w.json")]
    assert (goes_on.freeze, goes_on.early_stop, goes_on.keep_best) == (("fpn", "rpn"), 4, True)
    assert recorded_arguments(goes_on) == record
    hostile = with_recorded(parsed("--resume", "--out", "x"), ["--json=j", "--out=y", "--scale-schedule=2"], Path("r"))
    assert (hostile.json, hostile.out, hostile.scale_schedule) == (None, Path("x"), None)
    assert not {"--out", "--resume"} & set(record)


def test_what_is_given_again_counts_and_nothing_else_changes():
    record = recorded_arguments(parsed(*EVERYTHING, "--out", "run"))

    def going_on(*arguments):
        return with_recorded(parsed("--resume", "--out", "run", *arguments), record, Path("run.json"))

    assert going_on("--keep", "3").keep == 3  # the default, but given
    assert going_on("--images", "moved").images == [Path("moved")]
    assert (going_on("--iterations", "9").epochs, going_on("--iterations", "9").iterations) == (None, 9)
    changed = going_on("--eval-annotations", "other.json")
    assert (changed.eval_annotations, changed.eval_images, changed.eval_proposals) == (["other.json"], [], [])
    assert going_on("--early-stop", "0").early_stop == 0
    assert given_options(["--out", "run", "--keep", "3"]) == {"out": Path("run"), "keep": 3}


@pytest.mark.parametrize("name", bundled_names())
def test_the_configuration_on_record_is_read_as_it_was(name):
    cfg = bundled_config(name)
    assert config_of_keys(json.loads(json.dumps(flatten(cfg))), "run.json") == cfg


@pytest.mark.parametrize(
    ("keys", "sentence"),
    [
        ({"NUM_GPUS": "many"}, r"run\.json: NUM_GPUS"),
        ({"NO_KEY": 1}, r"run\.json: NO_KEY is no key"),
        ({"TRAIN.SCALES": 3}, "TRAIN.SCALES"),
    ],
)
def test_a_damaged_configuration_on_record_is_told(keys, sentence):
    with pytest.raises(InputError, match=sentence):
        config_of_keys(keys, "run.json")


def begin_and_stop(monkeypatch, out, *arguments):
    """Begin a run and stop it after its first iterations; returns the command that it prints to go on."""
    lines = SignalOn("iteration 0 of ")
    with monkeypatch.context() as patch:
        patch.setattr(spoken, "print_line", lines.append)
        code = detectron_gn.main(["train", *CONFIG, *TRAIN, "--out", str(out), "--workers", "0", *arguments])
    assert code == 128 + signal.SIGTERM
    return lines[-1].partition("go on with: ")[2]


@pytest.mark.slow
def test_a_stopped_run_goes_on_by_its_folder_alone_bit_for_bit(tmp_path, monkeypatch, capsys):
    options = ["--iterations", "5", "--freeze", "fpn", "--keep-best", "--eval-annotations", f"val={TRAIN[1]}"]
    options += ["--set", "TEST.RPN_POST_NMS_TOP_N", "5", "--precision", "bf16", "--early-stop", "9"]
    names = tmp_path / "names.txt"
    names.write_text("moon\nsun\nstar\nsky\n")
    options += ["--classes", str(names)]
    whole = tmp_path / "whole"
    assert detectron_gn.main(["train", *CONFIG, *TRAIN, *options, "--out", str(whole), "--workers", "0"]) == 0
    monkeypatch.chdir(tmp_path)
    command = begin_and_stop(monkeypatch, "run", *options)
    assert command == "detectron-gn train --resume --out run"
    before = json.loads(Path("run/run.json").read_text())
    # Nothing of what began the run is needed any more, wherever one is.
    (tmp_path / "elsewhere").mkdir()
    names.rename(tmp_path / "moved.txt")
    monkeypatch.chdir(tmp_path / "elsewhere")
    capsys.readouterr()
    assert detectron_gn.main(["train", "--resume", "--out", "../run", "--keep", "2"]) == 0
    printed = " ".join(capsys.readouterr().out.split())
    assert "--freeze fpn, which Detectron has not" in printed and "to 4, counted from 0), each on 2 images" in printed
    assert_equal_blobs(tmp_path / "run" / "model_final.pth", whole / "model_final.pth")
    # So short a run finds nothing, and nothing is not the best.
    assert not list(tmp_path.rglob("model_best.*"))
    assert list(json.loads((tmp_path / "run" / "eval_iter4" / "ap.json").read_text())) == ["val"]
    # What is given now counts from now on.
    after = json.loads((tmp_path / "run" / "run.json").read_text())
    assert "--keep=2" in after["arguments"] and "--keep=2" not in before["arguments"]
    assert {**after, "arguments": before["arguments"]} == before
    assert after["classes"] == ["__background__", "moon", "sun", "star", "sky"]
    # Nor does the whole command, given again, do anything else.
    (tmp_path / "moved.txt").rename(names)
    assert detectron_gn.main(["train", *CONFIG, *TRAIN, *options, "--out", str(whole), "--resume"]) == 0


def test_what_is_given_again_and_does_not_agree_is_refused_in_a_sentence(tmp_path, monkeypatch, capsys):
    run, again = tmp_path / "run", ["train", "--resume", "--out", str(tmp_path / "run")]
    begin_and_stop(monkeypatch, run, "--epochs", "1")
    before = (run / "run.json").read_bytes()
    capsys.readouterr()
    (tmp_path / "other.json").write_text((DATA / "train_images.json").read_text().replace("circle", "disc"))
    for arguments, sentence in (
        (["--epochs", "2"], "--epochs 2 is a schedule of 12 iterations, and the run in"),
        (["--iterations", "60"], "--iterations 60 is a schedule of 60 iterations, and the run in"),
        (["--set", "SOLVER.BASE_LR", "0.02"], "SOLVER.BASE_LR is 0.02 now and was 0.01"),
        (["--config", "e2e_mask_rcnn_R-50-FPN_2x_gn"], " now and was "),
        (["--freeze", "rpn"], "--freeze is rpn now and was not given when the run"),
        (["--keep-empty"], "--keep-empty is given now and was not given when the run"),
        (["--precision", "bf16"], "--precision is bf16 now and was fp32"),
        (["--annotations", str(tmp_path / "other.json")], "the categories are not those"),
        (["--images", str(tmp_path / "nowhere")], "nowhere: no such image folder"),
        (["--set", "SOLVER.MAX_ITER", "9", "--epochs", "1"], "both say how long the run is"),
    ):
        assert detectron_gn.main([*again, *arguments]) == 2
        error = capsys.readouterr().err
        assert sentence in error and error.count("\n") == 1, (arguments, error)
    assert (run / "run.json").read_bytes() == before
    # More iterations may follow, as ever.
    assert detectron_gn.main([*again, "--set", "SOLVER.MAX_ITER", "7"]) == 0
    assert read_blobs(run / "model_final.pth").iteration == 6
    # And they are on record.
    capsys.readouterr()
    assert detectron_gn.main(again) == 0
    assert "the run is complete: " in capsys.readouterr().out and read_blobs(run / "model_final.pth").iteration == 6


def test_a_run_that_is_looked_for_in_the_wrong_folder_is_named(tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "run.json").touch()
    (tmp_path / "rug").mkdir()
    assert told_no_run(tmp_path / "rum") == f"{tmp_path / 'rum'}: no such folder (did you mean {tmp_path / 'run'}?)"
    assert told_no_run(tmp_path / "rug").startswith(f"{tmp_path / 'rug'} holds no run to go on with (did you mean")
    assert told_no_run(tmp_path / "nowhere" / "x") == f"{tmp_path / 'nowhere' / 'x'}: no such folder"


def test_data_that_has_moved_is_asked_for_at_once(tmp_path):
    gone, here = str(tmp_path / "gone"), str(tmp_path)
    args = parsed("--out", "run", "--annotations", here, "--images", gone, "--eval-annotations", f"day={gone}")
    with pytest.raises(InputError, match=r"gone: not there any more.* pass --images DIR and --eval-annotations V.json"):
        check_recorded_paths(args, (), tmp_path / "run.json")
    check_recorded_paths(args, ("images", "eval_annotations"), tmp_path / "run.json")


def test_without_a_run_or_without_arguments_on_record_it_says_what_to_pass(tmp_path, capsys):
    assert detectron_gn.main(["train", "--resume", "--out", str(tmp_path / "none")]) == 2
    error = capsys.readouterr().err
    assert "none: no such folder; a run that begins needs --annotations and --images" in error
    assert not (tmp_path / "none").exists()
    assert detectron_gn.main(["train", *CONFIG, *TRAIN[:2], "--out", str(tmp_path / "none")]) == 2
    assert "--images is missing: pass what to train on" in capsys.readouterr().err
    record = {"config": {}, "classes": [], "data": "", "weights": "", "precision": "fp32"}
    for content, sentence in (
        (record, "run.json does not say them"),
        ({**record, "arguments": ["--nonsense"]}, "run.json: its arguments are damaged: unrecognized arguments"),
        ({**record, "arguments": ["--keep=x"]}, "run.json: its arguments are damaged: argument --keep"),
        ({**record, "arguments": 3}, "run.json does not say them"),
    ):
        (tmp_path / "run.json").write_text(json.dumps(content))
        assert detectron_gn.main(["train", "--resume", "--out", str(tmp_path)]) == 2
        error = capsys.readouterr().err
        assert sentence in error and error.count("\n") == 1
