"""What the commands of this package share."""

from __future__ import annotations

import argparse
from typing import NoReturn

from keypoint_perception.errors import UserError


class Parser(argparse.ArgumentParser):
    """Says what is wrong with a command line in one line, as everything else that a user gets wrong."""

    def error(self, message: str) -> NoReturn:
        """Raises UserError."""
        raise UserError(f"{message}; see {self.prog} --help")
