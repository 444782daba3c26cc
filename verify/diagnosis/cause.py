"""What is told of a difference: what was seen, and where it comes from as far as that was shown."""

from typing import NamedTuple


class Cause(NamedTuple):
    """Why something differs.

    Attributes:
        evidence: what was seen, in a sentence.
        suspect: what it comes from, where the evidence leaves no other; else empty.
        may_be: what it usually comes from, where the evidence does not tell; else empty.
    """

    evidence: str
    suspect: str = ""
    may_be: str = ""
