"""Writes what pages take from the program: docs/commands.md from its parser, docs/models.md from its catalog.

    python docs/generate.py

What stands between two marks of a page is replaced; the rest is written by hand. A test holds the pages to it.
"""

import argparse
import re
from collections.abc import Iterator
from pathlib import Path

import detectron_gn
from detectron_gn.weights.catalog import CatalogEntry, catalog

DOCS = Path(__file__).resolve().parent
BEGIN, END = "<!-- begin: written by docs/generate.py -->", "<!-- end -->"

AP_COLUMNS = {
    "top-1 error": "top1_error",
    "box AP": "box_ap",
    "mask AP": "mask_ap",
    "keypoint AP": "keypoint_ap",
    "AR@1000": "proposal_ar",
}


def main() -> None:
    for name, text in pages().items():
        (DOCS / name).write_text(text, encoding="utf-8")


def pages() -> dict[str, str]:
    """The text that each page should have, by its name."""
    return {"commands.md": filled("commands.md", commands()), "models.md": filled("models.md", models())}


def filled(name: str, content: str) -> str:
    """The page with `content` between its marks."""
    before, rest = (DOCS / name).read_text(encoding="utf-8").split(BEGIN)
    return f"{before}{BEGIN}\n\n{content}\n{END}{rest.split(END)[1]}"


def table(head: list[str], rows: list[list[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def commands() -> str:
    parser = detectron_gn._parser()
    return "\n".join(told_command(name, child) for name, child in parsers(parser))


def parsers(parser: argparse.ArgumentParser, prefix: str = "") -> Iterator[tuple[str, argparse.ArgumentParser]]:
    """Every command by its words (`verify blobs`), with its own parser."""
    groups = [action for action in parser._actions if isinstance(action, argparse._SubParsersAction)]
    for group in groups:
        for name, child in group.choices.items():
            yield from parsers(child, f"{prefix} {name}".strip())
    if not groups:
        yield prefix, parser


def told_command(name: str, parser: argparse.ArgumentParser) -> str:
    """The section of a command: its meaning, its example, its arguments."""
    formatter = argparse.HelpFormatter(parser.prog)
    rows = []
    # What is given without a name first.
    for action in sorted(parser._actions, key=lambda action: bool(action.option_strings)):
        if "--help" in action.option_strings or action.help == argparse.SUPPRESS:
            continue
        meaning = sentence(formatter._expand_help(action)) if action.help else ""
        needed = " Required." if action.required and action.option_strings else ""
        rows.append([f"`{shown(action)}`", meaning + needed])
    example = re.sub(r"^ +", "", (parser.epilog or "").removeprefix("example:\n"), flags=re.MULTILINE).strip()
    told = f"## {name}\n\n{sentence(parser.description or '')}\n\n```\n{example}\n```\n\n"
    return told + table(["argument", "meaning"], rows)


def shown(action: argparse.Action) -> str:
    """`--device DEVICE`, `IMAGE ...`, `--exif {apply,ignore}`."""
    if isinstance(action, argparse.BooleanOptionalAction) or action.nargs == 0:
        return ", ".join(action.option_strings)
    choices = "{" + ",".join(map(str, action.choices)) + "}" if action.choices else None
    named = action.metavar or choices or action.dest.upper()
    value = (" ".join(named) if isinstance(named, tuple) else named).replace("|", r"\|")
    if action.nargs in ("+", "*"):
        value += " ..."
    return f"{', '.join(action.option_strings)} {value}".strip()


def sentence(text: str) -> str:
    """A help text as a sentence in which Markdown finds nothing to mark up."""
    text = re.sub(r"([*|<])", r"\\\1", text.strip())
    # A name in small letters, such as rpn_proposals.pkl, stays one.
    if text.partition(" ")[0].isalpha():
        text = text[0].upper() + text[1:]
    return text if text.endswith(".") or not text else f"{text}."


def models() -> str:
    entries = catalog().entries
    families = list(dict.fromkeys(entry.family for entry in entries))
    return "\n".join(told_family(family, [entry for entry in entries if entry.family == family]) for family in families)


def told_family(family: str, entries: list[CatalogEntry]) -> str:
    """The section of a family: a row for each of its models, without columns that say nothing of any of them."""
    head = ["id", "name", "norm", *AP_COLUMNS, "hours to train", "seconds an image", "files"]
    rows = [[*map(told, row(entry))] for entry in entries]
    kept = [place for place in range(len(head)) if any(row[place] for row in rows)]
    notes = "".join(f"- `{entry.id or entry.name}`: {entry.note}\n" for entry in entries if entry.note)
    rows = [[row[place] for place in kept] for row in rows]
    return f"## {family}\n\n{table([head[place] for place in kept], rows)}" + (f"\n{notes}" if notes else "")


def row(entry: CatalogEntry) -> list[float | str | None]:
    numbers = [getattr(entry, field) for field in AP_COLUMNS.values()]
    name = [entry.id and f"`{entry.id}`", f"`{entry.name}`", entry.norm]
    files = ", ".join(entry.files) or "none published"
    return [*name, *numbers, entry.train_hours, entry.inference_seconds_per_image, files]


def told(value: float | str | None) -> str:
    return "" if value is None else f"{value:.1f}" if isinstance(value, float) else str(value)


if __name__ == "__main__":
    main()
