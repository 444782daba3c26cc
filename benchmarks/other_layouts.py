"""What torchvision and timm compute with the files of `convert --layout`, beside our own networks.

`python -m benchmarks.other_layouts`, with torchvision and timm installed; `--directory` names a folder for some 2 GB of
random files of full size. Each file is converted, loaded with `strict=True` into the network that `convert` prints, and
run on a picture: logits of classifiers, maps of pyramids. Exit code 1 where a difference is above `--tolerance`.
`--tables` writes the names and shapes of all parameters of these networks, which the tests hold our files against.
"""

import argparse
import contextlib
import importlib
import io
import json
import lzma
import sys
import tempfile
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
import torch
from torch import Tensor

import detectron_gn
from benchmarks.common import affine_scale, picture
from benchmarks.help_text import FoldedHelp
from detectron_gn.mrcnn.backbones.classifier import CROP, crop_blob
from detectron_gn.mrcnn.data.image_blob import Image
from detectron_gn.mrcnn.tables import text_table
from detectron_gn.port.blobs.classifier import build_classifier
from detectron_gn.port.blobs.table import BlobRow, BlobTable
from detectron_gn.port.config.read import bundled_config, dump_config
from detectron_gn.port.runs.load import load_model
from detectron_gn.weights import read_blobs, write_blobs
from detectron_gn.weights.weights_file import Array, WeightsFile

# Multiples of 32, so that nothing is padded.
SIDES = (320, 480)


class Case(NamedTuple):
    """A network: what its file is called, the configuration that it is of, and whose layouts it goes to."""

    file: str
    config: str
    overrides: tuple[str, ...] = ()
    layouts: tuple[str, ...] = ("torchvision", "timm")
    head: str | None = "pred"


GN, BN = "e2e_mask_rcnn_{}-FPN_2x_gn", "e2e_mask_rcnn_{}-FPN_1x"
CASES = (
    Case("R-50-GN.pkl", GN.format("R-50")),
    Case("R-101-GN.pkl", GN.format("R-101")),
    Case("X-101-32x8d.pkl", BN.format("X-101-32x8d")),
    Case("X-101-64x4d.pkl", BN.format("X-101-64x4d")),
    Case("R-50, BN*, stride in the 3x3.pkl", BN.format("R-50"), ("RESNETS.STRIDE_1X1", "False")),
    Case("Mask R-CNN R-50-FPN GN.pkl", GN.format("R-50"), (), ("torchvision",), None),
    Case("Mask R-CNN X-101-32x8d-FPN.pkl", BN.format("X-101-32x8d"), (), ("torchvision",), None),
    Case("RetinaNet X-101-32x8d-FPN.pkl", "retinanet_X-101-32x8d-FPN_1x", (), ("torchvision",), None),
)


def main() -> int:
    """Compare all cases and print a line for each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=FoldedHelp)
    parser.add_argument("--directory", type=Path, help="where the files are made (default: a temporary folder)")
    parser.add_argument("--picture", type=Path, help="an image instead of coloured noise")
    parser.add_argument("--tolerance", type=float, default=1e-4, help="of logits and maps (default 1e-4)")
    parser.add_argument("--json", type=Path, help="write the rows here")
    parser.add_argument("--tables", type=Path, help="write names and shapes here (tests/data/other_layouts.json.xz)")
    args = parser.parse_args()
    image = cv2.imread(str(args.picture)) if args.picture else picture(480, 640)
    if image is None:
        parser.error(f"{args.picture} is no image")
    with contextlib.ExitStack() as stack:
        directory = args.directory or Path(stack.enter_context(tempfile.TemporaryDirectory()))
        rows = [row for case in CASES for row in compared(case, image, directory)]
    header = ["file", "layout", "arrays", "largest value", "largest difference"]
    cells = [[row["file"], row["layout"], str(row["arrays"]), f"{row['largest']:.3f}", f"{row['difference']:.1e}"]
             for row in rows]  # fmt: skip
    print(text_table(header, cells, left=2))
    if args.tables:
        tables = {row["network"]: row["shapes"] for row in rows}
        lines = (f"{json.dumps(network)}: {json.dumps(shapes)}" for network, shapes in tables.items())
        args.tables.write_bytes(lzma.compress(("{\n" + ",\n".join(lines) + "\n}\n").encode(), preset=9))
    if args.json:
        args.json.write_text(json.dumps(rows, indent=1))
    return int(any(row["difference"] > args.tolerance for row in rows))


@torch.inference_mode()
def compared(case: Case, image: Image, directory: Path) -> list[dict[str, Any]]:
    """What the other libraries' networks give that load the file of a case, a row for each."""
    source = directory / case.file
    write_blobs(source, random_file(case))
    ours, raw = (_classified if case.head else _pyramid)(case, source, image)
    rows = []
    for layout in case.layouts:
        out, told = directory / "converted.safetensors", directory / "told.json"
        arguments = ["convert", str(source), "--out", str(out), "--layout", layout, "--json", str(told)]
        if case.overrides:
            arguments += ["--config", case.config, "--set", *case.overrides]
        with contextlib.redirect_stdout(io.StringIO()):
            if detectron_gn.main(arguments):
                raise SystemExit(2)
        written = json.loads(told.read_text())
        model = _network(written["network"])
        model.load_state_dict(importlib.import_module("safetensors.torch").load_file(out), strict=True)
        mean, std = (torch.tensor(written[name])[:, None, None] for name in ("mean", "std"))
        theirs = model.eval()((raw.flip(1) / 255 - mean) / std)
        maps = list(theirs.values()) if isinstance(theirs, dict) else [theirs]
        if len(maps) != len(ours):
            raise SystemExit(f"{case.file}: {len(maps)} maps, not {len(ours)}")
        rows.append({
            "file": case.file,
            "layout": layout,
            "arrays": written["arrays"],
            "network": written["network"],
            "shapes": {name: list(tensor.shape) for name, tensor in model.state_dict().items()},
            "largest": max(float(each.abs().max()) for each in ours),
            "difference": max(float((a - b).abs().max()) for a, b in zip(ours, maps, strict=True)),
        })  # fmt: skip
        out.unlink()
    source.unlink()
    return rows


