"""What a data set of COCO train2017's size costs: pycocotools, the start of a run, and eight processes that share it.

    python -m benchmarks.large_dataset DIR [--images 118287] [--outlines 860001] [--json FILE]

Makes such a data set in DIR where there is none: a JSON file of outlines of 24 points, and links to two pictures. Each
row is a process of its own: seconds of the clock and of the processor, and the largest memory; those of `train` are a
whole run of one iteration. The last row is the
proportional memory (PSS) of eight processes that have the data and four loading threads each, and no network.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import cv2
import numpy as np

from benchmarks.help_text import FoldedHelp
from detectron_gn.mrcnn.tables import text_table

CONFIG = "e2e_mask_rcnn_R-50-FPN_shapes_gn"
CLASSES = 80
SIZES = ((480, 640), (640, 427))
# Of a run's first iteration: the network and the images as small as they go.
TINY = (
    "FPN.DIM 16 FAST_RCNN.CONV_HEAD_DIM 16 FAST_RCNN.MLP_HEAD_DIM 16 MRCNN.DIM_REDUCED 16 RESNETS.WIDTH_PER_GROUP 8 "
    "GROUP_NORM.NUM_GROUPS 4 TRAIN.SCALES (64,) TRAIN.MAX_SIZE 128 SOLVER.MAX_ITER 1 SOLVER.STEPS [0] "
    f"SOLVER.WARM_UP_ITERS 0 MODEL.NUM_CLASSES {CLASSES + 1}"
).split()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=FoldedHelp)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--images", type=int, default=118_287)
    parser.add_argument("--outlines", type=int, default=860_001)
    parser.add_argument("--processes", type=int, default=8)
    parser.add_argument("--threads", type=int, default=4, help="that load, of each process")
    parser.add_argument("--json", type=Path, help="write the rows here")
    parser.add_argument("--only", nargs="*", help="names of rows; the last one is called processes")
    args = parser.parse_args()
    annotations, images = args.folder / f"{args.images}_{args.outlines}.json", args.folder / f"{args.images}"
    if not annotations.exists():
        make(annotations, images, args.images, args.outlines)
    cache = args.folder / "cache"
    coco = "from pycocotools.coco import COCO; import sys; COCO(sys.argv[1])"
    reader = "from detectron_gn.mrcnn.data.annotations.reader import read_instances as r; import sys; r(sys.argv[1])"
    commands = {
        "pycocotools COCO()": [sys.executable, "-c", coco, str(annotations)],
        "the one reader": [sys.executable, "-c", reader, str(annotations)],
        "train, the first time": training(annotations, images, args.folder / "first", cache),
        "train, from the cache": training(annotations, images, args.folder / "again", cache),
    }
    subprocess.run(["rm", "-rf", cache, args.folder / "first", args.folder / "again"], check=True)
    rows = [
        {"what": name, **measured(command)}
        for name, command in commands.items()
        if args.only is None or name in args.only
    ]
    if args.only is None or "processes" in args.only:
        rows.append(
            {
                "what": f"{args.processes} processes of {args.threads} threads, PSS in all",
                "gib": shared_memory(annotations, images, cache, args.processes, args.threads),
            }
        )
    print(f"{args.images} images, {args.outlines} outlines, {annotations.stat().st_size / 1e6:.0f} MB")
    cells = [[row["what"], *(f"{row[key]:.1f}" if key in row else "" for key in ("seconds", "cpu", "gib"))]
             for row in rows]  # fmt: skip
    print(text_table(["", "s", "processor s", "GiB"], cells))
    if args.json:
        args.json.write_text(json.dumps(rows, indent=1))


def training(annotations: Path, images: Path, out: Path, cache: Path) -> list[str]:
    """The command that trains a tiny network for one iteration."""
    data = ["--annotations", str(annotations), "--images", str(images), "--data-cache", str(cache)]
    return [
        sys.executable, "-m", "detectron_gn", "train", "--config", CONFIG, *data, "--out", str(out), "--workers", "1",
        "--device", "cpu", "--force", "--set", *TINY,
    ]  # fmt: skip


def measured(command: list[str]) -> dict[str, float]:
    """Seconds of the clock and of the processor that a command takes, and its largest memory in GiB."""
    start = time.monotonic()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise SystemExit(f"{' '.join(command)} ended with {os.waitstatus_to_exitcode(status)}")
    return {
        "seconds": time.monotonic() - start,
        "cpu": usage.ru_utime + usage.ru_stime,
        "gib": usage.ru_maxrss / 2**20,
    }


def shared_memory(annotations: Path, images: Path, cache: Path, processes: int, threads: int) -> float:
    """GiB, in proportion, of processes that hold the data and load minibatches of 800 pixels, a few of them ahead."""
    code = "from benchmarks.large_dataset import hold; import sys; hold(*sys.argv[1:])"
    command = [sys.executable, "-c", code, str(annotations), str(images), str(cache), str(threads)]
    running = [
        subprocess.Popen(command, stdout=subprocess.PIPE, stdin=subprocess.PIPE, text=True) for _ in range(processes)
    ]
    for each in running:
        assert each.stdout is not None
        each.stdout.readline()
    found = sum(_proportional(each.pid) for each in running)
    for each in running:
        each.communicate("")
    return found


def hold(annotations: str, images: str, cache: str, threads: str) -> None:
    """Load minibatches as one of the processes of a run does, say so, and wait for the end of the input."""
    from detectron_gn.mrcnn.data.coco import dataset_of
    from detectron_gn.mrcnn.data.minibatch import minibatches
    from detectron_gn.mrcnn.data.roidb import training_roidb
    from detectron_gn.port.config.read import bundled_config
    from detectron_gn.verify.training.data_cache import read_instances_once
    from detectron_gn.verify.training.fingerprint import data_fingerprint

    cfg = bundled_config("e2e_mask_rcnn_R-50-FPN_2x_gn")
    dataset = dataset_of(read_instances_once(Path(annotations), Path(cache), lambda line: None), images)
    roidb = training_roidb([dataset], cfg)
    data_fingerprint(roidb)
    loading = minibatches(roidb, cfg, 3, range(1000), workers=int(threads))
    for _ in range(4):
        next(loading)
    time.sleep(5)
    print("loaded", flush=True)
    sys.stdin.read()
    loading.close()


def _proportional(pid: int) -> float:
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("Pss:")) / 2**20


def make(annotations: Path, images: Path, image_count: int, outline_count: int) -> None:
    """Write a data set like COCO's: its keys and their order, one object in a hundred a crowd, objects in any order."""
    rng = np.random.default_rng(0)
    images.mkdir(parents=True, exist_ok=True)
    pictures = [cv2.imencode(".jpg", rng.integers(0, 256, (*size, 3), np.uint8))[1].tobytes() for size in SIZES]
    upright = rng.random(image_count) > 0.7
    owners = rng.integers(image_count, size=outline_count)
    part = annotations.with_suffix(".part")
    with open(part, "w", encoding="utf-8") as file:
        file.write('{"info": {}, "licenses": [], "images": [')
        for number in range(image_count):
            kind = int(upright[number])
            name = f"{number + 1:012d}.jpg"
            # No file system lets a file have as many names as it likes.
            picture = images.parent / f"{kind}_{number // 30_000}.jpg"
            if not picture.exists():
                picture.write_bytes(pictures[kind])
            os.link(picture, images / name)
            height, width = SIZES[kind]
            record = {
                "license": 4, "file_name": name, "height": height, "width": width, "id": number + 1,
                "coco_url": f"http://images.cocodataset.org/train2017/{name}", "date_captured": "2013-11-14",
            }  # fmt: skip
            file.write((", " if number else "") + json.dumps(record))
        file.write('], "annotations": [')
        for number, owner in enumerate(owners.tolist()):
            height, width = SIZES[int(upright[owner])]
            record = _object(rng, height, width) | {
                "image_id": owner + 1, "category_id": int(rng.integers(CLASSES)) + 1, "id": number + 1
            }  # fmt: skip
            file.write((", " if number else "") + json.dumps(record))
        categories = [{"supercategory": "thing", "id": each, "name": f"thing {each}"} for each in range(1, CLASSES + 1)]
        file.write(f'], "categories": {json.dumps(categories)}}}')
    part.rename(annotations)


