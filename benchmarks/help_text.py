"""The help of a benchmark: what its file says of it, in lines of the terminal's width."""

import argparse
import re
import textwrap


class FoldedHelp(argparse.HelpFormatter):
    """Folds paragraphs to the width of the help; commands, which are indented, keep a line of their own each."""

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        paragraphs = re.split(r"\n\s*\n", text.strip("\n"))
        return "\n\n".join(_folded(paragraph, width, indent) for paragraph in paragraphs)


def _folded(paragraph: str, width: int, indent: str) -> str:
    margin = paragraph[: len(paragraph) - len(paragraph.lstrip())]
    if not margin:
        return _lines(paragraph, width, indent, indent)
    # What stands further in goes on with the command above it.
    commands = re.split(rf"\n{margin}(?! )", paragraph)
    return "\n".join(_lines(each, width, indent + margin, indent + 2 * margin) for each in commands)


def _lines(text: str, width: int, first: str, others: str) -> str:
    return textwrap.fill(
        " ".join(text.split()), width, initial_indent=first, subsequent_indent=others, break_long_words=False,
        break_on_hyphens=False,
    )  # fmt: skip
