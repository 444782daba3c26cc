"""Wrong ports, each injected on purpose: the first difference is found where it begins and laid to what was done."""

import functools
import re
import shutil
from pathlib import Path

import cv2
import h5py
import numpy as np
import pytest
import torch
import torch.nn.functional as F

from detectron_gn.mrcnn import structures
from detectron_gn.mrcnn.backbones import fpn
from detectron_gn.mrcnn.data import image_blob
from detectron_gn.mrcnn.detectors import generalized_rcnn
from detectron_gn.mrcnn.heads import mask, rpn
from detectron_gn.mrcnn.inference import dynamic
from detectron_gn.mrcnn.inference import network_input as network_input_module
from detectron_gn.mrcnn.ops import boxes as boxes_module
from detectron_gn.mrcnn.ops import paste as paste_module
from detectron_gn.mrcnn.ops import proposals as proposals_module
from detectron_gn.mrcnn.ops import roi_align as roi_align_module
from detectron_gn.port.blobs.convert import build_model
from detectron_gn.port.blobs.table import BlobTable
from detectron_gn.port.config.read import bundled_config, merge_overrides
from detectron_gn.port.runs.load import load_model
from detectron_gn.verify.diagnosis.diagnose import diagnose
from detectron_gn.verify.diagnosis.flow import FLOW, step_of
from detectron_gn.verify.parity.blobs import compare_file, compare_image
from detectron_gn.verify.reference.image_dump import read_references
from tests.helpers.recipe import recipe_weights

# A hundred networks, each run on whole images.
pytestmark = pytest.mark.slow

# What verify blobs lets pass; the embedded model agrees to 3e-5.
TOLERANCE = 1e-3


@pytest.fixture
def model(pickle):
    return load_model(pickle, device="cpu")


def found(model, demo_model, reference=None):
    """The finding in each image of a reference, the embedded one unless another is given."""
    return [
        diagnose(model, compare_image(model, each), each, TOLERANCE)
        for each in references(reference or demo_model / "blobs.h5", demo_model / "val", model.cfg)
    ]


@functools.lru_cache(maxsize=2)
def references(path, images, cfg):
    """A reference of every image; that of the embedded model is read only once."""
    return list(read_references(path, images, cfg))


def assert_found(findings, rung, where, suspect):
    """Each begins there, and no other cause is left."""
    for finding in findings:
        assert finding.rung == rung
        assert finding.where.startswith(where)
        assert finding.suspect.startswith(suspect) and finding.suspect
        assert not finding.may_be


def assert_may_be(findings, rung, where, may_be):
    """Each begins there, and no cause is named as the one."""
    for finding in findings:
        assert finding.rung == rung
        assert finding.where.startswith(where)
        assert finding.may_be.startswith(may_be)
        assert not finding.suspect


def test_a_right_port_is_under_no_suspicion(model, demo_model):
    assert found(model, demo_model) == [None, None]


def test_roi_align_moved_by_half_a_pixel(model, demo_model, monkeypatch):
    right = roi_align_module.roi_align

    def wrong(features, rois, spatial_scale, resolution, sampling_ratio):
        moved = rois.clone()
        moved[:, 1:] -= 0.5 / spatial_scale
        return right(features, moved, spatial_scale, resolution, sampling_ratio)

    monkeypatch.setattr(roi_align_module, "roi_align", wrong)
    assert_found(found(model, demo_model), "blobs", "roi_feat (", "RoIAlign's half-pixel shift")


@pytest.fixture
def thinned(demo_model, tmp_path):
    """Makes a reference of the embedded one that holds every n-th value of some blobs, and lacks others."""

    def make(strides, without=()):
        path = tmp_path / "thinned.h5"
        shutil.copyfile(demo_model / "blobs.h5", path)
        with h5py.File(path, "r+") as file:
            for image in file.values():
                for name, stride in strides.items():
                    values = image[f"blobs/{name}"][:]
                    del image[f"blobs/{name}"]
                    image[f"blobs/{name}"] = values.reshape(-1)[::stride]
                    image[f"blobs/{name}"].attrs.update(stride=stride, shape=values.shape)
                for name in without:
                    del image[f"blobs/{name}"]
        return path

    return make


