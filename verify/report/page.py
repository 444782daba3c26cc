"""The report as one HTML page, which opens from disk and asks no other machine for anything."""

import base64
from importlib import resources
from pathlib import Path

import cv2
import numpy as np

from detectron_gn.mrcnn.data.image_blob import Image
from detectron_gn.mrcnn.errors import InputError
from detectron_gn.mrcnn.wording import percent
from detectron_gn.verify.published import verdict
from detectron_gn.verify.report.content import Report
from detectron_gn.verify.report.plots import box_plot, depth_plot, depth_plot_downwards, score_plot
from detectron_gn.weights.files.atomic import replacing

PICTURE_WIDTH = 640
_PICTURE_QUALITY = 82


def write_report(report: Report, path: Path) -> None:
    """Write the page, whole or not at all."""
    with replacing(path) as temporary:
        temporary.write_text(report_html(report), encoding="utf-8", errors="backslashreplace")


def report_html(report: Report) -> str:
    """The page: report.html.j2, filled in; what the report holds is text there and never markup."""
    # Late, so that commands without a report start without it.
    from jinja2 import Environment, StrictUndefined
    from markupsafe import Markup

    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=True
    )
    environment.filters.update(percent=percent, data_uri=_data_uri)
    return environment.from_string(_text("report.html.j2")).render(
        report=report,
        ap_verdict=verdict,
        style=Markup(_text("report.css").strip()),
        depth_plot=lambda *args: Markup(depth_plot(*args)),
        depth_plot_downwards=lambda *args: Markup(depth_plot_downwards(*args)),
        score_plot=lambda *args: Markup(score_plot(*args)),
        box_plot=lambda *args: Markup(box_plot(*args)),
    )


def _text(name: str) -> str:
    """A file that travels with the package."""
    return resources.files("detectron_gn.verify.report").joinpath(name).read_text(encoding="utf-8")


def _data_uri(picture: Image) -> str:
    """A picture inside the page, no wider than it is shown."""
    if picture.shape[1] > PICTURE_WIDTH:
        height = round(picture.shape[0] * PICTURE_WIDTH / picture.shape[1])
        picture = np.asarray(cv2.resize(picture, (PICTURE_WIDTH, height), interpolation=cv2.INTER_AREA), np.uint8)
    written, data = cv2.imencode(".webp", picture, [cv2.IMWRITE_WEBP_QUALITY, _PICTURE_QUALITY])
    if not written:
        raise InputError("OpenCV cannot write WebP pictures here: install opencv-python-headless")
    return f"data:image/webp;base64,{base64.b64encode(data.tobytes()).decode('ascii')}"
