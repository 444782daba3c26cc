"""Measured beside published AP, in the shape of the tables of Detectron projects/GN/README.md and MODEL_ZOO.md."""

import contextlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pycocotools.coco import COCO

from detectron_gn.mrcnn.data.coco import read_annotations
from detectron_gn.mrcnn.data.coco_names import COCO_CATEGORIES
from detectron_gn.mrcnn.errors import InputError
from detectron_gn.mrcnn.evaluation.ap import AP_JSON_KEY, ApSummary, score
from detectron_gn.mrcnn.evaluation.coco_eval import MAX_DETECTIONS
from detectron_gn.mrcnn.evaluation.results_files import IouType
from detectron_gn.mrcnn.tables import text_table
from detectron_gn.weights.catalog import CatalogEntry, lookup
from detectron_gn.weights.download.cache import Item, fetch
from detectron_gn.weights.errors import UnknownModel, WeightsError
from detectron_gn.weights.shown import without_secrets

# Published numbers have one decimal: this many points of a percent are what a rerun may differ by.
TOLERANCE = 0.1

# coco_2014_minival, which is val2017.
MINIVAL_IMAGES = 5000

# What is compared: AP, and of an RPN by itself the average recall of its 1,000 best proposals. Catalog fields.
PUBLISHED = {"box": "box_ap", "mask": "mask_ap", "keypoint": "keypoint_ap", "proposal": "proposal_ar"}
TOLD = {"box": "box AP", "mask": "mask AP", "keypoint": "keypoint AP", "proposal": "AR@1000"}
_EXPECT = "--expect-box, --expect-mask, --expect-keypoint or --expect-proposal"
_SECONDS = "seconds per image"
RESULT_FILES: dict[Item, IouType] = {"boxes": "bbox", "masks": "segm", "keypoints": "keypoints"}


@dataclass(frozen=True)
class Expectation:
    """The AP that a model should have, in percent, and the catalog's entry where that is where it is from.

    Attributes:
        ap: by the names of `TOLD`.
    """

    ap: dict[str, float]
    entry: CatalogEntry | None = None


@dataclass(frozen=True)
class ApComparison:
    """Expected and measured AP, in percent, by the names of `TOLD`.

    Attributes:
        seconds_per_image: as measured here, network + post-processing; None where nothing was run.
    """

    case: str
    expected: Expectation
    measured: dict[str, float]
    seconds_per_image: str | None = None

    @property
    def differences(self) -> dict[str, float]:
        """Measured minus expected, in points of a percent, of what was measured and is expected."""
        return {
            kind: self.measured[kind] - self.expected.ap[kind]
            for kind in TOLD
            if kind in self.measured and kind in self.expected.ap
        }

    @property
    def holds(self) -> bool:
        """Whether every difference is within `TOLERANCE`; the last digits of binary fractions do not count."""
        return all(abs(difference) <= TOLERANCE + 1e-9 for difference in self.differences.values())

    def told_differences(self) -> str:
        """`box AP +0.00, mask AP -0.04`."""
        # Adding zero takes the sign off a rounded -0.00.
        return ", ".join(f"{TOLD[kind]} {round(apart, 2) + 0.0:+.2f}" for kind, apart in self.differences.items())

    def document(self) -> dict[str, Any]:
        """What --json writes; AP in 0..1, as everywhere in files."""
        return {
            "holds": self.holds,
            "model": None if self.expected.entry is None else self.expected.entry.id,
            "expected": {kind: value / 100 for kind, value in self.expected.ap.items()},
            "measured": {kind: value / 100 for kind, value in self.measured.items()},
            "tolerance": TOLERANCE / 100,
            "seconds_per_image": self.seconds_per_image,
        }


def expectation(source: str, given: Mapping[str, float] | None = None, *, can_expect: bool = True) -> Expectation:
    """What the user expects, or else what the catalog has published for this id, name or URL.

    Args:
        given: AP in percent, as papers print it, by the names of `TOLD`; a number up to 1 is taken as a share of 1.
        can_expect: whether the command has the options for `given`, so that an error may name them.
    """
    if given:
        return Expectation({kind: 100 * ap if ap <= 1 else ap for kind, ap in given.items()})
    try:
        entry = lookup(source)
    except UnknownModel:
        way_out = f"pass {_EXPECT}, or give the model's id" if can_expect else "give an id that `models` lists"
        raise InputError(
            f"{source} is no model of the catalog, so nothing says which AP to expect: {way_out}"
        ) from None
    known = {kind: ap for kind, name in PUBLISHED.items() if (ap := getattr(entry, name)) is not None}
    if not known:
        way_out = "`verify imagenet` checks a classifier" if entry.top1_error else "`models` lists what was published"
        raise InputError(f"{entry.title}, {entry.kind}, has no published AP: {way_out}")
    return Expectation(known, entry)


def known_expectation(
    source: str, annotations: Path | None, given: Mapping[str, float] | None = None
) -> Expectation | None:
    """`expectation`, or None where nothing says what to expect of the source on this data set.

    Raises InputError where an AP is given that nothing here could be compared with.
    """
    if annotations is None:
        return None
    try:
        expected = expectation(source, given)
        check_comparable(read_annotations(annotations), annotations, expected)
    except InputError:
        if given:
            raise
        return None
    return expected


def published_results(entry: CatalogEntry) -> dict[IouType, Path]:
    """The published detections on minival, downloaded if need be; without those where that cannot be done."""
    found: dict[IouType, Path] = {}
    for item, iou_type in _published_files(entry).items():
        with contextlib.suppress(WeightsError):
            found[iou_type] = fetch(entry.name, item=item)
    return found


