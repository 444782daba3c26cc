"""A detector as a citizen of PyTorch: called, trained in anybody's loop, pickled, copied, moved and rounded."""

import copy
import pickle
import subprocess
import sys

import cv2
import numpy as np
import pytest
import torch

import detectron_gn
from detectron_gn.mrcnn.config import with_values
from detectron_gn.mrcnn.data.minibatch import load_minibatch
from detectron_gn.mrcnn.data.roidb import training_roidb
from detectron_gn.mrcnn.detectors import build_detector
from detectron_gn.mrcnn.errors import InputError
from detectron_gn.mrcnn.training.outputs import losses_of
from detectron_gn.mrcnn.training.samplers import RandomSampler
from detectron_gn.port.config.read import bundled_config
from detectron_gn.port.runs.load import load_model
from tests.helpers.dense_run import dense_config
from tests.helpers.roi_run import roi_config, roi_data


@pytest.fixture(scope="module")
def image(demo_model):
    return cv2.imread(str(sorted((demo_model / "val").iterdir())[0]))


@pytest.fixture
def model(pickle):
    return load_model(pickle, device="cpu")


def objects(found, size):
    """Detections as a training target, whose boxes are cut to the image."""
    height, width = size
    ends = np.array([width - 1, height - 1] * 2, np.float32)
    return {"boxes": np.clip(found.boxes, 0, ends), "labels": found.classes, "masks": found.masks()}


def assert_equal(found, other):
    for name in ("boxes", "scores", "classes", "mask_probs"):
        np.testing.assert_array_equal(getattr(found, name), getattr(other, name))


def test_every_form_of_an_image_is_the_same_image(model, image, demo_model):
    path = sorted((demo_model / "val").iterdir())[0]
    rgb = torch.from_numpy(np.ascontiguousarray(image[:, :, ::-1])).permute(2, 0, 1)
    expected = model.detect(image)
    content = path.read_bytes()
    for form in (path, str(path), content, memoryview(content), rgb, rgb.float() / 255, rgb.double() / 255):
        assert_equal(model.detect(form), expected)
    pil = pytest.importorskip("PIL.Image", reason="Pillow is no dependency")
    assert_equal(model.detect(pil.open(path)), expected)


@pytest.mark.parametrize(
    "wrong",
    [
        np.zeros((4, 4), np.uint8),
        np.zeros((4, 4, 3), np.float32),
        np.zeros((0, 4, 3), np.uint8),
        torch.zeros(4, 4, 3),
        torch.full((3, 4, 4), 255.0),
        torch.full((3, 4, 4), float("nan")),
        torch.zeros(3, 4, 4, dtype=torch.int64),
        None,
        7,
    ],
    ids=lambda value: f"{type(value).__name__} {getattr(value, 'shape', '')}",
)
def test_what_is_no_image_is_refused(model, wrong):
    with pytest.raises(InputError, match=r"no image: give a path, the bytes of an image file, an array \[H, W, 3\]"):
        model.detect(wrong)


def test_a_list_of_images_of_any_sizes_gives_what_each_gives_alone(model, image):
    images = [image, image[:100], np.ascontiguousarray(image[:, :90]), image[::-1].copy(), image, image, image]
    together = model(images)
    assert len(together) == len(images)
    for each, found in zip(images, together, strict=True):
        alone = model.detect(each)
        assert len(found) == len(alone) and found.image_size == alone.image_size
        np.testing.assert_allclose(found.boxes, alone.boxes, atol=1e-3)
    assert model([]) == [] and isinstance(model.detect((image,)), list)


def test_an_image_that_is_called_without_a_list_is_told_so(model, image):
    for given in ("photo.jpg", image):
        with pytest.raises(InputError, match=r"give \[image\], or take model.detect"):
            model(given)


def test_in_training_mode_a_call_gives_losses_that_train(model, image):
    found = model.detect(image).above(0.5)
    target = objects(found, image.shape[:2])
    model.train()
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.002)
    totals = []
    for _ in range(4):
        torch.manual_seed(0)
        losses = model([image], [target])
        assert list(losses) == ["loss_rpn_cls_fpn2", *list(losses)[1:]] and all(n.startswith("loss") for n in losses)
        total = sum(losses.values())
        optimizer.zero_grad()
        total.backward()
        optimizer.step()
        totals.append(float(total))
    assert totals[-1] < totals[0]


