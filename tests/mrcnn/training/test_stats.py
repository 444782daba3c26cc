"""The `json_stats` lines are Detectron's: their medians and their times."""

import torch

from detectron_gn.mrcnn.training.stats import TrainingStats

CPU = torch.device("cpu")


def test_a_line_holds_medians_of_the_last_20_iterations_and_their_total():
    stats = TrainingStats(0, 100)
    for iteration in range(41):
        stats.add(iteration, {"loss_cls": float(iteration), "loss_mask": 1.0, "accuracy_cls": 0.5}, 2.0)
    line = stats.line(40, 0.02, CPU)
    assert (line["loss_cls"], line["loss"], line["accuracy_cls"]) == (30.5, 31.5, 0.5)
    assert (line["iter"], line["lr"], line["time"], line["eta"]) == (40, 0.02, 2.0, "0:01:58")
    assert stats.line(99, 0.02, CPU)["eta"] == "0:00:00"


def test_lines_are_due_every_20_iterations_and_after_the_last():
    stats = TrainingStats(0, 1045)
    assert [i for i in range(1045) if stats.is_due(i)] == [*range(0, 1041, 20), 1044]


def test_a_short_run_has_fifty_lines_or_one_an_iteration():
    for length, lines in ((45, 45), (100, 51), (600, 51), (999, 54)):
        stats = TrainingStats(0, length)
        assert sum(map(stats.is_due, range(length))) == lines


def test_the_slow_first_iterations_leave_the_average():
    stats = TrainingStats(100, 200)
    for iteration in range(100, 130):
        stats.add(iteration, {"loss_cls": 1.0}, 60.0 if iteration <= 120 else 1.0)
        if iteration == 120:
            assert (stats.line(120, 0.1, CPU)["time"], stats.timed_iterations) == (60.0, 21)
    assert (stats.line(129, 0.1, CPU)["time"], stats.timed_iterations) == (1.0, 9)
