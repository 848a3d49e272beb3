"""Recordings without a ROS graph: errors that a user can act on, and bags that appear only when complete."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Collection, Generator, Iterable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any, Literal

import numpy as np
from rosbags.highlevel import AnyReader
from rosbags.interfaces import (
    Connection,
    MessageDefinitionFormat,
    Nodetype,
    Qos,
    QosDurability,
    QosHistory,
    QosLiveliness,
    QosReliability,
    QosTime,
)
from rosbags.rosbag2 import StoragePlugin, Writer, WriterError
from rosbags.typesys import Stores, get_types_from_msg, get_typestore
from rosbags.typesys.store import Typestore

import keypoint_perception
from keypoint_perception.errors import UserError
from keypoint_perception.files import writing
from keypoint_perception.mcap_schemas import SCHEMALESS, admit_other_schemas

admit_other_schemas()

IMAGE_TYPES = ("sensor_msgs/msg/Image", "sensor_msgs/msg/CompressedImage")
BAG_VERSION: Literal[8, 9] = 8
"""What every distribution from Humble on reads."""
_MESSAGES = "keypoint_perception_msgs"
KEYPOINT_ARRAY = f"{_MESSAGES}/msg/KeypointArray"
_FOREVER = QosTime(9223372036, 854775807)
"""What ROS writes for an unlimited duration."""
_IDL = "=" * 80 + "\nIDL: "
"""What a message definition in IDL begins with."""


@contextmanager
def open_bag(path: str | os.PathLike[str]) -> Iterator[AnyReader]:
    """A rosbag2 folder or file (mcap, db3) or ROS 1 .bag. Raises UserError where it cannot be read, now or later."""
    path = Path(path)
    if path.suffix == ".zstd":
        raise UserError(f"bag {path} is compressed: give the folder it is in, or unpack it with `zstd -d`")
    if not path.exists():
        raise UserError(f"bag {path} is not there: give a rosbag2 folder, an .mcap or .db3 file, or a ROS 1 .bag file")
    if path.is_dir() and not (path / "metadata.yaml").exists():
        what = "has no metadata.yaml (was the recording ended?)"
        raise UserError(f"bag {path} {what}: give its .mcap file, or run `ros2 bag reindex` on it first")
    refuse_empty(path, [f for f in path.iterdir() if f.suffix != ".yaml"] if path.is_dir() else [path])
    try:
        with _Reader(path) as reader:
            yield reader
    except (UserError, GeneratorExit, KeyboardInterrupt):
        raise
    except Exception as error:  # a damaged file raises whatever its parser stumbles over
        if _is_ours(error):
            raise
        raise _unreadable(path, error) from None


class _Reader(AnyReader):
    """Says itself that its messages cannot be read: who writes them to another file would take that for the culprit.

    What is deserialised are the messages of ROS and our own. The bag's definitions, of which rosbags cannot read all
    (services, wide strings), are only copied.
    """

    def __init__(self, path: Path) -> None:
        super().__init__([path])
        self._path = path

    def _open(self) -> None:
        """See AnyReader."""
        assert self.stack is not None
        for reader in self.readers:
            self.stack.enter_context(reader)
            self.connections += reader.connections
        self.typestore = message_store() if self.is2 else get_typestore(Stores.ROS1_NOETIC)

    def messages(self, *args: Any, **kwargs: Any) -> Generator[tuple[Connection, int, bytes]]:
        """See AnyReader."""
        try:
            yield from super().messages(*args, **kwargs)
        except Exception as error:
            raise _unreadable(self._path, error) from None


def _unreadable(path: Path, error: Exception) -> UserError:
    words = " ".join(str(error).split()) or type(error).__name__
    if "not supported" in words:  # a healthy bag
        advice = "give its .mcap or .db3 file, or convert it to a bag of ROS 2 messages (cdr)"
    else:
        recover = ", or run `mcap recover` on it" if path.suffix == ".mcap" else ""
        advice = f"record or copy it again, all of it{recover}"
    return UserError(f"bag {path} cannot be read ({words}): {advice}")


def refuse_empty(path: Path, files: Iterable[Path]) -> None:
    """Raises UserError where a bag has files and all are empty, as after a crash or a copy that failed."""
    sizes = [file.stat().st_size for file in files if file.is_file()]
    if sizes and not any(sizes):
        raise UserError(f"bag {path} is empty (0 bytes): record or copy it again")


def connections_of(reader: AnyReader, topic: str, types: Collection[str] = IMAGE_TYPES) -> list[Connection]:
    """The connections of a topic. Raises UserError, naming what there is, where the bag has none of these types."""
    found = [c for c in reader.connections if c.topic == topic and c.msgtype in types]
    if not found:
        others = sorted({c.topic for c in reader.connections if c.msgtype in types})
        kind = " or ".join(types)
        raise UserError(f"bag has no {kind} on topic {topic!r}: it has {', '.join(others) or 'none at all'}")
    return found


@contextmanager
def write_bag(path: str | os.PathLike[str]) -> Iterator[Writer]:
    """A new rosbag2 (mcap) at `path`, which appears when it is complete and replaces what was there.

    Raises UserError where it cannot be written.
    """
    path = Path(path)
    if path.exists() and not (path / "metadata.yaml").exists():
        raise UserError(f"{path} exists and is no bag: give another name for the output")
    workplace = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    shutil.rmtree(workplace, ignore_errors=True)
    try:
        with writing(path):
            workplace.mkdir(parents=True)
            # The files in a bag are named after its folder, so the folder has its final name from the start.
            with Writer(workplace / path.name, version=BAG_VERSION, storage_plugin=StoragePlugin.MCAP) as writer:
                yield writer
            shutil.rmtree(path, ignore_errors=True)
            os.replace(workplace / path.name, path)
    except WriterError as error:
        raise UserError(f"cannot write {path}: {error}") from None
    finally:
        shutil.rmtree(workplace, ignore_errors=True)


def is_of_ros2(connection: Connection) -> bool:
    """Whether the messages of a connection are ROS 2's: an mcap file may have others beside them, as of Protobuf."""
    ext: Any = connection.ext
    return ext.serialization_format == "cdr" and connection.msgtype != SCHEMALESS