@pytest.mark.parametrize("name", ["retinanet", "rpn", "rpn_c4", "faster_agnostic"])
def test_every_trained_family_gives_its_losses_and_no_metrics(name, image):
    model = build_detector(dense_config(name)).train()
    losses = model([image], [{"boxes": [[8, 8, 40, 40]], "labels": [1]}])
    levels = range(3, 8) if name == "retinanet" else range(2, 7)
    of_rpn = [f"loss_rpn_{kind}_fpn{level}" for kind in ("cls", "bbox") for level in levels]
    expected = {
        "retinanet": [f"{kind}_fpn{level}" for kind in ("retnet_loss_bbox", "fl") for level in levels],
        "rpn": of_rpn,
        "rpn_c4": ["loss_rpn_cls", "loss_rpn_bbox"],
        "faster_agnostic": [*of_rpn, "loss_cls", "loss_bbox"],
    }
    assert list(losses) == expected[name]
    sum(losses.values()).backward()
    assert all(parameter.grad is not None for parameter in model.parameters())


NOSE = [[20, 20, 2], *[[0, 0, 0]] * 16]
TARGETS = {
    "keypoint": {"keypoints": [NOSE]},
    "mask_c4": {"masks": [[[8, 8, 41, 8, 41, 41, 8, 41]]]},
    "fast": {"proposals": [[10, 8, 43, 41], [50, 50, 80, 90]]},
}


@pytest.mark.parametrize("name", TARGETS)
def test_keypoints_shared_stages_and_proposals_are_trained_by_a_call(name, image):
    model = build_detector(roi_config(name)).train()
    losses = model([image], [{"boxes": [[8, 8, 40, 40]], "labels": [1], **TARGETS[name]}])
    of_rpn = [f"loss_rpn_{kind}_fpn{level}" for kind in ("cls", "bbox") for level in range(2, 7)]
    expected = {
        "keypoint": [*of_rpn, "loss_cls", "loss_bbox", "loss_kps"],
        "mask_c4": ["loss_rpn_cls", "loss_rpn_bbox", "loss_cls", "loss_bbox", "loss_mask"],
        "fast": ["loss_cls", "loss_bbox"],
    }
    assert list(losses) == expected[name]
    sum(losses.values()).backward()
    assert all(parameter.grad is not None for parameter in model.parameters() if parameter.requires_grad)
    if name == "keypoint":
        assert losses["loss_kps"] > 0
        unseen = {"boxes": [[8, 8, 40, 40]], "labels": [1], "keypoints": torch.zeros(1, 17, 3)}
        assert model([image], [unseen])["loss_kps"] == 0


@pytest.mark.parametrize("name", ["keypoint", "fast"])
def test_a_call_is_a_minibatch_of_a_run(name):
    """Everything is sampled, so that nothing is random."""
    cfg = roi_config(name, "TRAIN.BATCH_SIZE_PER_IM", "4000", "TRAIN.SCALES", "(80,)", "TRAIN.USE_FLIPPED", "False")
    model = build_detector(cfg).train()
    dataset, proposals = roi_data(name)
    (entry, *_) = training_roidb([dataset], cfg, proposals)
    objects, further = entry.ground_truth, {}
    if name == "keypoint":
        further = {"keypoints": objects.keypoints.transpose(0, 2, 1)}
    else:
        further = {"proposals": entry.proposals}
    target = {"boxes": objects.boxes, "labels": objects.classes, "iscrowd": objects.is_crowd, **further}
    called = model([entry.image], [target])
    minibatch = load_minibatch([entry], [80], cfg, 0)
    expected = losses_of(model.losses(minibatch, RandomSampler(cfg, model.device, 0)))
    for loss in ("loss_cls", "loss_bbox", *(["loss_kps"] if name == "keypoint" else [])):
        assert float(called[loss]) == pytest.approx(float(expected[loss]), rel=1e-5) and called[loss] > 0


KEYPOINTS_AND_PROPOSALS = [
    ("keypoint", {}, r"targets\[0\] has no 'keypoints', which a model with a keypoint head is trained on"),
    ("keypoint", {"keypoints": [NOSE[:16]]}, r"\['keypoints'\] is \[1, 16, 3\], not \[1, 17, 3\]"),
    ("keypoint", {"keypoints": [NOSE, NOSE]}, r"\['keypoints'\] is \[2, 17, 3\], not \[1, 17, 3\]"),
    ("keypoint", {"keypoints": np.full((1, 17, 3), np.inf)}, r"\['keypoints'\] .* of places in an image"),
    ("keypoint", {"keypoints": [["x"]]}, r"\['keypoints'\] cannot be read"),
    ("fast", {}, r"targets\[0\] has no 'proposals', which a model without an RPN is trained on"),
    ("fast", {"proposals": [[1, 2, 3]]}, r"\['proposals'\] is \[1, 3\], not \[P, 4\]"),
    ("fast", {"proposals": [[0, 0, 9, float("nan")]]}, r"\['proposals'\] .* of finite numbers"),
]


