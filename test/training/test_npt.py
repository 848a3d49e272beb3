from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from keypoint_perception.errors import UserError
from training.heatmaps import around_mode, expected_position
from training.method import symmetric
from training.methods.npt import Npt
from training.methods.npt_config import NptConfig
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

TINY = NptConfig(
    points=5,
    width=8,
    psi_widths=(8,) * 8,
    psi_strides=(2, 2, 2, 1, 1, 1, 1, 1),
    background_size=8,
    temperature_steps=50,
)
PAIRS = torch.triu_indices(3, 3, 1)  # (0, 1), (0, 2), (1, 2)


def build(**changes):
    torch.manual_seed(0)
    return Npt(replace(TINY, **changes), (32, 32))


def one_hot(positions, size=9):
    """(1, P, size, size) sure points at (column, row)."""
    maps = torch.zeros(1, len(positions), size, size)
    for point, (column, row) in enumerate(positions):
        maps[0, point, row, column] = 1
    return maps


def moving_dots(count, size=32):
    """Pairs of images with the same three coloured squares in different places."""
    rng = np.random.default_rng(0)
    images = np.full((2, count, 3, size, size), 0.3, np.float32)
    for pair in range(count):
        for colour in np.eye(3, dtype=np.float32):
            for image in images[:, pair]:
                x, y = rng.integers(2, size - 6, 2)
                image[:, y : y + 4, x : x + 4] = colour[:, None, None]
    return {"reference": torch.from_numpy(images[0]), "image": torch.from_numpy(images[1])}


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


def test_position_is_the_mean_around_the_mode_and_ignores_a_far_second_peak():
    maps = torch.zeros(1, 1, 9, 9)
    maps[0, 0, 4, 2], maps[0, 0, 4, 3], maps[0, 0, 0, 8] = 0.4, 0.2, 0.4 - 1e-3
    x, y = around_mode(maps)[0, 0].tolist()
    assert x == pytest.approx((2 * 0.4 + 3 * 0.2) / 0.6 / 4 - 1) and y == 0


def test_the_paper_s_architecture():
    method = Npt(NptConfig(), (64, 64))
    convolutions = [block[0] for block in method.skeleton.convolutions]
    assert [c.kernel_size[0] for c in convolutions] == [7, 5, 3, 3, 3, 3, 3, 1]
    normalise, linear = method.skeleton.head
    assert isinstance(normalise, nn.LayerNorm) and linear.out_features == 32 * 31 // 2
    doubles = [*method.points.down, *method.points.up]
    assert len(method.points.down) == 5 and len(method.points.up) == 4
    assert all(c[0].kernel_size == (3, 3) and c[0].stride == (1, 1) for double in doubles for c in double)
    assert method.points.last.kernel_size == (1, 1)
    images = torch.zeros(2, 3, 64, 64)
    assert method.points(images).shape == (2, 32, 64, 64)
    assert method.background(images).shape == (2, 3, 64, 64)
    assert method.background.encoder[0][0].in_channels == 3 and isinstance(method.background.encoder[-1], nn.Linear)


def test_skeleton_depends_on_the_image_and_joints_are_points_with_a_link():
    method = build().eval()
    detection = method.detect(torch.rand(3, 3, 32, 32))
    assert "adjacency" not in method.static_fields
    assert not torch.equal(detection.adjacency[0], detection.adjacency[1])
    torch.testing.assert_close(detection.scores, detection.adjacency.amax(-1))


def test_links_that_the_search_rejects_stay_below_a_half_however_sure_psi_is():
    method = build(search=True, links=1e6).eval()  # too dear for any
    nn.init.constant_(method.skeleton.head[1].bias, 100.0)
    adjacency = method.detect(torch.rand(1, 3, 32, 32)).adjacency
    assert 0.49 < adjacency.max() < 0.5


def touched(method, terms):
    """Which networks a sum of terms has a gradient for."""
    method.zero_grad()
    sum(terms).backward()
    parts = {"points": method.points, "skeleton": method.skeleton, "background": method.background}
    return {name for name, part in parts.items() if any(p.grad is not None and p.grad.any() for p in part.parameters())}


def test_each_loss_reaches_what_it_must():
    batch = moving_dots(4)
    expected = {
        "reconstruction": {"points", "background"},
        "contiguity": {"points"},
        "near": {"points", "skeleton"},
        "uniform": {"points", "skeleton"},
        "links": {"points", "skeleton"},
        "joints": {"points", "skeleton"},
        "length": {"points", "skeleton"},
    }
    for name, networks in expected.items():
        method = build(length_range=(0.9, 1.0))
        assert touched(method, [method.loss(batch, "main")[name]]) == networks, name


def test_whether_a_link_has_gaps_has_no_gradient_to_the_points():
    maps, points = torch.rand(1, 3, 9, 9, requires_grad=True), torch.rand(1, 3, 2, requires_grad=True)
    assert not foreground_share(maps, points, PAIRS, 5, 8).requires_grad


def test_points_learn_alone_first_then_the_graph_s_terms_grow():
    method, batch = build(points_steps=10, ramp_steps=10, power=1.0), moving_dots(2)
    assert set(method.loss(batch, "main")) == {"reconstruction", "contiguity"}
    values = []
    for step in (10, 14, 19, 40):
        method.step = step
        torch.manual_seed(1)
        values.append(method.loss(batch, "main")["links"].item())
    assert values[0] == pytest.approx(values[3] / 10, rel=0.1)
    assert values[1] == pytest.approx(values[3] / 2, rel=0.1)
    assert values[2] == pytest.approx(values[3], rel=0.1)


