"""The figures of a training run: `json_stats.jsonl`, the AP of its checkpoints, `curves.png`, TensorBoard.

None of them is worth a run: what cannot be read or written is said in a line and left out.
"""

import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from detectron_gn.mrcnn.config import Config
from detectron_gn.mrcnn.evaluation.ap import AP_JSON_KEY
from detectron_gn.mrcnn.evaluation.recall import RECALL_JSON_KEY, RECALL_MEASURED
from detectron_gn.mrcnn.plain_file import read_plain_file
from detectron_gn.mrcnn.training.curves import INSTALL, Panel, draw_curves
from detectron_gn.mrcnn.training.solver import rate_curve
from detectron_gn.mrcnn.wording import in_one_line
from detectron_gn.weights.errors import WeightsError
from detectron_gn.weights.files.atomic import replacing
from detectron_gn.weights.files.json_file import read_json_record

Line = dict[str, Any]

# In the folder of an evaluation: the losses on its data, by the name of the set.
HELD_OUT_LOSSES = "losses.json"

# What curves.png calls the losses that every level has one of, and what their names begin with.
_LOSSES_OF_LEVELS = {
    "rpn_cls": "loss_rpn_cls",
    "rpn_bbox": "loss_rpn_bbox",
    "focal": "fl_",
    "retnet_bbox": "retnet_loss_bbox",
}
# What is measured of each kind of results in ap.json.
_MEASURES = {**dict.fromkeys(AP_JSON_KEY.values(), "AP"), RECALL_JSON_KEY: "AR"}


