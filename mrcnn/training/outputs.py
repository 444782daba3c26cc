"""Which of a network's outputs in training are losses, under Detectron's names."""

from collections.abc import Mapping
from typing import TypeVar

Value = TypeVar("Value")

# Figures beside the losses (Detectron modeling/detector.py:AddMetrics). Over several GPUs Detectron averages them, and
# adds the losses up (utils/training_stats.py:UpdateIterStats).
METRICS = ("accuracy_cls", "retnet_fg_num", "retnet_bg_num")


def losses_of(outputs: Mapping[str, Value]) -> dict[str, Value]:
    """The losses among the outputs; the rest are metrics."""
    return {name: value for name, value in outputs.items() if name not in METRICS}
