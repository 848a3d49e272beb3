"""Nodes to compare with: a bare relay, and the plain detector that people write.

python benchmarks/baseline_nodes.py relay
python benchmarks/baseline_nodes.py naive MODEL
"""

from __future__ import annotations

import sys
from dataclasses import fields
from typing import Any

import numpy as np
import rclpy
from rclpy.node import Node
from rclpy.qos import qos_profile_sensor_data
from sensor_msgs.msg import Image

from keypoint_perception.model import read_model
from keypoint_perception_msgs.msg import Keypoint, KeypointArray


class Relay(Node):
    """Answers an image with its header: what the middleware takes by itself."""

    def __init__(self) -> None:
        super().__init__("relay")
        self._publisher = self.create_publisher(KeypointArray, "/detector/keypoints", 10)
        self.create_subscription(Image, "/image", self._answer, qos_profile_sensor_data)

    def _answer(self, message: Image) -> None:
        self._publisher.publish(KeypointArray(header=message.header))


class Naive(Node):
    """Copies the image, resizes and normalises it on the host, runs torch eagerly, and publishes.

    The network is built with the model's own options and its first weights: what they are does not change their cost.
    """

    def __init__(self, path: str) -> None:
        super().__init__("naive")
        import cv2
        import torch

        from training.methods import METHODS

        info = read_model(path).info
        method: Any = METHODS[info.method]
        self._cv2, self._torch, self._size = cv2, torch, info.input_size
        known = {f.name for f in fields(method.Config)}  # a model may be older than its method's present options
        options = {
            name: tuple(value) if isinstance(value, list) else value
            for name, value in info.training.get("options", {}).items()
            if name in known
        }
        self._network = method(method.Config(**options), input_size=info.input_size).eval()
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
    node = Relay() if sys.argv[1] == "relay" else Naive(sys.argv[2])
    try:
        rclpy.spin(node)
    except (KeyboardInterrupt, rclpy.executors.ExternalShutdownException):
        pass
    finally:
        node.destroy_node()
        rclpy.try_shutdown()


if __name__ == "__main__":
    main()
