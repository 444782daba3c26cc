"""Detection parity: two COCO result files, such as ours and Detectron's, compared detection by detection."""

import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import pycocotools.mask

from detectron_gn.mrcnn.evaluation.ap import AP_JSON_KEY
from detectron_gn.mrcnn.evaluation.results_files import SHAPE_KEY, IouType, ResultRow
from detectron_gn.mrcnn.ops.keypoints import KEYPOINT_NAMES, MOST_MOVED_KEYPOINTS, OKS_SIGMAS
from detectron_gn.mrcnn.ops.pairs import pair_one_to_one
from detectron_gn.mrcnn.tables import text_table

# Detections of one class that overlap less than this are two detections, not one that moved.
_PARTNER_IOU = 0.5

# Overlaps this close are a tie, which the score decides.
_IOU_DECIMALS = 3

_WORST_IMAGES = 5

# What the results of a type are called in sentences.
PLURAL: dict[IouType, str] = {"bbox": "boxes", "segm": "masks", "keypoints": "people's keypoints"}

# The edges of two boxes that are one are no further apart, in pixels: what the order of float32 sums explains in models
# of random weights, 0.03, and a little more. Trained ones give 0.001. A reference's detections are held to it, too.
MOST_BOX_ERROR = 0.05

# A keypoint of a pair that is further away, in pixels, is elsewhere. A reference's detections are held to it, too.
MOST_KEYPOINT_ERROR = 0.02


@dataclass(frozen=True)
class DetectionTolerances:
    """What counts as equal, and which detections may be on one side only.

    Attributes:
        box_iou, mask_iou: smallest overlap of a pair; that of its type of results holds.
        box_px: largest distance, in pixels, of the edges of a pair's boxes: of a large box an IoU allows many.
        keypoint: largest distance, in pixels along an axis, of a keypoint that is in place. Of a person at most half
            may be elsewhere, and of all of them `most_moved`.
        score: largest difference of a pair's scores.
        score_threshold, detections_per_image: Detectron's `TEST.SCORE_THRESH` and `TEST.DETECTIONS_PER_IM`.
        margin: a detection without a partner is excused when its score lies this near to the threshold, or to
            the lowest score of the image on the other side when that side has filled it up.
    """

    box_iou: float = 0.999
    mask_iou: float = 0.99
    box_px: float = MOST_BOX_ERROR
    keypoint: float = MOST_KEYPOINT_ERROR
    score: float = 1e-3
    score_threshold: float = 0.05
    detections_per_image: int = 100
    margin: float = 1e-4


@dataclass(frozen=True)
class ImageDifference:
    """How far the detections of one image are apart.

    Attributes:
        unmatched: detections of either side without a partner, or with one out of tolerance; not the excused.
        max_box_difference: in pixels; 0 for masks.
        max_score_difference, min_iou: over the image's pairs.
    """

    image_id: int | str
    unmatched: int
    max_box_difference: float
    max_score_difference: float
    min_iou: float


@dataclass(frozen=True)
class DetectionParity:
    """How far two lists of detections are apart.

    Attributes:
        iou_type: "bbox", "segm" or "keypoints".
        ours, reference: detections on either side.
        pairs: detections with a partner on the other side: same image and class, IoU of at least 0.5. In place of IoU
            is the similarity (OKS) of keypoints, relative to the area that the reference's keypoints span.
        matched: pairs within the tolerances.
        unmatched_ours, unmatched_reference: detections without a partner that nothing excuses.
        excused_ours, excused_reference: detections without a partner that are at the threshold or the limit.
        max_box_difference: largest difference of a box's edge, or of a keypoint's place, over all pairs, in pixels; 0
            for masks.
        max_score_difference: largest difference of the scores of a pair.
        min_iou: smallest IoU of a pair.
        equal: pairs with the same box, the same mask to the pixel, or the same keypoints.
        worst: the images furthest apart, worst first; those without any difference are left out.
        partners: `[pairs, 2]` row numbers (ours, reference's).
        different_ours, different_reference: row numbers of what does not match: in a pair out of tolerance, or without
            a partner and not excused.
        keypoints, moved_keypoints: of all pairs, and those that are elsewhere.
        max_keypoint_difference: largest distance of a keypoint that is in place, in pixels.
    """

    iou_type: IouType
    ours: int
    reference: int
    pairs: int
    matched: int
    unmatched_ours: int
    unmatched_reference: int
    excused_ours: int
    excused_reference: int
    max_box_difference: float
    max_score_difference: float
    min_iou: float
    equal: int
    worst: tuple[ImageDifference, ...]
    partners: npt.NDArray[np.int64] = field(repr=False, compare=False)
    different_ours: npt.NDArray[np.int64] = field(repr=False, compare=False)
    different_reference: npt.NDArray[np.int64] = field(repr=False, compare=False)
    keypoints: int = 0
    moved_keypoints: int = 0
    max_keypoint_difference: float = 0.0

    @property
    def holds(self) -> bool:
        """Whether every detection that is not excused is matched, and hardly a keypoint is elsewhere."""
        in_place = self.moved_keypoints <= most_moved(self.keypoints)
        return self.matched == self.pairs and not self.unmatched_ours and not self.unmatched_reference and in_place

    @property
    def share_matched(self) -> float:
        """Matched pairs of all that should be one, 0..1."""
        wanted = self.pairs + self.unmatched_ours + self.unmatched_reference
        return self.matched / wanted if wanted else 1.0

    def document(self) -> dict[str, Any]:
        """What --json writes."""
        values = asdict(self)
        for rows in ("partners", "different_ours", "different_reference"):
            del values[rows]
        return {"holds": self.holds, "share_matched": self.share_matched, **values}


