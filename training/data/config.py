"""What is trained on and how pairs are drawn; the papers' own ways of drawing them by name."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal, NamedTuple

from keypoint_perception.errors import UserError
from keypoint_perception.geometry import Viewport
from training import bounds
from training.data.warps import WarpConfig

PairKind = Literal["time", "cameras", "warp", "still"]
SamplingName = Literal[
    "default", "imm", "imm_video", "transporter", "keypointgan", "keypoint_pyramids", "autolink", "npt"
]


class Drawing(NamedTuple):
    """How pairs are drawn."""

    pairs: PairKind
    low: float = 0.0
    """Smallest distance of a pair over time."""
    high: float = 0.0
    """Largest distance of a pair over time."""
    unit: Literal["seconds", "frames"] = "seconds"
    """What both are counted in."""


SAMPLINGS: dict[str, Drawing] = {
    "default": Drawing("time", 0.1, 2.0),
    "imm": Drawing("warp"),  # faces: a still and its warp
    "imm_video": Drawing("time", 3, 30, "frames"),  # Human3.6M, "time difference within the range 3-30 frames"
    "transporter": Drawing("time", 1, 19, "frames"),  # less than 20 frames apart
    "keypointgan": Drawing("time", 1, 1000, "frames"),
    "keypoint_pyramids": Drawing("time", 1, 250, "frames"),  # "within 250 frames from it"
    "autolink": Drawing("still"),  # each image is its own reference
    "npt": Drawing("time", 0.0, 1e9),  # any two frames of a video
}
"""The papers' own ways."""


@dataclass(frozen=True)
class DataConfig:
    """Recordings and how batches are drawn from them."""

    sources: list[str] = field(default_factory=list)
    """Recordings: rosbag2 folders or files, ROS 1 bags, videos, folders of images, folders of simulated episodes."""
    topic: str = ""
    """Image topic of the bags; may be left out where a bag has only one of pictures, depth aside."""
    input_size: tuple[int, int] = (128, 128)
    """(width, height) that the network sees, pixels."""
    roi: tuple[float, float, float, float] | None = None
    """The part of the image that is used: x0, y0, x1, y1 as fractions of it."""
    sampling: SamplingName = "default"
    """A paper's own way to draw pairs, for all of the five below that are not set; default is 0.1 to 2 s."""
    pairs: PairKind | None = None
    """What image and reference are. time: two frames of a recording. cameras: the same instant of `topic` and of
    `reference_topic` (or of `roi` and `reference_roi`). warp: a frame and its thin-plate-spline warp. still: single
    images without a reference."""
    min_seconds: float | None = None
    """Smallest distance in time of the two frames of a pair."""
    max_seconds: float | None = None
    """Largest distance in time of the two frames of a pair."""
    min_frames: int | None = None
    """Smallest distance of the two frames of a pair in frames, instead of seconds."""
    max_frames: int | None = None
    """Largest distance of the two frames of a pair in frames, instead of seconds."""
    reference_topic: str = ""
    """Topic of the second camera; empty for `topic`."""
    reference_roi: tuple[float, float, float, float] | None = None
    """The part of the second camera's image; None for all of it, or for `roi` where the topic is the same."""
    slop_seconds: float = 0.02
    """Images of two cameras belong together if their stamps differ by at most this."""
    warp: WarpConfig = field(default_factory=WarpConfig)
    """How strongly stills are warped."""
    validation: float = 0.1
    """Share of the data that is held out; 0 for none (validation then repeats training data)."""
    split: Literal["auto", "recording", "time"] = "auto"
    """Hold out whole recordings, or the end of each. auto: recordings, where a whole one fits into the share."""
    prior: str = ""
    """Unpaired poses for methods that need them: an .npz with `keypoints` (P, J, 2), normalised."""
    store: str = ""
    """Folder of the frame stores; empty for beside each recording."""

    def __post_init__(self) -> None:
        if not all(8 <= side <= 4096 for side in self.input_size):
            raise UserError(f"data: input_size is {tuple(self.input_size)}: allowed are 8 to 4096 pixels a side")
        for roi in (self.roi, self.reference_roi):
            Viewport.of(self.input_size, self.input_size, roi)
        if not 0 <= self.validation < 1:
            raise UserError(f"data: validation is {self.validation}: give a number from 0 to below 1, 0 for none")
        if self.sampling not in SAMPLINGS:
            raise UserError(f"data: sampling is {self.sampling!r}: allowed are {', '.join(SAMPLINGS)}")
        bounds.at_least("data", self, slop_seconds=0)
        drawing = self.drawing()
        if not 0 <= drawing.low <= drawing.high:
            raise UserError(
                f"data: pairs are {drawing.low} to {drawing.high} {drawing.unit} apart: give a min_{drawing.unit} from"
                f" 0 on, and a max_{drawing.unit} no smaller"
            )

    def drawing(self) -> Drawing:
        """How pairs are drawn: what `sampling` says, with what is set put in its place."""
        named = SAMPLINGS[self.sampling]
        pairs = self.pairs or named.pairs
        seconds, frames = (self.min_seconds, self.max_seconds), (self.min_frames, self.max_frames)
        if seconds != (None, None) and frames != (None, None):
            raise UserError(
                "data: distances of pairs are set in seconds and in frames: set min_seconds and max_seconds, or"
                " min_frames and max_frames"
            )
        if frames != (None, None):
            least = 1 if self.min_frames is None else self.min_frames
            return Drawing(pairs, least, max(least, 30) if self.max_frames is None else self.max_frames, "frames")
        if seconds != (None, None):
            low = 0.0 if self.min_seconds is None else self.min_seconds
            return Drawing(pairs, low, max(low, 2.0) if self.max_seconds is None else self.max_seconds)
        usual = named if named.high else SAMPLINGS["default"]
        return usual._replace(pairs=pairs)
