"""One rule for annotation files: what `check-data` takes, `train`, `test` and `score` take, and the other way round."""

import copy
import json
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pycocotools.mask
import pytest
import torch

from detectron_gn.mrcnn.config import Config, with_values
from detectron_gn.mrcnn.data.coco import read_dataset
from detectron_gn.mrcnn.data.minibatch import load_minibatch
from detectron_gn.mrcnn.data.roidb import training_roidb
from detectron_gn.mrcnn.data.segms import decode_rle
from detectron_gn.mrcnn.errors import InputError
from detectron_gn.mrcnn.evaluation import evaluate as evaluation
from detectron_gn.mrcnn.evaluation.coco_results import ImageResults
from detectron_gn.mrcnn.inference.predict import Predicted
from detectron_gn.mrcnn.training.roi_targets import _mask_targets
from tests.helpers.damaged_annotations import REFUSED, TAKEN, Case

SIZE = (60, 80)
CLASSES = 3


def square(number, image_id, category_id, x, y, side, **fields):
    outline = [float(c) for c in (x, y, x + side, y, x + side, y + side, x, y + side)]
    return {
        "id": number, "image_id": image_id, "category_id": category_id, "iscrowd": 0, "area": float(side * side),
        "bbox": [float(x), float(y), float(side), float(side)], "segmentation": [outline], **fields,
    }  # fmt: skip


@pytest.fixture(scope="module")
def sound(tmp_path_factory):
    """The content of a sound file, and the folder of its images."""
    folder = tmp_path_factory.mktemp("images")
    for number in (1, 2, 3):
        cv2.imwrite(str(folder / f"{number}.png"), np.full((*SIZE, 3), 40 * number, np.uint8))
    crowd = {"counts": [80 * 30, 60, 60 * 80 - 80 * 30 - 60], "size": list(SIZE)}
    return folder, {
        "images": [{"id": n, "file_name": f"{n}.png", "height": SIZE[0], "width": SIZE[1]} for n in (1, 2, 3)],
        "categories": [{"id": 3, "name": "circle"}, {"id": 17, "name": "square"}],
        "annotations": [
            square(1, 1, 3, 10, 10, 20),
            square(2, 1, 17, 30, 25, 30),
            square(3, 2, 3, 35, 20, 24),
            square(4, 3, 17, 40, 0, 1, iscrowd=1, bbox=[40.0, 0.0, 1.0, 60.0], area=60.0, segmentation=crowd),
        ],
    }


def perfect_rows(content, iou_type):
    """Results that find every object of a sound file."""
    rows = []
    for each in content["annotations"]:
        if not each["iscrowd"]:
            row = {"image_id": each["image_id"], "category_id": each["category_id"], "score": 0.9}
            if iou_type == "bbox":
                row["bbox"] = each["bbox"]
            else:
                rle = pycocotools.mask.merge(pycocotools.mask.frPyObjects(each["segmentation"], *SIZE))
                row["segmentation"] = {"size": list(SIZE), "counts": rle["counts"].decode()}
            rows.append(row)
    return rows


class Readers:
    """The four commands on a file: `None` where one takes it, else the sentence that refuses it."""

    def __init__(self, run, monkeypatch, folder, content, file):
        self.run, self.folder, self.content, self.file = run, folder, content, file
        self.cfg = with_values(Config(), {"MODEL.NUM_CLASSES": CLASSES, "MODEL.MASK_ON": True})
        monkeypatch.setattr(evaluation, "predict", self._perfect)
        self.said = ""

    def check_data(self):
        code, out, errors = self.run("check-data", "--annotations", self.file, "--images", self.folder)
        self.said = out
        return None if code == 0 else out + errors

    def train(self):
        """The minibatches and mask targets of every image."""
        cfg = self.cfg
        dataset = read_dataset(self.file, self.folder)
        try:
            if not any(each["segmentation"] for image in dataset.images for each in image.annotations):
                cfg = with_values(cfg, {"MODEL.MASK_ON": False})
            self.roidb = training_roidb([dataset], cfg)
        except InputError as error:
            return str(error)
        for entry in self.roidb:
            minibatch = load_minibatch([entry], [60], cfg)
            _mask_targets(entry.ground_truth.boxes, minibatch.ground_truth[0], 28)
        return None

    def test(self):
        model = SimpleNamespace(
            cfg=self.cfg, device=torch.device("cpu"), categories=None, classes=None, check_proposals=lambda given: None
        )
        try:
            self.evaluation = evaluation.evaluate(model, self.file, self.folder)
        except InputError as error:
            return str(error)
        return None

    def score(self):
        results = self.file.with_name("bbox.json")
        results.write_text(json.dumps(perfect_rows(self.content, "bbox")))
        code, out, errors = self.run("score", results, "--annotations", self.file, "--json", results.with_name("ap"))
        self.scored = json.loads(results.with_name("ap").read_text()) if code == 0 else None
        self.said += out
        return None if code == 0 else errors

    def _perfect(self, model, batches, read, process, **_):
        """In place of the network: reads every image, finds every object."""
        rows = {kind: perfect_rows(self.content, kind) for kind in ("bbox", "segm")}
        for members in batches:
            for image_id in members:
                read(image_id)
            found = [
                ImageResults(
                    image_id,
                    [1 if row["category_id"] == 3 else 2 for row in rows["bbox"] if row["image_id"] == image_id],
                    *([row for row in rows[kind] if row["image_id"] == image_id] for kind in ("bbox", "segm")),
                )
                for image_id in members
            ]
            yield Predicted(members, found, 0.0, 0.0, 0.0)


