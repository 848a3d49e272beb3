"""`python benchmarks/fit.py --data EPISODES [CONFIG …] [--json]`: how fast each method trains here.

Each config is trained for a few steps by `python -m training fit` in a process of its own, one after the other. Printed
are seconds a step, images a second (two a pair) and the share of time that waits for data. The last line is one JSON
object.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import yaml

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from training.checkpoint import CHECKPOINT_NAME, read_checkpoint  # noqa: E402
from training.methods import METHODS  # noqa: E402
from training.prior import Poses, write_poses  # noqa: E402

CONFIGS = ROOT / "config" / "train"


def measure(config: Path, data: list[str], steps: int) -> dict[str, float | str | int]:
    """Trains `steps` steps of a config. Raises CalledProcessError where `fit` fails; its error is on stderr."""
    method = next(m for m in sorted(METHODS, key=len, reverse=True) if config.stem.startswith(m))
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "training", "fit", method, "--config", str(config), "--data", *data]
        command += ["-o", folder, "--steps", str(steps), "--preview_steps", str(steps + 1), "--no-export"]
        if "prior_keypoints" in METHODS[method].required_keys:
            command += [f"--data.prior={some_poses(config, Path(folder))}", "--method.pretrain_steps=0"]
        subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        checkpoint = read_checkpoint(Path(folder) / CHECKPOINT_NAME)
    seconds, batch = checkpoint.about["seconds_per_step"], checkpoint.config.loop.batch_size
    return {
        "config": config.name,
        "method": method,
        "batch_size": batch,
        "seconds_per_step": seconds,
        "images_per_second": round(2 * batch / seconds, 1),
        "data_wait_share": checkpoint.about["data_wait_share"],
    }


def some_poses(config: Path, folder: Path) -> Path:
    """A file of chains as unpaired poses, with as many joints as the config wants: which ones takes no time."""
    joints = yaml.safe_load(config.read_text())["method"].get("keypoints", 12)
    steps = np.random.default_rng(0).uniform(-0.2, 0.2, (100, joints, 2))
    write_poses(folder / "poses.npz", Poses(steps.cumsum(axis=1), np.arange(joints - 1)[:, None] + (0, 1)))
    return folder / "poses.npz"


def main() -> int:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("configs", nargs="*", type=Path, help="default: config/train/*_small.yaml")
    parser.add_argument("--data", nargs="+", required=True, help="simulated episodes or recordings")
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--json", action="store_true", help="no table, only the JSON line")
    given = parser.parse_args()
    rows = []
    for config in given.configs or sorted(CONFIGS.glob("*_small.yaml")):
        rows.append(measure(config.resolve(), given.data, given.steps))
        if not given.json:
            row = rows[-1]
            print(
                f"{row['config']:<30} batch {row['batch_size']:>3}  {row['seconds_per_step']:7.3f} s a step  "
                f"{row['images_per_second']:7.1f} images/s  {row['data_wait_share']:6.2%} waiting for data",
                flush=True,
            )
    print(json.dumps({"training": rows}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
