"""Files of proposals that are none, or in other numbers than Detectron's, are refused with what they should be."""

import json
from pathlib import Path

import numpy as np
import pytest

from detectron_gn.mrcnn.errors import InputError
from detectron_gn.port.config.read import bundled_config
from detectron_gn.port.runs.proposals import stored_proposals
from detectron_gn.weights.errors import FileError
from detectron_gn.weights.formats.proposals_pickle import ProposalsPickle, write_proposals

FAST = bundled_config("fast_rcnn_R-50-FPN_1x")
CORNERS = np.array([[10, 20, 110, 60], [30, 5, 90, 99], [200, 100, 260, 180]], np.float32)


def stored(boxes: list[np.ndarray], path: Path) -> list[np.ndarray]:
    scores = [np.ones(len(each), np.float32) for each in boxes]
    write_proposals(path, ProposalsPickle(boxes, scores, list(range(1, len(boxes) + 1)), None))
    found = stored_proposals(FAST, path)
    assert found is not None
    return list(found.boxes)


def test_corners_in_pixels_are_taken_even_where_a_few_are_upside_down(tmp_path: Path) -> None:
    many = np.tile(CORNERS, (10, 1))
    many[7] = [50, 50, 40, 60]
    for boxes in ([CORNERS], [many, CORNERS[:1] / 300], [np.zeros((0, 4), np.float32)]):
        assert np.array_equal(np.concatenate(stored(boxes, tmp_path / "p.pkl")), np.concatenate(boxes))


@pytest.mark.parametrize(
    ("boxes", "told"),
    [
        ([CORNERS / 300, CORNERS[:1] / 400], "shares of the image: multiply them"),
        ([CORNERS - np.array([0, 0, 1, 1]) * CORNERS[:, [0, 1, 0, 1]]], "x, y, width and height: make them x1, y1"),
    ],
    ids=["shares", "width and height"],
)
def test_other_boxes_are_told(boxes: list[np.ndarray], told: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=f"p.pkl has boxes that look like {told}.*x1, y1, x2, y2 in pixels"):
        stored([each.astype(np.float32) for each in boxes], tmp_path / "p.pkl")


@pytest.mark.parametrize("content", [json.dumps([{"image_id": 1, "bbox": [1, 2, 3, 4]}]), " {}", "x1,y1\n1,2"])
def test_what_is_no_pickle_is_told(content: str, tmp_path: Path) -> None:
    path = tmp_path / "proposals.json"
    path.write_text(content)
    found = "no pickle" if content.startswith("x") else "JSON"
    with pytest.raises(FileError, match=f"is {found}, and proposals are a pickle as `test` of an RPN writes it"):
        stored_proposals(FAST, path)
