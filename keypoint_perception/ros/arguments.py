"""The command line of the detector node: ROS takes all arguments but --help."""

from __future__ import annotations

import textwrap
from argparse import RawDescriptionHelpFormatter
from collections.abc import Sequence
from dataclasses import fields

from rclpy.utilities import remove_ros_args

from keypoint_perception.command_line import Parser
from keypoint_perception.errors import UserError
from keypoint_perception.ros.parameters import Settings

_DESCRIPTION = """The keypoint detector: images in; keypoints, skeletons and hierarchies out. For example

  detector --ros-args -p model:=model.onnx -r image:=/camera/color/image_raw

{parameters}
While it runs, `ros2 param describe /detector NAME` explains one."""


def check_arguments(args: Sequence[str]) -> None:
    """Raises UserError where one is not for ROS, which may read all that it allows. --help ends the process."""
    names = ", ".join(f.name for f in fields(Settings))
    parser = Parser(
        prog="detector",
        usage="%(prog)s [--help] [--ros-args [-p PARAMETER:=VALUE]... [-r NAME:=NAME]... [--params-file FILE]...]",
        description=_DESCRIPTION.format(parameters=textwrap.fill(f"Parameters: {names}.", 100)),
        formatter_class=RawDescriptionHelpFormatter,
    )
    _, unknown = parser.parse_known_args(remove_ros_args(list(args)))
    if unknown:
        raise UserError(
            f"no arguments of the detector: {' '.join(unknown)}; give parameters as in --ros-args -p model:=FILE, "
            f"topics as in --ros-args -r image:=TOPIC; see {parser.prog} --help"
        )
