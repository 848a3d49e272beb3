from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from full_disk import full_disk
from tiny_run import MemoryData, tiny_config, tiny_train

import training.fit
from keypoint_perception.errors import UserError
from keypoint_perception.model import read_model
from training.__main__ import main
from training.checkpoint import CHECKPOINT_NAME, build_method, read_checkpoint, write_checkpoint
from training.config import config_from_dict, parse_config
from training.fit import make_fabric, train
from training.method import OptimizerConfig
from training.trainer import Stopped, lr_factor, make_optimizer

ROOT = Path(__file__).parents[2]
SCRIPT = Path(__file__).with_name("tiny_run.py")


def start(out: Path, *flags: str, **harm: object) -> subprocess.Popen[bytes]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, str(SCRIPT), str(out), json.dumps(harm), *flags]
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)


def wait_for(path: Path, process: subprocess.Popen[bytes]) -> None:
    while not path.exists():
        assert process.poll() is None, process.stdout.read().decode()
        time.sleep(0.02)


def assert_same(a: dict, b: dict) -> None:
    assert a.keys() == b.keys()
    for key in a:
        assert torch.equal(a[key], b[key]), key


def test_a_run_leaves_checkpoint_config_previews_and_curves(tmp_path):
    tiny_train(tmp_path / "run", "--average", "0.9")
    checkpoint = read_checkpoint(tmp_path / "run")
    assert checkpoint.step == 8
    assert checkpoint.about["data"] == "memory"
    assert sorted(p.name for p in (tmp_path / "run" / "previews").iterdir()) == ["step_000004.png", "step_000008.png"]
    assert any((tmp_path / "run" / "tensorboard").iterdir())
    again = parse_config("imm", ["--config", str(tmp_path / "run" / "config.yaml")])
    assert again == checkpoint.config == tiny_config("--average", "0.9")
    averaged = checkpoint.build().state_dict()
    assert torch.equal(averaged["detector.1.weight"], checkpoint.average["detector.1.weight"])
    assert not torch.equal(averaged["detector.1.weight"], checkpoint.method["detector.1.weight"])


def test_the_same_seed_gives_the_same_run_and_another_seed_another(tmp_path):
    runs = {
        name: tiny_train(tmp_path / name, "--steps", "2", "--seed", seed)
        for name, seed in (("a", "1"), ("b", "1"), ("c", "2"))
    }
    weights = {name: run.method.detector[1].weight for name, run in runs.items()}
    assert torch.equal(weights["a"], weights["b"])
    assert not torch.equal(weights["a"], weights["c"])


def test_a_killed_run_resumes_to_the_numbers_of_an_unbroken_one(tmp_path):
    flags = ["--checkpoint_minutes", "0", "--average", "0.9"]
    tiny_train(tmp_path / "whole", *flags)
    process = start(tmp_path / "broken", *flags, pause=0.1)
    wait_for(tmp_path / "broken" / CHECKPOINT_NAME, process)
    process.kill()  # SIGKILL
    process.wait()
    stopped_at = read_checkpoint(tmp_path / "broken").step
    assert 0 < stopped_at < 8
    tiny_train(tmp_path / "broken", *flags, resume=True)
    whole, resumed = read_checkpoint(tmp_path / "whole"), read_checkpoint(tmp_path / "broken")
    assert resumed.step == whole.step == 8
    assert_same(resumed.method, whole.method)
    assert_same(resumed.average, whole.average)
    moments = [checkpoint.optimizers["main"]["state"][0]["exp_avg_sq"] for checkpoint in (whole, resumed)]
    assert torch.equal(*moments)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_the_run_with_a_checkpoint(tmp_path, number):
    data = MemoryData()
    batch = data.train.batch

    def interrupting(step: int, size: int, seed: int) -> dict:
        if step == 1:
            os.kill(os.getpid(), number)
        return batch(step, size, seed)

    data.train.batch = interrupting
    config = tiny_config()
    with pytest.raises(Stopped):
        train(config, data, tmp_path / "run", make_fabric(config))
    assert read_checkpoint(tmp_path / "run").step == 2


def test_two_processes_take_the_same_first_steps_as_one(tmp_path):
    flags = ["--steps", "3", "--preview_steps", "3", "--method.norm", "group", "--method.optimizer.lr", "1e-3"]
    flags += ["--method.running_mean_rate", "null"]  # each process has means of its own
    one = tiny_train(tmp_path / "one", *flags, "--accumulate", "2")
    process = start(tmp_path / "two", *flags, "--devices", "2")
    output = process.communicate(timeout=240)[0].decode()
    assert process.returncode == 0, output
    two = read_checkpoint(tmp_path / "two").method
    for name, value in one.method.state_dict().items():
        assert torch.allclose(two[name], value, atol=2e-5), name


