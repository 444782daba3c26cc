"""Box arithmetic with inclusive corners is Detectron's: decode, encode, clip, overlap, expand and flip."""

import ast
import re
from pathlib import Path

import numpy as np
import pytest
import torch

from detectron_gn.mrcnn.ops import boxes as bx

ROOT = Path(__file__).parents[3]

WEIGHTS = {"rpn": (1.0, 1.0, 1.0, 1.0), "fast_rcnn": (10.0, 10.0, 5.0, 5.0)}


def tensor(dataset):
    return torch.from_numpy(dataset[:])


@pytest.mark.parametrize("coder", WEIGHTS)
def test_decoded_boxes_are_detectrons(ops, coder):
    group = ops["bbox_transform"]
    ours = bx.decode_boxes(tensor(group["boxes"]), tensor(group["deltas"]), WEIGHTS[coder])
    np.testing.assert_allclose(ours.numpy(), group[coder][:], rtol=2e-6, atol=2e-3)


@pytest.mark.parametrize("coder", WEIGHTS)
def test_encoded_boxes_are_detectrons(ops, coder):
    group = ops["bbox_transform_inv"]
    ours = bx.encode_boxes(tensor(group["boxes"]), tensor(group["gt_boxes"]), WEIGHTS[coder])
    np.testing.assert_allclose(ours.numpy(), group[coder][:], rtol=1e-5, atol=1e-5)


def test_decoding_by_hand_subtracts_one_at_the_far_corner():
    # A box of 10 x 20 pixels; dx = 0.1 moves it one pixel, dw = log 2 doubles its width.
    box = torch.tensor([[0.0, 0.0, 9.0, 19.0]])
    delta = torch.tensor([[0.1, 0.0, np.log(2.0), 0.0]])
    decoded = bx.decode_boxes(box, delta, WEIGHTS["rpn"])
    np.testing.assert_allclose(decoded.numpy(), [[-4.0, 0.0, 15.0, 19.0]], atol=1e-5)


def test_growth_is_limited_from_above_only():
    box = torch.tensor([[0.0, 0.0, 15.0, 15.0]])
    grown = bx.decode_boxes(box, torch.tensor([[0.0, 0.0, 50.0, -50.0]]), WEIGHTS["rpn"])
    width, height = (float(side) for side in bx.box_sides(grown))
    assert width == pytest.approx(1000.0, rel=1e-5)
    assert height == pytest.approx(0.0, abs=1e-5)


def test_clipped_boxes_are_detectrons(ops):
    group = ops["clip_tiled_boxes"]
    height, width = group.attrs["im_shape"]
    ours = bx.clip_boxes(tensor(group["boxes"]), int(height), int(width))
    np.testing.assert_array_equal(ours.numpy(), group["out"][:])


def test_overlaps_are_detectrons(ops):
    group = ops["bbox_overlaps"]
    ours = bx.box_overlaps(tensor(group["a"]), tensor(group["b"]))
    np.testing.assert_array_equal(ours.numpy(), group["iou"][:])


def test_boxes_that_share_one_pixel_column_overlap():
    # 5 x 5 pixels each, one common column of 5: 5 / (25 + 25 - 5).
    a, b = torch.tensor([[0.0, 0.0, 4.0, 4.0]]), torch.tensor([[4.0, 0.0, 8.0, 4.0]])
    assert bx.box_overlaps(a, b).item() == pytest.approx(5 / 45)


def test_expanded_boxes_are_detectrons(ops):
    group = ops["expand_boxes"]
    ours = bx.expand_boxes(tensor(group["boxes"]), 30.0 / 28.0)
    assert ours.dtype == torch.float64
    np.testing.assert_array_equal(ours.numpy(), group["out"][:])


def test_flipping_twice_changes_nothing_and_once_mirrors():
    boxes = torch.tensor([[2.0, 3.0, 10.0, 12.0]])
    assert bx.flip_boxes(boxes, 20).tolist() == [[9.0, 3.0, 17.0, 12.0]]
    assert torch.equal(bx.flip_boxes(bx.flip_boxes(boxes, 20), 20), boxes)


def test_coco_boxes_lose_and_regain_one_pixel():
    assert bx.xywh_to_xyxy(5.0, 6.0, 10.0, 20.0) == (5.0, 6.0, 14.0, 25.0)
    assert bx.xywh_to_xyxy(5.0, 6.0, 0.5, 0.0) == (5.0, 6.0, 5.0, 6.0)
    boxes = np.array([[5.0, 6.0, 14.0, 25.0], [5.0, 6.0, 5.0, 6.0]])
    assert bx.xyxy_to_xywh(boxes).tolist() == [[5.0, 6.0, 10.0, 20.0], [5.0, 6.0, 1.0, 1.0]]


# `last - first + 1` and `last + 1` of a box's corners, or `x + width - 1`, as code and not in a string.
PLUS_ONE = re.compile(
    r"\b[xy]2 - [xy]1 \+ 1\b|\[[^]]*2:\] - [^+]* \+ 1\b|\b[xy]2 \+ 1\b|\b[xy]1? \+ (box_)?(width|height) - 1\b"
)


def sums(path):
    """Every sum and difference in the code of a module, without its strings and comments."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.BinOp):
            yield ast.unparse(node)


def test_no_other_module_counts_the_pixels_of_a_side():
    rooms = [path for room in ("mrcnn", "port", "verify") for path in (ROOT / room).rglob("*.py")]
    own = [ROOT / "mrcnn" / "ops" / "boxes.py", ROOT / "verify" / "reference" / "dump_blobs.py"]
    assert PLUS_ONE.search("x2 - x1 + 1") and PLUS_ONE.search("boxes[:, 2:] - boxes[:, :2] + 1")
    found = [f"{path}: {line}" for path in rooms if path not in own for line in sums(path) if PLUS_ONE.search(line)]
    assert found == []
