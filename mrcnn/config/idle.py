"""What a configuration switches on that a model of its family does not look at, as Detectron's does not."""

from collections.abc import Iterator

from detectron_gn.mrcnn.config.functions import a_family, has_box_head
from detectron_gn.mrcnn.config.schema import Config
from detectron_gn.mrcnn.wording import listed


def idle_remarks(cfg: Config) -> Iterator[str]:
    """A sentence about the sections that are enabled and without effect, where there are any.

    Detectron core/test.py:im_detect_all, core/test_retinanet.py, core/rpn_generator.py.
    """
    test, has_boxes = cfg.TEST, has_box_head(cfg)
    sections = {
        "BBOX_AUG": (test.BBOX_AUG.ENABLED, has_boxes),
        "MASK_AUG": (test.MASK_AUG.ENABLED, has_boxes and cfg.MODEL.MASK_ON),
        "KPS_AUG": (test.KPS_AUG.ENABLED, has_boxes and cfg.MODEL.KEYPOINTS_ON),
        "BBOX_VOTE": (test.BBOX_VOTE.ENABLED, has_boxes),
        "SOFT_NMS": (test.SOFT_NMS.ENABLED, not cfg.MODEL.RPN_ONLY),
    }
    idle = [f"TEST.{name}" for name, (is_on, is_read) in sections.items() if is_on and not is_read]
    if idle:
        verb = "is enabled and has" if len(idle) == 1 else "are enabled and have"
        yield f"{listed(idle, most=5)} {verb} no effect on {a_family(cfg)}"


def idle_training_remarks(cfg: Config) -> Iterator[str]:
    """A sentence about what is switched on for training and without effect.

    Detectron's RetinaNet does not look at TRAIN.FREEZE_CONV_BODY (modeling/model_builder.py:retinanet).
    """
    if cfg.TRAIN.FREEZE_CONV_BODY and cfg.RETINANET.RETINANET_ON:
        yield (
            f"TRAIN.FREEZE_CONV_BODY is True and has no effect on {a_family(cfg)}, as in Detectron: TRAIN.FREEZE_AT, "
            f"here {cfg.TRAIN.FREEZE_AT}, freezes stages of its body"
        )
