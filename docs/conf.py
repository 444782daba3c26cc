"""The site of the documentation: Sphinx reads the Markdown files of the repository (MyST), and furo shows them.

The source folder is the repository, so that a link from one file to another is the same in both: on the site and where
the files are read as they are. `docs/index.md` is the first page, and its lists of links are the navigation.
"""

import re
from pathlib import Path

from sphinx.application import Sphinx

import detectron_gn

project = "detectron-gn"
author = copyright = "the authors of detectron-gn, Apache-2.0"
version = release = detectron_gn.__version__

root_doc = "docs/index"
include_patterns = ["*.md", "docs/*.md", "benchmarks/*.md"]
exclude_patterns = [".*", "build", "dist", "out", "tests", "mrcnn", "port", "verify", "weights", "yaml_configs"]
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
# The anchors of headings, as GitHub makes them.
myst_heading_anchors = 4
highlight_language = "none"

# Docstrings are plain text with `code`, as Google writes them.
default_role = "literal"
napoleon_numpy_docstring = False
napoleon_use_ivar = True
napoleon_attr_annotations = False
autodoc_member_order = "bysource"
autodoc_typehints_format = "short"
autodoc_preserve_defaults = True

html_theme = "furo"
html_title = f"detectron-gn {version}"
html_static_path = ["site.css"]
html_css_files = ["site.css"]
html_copy_source = False
html_show_sphinx = False
html_theme_options = {"top_of_page_buttons": [], "navigation_with_keys": True}

FORWARD = '<!doctype html><meta charset="utf-8"><meta http-equiv="refresh" content="0; url=docs/index.html">\n'


def navigation(page: str) -> str:
    """The tables of contents of a page: each heading a caption, each link to a Markdown file below it an entry."""
    tables = []
    for section in page.split("\n## ")[1:]:
        caption = section.splitlines()[0]
        entries = [f"{title} <{path}>" for title, path in re.findall(r"^[-|] \[([^]]+)\]\((\S+)\.md\)", section, re.M)]
        if entries:
            tables.append("\n".join(["```{toctree}", ":hidden:", f":caption: {caption}", "", *entries, "```"]))
    return "\n\n".join(tables)


def add_navigation(app: Sphinx, name: str, content: list[str]) -> None:
    if name == root_doc:
        content[0] += "\n\n" + navigation(content[0])


def forward_to_first_page(app: Sphinx, error: Exception | None) -> None:
    """An index.html where the site's folder is opened, which leads to the first page."""
    if error is None and app.builder.format == "html":
        Path(app.outdir, "index.html").write_text(FORWARD, encoding="utf-8")


def setup(app: Sphinx) -> None:
    app.connect("source-read", add_navigation)
    app.connect("build-finished", forward_to_first_page)