@pytest.mark.parametrize(
    ("harm", "said"),
    [({"interrupt": 5}, "stopped at step 3"), ({"poison": 5}, "step 2: term reconstruction is nan")],
    ids=["signal", "not finite"],
)
def test_what_ends_the_second_of_two_processes_ends_both_alike(tmp_path, harm, said):
    process = start(tmp_path / "two", "--devices", "2", **harm)
    try:
        output = process.communicate(timeout=120)[0].decode()
    finally:
        process.kill()
    assert output.count(said) == 2, output
    assert (tmp_path / "two" / CHECKPOINT_NAME).exists() == ("interrupt" in harm)


def test_a_loss_that_is_not_finite_stops_the_run_and_names_step_term_and_checkpoint(tmp_path):
    with pytest.raises(
        UserError, match=r"step 5: term reconstruction is nan; last good checkpoint is .*checkpoint\.pt"
    ):
        tiny_train(tmp_path / "run", "--checkpoint_minutes", "0", poison=5)
    good = read_checkpoint(tmp_path / "run")
    assert good.step == 5
    assert all(torch.isfinite(value).all() for value in good.method.values() if value.is_floating_point())


def test_a_finished_folder_is_not_overwritten_and_another_run_is_not_resumed(tmp_path):
    tiny_train(tmp_path / "run", "--steps", "1")
    with pytest.raises(UserError, match="holds a run already: add --resume"):
        tiny_train(tmp_path / "run", "--steps", "1")
    with pytest.raises(UserError, match=r"method\.keypoints is 5, was 4"):
        tiny_train(tmp_path / "run", "--method.keypoints", "5", resume=True)
    assert tiny_train(tmp_path / "run", "--steps", "2", resume=True).step == 2


def test_what_cannot_be_resumed_is_said_before_anything_else(tmp_path, capsys):
    tiny_train(tmp_path / "run", "--steps", "1")
    for method, folder, words in (
        ("imm", "typo", "typo holds no run to resume: leave out --resume"),
        ("transporter", "run", "cannot be resumed: method is transporter, was imm"),
    ):
        capsys.readouterr()
        assert main(["fit", method, "--data", "nowhere", "-o", str(tmp_path / folder), "--resume"]) == 2
        assert words in capsys.readouterr().err
    assert not (tmp_path / "typo").exists()


