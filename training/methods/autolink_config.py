"""AutoLink's options."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from keypoint_perception.errors import UserError
from training import bounds
from training.method import OptimizerConfig
from training.perceptual import FeatureName
from training.regularisation import Regularisation


@dataclass(frozen=True)
class AutoLinkConfig:
    """The paper's values; sizes that it leaves to its appendix are the official code's."""

    keypoints: int = 16
    """K."""
    detector_widths: tuple[int, ...] = (64, 128, 256, 512)
    """Channels of the detector's residual stages; each halves the image."""
    upsamplings: int = 2
    """Doublings after the last stage: 128 px become maps of 32 x 32."""
    decoder_width: int = 64
    """Channels of the decoder's first level, doubled at each of `decoder_depth` steps down, up to 512."""
    decoder_depth: int = 4
    """Steps of the decoder, a U-Net, down and up again; each halves the size."""
    edge_stride: int = 1
    """The edge map is drawn, and the decoder works, at 1 / this of the image's size; above 1 for small processors."""
    thickness: float = 5e-5
    """σ² of Eq. 2, half the image's width being 1: a line of 0.45 px at 128 px. The paper tunes it a data set, up to
    2.5e-3."""
    initial_edge: float = -4.0
    """Mean of the edge weights before the softplus: every pair starts at about 0.018."""
    edge_lr_multiplier: float = 512.0
    """The edge weights' learning rate is this many times that of all else."""
    mask_cells: int = 16
    """Cells a side of the mask."""
    keep: float = 0.2
    """Probability that a cell stays visible."""
    features: FeatureName = "efficientnet_lite0"
    """Γ of Eq. 6. The paper's VGG needs a file of weights; `pyramid` compares the image itself at several scales."""
    weights: str | None = None
    """Path of Γ's weights, for VGG."""
    layers: tuple[str, ...] = ("relu1_2", "relu2_2", "relu3_3", "relu4_3")
    """Layers of VGG that are compared, beside the image itself; the official code's."""
    feature_size: int | None = None
    """Γ sees images of so many pixels a side, resized bilinearly; None: of the input's size. The code has 224."""
    compare_image: bool = True
    """Compare the image itself, too, as a layer before Γ's own; the paper and its code do not."""
    feature_error: Literal["squared", "absolute"] = "squared"
    """Difference of features that is averaged in each layer: squared (Eq. 6), or absolute as in the official code."""
    initialisation: Literal["kaiming", "torch"] = "kaiming"
    """Initial weights of convolutions: the official code's, after which keypoints begin apart, or torch's own, after
    which they begin near the centre. Where the object is small, keypoints that begin apart may stay where nothing ever
    is."""
    layered: bool = False
    """Not in the paper: the edge map composes two painted layers instead of entering the U-Net, so that lines have to
    lie on the object; see `autolink_layers`."""
    motion_weight: float = 0.0
    """Not in the paper: pixels where image and reference differ count up to 1 + this; for small objects. This and
    `regularisation.foreground` and `.equivariance` need pairs (`data.pairs: time`)."""
    shadow_free: bool = False
    """Not in the paper: errors and motion are those of `chromaticity`, for objects that throw shadows."""
    edge_cost: float = 0.0
    """Not in the paper: weight of Σ_ij opacity(w_ij) · ‖k_i - k_j‖, a mean over images, which only the weights feel. An
    edge whose line lies over another's has no gradient under the maximum of Eq. 4: it would stay as it began."""
    regularisation: Regularisation = field(default_factory=Regularisation)
    """Not in the paper: terms for small objects."""
    running_mean_rate: float | None = None
    """Not in the paper: divide each layer's error by a running mean of it, so that layers of any scale count alike."""
    edge_share: float = 0.2
    """An edge counts from this share of the strongest weight on; see `AutoLink.adjacency`."""
    optimizer: OptimizerConfig = field(default_factory=lambda: OptimizerConfig("adam", 1e-4, (0.9, 0.99)))

    def __post_init__(self) -> None:
        """Raises UserError that names the first bad value."""
        bounds.at_least("autolink", self, keypoints=2, upsamplings=0, decoder_width=1, decoder_depth=1)
        bounds.at_least("autolink", self, edge_stride=1, mask_cells=1, detector_widths=1, motion_weight=0, edge_cost=0)
        if not self.detector_widths:
            raise UserError("autolink: detector_widths is empty: give channels for each stage")
        if self.upsamplings > len(self.detector_widths):
            raise UserError(
                f"autolink: upsamplings is {self.upsamplings}: give at most the {len(self.detector_widths)} stages"
            )
        bounds.above_zero("autolink", self, "thickness", "edge_lr_multiplier")
        bounds.share("autolink", self, "keep", "edge_share")
        bounds.at_least("autolink", self, feature_size=16)
        bounds.one_of("autolink", self, "feature_error", ("squared", "absolute"))
        bounds.one_of("autolink", self, "initialisation", ("kaiming", "torch"))
        if self.features == "pixels" and not self.compare_image:
            raise UserError("autolink: compare_image is False: features: pixels has no other layer: give true")
