"""NPT's equations: point transport (section III-A) and the losses of points and skeleton (section III-B).

Lengths and distances are those of points in half widths of the image, along both axes, so that a rigid body that turns
keeps them; only where a picture is looked up (`foreground_share`) points are normalised.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from training.heatmaps import root, squared_distance_to_segments
from training.method import symmetric


def blur(maps: Tensor) -> Tensor:
    """(B, P, H, W) convolved with the 3 x 3 binomial Gaussian of peak 1, so that a sure point keeps the height 1."""
    taps = maps.new_tensor((0.5, 1.0, 0.5))
    kernel = (taps[:, None] * taps).expand(maps.shape[1], 1, 3, 3)
    return F.conv2d(maps, kernel, padding=1, groups=maps.shape[1])


def gumbel_softmax(logits: Tensor, temperature: float, *, straight_through: bool) -> Tensor:
    """Samples (..., N) of the categorical distributions with logits (..., N), relaxed as far as `temperature` says.

    The distribution of torch's function, whose random numbers take a processor as long as a network's whole pass.
    straight_through: one-hot samples with the gradient of the relaxed ones.
    """
    least = torch.finfo(logits.dtype).tiny
    exponential = -torch.rand_like(logits).clamp_min(least).log()
    soft = ((logits - exponential.clamp_min(least).log()) / temperature).softmax(dim=-1)
    if not straight_through:
        return soft
    hard = torch.zeros_like(soft).scatter_(-1, soft.argmax(dim=-1, keepdim=True), 1.0)
    return hard - soft.detach() + soft


def transport(
    source: Tensor, source_maps: Tensor, target_maps: Tensor, background: Tensor, background_weight: float
) -> Tensor:
    """NPT(x_source, π(x_source), π(x_target)): (B, 3, H, W), section III-A.

    c_p is the mean source colour under point p's smoothed map; each point's splat of that colour and the background
    are mixed in proportion to splat height and `background_weight`: the weighted softmax over layers of equal depth.
    """
    under = blur(source_maps)
    colours = torch.einsum("bphw,bchw->bpc", under, source) / under.sum((2, 3)).clamp_min(1e-6)[..., None]
    splat = blur(target_maps)
    painted = torch.einsum("bphw,bpc->bchw", splat, colours) + background_weight * background
    return painted / (splat.sum(dim=1, keepdim=True) + background_weight)


def neighbours(maps: Tensor, pool: int) -> Tensor:
    """N of Eq. 6, (B, P, P): max over ω of the product of two dilated maps.

    Where the maximum is, is found point by point without a gradient; only there is the product taken with one.
    """
    maps = maps.contiguous(memory_format=torch.channels_last)  # on processors eight times as fast to pool
    dilated = F.max_pool2d(maps, pool, stride=1, padding=pool // 2).flatten(2).contiguous()
    with torch.no_grad():
        highest = torch.stack([(dilated * one[:, None]).argmax(dim=-1) for one in dilated.unbind(1)], dim=1)
    return dilated.gather(2, highest) * dilated.gather(2, highest.mT).mT


def contiguity_loss(source_maps: Tensor, target_maps: Tensor, pool: int) -> Tensor:
    """Eq. 2: -Σ_p max_{q≠p} N_pq^source N_pq^target, mean over the batch."""
    together = neighbours(source_maps, pool) * neighbours(target_maps, pool)
    itself = torch.eye(together.shape[1], dtype=torch.bool, device=together.device)
    return -together.masked_fill(itself, 0).amax(dim=-1).sum(dim=-1).mean()


def foreground_map(image: Tensor, background: Tensor, contrast: float) -> Tensor:
    """(B, H, W) in [0, 1], where the object is: 1 - exp(-(c / contrast)²), c the mean over colours of |image - B|."""
    apart = (image.float() - background.float()).abs().mean(dim=1)
    return 1 - torch.exp(-((apart / contrast) ** 2))


def foreground_loss(maps: Tensor, object_map: Tensor) -> Tensor:
    """-log Σ_ω π_p(ω) f(ω), mean over batch and points: maps (B, P, H, W), object map f (B, H, W).

    Unlike the share itself, its logarithm has a gradient for a point that is far from the object.
    """
    return -(object_share(maps, object_map) + 1e-4).log().mean()


def object_share(maps: Tensor, object_map: Tensor) -> Tensor:
    """Σ_ω π_p(ω) f(ω), how much of each point is on the object: (B, P, H, W) and (B, H, W) to (B, P)."""
    return torch.einsum("bphw,bhw->bp", maps.float(), object_map)


def isometry_loss(points: Tensor, reach: float) -> Tensor:
    """How much the distances of points that are close in one frame differ from those in the other.

    points (2B, P, 2), first all sources, then all targets. Σ w |l_source - l_target| / Σ w over pairs of points and the
    batch with w = exp(-(l / reach)²), l the smaller of the two lengths; w has no gradient.
    """
    lengths = ((points[:, :, None] - points[:, None]).square().sum(dim=-1) + 1e-6).sqrt()
    source, target = lengths.chunk(2)
    weight = torch.exp(-((torch.minimum(source, target).detach() / reach) ** 2))
    weight = weight * (1 - torch.eye(points.shape[1], dtype=points.dtype, device=points.device))
    return (weight * (source - target).abs()).sum() / weight.sum().clamp_min(1e-6)


def near_loss(strength: Tensor, points: Tensor, pairs: Tensor, scale: float, temperature: float) -> Tensor:
    """Eq. 3 for one frame: -Σ_p max_ij S_ij exp(-d[p‖i,j] / scale), mean over the batch.

    strength S (B, E), points γ (B, P, 2), pairs (2, E). The maximum is Σ_ij x_ij softmax(x / temperature)_ij.
    """
    squared = squared_distance_to_segments(points[:, :, None], points[:, None, pairs[0]], points[:, None, pairs[1]])
    explained = strength[:, None] * torch.exp(-root(squared) / scale)  # (B, P, E)
    return -(explained * (explained / temperature).softmax(dim=-1)).sum(dim=(1, 2)).mean()


def sparse_losses(strength: Tensor, pairs: Tensor, points: int, power: float) -> tuple[Tensor, Tensor]:
    """Eq. 4: (Σ_ij S_ij^p)^1/p over pairs and (Σ_i max_j S_ij^p)^1/p over points, with means in place of the sums."""
    raised = (strength + 1e-8) ** power
    links = raised.mean(dim=-1) ** (1 / power)
    joints = symmetric(raised, pairs, points).amax(dim=-1).mean(dim=-1) ** (1 / power)
    return links.mean(), joints.mean()


@torch.no_grad()
def foreground_share(maps: Tensor, points: Tensor, pairs: Tensor, pool: int, samples: int) -> Tensor:
    """δ, (B, E): the mean over positions on the line between two points of π̄, the dilated maps' maximum (Eq. 7)."""
    foreground = F.max_pool2d(maps.amax(dim=1, keepdim=True), pool, stride=1, padding=pool // 2)
    t = torch.linspace(0, 1, samples, dtype=points.dtype, device=points.device)[:, None]
    start, end = points[:, pairs[0], None], points[:, pairs[1], None]  # (B, E, 1, 2)
    return F.grid_sample(foreground, start + t * (end - start), align_corners=True).mean(dim=-1)[:, 0]


def uniform_loss(strength: Tensor, share: Tensor, least: float) -> Tensor:
    """Eq. 5 for one frame: Σ S_ij [δ_ij < α] / Σ [δ_ij < α], mean over the batch."""
    gap = (share < least).to(strength)
    return ((strength * gap).sum(dim=-1) / gap.sum(dim=-1).clamp_min(1)).mean()


def length_loss(strength: Tensor, points: Tensor, pairs: Tensor, length_range: tuple[float, float]) -> Tensor:
    """Eq. 8 for one frame: Σ S_ij (max(0, l_min - l_ij) + max(0, l_ij - l_max)), mean over pairs and batch."""
    length = ((points[:, pairs[0]] - points[:, pairs[1]]) ** 2).sum(dim=-1).add(1e-8).sqrt()
    return (strength * outside(length, length_range)).mean()


def outside(length: Tensor, length_range: tuple[float, float]) -> Tensor:
    """max(0, l_min - l) + max(0, l - l_max) of Eq. 8, of each length."""
    shortest, longest = length_range
    return (shortest - length).clamp_min(0) + (length - longest).clamp_min(0)
