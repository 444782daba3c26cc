"""The demo's model trained from scratch as Detectron trained it: AP over several seeds, and seconds per iteration.

    python -m benchmarks.train_from_scratch --annotations instances_train.json --images train \
        --eval-annotations instances_val.json --eval-images val --out runs

Detectron itself, on Caffe2's CPU operators and one core: box AP 0.904, mask AP 0.894, 0.6 s per iteration.
"""

import argparse
import json
import statistics
import time
from pathlib import Path

import torch

from detectron_gn.mrcnn.config import with_values
from detectron_gn.mrcnn.data.coco import read_dataset
from detectron_gn.mrcnn.distributed import Ranks
from detectron_gn.mrcnn.memory import keep_freed_memory
from detectron_gn.mrcnn.tables import text_table
from detectron_gn.port.config.read import bundled_config
from detectron_gn.verify.training.evaluated import EvaluationData, train_and_evaluate
from detectron_gn.verify.training.run import RunOptions

DETECTRON = {"box": 0.904, "mask": 0.894, "seconds": 0.6}
TOLERANCE = 0.02


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--annotations", type=Path, required=True)
    parser.add_argument("--images", type=Path, required=True)
    parser.add_argument("--eval-annotations", type=Path, required=True)
    parser.add_argument("--eval-images", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seeds", type=int, nargs="+", default=[3, 4, 5])
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    keep_freed_memory()
    rows, holds = [], True
    for seed in args.seeds:
        box, mask, median, total = train(args, seed)
        holds &= abs(box - DETECTRON["box"]) <= TOLERANCE and abs(mask - DETECTRON["mask"]) <= TOLERANCE
        speedup = DETECTRON["seconds"] / median
        rows.append((f"seed {seed}", f"{box:.4f}", f"{mask:.4f}", f"{median:.3f}", f"{speedup:.1f} x", f"{total:.0f}"))
    theirs = (f"{DETECTRON[key]:.4f}" for key in ("box", "mask", "seconds"))
    reference = ("Detectron", *theirs, "", "")
    print(text_table(("", "box AP", "mask AP", "s/iter (median)", "speed-up", "s in total"), [reference, *rows]))
    return 0 if holds else 1


def train(args: argparse.Namespace, seed: int) -> tuple[float, float, float, float]:
    """One run: box AP, mask AP, median seconds per iteration, and seconds in total with evaluation and checkpoints."""
    cfg = with_values(bundled_config("e2e_mask_rcnn_R-50-FPN_shapes_gn"), {"RNG_SEED": seed})
    out = args.out / f"seed{seed}"
    began = time.perf_counter()
    trained = train_and_evaluate(
        cfg,
        [read_dataset(args.annotations, args.images)],
        None,
        Ranks(0, 1, torch.device("cpu")),
        RunOptions(out, workers=1, resume=True),
        EvaluationData(args.eval_annotations, args.eval_images),
    )
    assert trained.ap is not None
    ap = trained.ap[args.eval_annotations.stem]
    lines = [json.loads(line) for line in (out / "json_stats.jsonl").read_text().splitlines()]
    seconds = [line["time"] for line in lines[2:]]
    return ap["box"]["AP"], ap["mask"]["AP"], statistics.median(seconds), time.perf_counter() - began


if __name__ == "__main__":
    raise SystemExit(main())
