"""Files appear whole or not at all, and where they cannot, that is said."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from keypoint_perception.errors import UserError


@contextmanager
def reading(path: str | os.PathLike[str]) -> Iterator[None]:
    """Raises UserError where the file system does not give what the block reads from `path`."""
    try:
        yield
    except OSError as error:
        raise UserError(f"cannot read {path} ({error.strerror or error}): look at its disk, or copy it again") from None


@contextmanager
def writing(path: str | os.PathLike[str]) -> Iterator[None]:
    """Raises UserError where the file system does not take what the block writes to `path`.

    What the block reads meanwhile, `reading` says where it fails.
    """
    try:
        yield
    except BrokenPipeError:  # of what the block prints
        raise
    except OSError as error:
        raise UserError(f"cannot write {path} ({error.strerror or error}): name another place, or make room") from None


def make_folder(path: str | os.PathLike[str]) -> None:
    """Makes a folder and those it lies in, where they are missing. Raises UserError where that cannot be."""
    with writing(path):
        Path(path).mkdir(parents=True, exist_ok=True)


@contextmanager
def written_whole(path: str | os.PathLike[str]) -> Iterator[Path]:
    """A temporary path beside `path`, with the same suffix, that takes its name when the block ends well.

    Missing folders are made. When the block raises, the temporary file is removed and `path` is what it was.
    Raises UserError where it cannot be written.
    """
    path = Path(path)
    with temporary_beside(path) as temporary, writing(path):
        yield temporary
        os.replace(temporary, path)


@contextmanager
def temporary_beside(path: Path) -> Iterator[Path]:
    """A temporary path in the folder of `path`, which is made, with the same suffix; what is there at the end goes.

    Raises UserError where the folder cannot be made.
    """
    make_folder(path.parent)
    temporary = path.with_name(f".{path.stem}.{os.getpid()}.tmp{path.suffix}")
    try:
        yield temporary
    finally:
        with suppress(OSError):  # of a disk that cannot be written, which was said as it was tried
            temporary.unlink(missing_ok=True)
