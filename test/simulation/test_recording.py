import cv2
import numpy as np
import pytest
from rosbags.rosbag2 import Reader

from keypoint_perception.bags import message_store
from keypoint_perception.errors import UserError
from training.simulation.recording import CameraStream, choose_streams, record
from training.simulation.scene import Node, World, mujoco

PENDULUM = """
<mujoco>
  <worldbody>
    <light pos="0 -1 3"/>
    <geom name="wall" type="plane" size="9 9 .1" pos="0 1 0" zaxis="0 -1 0" rgba=".2 .3 .9 1"/>
    <camera name="eye" pos="0 -2 0" xyaxes="1 0 0 0 0 1" fovy="50"/>
    <body name="rod"><joint name="hinge" axis="0 1 0"/><geom type="capsule" fromto="0 0 0 .5 0 0" size=".06"/>
      <camera name="riding" pos=".5 0 0" xyaxes="1 0 0 0 0 1" fovy="50"/></body>
  </worldbody>
</mujoco>
"""


@pytest.fixture(scope="module")
def store():
    store = message_store()
    return store


@pytest.fixture
def world():
    model = mujoco.MjModel.from_xml_string(PENDULUM)
    nodes = [Node("anchor", 1, (0.0, 0.0, 0.0), 0.06), Node("tip", 1, (0.5, 0.0, 0.0), 0.06)]
    with World(model, nodes, [(0, 1)], (48, 32)) as world:
        yield world


def read(path, store):
    messages: dict[str, list] = {}
    with Reader(path) as reader:
        for connection, stamp, raw in reader.messages():
            messages.setdefault(connection.topic, []).append((stamp, store.deserialize_cdr(raw, connection.msgtype)))
    return messages


def stamp_of(message):
    return message.header.stamp.sec * 10**9 + message.header.stamp.nanosec


def test_a_bag_holds_what_a_robot_would_record(world, store, tmp_path):
    streams = [CameraStream("eye", "/front", depth="png", depth_every=2), CameraStream("riding", "/arm", every=2)]
    assert record(tmp_path / "bag", world, world.advance, streams, seconds=0.4, rate=10) == 4
    messages = read(tmp_path / "bag", store)
    counts = {topic: len(sent) for topic, sent in messages.items()}
    assert counts == {
        "/front/image_raw/compressed": 4,
        "/front/camera_info": 4,
        "/front/depth/image_raw/compressed": 2,
        "/front/ground_truth/keypoints": 4,
        "/front/ground_truth/skeleton": 4,
        "/arm/image_raw/compressed": 2,
        "/arm/camera_info": 2,
        "/arm/ground_truth/keypoints": 2,
        "/arm/ground_truth/skeleton": 2,
        "/joint_states": 4,
        "/tf": 4,
        "/tf_static": 1,
    }
    stamps = [stamp for stamp, _ in messages["/front/image_raw/compressed"]]
    assert np.diff(stamps).tolist() == [10**8] * 3
    assert [stamp_of(m) for _, m in messages["/front/depth/image_raw/compressed"]] == stamps[::2]
    assert (tmp_path / "bag" / "metadata.yaml").exists()
    assert [path.name for path in tmp_path.iterdir()] == ["bag"]


def test_truth_is_where_the_picture_and_the_transforms_say(world, store, tmp_path):
    record(tmp_path / "bag", world, world.advance, [CameraStream("eye", "/front")], seconds=0.3, rate=10)
    messages = read(tmp_path / "bag", store)
    truth, info = messages["/front/ground_truth/keypoints"][-1][1], messages["/front/camera_info"][-1][1]
    assert (info.width, info.height, truth.image_width, truth.image_height) == (48, 32, 48, 32)
    anchor, tip = truth.keypoints
    assert (anchor.name, anchor.state, tip.name) == ("anchor", 1, "tip")
    for keypoint in (anchor, tip):
        position = keypoint.position
        u, v, w = info.k.reshape(3, 3) @ (position.x, position.y, position.z)
        np.testing.assert_allclose((u / w, v / w), (keypoint.u, keypoint.v), atol=1e-3)
    assert (anchor.u, anchor.v) == pytest.approx((23.5, 15.5), abs=1e-4)

    angle = messages["/joint_states"][-1][1].position[0]
    assert messages["/joint_states"][-1][1].name == ["hinge"]
    assert (tip.position.x, tip.position.y) == pytest.approx((0.5 * np.cos(angle), 0.5 * np.sin(angle)), abs=1e-4)
    skeleton = messages["/front/ground_truth/skeleton"][-1][1]
    assert (skeleton.edge_source.tolist(), skeleton.edge_target.tolist()) == ([0], [1])
    assert skeleton.edge_length[0] == pytest.approx(0.5, abs=1e-5)
    fixed = messages["/tf_static"][0][1].transforms[0]
    assert fixed.child_frame_id == truth.header.frame_id == truth.position_frame_id
    assert fixed.transform.translation.y == pytest.approx(-2)
    q = fixed.transform.rotation  # optical: z looks along the world's +y
    rotation = np.zeros(9)
    mujoco.mju_quat2Mat(rotation, np.array([q.w, q.x, q.y, q.z]))
    np.testing.assert_allclose(rotation.reshape(3, 3)[:, 2], (0, 1, 0), atol=1e-9)


