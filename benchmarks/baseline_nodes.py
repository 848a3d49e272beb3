"""Nodes to compare with: a bare relay, the least that any node can do, and the plain detector that people write.

python benchmarks/baseline_nodes.py relay
python benchmarks/baseline_nodes.py least
python benchmarks/baseline_nodes.py naive MODEL
"""

from __future__ import annotations

import ctypes
import sys

import numpy as np
import rclpy
from rclpy.impl.implementation_singleton import rclpy_implementation
from rclpy.node import Node
from rclpy.qos import qos_profile_sensor_data
from rclpy.serialization import serialize_message
from sensor_msgs.msg import Image

from keypoint_perception.model import read_model
from keypoint_perception.ros.inputs import NEWEST_ONLY
from keypoint_perception_msgs.msg import Keypoint, KeypointArray


class Relay(Node):
    """Answers an image with its header: what the middleware takes by itself."""

    def __init__(self) -> None:
        super().__init__("relay")
        self._publisher = self.create_publisher(KeypointArray, "/detector/keypoints", 10)
        self.create_subscription(Image, "/image", self._answer, qos_profile_sensor_data)

    def _answer(self, message: Image) -> None:
        self._publisher.publish(KeypointArray(header=message.header))


class Least(Node):
    """Takes serialised images into one buffer, through the C library, and answers with bytes.

    No executor, no message object, no copy into Python: what an image still costs is the middleware's own.
    """

    def __init__(self) -> None:
        super().__init__("least")
        self._publisher = self.create_publisher(KeypointArray, "/detector/keypoints", 10)
        self._subscription = self.create_subscription(Image, "/image", lambda _: None, NEWEST_ONLY, raw=True)
        self._answer = serialize_message(KeypointArray(model_id="x" * 700))
        self._take = ctypes.CDLL("librcl.so").rcl_take_serialized_message
        rcutils = ctypes.CDLL("librcutils.so")
        rcutils.rcutils_get_default_allocator.restype = _Allocator
        allocator = rcutils.rcutils_get_default_allocator()
        self._image = _Bytes()
        rcutils.rcutils_uint8_array_init(ctypes.byref(self._image), ctypes.c_size_t(1 << 21), ctypes.byref(allocator))

    def spin(self) -> None:
        """Until the process is told to end."""
        wait_set = rclpy_implementation.WaitSet(1, 0, 0, 0, 0, 0, self.context.handle)
        handle = self._subscription.handle
        with handle:
            take = (ctypes.c_void_p(handle.pointer), ctypes.byref(self._image), None, None)
            while rclpy.ok():
                wait_set.clear_entities()
                wait_set.add_subscription(handle)
                wait_set.wait(100_000_000)
                while self._take(*take) == 0:
                    stamp = ctypes.string_at(ctypes.addressof(self._image.buffer.contents) + 4, 8)
                    self._publisher.publish(self._answer[:4] + stamp + self._answer[12:])


class _Allocator(ctypes.Structure):
    """rcutils_allocator_t."""

    _fields_ = tuple((name, ctypes.c_void_p) for name in ("allocate", "free", "reallocate", "zero", "state"))


class _Bytes(ctypes.Structure):
    """rcutils_uint8_array_t."""

    _fields_ = (
        ("buffer", ctypes.POINTER(ctypes.c_uint8)),
        ("length", ctypes.c_size_t),
        ("capacity", ctypes.c_size_t),
        ("allocator", _Allocator),
    )


class Naive(Node):
    """Copies the image, resizes and normalises it on the host, runs torch eagerly, and publishes.

    The network is built with the model's own options and its first weights: what they are does not change their cost.
    """

    def __init__(self, path: str) -> None:
        super().__init__("naive")
        import cv2
        import torch
        from networks import network_of

        info = read_model(path).info
        self._cv2, self._torch, self._size = cv2, torch, info.input_size
        self._network = network_of(info)
        self._publisher = self.create_publisher(KeypointArray, "/detector/keypoints", 10)
        self.create_subscription(Image, "/image", self._detect, qos_profile_sensor_data)

    def _detect(self, message: Image) -> None:
        image = np.array(message.data, dtype=np.uint8).reshape(message.height, message.width, 3).copy()
        small = self._cv2.resize(image, self._size).astype(np.float32) / 255
        with self._torch.no_grad():
            found = self._network.detect(self._torch.from_numpy(small.transpose(2, 0, 1).copy())[None])
        points = (found.keypoints[0].numpy() + 1) / 2 * (message.width, message.height)
        rows = zip(points.tolist(), found.scores[0].tolist(), strict=True)
        keypoints = [Keypoint(id=i, u=u, v=v, score=score) for i, ((u, v), score) in enumerate(rows)]
        self._publisher.publish(KeypointArray(header=message.header, keypoints=keypoints))


def main() -> None:
    """The command line."""
    rclpy.init()
    node = {"relay": Relay, "least": Least, "naive": Naive}[sys.argv[1]](*sys.argv[2:])
    try:
        if isinstance(node, Least):
            node.spin()
        else:
            rclpy.spin(node)
    except (KeyboardInterrupt, rclpy.executors.ExternalShutdownException):
        pass
    finally:
        node.destroy_node()
        rclpy.try_shutdown()


if __name__ == "__main__":
    main()
