"""Detection in tensors of fixed shape against the way with as many boxes as there are."""

import math

import cv2
import pytest
import torch

from detectron_gn.mrcnn.config import Config, with_values
from detectron_gn.mrcnn.detectors import build_detector
from detectron_gn.mrcnn.inference import static_shapes
from detectron_gn.mrcnn.inference.dynamic import select_detections
from detectron_gn.mrcnn.inference.static_shapes import (
    StaticProposals,
    static_detections,
    static_proposals,
    supports_static_shapes,
)
from detectron_gn.mrcnn.ops import nms as nms_module
from detectron_gn.mrcnn.ops import proposals as proposals_module
from detectron_gn.mrcnn.ops.nms import nms, nms_in_rounds
from detectron_gn.mrcnn.ops.proposals import ImInfo, collect_proposals, level_proposals
from detectron_gn.port.config.read import bundled_config
from detectron_gn.port.runs.load import load_model


def some_boxes(generator, *shape, extent=200.0):
    corners = torch.rand((*shape, 2), generator=generator) * extent
    return torch.cat((corners, corners + 10 + torch.rand((*shape, 2), generator=generator) * 60), dim=-1)


def every_pair(lists):
    return torch.ones((1, 1, 1), dtype=torch.bool).expand(lists, 1, 1)


def test_nms_in_rounds_keeps_what_nms_keeps():
    generator = torch.Generator().manual_seed(0)
    boxes = some_boxes(generator, 3, 400)
    scores = torch.linspace(1, 0, 400)
    kept, settled = nms_in_rounds(boxes, every_pair(3), 0.5, 64)
    assert settled.all()
    for each, of_each in zip(boxes, kept, strict=True):
        assert of_each.nonzero()[:, 0].tolist() == nms(each, scores, 0.5).tolist()


def test_a_chain_takes_a_round_a_box_and_is_not_settled_before():
    # Each box overlaps the next by 0.6: the second goes because the first stays, so the third stays, and so on.
    left = 2.5 * torch.arange(9.0)
    boxes = torch.stack((left, torch.zeros(9), left + 9, torch.full((9,), 9.0)), dim=1)[None]
    kept, settled = nms_in_rounds(boxes, every_pair(1), 0.55, 10)
    assert kept[0].tolist() == [True, False] * 4 + [True]
    assert settled.all()
    assert not nms_in_rounds(boxes, every_pair(1), 0.55, 5)[1].any()


def test_nms_in_rounds_suppresses_at_equal_overlap():
    boxes = torch.tensor([[[0.0, 0.0, 1.0, 0.0], [1.0, 0.0, 2.0, 0.0]]])
    third = float(torch.tensor(1.0) / torch.tensor(3.0))
    assert nms_in_rounds(boxes, every_pair(1), third, 4)[0].tolist() == [[True, False]]


def test_what_may_not_suppress_does_not():
    boxes = torch.tensor([[[0.0, 0.0, 9.0, 9.0], [0.0, 0.0, 9.0, 9.0], [0.0, 0.0, 9.0, 9.0]]])
    valid = torch.tensor([[False, True, True]])
    assert nms_in_rounds(boxes, valid[:, :, None], 0.5, 8)[0].tolist() == [[True, True, False]]


