"""What a report was made of and on: files with their digests, configuration, versions, machine, command."""

import hashlib
import platform
import shlex
import sys
from datetime import datetime, timezone
from importlib import metadata
from pathlib import Path

import torch

from detectron_gn.port.config.read import dump_config
from detectron_gn.verify.ladder import Ladder, LadderInputs
from detectron_gn.weights.files.digest import file_digest
from detectron_gn.weights.shown import without_secrets

Fact = tuple[str, str]

_LIBRARIES = ("detectron-gn", "torch", "numpy", "opencv-python-headless", "pycocotools", "h5py")


def ladder_facts(ladder: Ladder, inputs: LadderInputs) -> list[Fact]:
    """The model and the data that a ladder was climbed with."""
    facts = [("model", without_secrets(inputs.source)), ("sha256 of the file", ladder.sha256)]
    if ladder.model is not None:
        digest = hashlib.sha256(dump_config(ladder.model.cfg).encode()).hexdigest()
        changed = f" with {shlex.join(inputs.overrides)}" if inputs.overrides else ""
        facts.append(("configuration", f"{inputs.config or 'the one in the file'}{changed}, sha256 {digest}"))
        facts.append(("precision", ladder.model.precision))
    for name, path in (
        ("annotations", inputs.annotations),
        ("reference blobs", inputs.reference),
        *(("reference results", path) for path in inputs.reference_results.values()),
    ):
        if path is not None:
            facts.append((name, f"{path.name}, sha256 {file_digest(path)}"))
    if ladder.evaluation is not None:
        seconds = ladder.evaluation.speed.seconds_per_image()
        facts.append(("images", ladder.evaluation.naming))
        if seconds is not None:
            facts.append(("seconds an image", f"{seconds} (network + pasting)"))
    return facts


def machine_facts(device: torch.device) -> list[Fact]:
    """Versions, machine, time and command."""
    versions = [f"{name} {metadata.version(name)}" for name in _LIBRARIES if _is_installed(name)]
    processor = torch.cuda.get_device_name(device) if device.type == "cuda" else _processor()
    return [
        ("command", without_secrets(shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]]))),
        ("written", datetime.now(timezone.utc).strftime("%Y-%m-%d %H:%M UTC")),
        ("versions", ", ".join([f"Python {platform.python_version()}", *versions])),
        ("machine", f"{processor}, {_threads()}, {platform.system()} {platform.machine()}"),
    ]


def _threads() -> str:
    count = torch.get_num_threads()
    return "1 thread" if count == 1 else f"{count} threads"


def _is_installed(name: str) -> bool:
    try:
        metadata.version(name)
    except metadata.PackageNotFoundError:
        return False
    return True


def _processor() -> str:
    """The processor's name, where the system tells it."""
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.is_file():
        for line in cpuinfo.read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
