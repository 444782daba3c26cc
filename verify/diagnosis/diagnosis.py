"""What is told of a difference: where it begins, what was seen, and what it comes from as far as that was shown."""

from dataclasses import dataclass, replace

# What comes first where a blob that weights take part in differs.
OTHER_WEIGHTS = "other weights than the reference was recorded with"


@dataclass(frozen=True)
class Diagnosis:
    """Why something differs.

    Attributes:
        evidence: what was seen, in a sentence.
        suspect: what it comes from, where the evidence leaves no other cause; else empty.
        may_be: what it usually comes from, where the evidence does not tell; else empty.
        rung: `blobs`, `proposals` or `detections`, once it is placed.
        where: the blob or step, with the image, once it is placed.
    """

    evidence: str
    suspect: str = ""
    may_be: str = ""
    rung: str = ""
    where: str = ""

    def at(self, rung: str, where: str) -> "Diagnosis":
        """The same, placed."""
        return replace(self, rung=rung, where=where)

    def after(self, words: str) -> "Diagnosis":
        """The same, with words before its evidence."""
        return replace(self, evidence=words + self.evidence)

    def before(self, words: str) -> "Diagnosis":
        """The same, with words after its evidence."""
        return replace(self, evidence=self.evidence + words)
