"""Which topics of a recording are pictures: one rule for annotating it, training on it and evaluating on it."""

from __future__ import annotations

from collections.abc import Callable, Collection
from os import PathLike

from rosbags.highlevel import AnyReader

from keypoint_perception.bags import IMAGE_TYPES, connections_of
from keypoint_perception.errors import UserError
from keypoint_perception.images import encoding_of, is_depth

FirstEncoding = Callable[[str], str | None]
"""Topic to what its first readable message says of its pixels; "" where none can be read, None where there is none."""
_KEYPOINTS = "keypoint_perception_msgs/msg/KeypointArray"


def picture_topics(topics: Collection[tuple[str, str]], first_encoding: FirstEncoding) -> list[str]:
    """Those of the topics (name, type) that are images with messages, neither depth nor a detector's own overlay."""
    detectors = [name.removesuffix("keypoints") for name, kind in topics if kind == _KEYPOINTS]
    overlays = {f"{prefix}overlay{rest}" for prefix in detectors for rest in ("", "/compressed")}
    images = sorted({name for name, kind in topics if kind in IMAGE_TYPES} - overlays)
    encodings = {name: first_encoding(name) for name in images}
    pictures = [name for name, encoding in encodings.items() if encoding and not is_depth(encoding)]
    pictures = pictures or [name for name, encoding in encodings.items() if encoding == ""]
    return [name for name in pictures if "depth" not in name] or pictures  # depth may call itself mono16 or png


def only_picture_topic(
    where: str | PathLike[str], topics: Collection[tuple[str, str]], first_encoding: FirstEncoding
) -> str:
    """The one topic of pictures among the topics (name, type) of the recording `where`.

    Raises UserError where there is not just one.
    """
    pictures = picture_topics(topics, first_encoding)
    if len(pictures) > 1:
        raise UserError(f"{where} has several image topics: {', '.join(pictures)}: choose with --topic")
    if not pictures:
        others = ", ".join(sorted({name for name, kind in topics if kind in IMAGE_TYPES}))
        why = f"{others}: depth, a detector's overlay or without messages" if others else "it has none at all"
        raise UserError(f"{where} has no image topic with pictures ({why}): give a recording of a camera's pictures")
    return pictures[0]


def topics_of(reader: AnyReader) -> list[tuple[str, str]]:
    """(name, type) of each topic of a bag."""
    return [(connection.topic, connection.msgtype) for connection in reader.connections]


def first_encoding(reader: AnyReader, topic: str) -> str | None:
    """See FirstEncoding."""
    found = None
    for connection, _, data in reader.messages(connections_of(reader, topic)):
        try:
            return encoding_of(reader.deserialize(data, connection.msgtype))
        except Exception:  # rosbags' generated code raises whatever damaged bytes lead it to
            found = ""
    return found
