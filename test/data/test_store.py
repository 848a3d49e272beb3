"""The frame store: built once, reused, rebuilt, gone on with."""

from __future__ import annotations

import functools
import json
import multiprocessing
import os
import pickle
import subprocess
import sys
import time
import weakref
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
from full_disk import full_disk
from recording_files import SIZE, TOPIC, messages, picture, write_images, write_rosbag2

from keypoint_perception.errors import UserError
from keypoint_perception.geometry import Viewport
from training.data import build, ordered, store
from training.data.build import build_store
from training.data.opening import open_source
from training.data.salvage import Damage
from training.data.sources import Item, Source, Topic
from training.data.store import View

VIEW = View(TOPIC, (16, 12), None)
COUNT = 24


def source_of(path: Path) -> Source:
    (source,) = open_source(path)
    return source


def built(path: Path, view: View = VIEW, root: Path | None = None) -> store.FrameStore:
    return build_store(source_of(path), view, root, threads=2, progress=False)


@pytest.fixture
def bag(tmp_path: Path) -> Path:
    return write_rosbag2(tmp_path / "bag", messages(COUNT))


@pytest.mark.parametrize("roi", [None, (0.25, 0.0, 1.0, 0.5)])
def test_frames_are_what_the_robot_will_see(bag: Path, roi: tuple[float, float, float, float] | None) -> None:
    found = built(bag, View(TOPIC, (16, 12), roi))
    viewport = Viewport.of(SIZE, (16, 12), roi)
    assert np.array_equal(found.frames, [viewport.view(picture(i)) for i in range(COUNT)])
    assert found.items == COUNT and not found.skips.by_reason


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_pictures_are_shrunk_as_the_robot_does_it_in_whatever_order_they_lie_in_memory(
    channels: int, tmp_path: Path
) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (480, 640, channels), np.uint8)
    cv2.imwrite(str(tmp_path / "a.png"), pixels)
    rgb = np.ascontiguousarray(pixels[..., 2::-1] if channels > 1 else pixels.repeat(3, axis=2))
    found = built(tmp_path, View("", (128, 128), None), tmp_path / "stores")
    assert np.array_equal(found.frames, [Viewport.of((640, 480), (128, 128)).view(rgb)])


def test_it_lies_beside_the_recording_and_git_ignores_it(bag: Path) -> None:
    found = built(bag)
    assert found.folder.parent == bag.parent / "bag.frames"
    assert (found.folder.parent / ".gitignore").read_text() == "*\n"


def test_it_lies_where_asked(bag: Path, tmp_path: Path) -> None:
    assert built(bag, root=tmp_path / "stores").folder.is_relative_to(tmp_path / "stores")
    assert not (tmp_path / "bag.frames").exists()
    (tmp_path / "file").write_text("no folder")
    with pytest.raises(UserError, match=r"cannot write .*file"):
        built(bag, root=tmp_path / "file")


def test_a_read_only_recording_gets_its_store_elsewhere(bag: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "access", lambda path, mode: False)  # tests may run as root, whom nothing stops
    monkeypatch.chdir(bag.parent)
    assert built(bag).folder.resolve().is_relative_to(bag.parent / "out/frames")


class Counting(Source):
    """A source that counts how many of its items are read, can fail at one and pause, seconds, before each."""

    def __init__(self, inner: Source, fail_at: int | None = None, pause: float = 0) -> None:
        super().__init__(inner.path)
        self.inner, self.kind, self.fail_at, self.pause, self.read = inner, inner.kind, fail_at, pause, 0

    def files(self) -> list[Path]:
        return self.inner.files()

    def topics(self) -> list[Topic]:
        return self.inner.topics()

    def items(self, topic: str, start: int = 0) -> Iterator[Item | Damage]:
        for number, item in enumerate(self.inner.items(topic, start), start):
            if number == self.fail_at:
                raise KeyboardInterrupt
            time.sleep(self.pause)
            self.read += 1
            yield item


