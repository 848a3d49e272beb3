"""rosbag2 (mcap, sqlite3; compressed or not; split or not) and ROS 1 bags as sources of images."""

from __future__ import annotations

import tempfile
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from functools import cache, cached_property, partial
from pathlib import Path
from typing import Any

import yaml
from rosbags.typesys import Stores, get_typestore
from rosbags.typesys.store import Typestore

from keypoint_perception.bags import IMAGE_TYPES, refuse_empty
from keypoint_perception.errors import UserError
from keypoint_perception.files import reading
from keypoint_perception.images import encoding_of, image_to_rgb
from keypoint_perception.stamps import stamp_ns
from training.data.indexed import indexed_messages, open_reader
from training.data.salvage import Buffer, Damage, RawMessage, salvage, zstd
from training.data.sources import Item, Source, Topic, natural

_BLOCK = 1 << 16
_ZSTD_MAGIC = b"\x28\xb5\x2f\xfd"


class Bag(Source):
    """A rosbag2 folder, with or without its metadata.yaml, one of its files, or a ROS 1 .bag.

    Each file is read by itself: along its index, and from where that fails the rest is searched record by record, so
    that a recording that was cut off gives what it has.
    """

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self._parts, self._missing = _storage_files(path) if path.is_dir() else ([path], [])
        if not self._parts:
            raise UserError(f"{path} has no .mcap or .db3 file beside its metadata.yaml: copy the recording again")
        refuse_empty(path, self._parts)
        self.kind = "ROS 1 bag" if _storage_suffix(path) == ".bag" else "rosbag2"

    def files(self) -> list[Path]:
        """See Source."""
        return self._parts

    def topics(self) -> list[Topic]:
        """See Source. A file without an index is read from end to end."""
        return self._topics

    @cached_property
    def _topics(self) -> list[Topic]:
        counts: dict[tuple[str, str], int] = {}
        for part in self._parts:
            with _plain_file(part) as file, reading(part):
                for name, type_name, count in _contents(file):
                    counts[name, type_name] = counts.get((name, type_name), 0) + count
        return [Topic(*key, count, key[1] in IMAGE_TYPES) for key, count in sorted(counts.items())]

    def choose(self, topic: str) -> str:
        """See Source. Raises UserError that says so, too, where the files are damaged and nothing is found in them."""
        damage = [] if self.topics() else [found for found in self.raw_messages(topic) if isinstance(found, Damage)]
        if damage:
            found = f"{damage[-1].where}: {damage[-1].why}"
            raise UserError(f"nothing in {self.path} can be read ({found}): record or copy it again")
        return super().choose(topic)

    def items(self, topic: str, start: int = 0) -> Iterator[Item | Damage]:
        """See Source."""
        for number, found in enumerate(self.raw_messages(topic)):
            if number < start:
                continue
            if isinstance(found, Damage):
                yield found
                continue
            try:
                message = self.deserialize(found)
            except Exception as error:  # rosbags' generated code raises whatever damaged bytes lead it to
                yield Damage(f"message {number}", f"cannot be deserialised ({type(error).__name__})")
                continue
            stamp = stamp_ns(message.header) or found.log_time  # when it was recorded, where it does not say
            decode = partial(image_to_rgb, message)
            if stamp >= 2**63:
                yield Damage(f"message {number}", f"its time is {stamp} ns, later than any clock")
                continue
            yield Item(self.path.name, stamp, f"message {number}", encoding_of(message), decode)

    def raw_messages(self, topic: str) -> Iterator[RawMessage | Damage]:
        """Serialised image messages of a topic in the order recorded."""
        for name in self._missing:
            yield Damage(name, "is named in metadata.yaml and is not there")
        for part in self._parts:
            with _plain_file(part) as file, reading(part):
                for found in _messages(file, topic):
                    yield found._replace(where=f"{part.name}, {found.where}") if isinstance(found, Damage) else found

    def deserialize(self, raw: RawMessage) -> Any:
        """A message as rosbags gives it; its pixels stay where they were read."""
        data = memoryview(raw.data)  # of bytes rosbags would copy the pixels
        if self.kind == "ROS 1 bag":
            return _types(Stores.ROS1_NOETIC).deserialize_ros1(data, raw.type_name)
        return _types(Stores.ROS2_HUMBLE).deserialize_cdr(data, raw.type_name)


