"""Camera images in, observations out: a model, an engine, and the geometry between camera and network."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

import keypoint_perception
from keypoint_perception.backends import open_backend
from keypoint_perception.errors import UserError
from keypoint_perception.geometry import Viewport
from keypoint_perception.link_colours import LinkColours
from keypoint_perception.model import Model, read_model
from keypoint_perception.observation import Observation

DEFAULT_BACKEND = "onnxruntime"
MOST_THREADS = 64
"""Of one inference; many more than there are cores never end."""
SHIPPED_MODEL = "tabletop_imm.onnx"


class Detector:
    """A loaded model. One batched inference serves any number of images, of any sizes. Not shared between threads."""

    def __init__(
        self,
        model: Model | str | os.PathLike[str],
        backend: str = DEFAULT_BACKEND,
        threads: int = 1,
        log: Callable[[str], None] = lambda line: None,
    ) -> None:
        """Opens a model file (or one already read) in the engine `backend`.

        threads: CPU threads of one inference. log: receives what `open_backend` has to say.
        Raises UserError that says what is wrong with the file or the engine.
        """
        self.model = model if isinstance(model, Model) else read_model(model)
        self.backend = open_backend(backend, self.model, threads=threads, log=log)
        self._colours = LinkColours(self.model.info)
        adjacency = self.model.info.adjacency
        self._static_adjacency = None if adjacency is None else np.asarray(adjacency, np.float32)
        if self._static_adjacency is not None:
            self._static_adjacency.setflags(write=False)  # every observation shares it

    def warm_up(self, batch_size: int = 1) -> None:
        """Runs each batch size up to `batch_size` once, so that no first frame pays for an engine's set-up."""
        width, height = self.model.info.input_size
        for size in range(1, batch_size + 1):
            self.backend.run(np.zeros((size, height, width, 3), np.uint8))

    def close(self) -> None:
        """Gives the engine back. To be called once; nothing is detected afterwards."""
        self.backend.close()

    def detect(self, images: Sequence[np.ndarray]) -> list[Observation]:
        """Finds the keypoints of images (H, W, 3) uint8 RGB, each of its own size, in one inference.

        Returns one observation an image, in pixels of that image. Raises UserError where an image is empty.
        """
        if not images:
            return []
        width, height = self.model.info.input_size
        batch = np.empty((len(images), height, width, 3), np.uint8)
        viewports = []
        for row, image in zip(batch, images, strict=True):
            viewports.append(self._viewport(image))
            row[...] = viewports[-1].view(image)
        outputs = self.backend.run(batch)
        return [
            Observation(
                keypoints=viewport.to_pixels(outputs["keypoints"][i]).astype(np.float32),
                scores=np.clip(outputs["scores"][i], 0, 1),
                adjacency=outputs["adjacency"][i] if self._static_adjacency is None else self._static_adjacency,
                image_size=image.shape[1::-1],
                colours=self._colours(batch[i], outputs["keypoints"][i]),
            )
            for i, (image, viewport) in enumerate(zip(images, viewports, strict=True))
        ]

    def _viewport(self, image: np.ndarray) -> Viewport:
        if image.ndim != 3 or image.shape[2] != 3 or 0 in image.shape:
            raise UserError(f"image has shape {image.shape}: give (height, width, 3), at least one pixel")
        return Viewport.of(image.shape[1::-1], self.model.info.input_size, self.model.info.roi)


def shipped_model() -> Path:
    """The model that comes with the package: from share/ where installed, from models/ in a checkout."""
    checkout = Path(keypoint_perception.__file__).resolve().parent.parent / "models" / SHIPPED_MODEL
    try:
        from ament_index_python.packages import get_package_share_directory

        installed = Path(get_package_share_directory("keypoint_perception")) / "models" / SHIPPED_MODEL
    except (ImportError, LookupError, OSError):  # no ROS, not installed, or nothing sourced
        return checkout
    return installed if installed.exists() else checkout
