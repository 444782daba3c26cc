"""The figures of a run: what cannot be written or read is told in a line, and never ends the run."""

import errno
import json
import os
import sys
from pathlib import Path

import numpy as np
import pytest

from detectron_gn.mrcnn.config import Config, with_values
from detectron_gn.mrcnn.training.solver import learning_rate, rate_curve
from detectron_gn.verify.training.metrics import RunFigures


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a file that is always full")
def test_figures_that_cannot_be_written_are_said_and_do_not_swallow_the_next(tmp_path):
    path, lines = tmp_path / "json_stats.jsonl", []
    figures = RunFigures(tmp_path, lines.append)
    path.symlink_to("/dev/full")
    figures.add({"iter": 0, "loss": 1.0})
    assert len(lines) == 1 and "json_stats.jsonl: cannot be written (No space left" in lines[0]
    # What of a line had still found room, and then there is some again.
    path.unlink()
    path.write_text('{"iter": 0, "lo')
    figures.add({"iter": 20, "loss": 0.5})
    assert figures.lines() == [{"iter": 20, "loss": 0.5}]
    assert len(lines) == 1


def test_figures_of_iterations_that_are_done_again_are_forgotten(tmp_path):
    figures = RunFigures(tmp_path)
    for iteration in (0, 20, 40):
        figures.add({"iter": iteration, "loss": 1.0})
    figures.begin_at(21)
    assert [line["iter"] for line in figures.lines()] == [0, 20]


def test_evaluations_are_read_from_their_folders_in_order(tmp_path):
    for name in ("eval_iter99", "eval_iter9", "eval_iterX", "eval_iter5"):
        (tmp_path / name).mkdir()
        ap = {"val": {"box": {"AP": 0.5}, "mask": {"AP": 0.25}}}
        (tmp_path / name / "ap.json").write_text(json.dumps(ap) if name != "eval_iter5" else "[]")
    assert list(RunFigures(tmp_path).evaluations().items()) == [
        (9, {"box": 0.5, "mask": 0.25}),
        (99, {"box": 0.5, "mask": 0.25}),
    ]


def test_a_model_without_a_mask_head_has_curves_of_what_it_has(tmp_path, monkeypatch):
    (tmp_path / "eval_iter0").mkdir()
    (tmp_path / "eval_iter0" / "ap.json").write_text(json.dumps({"val": {"box": {"AP": 0.5}}}))
    lines, drawn = [], {}
    figures = RunFigures(tmp_path, lines.append)
    figures.begin_at(0)
    losses = {"loss_cls": 0.5, "loss_bbox": 0.5, "loss_rpn_cls_fpn2": 0.25, "loss_rpn_bbox_fpn2": 0.25}
    figures.add({"iter": 0, "loss": 1.5, **losses, "lr": 0.1})
    monkeypatch.setattr(
        "detectron_gn.verify.training.metrics.draw_curves",
        lambda panels: drawn.update((panel.title, list(panel.series)) for panel in panels) or b"",
    )
    figures.draw(Config())
    assert figures.evaluations() == {0: {"box": 0.5}} and lines == []
    assert drawn["AP in percent"] == ["box AP"]
    assert drawn["parts of the loss"] == ["loss_cls", "loss_bbox", "rpn_cls", "rpn_bbox"]
    assert "share of RoIs that are classified correctly" not in drawn


def test_a_family_has_curves_of_its_own_losses_and_of_what_it_is_evaluated_by(tmp_path, monkeypatch):
    drawn = {}
    monkeypatch.setattr(
        "detectron_gn.verify.training.metrics.draw_curves",
        lambda panels: drawn.update((panel.title, dict(panel.series)) for panel in panels) or b"",
    )
    dense, rpn = tmp_path / "retinanet", tmp_path / "rpn"
    for folder in (dense, rpn):
        (folder / "eval_iter0").mkdir(parents=True)
    figures = RunFigures(dense)
    figures.add({"iter": 0, "fl_fpn3": 1.0, "fl_fpn4": 0.5, "retnet_loss_bbox_fpn3": 0.25, "retnet_fg_num": 9.0})
    figures.draw(Config())
    assert drawn["parts of the loss"] == {"focal": [1.5], "retnet_bbox": [0.25]}
    recall = {"val": {"proposal": {"AR@100": 0.25, "AR@1000": 0.5}}}
    (rpn / "eval_iter0" / "ap.json").write_text(json.dumps(recall))
    figures = RunFigures(rpn)
    figures.add({"iter": 0, "loss_rpn_cls": 1.0, "loss_rpn_bbox": 0.5})
    figures.draw(Config())
    assert figures.evaluations() == {0: {"proposal": 0.5}}
    assert drawn["average recall in percent"] == {"proposal AR": [50.0]}
    assert drawn["parts of the loss"] == {"rpn_cls": [1.0], "rpn_bbox": [0.5]}


