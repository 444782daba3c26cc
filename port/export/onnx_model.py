"""A detector as one ONNX model: inputs, outputs, and metadata."""

from collections.abc import Mapping

import onnx

from detectron_gn.mrcnn.config import Config, takes_proposals
from detectron_gn.mrcnn.detectors import Detector
from detectron_gn.mrcnn.errors import InputError
from detectron_gn.mrcnn.inference.tta import is_augmented
from detectron_gn.port.blobs.table import BlobTable
from detectron_gn.port.export.detectors import Outputs, detections
from detectron_gn.port.export.graph import FLOAT, Graph
from detectron_gn.port.export.image import blob_input, image_input
from detectron_gn.port.export.metadata import InputForm, metadata_of


def onnx_model(model: Detector, form: InputForm = "image", facts: Mapping[str, str] | None = None) -> onnx.ModelProto:
    """The ONNX model of a detector that looks at one image once.

    Args:
        form: `image` takes an `[H, W, 3]` uint8 BGR image; `blob` takes `data`, `im_info` and `image_size` as
            `image.blob_input` describes them.
        facts: further metadata, such as where the weights come from.

    Inputs of a network that takes proposals: `proposals [P, 4]` float32 in image pixels too. Outputs: `boxes [D, 4]`,
    `scores [D]` and `classes [D]` int64, and `mask_probs [D, M, M]` or `keypoints [D, 17, 3]` (x, y, logit).

    Raises InputError for a configuration with test-time augmentation.
    """
    cfg = model.cfg
    if is_augmented(cfg):
        raise InputError(
            "an exported network looks at an image once, and TEST.BBOX_AUG, MASK_AUG or KPS_AUG asks for more: export "
            "with --set TEST.BBOX_AUG.ENABLED False TEST.MASK_AUG.ENABLED False TEST.KPS_AUG.ENABLED False"
        )
    _check_limits(cfg)
    if model.precision != "fp32":
        raise InputError(f"a network in {model.precision} is not exported: load it in fp32")
    rows = BlobTable.from_model(model).by_parameter
    graph = Graph({id(parameter): rows[name].blob for name, parameter in model.named_parameters()})
    prepared = image_input(graph, cfg) if form == "image" else blob_input(graph)
    proposals = graph.input("proposals", FLOAT, ("proposals", 4)) if takes_proposals(cfg) else None
    _add_outputs(graph, detections(model, prepared, proposals), model)
    return graph.model("detectron_gn", metadata_of(model, form, facts or {}))


def _check_limits(cfg: Config) -> None:
    """Raise InputError for numbers that ONNX's operators do not take, or take for something else."""
    test = cfg.TEST
    least = {"TEST.NMS": test.NMS > 0 or not _has_nms(cfg)}
    if not takes_proposals(cfg) and not cfg.RETINANET.RETINANET_ON:
        least["TEST.RPN_POST_NMS_TOP_N"] = test.RPN_POST_NMS_TOP_N > 0
    if cfg.RETINANET.RETINANET_ON:
        least["TEST.DETECTIONS_PER_IM"] = test.DETECTIONS_PER_IM > 0
    for key, is_taken in least.items():
        if not is_taken:
            raise InputError(f"{key} is not above 0, which ONNX's operators have no meaning for: --set {key} to more")


def _has_nms(cfg: Config) -> bool:
    """Whether detections are suppressed by TEST.NMS."""
    return not (cfg.MODEL.RPN_ONLY or cfg.TEST.SOFT_NMS.ENABLED)


def _add_outputs(graph: Graph, outputs: Outputs, model: Detector) -> None:
    found, many = outputs.found, "detections"
    graph.output(found.boxes, "boxes", (many, 4))
    graph.output(found.scores, "scores", (many,))
    graph.output(found.classes, "classes", (many,))
    if outputs.mask_probs is not None:
        side = model.cfg.MRCNN.RESOLUTION
        graph.output(outputs.mask_probs, "mask_probs", (many, side, side))
    if outputs.keypoints is not None:
        graph.output(outputs.keypoints, "keypoints", (many, model.cfg.KRCNN.NUM_KEYPOINTS, 3))
