"""The commands `test`, `score`, `verify ...`, `train`, `check-data` and `demo`."""

from detectron_gn.verify.cli import demo, evaluate, ladder, parity, published, train
from detectron_gn.weights.options import Commands


def add_commands(commands: Commands) -> None:
    """Add the commands of this room."""
    evaluate.add_commands(commands)
    verify = commands.add_parser("verify", help="compare with Caffe2: blobs, detections, AP, training")
    checks = verify.add_subparsers(metavar="WHAT", required=True)
    parity.add_commands(checks)
    published.add_commands(checks)
    ladder.add_commands(checks)
    train.add_commands(commands)
    demo.add_commands(commands)