def half_a_pixel(monkeypatch):
    right = roi_align_module.roi_align

    def wrong(features, rois, spatial_scale, *rest):
        return right(features, rois - rois.new_tensor([0, *[0.5 / spatial_scale] * 4]), spatial_scale, *rest)

    monkeypatch.setattr(roi_align_module, "roi_align", wrong)


# What a dump that thins every large blob leaves of the RoIs: their first column, which is zero, and of the proposals
# of the large levels every third value.
SAMPLE = {"rois": 5, "rpn_rois_fpn2": 3, "rpn_rois_fpn3": 3}


def test_of_sampled_rois_the_first_wrong_blob_is_named_all_the_same(model, demo_model, thinned, monkeypatch):
    reference = thinned(SAMPLE)
    assert found(model, demo_model, reference) == [None, None]
    half_a_pixel(monkeypatch)
    assert_found(found(model, demo_model, reference), "blobs", "roi_feat (", "RoIAlign's half-pixel shift")


def test_of_sampled_rois_a_wrong_box_head_is_named(model, demo_model, thinned):
    with torch.no_grad():
        model.box_head.fc6.weight.mul_(1.3)
    told = "other weights than the reference was recorded with; or the box head"
    assert_may_be(found(model, demo_model, thinned(SAMPLE)), "blobs", "fc6 (", told)


def test_a_blob_below_the_tolerance_is_told_to_be_and_where_errors_begin(model, demo_model):
    # Weights moved by a ten-thousandth: no blob is far off, the last ones most.
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if name.endswith("weight") and weight.dim() > 1:
                weight.mul_(1 + 1e-4 * torch.randn(weight.shape, generator=generator))
    finding = next(each for each in found(model, demo_model) if each is not None)
    assert re.match(
        r"its relative error, \d\.\de-04, is below the tolerance of 0\.001, but the first of this part above a tenth "
        r"of it; \w+ is above it \(\d\.\de-03\)",
        finding.evidence,
    )
    assert re.search(r"; errors far above 2e-05, which rounding gives .* begin in res2_\w+ \(1", finding.evidence)
    assert finding.may_be.startswith("other weights than the reference was recorded with; or ")


def test_of_sampled_rois_another_number_of_rois_is_found(pickle, demo_model, thinned):
    model = load_model(pickle, overrides=["TEST.RPN_POST_NMS_TOP_N", "500"], device="cpu")
    assert_found(found(model, demo_model, thinned(SAMPLE)), "proposals", "rois (", "collecting the levels")


def test_of_sampled_rois_those_of_a_tie_are_told_apart(model, demo_model, thinned):
    # Neighbours change places, as those of equal score may: their blobs are compared with their own all the same.
    reference = thinned({})
    swapped = [1, 0, 3, 2]
    with h5py.File(reference, "r+") as file:
        for image in file.values():
            for name in ("rpn_rois_fpn2", "rpn_roi_probs_fpn2"):
                image[f"blobs/{name}"][:4] = image[f"blobs/{name}"][:][swapped]
            values = image["blobs/rpn_rois_fpn2"][:]
            del image["blobs/rpn_rois_fpn2"]
            image["blobs/rpn_rois_fpn2"] = values.reshape(-1)[::3]
            image["blobs/rpn_rois_fpn2"].attrs.update(stride=3, shape=values.shape)
    for parity in compare_file(model, reference, demo_model / "val"):
        level = next(level for level in parity.proposals if level.level == 2)
        assert level.unmatched == 0
        assert all(blob.relative_error < TOLERANCE for blob in parity.blobs)


def test_rois_of_which_nothing_is_known_vouch_for_nothing_after_them(model, demo_model, thinned, monkeypatch):
    reference = thinned({"rois": 5}, without=["rpn_rois_fpn2"])
    half_a_pixel(monkeypatch)
    for finding in found(model, demo_model, reference):
        assert finding.rung == "detections"
        assert "no blob after them was compared" in finding.evidence
        assert finding.suspect == ""
        assert finding.may_be.endswith("a reference with whole rois tells which")


def test_of_sampled_rois_without_proposals_nothing_later_is_blamed(model, demo_model, thinned):
    with torch.no_grad():
        model.box_head.bbox_pred.weight.mul_(1.03)
    findings = found(model, demo_model, thinned({"rois": 5}, without=["rpn_rois_fpn2"]))
    assert_may_be(findings, "detections", "detections (", "the second stage or the choice of RoIs")
    assert all("no blob after them was compared" in finding.evidence for finding in findings)


