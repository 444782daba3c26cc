"""How much memory `detectron-gn detect` takes for large photos: its peak above that for a small one.

    python -m benchmarks.picture_memory [--megapixels 12 48]

The demo's model detects in one of its pictures, enlarged, with 100 detections of any score, which are all drawn. The
first run, of the picture as it is, shows what the model and the libraries take.
"""

import argparse
import lzma
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import cv2

DEMO = Path(__file__).resolve().parents[1] / "verify" / "demo_model"
# Boxes of any score and overlap: 100 detections, most of them as large as the picture.
MANY = ("--set", "TEST.SCORE_THRESH", "0.0", "TEST.NMS", "1.0", "--min-score", "0")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--megapixels", type=float, nargs="+", default=[12, 48], metavar="N", help="default 12 48")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        model = folder / "model_final.pkl"
        model.write_bytes(lzma.decompress((DEMO / "model_final.pkl.xz").read_bytes()))
        small = min((DEMO / "val").iterdir())
        base = peak(model, small, folder)
        print(f"{'as it is':>14}: {base:6.0f} MB, {count(folder, small)}")
        for megapixels in args.megapixels:
            photo = enlarged(small, megapixels, folder)
            print(f"{megapixels:>11g} MP: {peak(model, photo, folder) - base:6.0f} MB more, {count(folder, photo)}")


def enlarged(path: Path, megapixels: float, folder: Path) -> Path:
    """A JPEG of a picture with that many million pixels."""
    image = cv2.imread(str(path))
    factor = (megapixels * 1e6 / (image.shape[0] * image.shape[1])) ** 0.5
    large = folder / f"{megapixels:g}.jpg"
    cv2.imwrite(str(large), cv2.resize(image, None, fx=factor, fy=factor))
    return large


def peak(model: Path, image: Path, folder: Path) -> float:
    """The most memory in MB that a process of `detect` held at a time."""
    command = [sys.executable, "-m", "detectron_gn", "detect", str(model), str(image), "--out", str(folder), *MANY]
    process = subprocess.Popen(command, stdout=(folder / f"{image.stem}.txt").open("w"))
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        sys.exit(f"{image}: detect failed")
    return usage.ru_maxrss / 1024


def count(folder: Path, image: Path) -> str:
    """What `detect` printed of an image, without the file names."""
    return (folder / f"{image.stem}.txt").read_text().split(": ")[1].split(" drawn")[0]


if __name__ == "__main__":
    main()
