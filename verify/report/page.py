"""The report: one HTML page with all that was compared, that opens from disk and asks no other machine for anything."""

import base64
import platform
import shlex
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timezone
from html import escape
from importlib import metadata, resources
from pathlib import Path

import cv2
import numpy as np
import torch

from detectron_gn.mrcnn.data.image_blob import Image
from detectron_gn.mrcnn.errors import InputError
from detectron_gn.mrcnn.evaluation.ap import ApSummary
from detectron_gn.mrcnn.evaluation.coco_files import ResultRow
from detectron_gn.verify.ladder import Rung
from detectron_gn.verify.parity.blobs import ImageParity
from detectron_gn.verify.parity.results import DetectionParity, parity_rows
from detectron_gn.verify.published import ApComparison, comparison_rows, verdict
from detectron_gn.verify.report.plots import Point, box_plot, depth_plot, score_plot
from detectron_gn.verify.report.side_by_side import Pair
from detectron_gn.weights.files.atomic import replacing

PICTURE_WIDTH = 640
_PICTURE_QUALITY = 82

_LIBRARIES = ("detectron-gn", "torch", "numpy", "opencv-python-headless", "pycocotools", "h5py")
_MARKS = {
    "holds": '<path d="M4.5 10.5l3.6 3.6 7.4-8" stroke="currentColor" stroke-width="2" fill="none"'
    ' stroke-linecap="round" stroke-linejoin="round"/>',
    "differs": '<path d="M5.5 5.5l9 9m0-9l-9 9" stroke="currentColor" stroke-width="2" fill="none"'
    ' stroke-linecap="round"/>',
    "not run": '<circle cx="10" cy="10" r="2.2" fill="currentColor"/>',
}
_KINDS = {"holds": "good", "differs": "bad", "not run": "idle"}


@dataclass(frozen=True)
class Tile:
    """A number of the page's head: what it is, the number, and what stands beside it."""

    label: str
    value: str
    under: str = ""


@dataclass(frozen=True)
class Report:
    """What a page shows; a section without content is left out.

    Attributes:
        title: the model's name.
        holds: whether all that was compared agrees; `verdict` says it in a few words, `lead` in a sentence or two.
        ap, reference_ap: summaries by `box` and `mask`; the reference's may be fewer.
        scatter: (reference's score, our score) and (reference's score, box difference in pixels) of each pair.
        provenance: what the page is about and how it was made: file, hash, configuration, command.
    """

    title: str
    holds: bool
    verdict: str
    lead: str
    tiles: Sequence[Tile] = ()
    rungs: Sequence[Rung] = ()
    comparison: ApComparison | None = None
    ap: Mapping[str, ApSummary] = field(default_factory=dict)
    reference_ap: Mapping[str, ApSummary] = field(default_factory=dict)
    blobs: Sequence[ImageParity] = ()
    tolerance: float = 1e-3
    detections: Sequence[DetectionParity] = ()
    scatter: tuple[Sequence[Point], Sequence[Point]] = ((), ())
    pairs: Sequence[Pair] = ()
    provenance: Sequence[tuple[str, str]] = ()


def write_report(report: Report, path: Path) -> None:
    """Write the page, whole or not at all."""
    with replacing(path) as temporary:
        temporary.write_text(report_html(report), encoding="utf-8")


def report_html(report: Report) -> str:
    """The page."""
    style = resources.files("detectron_gn.verify.report").joinpath("report.css").read_text(encoding="utf-8")
    sections = [
        _head(report),
        _ladder(report.rungs),
        _comparison(report.comparison),
        _blobs(report),
        _detections(report),
        _average_precision(report),
        _gallery(report.pairs),
        _provenance(report.provenance),
    ]
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(report.title)}: parity with Caffe2 Detectron</title>\n<style>\n{style}</style>\n</head>\n"
        f"<body>\n<main>\n{''.join(filter(None, sections))}"
        "<footer>Written by detectron-gn. Everything on this page is inside this file.</footer>\n"
        "</main>\n</body>\n</html>\n"
    )


def scatter_points(
    parity: DetectionParity, ours: Sequence[ResultRow], reference: Sequence[ResultRow]
) -> tuple[list[Point], list[Point]]:
    """Points of the two scatter plots from pairs of boxes."""
    scores, boxes = [], []
    for mine, theirs in parity.partners.tolist():
        a, b = ours[mine], reference[theirs]
        scores.append((b["score"], a["score"]))
        boxes.append((b["score"], float(np.abs(np.subtract(a["bbox"], b["bbox"])).max())))
    return scores, boxes


