"""What a training run is made of, as typed dataclasses read from YAML and flags.

A YAML file has the loop's keys at the top (`steps: 20000`), the method's options under `method:` and the data's under
`data:`. A flag has the same name (`--steps 20000 --method.keypoints 16 --data.pairs time`) and overrides the file.
"""

from __future__ import annotations

import argparse
import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Literal

import jsonargparse
import yaml

from keypoint_perception.command_line import Parser
from keypoint_perception.errors import UserError
from keypoint_perception.files import reading
from training import bounds
from training.data import DataConfig
from training.methods import METHODS


@dataclass(frozen=True)
class LoopConfig:
    """How long and on what a method is trained."""

    steps: int = 20_000
    """Training steps."""
    batch_size: int = 32
    """Pairs in a batch of one process."""
    accumulate: int = 1
    """Batches whose gradients are averaged in one step."""
    seed: int = 0
    """Seed of initial weights, batches and everything random in a step."""
    precision: Literal["fp32", "bf16", "auto"] = "fp32"
    """Precision of convolutions and products. bf16 is two to four times faster where the GPU or the processor has
    instructions for it, several times slower where not. auto chooses by that; a resumed run keeps what it had."""
    average: float = 0.0
    """Rate of an exponential moving average of the weights, which is then exported; 0 for none. 0.999 is usual."""
    accelerator: Literal["auto", "cpu", "gpu"] = "auto"
    """Where to train."""
    devices: int = 1
    """Processes on this machine, one a GPU (or CPU); more than 1 trains with DistributedDataParallel."""
    num_nodes: int = 1
    """Machines, started by torchrun or `fabric run` on each."""
    workers: int = 0
    """Processes of each training process that prepare batches; 0 prepares them between the steps."""
    log_steps: int = 20
    """Losses are logged every so many steps."""
    preview_steps: int = 500
    """Preview pictures and validation losses every so many steps, and at the end."""
    checkpoint_minutes: float = 5.0
    """Minutes between checkpoints; one is always written at the end."""

    def __post_init__(self) -> None:
        """Raises UserError that names the first bad value."""
        bounds.at_least("loop", self, steps=1, batch_size=1, accumulate=1, devices=1, num_nodes=1, log_steps=1)
        bounds.at_least("loop", self, preview_steps=1, workers=0, seed=0, checkpoint_minutes=0)
        if self.seed >= 2**63:
            raise UserError(f"loop: seed is {self.seed}: give a number below 2^63")
        if not 0 <= self.average < 1:
            raise UserError(f"loop: average is {self.average}: give a number from 0 to below 1, 0 for none")


MAY_CHANGE = {"steps", "accelerator", "devices", "num_nodes", "workers", "log_steps", "preview_steps"}
MAY_CHANGE |= {"checkpoint_minutes", "data.sources", "data.store", "data.prior"}
"""What a resumed run may set anew; all else would make it another run. Where the recordings and poses are may change;
that they are the same, `Data.fingerprint` tells."""


@dataclass(frozen=True)
class RunConfig:
    """A whole run: `options` is the method's own config."""

    name: str
    """Of the method."""
    options: Any
    data: DataConfig
    loop: LoopConfig

    def to_dict(self) -> dict[str, Any]:
        """Plain values, in the layout of the YAML files."""
        return _plain({**asdict(self.loop), "method": asdict(self.options), "data": asdict(self.data)})

    def to_yaml(self) -> str:
        """A YAML file that gives this config again."""
        return f"# python -m training fit {self.name} --config THIS\n" + yaml.safe_dump(self.to_dict(), sort_keys=False)

    def differences(self, other: RunConfig) -> list[str]:
        """The settings that keep `self` from being a continuation of `other`, as `key is a, was b`."""
        mine, theirs = _flat(self.to_dict()), _flat(other.to_dict())
        changed = [key for key in mine if mine[key] != theirs.get(key) and key not in MAY_CHANGE]
        found = [f"{key} is {mine[key]!r}, was {theirs.get(key)!r}" for key in changed]
        return found if self.name == other.name else [f"method is {self.name}, was {other.name}"]


def method_class(name: str) -> Any:
    """The class of a method. Raises UserError that lists the known ones."""
    if name not in METHODS:
        raise UserError(f"no method {name!r}: allowed are {', '.join(METHODS)}")
    return METHODS[name]


def config_parser(name: str) -> jsonargparse.ArgumentParser:
    """The parser of files and flags for the method `name`."""
    parser = jsonargparse.ArgumentParser(prog=f"python -m training fit {name}", exit_on_error=False, allow_abbrev=False)
    parser.add_argument("--config", action="config", help="a YAML file; later files and flags override earlier ones")
    parser.add_class_arguments(LoopConfig, fail_untyped=False)
    parser.add_class_arguments(method_class(name).Config, "method")
    parser.add_class_arguments(DataConfig, "data")
    return parser


