"""NPT's equations, each by hand or against loops."""

import numpy as np
import pytest
import torch
from point_maps import one_hot

from training.method import symmetric
from training.methods.npt_losses import (
    blur,
    contiguity_loss,
    foreground_loss,
    foreground_map,
    foreground_share,
    gumbel_softmax,
    isometry_loss,
    length_loss,
    near_loss,
    neighbours,
    sparse_losses,
    transport,
    uniform_loss,
)

PAIRS = torch.triu_indices(3, 3, 1)  # (0, 1), (0, 2), (1, 2)


def test_a_sure_point_carries_its_colour():
    source = torch.zeros(1, 3, 9, 9)
    source[0, :, 2:5, 2:5] = torch.tensor([0.9, 0.5, 0.1])[:, None, None]
    background = torch.full((1, 3, 9, 9), 0.3)
    painted = transport(source, one_hot([(3, 3)]), one_hot([(6, 5)]), background, background_weight=0.2)
    colour = torch.tensor([0.9, 0.5, 0.1])
    torch.testing.assert_close(painted[0, :, 5, 6], (1.0 * colour + 0.2 * 0.3) / 1.2)
    torch.testing.assert_close(painted[0, :, 5, 7], (0.5 * colour + 0.2 * 0.3) / 0.7)
    torch.testing.assert_close(painted[0, :, 4, 5], (0.25 * colour + 0.2 * 0.3) / 0.45)
    torch.testing.assert_close(painted[0, :, 0, 0], torch.full((3,), 0.3))


def test_blur_is_the_binomial_gaussian_of_peak_one():
    around = blur(one_hot([(4, 4)]))[0, 0, 3:6, 3:6]
    torch.testing.assert_close(around, torch.tensor([[0.25, 0.5, 0.25], [0.5, 1.0, 0.5], [0.25, 0.5, 0.25]]))


@pytest.mark.parametrize("straight_through", [False, True])
def test_samples_fall_where_the_logits_say(straight_through):
    torch.manual_seed(0)
    probability = torch.tensor([0.1, 0.2, 0.7])
    sample = gumbel_softmax(probability.log().expand(20_000, 3), 0.5, straight_through=straight_through)
    torch.testing.assert_close(sample.sum(dim=1), torch.ones(20_000))
    shares = sample.argmax(dim=1).bincount() / 20_000
    torch.testing.assert_close(shares, probability, atol=0.012, rtol=0)  # above three standard deviations
    assert bool((sample.amax(dim=1) > 0.999).all()) == straight_through


def test_neighbours_are_points_whose_windows_meet():
    together = neighbours(one_hot([(1, 1), (4, 1), (8, 8)]), pool=7)[0]
    assert together[0, 1] == 1 and together[0, 2] == 0 and together[1, 2] == 0
    torch.testing.assert_close(together, together.T)
    only_one_cell_in_common = neighbours(one_hot([(1, 4), (7, 4)]), pool=7)[0]
    assert only_one_cell_in_common[0, 1] == 1


def test_neighbours_are_the_maximum_over_all_cells_with_its_gradient():
    maps = torch.rand(2, 3, 8, 8, generator=torch.Generator().manual_seed(0), requires_grad=True)
    dilated = torch.nn.functional.max_pool2d(maps, 3, stride=1, padding=1).flatten(2)
    plain = (dilated[:, :, None] * dilated[:, None]).amax(dim=-1)
    together = neighbours(maps, pool=3)
    torch.testing.assert_close(together, plain)
    torch.testing.assert_close(*(torch.autograd.grad(n.square().sum(), maps)[0] for n in (together, plain)))


def test_contiguity_rewards_each_point_that_keeps_a_neighbour():
    source = one_hot([(1, 1), (3, 1), (8, 8)])
    assert contiguity_loss(source, one_hot([(5, 5), (6, 5), (0, 0)]), pool=3).item() == -2
    assert contiguity_loss(source, one_hot([(0, 8), (8, 0), (0, 0)]), pool=3).item() == 0


def test_the_object_is_where_the_image_is_far_from_its_background():
    image, background = torch.full((1, 3, 1, 2), 0.5), torch.full((1, 3, 1, 2), 0.5)
    image[0, :, 0, 1] += torch.tensor([0.3, 0.0, 0.0])  # a mean difference of 0.1
    share = foreground_map(image, background, contrast=0.2)[0, 0]
    assert share.tolist() == pytest.approx([0, 1 - np.exp(-(0.5**2))], abs=1e-6)


def test_foreground_loss_is_the_mean_negative_logarithm_of_each_map_s_share_on_the_object():
    maps, object_map = torch.zeros(1, 2, 2, 2), torch.tensor([[[1.0, 0.0], [0.0, 0.5]]])
    maps[0, 0, 0, 0] = 1  # wholly on the object
    maps[0, 1, 0, 1], maps[0, 1, 1, 1] = 0.6, 0.4  # 0.4 of it where the object map is a half
    assert foreground_loss(maps, object_map).item() == pytest.approx(-np.log(0.2) / 2, abs=1e-3)


def test_a_point_that_lies_off_the_object_is_drawn_there():
    logits = torch.zeros(1, 1, 3, 3)
    logits[0, 0, 0, 0] = 12.0
    logits.requires_grad_()
    object_map = torch.zeros(1, 3, 3)
    object_map[0, 2, 2] = 1
    foreground_loss(logits.flatten(2).softmax(-1).view_as(logits), object_map).backward()
    assert logits.grad[0, 0, 2, 2] < -0.01


