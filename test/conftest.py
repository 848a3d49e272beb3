"""What several rooms' tests share. Its being here also makes the support modules beside it importable."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest
from colour_model import write_colour_model


@pytest.fixture(scope="session", autouse=True)
def interruptible() -> None:
    """A shell that runs the tests in the background has them, and the commands they start, ignore Ctrl-C."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def colour_model_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model file that finds the centroids of red, green and blue exactly."""
    return write_colour_model(tmp_path_factory.mktemp("model") / "colours.onnx").path
