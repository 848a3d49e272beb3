"""What `precision: auto` chooses, and that a resumed run keeps it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from tiny_run import tiny_config

import training.fit
import training.precision
from keypoint_perception.errors import UserError
from training.checkpoint import CHECKPOINT_NAME, Checkpoint, write_checkpoint
from training.config import RunConfig
from training.fit import make_fabric
from training.precision import processor_has_bf16, resolve_precision


def config_of(precision: str) -> RunConfig:
    return tiny_config("--precision", precision)


@pytest.mark.parametrize(
    ("capabilities", "native"),
    [
        ({"architecture": "x86_64", "avx2": True, "avx512_f": True, "avx512_bf16": False}, False),
        ({"architecture": "x86_64", "avx512_bf16": True}, True),
        ({"architecture": "x86_64", "amx_bf16": True}, True),
        ({"architecture": "aarch64", "neon": True, "fp16_arith": True}, False),
        ({"architecture": "aarch64", "bf16": True}, True),
    ],
)
def test_a_processor_has_bf16_where_it_has_instructions_for_it(capabilities: dict, native: bool) -> None:
    assert processor_has_bf16(capabilities) is native


@pytest.mark.parametrize(("native", "chosen"), [(True, "bf16"), (False, "fp32")])
def test_auto_is_what_the_machine_is_fast_at(monkeypatch, native: bool, chosen: str) -> None:
    monkeypatch.setattr(training.precision, "has_bf16", lambda accelerator: native)
    config = resolve_precision(config_of("auto"))
    assert config.loop.precision == chosen
    assert replace(config, loop=replace(config.loop, precision="auto")) == config_of("auto")  # nothing else changes
    assert make_fabric(config)


def test_a_device_that_is_not_there_is_told_with_what_to_do(monkeypatch) -> None:
    def refuse(**_: Any) -> None:
        raise RuntimeError("No supported gpu backend found!")

    monkeypatch.setattr("lightning_fabric.Fabric", refuse)
    with pytest.raises(UserError, match=r"1 gpu device.*backend found: use --accelerator cpu, or fewer --devices$"):
        make_fabric(tiny_config("--accelerator", "gpu"))


@pytest.mark.parametrize("before", ["bf16", "fp32"])
def test_auto_keeps_what_a_resumed_run_had(monkeypatch, before: str) -> None:
    monkeypatch.setattr(training.precision, "has_bf16", lambda accelerator: before == "fp32")
    resumed = resolve_precision(config_of("auto"), config_of(before))
    assert resumed.loop.precision == before
    assert not resumed.differences(config_of(before))


def test_emulated_bf16_is_warned_about_with_the_remedy(monkeypatch, capsys) -> None:
    for native in (True, False):
        monkeypatch.setattr(training.precision, "has_bf16", lambda accelerator, native=native: native)
        assert resolve_precision(config_of("bf16")) == config_of("bf16")
        assert resolve_precision(config_of("fp32")) == config_of("fp32")
        assert ("--precision auto" in capsys.readouterr().err) is not native


def test_fit_settles_the_precision_and_resumes_with_it(tmp_path, monkeypatch) -> None:
    seen: list[RunConfig] = []
    monkeypatch.setattr(training.fit, "load_data", lambda config, progress: None)
    monkeypatch.setattr(training.fit, "train", lambda config, *rest: seen.append(config))
    arguments = ["imm", "--accelerator", "cpu", "--data", "x", "-o", str(tmp_path), "--no-export", "--precision=auto"]
    for native, before, expected in ((False, None, "fp32"), (True, None, "bf16"), (True, "fp32", "fp32")):
        monkeypatch.setattr(training.precision, "has_bf16", lambda accelerator, native=native: native)
        if before:
            run = Checkpoint(config_of(before), step=0, method={}, optimizers={}, average=None, about={})
            write_checkpoint(tmp_path / CHECKPOINT_NAME, run)
        training.fit.main([*arguments, *(["--resume"] if before else [])])
        assert seen[-1].loop.precision == expected


def test_bf16_is_for_layers_and_not_for_the_batch() -> None:
    """A pose rounded to bf16 would be up to 1/512 off, a fifth of a pixel."""

    class Probe(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = torch.nn.Linear(1, 1)

        def forward(self, batch: dict[str, torch.Tensor]) -> torch.Tensor:
            assert self.layer(batch["x"]).dtype == torch.bfloat16
            return batch["x"]

    config = config_of("bf16")
    fabric = make_fabric(replace(config, loop=replace(config.loop, accelerator="cpu")))
    assert fabric.setup_module(Probe())({"x": torch.tensor([[0.7001]])}).item() == pytest.approx(0.7001, abs=1e-6)
