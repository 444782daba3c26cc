"""Where the time of a whole evaluation goes, from the files of the images to the AP.

    python -m benchmarks.evaluation model_final.pkl --annotations instances_val2017.json --images val2017
        [--precision bf16] [--batch 1] [--device cuda] [--cuda-graphs] [--threads 2] [--json FILE]

The network's share is the least that an evaluation can take; reading, pasting, run lengths, partial results and COCO's
evaluation are what we add. The figures are seconds, and milliseconds per image, of one pass. On a GPU the steps
overlap and add up to more than the total, and "network" is only the time to launch it.
"""

import argparse
import json
import tempfile
import time
from pathlib import Path

from benchmarks import common
from benchmarks.common import Seconds, timed_parts
from benchmarks.help_text import FoldedHelp
from detectron_gn.mrcnn.detectors import GeneralizedRCNN
from detectron_gn.mrcnn.evaluation import evaluate as evaluation_module
from detectron_gn.mrcnn.evaluation.evaluate import evaluate
from detectron_gn.mrcnn.inference.cuda_graphs import CudaGraphs
from detectron_gn.mrcnn.memory import keep_freed_memory
from detectron_gn.port.runs.load import load_model
from detectron_gn.verify import evaluation_files
from detectron_gn.verify.evaluation_files import write_evaluation

PARTS: common.Parts = {
    "reading images": (evaluation_module, "read_listed"),
    "network": (GeneralizedRCNN, "start_batch"),
    "pasting and run lengths": (evaluation_module, "image_results"),
    "partial results": (evaluation_module.PartialResults, "add"),
    "COCO's evaluation": (evaluation_module, "score_checked"),
    "result files": (evaluation_files, "write_json"),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=FoldedHelp)
    parser.add_argument("source")
    parser.add_argument("--annotations", type=Path, required=True)
    parser.add_argument("--images", type=Path, required=True)
    parser.add_argument("--precision", choices=("fp32", "tf32", "bf16", "fp16"), default="fp32")
    parser.add_argument("--batch", type=int, default=1, help="images of one padded size that run together (default 1)")
    parser.add_argument("--device", default="cpu", help="where the network runs (default cpu)")
    parser.add_argument("--cuda-graphs", action="store_true", help="record the network once per shape and replay it")
    parser.add_argument("--threads", type=int, default=2, help="of PyTorch and OpenCV (default 2)")
    parser.add_argument("--json", type=Path, help="write every measured value here")
    args = parser.parse_args()
    common.set_up(args)
    keep_freed_memory()
    model = load_model(args.source, device=args.device, precision=args.precision)
    network = CudaGraphs(model) if args.cuda_graphs else None
    times: Seconds = {}
    with tempfile.TemporaryDirectory() as folder, timed_parts(PARTS, times):
        start = time.perf_counter()
        done = evaluate(model, args.annotations, args.images, batch=args.batch, out=Path(folder), network=network)
        assert done is not None
        write_evaluation(done, args.annotations.stem, Path(folder))
        whole = time.perf_counter() - start
    count = done.speed.images
    seconds = {name: value for name, (value,) in times.items()}
    seconds["the rest"] = whole - sum(seconds.values())
    print(f"{count} images, {args.device}, {args.precision}, {args.threads} threads: {count / whole:.2f} images/s")
    for name, value in {**seconds, "total": whole}.items():
        print(f"{name:24} {value:8.2f} s {1e3 * value / count:8.1f} ms per image {value / whole:7.1%}")
    if args.json is not None:
        args.json.write_text(json.dumps({"images": count, "seconds": seconds, "total": whole}, indent=1))


if __name__ == "__main__":
    main()
