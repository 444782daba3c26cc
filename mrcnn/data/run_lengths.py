"""COCO's compressed run lengths, checked before pycocotools trusts them."""

import numpy as np
import numpy.typing as npt

# pycocotools counts a mask's pixels in 32 bits, so that a run needs no more than seven characters of five.
_MAX_CHARACTERS_OF_A_RUN = 7


def runs_cover(text: bytes, pixels: int) -> bool:
    """Whether compressed run lengths are well formed and add up to `pixels`.

    pycocotools trusts them, and would read or write outside of the mask where they are wrong.
    """
    runs = decoded_runs(text)
    return runs is not None and bool(runs.min() >= 0 and runs.sum() == pixels)


def decoded_runs(text: bytes) -> npt.NDArray[np.int64] | None:
    """Compressed run lengths as numbers, background first; None for what is none. The numbers may be negative.

    The coding
    (pycocotools `rleFrString`): a run is a signed number in 5-bit groups, lowest first, one a character
    from '0' on, bit 5 set where more follow; from the fourth run on it is the
    difference to the run two before.
    """
    codes = np.frombuffer(text, dtype=np.uint8).astype(np.int64) - 48
    if not codes.size or codes.min() < 0 or codes.max() > 63 or codes[-1] & 32:
        return None
    ends = np.flatnonzero(codes & 32 == 0)
    starts = np.concatenate(([0], ends[:-1] + 1))
    lengths = ends - starts + 1
    if lengths.max() > _MAX_CHARACTERS_OF_A_RUN:
        return None
    shifts = 5 * (np.arange(codes.size) - np.repeat(starts, lengths))
    runs = np.add.reduceat((codes & 31) << shifts, starts)
    runs -= (codes[ends] & 16 != 0).astype(np.int64) << (5 * lengths)
    runs[1::2] = np.cumsum(runs[1::2])
    runs[2::2] = np.cumsum(runs[2::2])
    return runs


def runs_bounds(runs: npt.NDArray[np.int64], height: int) -> tuple[int, int, int, int] | None:
    """x1, y1, x2, y2 around the pixels that run lengths cover, edge to edge; None where they cover none.

    Runs go down the columns. pycocotools' `toBbox` is wrong where a run has the length 0.
    """
    ends = np.cumsum(runs)
    starts = (ends - runs)[1::2]
    lasts, covers = ends[1::2] - 1, runs[1::2] > 0
    starts, lasts = starts[covers], lasts[covers]
    if not len(starts):
        return None
    # Columns only grow; a run over several covers the first one to its foot and the last from its head.
    wraps = bool((starts // height != lasts // height).any())
    top, foot = (0, height) if wraps else (int((starts % height).min()), int((lasts % height).max()) + 1)
    return int(starts[0]) // height, top, int(lasts[-1]) // height + 1, foot
