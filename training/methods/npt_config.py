"""NPT's options. Sections, equations and tables are the paper's; "there" is the text of `training.methods.npt`.

Distances are in half widths of the image, which in square ones are the [-1, 1] units of both axes.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from keypoint_perception.errors import UserError
from training import bounds
from training.method import OptimizerConfig

PSI_KERNELS = (7, 5, 3, 3, 3, 3, 3, 1)
"""Kernel sizes of ψ's layers (section VIII)."""


@dataclass(frozen=True)
class NptConfig:
    """The paper's values (section VIII, weights of Swimmers) or, where it gives none, the ones that worked here."""

    points: int = 32
    """P. Not given."""
    width: int = 64
    """Channels of π's first double convolution, doubled at each of 4 steps down. Not given; the U-Net paper's."""
    psi_widths: tuple[int, ...] = (32, 64, 64, 64, 128, 128, 128, 32)
    """Channels of ψ's 8 layers. Not given."""
    psi_strides: tuple[int, ...] = (2, 1, 2, 1, 2, 1, 1, 1)
    """Strides of ψ's 8 layers. Not given."""
    background_size: int = 64
    """Length of B's background vector. Not given."""
    stride: int = 1
    """π's maps, B, the transport and ψ run on images this much smaller, see there. 1 in the paper."""
    background: float = 0.0
    """Weight of |B(x) - x|, by which alone B learns if it is not 0, see there. Not in the paper."""
    foreground: float = 0.0
    """Weight of -log of the share of a point's map on what B does not explain, see there. Not in the paper."""
    isometry: float = 0.0
    """Weight of the change of distances between points that are close in a frame, see there. Not in the paper."""
    isometry_reach: float = 0.3
    """Distance up to which points are close."""
    equivariance: float = 0.0
    """Weight of how far points are from where a turn of the object takes them, see there. Not in the paper."""
    equivariance_steps: int = 4000
    """`equivariance` grows linearly from 0 over so many steps; points that have not found a place yet would meet."""
    turn: float = 180.0
    """Degrees up to which `equivariance` turns the object, either way."""
    separation: float = 0.0
    """Weight of points that are in one place, see there. Not in the paper."""
    separation_distance: float = 0.06
    """Reach of exp(-distance / this), by which points that are near to one another cost; normalised units."""
    contrast: float = 0.1
    """How far, in [0, 1] units, an image is from its background where that counts for 1 - 1/e, see `foreground_map`."""
    position: Literal["categorical", "expectation"] = "categorical"
    """`expectation` is the ablation of Table III: a Gaussian at the mean of a spatial softmax."""
    temperature: float = 1.0
    """Temperature of the Gumbel-softmax at step 0. Not given."""
    final_temperature: float = 0.3
    """Temperature of the Gumbel-softmax from `temperature_steps` on, linear in between. Not given."""
    temperature_steps: int = 2000
    """Steps in which the Gumbel-softmax's temperature falls. Not given."""
    straight_through: bool = False
    """One-hot samples with the gradient of the soft ones; the paper relaxes instead."""
    background_weight: float = 0.2
    """Weight of the background in the compositing softmax; a point's centre has 1. Not given."""
    pyramid_levels: int = 5
    """Sizes, each half of the one before, at which Eq. 1 compares images."""
    contiguity_pool: int = 7
    """β, in pixels."""
    uniform_pool: int = 5
    """τ, in pixels."""
    uniform_share: float = 0.8
    """α of Eq. 5."""
    line_samples: int = 16
    """Positions along a line at which δ is measured."""
    near_scale: float = 0.1
    """Distance at which exp(-d) of Eq. 3 has fallen to 1/e. Not given."""
    near_temperature: float = 0.1
    """Temperature of the softmax that relaxes the maximum of Eq. 3. Not given."""
    power: float = 1.0
    """Power p of Eq. 4, 0 < p <= 1. Not given. The weights `links` and `joints` below are for 1, see there."""
    length_range: tuple[float, float] = (0.1, 1.2)
    """Shortest and longest length of a link, l_min and l_max of Eq. 8. Not given."""
    search: bool = False
    """S is searched for instead of descended to, see there. The weights below are then costs of one link or joint."""
    rigid: float = 0.0
    """In the search, the cost of a link whose length differs by 1 between the frames. Not in the paper."""
    extent: float = 0.0
    """In the search, the cost of a link for each unit of its length, so that no link runs along others. Not in the
    paper."""
    belief: float = 0.0
    """In the search, how much cheaper a link is that ψ is sure of, see there. Not in the paper."""
    reconstruction: float = 10.0
    """Weight of Eq. 1, the error of the redrawn image."""
    contiguity: float = 0.001
    """Weight of Eq. 2, which keeps points beside the same other points in both frames."""
    near: float = 10.0
    """Weight of Eq. 3, which draws links to the points."""
    joints: float = 0.1
    """Weight of Eq. 4's term of points, which keeps joints few."""
    links: float = 7000.0
    """Weight of Eq. 4's term of pairs of points, which keeps links few."""
    uniform: float = 20.0
    """Weight of Eq. 5, which keeps links on the object."""
    length: float = 1000.0
    """Weight of Eq. 8, which keeps links within `length_range`."""
    ramp_steps: int = 10_000
    """`uniform`, `joints` and `links` grow linearly from 0 over so many steps after `points_steps`."""
    points_steps: int = 0
    """Steps in which only the points learn. The paper has none, see there."""
    psi_lr_multiplier: float = 1.0
    """The learning rate of ψ is this many times that of π and B. Not in the paper."""
    optimizer: OptimizerConfig = field(
        default_factory=lambda: OptimizerConfig("adam", 5e-3, (0.9, 0.999), clip_norm=1.0, clip_value=1.0)
    )

    def __post_init__(self) -> None:
        """Raises UserError that names the first bad value."""
        bounds.at_least("npt", self, points=2, width=1, background_size=1, stride=1, psi_widths=1, psi_strides=1)
        bounds.at_least("npt", self, temperature_steps=1, equivariance_steps=1, pyramid_levels=1, line_samples=1)
        bounds.at_least("npt", self, reconstruction=0, contiguity=0, background=0, foreground=0, isometry=0)
        bounds.at_least("npt", self, separation=0, near=0, joints=0, links=0, uniform=0, length=0, rigid=0)
        bounds.at_least("npt", self, extent=0, belief=0, ramp_steps=0, points_steps=0, equivariance=0, turn=0)
        bounds.above_zero("npt", self, "temperature", "final_temperature", "near_scale", "near_temperature")
        bounds.above_zero("npt", self, "background_weight", "contrast", "isometry_reach", "separation_distance")
        bounds.odd("npt", self, "contiguity_pool", "uniform_pool")
        bounds.one_of("npt", self, "position", ("categorical", "expectation"))
        bounds.share("npt", self, "power")
        for name in ("psi_widths", "psi_strides"):
            if len(getattr(self, name)) != len(PSI_KERNELS):
                raise UserError(f"npt: {name} has {len(getattr(self, name))} entries: give {len(PSI_KERNELS)}")
        if not 0 <= self.length_range[0] < self.length_range[1]:
            raise UserError(f"npt: length_range is {self.length_range}: give 0 <= shortest < longest")
