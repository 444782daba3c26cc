"""RetinaNet's targets and losses beside Detectron's and its kernels', in `tests/data/zoo/ops_dense.h5`.

The kernels run on GPUs alone: scalar readings of them stand in, checked by numerical gradients.
"""

import math

import h5py
import numpy as np
import pytest
import torch

from detectron_gn.mrcnn.config import Config, with_values
from detectron_gn.mrcnn.training.dense_targets import DenseField, DenseTargets, Places, label_anchors
from detectron_gn.mrcnn.training.focal_losses import sigmoid_focal_loss, softmax_focal_loss
from detectron_gn.mrcnn.training.retinanet_losses import retinanet_losses

CFG = with_values(
    Config(),
    {
        "MODEL.NUM_CLASSES": 5,
        "TRAIN.MAX_SIZE": 256,
        "FPN.FPN_ON": True,
        "FPN.COARSEST_STRIDE": 128,
        "FPN.RPN_MIN_LEVEL": 3,
        "FPN.RPN_MAX_LEVEL": 7,
        "RETINANET.RETINANET_ON": True,
        "RETINANET.ASPECT_RATIOS": (1.0, 2.0, 0.5),
    },
)
SIDES = (32, 16, 8, 4, 2)


@pytest.fixture
def ops(data):
    with h5py.File(data / "zoo" / "ops_dense.h5") as file:
        yield file


def tensor(dataset):
    return torch.from_numpy(np.asarray(dataset[()]))


@pytest.mark.parametrize(
    ("name", "loss"), [("a", sigmoid_focal_loss), ("b", sigmoid_focal_loss), (None, softmax_focal_loss)]
)
def test_focal_losses_and_their_gradients_are_the_kernels(ops, name, loss):
    group = ops["sigmoid_focal" if name else "softmax_focal"]
    case = group[name] if name else group
    classes = int(group.attrs["num_classes"])
    logits = tensor(group["x"]).requires_grad_()
    labels = tensor(group["labels"]).long()
    total = loss(logits.unflatten(1, (-1, classes)), labels, float(case.attrs["gamma"]), float(case.attrs["alpha"]))
    total = total * float(case.attrs["scale"]) / max(float(group["fg_num"][0]), 1.0)
    total.backward()
    assert total.item() == pytest.approx(float(case["loss"][()]), rel=1e-6)
    expected = case["dx"][()]
    np.testing.assert_allclose(logits.grad.numpy(), expected, rtol=1e-5, atol=1e-6 * np.abs(expected).max())


@pytest.mark.parametrize("loss", [sigmoid_focal_loss, softmax_focal_loss])
def test_gradients_are_those_of_the_loss(loss):
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(2, 3, 4, 2, 3, generator=generator, dtype=torch.float64, requires_grad=True)
    labels = torch.randint(-1, 4, (2, 3, 2, 3), generator=generator)
    for gamma in (0.0, 1.5, 2.0):
        assert torch.autograd.gradcheck(lambda x: loss(x, labels, gamma, 0.3), (logits,))  # noqa: B023


@pytest.mark.parametrize("loss", [sigmoid_focal_loss, softmax_focal_loss])
def test_an_object_that_is_given_no_chance_costs_the_least_logarithm_and_is_still_pulled(loss):
    """C's FLT_MIN bounds the probability that the kernels take the logarithm of, and not their gradient."""
    logits = torch.zeros(1, 1, 2, 1, 1)
    logits[0, 0, 1] = -200.0
    if loss is sigmoid_focal_loss:
        logits[0, 0, 0] = -200.0
    logits.requires_grad_()
    value = loss(logits, torch.full((1, 1, 1, 1), 2 if loss is sigmoid_focal_loss else 1), 2.0, 1.0)
    value.backward()
    assert value.item() == pytest.approx(-math.log(torch.finfo(torch.float32).tiny))
    assert logits.grad[0, 0, 1].item() == pytest.approx(-1.0)


