"""Rows of results as columns on the disk: their order by category, and what memory it takes."""

import tracemalloc

import numpy as np
import pytest

from detectron_gn.mrcnn.evaluation import result_columns
from detectron_gn.mrcnn.evaluation.result_columns import ResultColumns
from detectron_gn.mrcnn.evaluation.results_files import ResultRow


def row(image_id: int, category_id: int) -> ResultRow:
    return {"image_id": image_id, "category_id": category_id, "bbox": [0.0, 0.0, 1.0, 1.0], "score": 0.5}


@pytest.mark.parametrize("rows_at_a_time", [1, 3, 100])
def test_rows_are_put_in_order_part_by_part(monkeypatch: pytest.MonkeyPatch, rows_at_a_time: int) -> None:
    monkeypatch.setattr(result_columns, "_ROWS", rows_at_a_time)
    found = ResultColumns("bbox", [7, 5, 9])
    for image_id, category_id in [(2, 5), (1, 7), (1, 5), (2, 7), (1, 5), (3, 4), (1, 7)]:
        found.append(row(image_id, category_id))
    places, ends = found.by_category()
    # 7, 5, none of 9, and 4, which nobody announced.
    assert places.tolist() == [1, 3, 6, 0, 2, 4, 5] and ends.tolist() == [3, 6, 6, 7]
    told = [(each["category_id"], each["image_id"]) for each in found.sorted_rows()]
    assert told == [(7, 1), (7, 1), (7, 2), (5, 1), (5, 1), (5, 2), (4, 3)]


def test_no_rows_have_an_order_too() -> None:
    places, ends = ResultColumns("bbox", [1, 2]).by_category()
    assert places.tolist() == [] and ends.tolist() == [0, 0]
    assert list(ResultColumns("bbox").sorted_rows()) == []


def test_the_order_of_many_rows_lies_on_the_disk() -> None:
    """2,000,000 rows of 80 categories: sorted at one go they took 32 bytes each."""
    found, count = ResultColumns("bbox", range(80)), 2_000_000
    found._image.extend(np.zeros(count))
    found._category.extend(np.random.default_rng(0).integers(0, 80, count))
    tracemalloc.start()
    places, ends = found.by_category()
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 12 * 2**20 < count * 8
    category = found.category
    assert (np.diff(category[places]) >= 0).all() and ends[-1] == count
    assert (places == np.argsort(category, kind="stable")).all()
