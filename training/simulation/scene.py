"""The base of every simulated scene: a MuJoCo world seen by cameras, with exact ground truth.

A scene module builds a `mujoco.MjModel`, says which points of which bodies are its nodes and which of them a link
joins, and hands both to `World`, which moves, renders and measures. Rendering is headless, by EGL.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any, NamedTuple, TypeVar

import cv2
import numpy as np

from keypoint_perception.errors import UserError
from keypoint_perception.lifting import Intrinsics
from keypoint_perception.observation import adjacency_of

# Both are read when MuJoCo and Mesa are loaded. Software rendering by one thread: processes share the cores better.
os.environ.setdefault("MUJOCO_GL", "egl")
os.environ.setdefault("LP_NUM_THREADS", "0")
_EGL_PACKAGES = "libegl1 libegl-mesa0 libgl1-mesa-dri libopengl0"
_EGL_HINT = f"headless rendering needs EGL: sudo apt install {_EGL_PACKAGES}"

try:
    import mujoco
except ModuleNotFoundError as error:
    raise UserError(f"the simulator is not installed ({error}): pip install -r requirements/training.txt") from error
except (ImportError, AttributeError, OSError, RuntimeError) as error:  # as it happens, by what PyOpenGL misses
    raise UserError(f"cannot load the simulator ({error}); {_EGL_HINT}") from error

COLLISION_GROUP = 3
"""Geometry of this MuJoCo group collides but is never drawn."""
_MIN_SIDE, _MAX_SIDE = 16, 4096
_TO_OPTICAL = np.diag([1.0, -1.0, -1.0])
"""MuJoCo's cameras look along -z with y up; optical frames (REP 103) look along +z with y down."""


_World = TypeVar("_World", bound="World")


class Node(NamedTuple):
    """A point that moves with a body: a joint, the tip of a limb, a handle."""

    name: str
    body: int
    """MuJoCo's body id."""
    offset: tuple[float, float, float]
    """Position in the body's frame, metres."""
    radius: float = 0.0
    """How far the body's own surface may lie in front of the point, metres, without hiding it."""


@dataclass(frozen=True)
class CameraModel:
    """A pinhole camera without distortion in its present pose. Pixel (0, 0) is the centre of the top-left pixel."""

    intrinsics: Intrinsics
    rotation: np.ndarray
    """(3, 3) float64, from the world to the camera's optical frame (x right, y down, z forward)."""
    translation: np.ndarray
    """(3,) float64 metres, the world's origin in the optical frame."""

    def to_optical(self, points: np.ndarray) -> np.ndarray:
        """World points (N, 3) to the optical frame, metres."""
        return points @ self.rotation.T + self.translation


class Picture(NamedTuple):
    """What a camera sees."""

    colour: np.ndarray
    """(H, W, 3) uint8 RGB."""
    depth: np.ndarray
    """Distance along the optical axis: (H, W) float32 metres, NaN where nothing is hit."""


def check_setting(seed: int, size: tuple[int, int], supersampling: int = 1) -> None:
    """Raises UserError for a seed that is none and for pictures (width, height) too small or too large to render.

    `supersampling` is how many times larger than `size` they are rendered.
    """
    if not 0 <= seed < 2**63:
        raise UserError(f"seed {seed}: give a number from 0, below 2^63")
    most = _MAX_SIDE // supersampling
    if len(size) != 2 or not all(_MIN_SIDE <= side <= most for side in size):
        given = "x".join(map(str, size))
        raise UserError(f"pictures of {given}: width and height are from {_MIN_SIDE} to {most} pixels")


def minimum_jerk(phase: float) -> float:
    """How far a smooth move from rest to rest has come, 0..1, when `phase` (0..1, clipped) of its time is over."""
    phase = min(max(phase, 0.0), 1.0)
    return phase**3 * (10 - 15 * phase + 6 * phase**2)


