"""Detection in 16 bits on the demo's model: what is rounded, and how much the detections change."""


import subprocess
import sys

import cv2
import pytest
import torch
from torch import nn

import detectron_gn
from detectron_gn.mrcnn.backbones.classifier import Classifier
from detectron_gn.mrcnn.detectors import build_detector
from detectron_gn.mrcnn.errors import InputError
from detectron_gn.mrcnn.evaluation.partial_results import PartialResults, run_identity
from detectron_gn.mrcnn.ops.boxes import box_overlaps
from detectron_gn.mrcnn.precision import tf32_products
from detectron_gn.port.blobs.convert import build_model
from detectron_gn.port.blobs.table import BlobTable
from detectron_gn.port.config.read import bundled_config
from detectron_gn.port.runs.load import configured_weights
from detectron_gn.weights import read_blobs


@pytest.mark.parametrize(("precision", "dtype"), [("bf16", torch.bfloat16), ("fp16", torch.float16)])
def test_16_bits_round_products_and_nothing_else(precision, dtype, pickle):
    model = detectron_gn.load(pickle, device="cpu", precision=precision)
    for name, module in model.named_modules():
        if isinstance(module, nn.Conv2d | nn.ConvTranspose2d | nn.Linear):
            assert module.weight.dtype == dtype, name
        elif isinstance(module, nn.GroupNorm):
            assert module.weight.dtype == module.bias.dtype == torch.float32, name
    assert model.rpn.anchors[0].dtype == torch.float32


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_16_bits_find_the_same_objects_a_little_off(precision, pickle, demo_model):
    exact, rounded = (detectron_gn.load(pickle, device="cpu", precision=p) for p in ("fp32", precision))
    for path in sorted((demo_model / "val").iterdir())[:3]:
        image = cv2.imread(str(path))
        ours, others = exact.detect(image), rounded.detect(image)
        sure = ours.scores > 0.9
        boxes = torch.from_numpy(ours.boxes[sure])
        overlaps, partners = box_overlaps(boxes, torch.from_numpy(others.boxes)).max(dim=1)
        assert sure.any() and overlaps.min() > 0.8
        assert (others.classes[partners] == ours.classes[sure]).all()
        assert abs(others.scores[partners] - ours.scores[sure]).max() < 0.1
        assert not torch.equal(torch.from_numpy(others.boxes)[partners], boxes)


def tf32_switches():
    return [each.fp32_precision == "tf32" for each in (torch.backends.cuda.matmul, torch.backends.cudnn.conv)]


@pytest.mark.parametrize("precision", ["fp32", "tf32", "bf16"])
def test_detection_has_tf32_by_option_only_and_puts_the_switches_back(precision, pickle, demo_model):
    model, seen = detectron_gn.load(pickle, device="cpu", precision=precision), []
    body = model.backbone.body
    body.register_forward_hook(lambda *_: seen.append(tf32_switches()))
    model.box_head.fc6.register_forward_hook(lambda *_: seen.append(tf32_switches()))
    image = cv2.imread(str(min((demo_model / "val").iterdir())))
    for before in (True, False):
        with tf32_products(before):
            model.detect(image)
            assert tf32_switches() == [before, before]
    assert len(seen) == 4 and all(switches == [precision == "tf32"] * 2 for switches in seen)


def test_building_a_network_changes_nothing_of_the_process(pickle):
    makers = (
        lambda: build_detector(bundled_config("e2e_mask_rcnn_R-50-FPN_2x", ["RESNETS.WIDTH_PER_GROUP", "8"])),
        lambda: BlobTable.from_config(bundled_config("e2e_mask_rcnn_R-50-FPN_2x")),
        lambda: build_model(configured_weights(pickle)[0], read_blobs(pickle)),
        lambda: detectron_gn.load(pickle, device="cpu", precision="tf32"),
        lambda: Classifier(bundled_config("e2e_mask_rcnn_R-50-FPN_2x_gn"), 10),
    )
    for before in (True, False):
        for make in makers:
            with tf32_products(before):
                make()
                assert tf32_switches() == [before, before]


@pytest.mark.parametrize("precision", ["tf32", "bf16", "fp16"])
def test_an_evaluation_does_not_go_on_in_another_precision(precision, pickle, tmp_path, demo_model):
    exact, rounded = (detectron_gn.load(pickle, device="cpu", precision=p) for p in ("fp32", precision))
    annotations = demo_model / "instances_val.json"
    with PartialResults(tmp_path, run_identity(exact, annotations, 1), {}):
        pass
    with pytest.raises(InputError, match=r"a run with another precision \(fp32\)"):
        PartialResults(tmp_path, run_identity(rounded, annotations, 1), {})
    exact.use_precision("fp32")


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_a_model_with_affine_channels_detects_in_16_bits(precision, demo_model):
    narrow = ["FPN.DIM", "16", "RESNETS.WIDTH_PER_GROUP", "8", "FAST_RCNN.MLP_HEAD_DIM", "32", "TEST.SCALE", "96"]
    model = build_detector(bundled_config("e2e_mask_rcnn_R-50-FPN_2x", narrow)).eval()
    model.use_precision(precision)
    image = cv2.imread(str(min((demo_model / "val").iterdir())))
    assert model.detect(image).boxes.dtype == "float32"


@pytest.mark.parametrize(
    "switch", ["torch.set_float32_matmul_precision('medium')", "torch.backends.fp32_precision = 'tf32'"]
)
def test_detection_works_beside_every_switch_of_torch(switch, pickle, demo_model):
    """In a process of its own: torch does not let the older and the newer switches be mixed."""
    image = min((demo_model / "val").iterdir())
    program = (
        f"import torch, cv2, detectron_gn; {switch}; before = torch.backends.cuda.matmul.fp32_precision; "
        f"detectron_gn.load({str(pickle)!r}, device='cpu').detect(cv2.imread({str(image)!r})); "
        "assert torch.backends.cuda.matmul.fp32_precision == before; "
    )
    program += "torch.get_float32_matmul_precision()" if "medium" in switch else ""
    subprocess.run([sys.executable, "-c", program], check=True)


def test_a_precision_that_there_is_not_is_refused(pickle):
    with pytest.raises(InputError, match="give one of fp32, tf32, bf16, fp16"):
        detectron_gn.load(pickle, device="cpu", precision="half")