def test_proposals_clipped_to_the_unpadded_image(model, demo_model, monkeypatch):
    # 180 x 240 pixels are padded to 192 x 256; what detection hands to the RPN is what the trace tells.
    right = generalized_rcnn.GeneralizedRCNN.network_input

    def wrong(self, images, *proposals):
        batch = right(self, images, *proposals)
        sizes = [self.prepare(image).pixels.shape for image in images]
        return batch._replace(
            im_info=[info._replace(height=size[0], width=size[1]) for size, info in zip(sizes, batch.im_info)]
        )

    monkeypatch.setattr(generalized_rcnn.GeneralizedRCNN, "network_input", wrong)
    assert_found(found(model, demo_model), "blobs", "im_info (", "the size that proposals are clipped to")


def test_a_detect_that_hands_on_the_wrong_scale(model, demo_model, monkeypatch):
    right = generalized_rcnn.GeneralizedRCNN.start_batch

    def wrong(self, batch, network=None):
        whole = generalized_rcnn.GeneralizedRCNN.detect_in_rois
        with pytest.MonkeyPatch.context() as inner:
            inner.setattr(
                generalized_rcnn.GeneralizedRCNN,
                "detect_in_rois",
                lambda self, levels, rois, size, scale: whole(self, levels, rois, size, 1.1 * scale),
            )
            return right(self, batch)

    monkeypatch.setattr(generalized_rcnn.GeneralizedRCNN, "start_batch", wrong)
    assert_found(found(model, demo_model), "detections", "detections (", "GeneralizedRCNN.start_batch: what it hands")


def test_roi_align_with_other_samples(model, demo_model, monkeypatch):
    right = roi_align_module.roi_align
    monkeypatch.setattr(roi_align_module, "roi_align", lambda *args: right(*args[:-1], 1))
    assert_may_be(found(model, demo_model), "blobs", "roi_feat (", "RoIAlign: corners moved by half a pixel, rounded,")


def test_the_masks_roi_align_alone_moved_or_with_other_samples(pickle, model, demo_model, monkeypatch):
    other = load_model(pickle, overrides=["MRCNN.ROI_XFORM_SAMPLING_RATIO", "1"], device="cpu")
    assert_may_be(found(other, demo_model), "blobs", "_mask_roi_feat (", "RoIAlign: corners moved")
    right = roi_align_module.roi_align

    def wrong(features, rois, spatial_scale, resolution, *rest):
        moved = rois - rois.new_tensor([0, *[0.5 / spatial_scale] * 4]) if resolution == 14 else rois
        return right(features, moved, spatial_scale, resolution, *rest)

    monkeypatch.setattr(roi_align_module, "roi_align", wrong)
    assert_found(found(model, demo_model), "blobs", "_mask_roi_feat (", "RoIAlign's half-pixel shift")


def test_no_plus_one_in_widths(model, demo_model, monkeypatch):
    right = boxes_module.decode_boxes

    def wrong(boxes, deltas, weights):
        decoded = right(boxes, deltas, weights).clone()
        decoded.view(len(decoded), -1, 4)[..., 2:] += 1
        return decoded

    monkeypatch.setattr(boxes_module, "box_sides", lambda boxes: (boxes[:, 2] - boxes[:, 0], boxes[:, 3] - boxes[:, 1]))
    monkeypatch.setattr(proposals_module, "decode_boxes", wrong)
    monkeypatch.setattr(dynamic, "decode_boxes", wrong)
    assert_found(found(model, demo_model), "proposals", "rpn_rois_fpn2 (", "the + 1 of box widths")


def test_rgb_images(model, demo_model, monkeypatch):
    right = network_input_module.prepare_image
    monkeypatch.setattr(
        network_input_module, "prepare_image", lambda image, *rest: right(np.ascontiguousarray(image[..., ::-1]), *rest)
    )
    assert_found(found(model, demo_model), "blobs", "data (", "RGB instead of BGR")


def test_images_divided_by_a_standard_deviation(model, demo_model, monkeypatch):
    right = network_input_module.prepare_image

    def wrong(*args):
        prepared = right(*args)
        return image_blob.PreparedImage(prepared.pixels / 57.4, prepared.scale)

    monkeypatch.setattr(network_input_module, "prepare_image", wrong)
    assert_found(found(model, demo_model), "blobs", "data (", "a division by a standard deviation")


