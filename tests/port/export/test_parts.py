"""Parts of an exported network by themselves: the image, levels, suppression, order, and what happens at ties."""

from collections.abc import Callable

import numpy as np
import pytest
import torch

from detectron_gn.mrcnn.config import Config, padding_stride, with_values
from detectron_gn.mrcnn.data.image_blob import image_blob, prepare_image
from detectron_gn.mrcnn.ops.nms import nms
from detectron_gn.mrcnn.ops.roi_levels import roi_levels
from detectron_gn.mrcnn.ops.soft_nms import soft_nms
from detectron_gn.port.export import boxes as export_boxes
from detectron_gn.port.export import pooling
from detectron_gn.port.export.graph import FLOAT, INT, Graph, Value
from detectron_gn.port.export.image import image_input
from detectron_gn.port.export.selection import select
from tests.helpers.exported import Arrays, run_session, session_of

SIZES = [
    (480, 640), (640, 480), (427, 640), (33, 500), (500, 33), (7, 7), (1, 1), (1200, 1601), (799, 1333), (90, 2000),
    (1000, 1000), (3, 40),
]  # fmt: skip


def run_graph(make: Callable[..., dict[str, Value]], **inputs: np.ndarray) -> Arrays:
    """The outputs of a graph that `make` builds of the inputs' values."""
    graph = Graph()
    given = {
        name: graph.input(f"given_{name}", array.dtype, [f"{name}{axis}" for axis in range(array.ndim)])
        for name, array in inputs.items()
    }
    for name, value in make(graph, **given).items():
        graph.output(value, name, None)
    feeds = {f"given_{name}": array for name, array in inputs.items()}
    return run_session(session_of(graph.model("test", {})), **feeds)


@pytest.mark.parametrize("size", SIZES, ids=lambda size: "x".join(map(str, size)))
def test_an_image_is_prepared_as_opencv_and_detectron_prepare_it(size: tuple[int, int]) -> None:
    cfg = with_values(Config(), {"FPN.FPN_ON": True, "TEST.SCALE": 400, "TEST.MAX_SIZE": 667})
    image = np.random.default_rng(size[0]).integers(0, 256, (*size, 3)).astype(np.uint8)
    graph = Graph()
    prepared = image_input(graph, cfg)
    for name in ("data", "scale"):
        graph.output(getattr(prepared, name), name, None)
    for values, name in ((prepared.network_size, "network"), (prepared.image_size, "image")):
        for side, value in zip(("height", "width"), values, strict=True):
            graph.output(value, f"{name}_{side}", None)
    found = run_session(session_of(graph.model("test", {})), image=image)
    wanted = prepare_image(image, cfg.PIXEL_MEANS, 400, 667)
    blob = image_blob([wanted.pixels], padding_stride(cfg)).numpy()
    assert found["data"].shape == blob.shape
    # OpenCV fuses a product and a sum into one rounding where the processor can.
    np.testing.assert_allclose(found["data"], blob, rtol=0, atol=5e-5)
    assert found["scale"] == np.float32(wanted.scale)
    assert [int(found[f"network_{side}"]) for side in ("height", "width")] == list(blob.shape[2:])
    assert [int(found[f"image_{side}"]) for side in ("height", "width")] == list(size)


def test_roi_levels_are_those_of_the_network() -> None:
    cfg = with_values(Config(), {"FPN.FPN_ON": True, "FPN.MULTILEVEL_ROIS": True})
    generator = torch.Generator().manual_seed(0)
    corners = torch.rand(5000, 4, generator=generator) * 900
    # Sides of exactly 112, 224 and 448, where the level changes, and boxes of no area.
    exact = torch.tensor([[10, 20, 10 + side - 1.0, 20 + side - 1.0] for side in (112, 223, 224, 225, 448, 1, 0)])
    rois = torch.cat((torch.cat((corners[:, :2], corners[:, :2] + corners[:, 2:]), dim=1), exact))
    found = run_graph(lambda graph, boxes: {"levels": pooling.roi_levels(boxes, cfg)}, boxes=rois.numpy())
    assert found["levels"].tolist() == roi_levels(rois, cfg).tolist()


@pytest.mark.parametrize("threshold", [0.3, 0.5, 0.7])
def test_suppression_is_the_networks_at_equal_overlap_too(threshold: float) -> None:
    generator = torch.Generator().manual_seed(1)
    # Whole numbers: many overlaps are exactly a half.
    corners = torch.randint(0, 12, (400, 4), generator=generator).float()
    boxes = torch.cat((corners[:, :2], corners[:, :2] + corners[:, 2:]), dim=1)
    scores = torch.rand(400, generator=generator)
    found = run_graph(
        lambda graph, boxes, scores: {"kept": export_boxes.suppressed(boxes, scores, threshold, above=0.0)[1]},
        boxes=boxes[None].numpy(), scores=scores[None].numpy(),
    )  # fmt: skip
    assert sorted(found["kept"].tolist()) == nms(boxes, scores, threshold).tolist()


