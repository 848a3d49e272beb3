"""Warped pairs: what is sampled from where, and what the mask leaves out."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from training.data.warps import MARGIN, RAMP, Spline, SplineConfig, WarpConfig, border_mask, warped_pair
from training.heatmaps import grid

STILL = SplineConfig(translation=0.0, warp_all=0.0, warp_half=0.0)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def images(batch: int = 2, height: int = 64, width: int = 96) -> Tensor:
    y, x = torch.meshgrid(torch.linspace(0, 1, height), torch.linspace(0, 1, width), indexing="ij")
    return torch.stack((x, y, 0.5 * x + 0.5 * y)).expand(batch, 3, height, width)


def test_no_deviation_is_no_warp() -> None:
    still = images()
    image, reference, mask = warped_pair(still, WarpConfig(STILL, STILL), generator())
    torch.testing.assert_close(image, still, atol=1e-5, rtol=0)
    torch.testing.assert_close(reference, still, atol=1e-5, rtol=0)
    torch.testing.assert_close(mask, border_mask(64, 96).expand(2, 1, 64, 96), atol=1e-5, rtol=0)


def test_a_spline_is_its_formula() -> None:
    spline = Spline(SplineConfig(rotation_degrees=10.0, scale=0.1, warp_half=0.01), 1, (64, 96), generator())
    point = torch.tensor([0.3, -0.7])
    expected = spline.affine[0] @ point + spline.translation[0, :, 0]
    for weight, centre in zip(spline.weights[0], grid(10, 10, point).view(-1, 2), strict=True):
        r = (point - centre).norm()
        expected = expected + weight * r**2 * (r**2).log()
    torch.testing.assert_close(spline(point.view(1, 1, 2))[0, 0], expected, atol=5e-4, rtol=0)


def test_a_spline_at_all_pixels_is_the_spline_at_each() -> None:
    spline = Spline(SplineConfig(rotation_degrees=30.0, scale=0.2, warp_half=0.05), 3, (20, 30), generator())
    expected = spline(grid(20, 30, spline.affine).view(-1, 2).expand(3, -1, -1))
    torch.testing.assert_close(spline.of_pixels(), expected, atol=1e-5, rtol=0)


def test_in_pixels_the_affine_part_turns_and_scales_by_its_deviations() -> None:
    height, width = 49, 65
    spline = Spline(SplineConfig(rotation_degrees=20.0, scale=0.1), 2000, (height, width), generator())
    half = torch.tensor([(width - 1) / 2, (height - 1) / 2])  # pixels a normalised unit
    turns = half[:, None] * spline.affine / half
    scale = torch.linalg.det(turns).sqrt()
    expected = scale.square()[:, None, None] * torch.eye(2)
    torch.testing.assert_close(turns.transpose(1, 2) @ turns, expected, atol=1e-4, rtol=0)
    angle = torch.atan2(turns[:, 1, 0], turns[:, 0, 0])
    assert angle.mean().item() == pytest.approx(0, abs=math.radians(2))
    assert angle.std().item() == pytest.approx(math.radians(20), rel=0.1)
    assert scale.mean().item() == pytest.approx(1, abs=0.01)
    assert scale.std().item() == pytest.approx(0.1, rel=0.1)


def test_half_of_the_centres_get_more_weight() -> None:
    spline = Spline(SplineConfig(warp_all=0.0, warp_half=1.0), 20, (64, 96), generator())
    share = (spline.weights[..., 0] != 0).float().mean()
    assert 0.4 < share < 0.6


def test_the_mask_is_zero_at_the_border_and_one_inside() -> None:
    mask = border_mask(128, 128)[0, 0]
    assert mask[: MARGIN + 1].max() == 0 and mask[64, 64] == 1
    row = mask[64, : MARGIN + RAMP + 1]
    assert torch.all(row[MARGIN + 1 :] > row[MARGIN:-1]) and row[-1] == 1
    torch.testing.assert_close(mask, mask.flip(0).flip(1))


def test_the_mask_scales_with_the_image() -> None:
    torch.testing.assert_close(border_mask(64, 64)[0, 0, 32, MARGIN // 2], torch.tensor(0.0))
    assert border_mask(64, 64)[0, 0, 32, (MARGIN + RAMP) // 2] == 1


def test_the_target_mask_leaves_out_what_lies_outside_the_still() -> None:
    far = SplineConfig(translation=1.0, warp_all=0.0, warp_half=0.0)
    still = images(8)
    image, _, mask = warped_pair(still, WarpConfig(far, STILL), generator(1))
    assert mask.min() == 0 and mask.shape == (8, 1, 64, 96)
    inside = mask[:, 0] > 0.99
    # Where the mask is 1 the target shows the still's own linear ramp, without anything reflected.
    across = (image[:, 0, :, 1:] - image[:, 0, :, :-1])[inside[:, :, 1:] & inside[:, :, :-1]]
    torch.testing.assert_close(across, torch.full_like(across, 1 / 95), atol=1e-4, rtol=0)


def test_what_lies_outside_still_or_target_is_black_with_zeros_alone() -> None:
    far = SplineConfig(translation=1.0, warp_all=0.0, warp_half=0.0)
    white = torch.ones(8, 3, 64, 96)
    for mirrored in warped_pair(white, WarpConfig(far, far), generator(1))[:2]:
        assert mirrored.min() > 0.999
    image, reference, _ = warped_pair(white, WarpConfig(far, far, "zeros"), generator(1))
    again = generator(1)
    target, source = (Spline(far, 8, (64, 96), again) for _ in range(2))
    in_target = source.of_pixels()
    in_still = target(in_target)
    for picture, taken_from in ((image, target.of_pixels()), (reference, torch.cat((in_target, in_still), dim=-1))):
        furthest = taken_from.abs().amax(dim=-1).view(8, 64, 96)
        assert picture[:, 0][furthest < 1].min() > 0.999
        assert picture[:, 0][furthest > 1.04].max() == 0  # more than a pixel outside
    assert ((in_target.abs().amax(dim=-1) > 1.04) & (in_still.abs().amax(dim=-1) < 1)).any()


def test_the_source_is_a_warp_of_the_target() -> None:
    still = images(4)
    moved = SplineConfig(translation=0.2, warp_all=0.0, warp_half=0.0)
    image, reference, _ = warped_pair(still, WarpConfig(moved, STILL), generator())
    torch.testing.assert_close(image, reference)


def test_papers_defaults_move_things_but_not_far() -> None:
    still = images(16, 128, 128)
    image, reference, mask = warped_pair(still, WarpConfig(), generator())
    for warped in (image, reference):
        assert warped.min() >= 0 and warped.max() <= 1
        assert 0.02 < (warped - still).abs().mean() < 0.3
    assert 0.2 < mask.mean() < 0.8
