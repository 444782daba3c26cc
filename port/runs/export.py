"""What an export needs around it: packages, files of either kind, and pictures to check it on."""

import importlib.util
from collections.abc import Callable, Sequence
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import numpy as np

from detectron_gn.mrcnn.config import padding_stride
from detectron_gn.mrcnn.data.image_blob import Image, image_scale, padded_size, scaled_size
from detectron_gn.mrcnn.data.read_image import read_image
from detectron_gn.mrcnn.detectors import Boxes, Detector
from detectron_gn.mrcnn.errors import InputError
from detectron_gn.port.runs.proposals import stored_proposals
from detectron_gn.port.runs.result_rows import image_ids

if TYPE_CHECKING:
    from detectron_gn.port.export.check import Exported
    from detectron_gn.port.export.metadata import InputForm

# The demo's pictures that are taken where none are given.
_OF_DEMO = 8
_ENDINGS = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff")


def check_export_options(out: Path, form: str | None, size: tuple[int, int] | None, check: bool) -> None:
    """Raise InputError where options do not go together, or a package is missing; both before any long work."""
    if out.suffix not in (".onnx", ".pt2"):
        raise InputError(f"{out} ends neither in .onnx nor in .pt2: give --out a name that does")
    if out.suffix == ".pt2":
        if form == "image":
            raise InputError("a .pt2 takes blobs, and no image: leave --input out, or export to .onnx")
        return
    if size is not None:
        raise InputError("--size is for .pt2: an .onnx takes all sizes")
    wanted = ["onnx", *(["onnxruntime"] if check else [])]
    missing = [name for name in wanted if importlib.util.find_spec(name) is None]
    if missing:
        without = ", or leave the check out with --no-check" if missing == ["onnxruntime"] else ""
        verb = "are" if len(missing) > 1 else "is"
        raise InputError(
            f"an .onnx needs {' and '.join(missing)}, which {verb} not installed: "
            f"pip install {' '.join(missing)}{without}"
        )


def exported(
    model: Detector, out: Path, source: Path, form: "InputForm", size: tuple[int, int] | None
) -> "tuple[list[Path], Callable[[], Exported]]":
    """Write the file; returns the files written, and what loads the network from them."""
    from detectron_gn.port.export.metadata import source_facts
    from detectron_gn.port.export.runtimes import OnnxDetector, ProgramDetector

    facts = source_facts(source)
    if out.suffix == ".pt2":
        from detectron_gn.port.export.torch_program import PaddedSize, write_program

        written = write_program(model, out, None if size is None else PaddedSize(*size), facts)
        return written, lambda: ProgramDetector(out)
    from detectron_gn.port.export.write import write_onnx

    return write_onnx(model, out, form, facts), lambda: OnnxDetector(out)


def checked_pictures(
    model: Detector, folder: Path | None, proposals: Path | None, size: tuple[int, int] | None
) -> list[tuple[str, Image, Boxes | None]]:
    """The pictures that an export is checked on, each with its name and its proposals where the model takes them.

    Args:
        folder: whose image files are taken, those in it alone; the demo's pictures where it is None.
        proposals: a `rpn_proposals.pkl`; without it boxes of three sizes all over the picture.
        size: height and width that the pictures are brought to, for a network of one size.

    Raises InputError for a folder without pictures, an unreadable one, proposals that a model does not take, and a size
    that the model pads no such picture to.
    """
    if size is not None:
        _check_size(model, size)
    if folder is None:
        # Data of the installed package; the demo's code is not asked.
        demo = files("detectron_gn.verify") / "demo_model" / "val"
        paths = sorted(Path(str(path)) for path in demo.iterdir())[:_OF_DEMO]
    else:
        paths = _pictures_in(folder)
    if proposals is not None:
        model.check_proposals(given=True)
    stored = None if proposals is None else stored_proposals(model.cfg, proposals)
    found: list[tuple[str, Image, Boxes | None]] = []
    for path, image_id in zip(paths, image_ids(paths), strict=True):
        image = read_image(path)
        if size is not None:
            image = np.asarray(cv2.resize(image, (size[1], size[0])), dtype=np.uint8)
        boxes = None
        if model.takes_proposals:
            height, width = image.shape[:2]
            if stored is None:
                boxes = _all_over(height, width)
            else:
                boxes = stored.of_image(image_id, height, width, model.cfg.TEST.PROPOSAL_LIMIT)
        found.append((path.name, image, boxes))
    return found


def check_not_too_narrow(model: Detector, pictures: Sequence[tuple[str, Image, Boxes | None]]) -> None:
    """Raise InputError for a picture that a program of all sizes does not take."""
    from detectron_gn.port.export.torch_program import LEAST_STRIDES

    test, stride = model.cfg.TEST, padding_stride(model.cfg)
    for name, image, _ in pictures:
        height, width = image.shape[:2]
        scale = image_scale(height, width, test.SCALE, test.MAX_SIZE)
        padded = padded_size(*scaled_size(height, width, scale), stride)
        if min(padded) < LEAST_STRIDES * stride:
            raise InputError(
                f"{name} is padded to {padded[0]}x{padded[1]}, and a .pt2 of all sizes takes sides from "
                f"{LEAST_STRIDES * stride}: leave it out of --images, or export to .onnx"
            )


def _check_size(model: Detector, size: tuple[int, int]) -> None:
    test = model.cfg.TEST
    scale = image_scale(*size, test.SCALE, test.MAX_SIZE)
    padded = padded_size(*scaled_size(*size, scale), padding_stride(model.cfg))
    if padded != size:
        raise InputError(
            f"--size {size[0]}x{size[1]}: with TEST.SCALE {test.SCALE} and TEST.MAX_SIZE {test.MAX_SIZE} a picture of "
            f"that shape is padded to {padded[0]}x{padded[1]}: give that, or --set TEST.SCALE and TEST.MAX_SIZE"
        )


def _pictures_in(folder: Path) -> list[Path]:
    if not folder.is_dir():
        raise InputError(f"{folder} is no folder: give --images a folder of pictures")
    try:
        paths = sorted(path for path in folder.iterdir() if path.suffix.lower() in _ENDINGS)
    except OSError as error:
        raise InputError(f"{folder} cannot be read: {error.strerror or error}") from None
    if not paths:
        raise InputError(f"{folder} holds no picture ({', '.join(_ENDINGS)}): give --images another folder")
    return paths


def _all_over(height: int, width: int) -> Boxes:
    """Boxes `[84, 4]` of three sizes in regular places of a picture."""
    boxes = []
    for parts in (2, 4, 8):
        for row in range(parts):
            for column in range(parts):
                x, y = column * width / parts, row * height / parts
                boxes.append((x, y, x + width / parts - 1, y + height / parts - 1))
    return np.clip(np.array(boxes, dtype=np.float32), 0, None)
