"""How much memory `detectron-gn detect` takes: its peak for large photos, above that for a small one.

    python -m benchmarks.picture_memory [--megapixels 12 48] [--suffix .png] [--full]

The demo's model detects in one of its pictures, enlarged, with 100 detections of any score, which are all drawn. The
first run, of the picture as it is, shows what the model and the libraries take. `--full` is the whole peak of a Mask
R-CNN R-50 GN of full width, with random weights, in one and in two pictures of 800 x 1200.
"""

import argparse
import lzma
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import cv2

from benchmarks.common import picture
from benchmarks.help_text import FoldedHelp
from benchmarks.other_layouts import CASES, random_file
from detectron_gn.weights import write_blobs

DEMO = Path(__file__).resolve().parents[1] / "verify" / "demo_model"
# Boxes of any score and overlap: 100 detections, most of them as large as the picture.
MANY = ("--set", "TEST.SCORE_THRESH", "0.0", "TEST.NMS", "1.0", "--min-score", "0")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=FoldedHelp)
    parser.add_argument("--megapixels", type=float, nargs="+", default=[12, 48], metavar="N", help="default 12 48")
    parser.add_argument("--suffix", choices=(".jpg", ".png"), default=".jpg", help="of large photos (default .jpg)")
    parser.add_argument("--full", action="store_true", help="a model of full width in pictures of 800 x 1200 instead")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if args.full:
            print_full(folder)
            return
        model = folder / "model_final.pkl"
        model.write_bytes(lzma.decompress((DEMO / "model_final.pkl.xz").read_bytes()))
        small = min((DEMO / "val").iterdir())
        base = peak(model, folder, small)
        print(f"{'as it is':>14}: {base:6.0f} MB, {count(folder, small)}")
        for megapixels in args.megapixels:
            photo = enlarged(small, megapixels, folder / f"{megapixels:g}{args.suffix}")
            print(f"{megapixels:>11g} MP: {peak(model, folder, photo) - base:6.0f} MB more, {count(folder, photo)}")


def print_full(folder: Path) -> None:
    """The whole peak of a model of full width, its weights, PyTorch and the other libraries included."""
    case = next(case for case in CASES if case.head is None and case.config == "e2e_mask_rcnn_R-50-FPN_2x_gn")
    model = folder / "model_final.pkl"
    write_blobs(model, random_file(case))
    photos = [folder / "0.jpg", folder / "1.jpg"]
    for number, photo in enumerate(photos):
        cv2.imwrite(str(photo), picture(800, 1200)[:: 1 - 2 * number])
    for several in (photos[:1], photos):
        drawn = peak(model, folder, *several)
        print(f"{len(several)} of 800 x 1200: {drawn:6.0f} MB, {count(folder, photos[0])}")


def enlarged(path: Path, megapixels: float, large: Path) -> Path:
    """A picture with that many million pixels at most, in a file of the name `large`."""
    image = cv2.imread(str(path))
    # Rounded up it would be above the limit of `detect`.
    factor = 0.9999 * (megapixels * 1e6 / (image.shape[0] * image.shape[1])) ** 0.5
    cv2.imwrite(str(large), cv2.resize(image, None, fx=factor, fy=factor))
    return large


def peak(model: Path, folder: Path, *images: Path) -> float:
    """The most memory in MB that a process of `detect` held at a time."""
    inputs = map(str, (model, *images))
    command = [sys.executable, "-m", "detectron_gn", "detect", *inputs, "--out", str(folder / "out"), *MANY]
    process = subprocess.Popen(command, stdout=(folder / f"{images[0].stem}.txt").open("w"))
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        sys.exit(f"{images[0]}: detect failed")
    return usage.ru_maxrss / 1024


def count(folder: Path, image: Path) -> str:
    """What `detect` printed of an image, without the file names."""
    return (folder / f"{image.stem}.txt").read_text().split(": ")[1].split(" drawn")[0]


if __name__ == "__main__":
    main()