@pytest.mark.parametrize(("name", "change", "sentence"), KEYPOINTS_AND_PROPOSALS, ids=str)
def test_keypoints_and_proposals_that_are_none_are_refused_by_image_and_key(name, change, sentence, image):
    model = build_detector(roi_config(name)).train()
    with pytest.raises(InputError, match=sentence):
        model([image], [{"boxes": [[8, 8, 40, 40]], "labels": [1], **change}])


def test_masks_as_bitmaps_tensors_run_lengths_and_polygons_give_the_same_losses(model, image):
    found = model.detect(image).above(0.5)
    target = objects(found, image.shape[:2])
    squares = [[[x1, y1, x2 + 1, y1, x2 + 1, y2 + 1, x1, y2 + 1]] for x1, y1, x2, y2 in found.boxes.round().tolist()]
    bitmaps = np.zeros_like(target["masks"])
    for bitmap, (x1, y1, x2, y2) in zip(bitmaps, found.boxes.round().astype(int), strict=True):
        bitmap[max(y1, 0) : y2 + 1, max(x1, 0) : x2 + 1] = True
    forms = {
        "bitmaps": bitmaps,
        "tensor": torch.from_numpy(bitmaps),
        "run lengths": [row["segmentation"] for row in found.to_coco(1)],
        "polygons": squares,
    }
    model.train()
    losses = {}
    for name, masks in forms.items():
        torch.manual_seed(0)
        losses[name] = float(model([image], [{**target, "masks": masks}])["loss_mask"])
    assert losses["tensor"] == losses["bitmaps"]
    assert losses["polygons"] == pytest.approx(losses["bitmaps"], rel=0.1)
    assert losses["run lengths"] > 0


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"boxes": np.zeros((0, 4))}, r"targets\[0\]\['boxes'\] is \[0, 4\], not \[G, 4\] with at least one object"),
        ({"boxes": np.zeros((2, 5))}, r"targets\[0\]\['boxes'\] is \[2, 5\]"),
        ({"boxes": [[5, 5, 2, 9]]}, "corners are not in order"),
        ({"boxes": [[0, 0, float("nan"), 9]]}, "not finite"),
        ({"boxes": [[0, 0, 1e6, 9]]}, "reaches beyond the image"),
        ({"boxes": [["a", 0, 1, 2]]}, r"\['boxes'\] cannot be read"),
        ({"labels": [0]}, r"\['labels'\] holds 0 to 0, but the classes are 1 to 4"),
        ({"labels": [1.5]}, r"\['labels'\] cannot be read \(numbers are not whole\)"),
        ({"labels": [1, 2]}, r"\['labels'\] is \[2\], not \[1\]"),
        ({"labels": None}, "labels"),
        ({"iscrowd": [1]}, "calls every object a crowd"),
        ({"masks": np.zeros((1, 3, 3))}, r"\['masks'\] is \[1, 3, 3\]"),
        ({"masks": []}, r"\['masks'\] has 0 rows"),
        ({"masks": [[[0, 0, 1, 1]]]}, "row 0 is no list of polygons"),
        ({"masks": [{"size": [1, 1], "counts": "x"}]}, "row 0 is no run-length encoding"),
    ],
    ids=str,
)
def test_a_target_that_is_no_target_is_refused_by_image_and_key(model, image, change, sentence):
    target = {"boxes": [[2, 2, 20, 20]], "labels": [1], "masks": [[[2, 2, 20, 2, 20, 20]]]}
    model.train()
    with pytest.raises(InputError, match=sentence):
        model([image], [{**target, **change}])


def test_a_call_in_the_wrong_mode_or_with_too_few_targets_is_refused(model, image):
    with pytest.raises(InputError, match=r"call model\.train\(\) first"):
        model([image], [{}])
    model.train()
    with pytest.raises(InputError, match=r"call model\.eval\(\) to detect"):
        model([image])
    with pytest.raises(InputError, match="1 images and 2 targets"):
        model([image], [{}, {}])
    with pytest.raises(InputError, match="no images to train on"):
        model([], [])
    with pytest.raises(InputError, match=r"targets\[0\] has no 'boxes'"):
        model([image], [{}])


def test_a_model_is_pickled_and_copied(model, image):
    expected = model.detect(image)
    for again in (pickle.loads(pickle.dumps(model)), copy.deepcopy(model)):
        assert_equal(again.detect(image), expected)
        assert again.classes == model.classes


