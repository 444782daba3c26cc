"""detectron2's model of the same kind in the setting of one of our configurations, to be measured beside ours.

detectron2 is not a dependency: the module imports without it, `available` tells whether it is there. Its own compiled
operators are not needed, only torchvision's. Weights are random and nothing of detectron2 is changed, except that the
training step hands it proposals that lie close to the objects, as ours gets them.
"""

import importlib
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from benchmarks.common import Parts, affine_scale
from detectron_gn.mrcnn.config import Config
from detectron_gn.mrcnn.config.functions import CONV_BODIES
from detectron_gn.mrcnn.data.ground_truth import GroundTruth
from detectron_gn.mrcnn.data.image_blob import Image

HOW_TO_GET = (
    "detectron2 is not importable, so there is nothing to compare with: install it together with torchvision, or put "
    "its checkout on PYTHONPATH (pip install fvcore iopath omegaconf hydra-core pillow matplotlib cloudpickle tabulate "
    "termcolor for what it imports; its own compiled part is not needed)"
)
LEVELS = ["p2", "p3", "p4", "p5"]
STAGES = ["res2", "res3", "res4", "res5"]


def available() -> bool:
    """Whether detectron2 and what it needs can be imported here."""
    try:
        importlib.import_module("detectron2.modeling")
    except ImportError:
        return False
    return True


def network(cfg: Config) -> Any:
    """A detector of the configuration's family, randomly filled, on the CPU.

    Where detectron2 and Detectron have the same setting, ours is taken over: sizes, numbers of proposals, RoIs and
    detections, thresholds, samples of RoIAlign. The rest is detectron2's default, so RoIAlign is shifted by half a
    pixel. Families: Faster, Mask and Keypoint R-CNN with a feature pyramid or C4, and RetinaNet.
    """
    return _built(peer_config_of(cfg))


def inference(model: Any, image: Image) -> Callable[[], int]:
    """A function that detects in an `[H, W, 3]` uint8 BGR image without scaling it, and gives the number of detections.

    It is all that detectron2 does, from normalising and padding to masks pasted into `[D, H, W]` bitmaps. The weights
    of the class scores are raised until as many detections come out as the configuration allows. Asserts the number of
    proposals.
    """
    model.eval()
    if hasattr(model, "roi_heads"):
        scores, most = model.roi_heads.box_predictor.cls_score, model.roi_heads.box_predictor.test_topk_per_image
        wanted = model.proposal_generator.post_nms_topk[False]

        def check_proposals(_module: Any, inputs: tuple[Tensor]) -> None:
            assert len(inputs[0]) == wanted, f"{len(inputs[0])} proposals of detectron2, not {wanted}"

        scores.register_forward_pre_hook(check_proposals)
    else:
        scores, most = model.head.cls_score, model.max_detections_per_image

    @torch.no_grad()
    def detect() -> int:
        pixels = torch.as_tensor(image.astype("float32").transpose(2, 0, 1))
        found = model([{"image": pixels, "height": image.shape[0], "width": image.shape[1]}])[0]["instances"]
        assert not found.has("pred_masks") or found.pred_masks.shape[1:] == image.shape[:2]
        return len(found)

    while detect() < most:
        with torch.no_grad():
            scores.weight.mul_(2)
    return detect


def inference_parts(model: Any) -> Parts:
    """The parts of a detection, for `timed_parts`."""
    parts = {
        "ResNet": ("backbone.bottom_up", "forward"),
        "ResNet and FPN": ("backbone", "forward"),
        "RPN head": ("proposal_generator.rpn_head", "forward"),
        "proposals": ("proposal_generator", "predict_proposals"),
        "RetinaNet head": ("head", "forward"),
        "box RoIAlign": ("roi_heads.box_pooler", "forward"),
        "box head": ("roi_heads.box_head", "forward"),
        "RoIAlign of res5": ("roi_heads.pooler", "forward"),
        "res5": ("roi_heads.res5", "forward"),
        "mask RoIAlign": ("roi_heads.mask_pooler", "forward"),
        "mask head": ("roi_heads.mask_head", "layers"),
        "keypoint RoIAlign": ("roi_heads.keypoint_pooler", "forward"),
        "keypoint head": ("roi_heads.keypoint_head", "forward"),
    }
    modules = dict(model.named_modules())
    found: dict[str, tuple[Any, str]] = {
        name: (modules[path], attribute) for name, (path, attribute) in parts.items() if path in modules
    }
    if "roi_heads" in modules:
        found["paste"] = (importlib.import_module("detectron2.modeling.meta_arch.rcnn"), "detector_postprocess")
    return found