def test_it_is_reused_while_nothing_changes(bag: Path) -> None:
    first = built(bag)
    again = Counting(source_of(bag))
    second = build_store(again, VIEW, progress=False)
    assert again.read == 0 and np.array_equal(first.frames, second.frames)


def test_it_is_rebuilt_when_the_recording_changes(tmp_path: Path) -> None:
    folder = write_images(tmp_path / "images", [picture(i) for i in range(4)])
    view = View("", (16, 12), None)
    assert len(built(folder, view).frames) == 4
    write_images(folder, [picture(i + 50) for i in range(6)])
    changed = built(folder, view)
    assert np.array_equal(changed.frames, [Viewport.of(SIZE, (16, 12)).view(picture(i + 50)) for i in range(6)])


def test_each_view_has_its_own(bag: Path) -> None:
    small, cut = built(bag), built(bag, View(TOPIC, (16, 12), (0.0, 0.0, 0.5, 1.0)))
    assert small.folder != cut.folder and small.folder.exists()


def test_an_interrupted_build_goes_on_where_it_was(bag: Path) -> None:
    whole = built(bag, root=bag.parent / "whole")
    interrupted = Counting(source_of(bag), fail_at=21)
    with pytest.raises(KeyboardInterrupt):
        build_store(interrupted, VIEW, threads=1, progress=False)
    state = store.fingerprint(interrupted, VIEW)
    assert store.read_if_current(store.store_folder(interrupted, VIEW, None), state) is None
    rest = Counting(source_of(bag))
    resumed = build_store(rest, VIEW, threads=1, progress=False)
    assert 0 < rest.read < COUNT
    assert np.array_equal(resumed.frames, whole.frames)
    assert np.array_equal(resumed.stamps, whole.stamps)
    assert resumed.checksum == whole.checksum and resumed.items == whole.items


def build_slowly(bag: Path) -> None:
    """For a process that is to be killed: its progress is saved after each image."""
    build.SAVE_SECONDS = 0.0
    build_store(Counting(source_of(bag), pause=0.02), VIEW, threads=1, progress=False)


def test_a_killed_build_goes_on(tmp_path: Path) -> None:
    bag = write_rosbag2(tmp_path / "bag", messages(40, "jpeg"))
    process = multiprocessing.get_context("spawn").Process(target=build_slowly, args=(bag,))
    process.start()
    progress = store.store_folder(source_of(bag), VIEW, None).with_suffix(".partial") / store.PROGRESS
    until = time.monotonic() + 300
    while not (progress.exists() and json.loads(progress.read_text())["count"] >= 3):
        assert time.monotonic() < until and process.is_alive()
        time.sleep(0.02)
    process.kill()
    process.join()
    with (progress.parent / store.FRAMES).open("ab") as file:
        file.write(b"half a frame")  # what was written after the last progress does not count
    rest = Counting(source_of(bag))
    resumed = build_store(rest, VIEW, progress=False)
    assert rest.read < 40
    assert np.array_equal(resumed.frames, built(bag, root=tmp_path / "whole").frames)


def test_progress_of_a_recording_that_changed_since_is_thrown_away(tmp_path: Path) -> None:
    folder = write_images(tmp_path / "images", [picture(i) for i in range(8)])
    view = View("", (16, 12), None)
    with pytest.raises(KeyboardInterrupt):
        build_store(Counting(source_of(folder), fail_at=6), view, threads=1, progress=False)
    write_images(folder, [picture(i + 50) for i in range(8)])
    expected = [Viewport.of(SIZE, (16, 12)).view(picture(i + 50)) for i in range(8)]
    assert np.array_equal(built(folder, view).frames, expected)


def test_it_is_mapped_not_read_and_pickles_small(bag: Path) -> None:
    found = built(bag)
    assert isinstance(found.frames.base, np.memmap) and not found.frames.flags.writeable
    found.frames[0].sum()
    data = pickle.dumps(found)
    assert len(data) < found.frames.nbytes
    assert np.array_equal(pickle.loads(data).frames, found.frames)


