"""NPT's networks, what each loss reaches, its schedules and its ablations."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from point_maps import one_hot
from torch import nn

from keypoint_perception.errors import UserError
from training.heatmaps import expected_position
from training.methods.npt import Npt
from training.methods.npt_config import NptConfig

TINY = NptConfig(
    points=5,
    width=8,
    psi_widths=(8,) * 8,
    psi_strides=(2, 2, 2, 1, 1, 1, 1, 1),
    background_size=8,
    temperature_steps=50,
)


def build(**changes):
    torch.manual_seed(0)
    return Npt(replace(TINY, **changes), (32, 32))


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
    method = build(position="expectation", points=4, uniform_pool=3)
    uniform = []
    for apart in (2, 8):  # cells from point to point
        line = [(4 + apart * point, 16) for point in range(4)]
        logits = 100 * one_hot(line, (32, 32)).expand(4, -1, -1, -1)
        assert method.sample(logits).sum(dim=(2, 3)).allclose(torch.ones(4, 4))
        method.points.forward = lambda images, logits=logits: logits
        uniform.append(method.loss(moving_dots(2), "main")["uniform"].item())
    assert uniform[0] == 0 and uniform[1] > 0


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


def test_a_rigid_body_that_turns_in_an_image_that_is_no_square_keeps_its_lengths():
    size = (128, 64)
    turned = [(48, 32), (80, 32), (64, 40)], [(64, 16), (64, 48), (56, 32)]
    maps = torch.cat([one_hot(pixels, size) for pixels in turned])
    torch.manual_seed(0)
    method = Npt(replace(TINY, points=3, isometry=1.0, search=True, uniform=0.0, extent=1.0, length=0.0), size).eval()
    method.points.forward = lambda images: 100 * maps
    source, target = torch.rand(2, 1, 3, 64, 128, generator=torch.Generator().manual_seed(0))
    terms = method.loss({"reference": source, "image": target}, "main")
    assert terms["isometry"].item() == pytest.approx(0, abs=1e-5)
    cover, cost = method.energy(torch.ones(2, 64, 128), maps, expected_position(maps))
    torch.testing.assert_close(cover[0], cover[1], atol=1e-4, rtol=0)
    torch.testing.assert_close(cost[0], cost[1], atol=1e-4, rtol=0)
    assert cost[0, 0].item() == pytest.approx(32 / 63.5, abs=1e-4)  # 32 pixels in half widths
