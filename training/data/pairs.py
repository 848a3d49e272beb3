"""Batches out of frame stores. A batch is a pure function of step, batch size and seed, so that a run can be resumed
and split over processes without any state.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import get_worker_info

from keypoint_perception.errors import UserError
from training.data.config import Drawing
from training.data.store import FrameStore
from training.data.warps import WarpConfig, warped_pair
from training.method import Batch


class Track(NamedTuple):
    """Frames of one recording that follow one another in time: the part [start, stop) of a store."""

    name: str
    recording: str
    """Tracks of one recording, cut at a jump in time, share this name."""
    store: int
    start: int
    stop: int


class Frames:
    """The frames of several stores."""

    def __init__(self, stores: Sequence[FrameStore]) -> None:
        self.stores = list(stores)

    def gather(self, stores: np.ndarray, indices: np.ndarray) -> Tensor:
        """Frames (B, 3, H, W) in [0, 1] at (B,) indices of (B,) stores."""
        images = _empty((len(indices), *self.stores[0].shape))
        rows = images.numpy()
        for row, (store, index) in enumerate(zip(stores.tolist(), indices.tolist(), strict=True)):
            rows[row] = self.stores[store].frames[index]
        return images.div_(255).permute(0, 3, 1, 2)


def _empty(shape: tuple[int, ...]) -> Tensor:
    """A float32 tensor to be filled; a loader's worker has it in memory that the process that trains sees too.

    Otherwise it would be copied there, and freed memory of that size would fragment the worker's heap to gigabytes.
    """
    if get_worker_info() is None:
        return torch.empty(shape)
    shared = torch.UntypedStorage._new_shared(math.prod(shape) * torch.float32.itemsize)
    return torch.empty(0).set_(shared).view(shape)


class Sampler(ABC):
    """Draws batches from tracks of frames."""

    def __init__(self, frames: Frames, tracks: Sequence[Track], prior: np.ndarray | None = None) -> None:
        """prior: unpaired poses (P, J, 2), normalised."""
        self.frames, self.tracks, self.prior = frames, list(tracks), prior

    def batch(self, step: int, batch_size: int, seed: int) -> Batch:
        """The batch of a step: the same arguments give the same batch, on any machine and in any process."""
        rng = np.random.default_rng((seed, step))
        batch = self.draw(batch_size, rng)
        if self.prior is not None:
            poses = self.prior[rng.integers(len(self.prior), size=batch_size)]
            batch["prior_keypoints"] = torch.from_numpy(poses)
        return batch

    @abstractmethod
    def draw(self, batch_size: int, rng: np.random.Generator) -> Batch:
        """Images and what goes with them."""


def _flat(tracks: Sequence[Track]) -> tuple[np.ndarray, np.ndarray]:
    """(M,) stores and (M,) indices of all frames of the tracks."""
    stores = np.concatenate([np.full(t.stop - t.start, t.store, np.int32) for t in tracks])
    return stores, np.concatenate([np.arange(t.start, t.stop, dtype=np.int64) for t in tracks])


class Stills(Sampler):
    """Single images."""

    def __init__(self, frames: Frames, tracks: Sequence[Track], prior: np.ndarray | None = None) -> None:
        super().__init__(frames, tracks, prior)
        self._stores, self._indices = _flat(tracks)

    def draw(self, batch_size: int, rng: np.random.Generator) -> Batch:
        """image."""
        chosen = rng.integers(len(self._indices), size=batch_size)
        return {"image": self.frames.gather(self._stores[chosen], self._indices[chosen])}


class WarpPairs(Stills):
    """A still's warp as image, and a warp of that as reference, with a loss mask."""

    def __init__(
        self, frames: Frames, tracks: Sequence[Track], warp: WarpConfig, prior: np.ndarray | None = None
    ) -> None:
        super().__init__(frames, tracks, prior)
        self.warp = warp

    def draw(self, batch_size: int, rng: np.random.Generator) -> Batch:
        """image, reference, loss_mask."""
        still = super().draw(batch_size, rng)["image"]
        generator = torch.Generator().manual_seed(int(rng.integers(2**63)))
        image, reference, mask = warped_pair(still, self.warp, generator)
        return {"image": image, "reference": reference, "loss_mask": mask}