def random_file(case: Case) -> WeightsFile:
    """An ImageNet file or a detector of full width with random blobs that keep the size of the maps."""
    cfg = bundled_config(case.config, case.overrides)
    rng = np.random.default_rng(0)
    blobs = {
        row.blob: _filled(row, rng)
        for row in BlobTable.from_config(cfg).rows
        if case.head is None or row.parameter.startswith("backbone.body.")
    }
    if case.head is not None:
        blobs[f"{case.head}_w"] = (0.01 * rng.standard_normal((1000, 2048))).astype(np.float32)
        blobs[f"{case.head}_b"] = (0.1 * rng.standard_normal(1000)).astype(np.float32)
    return WeightsFile(blobs, None if case.head else dump_config(cfg), None, case.file, "pkl")


def _filled(row: BlobRow, rng: np.random.Generator) -> Array:
    normal = rng.standard_normal(row.shape, np.float32)
    if row.kind == "affine" and row.blob.endswith("_s"):
        scale = 0.01 if row.blob == "res_conv1_bn_s" else affine_scale("branch2c" in row.blob)
        return np.asarray(scale * (1 + 0.1 * normal), np.float32)
    if row.kind == "gn_scale":
        return np.asarray(1 + 0.1 * normal, np.float32)
    if row.kind == "weight":
        return np.asarray(np.sqrt(2 / np.prod(row.shape[1:])) * normal, np.float32)
    return np.asarray(0.1 * normal, np.float32)


def _network(expression: str) -> Any:
    """The network that `convert` names, made by just that text."""
    libraries = {"torch": torch}
    for name in ("torchvision", "timm"):
        if f"{name}." in expression:
            libraries[name] = importlib.import_module(name)
    if "torchvision" in libraries:
        importlib.import_module("torchvision.models.detection.backbone_utils")
    return eval(expression, libraries)


def _classified(case: Case, source: Path, image: Image) -> tuple[list[Tensor], Tensor]:
    """Our logits of an image, and its pixels, BGR in 0..255, before any mean was subtracted."""
    cfg = bundled_config(case.config, case.overrides) if case.overrides else None
    model = build_classifier(read_blobs(source), cfg)
    raw = crop_blob([image], (0.0, 0.0, 0.0))
    assert raw.shape[2:] == (CROP, CROP)
    # The mean of the trainer of all of these bodies.
    return [model(raw - torch.tensor([103.53, 116.28, 123.675])[:, None, None])], raw


def _pyramid(_case: Case, source: Path, image: Image) -> tuple[list[Tensor], Tensor]:
    """Our levels of an image, and its pixels as above."""
    model = load_model(source, device="cpu")
    raw = torch.from_numpy(cv2.resize(image, SIDES[::-1]).astype(np.float32)).permute(2, 0, 1)[None]
    means = torch.tensor(model.cfg.PIXEL_MEANS)[:, None, None]
    return list(model.backbone(raw - means).maps), raw


if __name__ == "__main__":
    sys.exit(main())