class RunFigures:
    """The figures in a run's folder.

    Args:
        path: the folder.
        say: prints a line.
    """

    def __init__(self, path: Path, say: Callable[[str], None] = print) -> None:
        self._path, self._say = path, say
        self._stats = path / "json_stats.jsonl"
        self._is_torn = False
        self._can_draw = True
        self._board: Any = None

    def begin_at(self, iteration: int) -> None:
        """Forget the figures of iterations that will be done again, and those that are damaged."""
        lines, damaged = self._read()
        if damaged:
            self._say(f"{self._stats}: {damaged} damaged lines are left out")
        if self._stats.exists():
            kept = [line for line in lines if line["iter"] < iteration]
            self._write(self._stats, "".join(json.dumps(line) + "\n" for line in kept).encode())
        for path in self._path.glob("eval_iter*/ap.json"):
            if _read_ap(path) is None:
                self._say(f"{path} is damaged and left out of the curves")
        self._board = _tensorboard(self._path / "tensorboard", iteration)

    def add(self, line: Mapping[str, Any]) -> None:
        """Append figures."""
        text = json.dumps(dict(line)) + "\n"
        try:
            with open(self._stats, "a", encoding="utf-8", opener=_without_waiting) as file:
                # What a full disk has cut short must not swallow the line after it.
                file.write("\n" + text if self._is_torn else text)
            self._is_torn = False
        except OSError as error:
            self._is_torn = True
            self._say(f"{self._stats}: cannot be written ({error.strerror}); training goes on without these figures")
        try:
            for name, value in line.items():
                if self._board is not None and isinstance(value, float):
                    self._board.add_scalar(name, value, line["iter"])
        except OSError as error:
            self._board = None
            self._say(f"TensorBoard: cannot be written ({error.strerror}); training goes on without it")

    def lines(self) -> list[Line]:
        """The whole lines that were written so far."""
        return self._read()[0]

    def evaluations(self) -> dict[int, dict[str, float]]:
        """AP by iteration and kind (box, mask) of the checkpoints that were evaluated: `eval_iterN/ap.json`.

        A model without a mask head has only box AP; an RPN by itself has the average recall of its proposals. Of
        several evaluation sets the first one's count.
        """
        found = {}
        for path in self._path.glob("eval_iter*/ap.json"):
            iteration, ap = path.parent.name.removeprefix("eval_iter"), _read_ap(path)
            if iteration.isdecimal() and ap is not None:
                found[int(iteration)] = ap
        return dict(sorted(found.items()))

    def held_out_losses(self) -> dict[int, dict[str, float]]:
        """The loss on evaluation data by iteration and name of the set, where it was computed."""
        found = {}
        for path in self._path.glob(f"eval_iter*/{HELD_OUT_LOSSES}"):
            iteration = path.parent.name.removeprefix("eval_iter")
            record = read_json_record(path) or {}
            losses = {
                str(name): float(parts["loss"])
                for name, parts in record.items()
                if isinstance(parts, dict) and isinstance(parts.get("loss"), int | float)
            }
            if iteration.isdecimal() and losses:
                found[int(iteration)] = losses
        return dict(sorted(found.items()))

    def draw(self, cfg: Config) -> None:
        """Draw `curves.png` from all figures so far; where matplotlib is not installed, say so once.

        Args:
            cfg: of the run; its rate is drawn as it was between the figures too.
        """
        lines = self.lines()
        if not lines or not self._can_draw:
            return
        try:
            self._write(self._path / "curves.png", draw_curves(self._panels(cfg, lines)))
        except ModuleNotFoundError:
            self._can_draw = False
            self._say(
                f"no curves.png: it needs matplotlib: {INSTALL}\n  --resume then draws it, of a run that is done too"
            )
        except Exception as error:
            # matplotlib looks for a folder of its own, and takes its settings from files and variables of the user.
            # Whatever it raises, the figures are kept, and a picture of them is not worth a run.
            self._say(f"curves.png cannot be drawn ({in_one_line(str(error))[:200]}); training goes on without it")

    def _panels(self, cfg: Config, lines: list[Line]) -> list[Panel]:
        """The diagrams of all figures so far."""
        # The first line is of one iteration, mostly, whose losses dwarf all others.
        medians = lines[1:] or lines

        def panel(title: str, *names: str, **more: list[float]) -> Panel:
            series = {name: [line.get(name, float("nan")) for line in medians] for name in names}
            return Panel(title, [line["iter"] for line in medians], series | more)

        # Losses of a level each are added up; what a model has no head for it has no loss of.
        names = {name for line in medians for name in line}
        parts = [name for name in ("loss_cls", "loss_bbox", "loss_mask") if name in names]
        levels = {
            title: [sum(v for k, v in line.items() if k.startswith(beginning)) for line in medians]
            for title, beginning in _LOSSES_OF_LEVELS.items()
            if any(name.startswith(beginning) for name in names)
        }
        panels = [panel("loss", "loss")]
        if parts or levels:
            panels.append(panel("parts of the loss", *parts, **levels))
        if held_out := self.held_out_losses():
            sets = dict.fromkeys(name for losses in held_out.values() for name in losses)
            series = {
                name: [losses.get(name, float("nan")) for losses in held_out.values()] for name in sets
            }
            panels.append(Panel("loss on evaluation data", list(held_out), series))
        evaluations = self.evaluations()
        if evaluations:
            missing = float("nan")
            measured = {
                f"{kind} {measure}": [100 * of_kinds.get(kind, missing) for of_kinds in evaluations.values()]
                for kind, measure in _MEASURES.items()
                if any(kind in of_kinds for of_kinds in evaluations.values())
            }
            title = "average recall in percent" if f"{RECALL_JSON_KEY} AR" in measured else "AP in percent"
            panels.append(Panel(title, list(evaluations), measured, least_top=1.0))
        if "accuracy_cls" in names:
            panels.append(panel("share of RoIs that are classified correctly", "accuracy_cls"))
        rates = rate_curve(cfg, lines[0]["iter"], lines[-1]["iter"])
        panels.append(Panel("learning rate", list(rates), {"lr": list(rates.values())}, is_line=True))
        return panels

    def _write(self, path: Path, content: bytes) -> None:
        try:
            with replacing(path) as temporary:
                temporary.write_bytes(content)
        except WeightsError as error:
            self._say(f"{error}; training goes on")

    def _read(self) -> tuple[list[Line], int]:
        """Whole lines, and how many are not, such as one that a kill cut short."""
        try:
            text = read_plain_file(self._stats).decode("utf-8", "replace")
        except OSError:
            return [], 0
        read = [_line(line) for line in text.splitlines() if line]
        whole = [line for line in read if line is not None]
        return whole, len(read) - len(whole)


def _without_waiting(path: str, flags: int) -> int:
    """An opener for `open`, which would wait at a pipe for somebody who reads."""
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0), 0o666)


def _line(text: str) -> Line | None:
    try:
        line = json.loads(text)
    except (ValueError, RecursionError):
        return None
    if not isinstance(line, dict) or type(line.get("iter")) is not int:
        return None
    try:
        return {name: value if name in ("iter", "eta") else float(value) for name, value in line.items()}
    except (TypeError, ValueError, OverflowError):
        return None


def _read_ap(path: Path) -> dict[str, float] | None:
    """Box AP, and mask AP where there is one, or the recall of proposals, of an `ap.json`; None where it is damaged."""
    try:
        kinds, *_ = json.loads(read_plain_file(path)).values()
        if RECALL_JSON_KEY in kinds:
            return {RECALL_JSON_KEY: float(kinds[RECALL_JSON_KEY][RECALL_MEASURED])}
        found = {kind: float(kinds[kind]["AP"]) for kind in AP_JSON_KEY.values() if kind in kinds}
        return found if "box" in found else None
    except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return None


def _tensorboard(folder: Path, start: int) -> Any:
    """TensorBoard's writer of the same figures, where TensorBoard is installed and can write."""
    try:
        from torch.utils.tensorboard import SummaryWriter

        return SummaryWriter(str(folder), purge_step=start)
    except (ImportError, OSError):
        return None
