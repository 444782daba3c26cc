"""What a finetuned network takes from other weights, what it initialises, and what is refused."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from detectron_gn.mrcnn.data.coco_names import COCO_NAMES
from detectron_gn.mrcnn.detectors import build_detector
from detectron_gn.mrcnn.errors import InputError
from detectron_gn.mrcnn.training.solver import MomentumSGD
from detectron_gn.port.blobs.table import BlobTable
from detectron_gn.port.config.read import bundled_config
from detectron_gn.port.warm_start import start_from
from tests.helpers.recipe import recipe_weights

NARROW = (
    "FPN.DIM 16 FAST_RCNN.CONV_HEAD_DIM 16 FAST_RCNN.MLP_HEAD_DIM 16 MRCNN.DIM_REDUCED 16 RESNETS.WIDTH_PER_GROUP 4 "
    "GROUP_NORM.NUM_GROUPS 4 NUM_GPUS 1"
)
BACKBONE = ("conv1", "res")


def config(classes, *overrides, name="e2e_mask_rcnn_R-50-FPN_2x_gn"):
    return bundled_config(name, [*NARROW.split(), "MODEL.NUM_CLASSES", str(classes), *overrides])


def fresh(cfg):
    torch.manual_seed(0)
    model = build_detector(cfg)
    return model, MomentumSGD.from_config(model, cfg)


def file_of(cfg, seed=1, momentum=False):
    table = BlobTable.from_config(cfg)
    weights = recipe_weights(table, seed)
    if momentum:
        momenta = {f"{name}_momentum": np.full_like(blob, 0.5) for name, blob in weights.blobs.items()}
        weights = replace(weights, blobs=weights.blobs | momenta)
    return weights


def imagenet_file(cfg):
    weights = file_of(cfg)
    blobs = {name: blob for name, blob in weights.blobs.items() if name.startswith(BACKBONE)}
    return replace(weights, blobs=blobs | {"pred_w": np.ones((1000, 8), np.float32)}, source="R-50-GN.pkl")


def names(*own):
    return ("__background__", *own)


def test_an_imagenet_file_fills_the_backbone_and_its_classifier_travels_along():
    cfg = config(3)
    model, solver = fresh(cfg)
    before = model.box_head.cls_score.weight.detach().clone()
    point = start_from(model, solver, imagenet_file(cfg), names("cat", "dog"))
    assert torch.equal(model.box_head.cls_score.weight, before)
    conv1 = file_of(cfg).blobs["conv1_w"]
    np.testing.assert_array_equal(model.backbone.body.conv1.conv.weight.detach().numpy(), conv1)
    assert list(point.preserved) == ["pred_w"]
    assert "cls_score_w" in point.initialised and "conv_rpn_fpn2_w" in point.initialised
    assert not any(name.startswith(BACKBONE) for name in point.initialised)
    assert point.iteration is None


def test_an_imagenet_file_of_another_depth_is_refused():
    shallow, deep = config(3), config(3, name="e2e_mask_rcnn_R-101-FPN_2x_gn")
    model, solver = fresh(deep)
    with pytest.raises(InputError, match="lacks res4_6_branch2a_w.*of another depth"):
        start_from(model, solver, imagenet_file(shallow), names("cat", "dog"))


def test_rows_of_classes_of_the_same_name_are_copied_and_the_rest_is_initialised():
    source = file_of(config(81), momentum=True)
    model, solver = fresh(config(4))
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    point = start_from(model, solver, source, names("dog", "unicorn", "person"), names(*COCO_NAMES))
    dog, person = 1 + COCO_NAMES.index("dog"), 1 + COCO_NAMES.index("person")
    scores = model.box_head.cls_score.weight.detach().numpy()
    for row, source_row in ((0, 0), (1, dog), (3, person)):
        np.testing.assert_array_equal(scores[row], source.blobs["cls_score_w"][source_row])
    np.testing.assert_array_equal(scores[2], before["box_head.cls_score.weight"][2].numpy())
    boxes = model.box_head.bbox_pred.bias.detach().numpy().reshape(4, 4)
    np.testing.assert_array_equal(boxes[1], source.blobs["bbox_pred_b"].reshape(81, 4)[dog])
    np.testing.assert_array_equal(boxes[2], 0)
    masks = model.mask_head.mask_fcn_logits.weight.detach().numpy()
    np.testing.assert_array_equal(masks[3], source.blobs["mask_fcn_logits_w"][person])
    assert point.partly_copied == dict.fromkeys(
        (
            "cls_score_w",
            "cls_score_b",
            "bbox_pred_w",
            "bbox_pred_b",
            "mask_fcn_logits_w",
            "mask_fcn_logits_b",
        ),
        ("__background__", "dog", "person"),
    )
    # No momentum for what was put together anew; that of the rest comes along.
    assert solver.momentum_of(model.box_head.cls_score.weight).abs().max() == 0
    assert (solver.momentum_of(model.box_head.fc6.weight) == 0.5).all()
    assert point.report()[1:] == [
        "partly copied, the rows of the background, dog, person; the others begin at random: cls_score_w, cls_score_b, "
        "bbox_pred_w, bbox_pred_b, mask_fcn_logits_w, mask_fcn_logits_b",
        "the classes of the file are person, bicycle, car, motorcycle, airplane, bus, train, truck, boat, "
        "traffic light, fire hydrant, stop sign and 68 more; where they are others, --weights-classes names them",
    ]
    assert "--weights-classes" not in " ".join(point.report(is_named=True))


def test_where_the_file_has_all_classes_of_the_network_no_row_is_initialised():
    model, solver = fresh(config(3))
    point = start_from(model, solver, file_of(config(81)), names("dog", "person"), names(*COCO_NAMES))
    assert point.report()[1] == (
        "partly copied, the rows of the background, dog, person: cls_score_w, cls_score_b, bbox_pred_w, bbox_pred_b, "
        "mask_fcn_logits_w, mask_fcn_logits_b"
    )


def test_classes_without_names_keep_the_background_alone_and_the_report_says_how_to_name_them():
    model, solver = fresh(config(4))
    point = start_from(model, solver, file_of(config(3)), names("dog", "unicorn", "person"))
    assert set(point.partly_copied.values()) == {("__background__",)}
    assert "--weights-classes names them" in point.report()[-1]


def test_names_can_be_given_for_a_file_whose_classes_are_its_own():
    source = file_of(config(3))
    model, solver = fresh(config(3))
    start_from(model, solver, source, names("b", "a"), names("a", "b"))
    scores = model.box_head.cls_score.bias.detach().numpy()
    np.testing.assert_array_equal(scores, source.blobs["cls_score_b"][[0, 2, 1]])


def test_the_same_number_of_classes_is_taken_whole_and_the_run_can_go_on():
    source = replace(file_of(config(3), momentum=True), iteration=79)
    model, solver = fresh(config(3))
    point = start_from(model, solver, source, names("a", "b"))
    np.testing.assert_array_equal(model.box_head.cls_score.bias.detach().numpy(), source.blobs["cls_score_b"])
    assert (point.iteration, point.partly_copied, point.initialised) == (79, {}, ())


def test_a_finetuned_run_does_not_go_on_at_the_iteration_of_its_weights():
    source = replace(file_of(config(81)), iteration=79)
    model, solver = fresh(config(4))
    assert start_from(model, solver, source, names("dog", "unicorn", "person")).iteration is None


def test_frozen_parameters_take_no_momentum():
    model, solver = fresh(config(3))  # FREEZE_AT 2
    point = start_from(model, solver, file_of(config(3), momentum=True), names("a", "b"))
    frozen = sum(name.startswith(("conv1", "res2")) for name in file_of(config(3)).blobs)
    assert point.momenta == 223 - frozen


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda blobs: blobs.pop("fc6_w"), "lacks fc6_w"),
        (lambda blobs: blobs.update(fc6_w=blobs["fc6_w"][:, :-1]), "fc6_w is"),
        (lambda blobs: blobs.update(fc7_w=blobs["fc6_w"]), "trained with fc7_w"),
        (
            lambda blobs: blobs.update(cls_score_w=blobs["cls_score_w"][:, :-1]),
            "only the number of classes may differ",
        ),
        (
            lambda blobs: blobs.update(bbox_pred_w=blobs["bbox_pred_w"][:-1]),
            "only the number of classes may differ",
        ),
    ],
)
def test_any_other_difference_is_an_error_that_names_the_blob(change, message):
    source = file_of(config(81))
    blobs = dict(source.blobs)
    change(blobs)
    model, solver = fresh(config(4))
    with pytest.raises(InputError, match=message):
        start_from(model, solver, replace(source, blobs=blobs), names("dog", "unicorn", "person"))


def test_a_wrong_number_of_names_is_refused():
    model, solver = fresh(config(4))
    with pytest.raises(InputError, match="has 3 classes with the background, but 4 names"):
        start_from(model, solver, file_of(config(3)), names("a", "b", "c"), names("a", "b", "c"))


def test_81_classes_without_names_are_not_taken_for_cocos():
    model, solver = fresh(config(4))
    point = start_from(model, solver, file_of(config(81)), names("dog", "unicorn", "person"))
    assert set(point.partly_copied.values()) == {("__background__",)}


def test_classes_of_unknown_names_are_copied_by_place_and_the_report_says_so():
    source = file_of(config(3))
    model, solver = fresh(config(3))
    point = start_from(model, solver, source, names("a", "b"))
    scores = model.box_head.cls_score.bias.detach().numpy()
    np.testing.assert_array_equal(scores, source.blobs["cls_score_b"])
    assert point.by_place and "class k is taken to be the k-th category of the data" in point.report()[-1]
    model, solver = fresh(config(3))
    assert not start_from(model, solver, source, names("a", "b"), names("a", "b")).by_place
    assert not start_from(*fresh(config(3)), imagenet_file(config(3)), names("a", "b")).by_place


@pytest.mark.parametrize(
    ("own", "rows"),
    [
        (("b", "a"), [0, 2, 1]),
        (("a", "c"), [0, 1, None]),
        (("c", "a"), [0, None, 1]),
        (("A", "b"), [0, None, 2]),
        (("x", "y"), [0, None, None]),
    ],
)
def test_as_many_classes_of_other_names_are_copied_by_name(own, rows):
    source = replace(file_of(config(3), momentum=True), iteration=79)
    model, solver = fresh(config(3))
    before = model.box_head.cls_score.bias.detach().numpy().copy()
    point = start_from(model, solver, source, names(*own), names("a", "b"))
    scores = model.box_head.cls_score.bias.detach().numpy()
    masks = model.mask_head.mask_fcn_logits.weight.detach().numpy()
    for place, row in enumerate(rows):
        assert scores[place] == (before[place] if row is None else source.blobs["cls_score_b"][row])
        if row is not None:
            np.testing.assert_array_equal(masks[place], source.blobs["mask_fcn_logits_w"][row])
    text = "\n".join(point.report())
    if None in rows:
        assert point.iteration is None and "the classes of the file are a, b; where they are others" in text
    else:
        assert point.reordered and "in another order: their rows are copied by name" in text


def test_a_run_on_the_same_classes_in_another_order_goes_on_with_its_momentum():
    source = replace(file_of(config(3), momentum=True), iteration=79)
    momentum = np.arange(3, dtype=np.float32)
    source = replace(source, blobs=source.blobs | {"cls_score_b_momentum": momentum})
    model, solver = fresh(config(3))
    point = start_from(model, solver, source, names("b", "a"), names("a", "b"))
    assert solver.momentum_of(model.box_head.cls_score.bias).tolist() == [0, 2, 1]
    assert (point.iteration, point.partly_copied) == (79, {})


def test_an_accent_in_two_characters_is_the_same_class():
    source = file_of(config(3))
    model, solver = fresh(config(3))
    point = start_from(model, solver, source, names("caf\u00e9", "b"), names("cafe\u0301", "b"))
    assert (point.partly_copied, point.reordered) == ({}, False)


def test_what_all_classes_share_is_copied_whole_and_a_fixed_kernel_is_made_anew():
    shared = ["MODEL.CLS_AGNOSTIC_BBOX_REG", "True", "MRCNN.CLS_SPECIFIC_MASK", "False"]
    model, solver = fresh(config(3, *shared))
    source = file_of(config(4, *shared))
    point = start_from(model, solver, source, names("cat", "dog"), names("dog", "bird", "cow"))
    assert set(point.partly_copied) == {"cls_score_w", "cls_score_b"}
    np.testing.assert_array_equal(model.box_head.bbox_pred.weight.detach().numpy(), source.blobs["bbox_pred_w"])
    logits = model.mask_head.mask_fcn_logits.weight.detach().numpy()
    np.testing.assert_array_equal(logits, source.blobs["mask_fcn_logits_w"])

    upsampled = ["MRCNN.UPSAMPLE_RATIO", "2", "MRCNN.RESOLUTION", "56"]
    model, solver = fresh(config(3, *upsampled))
    kernel = model.mask_head.mask_fcn_logits_up.weight.detach().clone()
    source = file_of(config(4, *upsampled))
    point = start_from(model, solver, source, names("cat", "dog"), names("dog", "bird", "cow"))
    assert point.initialised == ("mask_fcn_logits_up_w", "mask_fcn_logits_up_b")
    assert point.copied == len(source.blobs) - len(point.partly_copied) - 2
    assert torch.equal(model.mask_head.mask_fcn_logits_up.weight, kernel)