@cache
def _types(store: Stores) -> Typestore:
    """Image messages are the same in every distribution, so what the bag says of its types is not needed."""
    return get_typestore(store)


def _storage_files(folder: Path) -> tuple[list[Path], list[str]]:
    """A rosbag2 folder's files in order, and the names of those that are missing."""
    there = {path.name: path for path in folder.iterdir() if _storage_suffix(path) in (".mcap", ".db3")}
    ordered = sorted(unpacked(there), key=natural)
    try:
        text = (folder / "metadata.yaml").read_text()
        names = [Path(name).name for name in yaml.safe_load(text)["rosbag2_bagfile_information"]["relative_file_paths"]]
    except (OSError, yaml.YAMLError, KeyError, TypeError, UnicodeDecodeError, RecursionError):
        names = ordered  # a recording that did not end well
    if not any(name in there for name in names):
        names = ordered  # renamed since
    return [there[name] for name in names if name in there], [name for name in names if name not in there]


def unpacked(names: Collection[str]) -> list[str]:
    """Names of files without those that are packed as a whole and stand beside what `zstd -d` made of them."""
    return [name for name in names if not (name.endswith(".zstd") and name.removesuffix(".zstd") in names)]


def _storage_suffix(path: Path) -> str:
    return Path(path.name.removesuffix(".zstd")).suffix


@contextmanager
def _plain_file(path: Path) -> Iterator[Path]:
    """The file itself or, where the whole file is compressed, a temporary copy that is not; one at a time."""
    if path.suffix != ".zstd":
        yield path
        return
    with tempfile.TemporaryDirectory() as folder:
        plain = Path(folder, path.stem)
        with plain.open("wb") as unpacked:
            try:
                for block in _blocks(path):
                    unpacked.write(block)
            except (zstd.ZstdError, EOFError) as error:  # cut off; what was unpacked may be of use
                if not unpacked.tell():
                    raise UserError(f"{path} is not zstd data ({error}): copy the recording again") from None
            except OSError as error:
                raise UserError(
                    f"{path} cannot be unpacked into {folder} ({error.strerror}): set TMPDIR to a folder with more "
                    "space, or unpack it with `zstd -d`"
                ) from None
        yield plain


def _blocks(path: Path) -> Iterator[bytes]:
    """What a zstd file holds, block by block."""
    with reading(path), zstd.open(path, "rb") as packed:
        yield from iter(partial(packed.read, _BLOCK), b"")


def _contents(file: Path) -> list[tuple[str, str, int]]:
    """(topic, type, messages) of one file."""
    try:
        with open_reader(file) as reader:
            # A damaged database may hold anything in place of a name.
            named = [c for c in reader.connections if isinstance(c.topic, str) and isinstance(c.msgtype, str)]
            return [(c.topic, c.msgtype, c.msgcount) for c in named]
    except Exception:  # whatever a parser stumbles over in a damaged file
        counts: dict[tuple[str, str], int] = {}
        for found in salvage(file):
            if isinstance(found, RawMessage):
                counts[found.topic, found.type_name] = counts.get((found.topic, found.type_name), 0) + 1
        return [(*key, count) for key, count in counts.items()]


def _messages(file: Path, topic: str) -> Iterator[RawMessage | Damage]:
    """Messages of one file along its index; from where that fails, what is found record by record."""
    last = -1
    try:
        for message in indexed_messages(file, topic):
            last = message.log_time
            yield message._replace(data=_unpacked(message.data))
        return
    except GeneratorExit:
        raise
    except Exception as error:  # whatever a parser stumbles over in a damaged file
        words = " ".join(str(error).split()) or type(error).__name__
        yield Damage("index", f"cannot be read along its index ({words}): searched record by record")
    for found in salvage(file):
        if isinstance(found, Damage):
            yield found
        elif found.topic == topic and found.type_name in IMAGE_TYPES and found.log_time > last:
            yield found._replace(data=_unpacked(found.data))


def _unpacked(data: Buffer) -> Buffer:
    """A message as it was serialised; in bags compressed by message it is zstd, which no serialised message is."""
    if data[:4] != _ZSTD_MAGIC:
        return data
    try:
        return zstd.decompress(data)
    except zstd.ZstdError:
        return b""  # cannot be deserialised, which is then reported
