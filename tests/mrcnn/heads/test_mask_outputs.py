"""The last layer of the mask head: one map a class or one for all, fully connected, bilinearly upsampled."""

import pytest
import torch
import torch.nn.functional as F

from detectron_gn.mrcnn.config import check_config
from detectron_gn.mrcnn.detectors import build_detector
from detectron_gn.mrcnn.errors import InputError
from detectron_gn.mrcnn.layers import FilledDeconv2d, bilinear_fill
from detectron_gn.mrcnn.training.losses import fast_rcnn_losses
from detectron_gn.mrcnn.training.roi_targets import RoiSample
from detectron_gn.port.blobs.activations import trace_masks
from detectron_gn.port.blobs.table import BlobTable
from detectron_gn.port.config.read import bundled_config
from tests.helpers.small_run import SMALL

# A mask has twice the side of what is pooled: 8, or 16 where it is upsampled.
SMALL_MASKS = ["MRCNN.ROI_XFORM_RESOLUTION", "4", "MRCNN.RESOLUTION", "8"]
UPSAMPLED = ["MRCNN.UPSAMPLE_RATIO", "2", "MRCNN.RESOLUTION", "16"]
ONE_FOR_ALL, CONNECTED = ["MRCNN.CLS_SPECIFIC_MASK", "False"], ["MRCNN.USE_FC_OUTPUT", "True"]
VARIANTS = {
    "classes": ([], 5, 8),
    "one for all": (ONE_FOR_ALL, 1, 8),
    "fully connected": (CONNECTED, 5, 8),
    "fully connected, one for all": (CONNECTED + ONE_FOR_ALL, 1, 8),
    "upsampled": (UPSAMPLED, 5, 16),
    "fully connected to four times as much": (CONNECTED + UPSAMPLED, 5, 16),
}


def config(*overrides):
    return bundled_config("e2e_mask_rcnn_R-50-FPN_shapes_gn", [*SMALL.split(), *SMALL_MASKS, *overrides])


def shapes(*overrides):
    rows = BlobTable.from_config(config(*overrides)).rows
    return {row.blob: row.shape for row in rows if row.blob.startswith(("mask_fcn", "bbox_pred"))}


@pytest.mark.parametrize("variant", VARIANTS)
def test_masks_of_a_class_are_its_channel_of_all(variant):
    overrides, channels, size = VARIANTS[variant]
    torch.manual_seed(0)
    head = build_detector(config(*overrides)).eval().mask_head
    for parameter in (head.mask_fcn_logits.weight, head.mask_fcn_logits.bias):
        torch.nn.init.normal_(parameter)
    roi_features, classes = torch.randn(3, 16, 4, 4), torch.tensor([4, 1, 2])
    every = head(roi_features)
    assert every.shape == (3, channels, size, size)
    own = every[torch.arange(3), classes if channels > 1 else 0]
    torch.testing.assert_close(head.of_classes(roi_features, classes), own)


def test_blobs_are_those_of_detectrons_layers():
    assert shapes() == {
        "bbox_pred_w": (20, 16), "bbox_pred_b": (20,), "mask_fcn_logits_w": (5, 16, 1, 1), "mask_fcn_logits_b": (5,),
    }
    assert shapes("MODEL.CLS_AGNOSTIC_BBOX_REG", "True")["bbox_pred_w"] == (8, 16)
    assert shapes("MRCNN.CLS_SPECIFIC_MASK", "False")["mask_fcn_logits_w"] == (1, 16, 1, 1)
    assert shapes(*VARIANTS["fully connected"][0])["mask_fcn_logits_w"] == (5 * 8 * 8, 16 * 8 * 8)
    upsampled = shapes(*VARIANTS["upsampled"][0])
    assert list(upsampled)[-2:] == ["mask_fcn_logits_up_w", "mask_fcn_logits_up_b"]
    assert upsampled["mask_fcn_logits_up_w"] == (5, 5, 4, 4)
    connected = shapes(*VARIANTS["fully connected to four times as much"][0])
    assert connected["mask_fcn_logits_w"] == (5 * 16 * 16, 16 * 8 * 8) and "mask_fcn_logits_up_w" not in connected


def test_upsampling_is_bilinear_and_never_trained():
    head = build_detector(config(*VARIANTS["upsampled"][0])).mask_head
    assert not any(parameter.requires_grad for parameter in head.mask_fcn_logits_up.parameters())
    maps = torch.randn(2, 3, 6, 7)
    enlarged = FilledDeconv2d(3, 3, bilinear_fill, 4, 2)(maps)
    # Inside, where no zeros of the border are mixed in, it is what everybody calls bilinear.
    expected = F.interpolate(maps, scale_factor=2, mode="bilinear", align_corners=False)
    torch.testing.assert_close(enlarged[:, :, 1:-1, 1:-1], expected[:, :, 1:-1, 1:-1])


@pytest.mark.parametrize(
    ("variant", "blobs"),
    [
        ("fully connected", {"mask_fcn_logits": (2, 5 * 64), "mask_fcn_probs": (2, 5 * 64)}),
        ("upsampled", {"mask_fcn_logits": (2, 5, 8, 8), "mask_fcn_logits_up": (2, 5, 16, 16)}),
    ],
)
def test_the_trace_has_detectrons_shapes(variant, blobs):
    model = build_detector(config(*VARIANTS[variant][0])).eval()
    image = torch.randint(256, (64, 80, 3), dtype=torch.uint8).numpy()
    trace = trace_masks(model, image, torch.tensor([[0, 2.0, 2.0, 40.0, 50.0], [0, 9.0, 9.0, 70.0, 60.0]]))
    assert {name: tuple(trace[name].shape) for name in blobs} == blobs
    last = trace.get("mask_fcn_logits_up", trace["mask_fcn_logits"])
    torch.testing.assert_close(trace["mask_fcn_probs"], last.sigmoid())


def test_an_agnostic_head_is_trained_on_the_objects_deltas():
    cfg = config("MODEL.CLS_AGNOSTIC_BBOX_REG", "True")
    bbox_pred = torch.zeros(2, 8, requires_grad=True)
    sample = RoiSample(torch.zeros(2, 5), torch.tensor([3, 0]), torch.tensor([1, 0]), torch.ones(2, 4), None)
    fast_rcnn_losses(torch.zeros(2, 5), bbox_pred, sample, cfg)["loss_bbox"].backward()
    assert bbox_pred.grad[0, 4:].all() and not bbox_pred.grad[0, :4].any() and not bbox_pred.grad[1].any()


@pytest.mark.parametrize(
    ("overrides", "sentence"),
    [
        (["MRCNN.UPSAMPLE_RATIO", "3"], "MRCNN.UPSAMPLE_RATIO is 3: set it to an even number"),
        (["MRCNN.UPSAMPLE_RATIO", "0"], "MRCNN.UPSAMPLE_RATIO is 0"),
        (["MRCNN.UPSAMPLE_RATIO", "2"], "MRCNN.RESOLUTION is 8, but .*UPSAMPLE_RATIO is 2: set it to 16"),
        (["TEST.BBOX_VOTE.ENABLED", "True", "TEST.BBOX_VOTE.VOTE_TH", "1.5"], "TEST.BBOX_VOTE.VOTE_TH is 1.5"),
    ],
)
def test_sizes_that_do_not_fit_are_refused(overrides, sentence):
    with pytest.raises(InputError, match=sentence):
        check_config(config(*overrides))
