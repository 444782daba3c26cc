"""A narrow model of each family, trained on drawn shapes: its AP over seeds, and seconds per iteration.

    python -m benchmarks.train_families --out runs --config rpn_R-50-FPN_shapes_gn e2e_faster_rcnn_R-50-FPN_shapes_gn

The data are drawn into `--out` (see `drawn_shapes`). The Mask R-CNN with a pyramid starts from random weights; the
others start from the embedded demo's body, as models start from a classifier's. Fast R-CNN trains on the proposals of
the RPN of seed 3, which is trained where it is not there yet. A run that is stopped goes on with the same command.

`DETECTRON` holds what Detectron itself came to on the same data, with Caffe2's CPU operators and one core.
"""

import argparse
import json
import lzma
import statistics
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.resources import files
from pathlib import Path

import torch

from benchmarks.drawn_shapes import draw_data_sets
from benchmarks.help_text import FoldedHelp
from detectron_gn.mrcnn.config import takes_proposals, with_values
from detectron_gn.mrcnn.data.coco import read_dataset
from detectron_gn.mrcnn.detectors import ProposalNetwork
from detectron_gn.mrcnn.distributed import Ranks
from detectron_gn.mrcnn.evaluation.generate_proposals import generate_proposals
from detectron_gn.mrcnn.evaluation.recall import RECALL_MEASURED
from detectron_gn.mrcnn.memory import keep_freed_memory
from detectron_gn.mrcnn.tables import text_table
from detectron_gn.port.config.read import bundled_config
from detectron_gn.port.runs.load import load_model
from detectron_gn.port.runs.proposals import stored_proposals
from detectron_gn.verify.evaluation_files import write_generated_proposals
from detectron_gn.verify.training.evaluated import EvaluationData, train_and_evaluate
from detectron_gn.verify.training.run_options import RunOptions
from detectron_gn.weights import read_blobs, write_blobs

RPN, RPN_SEED = "rpn_R-50-FPN_shapes_gn", 3


@dataclass(frozen=True)
class Family:
    """What Detectron came to with a configuration.

    Attributes:
        ap: by kind, of each of Detectron's runs; of an RPN by itself the average recall.
        seconds: of an iteration, on a core of its own.
        tolerance: how far the means of three seeds may be apart.
        from_body: whether it starts from the demo's body; else from random weights.
    """

    ap: Mapping[str, tuple[float, ...]]
    seconds: float
    tolerance: float
    from_body: bool = True


DETECTRON = {
    "e2e_mask_rcnn_R-50-FPN_shapes_gn": Family(
        {"box": (0.904, 0.9080, 0.9138), "mask": (0.894, 0.8886, 0.8746)}, 0.6, 0.02, from_body=False
    ),
    RPN: Family({"proposal": (0.6798, 0.6548, 0.6929)}, 0.28, 0.03),
    "e2e_faster_rcnn_R-50-FPN_shapes_gn": Family({"box": (0.5370, 0.4981, 0.5444)}, 0.34, 0.06),
    "fast_rcnn_R-50-FPN_shapes_gn": Family({"box": (0.5890, 0.5762, 0.5238, 0.6207, 0.5557)}, 0.28, 0.08),
    "retinanet_R-50-FPN_shapes_gn": Family({"box": (0.0984, 0.2121, 0.2530)}, 0.42, 0.15),
    "e2e_mask_rcnn_R-50-C4_shapes_gn": Family({"box": (0.0239,), "mask": (0.0280,)}, 1.19, 0.03),
    "e2e_keypoint_rcnn_R-50-FPN_shapes_gn": Family(
        {
            "box": (0.7250, 0.6544, 0.6628, 0.7243, 0.6575, 0.7068, 0.7130, 0.6814),
            "keypoint": (0.6334, 0.6014, 0.6363, 0.6144, 0.6106, 0.6362, 0.6309, 0.6493),
        },
        0.43,
        0.07,
    ),
}


@dataclass(frozen=True)
class Run:
    """One training: AP by kind, median seconds per iteration, and seconds in total with evaluation."""

    ap: dict[str, float]
    median: float
    total: float


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=FoldedHelp)
    parser.add_argument("--config", choices=DETECTRON, nargs="+", default=list(DETECTRON), help="(default: all)")
    parser.add_argument("--out", type=Path, required=True, help="the folder of the data and the runs")
    parser.add_argument("--seeds", type=int, nargs="+", default=[3, 4, 5])
    parser.add_argument("--iterations", type=int, help="only so many, to see that it runs")
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    keep_freed_memory()
    draw_data_sets(args.out / "data")
    tables, holds = [], True
    for name in args.config:
        runs = {seed: train(name, seed, args.out, args.iterations) for seed in args.seeds}
        tables.append(f"\n{name}\n{family_table(DETECTRON[name], runs)}")
        holds &= agrees(DETECTRON[name], list(runs.values()))
    print("\n".join(tables))
    return 0 if holds else 1


