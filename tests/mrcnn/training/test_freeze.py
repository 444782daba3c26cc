"""Parts that are frozen by name: which there are, that they stay, and what is refused."""

import pytest

from detectron_gn.mrcnn.detectors import build_detector
from detectron_gn.mrcnn.errors import InputError
from detectron_gn.mrcnn.training.freeze import freeze_parts
from detectron_gn.port.config.read import bundled_config

PARTS = {
    "e2e_mask_rcnn_R-50-FPN_shapes_gn": "body, fpn, rpn, box, mask",
    "e2e_keypoint_rcnn_R-50-FPN_shapes_gn": "body, fpn, rpn, box, keypoint",
    "e2e_mask_rcnn_R-50-C4_shapes_gn": "body, rpn, box, mask",
    "fast_rcnn_R-50-FPN_shapes_gn": "body, fpn, box",
    "rpn_R-50-FPN_shapes_gn": "body, fpn, rpn",
    "retinanet_R-50-FPN_shapes_gn": "body, fpn, retinanet",
}


@pytest.mark.parametrize(("name", "parts"), PARTS.items())
def test_every_part_that_a_network_has_can_be_frozen_and_no_other(name, parts):
    model = build_detector(bundled_config(name))
    with pytest.raises(InputError, match=f"--freeze neck: the model has no such part: choose from {parts}, several"):
        freeze_parts(model, ["neck"])
    *names, last = parts.split(", ")
    freeze_parts(model, names)
    trained = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    assert trained and len({name.split(".")[0] for name in trained}) == 1
    with pytest.raises(InputError, match=f"leaves nothing to train: leave one of {parts} out"):
        freeze_parts(model, [last])


def test_no_name_freezes_nothing_more():
    model = build_detector(bundled_config("rpn_R-50-FPN_shapes_gn"))
    before = [parameter.requires_grad for parameter in model.parameters()]
    freeze_parts(model, ())
    assert [parameter.requires_grad for parameter in model.parameters()] == before