def test_a_damaged_store_is_made_again(bag: Path) -> None:
    found = built(bag)
    (found.folder / store.STORE).write_text("{")
    assert np.array_equal(built(bag).frames, found.frames)


def test_no_space_is_said_before_anything_is_decoded(bag: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store.shutil, "disk_usage", lambda path: SimpleNamespace(free=100))
    with pytest.raises(UserError, match=r"needs 13.8 kB and 100 bytes are free"):
        built(bag)


def test_a_store_or_its_progress_that_lost_frames_is_made_again(bag: Path) -> None:
    """As a power cut leaves it: files are shorter than what was written, without a word."""
    with pytest.raises(KeyboardInterrupt):
        build_store(Counting(source_of(bag), fail_at=21), VIEW, threads=1, progress=False)
    folder = store.store_folder(source_of(bag), VIEW, None)
    os.truncate(folder.with_name(f"{folder.name}.partial") / store.FRAMES, 1000)
    whole = built(bag, root=bag.parent / "whole").frames
    assert np.array_equal(built(bag).frames, whole)
    for name in (store.FRAMES, store.STAMPS):
        os.truncate(folder / name, 100)
        assert np.array_equal(built(bag).frames, whole)


def test_a_disk_that_fills_up_is_said_and_what_was_made_is_gone_on_with(
    bag: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(build, "SAVE_SECONDS", 0.0)
    with full_disk(6000), pytest.raises(UserError, match=r"frames of .*bag.*--data.store"):  # 10 of 24 frames
        built(bag)
    rest = Counting(source_of(bag))
    resumed = build_store(rest, VIEW, threads=1, progress=False)
    assert rest.read < COUNT
    assert np.array_equal(resumed.frames, built(bag, root=bag.parent / "whole").frames)


def test_two_builds_at_once_make_one_store(tmp_path: Path) -> None:
    bag = write_rosbag2(tmp_path / "bag", messages(20, "jpeg"))
    program = (
        "from pathlib import Path; from training.data.build import build_store; from training.data.store import View\n"
        "from training.data.opening import open_source\n"
        f"s = build_store(open_source(Path({str(bag)!r}))[0], View({TOPIC!r}, (16, 12), None), progress=False)\n"
        "print(s.checksum, len(s.frames))"
    )
    jobs = [subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True) for _ in range(2)]
    outputs = {job.communicate()[0] for job in jobs}
    assert len(outputs) == 1 and outputs.pop().split()[1] == "20"


class Endless(Source):
    """A long recording that counts how many of its images were handed out and not yet stored."""

    kind = "endless"

    def __init__(self, path: Path, length: int) -> None:
        super().__init__(path)
        self.length, self.alive, self.most = length, 0, 0

    def files(self) -> list[Path]:
        return []

    def topics(self) -> list[Topic]:
        return [Topic("", "endless", self.length, True)]

    def dropped(self) -> None:
        self.alive -= 1

    def items(self, topic: str, start: int = 0) -> Iterator[Item | Damage]:
        for number in range(start, self.length):
            image = np.full((24, 32, 3), number % 256, np.uint8)
            self.alive += 1
            self.most = max(self.most, self.alive)
            weakref.finalize(image, self.dropped)
            yield Item("endless", number, str(number), "rgb8", functools.partial(np.asarray, image))


def test_memory_does_not_grow_with_the_recording(tmp_path: Path) -> None:
    most = []
    for length in (100, 1000):
        source = Endless(tmp_path / f"endless{length}", length)
        assert len(build_store(source, View("", (16, 12), None), threads=2, progress=False).frames) == length
        most.append(source.most)
    assert max(most) <= 2 * ordered.CHUNK


def test_one_beside_a_recording_that_cannot_be_written_is_used(bag: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As of a mounted disk; permissions mean nothing to the superuser, who may run this."""
    monkeypatch.chdir(bag.parent)
    first = built(bag)
    monkeypatch.setattr(store.os, "access", lambda *_: False)
    assert built(bag).folder == first.folder
    assert built(bag, View(TOPIC, (8, 8), None)).folder.is_relative_to(store.FALLBACK)
