"""Test-time augmentation: which views there are, their geometry, and how what they show is put together."""

import json

import cv2
import h5py
import numpy as np
import pytest
import torch

from detectron_gn.mrcnn.config import Config, check_config, with_values
from detectron_gn.mrcnn.errors import InputError
from detectron_gn.mrcnn.inference.tta import View, combined_boxes, combined_masks, further_views, is_augmented
from detectron_gn.port.config.read import bundled_config
from detectron_gn.port.runs.load import load_model

FLIP = ["TEST.BBOX_AUG.ENABLED", "True", "TEST.BBOX_AUG.H_FLIP", "True",
        "TEST.MASK_AUG.ENABLED", "True", "TEST.MASK_AUG.H_FLIP", "True", "TEST.SCALE", "96"]  # fmt: skip


def config(**changes):
    return with_values(Config(), {f"TEST.{key.replace('__', '.')}": value for key, value in changes.items()})


@pytest.fixture
def augment(data):
    with h5py.File(data / "ops_augment.h5") as file:
        yield file["augment"]


@pytest.mark.parametrize("ratio", [0.7, 1.4])
def test_images_and_boxes_are_stretched_as_detectron_stretches_them(augment, ratio):
    view = View(800, 1333, ratio=ratio)
    image, boxes = augment[f"image_{ratio}"][:], torch.from_numpy(augment["boxes"][:])
    np.testing.assert_array_equal(view.image(image), augment[f"image_out_{ratio}"][:])
    np.testing.assert_array_equal(view.boxes(boxes, 640).numpy(), augment[f"ratio_{ratio}"][:])
    torch.testing.assert_close(view.boxes_in_image(view.boxes(boxes, 640), 640), boxes, rtol=0, atol=1e-4)


def test_boxes_are_mirrored_as_detectron_mirrors_them(augment):
    view, boxes = View(800, 1333, flipped=True), torch.from_numpy(augment["boxes"][:])
    mirrored = view.boxes(boxes, int(augment.attrs["im_width"]))
    np.testing.assert_array_equal(mirrored.numpy(), augment["hflip"][:])
    torch.testing.assert_close(view.boxes_in_image(mirrored, 640), boxes)


def test_a_view_is_stretched_before_it_is_mirrored():
    # 0.7 of 5 pixels are 3.5, which round to the even 4.
    view = View(800, 1333, ratio=0.7, flipped=True)
    image = np.arange(5 * 3, dtype=np.uint8).reshape(1, 5, 3).repeat(2, axis=0)
    assert view.width(5) == 4
    np.testing.assert_array_equal(view.image(image)[:, ::-1], cv2.resize(image, (4, 2)))
    boxes = torch.tensor([[1.0, 0.0, 2.0, 1.0]])
    torch.testing.assert_close(view.boxes(boxes, 5), torch.tensor([[4 - 1.4 - 1, 0.0, 4 - 0.7 - 1, 1.0]]))


def test_views_come_in_detectrons_order():
    cfg = config(
        SCALE=500, MAX_SIZE=900, BBOX_AUG__H_FLIP=True, BBOX_AUG__SCALES=(400, 600), BBOX_AUG__MAX_SIZE=2000,
        BBOX_AUG__SCALE_H_FLIP=True, BBOX_AUG__ASPECT_RATIOS=(0.5,), BBOX_AUG__ASPECT_RATIO_H_FLIP=True,
    )  # fmt: skip
    assert further_views(cfg.TEST.BBOX_AUG, cfg.TEST) == [
        View(500, 900, flipped=True),
        View(400, 2000),
        View(400, 2000, flipped=True),
        View(600, 2000),
        View(600, 2000, flipped=True),
        View(500, 900, ratio=0.5),
        View(500, 900, ratio=0.5, flipped=True),
    ]
    assert further_views(cfg.TEST.MASK_AUG, cfg.TEST) == []


