"""Depth beside the images of a recording, at whatever paces they come."""

from __future__ import annotations

import tracemalloc
from pathlib import Path

import pytest
from spots_bag import write_spots_bag

from keypoint_perception.bags import open_bag, write_bag
from keypoint_perception.recorded_images import RecordedImages

SIZE, FPS = (192, 128), 30
IMAGES, DEPTH, CAMERA_INFO = "/table/image_raw/compressed", "/table/depth/image_raw", "/table/camera_info"
DEPTH_BYTES = SIZE[0] * SIZE[1] * 2


def _bag(path: Path, frames: int, every: int) -> Path:
    """A recording with depth at 30 Hz, and an image beside one in `every` of it."""
    whole = write_spots_bag(path.with_name("whole"), frames=frames, fps=FPS, size=SIZE, depth=True)
    with open_bag(whole) as reader, write_bag(path) as writer:
        connections = {
            c.id: writer.add_connection(c.topic, c.msgtype, typestore=reader.typestore) for c in reader.connections
        }
        start = reader.start_time
        for connection, at, data in reader.messages():
            if connection.topic != IMAGES or round((at - start) * FPS / 1e9) % every == 0:
                writer.write(connections[connection.id], at, data)
    return path


@pytest.mark.parametrize("every", [1, 6, 45])
def test_every_image_has_its_depth_however_much_faster_that_is(tmp_path: Path, every: int) -> None:
    images = 24 if every < 10 else 12
    with open_bag(_bag(tmp_path / "bag", images * every, every)) as reader:
        recorded = RecordedImages(reader, IMAGES, DEPTH, CAMERA_INFO)
        found = [recorded.depth(image, max_delay=0.001) for batch in recorded.batches(8) for image in batch]
    assert len(found) == images and recorded.flat == 0, recorded.first_flat_fault
    assert all(depth is not None for depth in found)


def test_depth_that_no_image_waits_for_is_let_go(tmp_path: Path) -> None:
    frames = 600
    with open_bag(_bag(tmp_path / "bag", frames, every=300)) as reader:
        recorded = RecordedImages(reader, IMAGES, DEPTH, CAMERA_INFO)
        tracemalloc.start()
        try:
            assert sum(map(len, recorded.batches(8))) == 2
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
    assert peak < frames * DEPTH_BYTES / 2