def most_moved(keypoints: int) -> int:
    """How many of so many keypoints may be elsewhere: of one or more, one at least."""
    return math.ceil(MOST_MOVED_KEYPOINTS * keypoints)


def told_moved(moved: int, keypoints: int, distance: float) -> str:
    """How many keypoints are elsewhere, how far the farthest is, in pixels, and how many may be."""
    if not moved:
        return f"all {keypoints} keypoints are in place"
    told = f"{moved} of {keypoints} keypoints {'is' if moved == 1 else 'are'} elsewhere"
    return f"{told}, by up to {distance:.3g} pixels; {most_moved(keypoints)} may be"


@dataclass(frozen=True)
class _Pairs:
    """Row numbers of partners with what separates them, one entry per pair."""

    ours: npt.NDArray[np.int64]
    reference: npt.NDArray[np.int64]
    iou: npt.NDArray[np.float64]
    box: npt.NDArray[np.float64]
    score: npt.NDArray[np.float64]
    equal: npt.NDArray[np.bool_]
    moved: npt.NDArray[np.int64]
    in_place: npt.NDArray[np.float64]


def match_detections(
    ours: Sequence[ResultRow],
    reference: Sequence[ResultRow],
    iou_type: IouType,
    tolerances: DetectionTolerances | None = None,
) -> DetectionParity:
    """Pair two lists of COCO results one to one, image by image and class by class, and measure the pairs.

    The pair that overlaps most comes first; among overlaps equal to 0.001 the one with the nearest scores.
    Masks are paired by their own overlap; two empty ones overlap fully.

    Args:
        ours, reference: rows that `mrcnn.evaluation.results_files.check_results` let pass.
        iou_type: which key of the rows is compared.
    """
    limits = tolerances or DetectionTolerances()
    pairs = _pair(ours, reference, iou_type, limits.keypoint)
    count = len(KEYPOINT_NAMES)
    if iou_type == "keypoints":
        alike = 2 * pairs.moved <= count
    elif iou_type == "bbox":
        alike = (pairs.iou >= limits.box_iou) & (pairs.box <= limits.box_px)
    else:
        alike = pairs.iou >= limits.mask_iou
    within = alike & (pairs.score <= limits.score)
    lonely_ours = np.setdiff1d(np.arange(len(ours)), pairs.ours)
    lonely_reference = np.setdiff1d(np.arange(len(reference)), pairs.reference)
    unmatched_ours = _not_excused(lonely_ours, ours, reference, limits)
    unmatched_reference = _not_excused(lonely_reference, reference, ours, limits)
    unmatched_images = [ours[row]["image_id"] for row in (*pairs.ours[~within], *unmatched_ours)]
    unmatched_images += [reference[row]["image_id"] for row in unmatched_reference]
    return DetectionParity(
        iou_type=iou_type,
        ours=len(ours),
        reference=len(reference),
        pairs=len(pairs.ours),
        matched=int(within.sum()),
        unmatched_ours=len(unmatched_ours),
        unmatched_reference=len(unmatched_reference),
        excused_ours=len(lonely_ours) - len(unmatched_ours),
        excused_reference=len(lonely_reference) - len(unmatched_reference),
        max_box_difference=float(pairs.box.max(initial=0.0)),
        max_score_difference=float(pairs.score.max(initial=0.0)),
        min_iou=float(pairs.iou.min(initial=1.0)),
        equal=int(pairs.equal.sum()),
        worst=_worst(pairs, [row["image_id"] for row in ours], unmatched_images),
        partners=np.stack((pairs.ours, pairs.reference), axis=1),
        different_ours=np.array([*pairs.ours[~within], *unmatched_ours], dtype=np.int64),
        different_reference=np.array([*pairs.reference[~within], *unmatched_reference], dtype=np.int64),
        keypoints=count * len(pairs.ours) if iou_type == "keypoints" else 0,
        moved_keypoints=int(pairs.moved.sum()),
        max_keypoint_difference=float(pairs.in_place.max(initial=0.0)),
    )