def test_boxes_of_views_are_joined_averaged_or_those_of_the_plain_one():
    seen = [(torch.full((1, 2), 0.25), torch.zeros(1, 8)), (torch.full((1, 2), 0.75), torch.full((1, 8), 8.0))]
    heuristics = {"UNION": [0.25, 0.75], "AVG": [0.5], "ID": [0.75]}
    corners = {"UNION": [0.0, 8.0], "AVG": [4.0], "ID": [8.0]}
    for scores, boxes in (("UNION", "UNION"), ("AVG", "AVG"), ("ID", "ID"), ("ID", "AVG"), ("AVG", "ID")):
        found = combined_boxes(seen, config(BBOX_AUG__SCORE_HEUR=scores, BBOX_AUG__COORD_HEUR=boxes))
        assert found[0][:, 0].tolist() == heuristics[scores] and found[1][:, 0].tolist() == corners[boxes]


def test_masks_of_views_are_averaged_as_they_are_or_as_logits_or_the_largest_counts():
    seen = [torch.tensor([[[0.1, 1.0, 0.0]]]), torch.tensor([[[0.5, 0.5, 0.5]]])]
    heuristics = {
        "SOFT_AVG": [0.3, 0.75, 0.25],
        "SOFT_MAX": [0.5, 1.0, 0.5],
        # log odds of 1/9 and 1 have the mean log 1/3; of certainty they are infinite, and of 0 the log of 1e-20.
        "LOGIT_AVG": [0.25, 1.0, 1e-10],
    }
    for heuristic, expected in heuristics.items():
        found = combined_masks(seen, config(MASK_AUG__HEUR=heuristic))
        assert found.flatten().tolist() == pytest.approx(expected, rel=1e-5)


def test_only_what_a_model_has_is_augmented():
    masks = config(MASK_AUG__ENABLED=True)
    assert not is_augmented(masks) and is_augmented(with_values(masks, {"MODEL.MASK_ON": True}))
    boxes = config(BBOX_AUG__ENABLED=True)
    assert is_augmented(boxes) and not is_augmented(with_values(boxes, {"RETINANET.RETINANET_ON": True}))


def test_a_mirrored_image_has_the_mirrored_objects(pickle, demo_model):
    model = load_model(pickle, overrides=FLIP, device="cpu")
    image = cv2.imread(str(min((demo_model / "val").iterdir())))
    found, mirrored = model.detect(image), model.detect(np.ascontiguousarray(image[:, ::-1]))
    assert len(found) == len(mirrored) > 0
    width = image.shape[1]
    order, others = (np.lexsort((each.scores, each.classes)) for each in (found, mirrored))
    back = mirrored.boxes[others][:, [2, 1, 0, 3]]
    back[:, [0, 2]] = width - 1 - back[:, [0, 2]]
    np.testing.assert_allclose(found.boxes[order], back, rtol=0, atol=1e-2)
    np.testing.assert_allclose(found.scores[order], mirrored.scores[others], rtol=0, atol=1e-5)
    np.testing.assert_allclose(found.mask_probs[order], mirrored.mask_probs[others][:, :, ::-1], rtol=0, atol=1e-3)
    # Two looks find other boxes than one.
    with model.without_augmentation():
        once = model.detect(image)
    assert once.boxes.shape != found.boxes.shape or not np.array_equal(once.boxes, found.boxes)


def test_a_batch_is_augmented_image_by_image(pickle, demo_model):
    model = load_model(pickle, overrides=FLIP, device="cpu")
    images = [cv2.imread(str(path)) for path in sorted((demo_model / "val").iterdir())]
    same = [image for image in images if image.shape == images[0].shape][:2]
    for one, alone in zip(model.detect_batch(same), map(model.detect, same), strict=True):
        np.testing.assert_array_equal(one.boxes, alone.boxes)
        np.testing.assert_array_equal(one.mask_probs, alone.mask_probs)