def test_damaged_checkpoints_are_refused_in_a_line(tmp_path):
    tiny_train(tmp_path / "run", "--steps", "1")
    path = tmp_path / "run" / CHECKPOINT_NAME
    whole = path.read_bytes()
    weights = read_checkpoint(path).method["detector.1.weight"].numpy().tobytes()
    changed = whole.replace(weights, bytes(reversed(weights)))
    for content in (b"", b"hello", whole[: len(whole) // 2], changed):
        path.write_bytes(content)
        with pytest.raises(UserError, match="no whole checkpoint"):
            read_checkpoint(path)
    with pytest.raises(UserError, match="does not exist"):
        read_checkpoint(tmp_path / "nothing")


def test_a_checkpoint_of_other_layers_is_refused_in_a_line(tmp_path):
    tiny_train(tmp_path / "run", "--steps", "1")
    checkpoint = read_checkpoint(tmp_path / "run")
    other = replace(checkpoint, method=checkpoint.method | {"detector.1.weight": torch.zeros(1)})
    with pytest.raises(UserError, match=r"other layers .*: train again"):
        other.build()
    write_checkpoint(tmp_path / "run" / CHECKPOINT_NAME, other)
    with pytest.raises(UserError, match=r"other layers .*: train again"):
        tiny_train(tmp_path / "run", "--steps", "2", resume=True)


def test_a_full_disk_leaves_the_checkpoint_before(tmp_path):
    tiny_train(tmp_path / "run", "--steps", "1")
    path = tmp_path / "run" / CHECKPOINT_NAME
    whole = path.read_bytes()
    larger = replace(read_checkpoint(path), average={"large": torch.zeros(100_000)})
    words = r"cannot write .*checkpoint\.pt \(File too large\): .*make room"
    with full_disk(200_000), pytest.raises(UserError, match=words):
        write_checkpoint(path, larger)
    assert path.read_bytes() == whole and not any(path.parent.glob("*.tmp*"))


@pytest.mark.parametrize("path", sorted((ROOT / "models").glob("*.onnx")), ids=lambda path: path.stem)
def test_every_shipped_model_can_be_trained_again_from_the_options_in_it(path):
    info = read_model(path).info
    values = {"method": info.training["options"], "data": {"input_size": list(info.input_size)}}
    assert build_method(config_from_dict(info.method, values)).keypoint_count == info.keypoint_count


def test_learning_rates_follow_their_groups_and_schedules():
    step = OptimizerConfig(lr=1.0, decay=0.1, decay_steps=10)
    assert [lr_factor(step, n, 100) for n in (0, 9, 10, 25)] == pytest.approx([1, 1, 0.1, 0.01])
    cosine = OptimizerConfig(schedule="cosine")
    assert [lr_factor(cosine, n, 100) for n in (0, 50, 100)] == pytest.approx([1, 0.5, 0])
    a, b = torch.nn.Parameter(torch.zeros(1)), torch.nn.Parameter(torch.zeros(1))
    groups = [{"params": [a]}, {"params": [b], "lr_multiplier": 512.0, "weight_decay": 0.5}]
    made = make_optimizer(OptimizerConfig(name="adamw", lr=1e-3, weight_decay=0.1), groups)
    assert [group["lr"] for group in made.param_groups] == pytest.approx([1e-3, 0.512])
    assert [group["weight_decay"] for group in made.param_groups] == [0.1, 0.5]


def test_the_command_says_in_a_line_what_is_missing(capsys, tmp_path):
    (tmp_path / "file").write_text("no folder")
    for arguments, message in (
        (["fit", "imm", "--data", "nowhere", "-o", str(tmp_path / "file" / "r")], "cannot write"),
        (["fit", "imm", "-o", str(tmp_path / "r")], "no recordings given"),
        (["fit", "imm", "--roi", "0.5,1", "-o", str(tmp_path / "r")], "--roi is 0.5,1: give X0,Y0,X1,Y1"),
        (["fit", "magic", "--data", "x", "-o", str(tmp_path / "r")], "no method 'magic': allowed are imm"),
        (["export", str(tmp_path / "none"), "-o", str(tmp_path / "m.onnx")], "does not exist"),
        (["export", str(tmp_path), "-o", str(tmp_path / "m.txt")], r"must end in \.onnx"),
    ):
        assert main(arguments) == 2
        assert message.replace("\\", "") in capsys.readouterr().err


def test_methods_lists_every_option_with_default_and_comment(capsys):
    assert main(["methods"]) == 0
    assert "imm " in capsys.readouterr().out
    assert main(["methods", "imm"]) == 0
    text = capsys.readouterr().out
    assert "sigma: float = 0.1\n      Standard deviation of the Gaussian maps" in text
    assert "optimizer.lr: float = 0.01" in text
    assert "Options of the data (flags: --data.NAME VALUE" in text and "min_seconds: float | None = None\n" in text
    assert "Options of the loop (flags: --NAME VALUE" in text and "batch_size: int = 32\n      Pairs in" in text


def test_a_resumed_run_keeps_its_first_command_and_may_not_be_shorter(tmp_path):
    def train_on(steps, command, resume):
        config = tiny_config("--steps", steps)
        fabric = make_fabric(config)
        fabric.launch()
        train(config, MemoryData(), tmp_path / "run", fabric, resume, command)
        return read_checkpoint(tmp_path / "run").about["command"]

    assert train_on("4", "fit imm", False) == "fit imm"
    assert train_on("6", "fit imm --resume --steps 6", True) == "fit imm; fit imm --resume --steps 6"
    with pytest.raises(UserError, match=r"steps is 5 and .*run has 6 behind it: give as many or more"):
        train_on("5", "", True)


def test_a_run_goes_on_without_its_config_file_and_a_damaged_one_is_named(tmp_path, monkeypatch, capsys):
    tiny_train(tmp_path / "run", "--steps", "2")
    ran = []
    monkeypatch.setattr(training.fit, "load_data", lambda config, progress: None)
    monkeypatch.setattr(training.fit, "train", lambda config, *_: ran.append(config))
    resume = ["fit", "imm", "-o", str(tmp_path / "run"), "--resume", "--no-export"]
    (tmp_path / "run" / "config.yaml").unlink()
    assert main(resume) == 0
    assert ran == [tiny_config("--steps", "2")]
    (tmp_path / "run" / "config.yaml").write_text("steps: [2")
    assert main(resume) == 2
    assert f"{tmp_path / 'run' / 'config.yaml'} is no YAML" in capsys.readouterr().err


def test_a_run_goes_on_where_its_recordings_have_moved_to(tmp_path):
    tiny_train(tmp_path / "run", "--steps", "2")
    moved = ["--data.sources", '["elsewhere"]', "--data.store", "frames"]
    assert tiny_train(tmp_path / "run", "--steps", "3", *moved, resume=True).step == 3


def test_recordings_may_have_any_name(tmp_path, monkeypatch):
    seen = []
    monkeypatch.setattr(training.fit, "load_data", lambda config, progress: seen.append(config.sources))
    monkeypatch.setattr(training.fit, "train", lambda *arguments: None)
    training.fit.main(["imm", "--data", "emoji😀", "a b", "-o", str(tmp_path / "run"), "--no-export"])
    assert seen == [["emoji😀", "a b"]]