def located(targets, field, image, specific):
    """Detectron's rows (image, channel, y, x) of the objects of a level, by level."""
    places = field.places(targets.objects)
    own = targets.labels[targets.objects] - 1 if specific else torch.zeros_like(places.anchor)
    channel = places.anchor * (16 if specific else 4) + own * 4
    rows = torch.stack((torch.full_like(channel, image), channel, places.y, places.x), dim=1)
    return [rows[places.level == level].numpy() for level in range(5)], [
        targets.box_targets[places.level == level].numpy() for level in range(5)
    ]


@pytest.mark.parametrize("kind", ["shared", "class_specific"])
def test_targets_are_detectrons(ops, kind):
    group, specific = ops["retinanet_targets"], kind == "class_specific"
    field = DenseField(CFG)
    targets = []
    for image, scale in enumerate(group.attrs["im_scales"]):
        rows = group[f"gt{image}"][()]
        rows = rows[rows[:, 5] == 0]
        boxes = torch.from_numpy(rows[:, :4].astype(np.float32)) * float(scale)
        targets.append(label_anchors(field, boxes, torch.from_numpy(rows[:, 4].astype(np.int64)), CFG))
    assert sum(image.fg_num for image in targets).item() == group[kind]["retnet_fg_num"][0]
    assert sum(image.bg_num for image in targets).item() == group[kind]["retnet_bg_num"][0]
    for number, level in enumerate(range(3, 8)):
        labels = torch.stack([field.maps(image.labels)[number] for image in targets])
        np.testing.assert_array_equal(labels.numpy(), group[kind][f"retnet_cls_labels_fpn{level}"][()])
        parts = [located(image, field, index, specific) for index, image in enumerate(targets)]
        rows = np.concatenate([rows[number] for rows, _ in parts])
        boxes = np.concatenate([boxes[number] for _, boxes in parts])
        order, theirs = np.lexsort(rows.T), group[kind][f"retnet_roi_fg_bbox_locs_fpn{level}"][()]
        their_order = np.lexsort(theirs.T)
        np.testing.assert_array_equal(rows[order], theirs[their_order])
        their_boxes = group[kind][f"retnet_roi_bbox_targets_fpn{level}"][()][their_order]
        np.testing.assert_allclose(boxes[order], their_boxes, atol=2e-7)


def test_an_object_that_is_only_the_best_of_a_poor_lot_counts_and_is_not_trained_on():
    """Detectron counts the objects before it sets the background (roi_data/retinanet.py:_get_retinanet_blobs)."""
    field = DenseField(CFG)
    speck = label_anchors(field, torch.tensor([[100.0, 100.0, 103.0, 103.0]]), torch.tensor([3]), CFG)
    assert not len(speck.objects) and not (speck.labels > 0).any()
    assert speck.fg_num.item() >= 2
    none = label_anchors(field, torch.zeros(0, 4), torch.zeros(0, dtype=torch.int64), CFG)
    assert (none.labels == 0).all() and none.fg_num.item() == 1


def test_places_and_anchors_of_the_field_lead_to_each_other():
    field = DenseField(CFG)
    every = torch.arange(len(field.anchors))
    assert torch.equal(field.index(field.places(every)), every)
    # The anchor of the second octave and the ratio 2 at row 3, column 5 of level 4: 80.6 pixels scaled from 16.
    (index,) = field.index(Places(*torch.tensor([[1], [4], [3], [5]])))
    box = field.anchors[index]
    assert ((box[0] + box[2]) / 2, (box[1] + box[3]) / 2) == (5 * 16 + 7.5, 3 * 16 + 7.5)
    assert ((box[3] - box[1] + 1) / (box[2] - box[0] + 1)).item() == 2


def outputs(cfg, images=1):
    boxes = 36 * (4 if cfg.RETINANET.CLASS_SPECIFIC_BBOX else 1)
    scores = 45 if cfg.RETINANET.SOFTMAX else 36
    return [(torch.zeros(images, scores, side, side), torch.zeros(images, boxes, side, side)) for side in SIDES]


def one_object(field, label, place):
    labels = torch.zeros(len(field.anchors), dtype=torch.int64)
    index = field.index(Places(*torch.tensor(place)[:, None]))
    labels[index] = label
    return DenseTargets(labels, index, torch.full((1, 4), 0.5), torch.tensor(2.0), torch.tensor(0.0))


