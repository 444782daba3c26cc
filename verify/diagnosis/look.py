"""A closer look at one image of a reference: what agrees so far, and what the network gives at each stage."""

from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from detectron_gn.mrcnn.detectors import Detector, GeneralizedRCNN
from detectron_gn.mrcnn.inference.rois import rois_of_boxes
from detectron_gn.mrcnn.structures import Detections
from detectron_gn.port.blobs.activations import Trace, prepared_data, trace_masks
from detectron_gn.verify.parity.blobs import BlobParity, ImageParity
from detectron_gn.verify.parity.first_pass import detected, detected_in, first_pass, returned
from detectron_gn.verify.parity.matching import without_partner
from detectron_gn.verify.parity.proposals import pair_proposals, pair_rois, reference_rois
from detectron_gn.verify.reference.image_dump import ImageReference
from detectron_gn.verify.reference.reference_blob import ReferenceBlob

# A difference that ends above the tolerance begins where it is a tenth of it.
ONSET = 0.1


class Look:
    """The network, the reference of one image, and how far they are apart.

    Args:
        parity: what `verify.parity.blobs` found for the image.
        tolerance: largest relative error of a blob.
    """

    def __init__(
        self, model: Detector, reference: ImageReference, parity: ImageParity, tolerance: float
    ) -> None:
        self.model, self.reference, self.parity, self.tolerance = model, reference, parity, tolerance

    def is_within(self, row: BlobParity, share: float = 1.0) -> bool:
        """Whether a blob is within the tolerance, or a share of it."""
        return row.is_within(self.tolerance, share)

    def agree(self, *blobs: str) -> bool:
        """Whether blobs were compared, all of them, and agree."""
        rows = {row.blob: row for row in self.parity.blobs}
        return all(blob in rows and self.is_within(rows[blob]) for blob in blobs)

    def though(self, *prefixes: str) -> str:
        """Words for blobs before that were compared, or that were not."""
        compared = all(any(row.blob.startswith(prefix) for row in self.parity.blobs) for prefix in prefixes)
        told = " and ".join(f"{prefix}*" for prefix in prefixes)
        return f", though {told} agree" if compared else f"; not all of {told} could be compared"

    def equals(self, ours: Tensor, blob: ReferenceBlob) -> bool:
        """Whether a blob of ours is the reference's, to the tolerance."""
        if tuple(ours.shape) != blob.shape:
            return False
        theirs = blob.doubles()
        return bool(np.abs(blob.sample_of(ours) - theirs).max() <= self.tolerance * np.abs(theirs).max())

    def trace(self) -> Trace:
        """The first pass of the network; the dictionary is the caller's own."""
        return dict(self._first_pass)

    def network_input(self) -> Tensor:
        """`data` `[1, 3, H, W]`, on the CPU."""
        return prepared_data(self.model, self.reference.image).cpu()

    @property
    def two_stages(self) -> GeneralizedRCNN:
        """The network, of a kind that has RoIs."""
        assert isinstance(self.model, GeneralizedRCNN)
        return self.model

    @cached_property
    def rois(self) -> Tensor | None:
        """The RoIs that the blobs after them were computed on, in the reference's order."""
        with torch.inference_mode():
            trace = self.trace()
            list(pair_proposals(self.two_stages, trace, self.reference.blobs))
            boxes, _ = returned(self.two_stages, trace, self.reference)
            return pair_rois(self.two_stages, trace, boxes, self.reference).rois

    def rois_without_partner(self) -> int:
        """How many RoIs of either side have no partner on the other; 0 where the reference does not tell its own."""
        if not isinstance(self.model, GeneralizedRCNN):
            return 0
        trace = self.trace()
        list(pair_proposals(self.two_stages, trace, self.reference.blobs))
        theirs = reference_rois(self.two_stages, trace, self.reference.blobs)
        if theirs is None:
            return 0
        ours = trace["rois"]
        return int(without_partner(ours, theirs).sum() + without_partner(theirs, ours).sum())

    @cached_property
    def detections(self) -> Detections:
        """What `verify.parity.blobs` compared: of `detect`, or of the second stage on the reference's RoIs."""
        if not isinstance(self.model, GeneralizedRCNN) or self.parity.same_rois or self.rois is None:
            return detected(self.model, self.reference)
        return self._detected_in(self.rois)

    def second_stage(self) -> Detections | None:
        """What the second stage finds when it is run on its own, on the network's own RoIs."""
        return self._detected_in(self.rois) if self.rois is not None and self.parity.same_rois else None

    def mask_logits(self) -> Tensor | None:
        """`[D, K, M, M]` that the mask head gives for our detections."""
        if not len(self.detections):
            return None
        scale = float(self.model.prepare(self.reference.image).scale)
        rois = rois_of_boxes(torch.from_numpy(self.detections.boxes), scale, 0).to(self.model.device)
        return trace_masks(self.two_stages, self.reference.image, rois)["mask_fcn_logits"]

    @cached_property
    def _first_pass(self) -> Trace:
        return first_pass(self.model, self.reference)

    def _detected_in(self, rois: Tensor) -> Detections:
        return detected_in(self.two_stages, self.reference, rois, self._first_pass["data"])
