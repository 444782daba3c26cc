"""How numbers and lists are worded wherever they are shown: in tables, in sentences, on the page."""

from collections.abc import Sequence


def listed(names: Sequence[str], most: int = 4) -> str:
    """`a, b, c, d and 3 more` of many names."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return f"{', '.join(names[:most])}{more}"


def amount(count: int, thing: str) -> str:
    """`1 image`, `1,200 images`, `2 classes`."""
    plural = f"{thing}es" if thing.endswith("s") else f"{thing}s"
    return f"{count:,} {thing if count == 1 else plural}"


def in_one_line(text: str) -> str:
    """`text` with blanks for ends of lines: a name that holds one must not look like another line or row."""
    return " ".join(text.splitlines())


def printable(text: str) -> str:
    """A text that a terminal shows as it is; one with control characters as Python writes it, in quotes."""
    return text if text.isprintable() else ascii(text)


def percent(share: float, decimals: int = 2) -> str:
    """A share of 1 in percent, without the sign; `-` for an AP of -1, which says that there is none."""
    return "-" if share < 0 else f"{100 * share:.{decimals}f}"


def with_article(name: str) -> str:
    """`a Mask R-CNN`, `an RPN`: an abbreviation is read letter by letter."""
    return f"{'an' if name.startswith('RPN') else 'a'} {name}"
