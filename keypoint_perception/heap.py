"""How the C library treats memory that was freed."""

from __future__ import annotations

import ctypes
from functools import cache

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
"""Of glibc's malloc.h."""


@cache
def keep_freed_memory(largest: int = 32 << 20, kept: int = 256 << 20) -> None:
    """Lets this process keep memory that it freed for the next image; does nothing where there is no glibc.

    largest: pieces of up to so many bytes, 32 MB at the most; kept: bytes in all. glibc by itself may give the memory
    of each image back to the system and get it again for the next, a page at a time, all zeros. That costs the node a
    millisecond an image, and for a store of raw pixels it can take as long as everything else that is done to them.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError, TypeError):  # another C library, or Windows
        return
    mallopt(_M_MMAP_THRESHOLD, largest)
    mallopt(_M_TRIM_THRESHOLD, kept)
