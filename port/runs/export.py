"""What an export needs around it: packages, and pictures to check it on."""

import importlib.util
import os
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path

import numpy as np

from detectron_gn.mrcnn.data.image_blob import Image
from detectron_gn.mrcnn.data.read_image import read_image
from detectron_gn.mrcnn.detectors import Boxes, Detector
from detectron_gn.mrcnn.errors import InputError
from detectron_gn.port.runs.detect import image_ids
from detectron_gn.port.runs.proposals import stored_proposals

# The demo's pictures that are taken where none are given: of all shapes that it has.
_OF_DEMO = 8
_ENDINGS = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff")


def export_packages(check: bool) -> None:
    """Raise InputError, with the command that helps, where a package that an export needs is not installed."""
    wanted = ["onnx", *(["onnxruntime"] if check else [])]
    missing = [name for name in wanted if importlib.util.find_spec(name) is None]
    if missing:
        without = ", or leave the check out with --no-check" if missing == ["onnxruntime"] else ""
        raise InputError(
            f"{' and '.join(missing)} is needed for an export and is not installed: "
            f"pip install 'detectron-gn[export]'{without}"
        )


def refuse_inputs_as_output(out: Path, given: Sequence[str | Path | None]) -> None:
    """Raise InputError where what is written would take the place of what is read."""
    for path in given:
        if path is not None and os.path.exists(path) and os.path.realpath(path) == os.path.realpath(out):
            raise InputError(f"{path} is to be read, and the export would be written over it: pass another --out")


def checked_pictures(
    model: Detector, folder: Path | None, proposals: Path | None
) -> list[tuple[str, Image, Boxes | None]]:
    """The pictures that an export is checked on, each with its name and its proposals where the model takes them.

    Args:
        folder: whose image files are taken, those in it alone; the demo's pictures where it is None.
        proposals: a `rpn_proposals.pkl`; without it boxes of three sizes all over the picture.

    Raises InputError for a folder without pictures, an unreadable one, and proposals that a model does not take.
    """
    if folder is None:
        # Data of the installed package; the demo's code is not asked.
        demo = files("detectron_gn.verify") / "demo_model" / "val"
        paths = sorted(Path(str(path)) for path in demo.iterdir())[:_OF_DEMO]
    else:
        if not folder.is_dir():
            raise InputError(f"{folder} is no folder: give --images a folder of pictures")
        paths = sorted(path for path in folder.iterdir() if path.suffix.lower() in _ENDINGS)
        if not paths:
            raise InputError(f"{folder} holds no picture ({', '.join(_ENDINGS)}): give --images another folder")
    if proposals is not None:
        model.check_proposals(given=True)
    stored = None if proposals is None else stored_proposals(model.cfg, proposals)
    found: list[tuple[str, Image, Boxes | None]] = []
    for path, image_id in zip(paths, image_ids(paths), strict=True):
        image = read_image(path)
        boxes = None
        if model.takes_proposals:
            height, width = image.shape[:2]
            if stored is None:
                boxes = _all_over(height, width)
            else:
                boxes = stored.of_image(image_id, height, width, model.cfg.TEST.PROPOSAL_LIMIT)
        found.append((path.name, image, boxes))
    return found


def _all_over(height: int, width: int) -> Boxes:
    """Boxes `[84, 4]` of three sizes in regular places of a picture."""
    boxes = []
    for parts in (2, 4, 8):
        for row in range(parts):
            for column in range(parts):
                x, y = column * width / parts, row * height / parts
                boxes.append((x, y, x + width / parts - 1, y + height / parts - 1))
    return np.clip(np.array(boxes, dtype=np.float32), 0, None)
