"""KeypointGAN's options. Sections, equations and figures are the paper's; its code is the authors'."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from keypoint_perception.errors import UserError
from training import bounds
from training.heatmaps import SoftmaxName
from training.method import OptimizerConfig
from training.networks import NormName
from training.perceptual import VGG_LAYERS, FeatureName


@dataclass(frozen=True)
class KeypointGANConfig:
    """Defaults are the paper's, section 4 and its appendix E, where nothing else is said."""

    keypoints: int | None = None
    """K, the joints of a prior pose; None for as many as the file of prior poses has."""
    edges: tuple[tuple[int, int], ...] | None = None
    """E of Eq. 1: pairs of joints; None for those in the file of prior poses. With [] skeletons are drawn as blobs
    (Eq. 2), as for faces. A drawing must tell its joints apart: of a chain that looks the same from either end, η can
    only learn the middle."""
    names: tuple[str, ...] = ()
    """Names of the joints, as the file of prior poses has them."""
    width: int = 32
    """Channels of the first convolution of Φ, Ψ and η; doubled at each halving of the size."""
    code_stride: int = 8
    """Input pixels per cell of the codes inside Φ and Ψ, a power of two."""
    early_stride: bool = False
    """Halve the size in the first convolution of Φ and Ψ: several times faster, with a block less."""
    skeleton_stride: int = 1
    """Skeletons and reconstructions have 1 / this of the input's size, a power of two."""
    heatmap_stride: int = 8
    """Input pixels per cell of η's heatmaps, a power of two."""
    norm: NormName = "batch"
    """Normalisation in Φ and Ψ."""
    skeleton_norm: NormName = "batch"
    """Normalisation in η; the authors' code has `instance`."""
    skeleton_softmax: SoftmaxName = "joint"
    """η's heatmaps become probabilities by one softmax over the whole map, or one over each axis of its means (the
    authors' code) or sums over the other axis."""
    skip_connections: bool = False
    """Φ's way up sees its way down (section F and the authors' code)."""
    line: Literal["squared", "linear"] = "squared"
    """Profile of drawn lines. squared: exp(-d² / line_width) of Eq. 1; linear: exp(-d / line_width) of the authors'
    code."""
    line_width: float = 0.04
    """1 / γ of Eq. 1, half the image's width being 1 in both directions."""
    blob_sigma: float = 0.02
    """σ of Eq. 2, normalised units; the authors' code drops the ½ of its exponent, as 0.0141 does."""
    signed: bool = False
    """Skeleton images are 2 β - 1, as in the authors' code."""
    discriminator_width: int = 64
    """Channels of the discriminators' first convolution."""
    discriminator_halvings: int = 3
    """Convolutions of stride 2 in a discriminator (Fig. 20)."""
    discriminator_first_norm: bool = True
    """Normalise the discriminators' first convolution, too (Fig. 20). It hides from them how bright skeletons are; the
    authors' code does not."""
    scales: int = 3
    """Discriminators; each sees the skeleton at half the size of the one before."""
    pool: int = 50
    """Skeletons kept for the discriminator; 0 shows it the latest alone."""
    perceptual: float = 10.0
    """Weight of L_perc in Eq. 6: 1 there, 10 in the authors' code, whose scale of L_perc this is."""
    adversarial: float = 10.0
    """λ of Eq. 6."""
    features: FeatureName = "efficientnet_lite0"
    """Network of the perceptual loss."""
    weights: str | None = None
    """Path of its weights, for VGG."""
    layers: tuple[str, ...] = VGG_LAYERS
    """Layers of VGG that are compared, beside the image itself."""
    running_mean_rate: float = 0.99
    """Rate of the running means that balance the layers; from the authors' code. At 0.999 they lie far above the
    errors, which fall fast, and for thousands of steps L_perc counts for little beside the adversarial term."""
    pretrain_steps: int = 20_000
    """Steps in which η alone learns, from drawings of prior poses. Ours: the paper trains until the error plateaus, and
    the η that the authors' config loads is of step 580,000."""
    finetune: tuple[float, float] = (0.0, 0.0)
    """Train η on, weighing (real poses, re-drawn predictions); the authors' code has (0.9, 0.1). Zeros freeze η."""
    init_std: float | None = 0.02
    """Standard deviation of the normal distribution from which the initial weights of convolutions are drawn, as in the
    authors' code, not truncated; None for torch's own initialisation. Normalisations begin as the identity, where the
    code draws the weights of batch normalisation around 1."""
    optimizer: OptimizerConfig = field(
        default_factory=lambda: OptimizerConfig(lr=2e-4, betas=(0.5, 0.999), clip_norm=1.0)
    )

    def __post_init__(self) -> None:
        """Raises UserError that names the first bad value."""
        bounds.at_least("keypointgan", self, keypoints=1, width=1, scales=1)
        bounds.at_least("keypointgan", self, discriminator_width=1, discriminator_halvings=1, pool=0)
        bounds.at_least("keypointgan", self, pretrain_steps=0, perceptual=0, adversarial=0, finetune=0, init_std=0)
        for pair in self.edges or ():
            if len(set(pair)) != 2 or min(pair) < 0 or (self.keypoints and max(pair) >= self.keypoints):
                allowed = f"two different joints of 0 to {self.keypoints - 1 if self.keypoints else 'keypoints - 1'}"
                raise UserError(f"keypointgan: edges has {list(pair)}: allowed are {allowed}")
        if self.names and self.keypoints and len(self.names) != self.keypoints:
            raise UserError(f"keypointgan: names has {len(self.names)} entries: give {self.keypoints} of them, or none")
        bounds.one_of("keypointgan", self, "skeleton_softmax", ("joint", "mean", "sum"))
        bounds.above_zero("keypointgan", self, "line_width", "blob_sigma")
        bounds.power_of_two("keypointgan", self, "skeleton_stride", 1, 64)
        for name in ("code_stride", "heatmap_stride"):
            bounds.power_of_two("keypointgan", self, name, max(2, self.skeleton_stride), 64)

    @property
    def brightness(self) -> tuple[float, float]:
        """Of a skeleton image far from and on the skeleton."""
        return (-1.0, 1.0) if self.signed else (0.0, 1.0)