@pytest.mark.slow
@pytest.mark.parametrize("settings", [{}, {"TEST.RPN_POST_NMS_TOP_N": 30}, {"TEST.RPN_MIN_SIZE": 25.0}])
def test_proposals_are_those_of_each_level_and_image(settings):
    cfg = with_values(Config(), {"TEST.RPN_PRE_NMS_TOP_N": 300, "TEST.RPN_POST_NMS_TOP_N": 200, **settings})
    generator = torch.Generator().manual_seed(1)
    anchors = [some_boxes(generator, 3, extent=0.0) - 20 * 2**level for level in range(3)]
    strides, scales, size = [4, 8, 16], [1.7, 0.8], (128, 160)
    shapes = [(2, 3, size[0] // stride, size[1] // stride) for stride in strides]
    # All different, so that no order hangs on ties.
    every = torch.linspace(-4, 4, sum(map(math.prod, shapes)))
    every = every[torch.randperm(len(every), generator=generator)].split([math.prod(shape) for shape in shapes])
    outputs = [
        (logits.view(shape), torch.randn((shape[0], 4 * shape[1], *shape[2:]), generator=generator) / 3)
        for logits, shape in zip(every, shapes, strict=True)
    ]
    found = static_proposals(outputs, anchors, strides, size, torch.tensor(scales), cfg)
    assert found.complete.all()
    for index, scale in enumerate(scales):
        parts = [
            level_proposals(logits[index], deltas[index], base, stride, index, ImInfo(*size, scale), cfg.TEST)
            for (logits, deltas), base, stride in zip(outputs, anchors, strides, strict=True)
        ]
        expected = collect_proposals(parts, cfg.TEST.RPN_POST_NMS_TOP_N).rois
        assert 20 < len(expected)
        # exp has another last bit at another place of a vector.
        torch.testing.assert_close(found.rois[index][found.valid[index]], expected, rtol=0, atol=1e-4)
        assert found.valid[index, : len(expected)].all()


def two_levels():
    """Positions of a level of small anchors do not overlap; those of a level of large ones suppress each other."""
    small, large = torch.tensor([[0.0, 0.0, 2.0, 2.0]]), torch.tensor([[-40.0, -40.0, 40.0, 40.0]])
    generator = torch.Generator().manual_seed(3)
    outputs = [(torch.randn((1, 1, 8, 8), generator=generator), torch.zeros((1, 4, 8, 8))) for _ in range(2)]
    return outputs, [small, large], [4, 4], (32, 32), torch.tensor([1.0])


def test_a_level_whose_nms_is_not_settled_is_told(monkeypatch):
    assert static_proposals(*two_levels(), Config()).complete.tolist() == [True]
    # One round settles the level in which nothing is suppressed.
    monkeypatch.setattr(static_shapes, "NMS_ROUNDS", 1)
    assert static_proposals(*two_levels(), Config()).complete.tolist() == [False]


def test_a_proposal_that_is_no_number_is_left_out_as_in_a_level():
    outputs, anchors, strides, size, scales = two_levels()
    outputs[1][1][0, :, 2, 3] = torch.nan
    found = static_proposals(outputs, anchors, strides, size, scales, Config())
    parts = [
        level_proposals(logits[0], deltas[0], base, 4, 0, ImInfo(*size, 1.0), Config().TEST)
        for (logits, deltas), base in zip(outputs, anchors, strict=True)
    ]
    expected = collect_proposals(parts, 1000).rois
    torch.testing.assert_close(found.rois[0][found.valid[0]], expected, rtol=0, atol=1e-4)
    assert found.rois.isfinite().all()


@pytest.fixture
def gpus_order(monkeypatch):
    """The order of tied scores that the way with as many boxes as there are has on a GPU."""
    for module in (nms_module, proposals_module):
        monkeypatch.setattr(module, "argsort", lambda values: values.argsort(stable=True))
    monkeypatch.setattr(proposals_module, "argtop", lambda scores, count: scores.topk(min(count, len(scores))).indices)


def test_tied_proposals_are_those_of_the_other_way_on_a_gpu(gpus_order):
    outputs, anchors, strides, size, scales = two_levels()
    outputs = [(logits.round(), 0.3 * torch.randn_like(deltas)) for logits, deltas in outputs]
    found = static_proposals(outputs, anchors, strides, size, scales, Config())
    parts = [
        level_proposals(logits[0], deltas[0], base, 4, 0, ImInfo(*size, 1.0), Config().TEST)
        for (logits, deltas), base in zip(outputs, anchors, strict=True)
    ]
    expected = collect_proposals(parts, 1000)
    assert len(expected.scores.unique()) < len(expected.scores) / 4
    torch.testing.assert_close(found.rois[0][found.valid[0]], expected.rois, rtol=0, atol=1e-4)


def second_stage(classes=5, rois=60, seed=2):
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn((2, rois, classes), generator=generator) * 2
    boxes = some_boxes(generator, 2, rois, classes).flatten(2)
    return logits.softmax(dim=2), boxes


def proposals_of(valid):
    return StaticProposals(torch.zeros((*valid.shape, 5)), valid, torch.ones(len(valid), dtype=torch.bool))


def assert_same(found, index, expected):
    count = int(found.counts[index])
    assert count == len(expected.scores)
    for column in ("boxes", "scores", "classes"):
        assert torch.equal(getattr(found, column)[index, :count], getattr(expected, column))


@pytest.mark.parametrize("limit", [7, 100])
def test_detections_are_those_of_each_image(limit):
    cfg = with_values(Config(), {"TEST.DETECTIONS_PER_IM": limit})
    scores, boxes = second_stage()
    valid = torch.arange(60).expand(2, 60) < torch.tensor([[60], [33]])
    found = static_detections(scores, boxes, proposals_of(valid), cfg)
    assert found.complete.all() and found.boxes.shape == (2, limit, 4)
    for index in range(2):
        expected = select_detections(scores[index][valid[index]], boxes[index][valid[index]], cfg)
        assert len(expected.scores) == 7 or limit == 100
        assert_same(found, index, expected)


def test_tied_detections_are_those_of_the_other_way_on_a_gpu(gpus_order):
    scores, boxes = second_stage()
    scores = (scores * 4).round() / 4
    boxes = (boxes / 40).round() * 40
    found = static_detections(scores, boxes, proposals_of(torch.ones((2, 60), dtype=torch.bool)), Config())
    for index in range(2):
        expected = select_detections(scores[index], boxes[index], Config())
        assert len(expected.scores.unique()) < len(expected.scores) / 4
        assert_same(found, index, expected)


def test_detections_whose_nms_is_not_settled_are_told(monkeypatch):
    scores, boxes = second_stage()
    monkeypatch.setattr(static_shapes, "NMS_ROUNDS", 1)
    proposals = proposals_of(torch.ones((2, 60), dtype=torch.bool))
    assert static_detections(scores, boxes, proposals, Config()).complete.tolist() == [False, False]


def test_places_without_a_detection_hold_boxes_that_are_numbers():
    scores, boxes = second_stage()
    boxes[:, 9:] = torch.nan
    scores[:, 9:] = torch.tensor([1.0, 0, 0, 0, 0])
    found = static_detections(scores, boxes, proposals_of(torch.ones((2, 60), dtype=torch.bool)), Config())
    assert found.counts.max() < 100 and found.boxes.isfinite().all()


def test_an_image_without_detections_has_none():
    proposals = proposals_of(torch.ones((1, 60), dtype=torch.bool))
    found = static_detections(torch.zeros((1, 60, 5)), second_stage()[1][:1], proposals, Config())
    assert found.counts.tolist() == [0] and found.complete.all()


def test_more_detections_than_places_are_told():
    # As many as tie with the last place stay in Detectron.
    cfg = with_values(Config(), {"TEST.DETECTIONS_PER_IM": 3})
    scores = torch.tensor([0.9, 0.8, 0.7, 0.7, 0.6])[None, :, None] * torch.tensor([0.0, 1.0])
    left = torch.arange(5.0) * 100
    boxes = torch.stack((left, left, left + 10, left + 10), dim=1).repeat(1, 2)[None]
    found = static_detections(scores, boxes, proposals_of(torch.ones((1, 5), dtype=torch.bool)), cfg)
    assert len(select_detections(scores[0], boxes[0], cfg).scores) == 4
    assert found.complete.tolist() == [False]


def test_more_candidates_than_places_are_told(monkeypatch):
    scores, boxes = second_stage()
    proposals = proposals_of(torch.ones((2, 60), dtype=torch.bool))
    candidates = (scores[:, :, 1:] > 0.05).flatten(1).sum(dim=1)
    monkeypatch.setattr(static_shapes, "MAX_CANDIDATES", int(candidates.min()))
    assert static_detections(scores, boxes, proposals, Config()).complete.tolist() == (
        candidates == candidates.min()
    ).tolist()


def test_proposals_that_are_not_settled_make_no_detections():
    scores, boxes = second_stage()
    proposals = proposals_of(torch.ones((2, 60), dtype=torch.bool))
    proposals = proposals._replace(complete=torch.tensor([True, False]))
    assert static_detections(scores, boxes, proposals, Config()).complete.tolist() == [True, False]


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("TEST.SOFT_NMS.ENABLED", True),
        ("TEST.BBOX_VOTE.ENABLED", True),
        ("TEST.BBOX_AUG.ENABLED", True),
        ("TEST.MASK_AUG.ENABLED", True),
        ("RETINANET.RETINANET_ON", True),
        ("TEST.RPN_NMS_THRESH", 0.0),
        ("TEST.RPN_PRE_NMS_TOP_N", 0),
        ("TEST.DETECTIONS_PER_IM", 0),
        ("FAST_RCNN.ROI_XFORM_SAMPLING_RATIO", 0),
    ],
)
def test_configurations_without_static_shapes_are_known(key, value):
    cfg = bundled_config("e2e_mask_rcnn_R-50-FPN_2x_gn")
    assert supports_static_shapes(cfg)
    assert not supports_static_shapes(with_values(cfg, {key: value}))


