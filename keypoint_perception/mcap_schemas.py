"""Lets rosbags read an mcap file that holds channels of other systems beside those of ROS 2.

Foxglove's tools write such files, with schemas of Protobuf or JSON. rosbags 0.11 refuses the whole file for one of
them, be it of a topic that nobody asks for. Here such a channel has no definition, as one without a schema.
"""

from __future__ import annotations

from typing import Any, BinaryIO

from rosbags.interfaces import MessageDefinition, MessageDefinitionFormat
from rosbags.rosbag2 import storage_mcap

SCHEMALESS = "__schemaless__"
"""What rosbags takes for the type of a channel without a schema."""
_KNOWN = frozenset({"ros2msg", "ros2idl", "omgidl", ""})
_definition: Any = getattr(storage_mcap, "get_msgdef", None)


def admit_other_schemas() -> None:
    """Makes rosbags read them from now on; a version that is built in another way stays as it is."""
    rosbags: Any = storage_mcap
    if _definition is not None and hasattr(rosbags, "read_string"):
        rosbags.get_msgdef, rosbags.read_string = _definition_or_none, _text


def _definition_or_none(schema: storage_mcap.Schema | None) -> MessageDefinition:
    if schema is not None and schema.encoding not in _KNOWN:
        return MessageDefinition(MessageDefinitionFormat.NONE, "")
    definition: MessageDefinition = _definition(schema)
    return definition


def _text(record: BinaryIO) -> str:
    """The next text of a record. The last may be no text: a schema's definition, which Protobuf has in bytes."""
    data = storage_mcap.read_bytes(record)
    try:
        return data.decode()
    except UnicodeDecodeError:
        if record.read(1):
            raise
        return data.decode(errors="replace")
