"""An annotation file in parts, and its records all at once, are what they are one by one."""

import copy
import json
import random
from collections import Counter

import numpy as np
import pytest

from detectron_gn.mrcnn.data.annotations import parts, reader, stored
from detectron_gn.mrcnn.data.annotations.parts import AnnotationParts
from detectron_gn.mrcnn.data.annotations.reader import read_instances
from tests.helpers.damaged_annotations import REFUSED, TAKEN

DRAWN = "train_images.json"


def sound(data):
    return json.loads((data / DRAWN).read_text())


def read_by_rule(path, monkeypatch):
    """The file as the rules for one record make it."""
    with monkeypatch.context() as patched:
        patched.setattr(reader, "read_plain", lambda records, known: None)
        return read_instances(path)


def assert_same(ours, theirs):
    assert ours.faults == theirs.faults and Counter(ours.remarks) == Counter(theirs.remarks)
    assert ours.categories == theirs.categories and ours.images.records() == theirs.images.records()
    for (name, array), (_, expected) in zip(
        stored._arrays("", ours.columns), stored._arrays("", theirs.columns), strict=True
    ):
        np.testing.assert_array_equal(array, expected, err_msg=name)
    assert ours.columns.keypoints.odd == theirs.columns.keypoints.odd


@pytest.mark.parametrize("size", [1, 3000, parts.PART])
@pytest.mark.parametrize("name", [*TAKEN, *REFUSED])
def test_records_all_at_once_are_what_they_are_one_by_one_in_parts_of_any_size(name, size, data, tmp_path, monkeypatch):
    content = sound(data)
    {**TAKEN, **REFUSED}[name].change(content)
    path = tmp_path / "changed.json"
    path.write_text(json.dumps(content))
    expected = read_by_rule(path, monkeypatch)
    monkeypatch.setattr(parts, "PART", size)
    assert_same(read_instances(path), expected)


def test_changes_at_random_are_read_all_at_once_as_they_are_one_by_one(data, tmp_path, monkeypatch):
    draw, original = random.Random(3), sound(data)
    values = [
        None, True, 0, 1, -1, 2.5, 10**30, float("nan"), "3", [], [[]], {}, [1, 2], [1.0] * 6, [[0, 0, 9, 0, 9, 9]],
        [[5.0, 5.0] * 3], [[0, 0, 5, 5, 9, 9]], [[1, 1, 1, 1, 30, 30, 30, 1]], [[1e9, 0, 5, 5, 9, 0]],
        [[0, 0, 9, 0, 9, 9], [1, 2, 3, 4]], [["a", 1, 2, 3, 4, 5]], [0, 0, 9, 9], [-50, -50, 5, 5],
        {"counts": [], "size": [1, 1]}, [4, 5, 2] * 17, [4, 5, 2, 1],
    ]  # fmt: skip
    keys = "id image_id category_id bbox area iscrowd segmentation ignore keypoints num_keypoints".split()
    path, refused = tmp_path / "changed.json", 0
    for _ in range(300):
        content = copy.deepcopy(original)
        for _ in range(draw.choice([1, 1, 2, 5])):
            record = draw.choice(content["annotations"])
            record.pop(draw.choice(keys), None) if draw.random() < 0.2 else record.update(
                {draw.choice(keys): draw.choice(values)}
            )
        path.write_text(json.dumps(content))
        ours = read_instances(path)
        assert_same(ours, read_by_rule(path, monkeypatch))
        refused += bool(ours.faults)
    assert 50 < refused < 250


def test_a_sound_file_needs_no_rule_for_a_record(data, monkeypatch):
    monkeypatch.setattr(reader, "read_annotation", None)
    assert len(read_instances(data / DRAWN).columns) == 24


@pytest.mark.parametrize("size", [1, 700, parts.PART])
@pytest.mark.parametrize("indent", [None, 1])
def test_parts_hold_every_record_once_and_in_order(data, tmp_path, monkeypatch, size, indent):
    monkeypatch.setattr(parts, "PART", size)
    monkeypatch.setattr(parts, "_BLOCK", max(50, size))
    content = {"info": {"a": [1, {"b": '"}, {'}]}, **sound(data), "extra": [[], {}, -1.5e3, None], "number": 12}
    content["annotations"][0]["note"] = 'she said "}, {" \\ and é 漢'
    path = tmp_path / "parts.json"
    for text in (json.dumps(content, indent=indent), json.dumps(content, indent=indent, ensure_ascii=False)):
        for encoded in (text.encode(), b"\xef\xbb\xbf" + text.encode(), b" \n\t" + text.encode() + b"\r\n "):
            path.write_bytes(encoded)
            file = AnnotationParts(path)
            for key in ("images", "annotations", "categories"):
                read = list(file.parts(key))
                assert [each for part in read for each in part.exactly()] == content[key]
                assert [each for part in read for each in part.quickly()] == content[key]
                assert [part.before for part in read] == np.cumsum([0, *(len(p.exactly()) for p in read[:-1])]).tolist()
                assert file.count(key) == len(content[key])
            assert size > 1 or len(list(file.parts("annotations"))) == 24


def test_a_list_that_stands_twice_is_refused(data, tmp_path):
    path = tmp_path / "twice.json"
    path.write_text('{"images": [{"id": 1}], ' + (data / DRAWN).read_text().strip()[1:])
    with pytest.raises(reader.InputError, match="has 'images' twice, of which JSON readers take one"):
        read_instances(path)


def test_what_is_no_utf8_within_a_record_is_refused_with_its_place(data, tmp_path):
    path = tmp_path / "latin.json"
    text = (data / DRAWN).read_bytes()
    path.write_bytes(text.replace(b'"area"', b'"note": "caf\xe9", "area"', 1))
    with pytest.raises(reader.InputError, match=r"is not JSON \('utf-8' codec can't decode byte 0xe9"):
        read_instances(path)
