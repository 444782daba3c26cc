"""The whole promise on the embedded model, which Detectron itself trained: read, convert, run, compare with Caffe2.

The model tells four drawn shapes apart. Its pickle was written under Python 2.7, its results by Detectron on Caffe2.
"""

import json
import lzma
from collections.abc import Callable
from dataclasses import dataclass
from importlib.resources import as_file, files
from pathlib import Path

import cv2
import numpy as np

from detectron_gn.mrcnn.evaluation.ap import METRICS
from detectron_gn.mrcnn.evaluation.evaluate import Evaluation, Progress, no_progress
from detectron_gn.mrcnn.evaluation.partial_results import remove_partial_results
from detectron_gn.mrcnn.tables import text_table
from detectron_gn.mrcnn.wording import percent
from detectron_gn.verify.evaluation_files import REPORT, write_evaluation
from detectron_gn.verify.ladder import Ladder, LadderInputs, climb
from detectron_gn.verify.parity.blobs import ImageParity, summary_table
from detectron_gn.verify.parity.results import DetectionParity, parity_table
from detectron_gn.verify.published import Expectation
from detectron_gn.verify.report.content import ladder_report
from detectron_gn.verify.report.page import write_report
from detectron_gn.verify.report.side_by_side import Pair, side_by_side
from detectron_gn.weights import read_blobs, write_blobs
from detectron_gn.weights.files.atomic import replacing

BLOB_TOLERANCE = 1e-4
AP_TOLERANCE = 1e-4
DATA_SET = "coco_shapes_val"
_TITLE = "Mask R-CNN R-50-FPN GN on drawn shapes"
_REFERENCE = "Detectron (Caffe2)"


@dataclass(frozen=True)
class DemoOutcome:
    """What the demo found, and whether all of it agrees with Caffe2; what was not reached is empty."""

    blobs: list[ImageParity]
    detections: list[DetectionParity]
    ap: dict[str, dict[str, tuple[float, float]]]
    pictures: list[Path]
    report: Path
    holds: bool


def run_demo(out: Path, say: Callable[[str], None], progress: Progress = no_progress) -> DemoOutcome:
    """Run the demo, telling each step as it is taken; pictures, result files and the report go to `out`.

    Args:
        out: a folder that exists.
        say: is given the lines to show.
        progress: wraps the results as they come.
    """
    with as_file(files("detectron_gn.verify") / "demo_model") as folder:
        pickle = out / "model_final.pkl"
        with replacing(pickle) as temporary:
            temporary.write_bytes(lzma.decompress((folder / "model_final.pkl.xz").read_bytes()))
        _convert(pickle, out / "model.pth", say)

        reference_ap = json.loads((folder / "ap.json").read_text())[DATA_SET]
        inputs = LadderInputs(
            source=str(out / "model.pth"),
            out=out,
            reference=folder / "blobs.h5",
            images=folder / "val",
            annotations=folder / "instances_val.json",
            reference_results={
                "bbox": folder / f"bbox_{DATA_SET}_results.json",
                "segm": folder / f"segmentations_{DATA_SET}_results.json",
            },
            expected=Expectation({kind: 100 * metrics["AP"] for kind, metrics in reference_ap.items()}),
            tolerance=BLOB_TOLERANCE,
        )
        # An earlier demo that was interrupted may have run otherwise; this one starts afresh.
        remove_partial_results(out)
        say("\nFrom the file to the AP, beside what Caffe2 gave:")
        ladder = climb(inputs, say, progress)
        assert ladder is not None
        if ladder.blobs:
            say(f"\nBlob by blob, every activation of two images:\n{summary_table(ladder.blobs)}")
        if ladder.detections:
            say(f"\nDetection by detection, in the 40 images of the validation set:\n{parity_table(ladder.detections)}")
        ap = {}
        if ladder.evaluation is not None:
            write_evaluation(ladder.evaluation, DATA_SET, out)
            ap = _ap_pairs(ladder.evaluation, reference_ap)
            say(f"\nAP by AP:\n{_ap_table(ap)}")
        page = ladder_report(_TITLE, ladder, inputs, _REFERENCE)
        report = out / REPORT
        write_report(page, report)
        pictures = [_write_pair(pair, out) for pair in page.pairs]
    return DemoOutcome(ladder.blobs, ladder.detections, ap, pictures, report, _holds(ladder, ap))


def _convert(pickle: Path, converted: Path, say: Callable[[str], None]) -> None:
    """Read the pickle, write it as a .pth, and see that not a bit was lost."""
    weights = read_blobs(pickle)
    values = sum(array.size for array in weights.blobs.values())
    say(f"{pickle}: {len(weights.blobs)} blobs, {values:,} values, and the configuration it was trained with")
    write_blobs(converted, weights)
    again = read_blobs(converted)
    equal = sum(np.array_equal(array, again.blobs[name]) for name, array in weights.blobs.items())
    say(f"{converted}: {equal} of {len(weights.blobs)} blobs equal to the bit")


def _holds(ladder: Ladder, ap: dict[str, dict[str, tuple[float, float]]]) -> bool:
    """Whether every rung holds, and all AP numbers, not only the ladder's two, are Detectron's."""
    return (
        all(rung.state == "holds" for rung in ladder.rungs)
        and bool(ap)
        and all(abs(a - b) <= AP_TOLERANCE for metrics in ap.values() for a, b in metrics.values())
    )


def _ap_pairs(
    evaluation: Evaluation, reference: dict[str, dict[str, float]]
) -> dict[str, dict[str, tuple[float, float]]]:
    """Detectron's number and ours, for boxes and masks and each metric."""
    ours = {kind: summary.metrics() for kind, summary in evaluation.summaries.items()}
    return {
        kind: {metric: (reference[kind][metric], metrics[metric]) for metric in METRICS}
        for kind, metrics in ours.items()
    }


def _ap_table(ap: dict[str, dict[str, tuple[float, float]]]) -> str:
    rows = []
    for kind, metrics in ap.items():
        for place, who in enumerate((_REFERENCE, "detectron-gn")):
            rows.append([f"{kind} AP, {who}", *(percent(metrics[metric][place], decimals=4) for metric in METRICS)])
    return text_table(["", *METRICS], rows)


def _write_pair(pair: Pair, out: Path) -> Path:
    path = out / f"{Path(pair.name).stem}_detectron_and_ours.png"
    with replacing(path) as temporary:
        temporary.write_bytes(cv2.imencode(".png", side_by_side(pair))[1].tobytes())
    return path
