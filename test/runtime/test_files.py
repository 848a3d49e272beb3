"""Files appear whole or not at all, and what cannot be written is one clear line."""

from __future__ import annotations

from pathlib import Path

import pytest

from keypoint_perception.bags import write_bag
from keypoint_perception.errors import UserError
from keypoint_perception.files import written_whole
from keypoint_perception.video import video_writer


def test_a_file_that_cannot_be_written_is_one_clear_line_and_leaves_nothing_behind(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").write_text("as it was")
    before = set(tmp_path.rglob("*"))
    with (
        pytest.raises(UserError, match=r"cannot write .*folder \(Is a directory\)"),
        written_whole(tmp_path / "folder") as path,
    ):
        path.write_text("new")
    for write in (written_whole, write_bag, lambda path: video_writer(path, 30)):
        with (
            pytest.raises(UserError, match=r"cannot write .*file.* \([NF].*\): name another place"),
            write(tmp_path / "file" / "x"),
        ):
            pass
    with pytest.raises(KeyError), written_whole(tmp_path / "file") as path:
        path.write_text("new")
        raise KeyError
    assert set(tmp_path.rglob("*")) == before and (tmp_path / "file").read_text() == "as it was"
