"""Several recordings of one scene at once, a process each."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from keypoint_perception.errors import UserError


def simulate_many(
    simulate: Callable[..., int],
    out: str | os.PathLike[str],
    configs: Sequence[Any],
    *,
    workers: int = 1,
    progress: Callable[[int, int], None] = lambda done, total: None,
    **settings: Any,
) -> None:
    """Runs `simulate(path, config, **settings)` for every config, with the paths `out`/recording_00, _01, ….

    Recordings that are there already stay. `simulate` is a module's function such as `simulate_tabletop`. `progress` is
    told how many recordings are done of how many that were missing.
    """
    for name, value in (("workers", workers), ("recordings", len(configs))):
        if value < 1:
            raise UserError(f"{name} {value}: give a number from 1")
    paths = recording_paths(out, len(configs))
    missing = [(path, config) for path, config in zip(paths, configs, strict=True) if not path.exists()]
    jobs = [(simulate, path, config, settings) for path, config in missing]
    # A forked process cannot use the rendering context of its parent.
    with multiprocessing.get_context("spawn").Pool(min(workers, max(len(jobs), 1))) as pool:
        for done, _ in enumerate(pool.imap_unordered(_run, jobs), start=1):
            progress(done, len(jobs))


def recording_paths(out: str | os.PathLike[str], count: int) -> list[Path]:
    """The bag folders that `simulate_many` makes."""
    return [Path(out) / f"recording_{number:02d}" for number in range(count)]


def _run(job: tuple[Callable[..., int], Path, Any, dict[str, Any]]) -> int:
    simulate, path, config, settings = job
    return simulate(path, config, **settings)
