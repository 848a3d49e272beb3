"""What options may be: checks that raise one wording of error, with owner, name, value and what to give."""

from __future__ import annotations

from typing import Any

from keypoint_perception.errors import UserError


def at_least(owner: str, options: Any, **least: float) -> None:
    """Raises UserError at the first option, or entry of an option, that is below its bound; None may be anything."""
    for name, low in least.items():
        value = getattr(options, name)
        entries = value if isinstance(value, (tuple, list)) else (value,)
        if any(entry is not None and not entry >= low for entry in entries):
            shown = list(value) if isinstance(value, tuple) else value
            raise UserError(f"{owner}: {name} is {shown}: give {low} or more")


def above_zero(owner: str, options: Any, *names: str) -> None:
    """Raises UserError at the first of the named options that is not above 0."""
    for name in names:
        if not getattr(options, name) > 0:
            raise UserError(f"{owner}: {name} is {getattr(options, name)}: give a number above 0")


def share(owner: str, options: Any, *names: str, zero: bool = False) -> None:
    """Raises UserError at the first of the named options that is not in (0, 1] or, with `zero`, in [0, 1]."""
    for name in names:
        value = getattr(options, name)
        if not 0 <= value <= 1 or (value == 0 and not zero):
            raise UserError(f"{owner}: {name} is {value}: give a number {'from 0' if zero else 'above 0, up'} to 1")


def odd(owner: str, options: Any, *names: str, least: int = 1) -> None:
    """Raises UserError at the first of the named options that is not an odd number from `least` on."""
    for name in names:
        value = getattr(options, name)
        if value < least or value % 2 == 0:
            raise UserError(f"{owner}: {name} is {value}: give an odd number of pixels from {least} on")


def power_of_two(owner: str, options: Any, name: str, least: int, most: int) -> None:
    """Raises UserError unless the named option is a power of two from `least` to `most`."""
    value = getattr(options, name)
    if not least <= value <= most or value & (value - 1):
        raise UserError(f"{owner}: {name} is {value}: allowed are powers of two from {least} to {most}")


def one_of(owner: str, options: Any, name: str, allowed: tuple[str, ...]) -> None:
    """Raises UserError unless the named option is one of the words `allowed`."""
    value = getattr(options, name)
    if value not in allowed:
        raise UserError(f"{owner}: {name} is {value!r}: give {' or '.join(repr(word) for word in allowed)}")


def multiple(owner: str, option: str, stride: int, input_size: tuple[int, int]) -> None:
    """Raises UserError unless both sides of input_size are multiples of `stride`, and two of it; `option` names it."""
    if any(side % stride or side < 2 * stride for side in input_size):
        raise UserError(
            f"{owner}: input_size is {input_size}: both sides must be multiples of {option} ({stride})"
            " and at least two of it"
        )
