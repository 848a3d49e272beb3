"""Which topics of a recording are pictures: one rule for annotating it, training on it and evaluating on it."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator
from os import PathLike

from rosbags.highlevel import AnyReader

from keypoint_perception.bags import IMAGE_TYPES, KEYPOINT_ARRAY, connections_of
from keypoint_perception.errors import UserError
from keypoint_perception.images import encoding_of, is_depth

Encodings = Callable[[str], Iterable[str | None]]
"""Topic to what its messages say of their pixels, in order; None of one that cannot be read."""


def picture_topics(topics: Collection[tuple[str, str]], encodings: Encodings) -> list[str]:
    """Those of the topics (name, type) that are images with messages, neither depth nor a detector's own overlay.

    Of each the first message counts that can be read; a topic without one is a picture only where no other is.
    """
    detectors = [name.removesuffix("keypoints") for name, kind in topics if kind == KEYPOINT_ARRAY]
    overlays = {f"{prefix}overlay{rest}" for prefix in detectors for rest in ("", "/compressed")}
    images = sorted({name for name, kind in topics if kind in IMAGE_TYPES} - overlays)
    found = [(name, encoding) for name in images for encoding in _first(encodings(name))]
    pictures = [name for name, encoding in found if encoding is not None and not is_depth(encoding)]
    pictures = pictures or [name for name, encoding in found if encoding is None]
    return [name for name in pictures if "depth" not in name] or pictures  # depth may call itself mono16 or png


def only_picture_topic(where: str | PathLike[str], topics: Collection[tuple[str, str]], encodings: Encodings) -> str:
    """The one topic of pictures among the topics (name, type) of the recording `where`.

    Raises UserError where there is not just one.
    """
    pictures = picture_topics(topics, encodings)
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


def encodings_in(reader: AnyReader, topic: str) -> Iterator[str | None]:
    """See Encodings."""
    for connection, _, data in reader.messages(connections_of(reader, topic)):
        try:
            yield encoding_of(reader.deserialize(data, connection.msgtype))
        except Exception:  # rosbags' generated code raises whatever damaged bytes lead it to
            yield None


def _first(encodings: Iterable[str | None]) -> list[str | None]:
    """The first of a message that can be read; None where none can, nothing where there is none."""
    found: list[str | None] = []
    for encoding in encodings:
        if encoding is not None:
            return [encoding]
        found = [None]
    return found