@pytest.mark.parametrize(
    "name", ["e2e_mask_rcnn_R-50-C4_1x", "retinanet_R-50-FPN_1x", "e2e_keypoint_rcnn_R-50-FPN_1x", "rpn_R-50-FPN_1x"]
)
def test_a_model_of_every_family_is_pickled_and_copied(name):
    cfg = with_values(bundled_config(name), {"RESNETS.WIDTH_PER_GROUP": 4, "FPN.DIM": 8, "FAST_RCNN.MLP_HEAD_DIM": 8})
    model = build_detector(cfg)
    for again in (pickle.loads(pickle.dumps(model)), copy.deepcopy(model)):
        ours, theirs = model.state_dict(), again.state_dict()
        assert ours.keys() == theirs.keys() and all(torch.equal(ours[key], theirs[key]) for key in ours)
    if getattr(model, "mask_head", None) is not None and model.mask_head.res5 is None:
        # A shared stage is still shared.
        assert again.mask_head._shared[0] is again.box_head.res5


@pytest.mark.slow
def test_a_model_goes_to_processes_that_are_spawned(pickle, demo_model):
    code = (
        "import sys, torch, detectron_gn, torch.multiprocessing as mp\n"
        "def work(rank, model, path): print(len(model.detect(path)), flush=True)\n"
        "if __name__ == '__main__':\n"
        "    torch.set_num_threads(1)\n"
        "    model = detectron_gn.load(sys.argv[1], device='cpu')\n"
        "    print(len(model.detect(sys.argv[2])), flush=True)\n"
        "    mp.spawn(work, (model, sys.argv[2]), nprocs=2)\n"
    )
    script = pickle.with_name("spawned.py")
    script.write_text(code)
    path = sorted((demo_model / "val").iterdir())[0]
    done = subprocess.run([sys.executable, script, pickle, path], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert len(set(done.stdout.split())) == 1 and len(done.stdout.split()) == 3


def test_a_state_dict_that_torch_saved_is_loaded(model, image, tmp_path):
    torch.save(model.state_dict(), tmp_path / "sd.pth")
    config = tmp_path / "c.yaml"
    from detectron_gn.port.config.yaml_dumper import dump_config

    config.write_text(dump_config(model.cfg))
    again = detectron_gn.load(tmp_path / "sd.pth", config=config, device="cpu")
    assert_equal(again.detect(image), model.detect(image))


@pytest.mark.parametrize(
    ("move", "precision"),
    [
        (lambda model: model.half(), "fp16"),
        (lambda model: model.bfloat16(), "bf16"),
        (lambda model: model.to(torch.bfloat16), "bf16"),
        (lambda model: model.to("cpu", torch.bfloat16), "bf16"),
        (lambda model: model.to(torch.float32), "fp32"),
        (lambda model: model.float(), "fp32"),
    ],
)
def test_a_type_is_a_precision(model, image, pickle, move, precision):
    assert move(model) is model and model.precision == precision
    expected = load_model(pickle, device="cpu", precision=precision)
    assert_equal(model.detect(image), expected.detect(image))


def test_what_was_rounded_stays_rounded_and_says_so(model):
    model.use_precision("bf16")
    for back in ("fp32", "fp16", "tf32"):
        with pytest.raises(InputError, match="rounded to bf16 for good: load the model again"):
            model.use_precision(back)
    for call in (model.float, lambda: model.to(torch.float32), model.half):
        with pytest.raises(InputError, match="rounded to bf16 for good"):
            call()
    model.use_precision("bf16")
    assert model.precision == "bf16"


def test_float64_and_misspelt_precisions_are_refused(model, pickle):
    for call in (model.double, lambda: model.to(torch.float64)):
        with pytest.raises(InputError, match="computes in float32, as Detectron does"):
            call()
    with pytest.raises(InputError, match="precision 'half' is not known: give one of fp32, tf32, bf16, fp16"):
        detectron_gn.load(pickle, device="cpu", precision="half")


def test_proposals_and_the_features_of_regions_are_what_the_second_stage_has(model, image):
    boxes, scores = model.proposals(image)
    assert boxes.shape == (len(scores), 4) and (scores.diff() <= 0).all()
    features = model.region_features(image, boxes[:5])
    batch = model.network_input([image])
    rois = next(model.rois_of_images(model.features(batch.data), batch)).rois[:5]
    expected = model.box_head.roi_features(model.features(batch.data), rois)
    torch.testing.assert_close(features, expected, rtol=0, atol=1e-4)
    assert model.region_features(image, boxes[:2].numpy()).shape == (2, *features.shape[1:])
