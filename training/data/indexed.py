"""Messages of a healthy bag file along its index, without a copy of a message that is not compressed.

rosbags reads the index. The messages themselves it would copy twice, which for raw pixels takes longer than all else
that is done to them. Here chunks of mcap files and ROS 1 bags are mapped into memory and cut into messages where they
lie, and SQLite writes each message to where it stays.
"""

from __future__ import annotations

import errno
import heapq
import mmap
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from rosbags.rosbag1 import Reader as Reader1
from rosbags.rosbag2 import Reader as Reader2

from keypoint_perception.bags import IMAGE_TYPES
from training.data.salvage import (
    BAG_CONNECTION,
    BAG_MESSAGE,
    MCAP_MESSAGE,
    RawMessage,
    bag_message,
    bag_record,
    mcap_chunk,
    mcap_message,
    mcap_records,
)

_POPULATE_READ = 22
"""MADV_POPULATE_READ of Linux 5.14 and later, for which Python has no name: reads pages in at once."""
_Known = dict[int, tuple[str, str]]
"""A connection's number: its topic and type."""


def open_reader(file: Path) -> Reader1 | Reader2:
    """What reads the index of an .mcap, .db3 or .bag file. It raises whatever it stumbles over in a damaged one."""
    return Reader1(file) if file.suffix == ".bag" else Reader2(file)


def indexed_messages(file: Path, topic: str) -> Iterator[RawMessage]:
    """Image messages of a topic in the order of their recording; raises anything where the file is not as it should be.

    A RawMessage's data may be a part of the file itself, mapped into memory: it stays for as long as it is referred to.
    """
    with open_reader(file) as reader:
        connections = [c for c in reader.connections if c.topic == topic and c.msgtype in IMAGE_TYPES]
        known = {connection.id: (topic, connection.msgtype) for connection in connections}
        if known:
            yield from _READERS[file.suffix](reader if isinstance(reader, Reader1) else reader.storage, known)


def mapped(file: BinaryIO, start: int, size: int) -> memoryview:
    """A part of a file as memory. Raises ValueError or OSError where the file is shorter or cannot be read.

    Parts are mapped one by one, so that those that are no longer used do not count as this process's memory. They are
    read here and now: whoever touches a page that the disk does not give is ended by the system without a word.
    """
    before = start % mmap.ALLOCATIONGRANULARITY
    pages = mmap.mmap(file.fileno(), before + size, access=mmap.ACCESS_READ, offset=start - before)
    if sys.platform == "linux":
        try:
            pages.madvise(_POPULATE_READ)
        except OSError as error:
            if error.errno != errno.EINVAL:  # an older Linux
                raise
    return memoryview(pages)[before:]


def _mcap(storage: Any, known: _Known) -> Iterator[RawMessage]:
    """Chunks may overlap in time: a message waits until no chunk that comes can hold an earlier one."""
    if not storage.chunks:  # a file without an index, of which rosbags says whether it is in order
        channels = [c for c in storage.connections if c.id in known]
        yield from (RawMessage(*known[c.id], log_time, data) for c, log_time, data in storage.messages(channels))
        return
    waiting: list[tuple[int, int, int, RawMessage]] = []
    # A file may have an index of its chunks and none of the messages in them.
    chunks = [c for c in storage.chunks if not c.channel_count or any(c.channel_count.get(k) for k in known)]
    for chunk in sorted(chunks, key=lambda c: (c.message_start_time, c.chunk_start_offset)):
        while waiting and waiting[0][0] < chunk.message_start_time:
            yield heapq.heappop(waiting)[-1]
        at, size = chunk.chunk_start_offset + 9, 40 + len(chunk.compression) + chunk.compressed_size
        for number, (kind, record) in enumerate(mcap_records(mcap_chunk(mapped(storage.bio, at, size)))):
            if kind != MCAP_MESSAGE:
                continue
            channel, log_time, data = mcap_message(record)
            if channel in known:
                message = RawMessage(*known[channel], log_time, data)
                heapq.heappush(waiting, (log_time, chunk.chunk_start_offset, number, message))
    while waiting:
        yield heapq.heappop(waiting)[-1]


def _bag(reader: Reader1, known: _Known) -> Iterator[RawMessage]:
    """The index names each message; those in turn are mostly of one chunk."""
    chunk_at, chunk = -1, memoryview(b"")
    for _, at, offset in heapq.merge(*(reader.indexes[connection] for connection in known)):
        if at != chunk_at:
            about = reader.chunks[at]
            assert reader.bio is not None
            packed: Any = mapped(reader.bio, about.datapos, about.datasize)
            chunk_at, chunk = at, memoryview(about.decompressor(packed))
        fields, data, end = bag_record(chunk, offset)
        while fields[b"op"] == BAG_CONNECTION:
            fields, data, end = bag_record(chunk, end)
        if fields[b"op"] != BAG_MESSAGE:
            raise ValueError("there is no message where the index says")
        connection, log_time = bag_message(fields)
        yield RawMessage(*known[connection], log_time, data)


_ROWS = "SELECT rowid, topic_id, timestamp, typeof(data) FROM messages WHERE topic_id IN ({}) ORDER BY timestamp"


def _db3(storage: Any, known: _Known) -> Iterator[RawMessage]:
    """SQLite copies each message from the file to where it stays."""
    blob = None
    for row, topic, log_time, kind in storage.dbconn.execute(_ROWS.format(",".join("?" * len(known))), tuple(known)):
        if kind != "blob" or not isinstance(log_time, int):
            raise ValueError(f"row {row} holds no message")
        if blob is None:
            blob = storage.dbconn.blob_open("main", "messages", "data", row, False)
        else:
            blob.reopen(row)
        data = np.empty(blob.length(), np.uint8)
        blob.read_into(data)
        yield RawMessage(*known[topic], log_time, data.data)


_READERS: dict[str, Callable[[Any, _Known], Iterator[RawMessage]]] = {".mcap": _mcap, ".bag": _bag, ".db3": _db3}