def parse_config(name: str, arguments: Sequence[str]) -> RunConfig:
    """Files and flags to a config. Raises UserError of one line that names what is known."""
    parser = config_parser(name)
    groups = _plain(parser.get_defaults().as_dict())
    for path in _config_files(arguments):
        if not path.is_fifo():  # which can be read only once
            _check_groups(path, _read_yaml(path), groups)
    with _one_line_errors(parser):
        return _run_config(name, parser, parser.parse_args(list(arguments)))


def config_from_dict(name: str, values: dict[str, Any]) -> RunConfig:
    """The inverse of `RunConfig.to_dict`."""
    parser = config_parser(name)
    with _one_line_errors(parser):
        return _run_config(name, parser, parser.parse_object(values))


def _config_files(arguments: Sequence[str]) -> list[Path]:
    files = Parser(prog="python -m training fit", add_help=False, allow_abbrev=False)
    files.add_argument("--config", action="append", type=Path, default=[])
    return files.parse_known_args(arguments)[0].config


def _read_yaml(path: Path) -> Any:
    """What a YAML file holds. Raises UserError where it cannot be read."""
    if not path.is_file():
        raise UserError(f"config {path} is no file: name a YAML file, as those in config/train")
    try:
        with reading(path):
            return yaml.safe_load(path.read_text())
    except (ValueError, yaml.YAMLError, RecursionError) as error:
        words = " ".join(str(error).split())
        raise UserError(f"config {path} is no YAML ({words}): mend it, or name another") from None


_KINDS = {list: "a list", str: "a text", type(None): "empty"}


def _check_groups(path: Path, values: Any, groups: dict[str, Any], name: str = "") -> None:
    """Raises UserError where `path` has not the mapping that `groups` (keys to defaults) has; the parser skips such."""
    if not isinstance(values, dict):
        kind = _KINDS.get(type(values), "a single value")
        key, value = next((k, v) for k, v in groups.items() if v and not isinstance(v, (dict, list)))
        example = f"`{name}: {{{key}: {value}}}`" if name else f"`{key}: {value}`"
        raise UserError(f"config {path}: {f'`{name}`' if name else 'it'} is {kind}: give a mapping such as {example}")
    for key, value in values.items():
        inner: Any = groups
        for part in str(key).split("."):
            inner = inner.get(part) if isinstance(inner, dict) else None
        if isinstance(inner, dict):
            _check_groups(path, value, inner, f"{name}.{key}" if name else key)


def _run_config(name: str, parser: jsonargparse.ArgumentParser, parsed: jsonargparse.Namespace) -> RunConfig:
    made = parser.instantiate(parsed)
    loop = LoopConfig(**{f.name: made[f.name] for f in fields(LoopConfig)})
    return RunConfig(name, made["method"], made["data"], loop)


@contextlib.contextmanager
def _one_line_errors(parser: jsonargparse.ArgumentParser) -> Iterator[None]:
    """Turns the parser's errors into a UserError that lists the keys known where the mistake is."""
    try:
        yield
    except (argparse.ArgumentError, TypeError, ValueError) as error:
        if isinstance(error.__cause__, UserError):
            raise error.__cause__ from None
        text = " ".join(str(error).split()).replace("typing.", "")
        if any(mark in text for mark in ("not accept option", "is not accepted", "unrecognized")):
            text += f": known here are {', '.join(_known_keys(parser, text))}"
        raise UserError(text) from None


def _known_keys(parser: jsonargparse.ArgumentParser, text: str) -> list[str]:
    """The keys of the group that an error's text speaks of, else those of the loop."""
    keys = sorted(_flat(_plain(parser.get_defaults().as_dict())))
    words = text.translate(str.maketrans("'=-", "   ")).split()
    group = next((word.split(".")[0] for word in words if word.split(".")[0] in ("method", "data")), "")
    if group:
        return [key for key in keys if key.startswith(f"{group}.")]
    return [key for key in keys if "." not in key] + ["method.…", "data.…"]


def _plain(value: Any) -> Any:
    """Tuples to lists, paths to strings, as JSON and YAML have them."""
    if isinstance(value, dict):
        return {key: _plain(entry) for key, entry in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(entry) for entry in value]
    return str(value) if isinstance(value, Path) else value


def _flat(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    out: dict[str, Any] = {}
    for key, value in values.items():
        out |= _flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value}
    return out
