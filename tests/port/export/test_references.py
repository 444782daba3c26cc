"""Exported networks beside Caffe2's references: every detection of every family, mask and keypoint."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import h5py
import numpy as np
import numpy.typing as npt
import pytest

from detectron_gn.mrcnn.detectors import Detector
from detectron_gn.mrcnn.inference.tta import is_augmented
from detectron_gn.mrcnn.ops.pairs import pair_boxes
from tests.helpers.exported import Arrays, run_exported
from tests.helpers.zoo_reference import variants, zoo_config, zoo_model

DATA = Path(__file__).parents[2] / "data" / "zoo"
SMALL = sorted(path.stem for path in DATA.glob("*.h5") if not path.stem.startswith("ops_"))
PHOTOS = [
    "agnostic", "fast_c4", "fast_fpn", "faster_c4", "faster_fpn", "faster_x101", "keypoint", "keypoint_prop", "mask_c4",
    "mask_c4_prop", "mask_fpn_prop", "mask_x101", "mask_x152", "post", "retinanet", "retinanet_other", "retinanet_x101",
    "rpn_c4", "rpn_fpn", "tta_fast", "tta_keypoint", "tta_mask", "vgg",
]  # fmt: skip
PIXELS, SCORE = 0.05, 1e-3


def with_config(model: Detector, cfg: Any) -> Detector:
    """The same weights under a variant's options, which change nothing of the network itself."""
    for module in model.modules():
        if hasattr(module, "cfg"):
            module.cfg = cfg
    return model


def images_of(path: Path, folders: list[Path]) -> Iterator[tuple[Detector, npt.NDArray[np.uint8], h5py.Group, Any]]:
    """The model, the image, the reference's results and the proposals, of each image and variant that is no TTA."""
    with h5py.File(path) as file:
        model, cfg = zoo_model(path), zoo_config(file)
        for name in file:
            image = next(cv2.imread(str(folder / name)) for folder in folders if (folder / name).exists())
            own = variants(file, name, cfg) if "variants" in file[name] else [("base", cfg, file[name])]
            for _, variant, group in own:
                if not is_augmented(variant):
                    given = file[name]["proposals"][:] if model.takes_proposals else None
                    yield with_config(model, variant), image, group, given


def assert_agrees(model: Detector, image: npt.NDArray[np.uint8], group: h5py.Group, proposals: Any) -> None:
    found = run_exported(model, image, proposals)
    ours = model.detect(image, proposals)
    assert len(ours) > 0
    assert_same(found, {"boxes": ours.boxes, "scores": ours.scores, "classes": ours.classes})
    if "det_boxes" in group:
        assert_same(found, {name: group[f"det_{name}"][:] for name in ("boxes", "scores", "classes")})
        assert len(group["det_boxes"]) > 0
    pairs = pair_boxes(found["boxes"], found["classes"], ours.boxes, ours.classes)
    if ours.mask_probs is not None:
        np.testing.assert_allclose(found["mask_probs"][pairs[:, 0]], ours.mask_probs[pairs[:, 1]], rtol=0, atol=2e-3)
    if ours.keypoints is not None:
        points = ours.keypoints[:, :3].transpose(0, 2, 1)[pairs[:, 1]]
        # Where two places of a heatmap are nearly as large, rounding decides; not in these.
        np.testing.assert_allclose(found["keypoints"][pairs[:, 0]], points, rtol=0, atol=0.01)


def assert_same(found: Arrays, wanted: Arrays) -> None:
    """Every detection has its partner, and both lists stand in the same order but for what scores the same."""
    assert len(found["scores"]) == len(wanted["scores"])
    pairs = pair_boxes(found["boxes"], found["classes"], wanted["boxes"], wanted["classes"], PIXELS)
    assert len(pairs) == len(wanted["scores"])
    np.testing.assert_allclose(found["scores"][pairs[:, 0]], wanted["scores"][pairs[:, 1]], rtol=0, atol=SCORE)


@pytest.mark.parametrize("name", SMALL)
def test_an_exported_network_finds_what_caffe2_finds(name: str, demo_model: Path) -> None:
    seen = 0
    for case in images_of(DATA / f"{name}.h5", [demo_model / "val"]):
        assert_agrees(*case)
        seen += 1
    assert seen


@pytest.mark.slow
@pytest.mark.parametrize("name", PHOTOS)
def test_an_exported_network_finds_in_photos_what_caffe2_finds(name: str, shared: Path) -> None:
    seen = 0
    for case in images_of(shared / "parity" / "zoo" / f"{name}.h5", [shared / "data" / "coco_ccby" / "val2017"]):
        assert_agrees(*case)
        seen += 1
    assert seen