def test_of_equal_scores_the_later_box_stays_as_in_detectron() -> None:
    boxes = torch.tensor([[0, 0, 9, 9], [0, 0, 9, 8], [0, 0, 9, 7.0]])
    scores = torch.full((3,), 0.5)
    found = run_graph(
        lambda graph, boxes, scores: {"kept": export_boxes.suppressed(boxes, scores, 0.5, above=0.0)[1]},
        boxes=boxes[None].numpy(), scores=scores[None].numpy(),
    )  # fmt: skip
    assert found["kept"].tolist() == nms(boxes, scores, 0.5).tolist() == [2]


@pytest.mark.parametrize("method", ["linear", "gaussian", "hard"])
def test_soft_nms_is_the_networks(method: str) -> None:
    cfg = with_values(
        Config(),
        {"TEST.SOFT_NMS.ENABLED": True, "TEST.SOFT_NMS.METHOD": method, "TEST.NMS": 0.4, "TEST.SCORE_THRESH": 0.1,
         "TEST.DETECTIONS_PER_IM": 0, "MODEL.NUM_CLASSES": 3},
    )  # fmt: skip
    generator = torch.Generator().manual_seed(2)
    corners = torch.rand(60, 3, 4, generator=generator) * 40
    boxes = torch.cat((corners[..., :2], corners[..., :2] + corners[..., 2:]), dim=2)
    scores = torch.rand(60, 3, generator=generator)
    found = run_graph(
        lambda graph, scores, boxes: select(scores, boxes, cfg)._asdict(), scores=scores.numpy(), boxes=boxes.numpy()
    )
    start = 0
    for label in (1, 2):
        above = scores[:, label] > 0.1
        kept, kept_scores, _ = soft_nms(
            boxes[above, label], scores[above, label], sigma=0.5, overlap_threshold=0.4, score_threshold=1e-4,
            method=method,
        )  # fmt: skip
        rows = slice(start, start + len(kept))
        assert set(found["classes"][rows].tolist()) == {label}
        np.testing.assert_allclose(found["boxes"][rows], kept.numpy(), rtol=0, atol=1e-5)
        np.testing.assert_allclose(found["scores"][rows], kept_scores.numpy(), rtol=1e-5)
        start += len(kept)
    assert start == len(found["scores"])


def test_all_that_score_as_high_as_the_last_one_are_kept() -> None:
    cfg = with_values(Config(), {"TEST.DETECTIONS_PER_IM": 2, "MODEL.NUM_CLASSES": 2, "TEST.SCORE_THRESH": 0.05})
    boxes = torch.tensor([[20.0 * row, 0, 20.0 * row + 9, 9] for row in range(4)])[:, None].expand(-1, 2, -1)
    cases = {(0.9, 0.5, 0.5, 0.5): 4, (0.9, 0.6, 0.5, 0.5): 2, (0.9, 0.01, 0, 0): 1, (0, 0, 0, 0): 0}
    for values, expected in cases.items():
        scores = torch.tensor([[1.0 - value, value] for value in values])
        found = run_graph(
            lambda graph, scores, boxes: select(scores, boxes, cfg)._asdict(),
            scores=scores.numpy(), boxes=boxes.contiguous().numpy(),
        )  # fmt: skip
        assert len(found["scores"]) == expected


def test_a_loop_reads_what_is_around_it_and_collects_its_rows() -> None:
    def make(graph: Graph, x: Value) -> dict[str, Value]:
        def body(inner: Graph, number: Value, carried: list[Value]) -> tuple[None, list[Value], list[Value]]:
            row = inner.op("Gather", x, number)
            return None, [carried[0] + row], [row * 2]

        total, rows = graph.loop(graph.const(3, INT), [graph.const(0, FLOAT)], body)
        return {"total": total, "rows": rows}

    found = run_graph(make, x=np.array([1, 2, 3, 4], np.float32))
    assert found["total"] == 6 and found["rows"].tolist() == [2, 4, 6]


def test_a_value_of_a_graph_inside_is_not_read_outside() -> None:
    graph, inner = Graph(), Graph()
    with pytest.raises(AssertionError):
        graph.op("Relu", inner.input("x", FLOAT, ()))
