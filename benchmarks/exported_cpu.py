"""How fast an exported network is in ONNX Runtime, OpenVINO and torch, beside ours, on a CPU.

    python -m benchmarks.exported_cpu [--config NAME] [--rounds 5] [--threads 2] [--compiled] [--demo] [--json FILE]

One synthetic 800 x 1200 picture, random weights, 1000 proposals, 100 detections; from the decoded image to soft masks
or keypoints. With --demo the embedded model and its first picture, of 180 x 155.

Every side lives in a process of its own and they take turns. OpenVINO takes part where it is installed
(`pip install openvino`), with float32 asked for; the program of torch.export where the network can be one (its picture
is prepared beforehand), and with --compiled what AOTInductor makes of it. Of ONNX Runtime a profile tells the stages.
"""

import argparse
import importlib.util
import json
import lzma
import subprocess
import sys
import tempfile
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch._inductor as inductor

import detectron_gn
from benchmarks import common
from benchmarks.common import Seconds, seconds, timed_parts
from benchmarks.inference_cpu import inference_parts, random_model, spread_scores
from detectron_gn import verify
from detectron_gn.mrcnn.data.image_blob import Image
from detectron_gn.mrcnn.data.read_image import read_image
from detectron_gn.mrcnn.detectors import Detector
from detectron_gn.mrcnn.inference.static_shapes import supports_static_shapes
from detectron_gn.mrcnn.memory import keep_freed_memory

OURS, ORT, OPENVINO, PROGRAM, COMPILED = "ours", "ONNX Runtime", "OpenVINO", "torch.export", "AOTInductor"
HEIGHT, WIDTH = 800, 1200