def test_isometry_compares_the_lengths_of_pairs_that_are_close_in_a_frame():
    source, target = [[0.0, 0.0], [0.2, 0.0], [0.2, 0.4]], [[0.0, 0.0], [0.0, 0.5], [0.4, 0.5]]
    lengths = np.array([[0.2, 0.4, 0.2**0.5], [0.5, 0.4, (0.4**2 + 0.5**2) ** 0.5]])
    weight = np.exp(-((lengths.min(axis=0) / 0.3) ** 2))
    expected = (weight * np.abs(lengths[0] - lengths[1])).sum() / weight.sum()
    points = torch.tensor([source, target])
    assert isometry_loss(points, reach=0.3).item() == pytest.approx(expected, abs=1e-4)
    turned = points[:1] @ torch.tensor([[0.0, 1.0], [-1.0, 0.0]])
    assert isometry_loss(torch.cat((points[:1], turned + 0.3)), reach=0.3).item() == pytest.approx(0, abs=1e-6)


def near_by_loops(strength, points, scale, temperature):
    total = 0.0
    for p in points:
        explained = []
        for weight, (i, j) in zip(strength, PAIRS.T.tolist(), strict=True):
            a, b = points[i], points[j]
            t = np.clip((p - a) @ (b - a) / max((b - a) @ (b - a), 1e-8), 0, 1)
            explained.append(weight * np.exp(-np.linalg.norm(p - a - t * (b - a)) / scale))
        weights = np.exp(np.array(explained) / temperature)
        total -= (np.array(explained) * weights / weights.sum()).sum()
    return total


def test_near_loss_against_plain_loops():
    points, strength = torch.tensor([[[-0.5, 0.0], [0.5, 0.1], [0.1, 0.4]]]), torch.tensor([[0.9, 0.2, 0.1]])
    value = near_loss(strength, points, PAIRS, scale=0.3, temperature=0.2)
    assert value.item() == pytest.approx(near_by_loops(strength[0].numpy(), points[0].numpy(), 0.3, 0.2), abs=1e-3)


def test_a_point_on_its_link_is_explained_as_far_as_the_link_is_strong():
    points = torch.tensor([[[-0.5, 0.0], [0.5, 0.0], [0.25, 0.0]]], requires_grad=True)
    value = near_loss(torch.tensor([[1.0, 0.0, 0.0]]), points, PAIRS, scale=0.1, temperature=0.01)
    assert value.item() == pytest.approx(-3, abs=1e-5)
    value.backward()
    assert torch.isfinite(points.grad).all()


def test_sparse_losses_by_hand():
    strength = torch.tensor([[0.9, 0.0, 0.3]])
    links, joints = sparse_losses(strength, PAIRS, 3, power=1)
    assert links.item() == pytest.approx((0.9 + 0 + 0.3) / 3, abs=1e-6)
    assert joints.item() == pytest.approx((0.9 + 0.9 + 0.3) / 3, abs=1e-6)
    links, joints = sparse_losses(strength, PAIRS, 3, power=0.5)  # Eq. 4 as printed, over 3^(1 / 0.5)
    assert links.item() == pytest.approx((0.9**0.5 + 0.3**0.5) ** 2 / 9, abs=1e-3)
    assert joints.item() == pytest.approx((2 * 0.9**0.5 + 0.3**0.5) ** 2 / 9, abs=1e-3)


def test_foreground_share_is_the_covered_part_of_a_line():
    maps = one_hot([(0, 4), (8, 4), (4, 4)])
    points = torch.tensor([[[-1.0, 0.0], [1.0, 0.0], [0.0, 0.0]]])
    share = foreground_share(maps, points, PAIRS, pool=3, samples=9)[0]
    # Line 0-1 runs over columns 0 to 8: all but 2 and 6 are within a pixel of a point. On the half as long lines 0-2
    # and 1-2 every second sample lies between two columns and counts half where one of them is covered.
    assert share.tolist() == pytest.approx([7 / 9, 7 / 9, 7 / 9])
    assert foreground_share(maps, points, PAIRS, pool=5, samples=9)[0].tolist() == pytest.approx([1, 1, 1])


def test_whether_a_link_has_gaps_has_no_gradient_to_the_points():
    maps, points = torch.rand(1, 3, 9, 9, requires_grad=True), torch.rand(1, 3, 2, requires_grad=True)
    assert not foreground_share(maps, points, PAIRS, 5, 8).requires_grad


def test_uniform_loss_is_the_mean_strength_of_links_with_gaps():
    strength, share = torch.tensor([[0.9, 0.4, 0.2]]), torch.tensor([[0.95, 0.5, 0.79]])
    assert uniform_loss(strength, share, 0.8).item() == pytest.approx((0.4 + 0.2) / 2)
    assert uniform_loss(strength, torch.ones(1, 3), 0.8).item() == 0


def test_length_loss_by_hand():
    points = torch.tensor([[[0.0, 0.0], [0.05, 0.0], [0.0, 1.5]]])
    value = length_loss(torch.tensor([[0.5, 1.0, 0.0]]), points, PAIRS, (0.1, 1.2))
    assert value.item() == pytest.approx((0.5 * 0.05 + 1.0 * 0.3) / 3, abs=1e-4)


def test_matrix_of_pairs_is_symmetric():
    expected = [[0, 1, 2], [1, 0, 3], [2, 3, 0]]
    assert symmetric(torch.tensor([1.0, 2.0, 3.0]), PAIRS, 3).tolist() == expected
    assert symmetric(torch.tensor([[1.0, 2.0, 3.0]]), PAIRS, 3).tolist() == [expected]
