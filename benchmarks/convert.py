"""How long a conversion of a full-size model takes beside `cp` of the same file, and how much memory it needs.

Usage: python -m benchmarks.convert [--runs 5] [--folder DIR] [--json FILE]

Makes R-50-FPN GN with momentum (446 blobs, 366 MB) from random numbers, then converts it to and from every
format, each in a process of its own. Time is that of reading, writing and fsync, imports excluded; `cp` is
measured in the same minute on the same disk, once as it is and once with its data forced to the disk (`cp` alone
leaves them in memory, which no conversion here does). Memory is the peak beyond that of the same process after a
conversion of a tiny file.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from benchmarks.help_text import FoldedHelp
from detectron_gn.port.blobs.table import BlobTable
from detectron_gn.port.config.read import bundled_config, dump_config
from detectron_gn.weights import WeightsFile, write_blobs
from tests.helpers.recipe import recipe_blob

SUFFIXES = (".pkl", ".pth", ".h5", ".safetensors")
CONFIG = "e2e_mask_rcnn_R-50-FPN_2x_gn"

ONE_CONVERSION = """
import sys, time
from detectron_gn.weights.convert import convert

def peak():  # getrusage would count the parent's memory too
    status = open("/proc/self/status").read()
    return int(status.split("VmHWM:")[1].split()[0]) * 1024

tiny, tiny_out, source, out = sys.argv[1:]
convert(tiny, tiny_out)
before = peak()
start = time.perf_counter()
convert(source, out)
print(time.perf_counter() - start, peak() - before)
"""


def make_model(path: Path) -> None:
    """Write the model with momentum, by the recipe of the reference values."""
    cfg = bundled_config(CONFIG)
    rows = BlobTable.from_config(cfg).rows
    blobs = {row.blob: recipe_blob(row.blob, row.shape, 0) for row in rows}
    blobs |= {f"{row.blob}_momentum": recipe_blob(f"{row.blob}_momentum", row.shape, 0) for row in rows}
    write_blobs(path, WeightsFile(blobs, dump_config(cfg), None, str(path), "pkl"))


def make_tiny(path: Path) -> None:
    write_blobs(path, WeightsFile({"w": np.ones(1, "f4")}, None, None, "tiny", "pkl"))


def copy_seconds(source: Path, target: Path, synced: bool) -> float:
    target.unlink(missing_ok=True)
    start = time.perf_counter()
    subprocess.run(["cp", source, target], check=True)
    if synced:
        subprocess.run(["sync", target], check=True)
    return time.perf_counter() - start


def convert_once(tiny: Path, source: Path, out: Path) -> tuple[float, int]:
    """(seconds, peak bytes beyond the process's own) of one conversion in a new process."""
    tiny_out = tiny.with_name("tiny_out" + out.suffix)
    arguments = [sys.executable, "-c", ONE_CONVERSION, str(tiny), str(tiny_out), str(source), str(out)]
    done = subprocess.run(arguments, capture_output=True, text=True, check=True)
    seconds, peak = done.stdout.split()
    return float(seconds), int(peak)


def measure(folder: Path, runs: int) -> dict[str, object]:
    """Median times and largest peaks of every conversion; the runs of all kinds take turns."""
    model = folder / "model.pkl"
    make_model(model)
    size = model.stat().st_size
    tiny = {suffix: folder / f"tiny{suffix}" for suffix in SUFFIXES}
    files = {".pkl": model}
    for suffix in SUFFIXES:
        make_tiny(tiny[suffix])
    pairs = [(".pkl", suffix) for suffix in (*SUFFIXES[1:], ".pkl")] + [(suffix, ".pkl") for suffix in SUFFIXES[1:]]
    seconds: dict[str, list[float]] = {}
    peaks: dict[str, list[int]] = {}
    for _ in range(runs):
        for name, synced in (("cp", False), ("cp and sync", True)):
            seconds.setdefault(name, []).append(copy_seconds(model, folder / "copy", synced))
        for source, target in pairs:
            name = f"{source[1:]} to {target[1:]}"
            out = folder / f"from{source[1:]}{target}"
            taken, peak = convert_once(tiny[source], files[source], out)
            seconds.setdefault(name, []).append(taken)
            peaks.setdefault(name, []).append(peak)
            if source == ".pkl":
                files.setdefault(target, out)
            if target == ".pkl":
                assert out.read_bytes() == model.read_bytes(), f"{name} changed the file"
    medians = {name: statistics.median(values) for name, values in seconds.items()}
    return {
        "bytes": size,
        "seconds": medians,
        "to_cp": {name: value / medians["cp"] for name, value in medians.items()},
        "to_cp_and_sync": {name: value / medians["cp and sync"] for name, value in medians.items()},
        "peak_to_file": {name: max(values) / size for name, values in peaks.items()},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=FoldedHelp)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--folder", type=Path, help="where the files go (2.5 GB); a temporary folder by default")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
        found = measure(Path(folder), arguments.runs)
    print(f"{found['bytes']:,} bytes, median of {arguments.runs} runs")
    print(f"{'':20}{'seconds':>10}{'x cp':>8}{'x cp+sync':>11}{'peak x file':>13}")
    for name, value in found["seconds"].items():  # type: ignore[attr-defined]
        peak = found["peak_to_file"].get(name)  # type: ignore[attr-defined]
        ratios = f"{found['to_cp'][name]:8.2f}{found['to_cp_and_sync'][name]:11.2f}"  # type: ignore[index]
        print(f"{name:20}{value:10.3f}{ratios}" + (f"{peak:13.2f}" if peak is not None else ""))
    if arguments.json:
        arguments.json.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