def parity_rows(parities: Sequence[DetectionParity]) -> tuple[list[str], list[list[str]]]:
    """Header and rows of a table with a column for each type of results that was compared."""
    header = ["", *(AP_JSON_KEY[parity.iou_type] for parity in parities)]
    with_keypoints = any(parity.keypoints for parity in parities)
    lines: list[tuple[str, list[str]]] = [
        ("detections, ours", [str(parity.ours) for parity in parities]),
        ("detections, reference", [str(parity.reference) for parity in parities]),
        ("matched", [f"{parity.matched} ({100 * parity.share_matched:.2f} %)" for parity in parities]),
        ("paired, out of tolerance", [str(parity.pairs - parity.matched) for parity in parities]),
        ("unmatched, ours", [str(parity.unmatched_ours) for parity in parities]),
        ("unmatched, reference", [str(parity.unmatched_reference) for parity in parities]),
        ("at threshold or limit", [str(p.excused_ours + p.excused_reference) for p in parities]),
        ("equal to the last digit", [str(parity.equal) for parity in parities]),
        *([("keypoints elsewhere", [_moved(parity) for parity in parities])] if with_keypoints else []),
        *([("keypoints in place (px)", [_in_place(parity) for parity in parities])] if with_keypoints else []),
        ("smallest IoU", [f"{parity.min_iou:.6f}" if parity.pairs else "-" for parity in parities]),
        ("largest distance (px)", [_pixels(parity) for parity in parities]),
        ("largest score difference", [f"{p.max_score_difference:.2e}" if p.pairs else "-" for p in parities]),
    ]
    return header, [[name, *cells] for name, cells in lines]


def parity_table(parities: Sequence[DetectionParity]) -> str:
    """`parity_rows` as text."""
    return text_table(*parity_rows(parities))


def _pair(
    ours: Sequence[ResultRow], reference: Sequence[ResultRow], iou_type: IouType, most_apart: float
) -> _Pairs:
    ours_by_group, reference_by_group = _by_image_and_class(ours), _by_image_and_class(reference)
    key = SHAPE_KEY[iou_type]
    columns: list[tuple[int, int, float, float, float, bool, int, float]] = []
    for group, our_rows in ours_by_group.items():
        if their_rows := reference_by_group.get(group):
            a, b = [ours[row][key] for row in our_rows], [reference[row][key] for row in their_rows]
            ious = _overlaps(a, b, iou_type)
            scores = np.abs(
                np.subtract.outer(
                    [ours[row]["score"] for row in our_rows], [reference[row]["score"] for row in their_rows]
                )
            )
            for i, j in pair_one_to_one(ious >= _PARTNER_IOU, -np.round(ious, _IOU_DECIMALS), scores).tolist():
                apart, moved, in_place = _apart(a[i], b[j], iou_type, most_apart)
                row = (our_rows[i], their_rows[j], ious[i, j], apart, scores[i, j], a[i] == b[j], moved, in_place)
                columns.append(row)
    columns.sort()
    table = list(zip(*columns, strict=True)) or [()] * 8
    dtypes = (np.int64, np.int64, np.float64, np.float64, np.float64, np.bool_, np.int64, np.float64)
    return _Pairs(*(np.array(column, dtype=dtype) for column, dtype in zip(table, dtypes, strict=True)))


def _by_image_and_class(rows: Sequence[ResultRow]) -> dict[tuple[Any, Any], list[int]]:
    groups: dict[tuple[Any, Any], list[int]] = defaultdict(list)
    for number, row in enumerate(rows):
        groups[row["image_id"], row["category_id"]].append(number)
    return groups


