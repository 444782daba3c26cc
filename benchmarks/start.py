"""From starting `detectron-gn detect` on one small picture to its exit, beside a Python that imports torch and OpenCV.

    python -m benchmarks.start [--rounds 7]

The demo's model, unpacked to a temporary file, finds the objects of one of its pictures. What our modules themselves
add to the imports is measured by Python (-X importtime), without what they import in their turn. OMP_NUM_THREADS sets
the number of threads.
"""

import argparse
import lzma
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.help_text import FoldedHelp

DEMO = Path(__file__).resolve().parents[1] / "verify" / "demo_model"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=FoldedHelp)
    parser.add_argument("--rounds", type=int, default=7, help="measured turns of each side (default 7)")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        model = Path(folder) / "model_final.pkl"
        model.write_bytes(lzma.decompress((DEMO / "model_final.pkl.xz").read_bytes()))
        image = min((DEMO / "val").iterdir())
        detect = ["-m", "detectron_gn", "detect", str(model), str(image), "--out", folder]
        sides = {"detect": detect, "import torch, cv2": ["-c", "import torch, cv2"]}
        times: dict[str, list[float]] = {name: [] for name in sides}
        for turn in range(args.rounds + 1):
            for name, arguments in sides.items():
                start = time.perf_counter()
                run(arguments)
                if turn:  # the first finds files that are not cached
                    times[name].append(time.perf_counter() - start)
        own = statistics.median(own_import_seconds(detect) for _ in range(3))
    for name, values in times.items():
        print(f"{name:20} {statistics.median(values):6.2f} s  (from {min(values):.2f})")
    ratio = statistics.median(ours / bare for ours, bare in zip(*times.values(), strict=True))
    print(f"{'ratio':20} {ratio:6.2f}    (median of {args.rounds} pairs)")
    print(f"{'our own imports':20} {own:6.2f} s")


def run(arguments: list[str], *options: str) -> str:
    """Run Python; returns what it wrote to stderr."""
    command = [sys.executable, *options, *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stderr


def own_import_seconds(arguments: list[str]) -> float:
    """The time that importing our own modules took, without what they import in their turn."""
    microseconds = 0
    for line in run(arguments, "-X", "importtime").splitlines():
        fields = line.removeprefix("import time:").split("|")
        if len(fields) == 3 and fields[2].strip().split(".")[0] == "detectron_gn":
            microseconds += int(fields[0])
    return microseconds / 1e6


if __name__ == "__main__":
    main()
