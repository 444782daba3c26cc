"""The commands of this room, in the order of the help: `test`, `score`, `verify ...`, `train`, `check-data`, `demo`."""

from __future__ import annotations

from detectron_gn.verify.cli import check_data, demo, dump_script, evaluate, ladder, parity, train
from detectron_gn.weights.command_line import Commands


def add_commands(commands: Commands) -> None:
    """Add all commands of this room."""
    evaluate.add_test(commands)
    evaluate.add_score(commands)
    checks = commands.add_group("verify", "compare with Caffe2: blobs, detections, AP, training", "WHAT")
    parity.add_blobs(checks)
    parity.add_detections(checks)
    ladder.add_published(checks)
    ladder.add_ap(checks)
    ladder.add_all(checks)
    parity.add_imagenet(checks)
    parity.add_training(checks)
    dump_script.add_dump_script(checks)
    train.add_train(commands)
    check_data.add_check_data(commands)
    demo.add_demo(commands)
