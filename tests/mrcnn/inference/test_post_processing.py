"""Soft-NMS, box voting, limits and boxes without regression, as Detectron does them on the same scores and boxes."""

import h5py
import torch

from detectron_gn.mrcnn.config import Config, with_values
from detectron_gn.mrcnn.inference.dynamic import class_boxes, select_detections
from tests.helpers.zoo_reference import assert_same_boxes, variants, zoo_config

# A float32 sum of a hundred boxes in another order: half of the last bit of a corner at 500 pixels.
LIMITS = (5e-5, 1e-7)


def test_every_way_after_the_network_is_detectrons(data):
    with h5py.File(data / "post_processing.h5") as file:
        (image,) = file
        found = set()
        for name, cfg, expected in variants(file, image, zoo_config(file)):
            group = file[image]
            boxes = torch.from_numpy(group["boxes"][:])
            if not cfg.TEST.BBOX_REG:
                rois = torch.from_numpy(group["rois"][:, 1:])
                height, width, _ = group.attrs["shape"]
                boxes = class_boxes(rois, torch.zeros_like(boxes), float(group.attrs["im_scale"]), (height, width), cfg)
            kept = select_detections(torch.from_numpy(group["scores"][:]), boxes, cfg)
            assert_same_boxes(*(column.numpy() for column in kept), expected, LIMITS)
            found.add(name)
        assert {"soft_linear", "soft_gaussian_sigma", "soft_hard", "vote_QUASI_SUM", "no_limit"} < found
        assert len(found) == 16


def test_all_classes_may_share_the_objects_deltas():
    cfg = with_values(Config(), {"MODEL.NUM_CLASSES": 3, "MODEL.CLS_AGNOSTIC_BBOX_REG": True})
    rois = torch.tensor([[0.0, 0.0, 9.0, 9.0]])
    # The background's deltas, which would move the box, do not count; the object's dx is a width (10 by weight 10).
    deltas = torch.tensor([[50.0, 50.0, 1.0, 1.0, 10.0, 0.0, 0.0, 0.0]])
    boxes = class_boxes(rois, deltas, 1.0, (100, 100), cfg)
    assert boxes.tolist() == [[10.0, 0.0, 19.0, 9.0] * 3]
