"""What the parts of a network hand on: features, proposals, detections."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple, overload

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from detectron_gn.mrcnn.config import Config
from detectron_gn.mrcnn.data.any_image import AnyImage, as_image
from detectron_gn.mrcnn.errors import InputError
from detectron_gn.mrcnn.ops.keypoints import decode_heatmaps, nms_oks
from detectron_gn.mrcnn.ops.paste import Patch, Rle, paste_boxes, paste_mask, patch_bitmap, patch_rle
from detectron_gn.mrcnn.wording import amount, listed, printable

# Of more detections the table shows the best ones.
_ROWS = 10


class Features(NamedTuple):
    """What a backbone makes of a batch: feature maps, finest first.

    Attributes:
        maps: `[N, C, H, W]` each; H and W are those of the padded batch divided by the map's stride.
        strides: network pixels per position of each map.
    """

    maps: list[Tensor]
    strides: tuple[int, ...]

    def __repr__(self) -> str:
        """`<features [1, 256, 200, 304] of stride 4, ...>`: the shapes."""
        told = [f"{list(each.shape)} of stride {stride}" for each, stride in zip(self.maps, self.strides, strict=True)]
        return f"<features {', '.join(told)}>"


class Proposals(NamedTuple):
    """RoIs `[R, 5]` float32 as (index of the image, x1, y1, x2, y2) in network pixels, and their objectness `[R]`."""

    rois: Tensor
    scores: Tensor

    def __repr__(self) -> str:
        """`<1000 proposals>`."""
        return f"<{amount(len(self.scores), 'proposal')}>"


class Detection(NamedTuple):
    """One of the detections of an image.

    Attributes:
        box: `[4]` float32, inclusive corners in the image's own pixels.
        label, name: its class, from 1 on, and what that is called.
        mask_probs: `[M, M]` float32 over its box; keypoints: `[4, K]` float32. None where the model has no such head.
    """

    box: npt.NDArray[np.float32]
    score: float
    label: int
    name: str
    mask_probs: npt.NDArray[np.float32] | None
    keypoints: npt.NDArray[np.float32] | None

    def __repr__(self) -> str:
        """`<square 0.98 at (41.3, 20.0, 96.8, 77.1), mask_probs [28, 28]>`: arrays by their shapes."""
        corners = ", ".join(f"{corner:.1f}" for corner in self.box)
        parts = {"mask_probs": self.mask_probs, "keypoints": self.keypoints}
        shapes = [f", {name} {list(part.shape)}" for name, part in parts.items() if part is not None]
        return f"<{self.name} {self.score:.2f} at ({corners}){''.join(shapes)}>"


@dataclass(frozen=True)
class Detections:
    """Detections of one image, ordered by class and within it as Detectron orders them.

    Attributes:
        boxes: `[D, 4]` float32, inclusive corners, in the image's own pixels.
        scores: `[D]` float32.
        classes: `[D]` int64, from 1 on; 0 would be the background.
        image_size: (height, width).
        mask_probs: `[D, M, M]` float32, the soft mask of each detection's own class over its box; None where the model
            has no mask head.
        keypoints: `[D, 4, K]` float32, for each keypoint x and y in image pixels, logit and probability; None where
            the model has no keypoint head.
        mask_threshold: what a pasted mask's pixels must exceed (`cfg.MRCNN.THRESH_BINARIZE`).
        class_names: what `classes` mean, the background first; None where nobody has said.
        keypoint_confidence: what a person's keypoints score: `bbox`, `logit` or `prob`
            (`cfg.KRCNN.KEYPOINT_CONFIDENCE`).
    """

    boxes: npt.NDArray[np.float32]
    scores: npt.NDArray[np.float32]
    classes: npt.NDArray[np.int64]
    image_size: tuple[int, int]
    mask_probs: npt.NDArray[np.float32] | None = None
    keypoints: npt.NDArray[np.float32] | None = None
    mask_threshold: float = 0.5
    keypoint_confidence: str = "bbox"
    class_names: tuple[str, ...] | None = None

    @classmethod
    def from_tensors(
        cls,
        boxes: Tensor,
        scores: Tensor,
        classes: Tensor,
        mask_probs: Tensor | None,
        image_size: tuple[int, int],
        cfg: Config,
        heatmaps: Tensor | None = None,
    ) -> Detections:
        """The detections of one image from the network's tensors, brought to the host.

        Args:
            heatmaps: `[D, K, M, M]` of a keypoint head, which the keypoints are read off.

        With `cfg.KRCNN.NMS_OKS`, people that are too similar go, and the rest stands in the order of their keypoints'
        mean logit (Detectron core/test.py:keypoint_results).
        """
        found = cls(
            boxes=boxes.cpu().numpy(),
            scores=scores.cpu().numpy(),
            classes=classes.cpu().numpy(),
            image_size=image_size,
            mask_probs=None if mask_probs is None else mask_probs.cpu().numpy(),
            mask_threshold=cfg.MRCNN.THRESH_BINARIZE,
            keypoint_confidence=cfg.KRCNN.KEYPOINT_CONFIDENCE,
        )
        if heatmaps is None:
            return found
        maps = heatmaps.float().cpu().numpy()
        found = replace(found, keypoints=decode_heatmaps(maps, found.boxes, cfg.KRCNN.INFERENCE_MIN_SIZE))
        return found.without_similar_people() if cfg.KRCNN.NMS_OKS else found

    def without_similar_people(self) -> Detections:
        """What suppression by the similarity of keypoints leaves, in its order."""
        assert self.keypoints is not None
        return self.at(nms_oks(self.keypoints, self.boxes))

    def keypoint_scores(self) -> npt.NDArray[np.float64]:
        """`[D]`: what the keypoints of each detection score: as its box, or the mean of their logits or probabilities.

        The mean is a sum in float64, keypoint by keypoint (Detectron datasets/json_dataset_evaluator.py).
        """
        assert self.keypoints is not None
        if self.keypoint_confidence == "bbox":
            return self.scores.astype(np.float64)
        row = {"logit": 2, "prob": 3}[self.keypoint_confidence]
        values = self.keypoints[:, row].astype(np.float64)
        means: npt.NDArray[np.float64] = np.cumsum(values, axis=1)[:, -1] / values.shape[1]
        return means

    def __len__(self) -> int:
        return len(self.scores)

    def __repr__(self) -> str:
        """`<3 detections in 427 x 640 pixels (2 person, 1 dog)>`, the most frequent first."""
        height, width = self.image_size
        counts = Counter(self.names).most_common()
        told = f" ({listed([f'{count} {name}' for name, count in counts])})" if counts else ""
        return f"<{amount(len(self), 'detection')} in {height} x {width} pixels{told}>"

    def __str__(self) -> str:
        """The line of `repr`, and a table of the ten that score most: their places here, names, scores and boxes."""
        places = np.argsort(-self.scores, kind="stable")[:_ROWS]
        shown = self[places]
        names = [printable(name) for name in shown.names]
        wide = max(map(len, names), default=0)
        rows = [
            f"{number:>3}  {name:<{wide}}  {score:.3f} {''.join(f'{corner:8.1f}' for corner in box)}"
            for number, name, score, box in zip(places, names, shown.scores, shown.boxes, strict=True)
        ]
        head = [f"     {'name':<{wide}}  score {''.join(f'{corner:>8}' for corner in ('x1', 'y1', 'x2', 'y2'))}"]
        more = [f"the {len(rows)} best of {len(self):,}"] if len(self) > len(rows) else []
        return "\n".join([repr(self), *(head if rows else []), *rows, *more])

    @overload
    def __getitem__(self, index: int) -> Detection: ...
    @overload
    def __getitem__(self, index: slice | Sequence[int] | npt.NDArray[Any]) -> Detections: ...
    def __getitem__(self, index: int | slice | Sequence[int] | npt.NDArray[Any]) -> Detection | Detections:
        """One detection by its number; some by a slice, by numbers, or by an array of booleans `[D]`."""
        if isinstance(index, int | np.integer):
            if not -len(self) <= index < len(self):
                raise IndexError(f"there is no detection {index} among {len(self)}")
            number = range(len(self))[index]
            return Detection(
                self.boxes[number],
                float(self.scores[number]),
                int(self.classes[number]),
                self.names[number],
                None if self.mask_probs is None else self.mask_probs[number],
                None if self.keypoints is None else self.keypoints[number],
            )
        return self.at(np.arange(len(self))[index])

    def __iter__(self) -> Iterator[Detection]:
        return (self[number] for number in range(len(self)))

    @property
    def names(self) -> list[str]:
        """What each detection is; `class 3` where the classes have no names."""
        known = self.class_names
        return [f"class {label}" if known is None else known[label] for label in self.classes.tolist()]

    def above(self, score: float) -> Detections:
        """Those that score at least so much, of 1."""
        if not isinstance(score, int | float | np.number):
            raise InputError(f"{score!r} is no score: give a number from 0 to 1")
        return self[self.scores >= score]

    def of_class(self, *classes: str | int) -> Detections:
        """Those of these classes, by name or number, one after another; InputError for a name that no class has."""
        for each in classes:
            if not isinstance(each, str | int | np.integer):
                raise InputError(f"{each!r} is no class: give names or numbers one by one, of_class('person', 'dog')")
        if self.class_names is not None:
            unknown = [name for name in classes if isinstance(name, str) and name not in self.class_names]
            if unknown:
                raise InputError(f"no class is called {unknown[0]!r}: {', '.join(self.class_names[1:])}")
        wanted = [
            label in classes or name in classes for label, name in zip(self.classes.tolist(), self.names, strict=True)
        ]
        return self[np.array(wanted, dtype=bool)]

    def by_score(self) -> Detections:
        """The same ones, the best first."""
        return self[np.argsort(-self.scores, kind="stable")]

    def tensors(self) -> dict[str, Tensor]:
        """`boxes [D, 4]`, `scores [D]`, `labels [D]` and, as there are, `masks [D, height, width]` bool and
        `keypoints [D, 4, K]`: on the CPU, all but the masks in the memory of the arrays.

        The keys are torchvision's; boxes keep their inclusive corners.
        """
        arrays: dict[str, npt.NDArray[Any]] = {"boxes": self.boxes, "scores": self.scores, "labels": self.classes}
        if self.mask_probs is not None:
            arrays["masks"] = self.masks()
        if self.keypoints is not None:
            arrays["keypoints"] = self.keypoints
        return {name: torch.from_numpy(array) for name, array in arrays.items()}

    def to_coco(self, image_id: int, category_ids: Sequence[int] | None = None) -> list[dict[str, Any]]:
        """COCO's result rows, one for each detection, with its mask and keypoints as there are.

        Args:
            category_ids: of classes 1, 2, ...; their numbers where left out. InputError where a class has none.
        """
        from detectron_gn.mrcnn.evaluation.coco_results import image_results

        most = max(self.classes.tolist(), default=0)
        ids = list(range(1, most + 1) if category_ids is None else map(int, category_ids))
        if len(ids) < most:
            raise InputError(
                f"there are {len(ids)} category ids, but a detection is of class {most}: give those of all classes, "
                "1, 2, ..., without the background"
            )
        found = image_results(image_id, self, ids)
        rows: list[dict[str, Any]] = [dict(row) for row in found.boxes]
        for key, further in (("segmentation", found.segms), ("keypoints", found.keypoints)):
            for row, other in zip(rows, further or []):
                row[key] = dict(other)[key]
        return rows

    def plot(self, image: AnyImage, min_score: float = 0.5) -> npt.NDArray[np.uint8]:
        """A picture of the image with the detections that score at least `min_score`: `[kH, kW, 3]` uint8 BGR.

        Raises InputError for an image of another size than the one that they are of.
        """
        from detectron_gn.mrcnn.visualize import draw_detections

        pixels, (height, width) = as_image(image), self.image_size
        if pixels.shape[:2] != (height, width):
            raise InputError(
                f"the image has {pixels.shape[0]} x {pixels.shape[1]} pixels, and these detections are of one of "
                f"{height} x {width}: give that one"
            )
        most = max(self.classes.tolist(), default=0)
        names = self.class_names or [f"class {label}" for label in range(most + 1)]
        return draw_detections(pixels, self.above(min_score), names[1:], min_score)

    def patches(self) -> Iterator[Patch]:
        """Each detection's binary mask, cut to the part of the image it can cover; InputError without a mask head.

        They are pasted one at a time, as they are asked for: of a large image each may take megabytes.
        """
        if self.mask_probs is None:
            raise InputError("these detections have no masks: the model has no mask head (MODEL.MASK_ON is False)")
        boxes = paste_boxes(self.boxes, self.mask_probs.shape[-1])
        return (
            paste_mask(probabilities, box, self.image_size, self.mask_threshold)
            for probabilities, box in zip(self.mask_probs, boxes, strict=True)
        )

    def row(self, number: int) -> Detections:
        """One of the detections."""
        return self.at(np.array([number]))

    def at(self, numbers: npt.NDArray[np.int64]) -> Detections:
        """Some of the detections, in the order of `numbers [N]` int64."""
        return replace(
            self,
            boxes=self.boxes[numbers],
            scores=self.scores[numbers],
            classes=self.classes[numbers],
            mask_probs=None if self.mask_probs is None else self.mask_probs[numbers],
            keypoints=None if self.keypoints is None else self.keypoints[numbers],
        )

    def masks(self) -> npt.NDArray[np.bool_]:
        """Binary masks `[D, height, width]` of the whole image."""
        masks = np.zeros((len(self), *self.image_size), dtype=bool)
        for mask, patch in zip(masks, self.patches(), strict=True):
            mask[:] = patch_bitmap(patch, self.image_size)
        return masks

    def rles(self) -> list[Rle]:
        """Binary masks as COCO's compressed run lengths."""
        return [patch_rle(patch, self.image_size) for patch in self.patches()]
