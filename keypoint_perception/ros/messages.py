"""Messages of the live middleware, made by type name."""

from __future__ import annotations

import importlib
from array import array
from functools import cache
from typing import Any

import numpy as np

from keypoint_perception.errors import UserError

_TYPE_CODES = {"uint8": "B", "int32": "i", "uint16": "H", "float32": "f"}


@cache
def message_class(type_name: str) -> Any:
    """The class of a type such as "std_msgs/msg/Header"; UserError where its package has none, or is not installed."""
    package, kind, name = type_name.split("/")
    try:
        return getattr(importlib.import_module(f"{package}.{kind}"), name)
    except (ImportError, AttributeError) as error:
        raise UserError(f"messages of type {type_name} are not known here: install and source {package}") from error


class RclpyMessages:
    """See conversions.Messages. An `array.array` is what rclpy takes without looking at each element."""

    def make(self, type_name: str, **fields: Any) -> Any:
        """See conversions.Messages.make."""
        return message_class(type_name)(**fields)

    def numbers(self, values: Any, dtype: str) -> array:
        """See conversions.Messages.numbers."""
        return array(_TYPE_CODES[dtype], np.asarray(values, dtype).tobytes())