def test_the_searched_skeleton_trains_psi_alone():
    method, batch = build(search=True), moving_dots(2)
    terms = method.loss(batch, "main")
    assert set(terms) == {"reconstruction", "contiguity", "skeleton"}
    assert touched(method, [terms["skeleton"]]) == {"skeleton"}


def test_a_background_with_a_term_of_its_own_is_moved_by_nothing_else():
    batch = moving_dots(4)
    method = build(background=1.0, foreground=1.0, isometry=1.0, separation=1.0, equivariance=1.0, stride=2)
    method.step = method.config.equivariance_steps
    terms = method.loss(batch, "main")
    assert touched(method, [terms["background"]]) == {"background"}
    for name in ("reconstruction", "foreground", "isometry", "separation", "equivariance"):
        assert touched(method, [method.loss(batch, "main")[name]]) == {"points"}, name


def test_equivariance_grows_to_its_weight():
    batch, values = moving_dots(2), []
    for step in (0, 2, 4, 8):
        method = build(equivariance=3.0, equivariance_steps=4, points_steps=10**6)
        method.step = step
        torch.manual_seed(1)
        values.append(method.loss(batch, "main")["equivariance"].item())
    assert values[0] == 0
    assert values[1] == pytest.approx(values[2] / 2, rel=0.05)
    assert values[3] == pytest.approx(values[2], rel=0.05)


def test_maps_are_smaller_than_the_image_by_the_stride():
    method, images = build(stride=2).eval(), torch.rand(2, 3, 32, 32)
    assert method.points(images).shape == (2, 5, 16, 16)
    assert method.background(images).shape == (2, 3, 16, 16)
    assert method.detect(images).keypoints.shape == (2, 5, 2)
    assert all(picture.shape == (2, 3, 16, 16) for picture in method.preview(moving_dots(2)).values())


def test_what_a_mask_hides_of_the_image_counts_for_nothing():
    batch, terms = moving_dots(2), []
    batch["loss_mask"] = torch.ones(2, 1, 32, 32)
    batch["loss_mask"][..., 16:] = 0
    method = build(stride=1, background=1.0, points_steps=10**6, pyramid_levels=2)
    logits = torch.rand(4, 5, 32, 32, generator=torch.Generator().manual_seed(1))
    method.points.forward = lambda images: logits
    method.background.forward = lambda frames: torch.full_like(frames, 0.5)
    for hidden in (0.0, 1.0):
        batch["image"] = batch["image"].clone()
        batch["image"][..., 16:] = hidden
        torch.manual_seed(2)
        terms.append(method.loss(batch, "main"))
    assert terms[0].keys() >= {"reconstruction", "background"}
    for name, value in terms[0].items():
        torch.testing.assert_close(value, terms[1][name])


def test_sure_points_of_the_ablation_cover_the_line_between_them():
    """As categorical points do: their maps are Gaussians, of which the highest cell counts as 1 there."""
    method = build(position="expectation", points=8)
    position = torch.stack((torch.linspace(-0.5, 0.5, 8), torch.zeros(8)), dim=-1)[None]
    maps = method._gaussians(position, torch.zeros(1, 8, 32, 32))
    assert maps.sum(dim=(2, 3)).allclose(torch.ones(1, 8))
    share = foreground_share(method._peaked(maps), position, method.pairs, pool=3, samples=16)
    assert share.min() > 0.8


@pytest.mark.parametrize("position", ["categorical", "expectation"])
def test_overfits_eight_pairs(position):
    method = build(position=position, points=6, width=12, points_steps=10**6)
    batch = moving_dots(8)
    optimizer = torch.optim.Adam(method.parameters(), 5e-3)
    errors = []
    for step in range(60):
        method.step = step
        optimizer.zero_grad()
        terms = method.loss(batch, "main")
        sum(terms.values()).backward()
        optimizer.step()
        errors.append(terms["reconstruction"].item())
    assert np.mean(errors[-10:]) < 0.4 * errors[0]


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("points", 1),
        ("psi_widths", (8,) * 7),
        ("uniform_pool", 4),
        ("power", 0.0),
        ("near_scale", -1.0),
        ("position", "mean"),
        ("length_range", (1.0, 0.5)),
    ],
)
def test_bad_values_are_refused(key, value):
    with pytest.raises(UserError, match=key):
        replace(TINY, **{key: value})


def test_an_input_that_does_not_divide_is_refused():
    with pytest.raises(UserError, match="multiples of 16"):
        Npt(TINY, (40, 32))


def wide_maps(pixels, size=(128, 64)):
    """(1, P, H, W) sure points at the given pixels (column, row) of an image twice as wide as high."""
    maps = torch.zeros(1, len(pixels), size[1], size[0])
    for point, (column, row) in enumerate(pixels):
        maps[0, point, row, column] = 1
    return maps


def test_a_rigid_body_that_turns_in_an_image_that_is_no_square_keeps_its_lengths():
    maps = torch.cat((wide_maps([(48, 32), (80, 32), (64, 40)]), wide_maps([(64, 16), (64, 48), (56, 32)])))
    torch.manual_seed(0)
    method = Npt(replace(TINY, points=3, isometry=1.0, search=True, uniform=0.0, extent=1.0, length=0.0), (128, 64))
    assert method._point_terms(maps, torch.ones(2, 64, 128))["isometry"].item() == pytest.approx(0, abs=1e-5)
    cover, cost = method._energy(torch.ones(2, 64, 128), maps, expected_position(maps))
    torch.testing.assert_close(cover[0], cover[1], atol=1e-4, rtol=0)
    torch.testing.assert_close(cost[0], cost[1], atol=1e-4, rtol=0)
    assert cost[0, 0].item() == pytest.approx(32 / 63.5, abs=1e-4)  # 32 pixels in half widths