def train(name: str, seed: int, out: Path, iterations: int | None = None) -> Run:
    """Train one configuration from one seed in `out/NAME/seedN`, and evaluate its final model."""
    cfg = with_values(bundled_config(name), {"RNG_SEED": seed})
    if iterations is not None:
        cfg = with_values(cfg, {"SOLVER.MAX_ITER": iterations, "SOLVER.STEPS": (0,)})
    data = out / "data"
    kind = "keypoints" if cfg.MODEL.KEYPOINTS_ON else "instances"
    folder = out / name / f"seed{seed}"
    folder.mkdir(parents=True, exist_ok=True)
    evaluation = EvaluationData(data / f"{kind}_val.json", data / "val")
    proposals = []
    if takes_proposals(cfg):
        training, validation = proposal_files(out, iterations)
        proposals = [stored_proposals(cfg, training)]
        evaluation = replace(evaluation, proposals=stored_proposals(cfg, validation))
    began = time.perf_counter()
    trained = train_and_evaluate(
        cfg,
        [read_dataset(data / f"{kind}_train.json", data / "train")],
        read_blobs(demo_body(out)) if DETECTRON[name].from_body else None,
        Ranks(0, 1, torch.device("cpu")),
        RunOptions(folder, workers=1, resume=True),
        [evaluation],
        proposals=proposals,
    )
    assert trained.ap is not None
    numbers = trained.ap[f"{kind}_val"]
    ap = {part: numbers[part].get("AP", numbers[part].get(RECALL_MEASURED)) for part in DETECTRON[name].ap}
    lines = [json.loads(line) for line in (folder / "json_stats.jsonl").read_text().splitlines()]
    return Run(ap, statistics.median(line["time"] for line in lines[2:] or lines), time.perf_counter() - began)


def demo_body(out: Path) -> Path:
    """The ResNet of the embedded demo in a pickle of its own, as a file of a trained classifier's body."""
    body, demo = out / "body.pkl", out / "demo.pkl"
    if not body.is_file():
        demo.write_bytes(lzma.decompress((files("detectron_gn.verify") / "demo_model/model_final.pkl.xz").read_bytes()))
        whole = read_blobs(demo)
        blobs = {name: blob for name, blob in whole.blobs.items() if name.startswith(("conv1_", "res"))}
        write_blobs(body, replace(whole, blobs=blobs, cfg=None, iteration=None, categories=None))
    return body


def proposal_files(out: Path, iterations: int | None) -> tuple[Path, Path]:
    """`rpn_proposals.pkl` of the training and the validation pictures, by the RPN of seed 3."""
    folders = out / "proposals" / "train", out / "proposals" / "val"
    if not (folders[1] / "rpn_proposals.pkl").is_file():
        train(RPN, RPN_SEED, out, iterations)
        model = load_model(out / RPN / f"seed{RPN_SEED}" / "model_final.pkl", device="cpu")
        assert isinstance(model, ProposalNetwork)
        for folder in folders:
            folder.mkdir(parents=True, exist_ok=True)
            annotations = out / "data" / f"instances_{folder.name}.json"
            found = generate_proposals(model, annotations, out / "data" / folder.name)
            assert found is not None
            write_generated_proposals(found, model.cfg, annotations.stem, folder)
    return folders[0] / "rpn_proposals.pkl", folders[1] / "rpn_proposals.pkl"


def agrees(detectron: Family, runs: Sequence[Run]) -> bool:
    """Whether the mean of each kind of AP is within the tolerance of Detectron's."""
    return all(
        abs(statistics.mean(run.ap[kind] for run in runs) - statistics.mean(theirs)) <= detectron.tolerance
        for kind, theirs in detectron.ap.items()
    )


def family_table(detectron: Family, runs: Mapping[int, Run]) -> str:
    """A row for Detectron's mean, one for each seed, and one for the mean of these."""
    theirs = (_mean_and_spread(values) for values in detectron.ap.values())
    rows = [(f"Detectron, {len(next(iter(detectron.ap.values())))} runs", *theirs, f"{detectron.seconds:.3f}", "")]
    for seed, run in runs.items():
        ours = (f"{run.ap[kind]:.4f}" for kind in detectron.ap)
        rows.append((f"seed {seed}", *ours, f"{run.median:.3f}", f"{run.total:.0f}"))
    means = (_mean_and_spread([run.ap[kind] for run in runs.values()]) for kind in detectron.ap)
    rows.append(("mean", *means, "", ""))
    kinds = ("AR@1000" if kind == "proposal" else f"{kind} AP" for kind in detectron.ap)
    return text_table(("", *kinds, "s/iter (median)", "s in total"), rows)


def _mean_and_spread(values: Sequence[float]) -> str:
    return f"{statistics.mean(values):.4f} ({min(values):.4f} to {max(values):.4f})"


if __name__ == "__main__":
    sys.exit(main())
