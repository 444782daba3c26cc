"""Keeping freed memory in the process, for programs that run a network for a long time."""

import ctypes

# Names and numbers of <malloc.h>.
_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_MAX = -1, -2, -4


def keep_freed_memory() -> None:
    """Let the process keep the memory that it frees, for the next image to use again.

    The maps of every image are as large as those of the last. Handing them back to the system and touching new pages
    for each costs a tenth of the time on a CPU. For a program to call at its start, not for a library: it holds for
    the whole process, which then never shrinks. Only glibc can do it; elsewhere nothing happens.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_M_MMAP_MAX, 0)
        mallopt(_M_TRIM_THRESHOLD, 2**31 - 1)
        mallopt(_M_TOP_PAD, 2**26)
