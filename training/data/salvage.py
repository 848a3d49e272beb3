"""Reads what is left of a bag file that is cut short or damaged inside, from its first byte to its last.

A healthy file has an index, along which `training.data.indexed` reads it; these scanners need none. Formats:
https://mcap.dev/spec, https://wiki.ros.org/Bags/Format/2.0, and rosbag2's two SQLite tables.
"""

from __future__ import annotations

import bz2
import struct
import sys
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO, NamedTuple

import apsw
import lz4.frame

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd


Buffer = bytes | memoryview
"""Parts of a memoryview are not copies."""


class RawMessage(NamedTuple):
    """One serialised message as the file has it."""

    topic: str
    type_name: str
    """`package/msg/Name`."""
    log_time: int
    """When it was recorded, nanoseconds."""
    data: Buffer


class Damage(NamedTuple):
    """A part of a recording that could not be used."""

    where: str
    why: str


_Damaged = (struct.error, IndexError, KeyError, UnicodeDecodeError, ValueError)


def salvage(path: Path) -> Iterator[RawMessage | Damage]:
    """All messages of an .mcap, .db3 or .bag file that can be found, in file order, and the damage between them."""
    return _SCANNERS[path.suffix](path)


# --------------------------------------------------------------------------------------------------------------- mcap


def _scan_mcap(path: Path) -> Iterator[RawMessage | Damage]:
    with path.open("rb") as file:
        if file.read(8) != b"\x89MCAP0\r\n":
            yield Damage("byte 0", "is not an mcap file")
            return
        yield from _mcap_records(file, path.stat().st_size, {}, {})


def _mcap_records(
    file: BinaryIO, size: int, schemas: dict[int, str], channels: dict[int, tuple[str, str]]
) -> Iterator[RawMessage | Damage]:
    while (at := file.tell()) < size - 8:
        head = file.read(9)
        length = struct.unpack_from("<Q", head, 1)[0] if len(head) == 9 else size
        if at + 9 + length > size:
            yield Damage(f"byte {at}", f"the file ends inside a record, {size} bytes in all")
            return
        if head[0] in (0x02, 0x0F):  # footer, end of data
            return
        if head[0] not in (0x03, 0x04, 0x05, 0x06):
            file.seek(length, 1)
            continue
        try:
            yield from _mcap_record(head[0], memoryview(file.read(length)), schemas, channels)
        except (*_Damaged, zstd.ZstdError, RuntimeError) as error:
            yield Damage(f"byte {at}", f"damaged record ({error})")
            file.seek(at + 9 + length)


def _mcap_record(
    kind: int, data: Buffer, schemas: dict[int, str], channels: dict[int, tuple[str, str]]
) -> Iterator[RawMessage]:
    if kind == 0x03:
        schemas[struct.unpack_from("<H", data)[0]] = _text(data, 2)[0]
    elif kind == 0x04:
        channel, schema = struct.unpack_from("<HH", data)
        channels[channel] = _text(data, 4)[0], schemas.get(schema, "")
    elif kind == MCAP_MESSAGE:
        channel, log_time, content = mcap_message(data)
        yield RawMessage(*channels[channel], log_time, content)
    elif kind == 0x06:
        for inner, record in mcap_records(mcap_chunk(data)):
            if inner in (0x03, 0x04, MCAP_MESSAGE):
                yield from _mcap_record(inner, record, schemas, channels)


def mcap_chunk(record: Buffer) -> Buffer:
    """The records that a chunk's record holds. Raises ValueError, or as the decompressor does, where it is damaged."""
    size, checksum = struct.unpack_from("<QI", record, 16)
    compression, at = _text(record, 28)
    content = memoryview(_MCAP_COMPRESSION[compression](record[at + 8 :]))
    if len(content) != size:
        raise ValueError(f"it has {len(content)} bytes and should have {size}")
    if checksum and zlib.crc32(content) != checksum:
        raise ValueError("its checksum differs")
    return content


def mcap_records(chunk: Buffer) -> Iterator[tuple[int, Buffer]]:
    """(kind, content) of each record in a chunk. Raises ValueError or struct.error where one is cut off."""
    at = 0
    while at < len(chunk):
        kind, length = struct.unpack_from("<BQ", chunk, at)
        start, at = at + 9, at + 9 + length
        if at > len(chunk):
            raise ValueError("a record does not end inside its chunk")
        yield kind, chunk[start:at]


MCAP_MESSAGE = 0x05
"""The kind of a record that is a message."""


def mcap_message(record: Buffer) -> tuple[int, int, Buffer]:
    """(channel, log time, serialised message)."""
    channel, _, log_time, _ = struct.unpack_from("<HIQQ", record)
    return channel, log_time, record[22:]


_MCAP_COMPRESSION: dict[str, Callable[[Buffer], Buffer]] = {
    "": lambda data: data,
    "lz4": lz4.frame.decompress,
    "zstd": zstd.decompress,
}


def _text(data: Buffer, at: int) -> tuple[str, int]:
    """A string with its length before it, and where the next field begins."""
    (length,) = struct.unpack_from("<I", data, at)
    return str(data[at + 4 : at + 4 + length], "utf-8"), at + 4 + length


# -------------------------------------------------------------------------------------------------------------- ROS 1


def _scan_bag(path: Path) -> Iterator[RawMessage | Damage]:
    with path.open("rb") as file:
        if not file.readline().startswith(b"#ROSBAG V2.0"):
            yield Damage("byte 0", "is not a ROS 1 bag of version 2.0")
            return
        yield from _bag_records(file, path.stat().st_size)