@pytest.fixture(scope="module")
def model(pickle):
    return load_model(pickle, device="cpu")


@pytest.fixture(scope="module")
def images(demo_model):
    return [cv2.imread(str(path)) for path in sorted((demo_model / "val").iterdir())]


def outputs(model, batch):
    scales = torch.tensor([info.scale for info in batch.im_info], dtype=torch.float64)
    with torch.inference_mode():
        return model.static_outputs(batch.data, scales, torch.tensor(batch.image_sizes, dtype=torch.float32))


@pytest.mark.slow
def test_the_whole_network_finds_the_same(model, images):
    detections = 0
    for image in images[:12]:
        expected = model.detect(image)
        found = outputs(model, model.network_input([image]))
        count = int(found.counts[0])
        assert found.complete.all() and count == len(expected)
        assert (found.boxes[0, :count].numpy() == expected.boxes).all()
        assert (found.scores[0, :count].numpy() == expected.scores).all()
        assert (found.classes[0, :count].numpy() == expected.classes).all()
        assert abs(found.mask_probs[0, :count].numpy() - expected.mask_probs).max(initial=0) < 1e-5
        detections += count
    assert detections > 20


def test_images_of_a_batch_are_kept_apart(model, images):
    # Of one padded size, but not of one size or scale.
    different = [images[0], images[0][::-1, :-3].copy()]
    batch = model.network_input(different)
    assert batch.im_info[0].scale != batch.im_info[1].scale
    found = outputs(model, batch)
    assert found.counts.min() > 0
    for index, image in enumerate(different):
        expected = model.detect(image)
        count = int(found.counts[index])
        assert count == len(expected)
        torch.testing.assert_close(found.boxes[index, :count], torch.from_numpy(expected.boxes), rtol=0, atol=1e-3)
        torch.testing.assert_close(
            found.mask_probs[index, :count], torch.from_numpy(expected.mask_probs), rtol=0, atol=1e-4
        )