def training_step(
    cfg: Config, image: Image, objects: GroundTruth, close: Tensor, learning_rate: float
) -> tuple[Callable[[], Tensor], Callable[[], None]]:
    """A forward pass that gives the total loss of one image, and a step of detectron2's SGD on the gradients.

    Args:
        image: `[H, W, 3]` uint8 BGR, not scaled.
        objects: with polygons, and keypoints for a network that has them.
        close: `[P, 4]` float32 boxes in pixels that join the proposals.

    The forward pass asserts that it trained on `cfg.TRAIN.BATCH_SIZE_PER_IM` RoIs, `FG_FRACTION` of them objects.
    """
    boxes, polygons, instances = (_from("structures", name) for name in ("Boxes", "PolygonMasks", "Instances"))
    peer_config = peer_config_of(cfg)
    peer_config.SOLVER.BASE_LR = learning_rate
    model = _built(peer_config).train()
    optimizer = _from("solver", "build_optimizer")(peer_config, model)

    targets = instances(image.shape[:2])
    # Our corners are inclusive, detectron2's are edges; its classes begin at 0.
    targets.gt_boxes = boxes(torch.from_numpy(objects.boxes + np.array([0, 0, 1, 1], np.float32)))
    targets.gt_classes = torch.from_numpy(objects.classes - 1)
    if cfg.MODEL.MASK_ON:
        targets.gt_masks = polygons([list(segm) for segm in objects.segms])
    if objects.keypoints is not None:
        keypoints = torch.from_numpy(objects.keypoints.transpose(0, 2, 1)).float()
        # Its places are those of pixels' middles.
        targets.gt_keypoints = _from("structures", "Keypoints")(keypoints + torch.tensor([0.5, 0.5, 0]))
    inputs = [{"image": torch.as_tensor(image.astype("float32").transpose(2, 0, 1)), "instances": targets}]

    if cfg.RETINANET.RETINANET_ON:
        return _steps(model, optimizer, inputs)
    heads = model.roi_heads
    sample = heads.label_and_sample_proposals

    def sample_with_close(proposals: list[Any], targets: list[Any]) -> list[Any]:
        extra = instances(proposals[0].image_size)
        extra.proposal_boxes, extra.objectness_logits = boxes(close), torch.zeros(len(close))
        sampled: list[Any] = sample([instances.cat([proposals[0], extra])], targets)
        labels = sampled[0].gt_classes
        counts = len(labels), int((labels < heads.num_classes).sum())
        wanted = cfg.TRAIN.BATCH_SIZE_PER_IM, round(cfg.TRAIN.FG_FRACTION * cfg.TRAIN.BATCH_SIZE_PER_IM)
        assert counts == wanted, f"detectron2's (RoIs, objects among them) are {counts}, not {wanted}"
        return sampled

    heads.label_and_sample_proposals = sample_with_close
    return _steps(model, optimizer, inputs)


def _steps(model: Any, optimizer: Any, inputs: Any) -> tuple[Callable[[], Tensor], Callable[[], None]]:
    event_storage = _from("utils.events", "EventStorage")

    def forward() -> Tensor:
        with event_storage():
            loss: Tensor = sum(model(inputs).values())
        return loss

    def update() -> None:
        optimizer.step()
        optimizer.zero_grad()

    return forward, update


def _built(peer_config: Any) -> Any:
    """A random network whose fixed normalisations hold its values down, as ours do."""
    model = _from("modeling", "build_model")(peer_config)
    frozen = _from("layers", "FrozenBatchNorm2d")
    for path, module in model.named_modules():
        if isinstance(module, frozen):
            module.weight.fill_(affine_scale("conv3" in path))
    return model


def _from(module: str, name: str) -> Any:
    return getattr(importlib.import_module(f"detectron2.{module}"), name)


