"""Simulation needs headless rendering: where there is none, these tests are skipped with the line that installs it."""

import pytest

from keypoint_perception.errors import UserError

try:
    import training.simulation.scene  # noqa: F401
except UserError as error:
    pytest.skip(str(error), allow_module_level=True)
