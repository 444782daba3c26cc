"""What a page of the documentation holds: its blocks of code, links, anchors, code spans and rows of tables."""

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob("benchmarks/*.md")])

_FENCE = re.compile(r"^( *)(`{3,})([^\n`]*)\n(.*?)^\1\2 *$", re.MULTILINE | re.DOTALL)
_INDENTED = re.compile(r"(?:^\n|\A)((?:(?: {4}[^\n]*)?\n)*(?: {4}[^\n]+\n)(?:(?: {4}[^\n]*)?\n)*)", re.MULTILINE)
_SPAN = re.compile(r"(?<!`)`([^`\n]+)`(?!`)")
_LINK = re.compile(r"!?\[(?:[^\]]|\]\()*?\]\(([^)\s]+)\)")
_NOT_RUN = re.compile(r"<!-- not run: [^>]+ -->\n\Z")


@dataclass(frozen=True)
class Block:
    """A block of code.

    Attributes:
        language: what stands behind its fence; empty for an indented block and a bare fence.
        text: its lines, without the fence.
        line: of the page where it begins, from 1.
        not_run: whether a remark before it says why it is not run.
        shows: the text block right after it, which is what it prints; None where there is none.
    """

    language: str
    text: str
    line: int
    not_run: bool
    shows: str | None


def blocks(page: str) -> list[Block]:
    """All blocks of a page, in its order."""
    found: list[tuple[int, int, str, str]] = []
    for match in _FENCE.finditer(page):
        found.append((match.start(), match.end(), match[3].strip(), match[4]))
    for match in _INDENTED.finditer(_without(page, [(start, end) for start, end, *_ in found])):
        text = match[1].strip("\n") + "\n"
        if not re.match(r" {4,}([-*|]|\d+\.) ", text):
            found.append((match.start(1), match.end(1), "", re.sub(r"^ {4}", "", text, flags=re.MULTILINE)))
    found.sort()
    told = []
    for place, (start, end, language, text) in enumerate(found):
        after = found[place + 1] if place + 1 < len(found) else None
        shows = after[3] if after and after[2] == "text" and not page[end : after[0]].strip() else None
        told.append(Block(language, text, page.count("\n", 0, start) + 1, bool(_NOT_RUN.search(page[:start])), shows))
    return told


def prose(page: str) -> str:
    """The page without its blocks of code."""
    return _without(page, [match.span() for match in _FENCE.finditer(page)])


def _without(page: str, spans: list[tuple[int, int]]) -> str:
    """The page with these places blank, every line where it was."""
    for start, end in spans:
        page = page[:start] + re.sub(r"[^\n]", " ", page[start:end]).replace(" ", "\0") + page[end:]
    return page.replace("\0", "")


def spans(page: str) -> list[str]:
    """What stands between backticks in the prose."""
    return [span.replace(r"\|", "|") for span in _SPAN.findall(prose(page))]


def links(page: str) -> list[str]:
    """The targets of all links and pictures in the prose."""
    return _LINK.findall(_SPAN.sub("", prose(page).replace("`](", "](")))


def last_cells(page: str) -> str:
    """The last cell of every row of the page's tables."""
    rows = [line.replace(r"\|", "\0").split("|") for line in prose(page).splitlines() if line.startswith("| ")]
    return "\n".join(row[-2].replace("\0", "|") for row in rows)


def anchors(page: str) -> set[str]:
    """The anchors of a page's headings, as GitHub and the site make them."""
    seen: Counter[str] = Counter()
    made = set()
    for heading in re.findall(r"^#{1,6} (.+)$", prose(page), re.MULTILINE):
        text = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading).strip().lower()
        slug = re.sub(r"[^\w\- ]", "", text).replace(" ", "-")
        made.add(f"{slug}-{seen[slug]}" if seen[slug] else slug)
        seen[slug] += 1
    return made


def command_lines(text: str) -> Iterator[str]:
    """The lines of a block that call a program of ours, each with those that a backslash joins to it."""
    for line in text.replace("\\\n", " ").splitlines():
        line = line.strip().removeprefix("$ ")
        if re.match(r"(srun )?(detectron-gn|torchrun .*-m detectron_gn)( |$)", line):
            yield line