def test_the_rate_is_drawn_as_the_schedule_is_between_figures_too(tmp_path, monkeypatch):
    cfg = with_values(Config(), {"SOLVER.WARM_UP_ITERS": 6, "SOLVER.STEPS": (0, 42, 54), "SOLVER.MAX_ITER": 58})
    drawn = []
    monkeypatch.setattr("detectron_gn.verify.training.metrics.draw_curves", lambda panels: drawn.extend(panels) or b"")
    figures = RunFigures(tmp_path)
    for iteration in (0, 20, 40, 57):
        figures.add({"iter": iteration, "loss": 1.0, "lr": 0.5})
    figures.draw(cfg)
    rate = drawn[-1]
    assert rate.title == "learning rate" and rate.is_line
    every = [learning_rate(cfg, iteration) for iteration in range(58)]
    assert np.allclose(np.interp(range(58), rate.iterations, rate.series["lr"]), every, rtol=1e-6, atol=0)
    smooth = with_values(cfg, {"SOLVER.LR_POLICY": "cosine_decay", "SOLVER.MAX_ITER": 9000})
    curve = rate_curve(smooth, 0, 8999)
    every = [learning_rate(smooth, iteration) for iteration in range(9000)]
    drawn = np.interp(range(9000), list(curve), list(curve.values()))
    assert len(curve) < 1010 and np.allclose(drawn, every, atol=1e-7)


def test_the_picture_is_whole_or_the_old_one(tmp_path, monkeypatch):
    lines = []
    figures = RunFigures(tmp_path, lines.append)
    figures.add({"iter": 0, "loss": 1.0, "lr": 0.1})
    figures.draw(Config())
    before = (tmp_path / "curves.png").read_bytes()
    figures.add({"iter": 20, "loss": 0.5, "lr": 0.1})

    def full(path, content):
        with open(path, "wb") as file:
            file.write(content[:100])
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("pathlib.Path.write_bytes", full)
    figures.draw(Config())
    assert (tmp_path / "curves.png").read_bytes() == before
    assert len(lines) == 1 and "No space left on device" in lines[0] and "training goes on" in lines[0]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["curves.png", "json_stats.jsonl"]


def test_without_matplotlib_a_run_says_once_that_it_has_no_picture_and_keeps_its_figures(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    said = []
    figures = RunFigures(tmp_path, said.append)
    for iteration in (0, 20):
        figures.add({"iter": iteration, "loss": 1.0, "lr": 0.1})
        figures.draw(Config())
    (line,) = said
    assert "no curves.png: it needs matplotlib: pip install matplotlib" in line and "--resume then draws it" in line
    assert not (tmp_path / "curves.png").exists() and [line["iter"] for line in figures.lines()] == [0, 20]


def test_a_pipe_in_the_place_of_the_figures_is_told_and_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "json_stats.jsonl")
    lines = []
    figures = RunFigures(tmp_path, lines.append)
    figures.begin_at(0)
    assert figures.lines() == []
    figures.add({"iter": 0, "loss": 1.0})
    assert "cannot be written" in lines[-1] and "training goes on without these figures" in lines[-1]


@pytest.mark.parametrize("kind", [OSError, ValueError])  # a folder; MPLBACKEND with a name that it does not know
def test_a_picture_that_matplotlib_does_not_draw_is_told(tmp_path, monkeypatch, kind):
    def refuse(_panels):
        raise kind("Matplotlib requires access to a writable cache directory")

    monkeypatch.setattr("detectron_gn.verify.training.metrics.draw_curves", refuse)
    lines = []
    figures = RunFigures(tmp_path, lines.append)
    figures.add({"iter": 0, "loss": 1.0})
    figures.draw(Config())
    assert lines == [
        "curves.png cannot be drawn (Matplotlib requires access to a writable cache directory); training goes on "
        "without it"
    ]


def test_tensorboard_without_room_is_told_once_and_left_out(tmp_path, monkeypatch):
    class Full:
        def add_scalar(self, name, value, iteration):
            raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("detectron_gn.verify.training.metrics._tensorboard", lambda folder, start: Full())
    said = []
    figures = RunFigures(tmp_path, said.append)
    figures.begin_at(0)
    for iteration in (0, 20):
        figures.add({"iter": iteration, "loss": 1.0})
    assert said == ["TensorBoard: cannot be written (No space left on device); training goes on without it"]
    assert [line["iter"] for line in figures.lines()] == [0, 20]


def test_a_number_beyond_all_floats_is_a_damaged_line(tmp_path):
    (tmp_path / "json_stats.jsonl").write_text('{"iter": 0, "loss": 1' + 400 * "0" + '}\n{"iter": 20, "loss": 1}\n')
    said = []
    figures = RunFigures(tmp_path, said.append)
    figures.begin_at(40)
    figures.draw(Config())
    assert [line["iter"] for line in figures.lines()] == [20] and "1 damaged lines" in said[0]