def machine_facts(device: torch.device) -> list[tuple[str, str]]:
    """Versions, machine, time and command, for the page's foot."""
    versions = [f"{name} {metadata.version(name)}" for name in _LIBRARIES if _is_installed(name)]
    processor = torch.cuda.get_device_name(device) if device.type == "cuda" else _processor()
    return [
        ("command", shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]])),
        ("written", datetime.now(timezone.utc).strftime("%Y-%m-%d %H:%M UTC")),
        ("versions", ", ".join([f"Python {platform.python_version()}", *versions])),
        ("machine", f"{processor}, {_threads()}, {platform.system()} {platform.machine()}"),
    ]


def _head(report: Report) -> str:
    kind, mark = ("good", "holds") if report.holds else ("bad", "differs")
    tiles = "".join(
        f'<div class="tile"><span>{escape(tile.label)}</span><b>{escape(tile.value)}</b>'
        f'<span class="under">{escape(tile.under)}</span></div>'
        for tile in report.tiles
    )
    return (
        f'<header><div class="kicker">Parity with Caffe2 Detectron</div><h1>{escape(report.title)}</h1>'
        f'<div class="verdict {kind}">{_mark(mark)}{escape(report.verdict)}</div>'
        f'<p class="lead">{escape(report.lead)}</p><div class="tiles">{tiles}</div></header>\n'
    )


def _ladder(rungs: Sequence[Rung]) -> str:
    if not rungs:
        return ""
    items = []
    for rung in rungs:
        told = (("Usual suspect", rung.suspect), ("It may be", rung.may_be), ("Not compared", rung.not_compared))
        under = "".join(f'<div class="suspect">{label}: {escape(text)}</div>' for label, text in told if text)
        items.append(
            f'<li><span class="{_KINDS[rung.state]}">{_mark(rung.state)}</span><strong>{rung.name}</strong>'
            f'<span class="seen">{escape(rung.seen)}</span>{under}</li>'
        )
    note = "Each step takes for granted what those before it have shown; the first that differs is where to look."
    return _section("The ladder", note, f'<ol class="ladder">{"".join(items)}</ol>')


def _comparison(comparison: ApComparison | None) -> str:
    if comparison is None:
        return ""
    header, (expected, measured) = comparison_rows(comparison)
    title = "Published and measured" if comparison.expected.entry else "Expected and measured"
    # The two rows of Detectron's table stand side by side: as rows they are too wide for a phone.
    lines = [cells for cells in zip(header[2:], expected[2:], measured[2:]) if not {"-", ""}.issuperset(cells[1:])]
    return _section(title, verdict(comparison), _table([expected[0], expected[1], measured[1]], lines))


def _blobs(report: Report) -> str:
    if not report.blobs:
        return ""
    images = len(report.blobs)
    note = (
        f"Every blob of the network for {images} image{'s' * (images > 1)}, in the order in which data flows: the "
        "largest difference from Caffe2's values over the largest of them. Float32 sums in another order account for "
        "10⁻⁷ a layer, and for more the deeper they go."
    )
    errors: dict[str, list[str]] = {}
    for parity in report.blobs:
        for row in parity.blobs:
            errors.setdefault(row.blob, ["x".join(map(str, row.shape))]).append(row.told)
    rows = [[blob, *cells, *["-"] * (images + 1 - len(cells))] for blob, cells in errors.items()]
    table = _table(["blob", "shape", *(parity.image for parity in report.blobs)], rows)
    plot = f'<div class="plot">{depth_plot(report.blobs, report.tolerance)}</div>'
    return _section("Blob by blob", note, f"{plot}<details><summary>All {len(rows)} blobs</summary>{table}</details>")


def _detections(report: Report) -> str:
    if not report.detections:
        return ""
    header, rows = parity_rows(report.detections)
    scores, boxes = report.scatter
    plots = ""
    if scores:
        plots = (
            f'<div class="two"><div><h3>Our score over the reference\'s</h3>{score_plot(scores)}</div>'
            f"<div><h3>Largest difference of a box, in pixels</h3>{box_plot(boxes)}</div></div>"
        )
    note = "Detections of both sides paired one to one by image, class and overlap."
    return _section("Detection by detection", note, _table(header, rows) + plots)


def _average_precision(report: Report) -> str:
    if not report.ap:
        return ""
    columns = []
    for kind, summary in report.ap.items():
        reference = report.reference_ap.get(kind)
        pairs = [
            (name, value, reference.metrics()[name] if reference else None)
            for name, value in summary.metrics().items()
            if value >= 0
        ]
        columns.append(f"<div><h3>{kind}</h3>{_bars(pairs)}</div>")
    key = '<span><i></i>detectron-gn</span>'
    if report.reference_ap:
        key += '<span><i class="tick"></i>reference</span>'
    classes = _class_table(report)
    note = "Mean over IoU 0.50 to 0.95; at 0.50 and 0.75; of small, medium and large objects."
    body = f'<div class="two">{"".join(columns)}</div><div class="key">{key}</div>{classes}'
    return _section("Average precision by area and class", note, body)


