"""The interface that every method implements and the training loop knows; nothing here belongs to one paper.

Shapes: B images, K keypoints, N annotated joints. Coordinates are (x, y) in [-1, 1], -1 and +1 at the centres of the
first and last pixel.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal, NamedTuple, TypedDict

import torch
from torch import Tensor, nn

from keypoint_perception.errors import UserError
from keypoint_perception.model import Alike
from training import bounds

if TYPE_CHECKING:
    from training.prior import Poses


class Batch(TypedDict, total=False):
    """What the data side may put into a batch. A method names what it needs in `required_keys`."""

    image: Tensor
    """(B, 3, H, W) float in [0, 1]: the target."""
    reference: Tensor
    """(B, 3, H, W) float in [0, 1]: another view or instant of the same object, the source."""
    loss_mask: Tensor
    """(B, 1, H, W) float in [0, 1]: where the reconstruction of `image` counts."""
    prior_keypoints: Tensor
    """(B, J, 2): unpaired poses."""
    keypoints: Tensor
    """(B, N, 2): annotated joints, NaN where there is none: for a network of the evaluation that is trained with
    labels, and never put there by the data side."""


class Detection(NamedTuple):
    """What a method says about a batch of images."""

    keypoints: Tensor
    """(B, K, 2) normalised."""
    scores: Tensor
    """(B, K) in [0, 1]."""
    adjacency: Tensor
    """(B, K, K) in [0, 1], symmetric, zero diagonal; at least 0.5 is an edge."""
    parent: Tensor
    """(B, K) int64, -1 is a root; a parent has a smaller level than its child."""
    level: Tensor
    """(B, K) int64, 0 is coarsest."""


@dataclass(frozen=True)
class OptimizerConfig:
    """How a method's parameters are stepped. A method's config holds one with its paper's values as defaults."""

    name: Literal["adam", "adamw"] = "adam"
    """Adam adds the weight decay to the gradient, AdamW shrinks the weights by it directly."""
    lr: float = 1e-3
    """Learning rate at the first step."""
    betas: tuple[float, float] = (0.9, 0.999)
    """Rates of the running means of the gradient and of its square."""
    weight_decay: float = 0.0
    """Factor of the weights in what is added to their gradients, or of lr in how much of them a step takes away."""
    clip_norm: float | None = None
    """Largest L2 norm of all gradients of a phase, None for no limit."""
    clip_value: float | None = None
    """Largest absolute value of a gradient entry, None for no limit."""
    decay: float = 1.0
    """The learning rate is multiplied by this every `decay_steps` steps."""
    decay_steps: int = 100_000
    """Steps from one multiplication by `decay` to the next."""
    schedule: Literal["step", "cosine"] = "step"
    """`cosine` ignores `decay` and goes to zero at the run's last step."""

    def __post_init__(self) -> None:
        """Raises UserError that names the first bad value."""
        bounds.above_zero("optimizer", self, "lr", "decay")
        bounds.at_least("optimizer", self, weight_decay=0, decay_steps=1)
        for name in ("clip_norm", "clip_value"):
            if getattr(self, name) is not None:
                bounds.above_zero("optimizer", self, name)
        if not all(0 <= beta < 1 for beta in self.betas):
            raise UserError(f"optimizer: betas is {list(self.betas)}: give two numbers from 0 to below 1")


class Method(nn.Module, ABC):
    """A paper: networks, losses and what may be learned when.

    A subclass is built from its own frozen config dataclass and the input size; its constructor touches no global
    state, network or device. The loop sets `step` before each training step, calls each phase that `phases(step)`
    names in order and, in each, adds up the terms of `loss(batch, phase)` and steps the parameters of
    `param_groups(phase)` only.
    """

    Config: ClassVar[type[Any]]
    """The frozen dataclass of the method's options; its defaults are the paper's."""
    required_keys: ClassVar[frozenset[str]] = frozenset({"image", "reference"})
    static_fields: ClassVar[frozenset[str]] = frozenset({"adjacency", "parent", "level"})
    """The Detection fields that do not depend on the image."""
    graph_origin: ClassVar[str] = "learned by the method"
    """Where the adjacency is from, where it is static and not empty."""
    uses_prior: ClassVar[bool] = False
    """Whether unpaired poses (`--data.prior`) change what is learned."""
    alike: Alike = ()
    """Limbs whose numbers may change from image to image."""
    either_end: bool = False
    """Whether the keypoints are one chain, in their order, which may begin at either end in an image."""
    keypoint_names: tuple[str, ...] = ()
    """(K,) where something tells what the keypoints are, as the file of prior poses; empty otherwise."""
    step: int = 0
    """The running training step, for schedules inside the losses; set by the loop."""
    optimizer: OptimizerConfig
    keypoint_count: int
    """K."""

    @classmethod
    def fill_from_prior(cls, options: Any, prior: Poses | None) -> Any:
        """The method's options with what they leave open filled in from the unpaired poses that are given, if any."""
        return options

    @abstractmethod
    def detect(self, image: Tensor) -> Detection:
        """image (B, 3, H, W) in [0, 1] to keypoints, scores and graph. Deterministic in eval mode, exportable."""

    @abstractmethod
    def loss(self, batch: Batch, phase: str) -> dict[str, Tensor]:
        """The named terms of one phase, each a scalar with its weight already in it; their sum is minimised."""

    def phases(self, step: int) -> tuple[str, ...]:
        """The phases of training step `step`, in order. Most methods have one."""
        return ("main",)

    def param_groups(self, phase: str) -> Iterable[dict[str, Any]]:
        """What `phase` steps: dicts with `params` and, where it is not 1, `lr_multiplier`.

        A group may carry torch's own optimiser keys (`weight_decay`, `eps`), which take precedence.
        """
        return [{"params": list(self.parameters())}]

    @torch.no_grad()
    def preview(self, batch: Batch) -> dict[str, Tensor]:
        """Pictures worth looking at during training: name to (B, 3, H, W) in [0, 1]. Reconstructions, edge maps."""
        return {}


def independent_keypoints(keypoints: Tensor, scores: Tensor) -> Detection:
    """A Detection of keypoints without links or hierarchy: keypoints (B, K, 2), scores (B, K)."""
    batch, count = scores.shape
    return linked_keypoints(keypoints, scores, keypoints.new_zeros(batch, count, count))


def symmetric(values: Tensor, pairs: Tensor, count: int) -> Tensor:
    """(..., E) values of unordered pairs (2, E) to a symmetric (..., count, count) with a zero diagonal."""
    matrix = values.new_zeros(*values.shape[:-1], count * count)
    index = torch.cat((pairs[0] * count + pairs[1], pairs[1] * count + pairs[0]))
    return matrix.index_copy(-1, index, torch.cat((values, values), dim=-1)).unflatten(-1, (count, count))


def linked_keypoints(keypoints: Tensor, scores: Tensor, adjacency: Tensor) -> Detection:
    """A Detection without hierarchy: keypoints (B, K, 2), scores (B, K), adjacency (B, K, K)."""
    root = torch.full_like(scores, -1, dtype=torch.long)
    return Detection(keypoints, scores, adjacency, parent=root, level=torch.zeros_like(root))
