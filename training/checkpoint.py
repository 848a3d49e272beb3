"""The state of a training run on disk: one file, written to a temporary name first, read without running code."""

from __future__ import annotations

import io
import json
import os
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from keypoint_perception.errors import UserError, first_line
from keypoint_perception.files import written_whole
from training.config import RunConfig, config_from_dict, method_class
from training.method import Method

CHECKPOINT_NAME = "checkpoint.pt"
FORMAT = 1


@dataclass(frozen=True)
class Checkpoint:
    """All that continuing a run, or exporting its model, needs."""

    config: RunConfig
    step: int
    """Steps done."""
    method: dict[str, Any]
    """State dict of the method."""
    optimizers: dict[str, Any]
    """State dict of each phase's optimiser."""
    average: dict[str, Any] | None
    """State dict of the averaged method, None where the run keeps no average."""
    about: dict[str, Any]
    """Plain values for the model's card: command, data, seconds, machine."""

    def build(self) -> Method:
        """The trained method in eval mode on the CPU, with averaged weights where there are some."""
        method = build_method(self.config)
        restore(method, self.method if self.average is None else self.average)
        method.step = self.step
        return method.eval()


def build_method(config: RunConfig) -> Method:
    """A new, untrained method of this config."""
    return method_class(config.name)(config.options, input_size=tuple(config.data.input_size))


def restore(module: nn.Module, state: dict[str, Any]) -> None:
    """Loads a state dict. Raises UserError where it is of other layers."""
    try:
        module.load_state_dict(state)
    except RuntimeError as error:
        raise UserError(
            f"the checkpoint is of another release, whose network has other layers ({first_line(error)}): train again"
        ) from None


def write_checkpoint(path: Path, checkpoint: Checkpoint) -> None:
    """Replaces `path` at once; a crash in between leaves the old file. Raises UserError where it cannot be written."""
    values = {
        "format": FORMAT,
        "name": checkpoint.config.name,
        "config": json.dumps(checkpoint.config.to_dict()),
        "step": checkpoint.step,
        "method": checkpoint.method,
        "optimizers": checkpoint.optimizers,
        "average": checkpoint.average,
        "about": json.dumps(checkpoint.about),
    }
    content = io.BytesIO()  # of a disk that is full torch tells an error of its own
    torch.save(values, content)
    with written_whole(path) as temporary, temporary.open("wb") as file:
        file.write(content.getbuffer())
        file.flush()
        os.fsync(file.fileno())


def read_checkpoint(path: Path) -> Checkpoint:
    """Reads a checkpoint file, or that of a run folder. Raises UserError that says what is wrong with it."""
    path = Path(path)
    if path.is_dir():
        path = path / CHECKPOINT_NAME
    if not path.is_file():
        raise UserError(f"{path} does not exist: give the folder of a run that `python -m training fit` made")
    try:
        with zipfile.ZipFile(path) as archive:
            damaged = archive.testzip()  # torch looks at no checksum
        if damaged:
            raise ValueError(f"the checksum of {damaged} differs")
        values = torch.load(path, map_location="cpu", weights_only=True)
        if values["format"] != FORMAT:
            raise UserError(
                f"{path} has checkpoint format {values['format']}, this release reads {FORMAT}: train again"
            )
        config = config_from_dict(values["name"], json.loads(values["config"]))
        parts = {key: values[key] for key in ("step", "method", "optimizers", "average")}
        return Checkpoint(config=config, about=json.loads(values["about"]), **parts)
    except UserError:
        raise
    except Exception as error:  # torch and zip raise many types for damaged files
        raise UserError(f"{path} is no whole checkpoint ({first_line(error)}): train again or use a copy") from None