class World:
    """A MuJoCo model in motion, its cameras, and the skeleton whose truth is known.

    `size` is (width, height) of every picture in pixels. Pictures show the state after the last `reset`, `advance` or
    `refresh`. Use it as a context manager, or call `close`.
    """

    def __init__(
        self,
        model: Any,
        nodes: Sequence[Node],
        edges: Sequence[tuple[int, int]],
        size: tuple[int, int],
        *,
        shadows: bool = False,
        antialiasing: int = 4,
    ) -> None:
        """`antialiasing` is the number of samples a pixel (0, 2, 4, 8). Raises UserError where EGL does not work."""
        self.model = model
        self.data = mujoco.MjData(model)
        self.nodes = tuple(nodes)
        self.names = tuple(node.name for node in self.nodes)
        self.adjacency = adjacency_of(edges, len(self.nodes))
        self.size = size
        self._bodies = np.array([node.body for node in self.nodes])
        self._offsets = np.array([node.offset for node in self.nodes], dtype=np.float64)
        self._radii = np.array([node.radius for node in self.nodes])
        self._shadows = shadows
        self._options = mujoco.MjvOption()
        self._options.geomgroup[COLLISION_GROUP] = 0
        model.vis.quality.offsamples = antialiasing
        model.vis.global_.offwidth, model.vis.global_.offheight = size
        self._renderer = _open_renderer(model, size)
        self._owed = 0.0
        self.reset()

    def __enter__(self: _World) -> _World:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Frees the rendering context."""
        self._renderer.close()

    # ------------------------------------------------------------------------------------------------------- motion

    def reset(self) -> None:
        """Everything back to the model's initial state."""
        mujoco.mj_resetData(self.model, self.data)
        mujoco.mj_forward(self.model, self.data)
        self._owed = 0.0

    def advance(self, seconds: float) -> None:
        """Physics for `seconds`, in whole time steps, then `refresh`."""
        mujoco.mj_step(self.model, self.data, self.steps(seconds))
        self.refresh()

    def steps(self, seconds: float) -> int:
        """Time steps for the next `seconds`; what they miss is made up for by the next, so that no clock drifts."""
        due = self._owed + seconds / self.model.opt.timestep
        steps = round(due)
        self._owed = due - steps
        return steps

    def refresh(self) -> None:
        """Positions of bodies and cameras from the current joint positions; mj_step leaves them one step behind."""
        mujoco.mj_kinematics(self.model, self.data)
        mujoco.mj_comPos(self.model, self.data)
        mujoco.mj_camlight(self.model, self.data)

    # ----------------------------------------------------------------------------------------------------- pictures

    def render(self, camera: str) -> np.ndarray:
        """Colour: (H, W, 3) uint8 RGB."""
        self._renderer.disable_depth_rendering()
        return self._draw(camera, shadows=self._shadows)

    def depth(self, camera: str) -> np.ndarray:
        """Distance along the optical axis: (H, W) float32 metres, NaN where nothing is hit."""
        self._renderer.enable_depth_rendering()
        metres = self._draw(camera)
        far = self.model.vis.map.zfar * self.model.stat.extent
        return np.where(metres < 0.999 * far, metres, np.float32(np.nan))

    def render_with_depth(self, camera: str, backdrop: Picture | None = None) -> Picture:
        """`render` and `depth` of it from a single pass, which costs no more than `render`.

        backdrop: the result of `backdrop()` since this camera last moved. Then only moving parts are drawn, over it,
        which is cheaper and gives the same picture.
        """
        if backdrop is None:
            return self._picture(camera, mujoco.mjtCatBit.mjCAT_ALL, self._shadows)
        colour, depth = self._picture(camera, mujoco.mjtCatBit.mjCAT_DYNAMIC)
        behind = (np.isnan(depth) | (depth >= backdrop.depth)).view(np.uint8)
        return Picture(cv2.copyTo(backdrop.colour, behind, colour), cv2.copyTo(backdrop.depth, behind, depth))

    def backdrop(self, camera: str) -> Picture:
        """`render_with_depth`, without shadows, of what never moves."""
        return self._picture(camera, mujoco.mjtCatBit.mjCAT_STATIC)

    def _picture(self, camera: str, parts: Any, shadows: bool = False) -> Picture:
        self._renderer.disable_depth_rendering()
        colour = self._draw(camera, parts, shadows)
        reversed_z = np.empty(colour.shape[:2], np.float32)
        corner = mujoco.MjrRect(0, 0, *self.size)
        mujoco.mjr_readPixels(None, reversed_z, corner, self._renderer._mjr_context)  # still holds what was drawn
        near, far = (plane * self.model.stat.extent for plane in (self.model.vis.map.znear, self.model.vis.map.zfar))
        metres = near * far / (near + np.flipud(reversed_z) * np.float32(far - near))
        return Picture(colour, np.where(metres < 0.999 * far, metres, np.float32(np.nan)))

    def _draw(self, camera: str, parts: Any = mujoco.mjtCatBit.mjCAT_ALL, shadows: bool = False) -> np.ndarray:
        """What the renderer is set to, of all there is or of `parts` of it, mjtCatBit; the sky is no moving part."""
        view, scene = mujoco.MjvCamera(), self._renderer.scene
        view.type, view.fixedcamid = mujoco.mjtCamera.mjCAMERA_FIXED, self.model.camera(camera).id
        mujoco.mjv_updateScene(self.model, self.data, self._options, None, view, int(parts), scene)
        scene.flags[mujoco.mjtRndFlag.mjRND_REFLECTION] = 0
        scene.flags[mujoco.mjtRndFlag.mjRND_SHADOW] = shadows
        scene.flags[mujoco.mjtRndFlag.mjRND_SKYBOX] = parts != mujoco.mjtCatBit.mjCAT_DYNAMIC
        return self._renderer.render()

    # -------------------------------------------------------------------------------------------------------- truth

    def camera(self, name: str) -> CameraModel:
        """Intrinsics and present pose of a camera of the model."""
        index = self.model.camera(name).id
        width, height = self.size
        focal = 0.5 * height / np.tan(np.deg2rad(self.model.cam_fovy[index]) / 2)
        matrix = np.array([[focal, 0, (width - 1) / 2], [0, focal, (height - 1) / 2], [0, 0, 1]])
        rotation = (self.data.cam_xmat[index].reshape(3, 3) @ _TO_OPTICAL).T
        return CameraModel(Intrinsics(self.size, matrix), rotation, -rotation @ self.data.cam_xpos[index])

    def is_moving(self, camera: str) -> bool:
        """Whether a camera can change its pose: it is on a body, or follows one."""
        index = self.model.camera(camera).id
        follows = int(self.model.cam_mode[index]) != int(mujoco.mjtCamLight.mjCAMLIGHT_FIXED)
        return follows or int(self.model.cam_bodyid[index]) > 0

    def positions(self, data: Any = None) -> np.ndarray:
        """World positions of the nodes: (J, 3) float64 metres, now or in another state of the model."""
        data = self.data if data is None else data
        rotations = data.xmat[self._bodies].reshape(-1, 3, 3)
        return data.xpos[self._bodies] + np.einsum("jab,jb->ja", rotations, self._offsets)

    def project(self, camera: str) -> tuple[np.ndarray, np.ndarray]:
        """The nodes as a camera sees them: pixels (J, 2) float32 and optical frame (J, 3) float32 metres."""
        view = self.camera(camera)
        points = view.to_optical(self.positions())
        return view.intrinsics.project(points).astype(np.float32), points.astype(np.float32)

    def visible(
        self,
        camera: str,
        depth: np.ndarray | None = None,
        projected: tuple[np.ndarray, np.ndarray] | None = None,
    ) -> np.ndarray:
        """Which nodes are seen, (J,) bool: inside the picture, and nothing nearer than their own body before them.

        `depth` and `projected` are this camera's present `depth` and `project`, where they are at hand already.
        """
        depth = self.depth(camera) if depth is None else depth
        pixels, points = self.project(camera) if projected is None else projected
        width, height = self.size
        inside = (points[:, 2] > 0) & (
            np.abs(pixels - (width / 2 - 0.5, height / 2 - 0.5)) < (width / 2, height / 2)
        ).all(1)
        columns, rows = np.rint(np.where(inside[:, None], pixels, 0)).astype(int).T
        surface = depth[rows.clip(0, height - 1), columns.clip(0, width - 1)]
        return inside & ~(surface < points[:, 2] - self._radii)


def _open_renderer(model: Any, size: tuple[int, int]) -> Any:
    try:
        return mujoco.Renderer(model, size[1], size[0])
    except (ImportError, AttributeError, OSError, RuntimeError, mujoco.FatalError) as error:
        raise UserError(f"cannot render ({error}); {_EGL_HINT}") from error