def _class_table(report: Report) -> str:
    header, names = ["class"], list(next(iter(report.ap.values())).per_class)
    columns: list[Mapping[str, float]] = []
    for kind, summary in report.ap.items():
        header.append(f"{kind} AP")
        columns.append(summary.per_class)
        if kind in report.reference_ap:
            header.append(f"{kind} AP, reference")
            columns.append(report.reference_ap[kind].per_class)
    rows = [[name, *(_percent(column.get(name, -1.0)) for column in columns)] for name in names]
    is_open = " open" if len(rows) <= 12 else ""
    return f"<details{is_open}><summary>AP of {len(rows)} classes</summary>{_table(header, rows)}</details>"


def _bars(values: Iterable[tuple[str, float, float | None]]) -> str:
    parts = []
    for name, value, reference in values:
        tick = "" if reference is None or reference < 0 else f'<u style="left:{100 * reference:.2f}%"></u>'
        bar = f'<i><b style="width:{100 * value:.2f}%"></b>{tick}</i>'
        parts.append(f"<span>{name}</span>{bar}<span>{_percent(value)}</span>")
    return f'<div class="bars">{"".join(parts)}</div>'


def _gallery(pairs: Sequence[Pair]) -> str:
    if not pairs:
        return ""
    figures = []
    for pair in pairs:
        sides = "".join(
            f'<div><span>{escape(title)}</span><img src="{_data_uri(picture)}" width="{picture.shape[1]}" '
            f'height="{picture.shape[0]}" alt="{escape(pair.name)}, {escape(title)}"></div>'
            for title, picture in ((pair.left_title, pair.left), (pair.right_title, pair.right))
        )
        caption = f"<code>{escape(pair.name)}</code>: {escape(pair.caption)}"
        figures.append(f'<figure class="pair"><div>{sides}</div><figcaption>{caption}</figcaption></figure>')
    return _section("Side by side", "", "".join(figures))


def _provenance(facts: Sequence[tuple[str, str]]) -> str:
    if not facts:
        return ""
    items = "".join(f'<dt>{escape(name)}</dt><dd class="mono">{escape(value)}</dd>' for name, value in facts)
    return _section("How this page came about", "", f"<dl>{items}</dl>")


def _section(title: str, note: str, body: str) -> str:
    told = f'<p class="note">{escape(note)}</p>' if note else ""
    return f"<section><h2>{escape(title)}</h2>{told}{body}</section>\n"


def _table(header: Sequence[str], rows: Sequence[Sequence[str]], left: int = 1) -> str:
    def line(cells: Sequence[str], tag: str) -> str:
        return "".join(
            f'<{tag} class="left">{escape(cell)}</{tag}>' if place < left else f"<{tag}>{escape(cell)}</{tag}>"
            for place, cell in enumerate(cells)
        )

    body = "".join(f"<tr>{line(row, 'td')}</tr>" for row in rows)
    return f'<div class="scroll"><table><thead><tr>{line(header, "th")}</tr></thead><tbody>{body}</tbody></table></div>'


def _mark(state: str) -> str:
    return f'<svg viewBox="0 0 20 20" role="img" aria-label="{state}">{_MARKS[state]}</svg>'


def _data_uri(picture: Image) -> str:
    """A picture inside the page, no wider than it is shown."""
    if picture.shape[1] > PICTURE_WIDTH:
        height = round(picture.shape[0] * PICTURE_WIDTH / picture.shape[1])
        picture = np.asarray(cv2.resize(picture, (PICTURE_WIDTH, height), interpolation=cv2.INTER_AREA), np.uint8)
    written, data = cv2.imencode(".webp", picture, [cv2.IMWRITE_WEBP_QUALITY, _PICTURE_QUALITY])
    if not written:
        raise InputError("OpenCV cannot write WebP pictures here: install opencv-python-headless")
    return f"data:image/webp;base64,{base64.b64encode(data.tobytes()).decode('ascii')}"


def _percent(value: float) -> str:
    return "-" if value < 0 else f"{100 * value:.2f}"


def _threads() -> str:
    count = torch.get_num_threads()
    return "1 thread" if count == 1 else f"{count} threads"


def _is_installed(name: str) -> bool:
    try:
        metadata.version(name)
    except metadata.PackageNotFoundError:
        return False
    return True


def _processor() -> str:
    """The processor's name, where the system tells it."""
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.is_file():
        for line in cpuinfo.read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
