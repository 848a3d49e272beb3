"""KeypointGAN's networks: the paper's tables, the discriminators' losses by hand, the pool of older skeletons."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from training.methods.keypointgan import KeypointGAN
from training.methods.keypointgan_config import KeypointGANConfig
from training.methods.keypointgan_networks import (
    Discriminator,
    ImageEncoder,
    ImageGenerator,
    SkeletonEncoder,
    SkeletonPool,
)

PAPER = KeypointGANConfig(keypoints=3, edges=((0, 1), (1, 2)))
SMALL = replace(PAPER, width=4, heatmap_stride=4, discriminator_width=4, discriminator_halvings=1, scales=3)


def layers_of(module: nn.Module) -> list[tuple[int, int, int]]:
    """Kernel, stride and output channels of every convolution, in order."""
    return [(m.kernel_size[0], m.stride[0], m.out_channels) for m in module.modules() if isinstance(m, nn.Conv2d)]


DOWN = [(7, 1, 32), (3, 1, 32), (3, 2, 64), (3, 1, 64), (3, 2, 128), (3, 1, 128), (3, 2, 256), (3, 1, 256)]
UP = [(3, 1, 256), (3, 1, 256), (3, 1, 128), (3, 1, 128), (3, 1, 64), (3, 1, 64), (3, 1, 32)]


def test_networks_are_the_papers_tables() -> None:
    assert layers_of(ImageEncoder(PAPER)) == [*DOWN, (1, 1, 256), *UP, (3, 1, 1)]  # Fig. 17
    assert layers_of(SkeletonEncoder(PAPER)) == [*DOWN, (1, 1, 3)]  # Fig. 19
    generator = [*DOWN, (1, 1, 256), *DOWN, (1, 1, 256), *UP, (3, 1, 3)]  # Fig. 18, section 4
    assert layers_of(ImageGenerator(PAPER)) == generator
    scores = [(4, 2, 64), (4, 2, 128), (4, 2, 256), (4, 1, 512), (4, 1, 1)]  # Fig. 20
    assert layers_of(Discriminator(PAPER)) == scores * 3


def test_sizes_are_the_papers_tables() -> None:
    method = KeypointGAN(PAPER, (128, 128)).eval()
    image = torch.rand(1, 3, 128, 128)
    skeleton = method.image_encoder(image)
    assert skeleton.shape == (1, 1, 128, 128)
    assert method.skeleton_encoder.down(skeleton)[-1].shape == (1, 3, 16, 16)
    assert method.generator(skeleton, image).shape == image.shape
    assert method.discriminator.scales[0](skeleton).shape == (1, 1, 14, 14)


def test_discriminator_loss_is_equation_5_averaged_over_scales() -> None:
    discriminator = Discriminator(SMALL)
    skeleton = torch.rand(2, 1, 32, 32)
    wanted = 0.0
    for index, scale in enumerate(discriminator.scales):
        small = skeleton.unfold(2, 2**index, 2**index).unfold(3, 2**index, 2**index).mean(dim=(-1, -2))
        wanted += (1 - scale(small)).square().mean().item() / 3
    assert discriminator(skeleton, 1.0).item() == pytest.approx(wanted, rel=1e-5)


@pytest.mark.parametrize("softmax", ["joint", "mean", "sum"])
def test_skeleton_encoder_reads_means_of_heatmaps(softmax: str) -> None:
    torch.manual_seed(0)
    encoder = SkeletonEncoder(replace(SMALL, skeleton_softmax=softmax)).eval()
    skeleton = torch.rand(2, 1, 24, 32)
    with torch.no_grad():
        encoder.down.last.weight.mul_(1000)  # logits of some size
        maps, found = encoder.down(skeleton)[-1].double().numpy(), encoder(skeleton).numpy()
    for b, k in np.ndindex(2, 3):
        if softmax == "joint":
            weights = [np.exp(maps[b, k]).sum(axis=axis) for axis in (0, 1)]
        else:
            over = np.mean if softmax == "mean" else np.sum
            weights = [np.exp(over(maps[b, k], axis=axis)) for axis in (0, 1)]
        wanted = [sum(w * (-1 + 2 * i / (len(v) - 1)) for i, w in enumerate(v)) / sum(v) for v in weights]
        assert found[b, k] == pytest.approx(wanted, abs=1e-5)


@pytest.mark.parametrize("first_norm", [True, False])
def test_normalising_its_first_convolution_hides_brightness_from_the_discriminator(first_norm: bool) -> None:
    torch.manual_seed(0)
    discriminator = Discriminator(replace(SMALL, discriminator_first_norm=first_norm)).scales[0]
    skeleton = 10 * torch.rand(2, 1, 32, 32)
    gap = discriminator(skeleton) - discriminator(skeleton / 2)
    assert (gap.abs().max() < 1e-3) == first_norm


def test_pool_returns_new_and_old_skeletons_and_keeps_its_size() -> None:
    pool = SkeletonPool(4, 1, 1)

    def ask(*values: float) -> list[float]:
        return pool(torch.tensor(values).view(-1, 1, 1, 1)).flatten().tolist()

    assert ask(1, 2, 3) == [1, 2, 3]
    seen, handed_in, handed_out = {1.0, 2.0, 3.0}, {1, 2, 3}, [1.0, 2.0, 3.0]
    for step in range(20):
        torch.manual_seed(step)
        new = [10.0 * step + 4, 10.0 * step + 5]
        out = ask(*new)
        handed_in |= set(new)
        handed_out += out
        assert all(value in new or value in seen for value in out)
        seen |= set(new)
    kept = set(pool.images.flatten().tolist())
    assert len(kept) == 4
    assert kept | set(handed_out) == handed_in  # nothing is lost
    assert len(set(handed_out) - {1.0, 2.0, 3.0}) > 20


def test_no_pool_shows_the_latest() -> None:
    images = torch.rand(3, 1, 2, 2)
    assert torch.equal(SkeletonPool(0, 2, 2)(images), images)