def _bag_records(file: BinaryIO, size: int) -> Iterator[RawMessage | Damage]:
    connections: dict[int, tuple[str, str]] = {}
    while (at := file.tell()) < size:
        try:
            fields, data = _bag_fields(_sized(file)), _sized(file)
        except _Damaged:
            yield Damage(f"byte {at}", f"the file ends inside a record, {size} bytes in all")
            return
        try:
            if fields[b"op"] == b"\x05":
                chunk, start = memoryview(_BAG_COMPRESSION[fields[b"compression"]](data)), 0
                while start < len(chunk):
                    fields, content, start = bag_record(chunk, start)
                    yield from _bag_content(fields, content, connections)
            else:
                yield from _bag_content(fields, data, connections)
        except (*_Damaged, OSError, RuntimeError) as error:
            yield Damage(f"byte {at}", f"damaged record ({error})")


def _sized(file: BinaryIO) -> bytes:
    """Bytes with their number before them."""
    (size,) = struct.unpack("<I", file.read(4))
    data = file.read(size)
    if len(data) < size:
        raise ValueError("file ends here")
    return data


def bag_record(chunk: Buffer, at: int) -> tuple[dict[bytes, bytes], Buffer, int]:
    """(fields, content, end) of the record at a place in a chunk. Raises ValueError or struct.error where it is cut."""
    (header,) = struct.unpack_from("<I", chunk, at)
    start = at + 8 + header
    (length,) = struct.unpack_from("<I", chunk, start - 4)
    if start + length > len(chunk):
        raise ValueError("a record does not end inside its chunk")
    return _bag_fields(bytes(chunk[at + 4 : start - 4])), chunk[start : start + length], start + length


def _bag_content(
    fields: dict[bytes, bytes], data: Buffer, connections: dict[int, tuple[str, str]]
) -> Iterator[RawMessage]:
    if fields[b"op"] == BAG_CONNECTION:
        package, _, name = _bag_fields(bytes(data))[b"type"].decode().partition("/")
        connections[struct.unpack("<I", fields[b"conn"])[0]] = fields[b"topic"].decode(), f"{package}/msg/{name}"
    elif fields[b"op"] == BAG_MESSAGE:
        connection, log_time = bag_message(fields)
        yield RawMessage(*connections[connection], log_time, data)


BAG_MESSAGE, BAG_CONNECTION = b"\x02", b"\x07"
"""The `op` of a record that is a message, and of one that tells what a connection is."""


def bag_message(fields: dict[bytes, bytes]) -> tuple[int, int]:
    """(connection, log time) of a message."""
    connection, seconds, nanoseconds = struct.unpack("<III", fields[b"conn"] + fields[b"time"])
    return connection, seconds * 1_000_000_000 + nanoseconds


def _bag_fields(header: bytes) -> dict[bytes, bytes]:
    fields, at = {}, 0
    while at < len(header):
        (length,) = struct.unpack_from("<I", header, at)
        name, _, value = header[at + 4 : at + 4 + length].partition(b"=")
        fields[name] = value
        at += 4 + length
    return fields


_BAG_COMPRESSION: dict[bytes, Callable[[Buffer], Buffer]] = {
    b"none": lambda data: data,
    b"bz2": bz2.decompress,
    b"lz4": lz4.frame.decompress,
}


# ------------------------------------------------------------------------------------------------------------- SQLite


# In a damaged database a value may be of any type, and text need not be text.
_TOPICS = "SELECT id, CAST(name AS BLOB), CAST(type AS BLOB) FROM topics"
_ROWS = "SELECT id, CAST(topic_id AS INTEGER), CAST(timestamp AS INTEGER), CAST(data AS BLOB) FROM messages ORDER BY id"


def _scan_db3(path: Path) -> Iterator[RawMessage | Damage]:
    files, row = _WholeFiles(), 0
    try:
        flags = apsw.SQLITE_OPEN_READONLY | apsw.SQLITE_OPEN_URI
        connection = apsw.Connection(f"{path.resolve().as_uri()}?immutable=1", flags, files.name)
        topics: dict[int, tuple[str, str]] = {
            number: ((name or b"").decode(errors="replace"), (kind or b"").decode(errors="replace"))
            for number, name, kind in connection.execute(_TOPICS)
        }
        for number, topic, log_time, data in connection.execute(_ROWS):
            row = number
            if topic in topics and log_time is not None and data is not None:
                yield RawMessage(*topics[topic], log_time, data)
            else:
                yield Damage(f"row {row}", "is damaged")
    except apsw.Error as error:
        yield Damage(f"after row {row}", f"the database cannot be read on ({error})")


class _WholeFiles(apsw.VFS):
    """Lets SQLite open a database file that is shorter than its header says, and fail only where a page is missing."""

    name = "keypoint_perception_salvage"

    def __init__(self) -> None:
        super().__init__(self.name, "")

    def xOpen(self, name: str | apsw.URIFilename | None, flags: list[int]) -> apsw.VFSFile:
        return _WholeFile("", name, flags)


class _WholeFile(apsw.VFSFile):
    def xFileSize(self) -> int:
        size = super().xFileSize()
        if size < 100:
            return size
        page, pages = struct.unpack_from(">H10xI", super().xRead(100, 0), 16)
        return max(size, (65536 if page == 1 else page) * pages)

    def xRead(self, amount: int, offset: int) -> bytes:
        data = super().xRead(amount, offset)
        if len(data) < amount:
            raise apsw.IOError(f"the file ends at byte {offset + len(data)}")
        return data


_SCANNERS: dict[str, Callable[[Path], Iterator[RawMessage | Damage]]] = {
    ".mcap": _scan_mcap,
    ".bag": _scan_bag,
    ".db3": _scan_db3,
}