def _object(rng: np.random.Generator, height: int, width: int) -> dict[str, object]:
    corners = max(3, int(rng.poisson(24)))
    angles, radius = np.sort(rng.uniform(0, 2 * np.pi, corners)), rng.uniform(4, 0.18 * min(height, width))
    along = radius * rng.uniform(0.7, 1, corners)
    middle = rng.uniform(0.2, 0.8, 2) * (width, height)
    points = np.round(middle + np.stack((along * np.cos(angles), along * np.sin(angles)), axis=1), 2)
    (x1, y1), (x2, y2) = points.min(axis=0).tolist(), points.max(axis=0).tolist()
    x, y = points.T
    area = round(abs(float(x @ np.roll(y, 1) - y @ np.roll(x, 1))) / 2, 4)
    found: dict[str, object] = {"segmentation": [points.ravel().tolist()], "area": area, "iscrowd": 0}
    if rng.random() < 0.01:
        column = max(1, int(y2 - y1))
        runs = [int(x1) * height + int(y1), *[column, height - column] * max(1, int(x2 - x1))]
        runs[-1] += height * width - sum(runs)
        found |= {"segmentation": {"counts": runs, "size": [height, width]}, "iscrowd": 1}
    return found | {"bbox": [x1, y1, round(x2 - x1, 2), round(y2 - y1, 2)]}


if __name__ == "__main__":
    main()
