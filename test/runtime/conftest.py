"""What the tests of annotate share."""

from __future__ import annotations

from pathlib import Path

import pytest
from annotated import FRAMES, SIZE
from spots_bag import write_spots_bag


@pytest.fixture(scope="session")
def bag(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Images, depth and calibration of three spots that move."""
    return write_spots_bag(tmp_path_factory.mktemp("bags") / "spots", frames=FRAMES, size=SIZE, depth=True)