def main() -> None:
    parser = common.options(__doc__)
    parser.add_argument("--compiled", action="store_true", help="compile the program of torch.export too")
    parser.add_argument("--demo", action="store_true", help="the embedded model and one of its pictures instead")
    parser.add_argument("--side", nargs=2, metavar=("NAME", "FOLDER"), help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.side is not None:
        serve(args, args.side[0], Path(args.side[1]))
        return
    with tempfile.TemporaryDirectory() as folder:
        names = export(args, Path(folder))
        sides = {name: start(name, args, folder) for name in names}
        for side in sides.values():
            answer(side)
        times: Seconds = {name: [] for name in names}
        for _ in common.turns(args.rounds):
            for name, side in sides.items():
                times[name].append(ask(side, "turn"))
        stages = {name: ask(sides[name], "stages") for name in (OURS, ORT)}
        for side in sides.values():
            side.communicate()
    print(f"{'the embedded model' if args.demo else args.config}, {args.threads} threads")
    common.print_medians(times)
    ratios = {name: common.paired_ratio(times[name], times[OURS]) for name in names[1:]}
    for name, ratio in ratios.items():
        print(f"{name + ' / ours':32} {ratio:8.3f}     (median of {args.rounds} pairs)")
    for name, parts in stages.items():
        print(f"{name}, by stage:")
        for part, value in parts.items():
            print(f"  {part:28} {1e3 * value:8.0f} ms")
    if args.json is not None:
        args.json.write_text(json.dumps({"seconds": times, "ratios": ratios, "stages": stages}))


def export(args: argparse.Namespace, folder: Path) -> list[str]:
    """Write what the sides run; returns the sides that there are."""
    from detectron_gn.port.export.torch_program import PaddedSize, write_program
    from detectron_gn.port.export.write import write_onnx

    common.set_up(args)
    image, model = _demo() if args.demo else _random(args.config)
    np.save(folder / "picture.npy", image)
    torch.save(model, folder / "model.pth")
    write_onnx(model, folder / "model.onnx", "image", {})
    names = [OURS, ORT]
    if importlib.util.find_spec("openvino") is not None:
        names.append(OPENVINO)
    if supports_static_shapes(model.cfg):
        height, width = model.network_input([image]).data.shape[2:]
        write_program(model, folder / "model.pt2", PaddedSize(height, width), {})
        names.append(PROGRAM)
        if args.compiled:
            program = torch.export.load(folder / "model.pt2")
            inductor.aoti_compile_and_package(program, package_path=str(folder / "compiled.pt2"))
            names.append(COMPILED)
    return names


def _random(config: str) -> tuple[Image, Detector]:
    image, model = common.picture(HEIGHT, WIDTH), random_model(config)
    spread_scores(model, image)
    return image, model


def _demo() -> tuple[Image, Detector]:
    folder = Path(verify.__file__).with_name("demo_model")
    with tempfile.NamedTemporaryFile(suffix=".pkl") as file:
        file.write(lzma.decompress((folder / "model_final.pkl.xz").read_bytes()))
        file.flush()
        return read_image(min((folder / "val").iterdir())), detectron_gn.load(file.name, device="cpu")


def start(name: str, args: argparse.Namespace, folder: str) -> "subprocess.Popen[str]":
    """A process that is one of the sides."""
    command = [sys.executable, "-m", "benchmarks.exported_cpu", "--side", name, folder, "--threads", str(args.threads)]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def ask(side: "subprocess.Popen[str]", question: str) -> Any:
    """The answer of a side to `turn` or `stages`."""
    assert side.stdin is not None
    print(question, file=side.stdin, flush=True)
    return answer(side)


def answer(side: "subprocess.Popen[str]") -> Any:
    """The next line that a side says."""
    assert side.stdout is not None
    return json.loads(side.stdout.readline())


def serve(args: argparse.Namespace, name: str, folder: Path) -> None:
    """Be one side: a line when it is ready, then an answer to each line of the input."""
    common.set_up(args)
    keep_freed_memory()
    image = np.load(folder / "picture.npy")
    detect, stages = {
        OURS: ours, ORT: in_onnx_runtime, OPENVINO: in_openvino, PROGRAM: in_torch, COMPILED: in_torch_compiled
    }[name](folder, image, args.threads)  # fmt: skip
    for _ in range(2):
        found = detect()
    print(json.dumps(found), flush=True)
    for question in sys.stdin:
        print(json.dumps(stages() if question.strip() == "stages" else seconds(detect)), flush=True)


Side = tuple[Callable[[], int], Callable[[], dict[str, float]]]


def ours(folder: Path, image: Image, threads: int) -> Side:
    """The PyTorch network as `detect` runs it."""
    model = torch.load(folder / "model.pth", weights_only=False)
    parts = inference_parts(model)
    parts = {name: part for name, part in parts.items() if name != "paste and run lengths"}

    def stages() -> dict[str, float]:
        times: Seconds = {}
        with timed_parts(parts, times):
            model.detect(image)
        return {name: values[0] for name, values in times.items()}

    return lambda: len(model.detect(image)), stages


def in_onnx_runtime(folder: Path, image: Image, threads: int) -> Side:
    """ONNX Runtime's CPU provider; the stages are read off a profile of a session of its own."""
    import onnxruntime

    def session(profile: bool) -> Any:
        options = onnxruntime.SessionOptions()
        options.log_severity_level, options.intra_op_num_threads = 3, threads
        options.enable_profiling = profile
        options.profile_file_prefix = str(folder / "profile")
        return onnxruntime.InferenceSession(
            str(folder / "model.onnx"), options, providers=["CPUExecutionProvider"]
        )

    plain = session(profile=False)

    def stages() -> dict[str, float]:
        profiled = session(profile=True)
        for _ in range(2):
            profiled.run(None, {"image": image})
        return _stages_of(Path(profiled.end_profiling()))

    return lambda: len(plain.run(None, {"image": image})[1]), stages


def _stages_of(profile: Path) -> dict[str, float]:
    """Seconds of each stage in the last run of a profile."""
    events = json.loads(profile.read_text())
    starts = [event["ts"] for event in events if event["name"] == "model_run"]
    times: dict[str, float] = defaultdict(float)
    for event in events:
        if event["name"].endswith("_kernel_time") and event["ts"] >= max(starts):
            stage, slash, _ = event["name"].removeprefix("fused ").partition("/")
            times[stage if slash else "layouts and the rest"] += event["dur"] / 1e6
    return dict(times)


def in_openvino(folder: Path, image: Image, threads: int) -> Side:
    """OpenVINO on the CPU, in float32."""
    import openvino

    core = openvino.Core()
    options = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": threads}
    network = core.compile_model(core.read_model(folder / "model.onnx"), "CPU", options)
    return lambda: len(network([image])["scores"]), dict


def in_torch(folder: Path, image: Image, threads: int) -> Side:
    """The program of torch.export."""
    return _in_torch(torch.export.load(folder / "model.pt2").module(), folder, image)


def in_torch_compiled(folder: Path, image: Image, threads: int) -> Side:
    """What AOTInductor makes of the program."""
    return _in_torch(inductor.aoti_load_package(str(folder / "compiled.pt2")), folder, image)


def _in_torch(network: Callable[..., Any], folder: Path, image: Image) -> Side:
    model = torch.load(folder / "model.pth", weights_only=False)
    batch = model.network_input([image])
    feeds = {
        "data": batch.data.contiguous(),
        "im_info": torch.tensor([batch.im_info[0]]),
        "image_size": torch.from_numpy(np.array(image.shape[:2], np.float32)),
    }

    @torch.no_grad()
    def detect() -> int:
        return int(network(**feeds)["count"])

    return detect, dict


if __name__ == "__main__":
    main()