def test_another_mean_colour(model, demo_model, monkeypatch):
    right = network_input_module.prepare_image
    means = (122.7, 115.9, 103.0)
    monkeypatch.setattr(network_input_module, "prepare_image", lambda image, _, *rest: right(image, means, *rest))
    assert_found(found(model, demo_model), "blobs", "data (", "the mean colour")


def prepared_otherwise(monkeypatch, before=None, after=None):
    """Images changed before they are prepared, or the prepared ones."""
    right = network_input_module.prepare_image

    def wrong(image, *rest):
        prepared = right(image if before is None else np.ascontiguousarray(before(image)), *rest)
        return prepared if after is None else prepared._replace(pixels=after(prepared.pixels).astype(np.float32))

    monkeypatch.setattr(network_input_module, "prepare_image", wrong)


@pytest.mark.parametrize(
    ("before", "after", "evidence", "suspect"),
    [
        (lambda image: image[:, ::-1], None, "mirrored left to right", "the picture as it is read"),
        (lambda image: image[::-1], None, "upside down", "the picture as it is read"),
        (None, lambda pixels: pixels * [1.1, 1.0, 0.9], "1.1, 1, 0.9 (B, G, R) times", "a division by a standard"),
        (None, lambda pixels: pixels + 0.3, "-0.30, -0.30, -0.30 in B, G, R", "the mean colour"),
        (lambda image: image[..., ::-1], lambda pixels: pixels + [3, 5, 9], "in the other order", "RGB instead of BGR"),
    ],
)
def test_what_was_done_to_a_picture_is_told_from_its_pixels(
    model, demo_model, monkeypatch, before, after, evidence, suspect
):
    prepared_otherwise(monkeypatch, before, after)
    findings = found(model, demo_model)
    assert_found(findings, "blobs", "data (", suspect)
    assert all(evidence in finding.evidence for finding in findings)


def test_padding_that_is_not_zero_is_no_other_mean_colour(model, demo_model, monkeypatch):
    right = network_input_module.image_blob

    def wrong(images, stride):
        blob = right(images, stride).clone()
        blob[:, :, images[0].shape[0] :] = -100.0
        blob[:, :, :, images[0].shape[1] :] = -100.0
        return blob

    monkeypatch.setattr(network_input_module, "image_blob", wrong)
    findings = found(model, demo_model)
    assert_found(findings, "blobs", "data (", "the padding: zeros")
    assert all("up to 100, the reference's up to 0" in finding.evidence for finding in findings)


@pytest.mark.parametrize("wrong", [lambda scale: round(scale, 2), lambda scale: scale * 1.002])
def test_a_scale_that_is_handed_on_otherwise(model, demo_model, monkeypatch, wrong):
    right = generalized_rcnn.GeneralizedRCNN.network_input

    def network_input(self, images, *proposals):
        batch = right(self, images, *proposals)
        return batch._replace(im_info=[info._replace(scale=wrong(info.scale)) for info in batch.im_info])

    monkeypatch.setattr(generalized_rcnn.GeneralizedRCNN, "network_input", network_input)
    assert_found(found(model, demo_model), "blobs", "im_info (", "the image's scale: the exact factor")


def test_upsampling_that_interpolates(model, demo_model, monkeypatch):
    monkeypatch.setattr(
        fpn.FPN, "upsampled", staticmethod(lambda x: F.interpolate(x, scale_factor=2.0, mode="bilinear"))
    )
    assert_found(found(model, demo_model), "blobs", "fpn_inner_res4_5_sum_topdown (", "upsampling in the pyramid")


@pytest.mark.parametrize(
    ("wrong", "where", "suspect"),
    [
        (lambda rois: rois.round(), "rpn_rois_fpn2 (", "rounding of proposals"),
        (lambda rois: rois + torch.tensor([0, 0.3, 0.3, 0.3, 0.3]), "rpn_rois_fpn2 (", "an offset in pixels"),
    ],
)
def test_proposals_that_are_partners_are_held_to_the_tolerance(model, demo_model, monkeypatch, wrong, where, suspect):
    right = rpn.RPN.proposals
    monkeypatch.setattr(
        rpn.RPN,
        "proposals",
        lambda self, *args: [part._replace(rois=wrong(part.rois)) for part in right(self, *args)],
    )
    assert_found(found(model, demo_model), "proposals", where, suspect)


