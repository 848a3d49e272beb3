"""In which number format a run computes: what this machine is fast at, unless the config insists."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from lightning_fabric.plugins.precision import MixedPrecision

from training.config import RunConfig

_BF16_INSTRUCTIONS = ("avx512_bf16", "amx_bf16", "bf16", "sve_bf16")
"""Names of torch.cpu.get_capabilities: the first two are of x86-64, the others of 64-bit Arm."""


class AutocastAlone(MixedPrecision):
    """bf16 in the layers where it is fast. Pictures and poses keep their digits: losses compare with them."""

    def __init__(self, accelerator: str) -> None:
        """accelerator: auto, cpu or gpu."""
        super().__init__("bf16-mixed", "cuda" if accelerator != "cpu" and torch.cuda.is_available() else "cpu")

    def convert_input(self, data: Any) -> Any:
        """The batch as it is; Lightning would round it to bf16, a pose to 1/256 of the picture."""
        return data


def processor_has_bf16(capabilities: Mapping[str, Any] | None = None) -> bool:
    """Whether a processor multiplies bfloat16 itself; where it does not, bf16 is several times slower than fp32."""
    known = torch.cpu.get_capabilities() if capabilities is None else capabilities
    return any(known.get(name, False) for name in _BF16_INSTRUCTIONS)


def has_bf16(accelerator: str) -> bool:
    """Whether what `accelerator` (auto, cpu or gpu) stands for on this machine computes in bfloat16 natively."""
    if accelerator != "cpu" and torch.cuda.is_available():
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return processor_has_bf16()


def resolve_precision(config: RunConfig, before: RunConfig | None = None) -> RunConfig:
    """The config with `precision: auto` replaced by what this machine is fast at; of a resumed run by what it had.

    Prints a warning where the config asks for bf16 and the machine has to emulate it.
    """
    loop = config.loop
    native = has_bf16(loop.accelerator)
    if loop.precision == "auto":
        chosen = before.loop.precision if before is not None else "bf16" if native else "fp32"
        return replace(config, loop=replace(loop, precision=chosen))
    if loop.precision == "bf16" and not native:
        print(
            "warning: no bf16 instructions here, which makes precision bf16 several times slower than fp32: start runs"
            " with --precision auto",
            file=sys.stderr,
        )
    return config