def copied(writer: Writer, reader: AnyReader) -> Iterator[tuple[Connection, int, bytes]]:
    """The ROS 2 messages of a recording as they are, for connections of a new one."""
    by_topic: dict[tuple[str, str], Connection] = {}
    wanted = [c for c in reader.connections if is_of_ros2(c)]
    for c in wanted:
        if (c.topic, c.msgtype) not in by_topic:  # an mcap file may have several channels of a topic
            by_topic[c.topic, c.msgtype] = _add_copy(writer, c)
    for c, at, data in reader.messages(wanted) if wanted else ():
        yield by_topic[c.topic, c.msgtype], at, data


def _add_copy(writer: Writer, recorded: Connection) -> Connection:
    """A connection as it was recorded, with the definition of its type that the recording has, if it has one."""
    ext: Any = recorded.ext
    kind, definition = recorded.msgdef
    if kind == MessageDefinitionFormat.NONE:  # Humble's sqlite3 bags hold none
        known = recorded.msgtype in message_store().fielddefs
        definition = message_store().generate_msgdef(recorded.msgtype, ros_version=2)[0] if known else ""
    elif kind == MessageDefinitionFormat.IDL and not definition.startswith(_IDL):
        definition = f"{_IDL}{recorded.msgtype}\n{definition}"  # by which the writer tells it from the other kind
    added = writer.add_connection(
        recorded.topic,
        recorded.msgtype,
        msgdef=definition,
        rihs01=recorded.digest or "none",
        offered_qos_profiles=ext.offered_qos_profiles,
    )
    if not recorded.digest:  # which the writer demands, and an .mcap file does not hold
        added = writer.connections[-1] = added._replace(digest="")
    return added


def reliable(*, latched: bool = False) -> Qos:
    """The quality of service that a topic of a bag is offered with when it is played; latched is transient local."""
    return Qos(
        QosHistory.KEEP_LAST,
        1 if latched else 10,
        QosReliability.RELIABLE,
        QosDurability.TRANSIENT_LOCAL if latched else QosDurability.VOLATILE,
        deadline=_FOREVER,
        lifespan=_FOREVER,
        liveliness=QosLiveliness.AUTOMATIC,
        liveliness_lease_duration=_FOREVER,
        avoid_ros_namespace_conventions=False,
    )


@cache
def message_store() -> Typestore:
    """The types of ROS 2 and of keypoint_perception_msgs."""
    store = get_typestore(Stores.ROS2_HUMBLE)
    for folder in _message_folders():
        for file in sorted((folder / "msg").glob("*.msg")):
            store.register(get_types_from_msg(file.read_text(), f"{_MESSAGES}/msg/{file.stem}"))
    if KEYPOINT_ARRAY not in store.fielddefs:
        raise UserError(f"{_MESSAGES} is not found: build the workspace and source it, or run from a checkout")
    return store


class BagMessages:
    """Messages for bags; see ros.conversions.Messages."""

    def make(self, type_name: str, **fields: Any) -> Any:
        """A message; fields that are not given are zero or empty. See Messages.make."""
        _, definitions = message_store().fielddefs[type_name]
        missing = {name: self._default(kind) for name, kind in definitions if name not in fields}
        return message_store().types[type_name](**fields, **missing)

    def numbers(self, values: Any, dtype: str) -> np.ndarray:
        """See Messages.numbers."""
        return np.asarray(values, dtype)

    def _default(self, kind: Any) -> Any:
        """The value of a field that nobody set: zero, empty, or a message of such."""
        node, about = kind
        if node == Nodetype.NAME:
            return self.make(about)
        if node == Nodetype.BASE:
            name = about[0]
            return "" if name == "string" else False if name == "bool" else 0.0 if name.startswith("float") else 0
        (element_node, element), length = about
        count = length if node == Nodetype.ARRAY else 0
        if element_node == Nodetype.BASE and element[0] != "string":
            return np.zeros(count, element[0])
        return [self._default((element_node, element)) for _ in range(count)]


def _message_folders() -> Iterator[Path]:
    """Where the message definitions are: beside us in a checkout, or in share/ of what is sourced."""
    checkout = Path(keypoint_perception.__file__).resolve().parent.parent / _MESSAGES
    prefixes = [Path(prefix) for prefix in os.environ.get("AMENT_PREFIX_PATH", "").split(os.pathsep) if prefix]
    for folder in (checkout, *(prefix / "share" / _MESSAGES for prefix in (*prefixes, Path(sys.prefix)))):
        if (folder / "msg").is_dir():
            yield folder
            return


def _is_ours(error: Exception) -> bool:
    """Whether an exception comes from the code that uses the bag, not from reading it."""
    trace = error.__traceback__
    while trace is not None:
        if trace.tb_frame.f_globals.get("__name__", "").startswith("rosbags."):
            return False
        trace = trace.tb_next
    return True