def peer_config_of(cfg: Config) -> Any:
    """detectron2's configuration with all that it and Detectron's have in common; the rest is detectron2's default."""
    with_pyramid = cfg.FPN.FPN_ON
    settings: dict[str, Any] = {
        "MODEL.DEVICE": "cpu",
        "MODEL.MASK_ON": cfg.MODEL.MASK_ON,
        "MODEL.KEYPOINT_ON": cfg.MODEL.KEYPOINTS_ON,
        "MODEL.PIXEL_MEAN": list(cfg.PIXEL_MEANS),
        "MODEL.BACKBONE.FREEZE_AT": cfg.TRAIN.FREEZE_AT,
        "MODEL.RESNETS.DEPTH": CONV_BODIES[cfg.MODEL.CONV_BODY].depth,
        "MODEL.RESNETS.NUM_GROUPS": cfg.RESNETS.NUM_GROUPS,
        "MODEL.RESNETS.WIDTH_PER_GROUP": cfg.RESNETS.WIDTH_PER_GROUP,
        "MODEL.RESNETS.NORM": "GN" if cfg.FPN.USE_GN else "FrozenBN",
        "MODEL.RESNETS.STRIDE_IN_1X1": cfg.RESNETS.STRIDE_1X1,
        "SOLVER.MOMENTUM": cfg.SOLVER.MOMENTUM,
        "SOLVER.WEIGHT_DECAY": cfg.SOLVER.WEIGHT_DECAY,
        "TEST.DETECTIONS_PER_IMAGE": cfg.TEST.DETECTIONS_PER_IM,
    }
    if cfg.RETINANET.RETINANET_ON:
        settings |= _retinanet(cfg)
    else:
        settings |= _roi_heads(cfg) | (_pyramid(cfg) if with_pyramid else _c4(cfg))
    peer_config = _from("config", "get_cfg")()
    peer_config.merge_from_list([part for setting in settings.items() for part in setting])
    return peer_config


def _retinanet(cfg: Config) -> dict[str, Any]:
    octaves, smallest = cfg.RETINANET.SCALES_PER_OCTAVE, cfg.RETINANET.ANCHOR_SCALE
    sizes = [[smallest * 2 ** (level + octave / octaves) for octave in range(octaves)] for level in range(3, 8)]
    return {
        "MODEL.META_ARCHITECTURE": "RetinaNet",
        "MODEL.BACKBONE.NAME": "build_retinanet_resnet_fpn_backbone",
        "MODEL.RESNETS.OUT_FEATURES": STAGES[1:],
        "MODEL.FPN.IN_FEATURES": STAGES[1:],
        "MODEL.ANCHOR_GENERATOR.SIZES": sizes,
        "MODEL.ANCHOR_GENERATOR.ASPECT_RATIOS": [list(cfg.RETINANET.ASPECT_RATIOS)],
        "MODEL.RETINANET.NUM_CLASSES": cfg.MODEL.NUM_CLASSES - 1,
        "MODEL.RETINANET.NUM_CONVS": cfg.RETINANET.NUM_CONVS,
        "MODEL.RETINANET.SCORE_THRESH_TEST": cfg.RETINANET.INFERENCE_TH,
        "MODEL.RETINANET.TOPK_CANDIDATES_TEST": cfg.RETINANET.PRE_NMS_TOP_N,
        "MODEL.RETINANET.NMS_THRESH_TEST": cfg.TEST.NMS,
    }


def _roi_heads(cfg: Config) -> dict[str, Any]:
    """The settings of everything with an RPN and RoIs."""
    return {
        "MODEL.RPN.BATCH_SIZE_PER_IMAGE": cfg.TRAIN.RPN_BATCH_SIZE_PER_IM,
        "MODEL.RPN.PRE_NMS_TOPK_TRAIN": cfg.TRAIN.RPN_PRE_NMS_TOP_N,
        "MODEL.RPN.POST_NMS_TOPK_TRAIN": cfg.TRAIN.RPN_POST_NMS_TOP_N,
        "MODEL.RPN.PRE_NMS_TOPK_TEST": cfg.TEST.RPN_PRE_NMS_TOP_N,
        "MODEL.RPN.POST_NMS_TOPK_TEST": cfg.TEST.RPN_POST_NMS_TOP_N,
        "MODEL.RPN.NMS_THRESH": cfg.TEST.RPN_NMS_THRESH,
        "MODEL.ROI_HEADS.NUM_CLASSES": cfg.MODEL.NUM_CLASSES - 1,
        "MODEL.ROI_HEADS.BATCH_SIZE_PER_IMAGE": cfg.TRAIN.BATCH_SIZE_PER_IM,
        "MODEL.ROI_HEADS.POSITIVE_FRACTION": cfg.TRAIN.FG_FRACTION,
        "MODEL.ROI_HEADS.SCORE_THRESH_TEST": cfg.TEST.SCORE_THRESH,
        "MODEL.ROI_HEADS.NMS_THRESH_TEST": cfg.TEST.NMS,
        "MODEL.ROI_BOX_HEAD.POOLER_RESOLUTION": cfg.FAST_RCNN.ROI_XFORM_RESOLUTION,
        "MODEL.ROI_BOX_HEAD.POOLER_SAMPLING_RATIO": cfg.FAST_RCNN.ROI_XFORM_SAMPLING_RATIO,
        "MODEL.ROI_MASK_HEAD.POOLER_RESOLUTION": cfg.MRCNN.ROI_XFORM_RESOLUTION,
        "MODEL.ROI_MASK_HEAD.POOLER_SAMPLING_RATIO": cfg.MRCNN.ROI_XFORM_SAMPLING_RATIO,
        "MODEL.ROI_KEYPOINT_HEAD.POOLER_RESOLUTION": cfg.KRCNN.ROI_XFORM_RESOLUTION,
        "MODEL.ROI_KEYPOINT_HEAD.POOLER_SAMPLING_RATIO": cfg.KRCNN.ROI_XFORM_SAMPLING_RATIO,
    }


