"""A narrow model trained from scratch on the demo's drawn shapes, as Detectron trained it: AP, seconds per iteration.

    python -m benchmarks.train_from_scratch --annotations instances_train.json --images train \
        --eval-annotations instances_val.json --eval-images val --out runs

`DETECTRON` holds what Detectron itself came to, on Caffe2's CPU operators and one core, for each of the configurations
that `--config` may name. Every one is trained from several seeds.
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

# AP by kind, seconds per iteration, and how far AP may be from that. The RetinaNet stops long before it has learned all
# it can, where seeds differ more.
DETECTRON = {
    "e2e_mask_rcnn_R-50-FPN_shapes_gn": ({"box": 0.904, "mask": 0.894}, 0.6, 0.02),
    "retinanet_R-50-FPN_shapes_gn": ({"box": 0.153}, 0.95, 0.04),
}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", choices=DETECTRON, default=next(iter(DETECTRON)))
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
    theirs, their_seconds, tolerance = DETECTRON[args.config]
    rows, holds = [("Detectron", *(f"{ap:.4f}" for ap in theirs.values()), f"{their_seconds:.3f}", "", "")], True
    for seed in args.seeds:
        ap, median, total = train(args, seed)
        holds &= all(abs(ap[kind] - theirs[kind]) <= tolerance for kind in theirs)
        ours = (f"{ap[kind]:.4f}" for kind in theirs)
        rows.append((f"seed {seed}", *ours, f"{median:.3f}", f"{their_seconds / median:.1f} x", f"{total:.0f}"))
    kinds = (f"{kind} AP" for kind in theirs)
    print(text_table(("", *kinds, "s/iter (median)", "speed-up", "s in total"), rows))
    return 0 if holds else 1


def train(args: argparse.Namespace, seed: int) -> tuple[dict[str, float], float, float]:
    """One run: AP by kind, median seconds per iteration, and seconds in total with evaluation and checkpoints."""
    cfg = with_values(bundled_config(args.config), {"RNG_SEED": seed})
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
    ap = {kind: metrics["AP"] for kind, metrics in trained.ap[args.eval_annotations.stem].items()}
    lines = [json.loads(line) for line in (out / "json_stats.jsonl").read_text().splitlines()]
    seconds = [line["time"] for line in lines[2:]]
    return ap, statistics.median(seconds), time.perf_counter() - began


if __name__ == "__main__":
    raise SystemExit(main())
