"""What is read of a bag with ground truth."""

import numpy as np
import pytest

from keypoint_perception.errors import UserError
from training.evaluation.reading import read_labelled
from training.simulation.bag import new_bag

FRAMES, WIDTH, HEIGHT = 4, 8, 6
POSE = ((1.0, 2.0, 1), (5.0, 3.0, 2))
"""u, v and state of each joint: the second is occluded."""


def write_camera(bag, camera, depth_every=0):
    for number in range(FRAMES):
        stamp = number * 10**8
        header = bag.header(stamp, camera)
        picture = np.full((HEIGHT, WIDTH, 3), number, np.uint8)
        bag.send_image(f"{camera}/image_raw", header, "rgb8", picture, stamp)
        write_truth(bag, camera, header, stamp)
        if depth_every and number % depth_every == 0:
            metres = np.full((HEIGHT, WIDTH), 1500 + number, np.uint16)
            bag.send_image(f"{camera}/depth/image_raw", header, "16UC1", metres, stamp)


def write_truth(bag, camera, header, stamp):
    point = bag.make("geometry_msgs/msg/Point", x=0.1, y=0.2, z=1.5)
    keypoints = [
        bag.make(
            "keypoint_perception_msgs/msg/Keypoint", id=number, name=f"joint_{number}", state=state, score=1.0, u=u,
            v=v, position=point, position_stddev=0.0,
        )
        for number, (u, v, state) in enumerate(POSE)
    ]  # fmt: skip
    bag.send(
        f"{camera}/ground_truth/keypoints", "keypoint_perception_msgs/msg/KeypointArray", stamp, header=header,
        model_id="", image_width=WIDTH, image_height=HEIGHT, position_frame_id=camera, keypoints=keypoints,
    )  # fmt: skip
    one, zero = np.ones(1, np.uint16), np.zeros(1, np.uint16)
    bag.send(
        f"{camera}/ground_truth/skeleton", "keypoint_perception_msgs/msg/SkeletonGraph", stamp, header=header,
        model_id="", edge_source=zero, edge_target=one, edge_weight=np.ones(1, np.float32),
        edge_length=np.ones(1, np.float32),
    )  # fmt: skip
    roi = bag.make(
        "sensor_msgs/msg/RegionOfInterest", x_offset=0, y_offset=0, height=0, width=0, do_rectify=False
    )  # fmt: skip
    matrix = np.array([10.0, 0, 3.5, 0, 10, 2.5, 0, 0, 1])
    bag.send(
        f"{camera}/camera_info", "sensor_msgs/msg/CameraInfo", stamp, header=header, height=HEIGHT, width=WIDTH,
        distortion_model="plumb_bob", d=np.zeros(5), k=matrix, r=np.eye(3).ravel(), p=np.zeros(12), binning_x=0,
        binning_y=0, roi=roi,
    )  # fmt: skip


def test_frames_truth_skeleton_and_depth(tmp_path):
    with new_bag(tmp_path / "one") as bag:
        write_camera(bag, "/table", depth_every=3)
    (video,) = read_labelled(tmp_path / "one")
    assert video.frames[:, 0, 0, 0].tolist() == [0, 1, 2, 3] and video.names == ("joint_0", "joint_1")
    assert video.joints[2].tolist() == [[1, 2], [5, 3]] and video.visible[2].tolist() == [True, False]
    assert video.adjacency.tolist() == [[False, True], [True, False]]
    assert sorted(video.depth.images) == [0, 3] and video.depth.images[3][0, 0] == pytest.approx(1.503)
    assert video.depth.joints.shape == (FRAMES, 2, 3) and video.depth.intrinsics.matrix[0, 0] == 10


def test_a_folder_of_bags_is_a_video_a_bag(tmp_path):
    for name in ("b", "a"):
        with new_bag(tmp_path / name) as bag:
            write_camera(bag, "/table")
    videos = list(read_labelled(tmp_path))
    assert [video.name for video in videos] == ["a", "b"] and videos[0].variant == videos[1].variant
    names = tmp_path / "fit.txt"
    names.write_text("b\n")
    assert [video.fit.all() for video in read_labelled(tmp_path, fit_on=names)] == [False, True]
    assert videos[0].depth is None
    for text, message in (("b/\n", "names none of the 2"), ("a\nb\n", "names all of the 2 .* such as a, ")):
        names.write_text(text)
        with pytest.raises(UserError, match=message):
            next(read_labelled(tmp_path, fit_on=names))


def test_of_two_cameras_one_is_chosen(tmp_path):
    with new_bag(tmp_path / "two") as bag:
        write_camera(bag, "/table")
        write_camera(bag, "/table_left")
    with pytest.raises(UserError, match="/table/image_raw, /table_left/image_raw: choose with --topic"):
        next(read_labelled(tmp_path / "two"))
    assert next(read_labelled(tmp_path / "two", "/table_left/image_raw")).variant == "/table_left/image_raw"


def test_a_camera_may_have_depth_in_its_name(tmp_path):
    with new_bag(tmp_path / "one") as bag:
        write_camera(bag, "/depth_cam", depth_every=1)
    assert next(read_labelled(tmp_path / "one")).variant == "/depth_cam/image_raw"


def test_a_folder_without_labels_says_what_is_allowed(tmp_path):
    with pytest.raises(UserError, match="COCO keypoints"):
        next(read_labelled(tmp_path))
