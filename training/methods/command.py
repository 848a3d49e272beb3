"""`python -m training methods [NAME]`: the methods, or all options of a run of one with defaults and what they mean."""

from __future__ import annotations

import ast
import inspect
import sys
import textwrap
from dataclasses import fields, is_dataclass
from typing import Any

from keypoint_perception.command_line import Parser
from training.config import LoopConfig, method_class
from training.data import DataConfig
from training.methods import METHODS


def first_line(method: Any) -> str:
    """What a method is, from the docstring of its file."""
    return (sys.modules[method.__module__].__doc__ or "").strip().splitlines()[0]


def field_comments(config: type) -> dict[str, str]:
    """The string that stands under each field of a dataclass, in one line."""
    body = ast.parse(textwrap.dedent(inspect.getsource(config))).body[0]
    assert isinstance(body, ast.ClassDef)
    comments = {}
    for field, after in zip(body.body, body.body[1:], strict=False):
        is_text = isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant)
        if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name) and is_text:
            comments[field.target.id] = " ".join(str(after.value.value).split())  # type: ignore[attr-defined]
    return comments


def option_lines(config: Any, prefix: str = "") -> list[str]:
    """`key: type = value` of every option of a config instance, nested ones too, each above its comment."""
    comments, lines = field_comments(type(config)), []
    for field in fields(config):
        value = getattr(config, field.name)
        if is_dataclass(value):
            lines += option_lines(value, f"{prefix}{field.name}.")
            continue
        lines.append(f"  {prefix}{field.name}: {field.type} = {value!r}")
        if field.name in comments:
            lines += textwrap.wrap(comments[field.name], 110, initial_indent="      ", subsequent_indent="      ")
    return lines


def main(argv: list[str]) -> int:
    """Runs `methods`."""
    parser = Parser(prog="python -m training methods", description=__doc__)
    parser.add_argument("name", nargs="?", help=", ".join(METHODS))
    given = parser.parse_args(argv)
    if given.name is None:
        for name, method in METHODS.items():
            print(f"{name:<18} {first_line(method)}")
        print("\n`python -m training methods NAME` lists the options of one.")
        return 0
    method = method_class(given.name)
    print(inspect.cleandoc(sys.modules[method.__module__].__doc__ or ""))
    print(f"\nNeeds in a batch: {', '.join(sorted(method.required_keys))}")
    print("\nOptions of the method (flags: --method.NAME VALUE; in a YAML file under `method:`):")
    print("\n".join(option_lines(method.Config())))
    print("\nOptions of the data (flags: --data.NAME VALUE; in a YAML file under `data:`):")
    print("\n".join(option_lines(DataConfig())))
    print("\nOptions of the loop (flags: --NAME VALUE; in a YAML file at the top):")
    print("\n".join(option_lines(LoopConfig())))
    return 0