def test_scores_of_proposals_are_held_to_the_tolerance(model, demo_model, monkeypatch):
    right = rpn.RPN.proposals
    monkeypatch.setattr(
        rpn.RPN,
        "proposals",
        lambda self, *args: [part._replace(scores=part.scores * 0.9) for part in right(self, *args)],
    )
    assert_may_be(found(model, demo_model), "proposals", "rpn_roi_probs_fpn2 (", "what is done to proposals")


def test_a_softmax_over_the_wrong_axis(model, demo_model, monkeypatch):
    right = torch.Tensor.softmax
    monkeypatch.setattr(torch.Tensor, "softmax", lambda self, dim: right(self, dim=0))
    assert_found(found(model, demo_model), "blobs", "cls_prob (", "the softmax: over the classes of each RoI")


def selected_otherwise(monkeypatch, change):
    right = generalized_rcnn.select_detections
    monkeypatch.setattr(generalized_rcnn, "select_detections", lambda *args: change(right(*args)))


@pytest.mark.parametrize(
    ("change", "suspect"),
    [
        (lambda found: found._replace(classes=found.classes % 4 + 1), "the number of a class"),
        (lambda found: found._replace(boxes=found.boxes.round()), "rounding of detected boxes"),
        (lambda found: found._replace(boxes=found.boxes + 0.4), "an offset"),
    ],
)
def test_detections_changed_after_they_are_chosen(model, demo_model, monkeypatch, change, suspect):
    selected_otherwise(monkeypatch, change)
    assert_found(found(model, demo_model), "detections", "detections (", suspect)


def test_scores_of_detections_are_compared(model, demo_model, monkeypatch):
    selected_otherwise(monkeypatch, lambda found: found._replace(scores=found.scores * 0.97))
    findings = found(model, demo_model)
    assert_may_be(findings, "detections", "detections (", "what is done to detections")
    assert all("scores of detections are apart by up to 0.03" in finding.evidence for finding in findings)


def test_masks_of_another_class(model, demo_model, monkeypatch):
    right = mask.MaskHead.of_classes
    monkeypatch.setattr(
        mask.MaskHead, "of_classes", lambda self, x, classes: right(self, x, classes - 1)
    )
    assert_found(found(model, demo_model), "detections", "masks (", "choosing masks: each detection takes the channel")


def test_masks_without_a_sigmoid(model, demo_model, monkeypatch):
    right = mask.MaskHead.outputs
    # The logits of what `detect` passes through a sigmoid are what it should have given.
    monkeypatch.setattr(
        mask.MaskHead, "outputs", lambda self, *args: right(self, *args).double().clamp(1e-9).logit()
    )
    findings = found(model, demo_model)
    assert all("soft masks differ" in finding.evidence and not finding.suspect.startswith("choosing")
               for finding in findings)  # fmt: skip


def test_mask_rois_that_detection_rounds(model, demo_model, monkeypatch):
    right = mask.MaskHead.outputs
    monkeypatch.setattr(
        mask.MaskHead,
        "outputs",
        lambda self, levels, rois, classes: right(self, levels, rois.round(), classes),
    )
    assert_may_be(found(model, demo_model), "detections", "masks (", "what the mask head is handed outside")


def test_images_resized_as_pil_does(model, demo_model, monkeypatch):
    def smoothed(image, means, target_size, max_size):
        """Bilinear with a filter as wide as the reduction, rounded to grey levels, then the mean."""
        scale = image_blob.image_scale(*image.shape[:2], target_size, max_size)
        size = image_blob.scaled_size(*image.shape[:2], scale)
        pixels = torch.from_numpy(image).permute(2, 0, 1)[None].float()
        resized = F.interpolate(pixels, size=size, mode="bilinear", antialias=True)[0].permute(1, 2, 0).round()
        return image_blob.PreparedImage((resized.numpy() - np.array(means)).astype(np.float32), scale)

    monkeypatch.setattr(network_input_module, "prepare_image", smoothed)
    assert_may_be(found(model, demo_model), "blobs", "data (", "resizing: cv2.resize in float")