def test_select_smooth_l1_is_the_kernels(ops):
    """Shared boxes: the kernel's beta, scale and normaliser, and the gradient at the objects alone."""
    group = ops["select_smooth_l1"]
    deltas = tensor(group["x"]).requires_grad_()
    locations, targets = tensor(group["locations"]).long(), tensor(group["targets"])
    cfg = with_values(
        CFG,
        {
            "FPN.RPN_MAX_LEVEL": 3,
            "RETINANET.SCALES_PER_OCTAVE": 1,
            "RETINANET.BBOX_REG_WEIGHT": float(group.attrs["scale"]),
            "RETINANET.BBOX_REG_BETA": float(group.attrs["beta"]),
        },
    )
    field = DenseField(cfg)
    images = []
    for image in range(2):
        own = locations[:, 0] == image
        _, channel, y, x = locations[own].unbind(1)
        index = field.index(Places(torch.zeros_like(y), channel // 4, y, x))
        labels = torch.full((len(field.anchors),), -1)
        labels[index] = 1
        fg_num = tensor(group["fg_num"])[0] / 2
        images.append(DenseTargets(labels, index, targets[own], fg_num, fg_num))
    losses = retinanet_losses([(torch.zeros(2, 12, 5, 7), deltas)], images, field, cfg)
    losses["retnet_loss_bbox_fpn3"].backward()
    assert losses["retnet_loss_bbox_fpn3"].item() == pytest.approx(float(group["loss"][()]), rel=1e-6)
    np.testing.assert_allclose(deltas.grad.numpy(), group["dx"][()], rtol=1e-5, atol=1e-8)


@pytest.mark.parametrize("specific", [False, True])
def test_boxes_of_a_class_are_trained_in_its_own_columns(specific):
    cfg = with_values(CFG, {"RETINANET.CLASS_SPECIFIC_BBOX": specific})
    field = DenseField(cfg)
    given = [(cls_pred, bbox_pred.requires_grad_()) for cls_pred, bbox_pred in outputs(cfg)]
    losses = retinanet_losses(given, [one_object(field, 3, [1, 7, 2, 4])], field, cfg)
    losses["retnet_loss_bbox_fpn4"].backward()
    moved = given[1][1].grad[0, :, 2, 4].nonzero()[:, 0].tolist()
    first = 7 * 16 + 2 * 4 if specific else 7 * 4
    assert moved == list(range(first, first + 4))
    # Four times 0.5 - 0.11 / 2, divided by the count of 2.
    assert losses["retnet_loss_bbox_fpn4"].item() == pytest.approx(4 * (0.5 - 0.055) / 2)
    assert losses["retnet_loss_bbox_fpn3"].item() == 0


def test_every_loss_is_divided_by_the_objects_of_all_levels_and_images_and_by_the_gpus():
    field = DenseField(CFG)
    images = [one_object(field, 1, [0, 0, 0, 0]), one_object(field, 2, [4, 8, 1, 1])]
    one = retinanet_losses(outputs(CFG, 2), images, field, CFG)
    many = [image._replace(fg_num=image.fg_num * 3) for image in images]
    three = retinanet_losses(outputs(CFG, 2), many, field, CFG)
    two_gpus = retinanet_losses(outputs(CFG, 2), images, field, with_values(CFG, {"NUM_GPUS": 2}))
    assert (one["retnet_fg_num"].item(), three["retnet_fg_num"].item()) == (4, 12)
    for name in one:
        if name not in ("retnet_fg_num", "retnet_bg_num"):
            assert one[name].item() == pytest.approx(3 * three[name].item()) == pytest.approx(2 * two_gpus[name].item())


def test_an_object_beyond_the_map_has_no_loss():
    """Caffe2 would read its deltas from elsewhere in memory."""
    field = DenseField(CFG)
    small = [(cls_pred[:, :, :16, :16], bbox_pred[:, :, :16, :16]) for cls_pred, bbox_pred in outputs(CFG)]
    losses = retinanet_losses(small, [one_object(field, 1, [0, 0, 20, 3])], field, CFG)
    assert losses["retnet_loss_bbox_fpn3"].item() == 0