def test_an_image_without_room_for_its_detections_goes_the_other_way(model, images):
    image = images[0]
    expected = model.detect(image)
    assert len(expected) > 1
    batch = model.network_input([image, image[:, ::-1].copy()])
    whole = [found.boxes for found in model.start_batch(batch)()]

    def network(*inputs):
        found = model.static_outputs(*inputs)
        return found._replace(complete=torch.tensor([True, False]), boxes=found.boxes + 1)

    first, second = model.start_batch(batch, network)()
    torch.testing.assert_close(torch.from_numpy(first.boxes), torch.from_numpy(whole[0]) + 1, rtol=0, atol=1e-3)
    torch.testing.assert_close(torch.from_numpy(second.boxes), torch.from_numpy(whole[1]), rtol=0, atol=1e-3)
    assert first.mask_probs.shape == (len(whole[0]), *expected.mask_probs.shape[1:])
    assert [found.image_size for found in (first, second)] == [image.shape[:2]] * 2


class Watched(torch.utils._python_dispatch.TorchDispatchMode):
    """Counts operators, and notes those that have a tensor on the host."""

    def __init__(self):
        super().__init__()
        self.count, self.on_the_host = 0, []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        leaves, _ = torch.utils._pytree.tree_flatten((args, kwargs, result))
        self.count += 1
        if any(isinstance(leaf, torch.Tensor) and leaf.device.type != "meta" for leaf in leaves):
            self.on_the_host.append(str(func))
        return result


@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
@pytest.mark.parametrize("config", ["e2e_mask_rcnn_R-50-FPN_2x_gn", "e2e_mask_rcnn_R-50-FPN_2x"])
def test_a_device_is_never_waited_for(config, precision):
    """On torch's meta device, which holds no numbers: asking for one, or for as many as there are, is an error."""
    model = build_detector(bundled_config(config)).eval().to("meta")
    model.use_precision(precision)
    data = torch.empty((2, 3, 800, 1216), device="meta")
    scales, sizes = torch.empty(2, dtype=torch.float64, device="meta"), torch.empty((2, 2), device="meta")
    with torch.inference_mode(), Watched() as watched:
        found = model.static_outputs(data, scales, sizes)
        with pytest.raises((RuntimeError, NotImplementedError)):
            found.counts.tolist()
    assert watched.count > 500 and not watched.on_the_host
    assert found.boxes.shape == (2, 100, 4) and found.mask_probs.shape == (2, 100, 28, 28)
    assert (found.boxes.dtype, found.scores.dtype, found.mask_probs.dtype) == (torch.float32,) * 3
