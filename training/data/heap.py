"""How the C library treats memory that was freed."""

from __future__ import annotations

import ctypes
from functools import cache

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
"""Of glibc's malloc.h."""
_KEPT = 256 << 20
_LARGEST = 32 << 20
"""Bytes; glibc allows no more."""


@cache
def keep_freed_memory() -> None:
    """Lets this process keep up to 256 MB that it freed, for the next image; does nothing where there is no glibc.

    glibc by itself may give the memory of each image back to the system and get it again for the next, a page at a
    time, all zeros. For raw pixels that can take as long as everything else that is done to them.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError, TypeError):  # another C library, or Windows
        return
    mallopt(_M_MMAP_THRESHOLD, _LARGEST)
    mallopt(_M_TRIM_THRESHOLD, _KEPT)