class TimePairs(Sampler):
    """Two frames of one track, at a distance in time or in frames; either may be the image.

    All such pairs of a track come equally often, and tracks as often as they have frames.
    """

    def __init__(
        self, frames: Frames, tracks: Sequence[Track], drawing: Drawing, prior: np.ndarray | None = None
    ) -> None:
        """Raises UserError where no track is long enough."""
        super().__init__(frames, tracks, prior)
        windows = [_later(frames.stores[t.store].stamps[t.start : t.stop], drawing) + t.start for t in tracks]
        first, end = np.concatenate(windows, axis=1)
        stores, indices = _flat(tracks)
        usable = end > first
        if not usable.any():
            raise UserError(
                f"no two frames of a recording are {drawing.low:g} to {drawing.high:g} {drawing.unit} apart: the "
                f"longest has {max(t.stop - t.start for t in tracks)} frames, up to one of another size or a clock set "
                f"back; choose another --data.min_{drawing.unit} or --data.max_{drawing.unit}"
            )
        self._stores, self._indices = stores[usable], indices[usable]
        self._first, self._count = first[usable], (end - first)[usable]
        track = np.repeat(np.arange(len(tracks)), [t.stop - t.start for t in tracks])[usable]
        share = np.bincount(track)[track] / np.bincount(track, weights=self._count)[track]
        self._up_to = np.cumsum(self._count * share)
        """(M,) the chances of all frames up to each, the more the more partners it has."""

    def draw(self, batch_size: int, rng: np.random.Generator) -> Batch:
        """image, reference."""
        chosen = np.searchsorted(self._up_to, rng.random(batch_size) * self._up_to[-1], side="right")
        one = self._indices[chosen]
        other = self._first[chosen] + rng.integers(self._count[chosen])
        swap = rng.random(batch_size) < 0.5
        stores = self._stores[chosen]
        return {
            "image": self.frames.gather(stores, np.where(swap, one, other)),
            "reference": self.frames.gather(stores, np.where(swap, other, one)),
        }


def _later(stamps: np.ndarray, drawing: Drawing) -> np.ndarray:
    """(2, T): for each frame the range [first, end) of later frames of its track that may be its partner."""
    count = len(stamps)
    if drawing.unit == "frames":
        ahead = np.arange(count) + np.array([[min(max(drawing.low, 1), count)], [min(drawing.high, count) + 1]])
        return np.minimum(ahead, count).astype(np.int64)
    tolerance = 1_000_000  # a millisecond: stamps jitter around the frame rate
    since = stamps - stamps[0]
    most = int(since[-1]) + 2 * tolerance  # farther apart than any two; what is asked for may be infinite
    low, high = (int(min(seconds * 1e9, most)) for seconds in (drawing.low, drawing.high))
    first = np.searchsorted(since, since + low - tolerance)
    return np.stack((np.maximum(first, np.arange(count) + 1), np.searchsorted(since, since + high + tolerance)))


class CameraPairs(Sampler):
    """One instant seen by two cameras; either may be the image."""

    def __init__(
        self,
        frames: Frames,
        tracks: Sequence[Track],
        slop_seconds: float,
        prior: np.ndarray | None = None,
    ) -> None:
        """frames: of one camera's stores, then of the other's in the same order.

        Raises UserError where no two instants agree.
        """
        super().__init__(frames, tracks, prior)
        self._cameras_apart = len(frames.stores) // 2
        stores, indices = _flat(tracks)
        others, differences = np.empty_like(indices), np.empty_like(indices)
        for store in np.unique(stores):
            of_store = stores == store
            stamps = frames.stores[store].stamps[indices[of_store]]
            others[of_store], differences[of_store] = _nearest(frames.stores[store + self._cameras_apart], stamps)
        usable = differences <= slop_seconds * 1e9
        if not usable.any():
            nearest = differences.min() / 1e9
            raise UserError(
                f"no two images of the cameras are at most {slop_seconds} s apart, the nearest are {nearest:.3f} s: "
                "choose a larger --data.slop_seconds"
            )
        self._stores, self._indices, self._others = stores[usable], indices[usable], others[usable]

    def draw(self, batch_size: int, rng: np.random.Generator) -> Batch:
        """image, reference."""
        chosen = rng.integers(len(self._indices), size=batch_size)
        swap = rng.random(batch_size) < 0.5
        one, other = (self._stores[chosen], self._indices[chosen]), self._others[chosen]
        partner = one[0] + self._cameras_apart
        return {
            "image": self.frames.gather(np.where(swap, one[0], partner), np.where(swap, one[1], other)),
            "reference": self.frames.gather(np.where(swap, partner, one[0]), np.where(swap, other, one[1])),
        }


def _nearest(store: FrameStore, stamps: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(T,) indices of a store's frames that are nearest to (T,) stamps, and (T,) how far they are, nanoseconds."""
    used = np.concatenate([np.arange(s.start, s.stop) for s in store.sequences])
    order = used[np.argsort(store.stamps[used], kind="stable")]
    known = store.stamps[order]
    after = np.searchsorted(known, stamps).clip(1, max(len(known) - 1, 1))
    before = after - 1
    after = np.minimum(after, len(known) - 1)
    nearer = np.where(stamps - known[before] <= known[after] - stamps, before, after)
    return order[nearer], np.abs(known[nearer] - stamps)