def test_anchors_rounded_down(model, demo_model):
    for level in range(2, 7):
        ratios = np.array(model.cfg.FPN.RPN_ASPECT_RATIOS)
        widths = np.floor(np.sqrt(4.0**level / ratios))
        half = 0.5 * (np.stack([widths, np.floor(widths * ratios)], axis=1) * 8 - 1)
        middle = 0.5 * (2**level - 1)
        anchors = torch.from_numpy(np.concatenate([middle - half, middle + half], axis=1)).float()
        model.rpn.register_buffer(f"anchors_fpn{level}", anchors, persistent=False)
    assert_found(found(model, demo_model), "proposals", "rpn_rois_fpn2 (", "the anchors of these ratios")


def test_another_nms_of_proposals(pickle, demo_model):
    model = load_model(pickle, overrides=["TEST.RPN_NMS_THRESH", "0.6"], device="cpu")
    assert_found(found(model, demo_model), "proposals", "rpn_rois_fpn2 (", "choosing proposals: RPN_NMS_THRESH")


def test_another_nms_of_detections(pickle, demo_model):
    model = load_model(pickle, overrides=["TEST.SCORE_THRESH", "0.001"], device="cpu")
    assert_may_be(found(model, demo_model), "detections", "detections (", "choosing detections: TEST.NMS, TEST.SCORE")


def test_masks_pasted_without_padding(model, demo_model, monkeypatch):
    def paste(probabilities, box, image_size, threshold):
        x1, y1, x2, y2 = (int(corner) for corner in box)
        resized = cv2.resize(probabilities, (max(x2 - x1 + 1, 1), max(y2 - y1 + 1, 1)))
        left, top = max(x1, 0), max(y1, 0)
        visible = resized[top - y1 : image_size[0] - y1, left - x1 : image_size[1] - x1]
        return paste_module.Patch(visible > threshold, left, top)

    monkeypatch.setattr(structures, "paste_boxes", lambda boxes, _resolution: boxes.astype(np.int32))
    monkeypatch.setattr(structures, "paste_mask", paste)
    assert_found(found(model, demo_model), "detections", "masks (", "pasting masks: one zero bin of padding")


def test_group_norm_with_another_epsilon(pickle, demo_model):
    model = load_model(pickle, overrides=["GROUP_NORM.EPSILON", "0.001"], device="cpu")
    findings = found(model, demo_model)
    assert_found(findings, "blobs", "res2_0_branch", "GroupNorm's epsilon: GROUP_NORM.EPSILON is 1e-5")
    assert all("variance + epsilon is 0.00099 more in every group" in finding.evidence for finding in findings)


def test_other_box_weights(pickle, demo_model):
    model = load_model(pickle, overrides=["MODEL.BBOX_REG_WEIGHTS", "(1.0, 1.0, 1.0, 1.0)"], device="cpu")
    assert_may_be(found(model, demo_model), "detections", "boxes (", "decoding boxes: widths with + 1, MODEL.BBOX_REG")


@pytest.mark.parametrize(("stride_1x1", "right"), [("True", True), ("False", False)])
def test_the_stride_of_an_affine_model_on_the_wrong_convolution(stride_1x1, right, data, demo_model):
    path = data / "tiny_bn_r50.h5"
    with h5py.File(path) as reference:
        cfg = bundled_config(Path(reference.attrs["cfg"]).stem)
        cfg = merge_overrides(cfg, [*str(reference.attrs["opts"]).split(), "RESNETS.STRIDE_1X1", stride_1x1])
        model = build_model(cfg, recipe_weights(BlobTable.from_config(cfg), int(reference.attrs["seed"])))
    for reference in read_references(path, demo_model / "val", cfg):
        finding = diagnose(model, compare_image(model, reference), reference, TOLERANCE)
        if right:
            assert finding is None
        else:
            assert_found([finding], "blobs", "res3_0_branch2a (", "the stride of a stage stands on the other conv")


def test_every_blob_of_the_references_belongs_to_a_step(data, demo_model):
    steps = {step for step, _ in FLOW}
    for path in (demo_model / "blobs.h5", data / "tiny_bn_r50.h5", data / "tiny_gn_r50.h5"):
        with h5py.File(path) as reference:
            for image in reference.values():
                assert {step_of(blob) for blob in image["blobs"]} <= steps