@pytest.mark.parametrize("encoding", ["jpeg", "png", "rgb8", "bgr8"])
def test_colour_encodings(world, store, tmp_path, encoding):
    record(tmp_path / "bag", world, world.advance, [CameraStream("eye", "/c", colour=encoding)], seconds=0.1, rate=10)
    messages = read(tmp_path / "bag", store)
    world.reset()
    expected = world.render("eye")
    if encoding in ("jpeg", "png"):
        message = messages["/c/image_raw/compressed"][0][1]
        assert encoding in message.format
        picture = cv2.imdecode(message.data, cv2.IMREAD_COLOR)[..., ::-1]
    else:
        message = messages["/c/image_raw"][0][1]
        assert (message.encoding, message.step) == (encoding, 48 * 3)
        picture = message.data.reshape(32, 48, 3)
        picture = picture if encoding == "rgb8" else picture[..., ::-1]
    tolerance = 6 if encoding == "jpeg" else 0
    assert np.abs(picture.astype(int) - expected).mean() <= tolerance


@pytest.mark.parametrize("encoding", ["png", "16UC1", "32FC1"])
def test_depth_encodings_are_metric(world, store, tmp_path, encoding):
    record(tmp_path / "bag", world, world.advance, [CameraStream("eye", "/c", depth=encoding)], seconds=0.1, rate=10)
    messages = read(tmp_path / "bag", store)
    if encoding == "png":
        picture = cv2.imdecode(messages["/c/depth/image_raw/compressed"][0][1].data, cv2.IMREAD_UNCHANGED)
        assert picture.dtype == np.uint16
        metres = picture / 1000
    else:
        message = messages["/c/depth/image_raw"][0][1]
        assert message.encoding == encoding
        metres = message.data.view(np.uint16 if encoding == "16UC1" else np.float32).reshape(32, 48)
        metres = metres / 1000 if encoding == "16UC1" else metres
    assert metres[0, 0] == pytest.approx(3, abs=0.01)
    assert metres[16, 24] == pytest.approx(1.94, abs=0.02)


def test_an_existing_folder_is_refused_and_kept(world, tmp_path):
    (tmp_path / "bag").mkdir()
    with pytest.raises(UserError, match="exists already"):
        record(tmp_path / "bag", world, world.advance, [], seconds=1, rate=10)
    assert list((tmp_path / "bag").iterdir()) == []


def test_an_interrupted_recording_leaves_nothing(world, tmp_path):
    def act(seconds):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        record(tmp_path / "bag", world, act, [CameraStream("eye", "/c")], seconds=1, rate=10)
    assert list(tmp_path.iterdir()) == []


def test_what_cannot_be_recorded_is_said(world, tmp_path):
    with pytest.raises(UserError, match=r"'webp'.*jpeg, png, rgb8, bgr8"):
        CameraStream("eye", "/c", colour="webp")
    with pytest.raises(UserError, match=r"'8UC1'.*png, 16UC1, 32FC1"):
        CameraStream("eye", "/c", depth="8UC1")
    with pytest.raises(UserError, match="at least one"):
        record(tmp_path / "bag", world, world.advance, [], seconds=0.01, rate=10)


def test_streams_can_be_chosen_and_changed():
    streams = (CameraStream("table", "/table", depth="png"), CameraStream("wrist", "/wrist"))
    assert choose_streams(streams) == streams
    assert choose_streams(streams, cameras=["wrist"], colour="rgb8", depth="32FC1", jpeg_quality=70) == (
        CameraStream("wrist", "/wrist", colour="rgb8", depth="32FC1", jpeg_quality=70),
    )
    assert [stream.depth for stream in choose_streams(streams, depth="none")] == [None, None]
    with pytest.raises(UserError, match=r"'top'.*table, wrist"):
        choose_streams(streams, cameras=["top"])
    with pytest.raises(UserError, match="1 to 100"):
        choose_streams(streams, jpeg_quality=0)
