"""Starts the keypoint detector; with no argument on the shipped model and the topic `image`.

ros2 launch keypoint_perception detector.launch.py image:=/camera/color/image_raw
ros2 launch keypoint_perception detector.launch.py cameras:=left,right image:=/{camera}/image_raw
"""

import os

from ament_index_python.packages import PackageNotFoundError, get_package_prefix
from launch.actions import DeclareLaunchArgument, ExecuteProcess, OpaqueFunction, SetEnvironmentVariable
from launch.substitutions import LaunchConfiguration, PathJoinSubstitution
from launch_ros.actions import Node
from launch_ros.substitutions import FindPackageShare

from launch import LaunchContext, LaunchDescription

SHARE = FindPackageShare("keypoint_perception")
KEEP = "Empty: as in params_file."
ARGUMENTS = [
    DeclareLaunchArgument("model", default_value="", description=f"Model file (.onnx). {KEEP}"),
    DeclareLaunchArgument(
        "backend",
        default_value="",
        description=f"Inference engine: auto measures and takes the fastest; onnxruntime, openvino, tensorrt. {KEEP}",
    ),
    DeclareLaunchArgument("threads", default_value="", description=f"CPU threads of one inference. {KEEP}"),
    DeclareLaunchArgument(
        "cameras",
        default_value="",
        description="Camera names, separated by commas. With several, the topics of each are below its name, and "
        f"{{camera}} in a topic argument stands for it. {KEEP} Then topic arguments are for a single camera.",
    ),
    DeclareLaunchArgument(
        "image",
        default_value="image",
        description="Image topic, such as /camera/color/image_raw or /{camera}/image_raw.",
    ),
    DeclareLaunchArgument(
        "compressed",
        default_value="",
        choices=["", "true", "false"],
        description=f"Whether the image topic carries sensor_msgs/CompressedImage. {KEEP}",
    ),
    DeclareLaunchArgument(
        "camera_info",
        default_value="",
        description="Calibration topic. Empty: camera_info beside the image topic.",
    ),
    DeclareLaunchArgument(
        "depth",
        default_value="",
        description="Topic of depth that is aligned with the image; keypoints are then in 3-D. Empty: no depth.",
    ),
    DeclareLaunchArgument(
        "depth_compressed",
        default_value="false",
        choices=["true", "false"],
        description="Whether the depth topic carries sensor_msgs/CompressedImage.",
    ),
    DeclareLaunchArgument(
        "rectified",
        default_value="",
        choices=["", "true", "false"],
        description="Whether the images are rectified (image_rect): P of camera_info then holds for them, not K with "
        f"D. {KEEP}",
    ),
    DeclareLaunchArgument(
        "rviz",
        default_value="false",
        choices=["true", "false"],
        description="Start RViz on the overlay and the markers; of several cameras given here, on those of the first.",
    ),
    DeclareLaunchArgument(
        "frame",
        default_value="",
        description="Fixed frame of RViz: the images' frame_id, such as camera_color_optical_frame, or one that tf "
        "joins to it. Empty: that of the recording in demo/.",
    ),
    DeclareLaunchArgument("bag", default_value="", description="A rosbag2 to play into the graph. Empty: none."),
    DeclareLaunchArgument("namespace", default_value="", description="Namespace of the node and its topics."),
    DeclareLaunchArgument("name", default_value="detector", description="Name of the node."),
    DeclareLaunchArgument(
        "params_file",
        default_value=PathJoinSubstitution([SHARE, "config", "detector.yaml"]),
        description="Parameters of the node (YAML); arguments given here overrule it.",
    ),
    DeclareLaunchArgument(
        "autostart",
        default_value="",
        choices=["", "true", "false"],
        description=f"Whether the node configures and activates itself. {KEEP}",
    ),
    DeclareLaunchArgument(
        "use_sim_time",
        default_value="",
        choices=["", "true", "false"],
        description=f"Whether time comes from /clock, which a bag that is played here then publishes. {KEEP}",
    ),
    DeclareLaunchArgument(
        "log_level",
        default_value="info",
        choices=["debug", "info", "warn", "error", "fatal"],
        description="Least severity that is logged.",
    ),
    DeclareLaunchArgument(
        "fastdds_profile",
        default_value=PathJoinSubstitution([SHARE, "config", "fastdds.xml"]),
        description="Fast DDS profile with room for images in shared memory; empty to leave the middleware alone. The "
        "camera driver should be started with it too. Not used where the environment names a profile.",
    ),
]
PROFILE_VARIABLES = ("FASTRTPS_DEFAULT_PROFILES_FILE", "FASTDDS_DEFAULT_PROFILES_FILE")


def generate_launch_description() -> LaunchDescription:
    """The arguments, and what is made of their values."""
    return LaunchDescription([*ARGUMENTS, OpaqueFunction(function=start)])