@pytest.fixture
def readers(run, monkeypatch, sound, tmp_path):
    """A function that writes a changed file and gives its readers."""
    folder, content = sound

    def make(change, encode=lambda text: text.encode()):
        changed = copy.deepcopy(content)
        change(changed)
        file = tmp_path / "instances.json"
        file.write_bytes(encode(json.dumps(changed)))
        return Readers(run, monkeypatch, folder, content, file)

    return make


def all_take(readers):
    verdicts = {name: getattr(readers, name)() for name in ("check_data", "train", "test", "score")}
    assert verdicts == dict.fromkeys(verdicts)


def assert_same_roidb(ours, theirs):
    for one, other in zip(ours, theirs, strict=True):
        for name in ("image", "height", "width", "flipped"):
            assert getattr(one, name) == getattr(other, name)
        for array, expected in zip(one.ground_truth[:3], other.ground_truth[:3], strict=True):
            np.testing.assert_array_equal(array, expected)
        for segm, expected in zip(one.ground_truth.segms, other.ground_truth.segms, strict=True):
            if isinstance(segm, dict):
                np.testing.assert_array_equal(decode_rle(segm), _mask(expected))
            else:
                np.testing.assert_array_equal(np.concatenate(segm), np.concatenate(expected))


def _mask(segm):
    if isinstance(segm, dict):
        return decode_rle(segm)
    return pycocotools.mask.decode(pycocotools.mask.frPyObjects([list(p) for p in segm], *SIZE)).max(axis=2)


_SOUND = []


def sound_readers(readers):
    """What the four commands make of the sound file; found once."""
    if not _SOUND:
        _SOUND.append(readers(lambda content: None))
        all_take(_SOUND[0])
    return _SOUND[0]


@pytest.mark.parametrize("name", TAKEN)
def test_what_is_mended_is_taken_by_every_command_and_said_once(readers, name):
    case: Case = TAKEN[name]
    ours = readers(case.change)
    all_take(ours)
    for said in (ours.said, "\n".join(ours.evaluation.remarks)):
        assert case.words in said
    assert ours.said.count(case.words) == 2 or not case.words  # once by check-data, once by score
    sound = sound_readers(readers)
    assert ours.evaluation.ap["bbox"].AP == sound.evaluation.ap["bbox"].AP == 1
    assert ours.scored["instances"]["box"]["AP"] == 1
    outlined = any(segm for entry in ours.roidb for segm in entry.ground_truth.segms)
    assert ("segm" in ours.evaluation.ap) == outlined
    if case.same:
        assert ours.evaluation.ap == sound.evaluation.ap and ours.scored == sound.scored
        assert_same_roidb(ours.roidb, sound.roidb)


@pytest.mark.parametrize("name", REFUSED)
def test_what_would_be_a_guess_is_refused_by_every_command_in_the_same_words(readers, name):
    case: Case = REFUSED[name]
    ours = readers(case.change)
    for command in ("check_data", "train", "test", "score"):
        sentence = getattr(ours, command)()
        assert sentence is not None, f"{command} takes it"
        if command == "check_data":
            # It lists each fault in a line of its own.
            assert case.words.partition("; ")[0] in sentence
        else:
            assert case.words in sentence and str(ours.file) in sentence
            assert sentence.strip().count("\n") == 0 and "check-data" in sentence


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-16-le", "utf-32"])
def test_a_byte_order_mark_and_other_unicode_encodings_are_read(readers, encoding):
    all_take(readers(lambda content: None, lambda text: text.encode(encoding)))


