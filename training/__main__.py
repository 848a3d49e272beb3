"""The command line of the offline half: `python -m training COMMAND --help`."""

from __future__ import annotations

import importlib
import sys

from keypoint_perception.command_line import run_command

COMMANDS = {
    "simulate": ("training.simulation.command", "make recordings of simulated robots, with exact ground truth"),
    "inspect": ("training.data.inspect", "say what is in a recording and what of it can be trained on"),
    "methods": ("training.methods.command", "list the methods and the options of one"),
    "fit": ("training.fit", "train a model from a recording"),
    "export": ("training.export", "write a trained model as one .onnx file"),
    "evaluate": ("training.evaluation.evaluate", "measure a model on data with known joints"),
    "benchmark": ("training.evaluation.benchmark", "train and measure many methods on many scenes, in one table"),
}
"""Command to the module whose `main(argv) -> int` runs it (imported only then) and what it does."""


def usage() -> str:
    """The list of commands."""
    lines = [f"  {name:<10} {purpose}" for name, (_, purpose) in COMMANDS.items()]
    return "usage: python -m training COMMAND [--help] …\n\n" + "\n".join(lines)


def main(argv: list[str]) -> int:
    """Runs one command. Returns its exit status; a UserError is printed as one line and gives 2."""
    if not argv or argv[0] in ("-h", "--help"):
        print(usage())
        return 0 if argv else 2
    if argv[0] not in COMMANDS:
        print(f"error: no command {argv[0]!r}: allowed are {', '.join(COMMANDS)}", file=sys.stderr)
        return 2
    return run_command(lambda: importlib.import_module(COMMANDS[argv[0]][0]).main(argv[1:]))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