def start(context: LaunchContext) -> list:
    """The actions for the arguments' values."""
    value = {argument.name: LaunchConfiguration(argument.name).perform(context) for argument in ARGUMENTS}
    cameras = [name.strip() for name in value["cameras"].split(",") if name.strip()]
    check(value, cameras)
    actions: list = []
    if value["fastdds_profile"] and not any(os.environ.get(variable) for variable in PROFILE_VARIABLES):
        actions += [SetEnvironmentVariable(variable, value["fastdds_profile"]) for variable in PROFILE_VARIABLES]
    actions.append(
        Node(
            package="keypoint_perception",
            executable="detector",
            name=value["name"],
            namespace=value["namespace"],
            parameters=[value["params_file"], *filter(None, [parameters(value, cameras)])],
            remappings=remappings(value, cameras),
            ros_arguments=["--log-level", f"{logger(value)}:={value['log_level']}"],
            output="screen",
        )
    )
    if value["rviz"] == "true":
        actions.append(rviz(value, cameras))
    if value["bag"]:
        clock = ["--clock"] if value["use_sim_time"] == "true" else []
        actions.append(ExecuteProcess(cmd=["ros2", "bag", "play", value["bag"], *clock], output="screen"))
    return actions


def rviz(value: dict, cameras: list) -> Node:
    """RViz on the topics, the clock and the frame that were asked for."""
    config = PathJoinSubstitution([SHARE, "config", "detector.rviz"])
    node = "/".join(["", *filter(None, value["namespace"].split("/")), value["name"]])
    prefix = f"{cameras[0]}/" if len(cameras) > 1 else ""
    return Node(
        package="rviz2",
        executable="rviz2",
        arguments=["-d", config, *(["-f", value["frame"]] if value["frame"] else [])],
        parameters=[{"use_sim_time": value["use_sim_time"] == "true"}] if value["use_sim_time"] else [],
        remappings=[(f"/detector/{topic}", f"{node}/{prefix}{topic}") for topic in ("overlay", "markers")],
        output="screen",
    )


def check(value: dict, cameras: list) -> None:
    """Raises RuntimeError for what cannot start. Later would be too late: what runs by then outlives the launch."""
    if value["threads"] and not (value["threads"].isdecimal() and int(value["threads"]) > 0):
        raise RuntimeError(f"threads is {value['threads']!r}: give a whole number from 1")
    for name in ("image", "camera_info", "depth"):
        if "{camera}" in value[name] and not cameras:
            raise RuntimeError(f"{name} is {value[name]!r}: say which cameras there are, as in cameras:=left,right")
        if len(cameras) > 1 and "{camera}" not in value[name] and value[name] not in ("", "image"):
            raise RuntimeError(f"{name} is {value[name]!r} for all cameras: write {{camera}} where their names are")
    if not os.path.isfile(value["params_file"]):
        raise RuntimeError(f"params_file {value['params_file']} is not there: give a YAML file of parameters")
    if value["bag"] and not os.path.exists(value["bag"]):
        raise RuntimeError(f"bag {value['bag']} is not there: give the folder of a rosbag2")
    for argument, package in (("rviz", "rviz2"), ("bag", "ros2bag")):
        if value[argument] not in ("", "false") and not installed(package):
            raise RuntimeError(
                f"{argument}:={value[argument]} needs the package {package}: install it, or leave {argument} out"
            )


def logger(value: dict) -> str:
    """The name of the node's logger, which has its namespace in it."""
    return ".".join(part for part in (*value["namespace"].split("/"), value["name"]) if part)


def installed(package: str) -> bool:
    """Whether a ROS package is in the environment."""
    try:
        get_package_prefix(package)
    except PackageNotFoundError:
        return False
    return True


def parameters(value: dict, cameras: list) -> dict:
    """What was given as an argument, and only that, overrules the parameter file."""
    given: dict = {name: value[name] for name in ("model", "backend") if value[name]}
    if value["threads"]:
        given["threads"] = int(value["threads"])
    given |= {name: value[name] == "true" for name in ("autostart", "rectified", "use_sim_time") if value[name]}
    if cameras:
        given["cameras"] = cameras
    if value["compressed"]:
        given["image_transport"] = "compressed" if value["compressed"] == "true" else "raw"
    if value["depth"]:
        given["depth_transport"] = "compressed" if value["depth_compressed"] == "true" else "raw"
    return given


def remappings(value: dict, cameras: list) -> list:
    """From the node's topics to those of the arguments, for each camera."""
    pairs = []
    for camera in cameras or [""]:
        prefix = f"{camera}/" if len(cameras) > 1 else ""
        topics = {name: value[name].replace("{camera}", camera) for name in ("image", "camera_info", "depth")}
        if topics["image"] == "image":
            topics["image"] = f"{prefix}image"
        topics["camera_info"] = topics["camera_info"] or beside(topics["image"], "camera_info")
        pairs += [(f"{prefix}{name}", topic) for name, topic in topics.items() if topic and topic != f"{prefix}{name}"]
    return pairs


def beside(image: str, name: str) -> str:
    """The topic `name` in the namespace of an image topic; a transport at its end is no part of that."""
    base = image.removesuffix("/compressed")
    return f"{base.rpartition('/')[0]}/{name}" if "/" in base else name
