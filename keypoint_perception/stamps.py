"""The stamp of a message's header: of one that was read, and in the bytes of one that was not.

A serialised message begins with four bytes of encapsulation. Where it has a header that comes first, and in it the
stamp: seconds and nanoseconds, 32 bits each, the least significant byte first.
"""

from __future__ import annotations

import struct
from typing import Any

ENCAPSULATION_BYTES = 4
STAMP = struct.Struct("<iI")
_STAMP_END = ENCAPSULATION_BYTES + STAMP.size
_SECOND_NS = 1_000_000_000


def stamp_ns(header: Any) -> int:
    """The stamp of a header in nanoseconds."""
    return header.stamp.sec * _SECOND_NS + header.stamp.nanosec


def serialised_stamp_ns(serialised: bytes) -> int:
    """The stamp, in nanoseconds, of a serialised message that begins with a header."""
    seconds, nanoseconds = STAMP.unpack_from(serialised, ENCAPSULATION_BYTES)
    return seconds * _SECOND_NS + nanoseconds


def with_stamp(serialised: bytes, nanoseconds: int) -> bytes:
    """The same message with a stamp of so many nanoseconds in its header."""
    view, stamp = memoryview(serialised), STAMP.pack(*divmod(nanoseconds, _SECOND_NS))
    return b"".join((view[:ENCAPSULATION_BYTES], stamp, view[_STAMP_END:]))


def after_stamp(serialised: bytes) -> bytes:
    """A serialised message that begins with a header, without that header's stamp."""
    return serialised[_STAMP_END:]