@pytest.mark.parametrize("text", ["[" * 100_000, '{"images": ' + "[" * 100_000, "{", "", "\x80"])
def test_what_is_no_json_is_refused_by_every_command(readers, text):
    ours = readers(lambda content: None, lambda _: text.encode("latin-1"))
    with pytest.raises(InputError, match="is not JSON"):
        ours.train()
    for verdict in (ours.check_data(), ours.test(), ours.score()):
        assert "is not JSON" in verdict


def test_check_data_lists_every_orphan(readers):
    def change(content):
        content["images"].pop(0)
        content["categories"].pop(1)

    listed = readers(change).check_data()
    for line in (
        "error: annotation 1: has image_id 1, which 'images' does not list",
        "error: annotation 2: has category_id 17, which 'categories' does not list",
        "error: annotation 4 of 3.png: has category_id 17",
    ):
        assert line in listed


ODD_BOXES = [
    ({"bbox": [30, 25, 60, 55]}, "a bbox that the outline fits into as x1, y1, x2, y2, not as COCO's"),
    ({"bbox": [45, 40, 30, 30]}, "a bbox that the outline fits into as the middle's x and y, width, height"),
    ({"bbox": [30, 25, 60, 55], "segmentation": []}, "a bbox that leaves its image: taken as COCO's all the same"),
    ({"bbox": [-3, 25, 60, 30], "segmentation": []}, "a bbox that leaves its image"),
    ({"bbox": [0.1, 0.2, 0.5, 0.75], "segmentation": []}, "a bbox of numbers between 0 and 1, as shares of the image"),
    ({"keypoints": [5, 5, 2] * 17, "num_keypoints": 17}, "none of its three and more visible keypoints lies"),
]


@pytest.mark.parametrize(("fields", "words"), ODD_BOXES)
def test_one_odd_box_is_no_convention_and_is_said_by_every_command(readers, fields, words):
    ours = readers(lambda content: content["annotations"][1].update(fields))
    all_take(ours)
    for said in (*ours.said.splitlines(), *ours.evaluation.remarks):
        if words in said:
            assert said.endswith("(annotation 2 of 1.png)")
    assert ours.said.count(words) == 2 and words in "\n".join(ours.evaluation.remarks)


def test_corners_that_are_looser_than_their_outlines_are_refused_over_the_whole_file(readers):
    def change(content):
        for each in content["annotations"]:
            x, y, w, h = each["bbox"]
            each["bbox"] = [max(0, x - 5), max(0, y - 5), min(80, x + w + 5), min(60, y + h + 5)]

    ours = readers(change)
    for verdict in (ours.check_data(), ours.train(), ours.test(), ours.score()):
        assert "its 'bbox' numbers seem to be x1, y1, x2, y2" in verdict


def test_boxes_much_looser_than_their_outlines_are_not_odd(readers):
    loose = readers(lambda content: [each.update(bbox=[5, 0, 70, 60]) for each in content["annotations"]])
    assert loose.check_data() is None and "a bbox" not in loose.said


def test_masks_are_not_trained_without_any_outline(readers):
    ours = readers(lambda content: [each.pop("segmentation") for each in content["annotations"]])
    with pytest.raises(InputError, match=r"no object has an outline.*: pass --set MODEL.MASK_ON False"):
        training_roidb([read_dataset(ours.file, ours.folder)], ours.cfg)
    code, out, _ = ours.run(
        "check-data", "--annotations", ours.file, "--images", ours.folder, "--set", "MODEL.MASK_ON", "True"
    )
    assert code == 1 and "no object has an outline" in out


def test_masks_cannot_be_scored_without_any_outline(readers):
    ours = readers(lambda content: [each.pop("segmentation") for each in content["annotations"]])
    results = Path(ours.file).with_name("segm.json")
    results.write_text(json.dumps(perfect_rows(ours.content, "segm")))
    code, _, errors = ours.run("score", results, "--annotations", ours.file)
    assert code == 2 and "no object has an outline, so there is no mask AP" in errors
