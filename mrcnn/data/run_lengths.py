"""COCO's compressed run lengths, checked before pycocotools trusts them."""

import numpy as np

# pycocotools counts a mask's pixels in 32 bits, so that a run needs no more than seven characters of five.
_MAX_CHARACTERS_OF_A_RUN = 7


def runs_cover(text: bytes, pixels: int) -> bool:
    """Whether compressed run lengths are well formed and add up to `pixels`.

    pycocotools trusts them, and would read or write outside of the mask where they are wrong. The coding
    (pycocotools `rleFrString`): a run is a signed number in 5-bit groups, lowest first, one a character
    from '0' on, bit 5 set where more follow; from the fourth run on it is the
    difference to the run two before.
    """
    codes = np.frombuffer(text, dtype=np.uint8).astype(np.int64) - 48
    if not codes.size or codes.min() < 0 or codes.max() > 63 or codes[-1] & 32:
        return False
    ends = np.flatnonzero(codes & 32 == 0)
    starts = np.concatenate(([0], ends[:-1] + 1))
    lengths = ends - starts + 1
    if lengths.max() > _MAX_CHARACTERS_OF_A_RUN:
        return False
    shifts = 5 * (np.arange(codes.size) - np.repeat(starts, lengths))
    runs = np.add.reduceat((codes & 31) << shifts, starts)
    runs -= (codes[ends] & 16 != 0).astype(np.int64) << (5 * lengths)
    runs[1::2] = np.cumsum(runs[1::2])
    runs[2::2] = np.cumsum(runs[2::2])
    return bool(runs.min() >= 0 and runs.sum() == pixels)