def _pyramid(cfg: Config) -> dict[str, Any]:
    norm, convolutions = ("GN", cfg.FAST_RCNN.NUM_STACKED_CONVS) if cfg.FPN.USE_GN else ("", 0)
    return {
        "MODEL.BACKBONE.NAME": "build_resnet_fpn_backbone",
        "MODEL.RESNETS.OUT_FEATURES": STAGES,
        "MODEL.FPN.IN_FEATURES": STAGES,
        "MODEL.FPN.NORM": norm,
        "MODEL.FPN.OUT_CHANNELS": cfg.FPN.DIM,
        "MODEL.ANCHOR_GENERATOR.SIZES": [[cfg.FPN.RPN_ANCHOR_START_SIZE * 2**level] for level in range(5)],
        "MODEL.ANCHOR_GENERATOR.ASPECT_RATIOS": [list(cfg.FPN.RPN_ASPECT_RATIOS)],
        "MODEL.RPN.IN_FEATURES": [*LEVELS, "p6"],
        "MODEL.ROI_HEADS.NAME": "StandardROIHeads",
        "MODEL.ROI_HEADS.IN_FEATURES": LEVELS,
        "MODEL.ROI_BOX_HEAD.NAME": "FastRCNNConvFCHead",
        "MODEL.ROI_BOX_HEAD.NUM_CONV": convolutions,
        "MODEL.ROI_BOX_HEAD.NUM_FC": 1 if convolutions else 2,
        "MODEL.ROI_BOX_HEAD.CONV_DIM": cfg.FAST_RCNN.CONV_HEAD_DIM,
        "MODEL.ROI_BOX_HEAD.FC_DIM": cfg.FAST_RCNN.MLP_HEAD_DIM,
        "MODEL.ROI_BOX_HEAD.NORM": norm,
        "MODEL.ROI_MASK_HEAD.NAME": "MaskRCNNConvUpsampleHead",
        "MODEL.ROI_MASK_HEAD.NUM_CONV": 4,
        "MODEL.ROI_MASK_HEAD.CONV_DIM": cfg.MRCNN.DIM_REDUCED,
        "MODEL.ROI_MASK_HEAD.NORM": norm,
    }


def _c4(cfg: Config) -> dict[str, Any]:
    return {
        "MODEL.BACKBONE.NAME": "build_resnet_backbone",
        "MODEL.RESNETS.OUT_FEATURES": ["res4"],
        "MODEL.ANCHOR_GENERATOR.SIZES": [list(cfg.RPN.SIZES)],
        "MODEL.ANCHOR_GENERATOR.ASPECT_RATIOS": [list(cfg.RPN.ASPECT_RATIOS)],
        "MODEL.RPN.IN_FEATURES": ["res4"],
        "MODEL.ROI_HEADS.NAME": "Res5ROIHeads",
        "MODEL.ROI_HEADS.IN_FEATURES": ["res4"],
        "MODEL.ROI_MASK_HEAD.NAME": "MaskRCNNConvUpsampleHead",
        "MODEL.ROI_MASK_HEAD.NUM_CONV": 0,
    }
