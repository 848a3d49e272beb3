"""The PyTorch networks of exported models, to compare with."""

from __future__ import annotations

from keypoint_perception.model import ModelInfo
from training.checkpoint import build_method
from training.config import config_from_dict
from training.method import Method


def network_of(info: ModelInfo) -> Method:
    """A model's network with its first weights, which change no time, for inference."""
    values = {"method": info.training["options"], "data": {"input_size": list(info.input_size)}}
    return build_method(config_from_dict(info.method, values)).eval()
