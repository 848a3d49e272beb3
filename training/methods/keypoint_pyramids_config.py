"""What one can choose for Keypoint Pyramids, with the paper's values as defaults."""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import pairwise
from typing import Literal

from keypoint_perception.errors import UserError
from training import bounds
from training.method import OptimizerConfig
from training.methods.transporter import CombineName, PasteName
from training.networks import NormName
from training.regularisation import Regularisation

Redraw = Literal["points", "transport"]
"""Whether the target's image gives only its keypoints, or features under them as well."""


@dataclass(frozen=True)
class KeypointPyramidsConfig:
    """Defaults are the paper's, section 3.5; sizes that it does not give are marked."""

    keypoints: tuple[int, ...] = (10, 20)
    """N_l, coarse to fine; each a multiple of the one before. Their number is L."""
    context: int = 0
    """Coarser scales of the feature pyramid that have no keypoints: with them every level sees more of the image."""
    coarsest_stride: int = 8
    """Input pixels per cell of the coarsest map, a power of two; each finer level has half of it. 128 px: 16, 32."""
    width: int = 32
    """Channels of the trunk's first block, doubled at each halving (not given)."""
    early_stride: bool = False
    """Halve the size in the trunk's first convolution: several times faster, with a block less."""
    pyramid_width: int = 128
    """Channels of every level of the feature pyramid (not given)."""
    transport_channels: tuple[int, ...] = (64, 32)
    """C_l of Eq. 2, falling from coarse to fine (not given)."""
    decoder_width: int = 128
    """Channels of each decoder's first block, halved at each doubling (not given)."""
    decoder_least_width: int = 32
    """Decoders never have fewer channels."""
    output_stride: int = 1
    """Reconstruct at 1 / this of the input's size, a power of two up to the finest level's stride."""
    norm: NormName = "batch"
    """Normalisation after each convolution (not given)."""
    sigma: float = 0.1
    """σ of the points' Gaussians exp(-d² / σ²), normalised units (not given)."""
    combine: CombineName = "union"
    """How the maps of a level become the one map of Eq. 2."""
    conditioned: bool = True
    """Keypoint encoders see the points of the level above; False is the paper's ablation Unconditioned."""
    transport_mask: PasteName = "both"
    """Where features of x are pasted: under the points of both images (Eq. 2), or of x alone (the Transporter)."""
    detach_reference: bool = True
    """No gradient through the reference's pyramid and points (not given)."""
    redraw_all: Redraw = "points"
    """What all points redraw the image from: their maps and the reference's appearance (Eq. 1), or that appearance
    with transported features, the ablation All-Transport."""
    redraw_level: Redraw = "transport"
    """The same of each level's own redrawing: Eqs. 2 and 3, or the ablation All-Reconstruction."""
    reconstruction: float = 1.0
    """Weight of Eq. 1; 0 is the ablation No-Reconstruction."""
    transport: tuple[float, ...] = (0.1, 1.0)
    """λ_l of Eq. 3; all 0 is the ablation No-Transport."""
    spring: float = 1.0
    """λ_s of Eq. 4; 0 is the ablation No-Spring."""
    regularisation: Regularisation = field(default_factory=Regularisation)
    """Not in the paper: terms of every level for small objects and short runs; off by default."""
    optimizer: OptimizerConfig = field(default_factory=lambda: OptimizerConfig(lr=1e-4))

    def __post_init__(self) -> None:
        """Raises UserError that names the first bad value."""
        counts, levels = self.keypoints, len(self.keypoints)
        if not counts or counts[0] < 1 or any(fine % coarse or fine < coarse for coarse, fine in pairwise(counts)):
            raise UserError(f"keypoint_pyramids: keypoints are {list(counts)}: give multiples of the level before")
        for name in ("transport_channels", "transport"):
            if len(getattr(self, name)) != levels:
                given = f"{name} has {len(getattr(self, name))} entries for {levels} levels of keypoints"
                raise UserError(f"keypoint_pyramids: {given}: give one a level")
        if any(fine >= coarse for coarse, fine in pairwise(self.transport_channels)):
            channels = list(self.transport_channels)
            raise UserError(f"keypoint_pyramids: transport_channels are {channels}: give fewer to each finer level")
        bounds.at_least("keypoint_pyramids", self, width=1, pyramid_width=1, decoder_width=1, decoder_least_width=1)
        bounds.at_least("keypoint_pyramids", self, reconstruction=0, spring=0, transport=0, context=0)
        for name in ("redraw_all", "redraw_level"):
            bounds.one_of("keypoint_pyramids", self, name, ("points", "transport"))
        bounds.above_zero("keypoint_pyramids", self, "sigma")
        least = 2 ** (levels - 1) * (2 if self.early_stride else 1)
        bounds.power_of_two("keypoint_pyramids", self, "coarsest_stride", least, 64)
        bounds.power_of_two("keypoint_pyramids", self, "output_stride", 1, self.finest_stride)

    @property
    def finest_stride(self) -> int:
        """Input pixels per cell of the finest map."""
        return self.coarsest_stride >> (len(self.keypoints) - 1)
