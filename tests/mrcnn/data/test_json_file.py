"""A file that is no COCO annotation file is called what it is, with a way out."""

import gzip
import io
import json
import pickle
import zipfile

import pytest

from detectron_gn.mrcnn.data.annotations.json_file import read_annotation_file
from detectron_gn.mrcnn.errors import InputError

COCO = {"images": [], "annotations": [], "categories": []}
ROW = {"image_id": 1, "category_id": 1, "bbox": [1, 2, 3, 4]}
VIA = {"a.jpg17": {"filename": "a.jpg", "size": 17, "regions": []}}


def zipped():
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("a.json", "{}")
    return file.getvalue()


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (gzip.compress(b"{}", mtime=0), r"is not JSON but a file compressed with gzip: unpack it"),
        (zipped(), r"is not JSON but a ZIP archive: unpack it"),
        (pickle.dumps({"all_boxes": []}, 2), r"is not JSON but a pickle; .* beside its detections\.pkl: bbox_\.\.\._"),
        (b"", r"is not JSON but an empty file"),
        (b" \n", r"is not JSON but an empty file"),
        (b"\xef\xbb\xbf<annotation><folder>x</folder>", r"is not JSON but XML or HTML: let the tool"),
        (b"<html>404</html>", r"is not JSON but XML or HTML"),
        (b'{"a": 1}\n{"a": 2}\n', r"is not JSON but several JSON values one after another, the second from"),
        (json.dumps(COCO).encode() * 2, r"several JSON values"),
        (b"a.jpg,1,2,3,4,circle\n", r"is not JSON \(Expecting value"),
        (json.dumps(COCO)[:-1].encode(), r"is not JSON \(Expecting"),
        (json.dumps([COCO]).encode(), r"a JSON list around an annotation file: take the outermost brackets away"),
        (json.dumps([ROW]).encode(), r"a JSON list, the 'annotations' alone: put them into an object"),
        (json.dumps([{**ROW, "score": 0.5}]).encode(), r"a JSON list of detections: give it to `score` as RESULTS"),
        (b"[]", r"a JSON list: a COCO annotation file holds an object"),
        (b"7", r"a JSON int: a COCO annotation file holds an object"),
        (json.dumps({"shapes": [], "imagePath": "a.jpg"}).encode(), r"is of LabelMe, not of COCO's form: convert it"),
        (json.dumps(VIA).encode(), r"is of the VGG Image Annotator, not of COCO's form"),
        (json.dumps({"_via_img_metadata": VIA}).encode(), r"is of the VGG Image Annotator"),
        (b"{}", r"has no 'images'"),
    ],
)
def test_it_is_called_what_it_is(content, sentence, tmp_path):
    path = tmp_path / "a.json"
    path.write_bytes(content)
    with pytest.raises(InputError, match=rf"a\.json .*{sentence}|a\.json {sentence}"):
        read_annotation_file(path)


def test_a_coco_file_with_keys_of_another_tool_is_read(tmp_path):
    path = tmp_path / "a.json"
    path.write_text(json.dumps({**COCO, "shapes": [], "imagePath": "x"}))
    assert read_annotation_file(path)["images"] == []
