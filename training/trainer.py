"""One training run, step by step, the same for every method; nothing here belongs to one paper."""

from __future__ import annotations

import copy
import math
import platform
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import lightning_fabric
import numpy as np
import torch
from torch import Tensor, nn

from keypoint_perception.drawing import write_png
from keypoint_perception.errors import UserError
from training.checkpoint import CHECKPOINT_NAME, Checkpoint, build_method, restore, write_checkpoint
from training.config import RunConfig
from training.data import loader
from training.method import Batch, Method, OptimizerConfig
from training.networks import update_average
from training.preview import preview
from training.progress import Progress

PREVIEW_FOLDER = "previews"
PREVIEW_SEED = 0


class Stopped(KeyboardInterrupt):
    """The run was asked to stop and has written its checkpoint."""


class Objective(nn.Module):
    """A method's losses as a forward pass, so that DistributedDataParallel and autocast see it."""

    def __init__(self, method: Method) -> None:
        super().__init__()
        self.method = method

    def forward(self, batch: Batch, phase: str) -> dict[str, Tensor]:
        """See Method.loss."""
        return self.method.loss(batch, phase)


class Trainer:
    """One run: a method, its optimisers and the steps done. `data` is what `training.data.load_data` returns."""

    def __init__(self, config: RunConfig, data: Any, out: Path, fabric: lightning_fabric.Fabric, command: str) -> None:
        self.config, self.data, self.out, self.fabric, self.command = config, data, out, fabric, command
        torch.manual_seed(config.loop.seed)
        self.method = build_method(config)
        self.average = copy.deepcopy(self.method).requires_grad_(False).eval() if config.loop.average else None
        self.step = 0
        self.seconds = 0.0
        self.optimizers: dict[str, Any] = {}
        objective: Any = Objective(self.method)
        self.objective: Any = fabric.setup_module(objective.to(memory_format=torch.channels_last))
        if self.average is not None:
            self.average.to(fabric.device)
        self.stop_signal: int | None = None
        self.wait_share = 0.0

    # ------------------------------------------------------------------------------------------------ steps

    def run(self) -> None:
        """Trains from `self.step` to the configured number of steps; writes checkpoints and previews on the way."""
        loop = self.config.loop
        started, before = time.monotonic(), self.seconds
        saved = started
        batches = self._batches()
        past = (before, before * self.wait_share)
        with Progress(self.out, self.step, loop.steps, loop.log_steps, self.fabric.is_global_zero, past) as progress:
            while self.step < loop.steps:
                micro_batches = self._next(batches, progress)
                terms = self._train_step(micro_batches)
                self.step += 1
                self.seconds = before + time.monotonic() - started
                progress.step(self.step, terms, self._rates())
                self.wait_share = progress.wait_share
                if self.step % loop.preview_steps == 0 or self.step == loop.steps:
                    self._preview(progress)
                overdue = time.monotonic() - saved > loop.checkpoint_minutes * 60
                stop, save = self._any_process(self.stop_signal is not None, overdue)
                if stop or save:
                    self.save()
                    saved = time.monotonic()
                if stop:
                    raise Stopped(f"stopped at step {self.step}")
            self.save()
            speed = f"{self.seconds / self.step:.3f} s a step, {progress.wait_share:.1%} of it waiting for data"
            progress.say(f"trained {self.step} steps in {self.seconds / 60:.1f} min, {speed}")

    def _any_process(self, *here: bool) -> list[bool]:
        """Whether each is true in any process: clocks and signals differ, and whoever saves alone waits for ever."""
        flags = torch.tensor(here, dtype=torch.int32, device=self.fabric.device)
        return self.fabric.strategy.all_reduce(flags, reduce_op="max").bool().tolist()

    def _train_step(self, micro_batches: list[Batch]) -> dict[str, float]:
        """Every phase of one step. Returns the loss terms, averaged over the micro-batches and processes.

        Raises UserError where a term or gradient is not finite; in all processes, as none may wait for another.
        """
        self.method.step = self.step
        self.objective.train()
        seen: dict[str, float] = {}
        for number, phase in enumerate(self.method.phases(self.step)):
            optimizer = self._optimizer(phase)
            self._set_rates(phase)
            self.objective.zero_grad(set_to_none=True)
            for index, batch in enumerate(micro_batches):
                torch.manual_seed(self._noise_seed(index, number))
                last = index == len(micro_batches) - 1
                with self.fabric.no_backward_sync(self.objective, enabled=not last):
                    terms = self.objective(batch, phase)
                    total = torch.stack([term.float() for term in terms.values()]).sum() / len(micro_batches)
                    means = torch.stack([term.detach().float() for term in terms.values()])
                    values = self.fabric.strategy.all_reduce(means).tolist()
                    self._check(dict(zip(terms, values, strict=True)))
                    self.fabric.backward(total)
                for name, value in zip(terms, values, strict=True):
                    seen[name] = seen.get(name, 0.0) + value / len(micro_batches)
            self._clip(optimizer)
            optimizer.step()
        if self.average is not None:
            rate = min(self.config.loop.average, (1 + self.step) / (10 + self.step))
            update_average(self.average, self.method, rate)
        return seen

    def _check(self, terms: dict[str, float]) -> None:
        for name, value in terms.items():
            if not math.isfinite(value):
                raise self._diverged(f"term {name} is {value}")

    def _clip(self, optimizer: Any) -> None:
        parameters = [p for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
        norm = torch.nn.utils.get_total_norm([p.grad for p in parameters])
        if not bool(torch.isfinite(norm)):
            raise self._diverged(f"the norm of the gradients is {float(norm)}")
        settings = self.method.optimizer
        if settings.clip_norm is not None:
            torch.nn.utils.clip_grads_with_norm_(parameters, settings.clip_norm, norm)
        if settings.clip_value is not None:
            torch.nn.utils.clip_grad_value_(parameters, settings.clip_value)

    def _diverged(self, what: str) -> UserError:
        path = self.out / CHECKPOINT_NAME
        good = f"last good checkpoint is {path}" if path.exists() else "no checkpoint was written yet"
        return UserError(
            f"step {self.step}: {what}; {good}: train again with a smaller --method.optimizer.lr or another --seed"
        )

    def _noise_seed(self, index: int, phase: int) -> int:
        """Seed of everything random in one forward pass: a function of the batch, so that resuming repeats it."""
        batch = (self.step * self.config.loop.accumulate + index) * self.fabric.world_size + self.fabric.global_rank
        return int(np.random.SeedSequence((self.config.loop.seed, batch, phase)).generate_state(1)[0])

    # --------------------------------------------------------------------------------------------- optimisers

    def _optimizer(self, phase: str) -> Any:
        if phase not in self.optimizers:
            made = make_optimizer(self.method.optimizer, self.method.param_groups(phase))
            self.optimizers[phase] = self.fabric.setup_optimizers(made)
        return self.optimizers[phase]

    def _set_rates(self, phase: str) -> None:
        settings = self.method.optimizer
        rate = settings.lr * lr_factor(settings, self.step, self.config.loop.steps)
        for group in self.optimizers[phase].param_groups:
            group["lr"] = rate * group["lr_multiplier"]

    def _rates(self) -> dict[str, float]:
        return {
            f"{phase}/{index}": float(group["lr"])
            for phase, optimizer in self.optimizers.items()
            for index, group in enumerate(optimizer.param_groups)
        }

    # --------------------------------------------------------------------------------------------------- data

    def _batches(self) -> Iterator[Batch]:
        loop = self.config.loop
        start, count = self.step * loop.accumulate, (loop.steps - self.step) * loop.accumulate
        rank, world = self.fabric.global_rank, self.fabric.world_size
        return loader(self.data.train, start, count, loop.batch_size, loop.seed, loop.workers, rank, world)

    def _next(self, batches: Iterator[Batch], progress: Progress) -> list[Batch]:
        begin = time.perf_counter()
        micro_batches = [self._prepare(next(batches)) for _ in range(self.config.loop.accumulate)]
        progress.waiting(time.perf_counter() - begin)
        return micro_batches

    def _prepare(self, batch: Batch) -> Batch:
        missing = sorted(type(self.method).required_keys - set(batch))
        if missing:
            raise UserError(
                f"{self.config.name} needs {', '.join(missing)}, which this data does not give: see --data.pairs and"
                " --data.prior"
            )
        moved = self.fabric.to_device(dict(batch))
        for key, value in moved.items():
            if value.ndim == 4:
                moved[key] = value.contiguous(memory_format=torch.channels_last)
        return moved

    # ---------------------------------------------------------------------------------------------- on disk

    def _preview(self, progress: Progress) -> None:
        """Validation losses, and pictures under previews/; by the first process alone."""
        if self.fabric.is_global_zero:
            self.method.eval()
            shown = self.method if self.average is None else self.average
            batch = self._prepare(self.data.validation.batch(0, self.config.loop.batch_size, PREVIEW_SEED))
            torch.manual_seed(PREVIEW_SEED)
            with torch.no_grad(), self.fabric.autocast():
                for phase in self.method.phases(self.step):
                    terms = {name: float(value) for name, value in self.method.loss(batch, phase).items()}
                    progress.scalars(self.step, terms, "validation")
                picture = preview(shown, batch)
            write_png(self.out / PREVIEW_FOLDER / f"step_{self.step:06d}.png", picture)
            progress.picture(self.step, picture)
        self.fabric.barrier()

    def save(self) -> None:
        """Writes the checkpoint; by the first process alone."""
        if self.fabric.is_global_zero:
            write_checkpoint(self.out / CHECKPOINT_NAME, self._checkpoint())
        self.fabric.barrier()

    def _checkpoint(self) -> Checkpoint:
        about = {
            "command": self.command,
            "data": self.data.fingerprint,
            "minutes": round(self.seconds / 60, 2),
            "seconds_per_step": round(self.seconds / max(self.step, 1), 4),
            "data_wait_share": round(self.wait_share, 4),
            "machine": f"{platform.machine()}, {self.fabric.device.type}, {self.fabric.world_size} process(es)",
            "training_precision": self.config.loop.precision,
            "torch": torch.__version__,
        }
        average = None if self.average is None else self.average.state_dict()
        optimizers = {phase: optimizer.state_dict() for phase, optimizer in self.optimizers.items()}
        return Checkpoint(self.config, self.step, self.method.state_dict(), optimizers, average, about)

    def resume(self, checkpoint: Checkpoint) -> None:
        """Continues from a checkpoint of this run. Raises UserError where it is of another one."""
        different = self.config.differences(checkpoint.config)
        if checkpoint.about["data"] != self.data.fingerprint:
            different.append("the recordings, or the poses of data.prior, have changed")
        if different:
            raise UserError(f"{self.out} cannot be resumed: {'; '.join(different)}: start a new run with another -o")
        restore(self.method, checkpoint.method)
        if self.average is not None and checkpoint.average is not None:
            restore(self.average, checkpoint.average)
        for phase, state in checkpoint.optimizers.items():
            self._optimizer(phase).load_state_dict(state)
        self.step, self.seconds = checkpoint.step, 60 * checkpoint.about["minutes"]
        self.wait_share = checkpoint.about["data_wait_share"]
        if self.step > self.config.loop.steps:
            given = f"steps is {self.config.loop.steps} and {self.out} has {self.step} behind it"
            raise UserError(f"{given}: give as many or more, or leave --steps out")
        self.command = f"{checkpoint.about['command']}; {self.command}"


def make_optimizer(settings: OptimizerConfig, groups: Any) -> torch.optim.Optimizer:
    """Adam or AdamW over a phase's parameter groups, each with its learning-rate multiplier."""
    made = []
    for group in groups:
        parameters = [p for p in group["params"] if p.requires_grad]
        multiplier = group.get("lr_multiplier", 1.0)
        made.append({**group, "params": parameters, "lr_multiplier": multiplier, "lr": settings.lr * multiplier})
    kind = torch.optim.AdamW if settings.name == "adamw" else torch.optim.Adam
    first, second = settings.betas
    return kind(made, lr=settings.lr, betas=(first, second), weight_decay=settings.weight_decay)


def lr_factor(settings: OptimizerConfig, step: int, steps: int) -> float:
    """What the learning rate is multiplied by at `step` of `steps`."""
    if settings.schedule == "cosine":
        return 0.5 * (1 + math.cos(math.pi * min(step / steps, 1.0)))
    return settings.decay ** (step // settings.decay_steps)
