"""Every kind of recording, through a real file and back, pixel by pixel."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from recording_files import (
    EXPECTED,
    PERIOD,
    SIZE,
    START,
    TOPIC,
    Message,
    encode,
    messages,
    picture,
    write_images,
    write_rosbag1,
    write_rosbag2,
    write_video,
)
from rosbags.highlevel import AnyReader
from rosbags.rosbag1 import Writer as Writer1
from rosbags.rosbag2 import CompressionMode, StoragePlugin

from keypoint_perception.errors import UserError
from keypoint_perception.images import image_to_rgb
from training.data import indexed
from training.data.opening import open_source, open_sources
from training.data.salvage import Damage, zstd
from training.data.sources import Item, Source
from training.simulation.episode import Episode, write_episode

COUNT = 6


def read(source: Source, topic: str = "") -> tuple[list[np.ndarray], list[int]]:
    """All pictures and stamps of a source that is not damaged."""
    found = list(source.items(source.choose(topic)))
    items = [item for item in found if isinstance(item, Item)]
    assert [item for item in found if isinstance(item, Damage)] == []
    return [item.decode() for item in items], [item.stamp for item in items]


def only(path: Path) -> Source:
    (source,) = open_source(path)
    return source


def split_bag(path: Path, content: list[Message], storage: StoragePlugin) -> Path:
    """A recording in two files, as `ros2 bag record --max-bag-size` makes it."""
    halves = content[: len(content) // 2], content[len(content) // 2 :]
    path.mkdir()
    names = []
    for number, half in enumerate(halves):
        part = write_rosbag2(path.parent / f"{path.name}_{number}", half, storage)
        (file,) = part.glob("*.mcap" if storage == StoragePlugin.MCAP else "*.db3")
        shutil.copy(file, path / file.name)
        names.append(file.name)
        metadata = (part / "metadata.yaml").read_text()
    listed = "".join(f"\n  - {name}" for name in names)
    before, _, after = metadata.partition("relative_file_paths:")
    rest = after[after.index("\n  duration") :] if "\n  duration" in after else ""
    (path / "metadata.yaml").write_text(f"{before}relative_file_paths:{listed}{rest}")
    return path


def compressed_file_bag(path: Path, content: list[Message], storage: StoragePlugin) -> Path:
    """A recording whose files are compressed as a whole."""
    write_rosbag2(path, content, storage)
    (file,) = (f for f in path.iterdir() if f.suffix in (".mcap", ".db3"))
    file.with_name(f"{file.name}.zstd").write_bytes(zstd.compress(file.read_bytes()))
    file.unlink()
    metadata = path / "metadata.yaml"
    metadata.write_text(metadata.read_text().replace(file.name, f"{file.name}.zstd"))
    return path


def one_file(bag: Path) -> Path:
    (file,) = (f for f in bag.iterdir() if f.name != "metadata.yaml")
    return file


def without_metadata(bag: Path) -> Path:
    (bag / "metadata.yaml").unlink()
    return bag


MCAP, DB3 = StoragePlugin.MCAP, StoragePlugin.SQLITE3
BAGS: dict[str, Callable[[Path, list[Message]], Path]] = {
    "mcap": lambda path, m: write_rosbag2(path / "bag", m),
    "mcap, chunks zstd": lambda path, m: write_rosbag2(path / "bag", m, MCAP, CompressionMode.STORAGE),
    "mcap, split": lambda path, m: split_bag(path / "bag", m, MCAP),
    "mcap, file zstd": lambda path, m: compressed_file_bag(path / "bag", m, MCAP),
    "mcap, the file zstd": lambda path, m: one_file(compressed_file_bag(path / "bag", m, MCAP)),
    "mcap, no metadata.yaml": lambda path, m: without_metadata(write_rosbag2(path / "bag", m)),
    "mcap, the file": lambda path, m: one_file(write_rosbag2(path / "bag", m)),
    "sqlite3": lambda path, m: write_rosbag2(path / "bag", m, DB3),
    "sqlite3, messages zstd": lambda path, m: write_rosbag2(path / "bag", m, DB3, CompressionMode.MESSAGE),
    "sqlite3, split": lambda path, m: split_bag(path / "bag", m, DB3),
    "sqlite3, file zstd": lambda path, m: compressed_file_bag(path / "bag", m, DB3),
    "sqlite3, no metadata.yaml": lambda path, m: without_metadata(write_rosbag2(path / "bag", m, DB3)),
    "sqlite3, the file": lambda path, m: one_file(write_rosbag2(path / "bag", m, DB3)),
    "ROS 1": lambda path, m: write_rosbag1(path / "run.bag", m),
    "ROS 1, bz2": lambda path, m: write_rosbag1(path / "run.bag", m, Writer1.CompressionFormat.BZ2),
    "ROS 1, lz4": lambda path, m: write_rosbag1(path / "run.bag", m, Writer1.CompressionFormat.LZ4),
}


@pytest.mark.parametrize("encoding", EXPECTED)
@pytest.mark.parametrize("kind", ["mcap", "sqlite3", "ROS 1"])
def test_encodings_in_bags(kind: str, encoding: str, tmp_path: Path) -> None:
    source = only(BAGS[kind](tmp_path, messages(COUNT, encoding)))
    pictures, stamps = read(source)
    expected, tolerance = EXPECTED[encoding]
    assert stamps == [START + i * PERIOD for i in range(COUNT)]
    for index, found in enumerate(pictures):
        assert np.abs(found.astype(int) - expected(picture(index))).max() <= tolerance


@pytest.mark.parametrize("kind", BAGS)
def test_kinds_of_bags(kind: str, tmp_path: Path) -> None:
    source = only(BAGS[kind](tmp_path, messages(COUNT) + messages(2, "png", "/other")))
    pictures, stamps = read(source, TOPIC)
    assert stamps == [START + i * PERIOD for i in range(COUNT)]
    assert np.array_equal(pictures, [picture(i) for i in range(COUNT)])
    assert {(t.name, t.messages) for t in source.topics()} == {(TOPIC, COUNT), ("/other", 2)}
    assert source.count(TOPIC) == COUNT


@pytest.mark.parametrize("kind", ["mcap", "mcap, chunks zstd", "sqlite3", "ROS 1", "ROS 1, bz2", "ROS 1, lz4"])
def test_a_file_that_is_not_in_order_of_time_is_read_as_rosbags_reads_it(kind: str, tmp_path: Path) -> None:
    """Several chunks that overlap in time, and messages that were recorded at the same time."""
    numbers = np.random.default_rng(0).permutation(80)
    content = [
        Message(encode(picture(i, (160, 120)), "rgb8"), START + int(i), recorded=START + int(i) // 2 * PERIOD)
        for i in numbers
    ]
    path = BAGS[kind](tmp_path, content + messages(2, "png", "/other"))
    pictures, stamps = read(only(path), TOPIC)
    assert sorted(stamps) == sorted(m.stamp for m in content)
    assert np.all(np.diff([(stamp - START) // 2 for stamp in stamps]) >= 0)
    with AnyReader([path]) as reader:
        wanted = [c for c in reader.connections if c.topic == TOPIC]
        theirs = [image_to_rgb(reader.deserialize(data, c.msgtype)) for c, _, data in reader.messages(wanted)]
    assert np.array_equal(pictures, theirs)


@pytest.mark.parametrize("kind", ["mcap", "ROS 1"])
def test_what_was_read_stays_when_the_file_is_gone(kind: str, tmp_path: Path) -> None:
    source = only(BAGS[kind](tmp_path, messages(COUNT)))
    items = [item for item in source.items(TOPIC) if isinstance(item, Item)]
    source.files()[0].unlink()
    assert np.array_equal([item.decode() for item in items], [picture(i) for i in range(COUNT)])


def test_a_bag_whose_images_have_no_stamp_takes_the_time_of_recording(tmp_path: Path) -> None:
    unstamped = [m._replace(stamp=0, recorded=m.stamp) for m in messages(3)]
    _, stamps = read(only(write_rosbag2(tmp_path / "bag", unstamped)))
    assert stamps == [START, START + PERIOD, START + 2 * PERIOD]


@pytest.mark.parametrize(
    ("codec", "suffix", "tolerance"),
    [("FFV1", ".avi", 0), ("FFV1", ".mkv", 0), ("HFYU", ".avi", 0), ("mp4v", ".mp4", 25)],
)
def test_video(codec: str, suffix: str, tolerance: int, tmp_path: Path) -> None:
    path = write_video(tmp_path / f"film{suffix}", [picture(i) for i in range(COUNT)], codec)
    pictures, stamps = read(only(path))
    assert len(pictures) == COUNT
    assert np.abs(np.array(pictures).astype(int) - [picture(i) for i in range(COUNT)]).max() <= tolerance
    assert np.diff(stamps) == pytest.approx(PERIOD, rel=0.01)


@pytest.mark.parametrize(("suffix", "tolerance"), [(".png", 0), (".bmp", 0), (".tiff", 0), (".webp", 40), (".jpg", 16)])
def test_folder_of_images(suffix: str, tolerance: int, tmp_path: Path) -> None:
    folder = write_images(tmp_path / "images", [picture(i) for i in range(12)], suffix)
    pictures, _ = read(only(folder))
    assert len(pictures) == 12  # in the order of their numbers: img2 before img10
    assert np.abs(np.array(pictures).astype(int) - [picture(i) for i in range(12)]).max() <= tolerance


def test_folder_of_16_bit_and_grey_images(tmp_path: Path) -> None:
    import cv2

    grey = picture(0)[..., 0]
    cv2.imwrite(str(tmp_path / "a.png"), grey)
    cv2.imwrite(str(tmp_path / "b.png"), grey.astype(np.uint16) << 8)
    pictures, _ = read(only(tmp_path))
    assert np.array_equal(pictures, [grey[..., None].repeat(3, axis=-1)] * 2)


def episode(seed: int, frames: int = COUNT) -> Episode:
    shape = (frames, 2)
    return Episode(
        scene="spiders",
        variant="spider3",
        seed=seed,
        fps=10.0,
        frames=np.stack([picture(seed + i) for i in range(frames)]),
        keypoints=np.zeros((*shape, 2), np.float32),
        keypoints_3d=np.zeros((*shape, 3), np.float32),
        visible=np.ones(shape, bool),
        mask=np.zeros((frames, SIZE[1], SIZE[0]), bool),
        adjacency=np.zeros((2, 2), bool),
        names=("a", "b"),
    )


def test_simulated_episodes_are_recordings_of_their_own(tmp_path: Path) -> None:
    for seed in range(3):
        write_episode(tmp_path / f"episode_{seed:05d}.npz", episode(seed))
    source = only(tmp_path)
    pictures, stamps = read(source)
    assert np.array_equal(pictures, [picture(seed + i) for seed in range(3) for i in range(COUNT)])
    assert stamps == [i * PERIOD for i in range(COUNT)] * 3
    items = [item for item in source.items("") if isinstance(item, Item)]
    assert [item.recording for item in items[::COUNT]] == ["episode_00000", "episode_00001", "episode_00002"]


def test_a_folder_may_hold_several_recordings(tmp_path: Path) -> None:
    write_rosbag2(tmp_path / "bag", messages(3))
    write_video(tmp_path / "film.avi", [picture(0)])
    write_images(tmp_path / "stills", [picture(0)])
    (tmp_path / "notes.txt").write_text("nothing")
    (tmp_path / "bag.frames").mkdir()
    sources = open_sources([str(tmp_path)])
    assert [source.kind for source in sources] == ["rosbag2", "video", "folder of images"]


def test_pictures_beside_recordings_are_no_recording(tmp_path: Path) -> None:
    write_rosbag2(tmp_path / "bag", messages(3))
    write_images(tmp_path, [picture(0)])
    assert [source.kind for source in open_source(tmp_path)] == ["rosbag2"]


def test_pictures_beside_recordings_that_were_not_ended_or_hold_episodes(tmp_path: Path) -> None:
    without_metadata(write_rosbag2(tmp_path / "bag", messages(3)))
    write_episode(tmp_path / "episodes" / "episode_00000.npz", episode(0))
    write_images(tmp_path, [picture(0)])
    assert [source.kind for source in open_source(tmp_path)] == ["rosbag2", "simulated episodes"]


def test_what_lies_beside_pictures_and_is_no_recording(tmp_path: Path) -> None:
    write_images(tmp_path, [picture(0)])
    np.savez(tmp_path / "poses.npz", keypoints=np.zeros((1, 3, 2)))
    for name in ("._film.mp4", "._img1.png"):
        (tmp_path / name).write_text("what macOS leaves on other disks")
    (tmp_path / "notes").mkdir()
    source = only(tmp_path)
    assert source.kind == "folder of images" and source.count("") == 1


def test_unpaired_poses_beside_recordings_are_none(tmp_path: Path) -> None:
    write_rosbag2(tmp_path / "bag", messages(3))
    np.savez(tmp_path / "poses.npz", keypoints=np.zeros((1, 3, 2)))
    assert [source.kind for source in open_source(tmp_path)] == ["rosbag2"]


def test_bag_files_in_a_folder_are_one_recording_only_if_they_are_called_so(tmp_path: Path) -> None:
    split = without_metadata(split_bag(tmp_path / "run", messages(COUNT), MCAP))
    assert [source.path for source in open_source(split)] == [split]
    (split / "run_1.mcap").rename(split / "other.mcap")
    assert sorted(source.path.name for source in open_source(split)) == ["other.mcap", "run_0.mcap"]


def test_a_file_that_was_unpacked_beside_the_packed_one_is_one_recording(tmp_path: Path) -> None:
    for split in (False, True):
        bag = tmp_path / f"run{split:d}"
        (split_bag(bag, messages(COUNT), MCAP) if split else write_rosbag2(bag, messages(COUNT)))
        for file in bag.glob("*.mcap"):
            file.with_name(f"{file.name}.zstd").write_bytes(zstd.compress(file.read_bytes()))
        assert len(read(only(bag))[0]) == COUNT
        assert len(read(only(without_metadata(bag)))[0]) == COUNT
    one_file(without_metadata(write_rosbag2(tmp_path / "third", messages(COUNT)))).rename(bag / "third.mcap")
    (bag / "third.mcap.zstd").write_bytes(zstd.compress((bag / "third.mcap").read_bytes()))
    assert [source.path.name for source in open_source(bag)] == ["run1_0.mcap", "run1_1.mcap", "third.mcap"]


@pytest.mark.parametrize("kind", ["mcap", "ROS 1"])
def test_reading_goes_on_from_any_item(kind: str, tmp_path: Path) -> None:
    source = only(BAGS[kind](tmp_path, messages(COUNT)))
    items = [item for item in source.items(TOPIC, start=4) if isinstance(item, Item)]
    assert [item.stamp for item in items] == [START + 4 * PERIOD, START + 5 * PERIOD]


def test_video_goes_on_from_any_frame(tmp_path: Path) -> None:
    source = only(write_video(tmp_path / "film.avi", [picture(i) for i in range(COUNT)]))
    (item,) = source.items("", start=COUNT - 1)
    assert isinstance(item, Item) and np.array_equal(item.decode(), picture(COUNT - 1))


def test_the_only_image_topic_need_not_be_named(tmp_path: Path) -> None:
    assert only(write_rosbag2(tmp_path / "bag", messages(2))).choose("") == TOPIC


def test_depth_is_no_picture_to_choose_from(tmp_path: Path) -> None:
    depth = {**encode(picture(0), "mono16"), "encoding": "16UC1"}
    seen, unseen = Message(depth, START, "/camera/aligned"), Message(depth, START, "/only")
    assert only(write_rosbag2(tmp_path / "bag", [*messages(2), seen])).choose("") == TOPIC
    with pytest.raises(UserError, match=r"no image topic with pictures \(/only: depth,"):
        only(write_rosbag2(tmp_path / "flat", [unseen])).choose("")


def test_a_topic_of_both_types_of_images_is_one(tmp_path: Path) -> None:
    source = only(write_rosbag2(tmp_path / "bag", [*messages(2), *messages(2, "png", start=START + 2 * PERIOD)]))
    assert source.choose("") == TOPIC and source.count(TOPIC) == len(list(source.items(TOPIC))) == 4


@pytest.mark.parametrize(("topic", "words"), [("/nope", "no image topic '/nope'"), ("", "several image topics")])
def test_a_wrong_topic_lists_those_there_are(topic: str, words: str, tmp_path: Path) -> None:
    bag = write_rosbag2(tmp_path / "bag", messages(2) + messages(2, "png", "/second/compressed"))
    with pytest.raises(UserError, match=f"{words}.*/camera/image_raw, /second/compressed: choose"):
        only(bag).choose(topic)


def test_paths_that_are_no_recordings(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="is not there"):
        open_source(tmp_path / "nothing")
    (tmp_path / "notes.txt").write_text("nothing")
    with pytest.raises(UserError, match="nothing that can be trained on"):
        open_source(tmp_path)
    with pytest.raises(UserError, match="nothing that can be trained on"):
        open_source(tmp_path / "notes.txt")
    with pytest.raises(UserError, match="no recordings given"):
        open_sources([])
    (tmp_path / "film.mp4").write_text("no film")
    with pytest.raises(UserError, match="cannot be opened as a video"):
        only(tmp_path / "film.mp4").topics()


def test_depth_is_not_trained_on(tmp_path: Path) -> None:
    depth = {**encode(picture(0), "mono16"), "encoding": "16UC1"}
    source = only(write_rosbag2(tmp_path / "bag", [Message(depth, START)]))
    (item,) = source.items(TOPIC)
    assert isinstance(item, Item)
    with pytest.raises(UserError, match="is depth"):
        item.decode()


def test_pictures_beside_folders_of_pictures_are_not_taken_for_all(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for folder in (tmp_path, tmp_path / "s1", tmp_path / "s2"):
        write_images(folder, [picture(0), picture(1)])
    (tmp_path / "here").symlink_to(".")
    assert only(tmp_path).path == tmp_path
    assert "its own pictures are used, not those in its folders here, s1, s2" in capsys.readouterr().err
    assert len(open_sources([str(tmp_path / "s1"), str(tmp_path / "s2")])) == 2
    assert not capsys.readouterr().err


def test_names_with_other_digits_and_links_to_nothing(tmp_path: Path) -> None:
    write_images(tmp_path, [picture(0)])
    first = next(tmp_path.iterdir())
    for name in ("²7.png", "01.png", "1.png", "10.png"):
        shutil.copy(first, tmp_path / name)
    first.unlink()
    (tmp_path / "5.png").symlink_to("nowhere.png")
    assert [path.name for path in only(tmp_path).files()] == ["01.png", "1.png", "10.png", "²7.png"]


def test_an_mcap_with_an_index_of_chunks_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As recorded with `noMessageIndex`: the chunks do not say which topics they hold."""
    bag = write_rosbag2(tmp_path / "bag", messages(COUNT), StoragePlugin.MCAP)
    original = indexed.open_reader

    @contextmanager
    def without_message_index(file: Path) -> Iterator[Any]:
        with original(file) as reader:
            assert reader.storage.chunks
            reader.storage.chunks = [chunk._replace(channel_count={}) for chunk in reader.storage.chunks]
            yield reader

    wanted = read(only(bag))
    monkeypatch.setattr(indexed, "open_reader", without_message_index)
    pictures, stamps = read(only(bag))
    assert stamps == wanted[1] and len(stamps) == COUNT
    assert all(np.array_equal(*pair) for pair in zip(pictures, wanted[0], strict=True))