def _overlaps(a: list[Any], b: list[Any], iou_type: IouType) -> npt.NDArray[np.float64]:
    """IoU `[len(a), len(b)]` of boxes (x, y, width, height) or masks, or the similarity of keypoints.

    Below 0 for masks of images of other sizes.
    """
    if iou_type == "keypoints":
        return np.array([[_similarity(mine, theirs) for theirs in b] for mine in a], dtype=np.float64)
    if iou_type == "bbox":
        a, b = [list(map(float, box)) for box in a], [list(map(float, box)) for box in b]
    ious = np.array(pycocotools.mask.iou(a, b, [0] * len(b)), dtype=np.float64).reshape(len(a), len(b))
    if iou_type == "segm":
        ious[np.logical_and.outer(pycocotools.mask.area(a) == 0, pycocotools.mask.area(b) == 0)] = 1.0
    return ious


def _apart(a: Any, b: Any, iou_type: IouType, most_apart: float) -> tuple[float, int, float]:
    """Largest distance in pixels of what is a place; how many keypoints are elsewhere; the largest of the others."""
    if iou_type == "keypoints":
        distances = np.abs(_places(a) - _places(b)).max(axis=1)
        in_place = distances <= most_apart
        return float(distances.max()), int((~in_place).sum()), float(distances[in_place].max(initial=0.0))
    return (_edge_difference(a, b) if iou_type == "bbox" else 0.0), 0, 0.0


def _places(keypoints: Sequence[float]) -> npt.NDArray[np.float64]:
    """`[17, 2]` of COCO's x, y, visibility triples."""
    return np.asarray(keypoints, dtype=np.float64).reshape(-1, 3)[:, :2]


def _similarity(ours: Sequence[float], reference: Sequence[float]) -> float:
    """Similarity (OKS) of two people's keypoints, all of which count, relative to the area the reference's span."""
    a, b = _places(ours), _places(reference)
    area = np.prod(b.max(axis=0) - b.min(axis=0)) + np.spacing(1)
    return float(np.exp(-((a - b) ** 2).sum(axis=1) / (2 * OKS_SIGMAS) ** 2 / area / 2).mean())


def _edge_difference(a: Sequence[float], b: Sequence[float]) -> float:
    """Largest distance in pixels of the edges of two boxes (x, y, width, height)."""
    return max(max(abs(a[k] - b[k]), abs(a[k] + a[k + 2] - b[k] - b[k + 2])) for k in (0, 1))


def _not_excused(
    lonely: npt.NDArray[np.int64],
    rows: Sequence[ResultRow],
    others: Sequence[ResultRow],
    limits: DetectionTolerances,
) -> list[int]:
    """The `lonely` row numbers that neither the threshold nor a full image on the other side explains."""
    scores_by_image: dict[Any, list[float]] = defaultdict(list)
    for row in others:
        scores_by_image[row["image_id"]].append(row["score"])
    unexplained = []
    for number in lonely.tolist():
        score, there = rows[number]["score"], scores_by_image[rows[number]["image_id"]]
        cuts = [limits.score_threshold]
        if len(there) >= limits.detections_per_image:
            cuts.append(min(there))
        if min(abs(score - cut) for cut in cuts) > limits.margin:
            unexplained.append(number)
    return unexplained


def _worst(
    pairs: _Pairs, image_of_row: list[int | str], unmatched_images: list[int | str]
) -> tuple[ImageDifference, ...]:
    pairs_of_image: dict[int | str, list[int]] = defaultdict(list)
    for place, row in enumerate(pairs.ours.tolist()):
        pairs_of_image[image_of_row[row]].append(place)
    unmatched: dict[int | str, int] = defaultdict(int)
    for image in unmatched_images:
        unmatched[image] += 1
    differences = []
    for image in sorted({*pairs_of_image, *unmatched}, key=str):
        places = pairs_of_image[image]
        box, score = float(pairs.box[places].max(initial=0.0)), float(pairs.score[places].max(initial=0.0))
        iou = float(pairs.iou[places].min(initial=1.0))
        if unmatched[image] or box or score or iou < 1:
            differences.append(ImageDifference(image, unmatched[image], box, score, iou))
    differences.sort(key=lambda d: (-d.unmatched, d.min_iou, -d.max_box_difference, -d.max_score_difference))
    return tuple(differences[:_WORST_IMAGES])


def _moved(parity: DetectionParity) -> str:
    return f"{parity.moved_keypoints} of {parity.keypoints}" if parity.keypoints else "-"


def _in_place(parity: DetectionParity) -> str:
    return f"{parity.max_keypoint_difference:.2g}" if parity.keypoints else "-"


def _pixels(parity: DetectionParity) -> str:
    return "-" if parity.iou_type == "segm" or not parity.pairs else f"{parity.max_box_difference:.2g}"