def check_comparable(coco: COCO, annotations: Path, expected: Expectation, *, can_expect: bool = True) -> None:
    """InputError where an AP on these annotations could not be compared with the expected one.

    The catalog's AP is that of coco_2014_minival, so other data sets have nothing to compare with it; without objects
    there is no AP at all. `can_expect` is that of `expectation`.
    """
    if expected.entry is not None and len(coco.imgs) != MINIVAL_IMAGES:
        raise InputError(
            f"{annotations} has {len(coco.imgs)} images, but published AP is of the {MINIVAL_IMAGES} of "
            "coco_2014_minival: give instances_val2017.json or instances_minival2014.json (they hold the same images; "
            "person_keypoints_... for keypoints)" + f", or say which AP to expect with {_EXPECT}" * can_expect
        )
    if all(annotation.get("iscrowd") for annotation in coco.anns.values()):
        raise InputError(f"{annotations} has no object to find, so there is no AP: give annotations that have some")


def check_max_dets(max_detections: int, expected: Expectation) -> None:
    """InputError where the catalog's AP is expected of another number of detections than it counts."""
    if expected.entry is not None and max_detections != MAX_DETECTIONS:
        raise InputError(
            f"published AP counts {MAX_DETECTIONS} detections of an image and category: leave --max-dets out, or say "
            f"which AP to expect with {_EXPECT}"
        )


def check_coco_ids(coco: COCO, annotations: Path) -> None:
    """InputError, naming the first, where a category id means something else than in COCO's files.

    The published detections carry COCO's ids, and would be scored as objects of other categories.
    """
    meant = dict(zip(COCO_CATEGORIES.ids, COCO_CATEGORIES.names, strict=True))
    for identity in coco.getCatIds():
        name = str(coco.cats[identity].get("name", ""))
        if name != meant.get(identity):
            told = repr(meant[identity]) if identity in meant else "nothing"
            raise InputError(
                f"{annotations} calls category {identity} {name!r}, but in the published detections it is {told}: give "
                "COCO's own annotation file, instances_val2017.json or instances_minival2014.json"
            )


def compare_ap(
    source: str, expected: Expectation, measured: Mapping[str, float], seconds_per_image: str | None = None
) -> ApComparison:
    """Compare measured AP with what is expected of a source.

    Args:
        measured: 0..1, by the names of `TOLD`.

    The case is named `R-50-FPN, GN`, as in Detectron's table, or after the file.
    """
    entry = expected.entry
    case = f"{entry.backbone}, {entry.norm}" if entry else without_secrets(source).rpartition("/")[2]
    return ApComparison(case, expected, {kind: 100 * ap for kind, ap in measured.items()}, seconds_per_image)


def score_published(source: str, coco: COCO, annotations: Path) -> tuple[ApComparison, dict[str, ApSummary]]:
    """Score the detections on minival that were published beside a model; they are downloaded if need be."""
    expected = expectation(source, can_expect=False)
    check_comparable(coco, annotations, expected, can_expect=False)
    check_coco_ids(coco, annotations)
    assert expected.entry is not None
    files = _published_files(expected.entry)
    if not files:
        raise InputError(
            f"{expected.entry.title} has no published detections, only proposals: `verify ap` measures the recall of "
            "its own"
        )
    summaries = {
        AP_JSON_KEY[iou_type]: score(fetch(source, item=item), coco, iou_type) for item, iou_type in files.items()
    }
    return compare_ap(source, expected, {kind: summary.AP for kind, summary in summaries.items()}), summaries


def _published_files(entry: CatalogEntry) -> dict[Item, IouType]:
    """The detections that were published beside a model."""
    return {item: iou_type for item, iou_type in RESULT_FILES.items() if getattr(entry, item) is not None}


def comparison_rows(comparison: ApComparison) -> tuple[list[str], list[list[str]]]:
    """Header and rows: published and measured numbers in the columns of Detectron's GN table, their names in full."""
    entry = comparison.expected.entry
    kinds = [kind for kind in TOLD if kind in comparison.expected.ap or kind in comparison.measured]
    expected = [
        comparison.case,
        "published" if entry else "expected",
        (entry.schedule if entry else None) or "-",
        (entry.inference_seconds_per_image if entry else None) or "-",
        *(_number(comparison.expected.ap.get(kind), 1 if entry else 2) for kind in kinds),
        entry.names[0] if entry else "-",
    ]
    measured = [
        "",
        "measured",
        "",
        comparison.seconds_per_image or "-",
        *(_number(comparison.measured.get(kind), 2) for kind in kinds),
        "",
    ]
    return ["case", "", "schedule", _SECONDS, *(TOLD[kind] for kind in kinds), "model id"], [expected, measured]


def comparison_table(comparison: ApComparison) -> str:
    """`comparison_rows` as text, without empty columns; the case and the model, which all rows share, stand above."""
    header, rows = comparison_rows(comparison)
    case, *_, model_id = rows[0]
    title = case if model_id == "-" else f"{case}, model {model_id}"
    columns = [cells for cells in zip(header[1:-1], *(row[1:-1] for row in rows)) if not {"-", ""} >= {*cells[1:]}]
    names, *lines = map(list, zip(*columns))
    note = "\nseconds per image: of the network + of what follows it" if _SECONDS in names else ""
    return f"{title}\n{text_table(names, lines)}{note}"


def verdict(comparison: ApComparison) -> str:
    """One sentence."""
    apart = comparison.told_differences()
    if comparison.holds:
        return f"They agree within {TOLERANCE} points ({apart})."
    return f"They do not agree within {TOLERANCE} points ({apart})."


def _number(value: float | None, decimals: int) -> str:
    return "-" if value is None else f"{value:.{decimals}f}"