@pytest.mark.parametrize(
    ("overrides", "sentence"),
    [
        ({"BBOX_AUG.SCORE_HEUR": "ID", "BBOX_AUG.COORD_HEUR": "AVG"}, "proposals of an RPN are others in every view"),
        ({"BBOX_AUG.SCALE_SIZE_DEP": True}, "TEST.BBOX_AUG.SCALE_SIZE_DEP is True, which is not supported here"),
        ({"BBOX_AUG.SCALES": (0,)}, r"TEST.BBOX_AUG.SCALES is \[0\] and TEST.BBOX_AUG.MAX_SIZE is 4000: give numbers"),
        ({"BBOX_AUG.ASPECT_RATIOS": (0.0,)}, r"TEST.BBOX_AUG.ASPECT_RATIOS is \[0.0\]: give ratios above 0"),
        ({"MASK_AUG.MAX_SIZE": 0, "MASK_AUG.ENABLED": True}, "TEST.MASK_AUG.MAX_SIZE is 0"),
        ({"KPS_AUG.SCALES": (0,), "KPS_AUG.ENABLED": True}, r"TEST.KPS_AUG.SCALES is \[0\]"),
        ({"KPS_AUG.ASPECT_RATIOS": (-1.0,), "KPS_AUG.ENABLED": True}, r"TEST.KPS_AUG.ASPECT_RATIOS is \[-1.0\]"),
        ({"MASK_AUG.HEUR": "HARD"}, "TEST.MASK_AUG.HEUR is 'HARD', which is not supported here"),
    ],
)
def test_views_that_cannot_be_put_together_are_refused(overrides, sentence):
    family = "keypoint" if any(key.startswith("KPS_AUG") for key in overrides) else "mask"
    cfg = bundled_config(f"e2e_{family}_rcnn_R-50-FPN_1x")
    values = {f"TEST.{key}": value for key, value in overrides.items()} | {"TEST.BBOX_AUG.ENABLED": True}
    with pytest.raises(InputError, match=sentence):
        check_config(with_values(cfg, values))


@pytest.mark.parametrize(
    ("section", "key", "value", "size", "told"),
    [
        ("BBOX_AUG", "ASPECT_RATIOS", "(0.3,)", (1, 1), "1 x 1 pixels .* view 0.3 of TEST.BBOX_AUG.ASPECT_RATIOS"),
        ("MASK_AUG", "ASPECT_RATIOS", "(0.3,)", (1, 1), "the view 0.3 of TEST.MASK_AUG.ASPECT_RATIOS"),
        ("BBOX_AUG", "ASPECT_RATIOS", "(0.01,)", (4000, 50), "50 x 4000 pixels .* the view 0.01 of"),
        ("BBOX_AUG", "SCALES", "(60,)", (2000, 10), "10 x 2000 pixels .* in the view 60 of TEST.BBOX_AUG.SCALES"),
    ],
)
def test_an_image_of_which_a_view_leaves_nothing_is_refused(pickle, section, key, value, size, told):
    overrides = [f"TEST.{section}.ENABLED", "True", f"TEST.{section}.{key}", value, "TEST.SCALE", "32"]
    model = load_model(pickle, overrides=[*overrides, f"TEST.{section}.MAX_SIZE", "60"], device="cpu")
    with pytest.raises(InputError, match=told):
        model.detect(np.zeros((*size, 3), np.uint8))
    with model.without_augmentation():
        model.detect(np.zeros((*size, 3), np.uint8))


def test_the_other_images_of_a_command_are_detected_in(pickle, demo_model, tmp_path, run):
    small, good = tmp_path / "small.png", min((demo_model / "val").iterdir())
    cv2.imwrite(str(small), np.zeros((1, 1, 3), np.uint8))
    views = ["--set", "TEST.BBOX_AUG.ENABLED", "True", "TEST.BBOX_AUG.ASPECT_RATIOS", "(0.3,)", "TEST.SCALE", "64"]
    code, out, err = run("detect", pickle, small, good, "--out", tmp_path / "out", *views)
    assert code == 2 and f"{small}: an image of 1 x 1 pixels" in err and "1 of 2 images" in err
    assert f"{good}: " in out and (tmp_path / "out" / "detections.json").exists()
    document = {"images": [{"id": 1, "file_name": "small.png", "height": 1, "width": 1}], "annotations": []}
    document["categories"] = json.loads((demo_model / "instances_val.json").read_text())["categories"]
    (tmp_path / "a.json").write_text(json.dumps(document))
    data = ["--annotations", tmp_path / "a.json", "--images", tmp_path]
    code, out, err = run("test", pickle, *data, "--out", tmp_path / "test", *views)
    assert code == 2 and f"error: {small}: an image of 1 x 1 pixels" in err
