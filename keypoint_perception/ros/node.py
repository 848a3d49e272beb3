"""The detector node as a process: `ros2 run keypoint_perception detector`, `python -m keypoint_perception.ros.node`.

Little is imported here before signals are taken care of: the rest needs most of a second.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Sequence


def main(args: Sequence[str] | None = None) -> int:
    """Runs the detector until it is told to end; the exit status. args: command line, None for the process' own."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: os._exit(0))  # until run_node has its own; nothing is open yet
    from keypoint_perception.ros.arguments import check_arguments
    from keypoint_perception.ros.lifecycle import DetectorNode
    from keypoint_perception.ros.process import run_node

    def create() -> DetectorNode:
        check_arguments(sys.argv[1:] if args is None else args)
        return DetectorNode()

    return run_node(create, args)


if __name__ == "__main__":
    raise SystemExit(main())
