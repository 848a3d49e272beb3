"""The PyTorch networks of exported models, to compare with."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

from keypoint_perception.model import ModelInfo
from training.checkpoint import build_method
from training.config import config_from_dict
from training.method import Method
from training.methods import METHODS


def network_of(info: ModelInfo) -> Method:
    """A model's network with its first weights, which change no time, for inference.

    A model may be older than its method's present options: what those do not have is left out.
    """
    config: Any = METHODS[info.method].Config
    known = {field.name for field in fields(config)}
    options = {name: value for name, value in info.training.get("options", {}).items() if name in known}
    values = {"method": options, "data": {"input_size": list(info.input_size)}}
    return build_method(config_from_dict(info.method, values)).eval()
