import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from keypoint_perception.errors import UserError
from training.config import parse_config
from training.method import OptimizerConfig
from training.methods.autolink import AutoLink, drawn_length, edge_map, random_cells
from training.methods.autolink_config import AutoLinkConfig
from training.methods.autolink_layers import LayeredDecoder, chromaticity, opacity
from training.regularisation import Regularisation
from training.trainer import make_optimizer

OFFICIAL = Path(__file__).parents[2] / "config/train/autolink_official.yaml"
TINY = AutoLinkConfig(
    keypoints=4,
    detector_widths=(8, 16, 16),
    upsamplings=1,
    decoder_width=8,
    decoder_depth=2,
    edge_stride=2,
    thickness=5e-3,
    mask_cells=8,
    features="pyramid",
)


def build(**changes):
    torch.manual_seed(0)
    return AutoLink(replace(TINY, **changes), (32, 32))


def bars(count, size=32):
    """Images with a bright line between two random points on grey."""
    rng = np.random.default_rng(0)
    images = np.full((count, 3, size, size), 0.4, np.float32)
    for image in images:
        start, end = rng.uniform(4, size - 4, (2, 2))
        for t in np.linspace(0, 1, 60):
            x, y = np.round(start + t * (end - start)).astype(int)
            image[:, y - 1 : y + 2, x - 1 : x + 2] = np.array([1.0, 0.9, 0.1])[:, None, None]
    return torch.from_numpy(images)


def edge_map_by_loops(keypoints, weights, thickness, height, width):
    """Eq. 2 to 4 as printed, with the minus sign; y in half widths, too."""
    aspect = (height - 1) / (width - 1)
    out = np.zeros((height, width))
    keypoints = keypoints * (1, aspect)
    edges = [(i, j) for i in range(len(keypoints)) for j in range(i + 1, len(keypoints))]
    for row, y in enumerate(np.linspace(-aspect, aspect, height)):
        for column, x in enumerate(np.linspace(-1, 1, width)):
            p = np.array([x, y])
            for weight, (i, j) in zip(weights, edges, strict=True):
                a, b = keypoints[i], keypoints[j]
                t = np.clip((p - a) @ (b - a) / ((b - a) @ (b - a)), 0, 1)
                distance = np.linalg.norm(p - (a + t * (b - a)))
                out[row, column] = max(out[row, column], weight * np.exp(-(distance**2) / thickness))
    return out


@pytest.mark.parametrize(("height", "width"), [(9, 9), (9, 13)])
def test_edge_map_is_the_maximum_over_edges(height, width):
    keypoints = torch.tensor([[[-0.5, -0.5], [0.7, -0.2], [0.1, 0.8]]])
    weights = torch.tensor([1.0, 0.5, 2.0])
    pairs = torch.triu_indices(3, 3, 1)
    drawn = edge_map(keypoints, weights, pairs, height, width, thickness=0.02)
    expected = edge_map_by_loops(keypoints[0].numpy(), weights.numpy(), 0.02, height, width)
    np.testing.assert_allclose(drawn[0, 0].numpy(), expected, atol=1e-6)


def test_edge_map_has_the_gradient_of_the_maximum():
    pairs = torch.triu_indices(3, 3, 1)
    gradients = []
    for lazy in (True, False):
        keypoints = torch.tensor([[[-0.5, -0.5], [0.7, -0.2], [0.1, 0.8]]], dtype=torch.float64, requires_grad=True)
        weights = torch.tensor([1.0, 0.5, 2.0], dtype=torch.float64, requires_grad=True)
        if lazy:
            drawn = edge_map(keypoints, weights, pairs, 8, 8, thickness=0.05)
        else:
            every = [edge_map(keypoints, weights[[e]], pairs[:, [e]], 8, 8, thickness=0.05) for e in range(3)]
            drawn = torch.stack(every).amax(dim=0)
        (drawn**2).sum().backward()
        gradients.append((keypoints.grad, weights.grad))
    for ours, plain in zip(*gradients, strict=True):
        torch.testing.assert_close(ours, plain)


def test_coincident_keypoints_have_a_finite_gradient():
    keypoints = torch.zeros(1, 2, 2, requires_grad=True)
    edge_map(keypoints, torch.ones(1), torch.triu_indices(2, 2, 1), 8, 8, 0.01).sum().backward()
    assert torch.isfinite(keypoints.grad).all()


def test_mask_keeps_whole_cells_of_the_given_share():
    torch.manual_seed(0)
    mask = random_cells(torch.zeros(50, 3, 32, 32), cells=8, keep=0.2)
    cells = mask.view(50, 8, 4, 8, 4).transpose(2, 3).flatten(3)
    assert torch.equal(cells.amin(-1), cells.amax(-1))
    assert 0.17 < mask.mean() < 0.23


def test_initial_edge_weights_are_the_softplus_of_about_minus_four():
    weights = build(keypoints=16).weights()
    assert weights.shape == (120,)
    assert weights.min() > 0.012 and weights.max() < 0.026


@pytest.mark.parametrize("name", ["adam", "adamw"])
def test_learning_rate_factor_equals_the_factor_inside_the_softplus(name):
    """Stepping θ with 512 times the rate moves softplus(θ) as stepping r moves softplus(512 r)."""
    settings = OptimizerConfig(name, lr=1e-4, weight_decay=20.0)  # so much that it counts beside the loss
    method = build(optimizer=settings, edge_lr_multiplier=512.0)
    with torch.no_grad():
        method.edges.copy_(torch.linspace(-4, -3, len(method.edges)))
    inside = torch.nn.Parameter(method.edges.detach() / 512)
    edges = [group for group in method.param_groups("main") if "lr_multiplier" in group]
    first, second = make_optimizer(settings, edges), make_optimizer(settings, [{"params": [inside]}])
    decayless = method.edges.detach().clone().requires_grad_()
    third = make_optimizer(settings, [{**edges[0], "params": [decayless], "weight_decay": 0.0}])
    for step in range(20):
        target = 0.02 + 0.001 * step
        for optimizer, raw in ((first, method.edges), (second, inside), (third, decayless)):
            optimizer.zero_grad()
            ((torch.nn.functional.softplus(raw * (512 if raw is inside else 1)) - target) ** 2).sum().backward()
            optimizer.step()
    torch.testing.assert_close(method.edges.detach(), 512 * inside.detach(), rtol=1e-4, atol=1e-5)
    assert (method.edges - decayless).abs().max() > 0.01  # decay moved them, and alike


def test_edges_are_counted_relative_to_the_strongest():
    method = build(edge_share=0.25)
    with torch.no_grad():
        method.edges.copy_(torch.tensor([2.0, 0.6, 0.4, 0.01, 0.0001, 2.0]).expm1().log())  # softplus^-1
    adjacency = method.adjacency()
    assert torch.equal(adjacency, adjacency.T) and adjacency.diagonal().eq(0).all()
    linked = adjacency[method.pairs[0], method.pairs[1]] >= 0.5
    assert linked.tolist() == [True, True, False, False, False, True]


def test_the_paper_s_architecture():
    method = AutoLink(AutoLinkConfig(features="pyramid"), (128, 128))
    assert [block.body[1].out_channels for block in method.detector.down] == [64, 128, 256, 512]
    _, maps = method.eval().keypoints(torch.zeros(1, 3, 128, 128))
    assert maps.shape == (1, 16, 32, 32)
    assert method.decoder.stem.__class__ is torch.nn.Identity and len(method.decoder.up) == 4
    assert method.alpha.item() == 1


@pytest.mark.parametrize("layered", [False, True])
def test_every_convolution_starts_after_kaiming(layered):
    """N(0, 2 / (1 + 0.2²) / inputs) and no bias, in the detector and in the decoder."""
    method = build(layered=layered, detector_widths=(32, 32, 64), decoder_width=32)
    for part in (method.detector, method.decoder):
        layers = [layer for layer in part.modules() if isinstance(layer, torch.nn.Conv2d)]
        for layer in layers:
            inputs = layer.weight[0].numel()
            assert layer.weight.std().item() == pytest.approx(math.sqrt(2 / 1.04 / inputs), rel=0.25)
            assert layer.bias is None or not layer.bias.any()
        assert layers


def test_keypoints_start_apart_after_kaiming_and_near_the_centre_otherwise():
    """Spread over keypoints for images of noise."""
    spread = {}
    for name in ("kaiming", "torch"):
        torch.manual_seed(0)
        method = AutoLink(AutoLinkConfig(features="pyramid", initialisation=name), (128, 128))
        with torch.no_grad():
            keypoints, _ = method.keypoints(torch.rand(2, 3, 128, 128))
        spread[name] = keypoints.std(dim=1).mean()
    assert spread["torch"] < 0.05 < 0.06 < spread["kaiming"]


def test_gradients_reach_everything_that_learns():
    method = build()
    batch = {"image": bars(4)}
    sum(method.loss(batch, "main").values()).backward()
    for name, parameter in method.named_parameters():
        assert parameter.grad is not None and torch.isfinite(parameter.grad).all(), name
    assert method.edges.grad.abs().sum() > 0 and method.alpha.grad != 0
    grouped = [p for group in method.param_groups("main") for p in group["params"]]
    assert len(grouped) == len(set(map(id, grouped))) == len(list(method.parameters()))


def test_trains_on_channels_last_images():
    """The loop's memory format; a strided 1x1 convolution of such an image once corrupted the memory."""
    batch = {"image": bars(8).contiguous(memory_format=torch.channels_last)}
    method = build().to(memory_format=torch.channels_last)
    for _ in range(3):
        loss = sum(method.loss(batch, "main").values())
        loss.backward()
    values = []
    for images in (batch["image"], bars(8)):
        method = build()
        torch.manual_seed(1)
        values.append(sum(method.loss({"image": images}, "main").values()).item())
    assert values[0] == pytest.approx(values[1], rel=1e-4)


def test_overfits_eight_images():
    method, images = build(keep=0.1), bars(8)
    groups = [
        {"params": g["params"], "lr": 2e-3 * min(10, g.get("lr_multiplier", 1))} for g in method.param_groups("main")
    ]
    optimizer = torch.optim.Adam(groups)
    errors = []
    for _ in range(80):
        optimizer.zero_grad()
        loss = sum(method.loss({"image": images}, "main").values())
        loss.backward()
        optimizer.step()
        errors.append(loss.item())
    assert np.mean(errors[-5:]) < 0.25 * errors[0]


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("keypoints", 1),
        ("thickness", 0.0),
        ("keep", 1.5),
        ("upsamplings", 4),
        ("feature_error", "cubed"),
        ("feature_size", 8),
        ("edge_cost", -1.0),
    ],
)
def test_bad_values_are_refused(key, value):
    with pytest.raises(UserError, match=key):
        replace(TINY, **{key: value})


def test_pixels_alone_leave_nothing_beside_the_image():
    with pytest.raises(UserError, match="compare_image"):
        replace(TINY, features="pixels", compare_image=False)


def test_the_official_config_compares_four_layers_and_not_the_image():
    config = parse_config("autolink", ["--config", str(OFFICIAL)]).options
    assert (config.features, config.feature_size, config.feature_error) == ("vgg16", 224, "absolute")
    assert len(AutoLink(config, (128, 128)).perceptual.features) == 4


@pytest.mark.parametrize(
    ("widths", "upsamplings", "channels"),
    [((8, 8), 0, [8]), ((8, 8, 8), 1, [8, 16]), ((8, 16, 16), 1, [16, 16]), ((16, 64), 2, [64, 32, 16])],
)
def test_narrow_detectors_find_keypoints_too(widths, upsamplings, channels):
    """Channels of the maps on the way up: halved at each doubling, at least 16."""
    method = build(detector_widths=widths, upsamplings=upsamplings)
    keypoints, maps = method.keypoints(bars(1))
    side = 32 // 2 ** (len(widths) - upsamplings)
    assert keypoints.shape == (1, 4, 2) and maps.shape == (1, 4, side, side)
    assert [block[0].in_channels for block in method.detector.up] + [method.detector.last.in_channels] == channels


def test_an_input_that_does_not_divide_is_refused():
    with pytest.raises(UserError, match="multiples of the coarsest cell"):
        AutoLink(TINY, (36, 32))


def test_layers_show_the_background_where_no_line_is():
    torch.manual_seed(0)
    decoder = LayeredDecoder(4, 1, 8).eval()
    visible = torch.rand(2, 3, 8, 8)
    edges = torch.zeros(2, 1, 8, 8)
    edges[:, :, 3] = math.log(4)  # opacity 3/4
    background, foreground = decoder.background(visible), decoder.object(torch.cat((visible, edges), dim=1))
    painted = decoder(visible, edges)
    torch.testing.assert_close(painted[:, :, 0], background[:, :, 0])
    torch.testing.assert_close(painted[:, :, 3], 0.25 * background[:, :, 3] + 0.75 * foreground[:, :, 3])


def test_edges_cost_opacity_times_length():
    keypoints = torch.tensor([[[0.0, 0.0], [0.3, 0.4], [0.0, 1.0]], [[0.0, 0.0], [0.0, 0.1], [0.0, 0.3]]])
    weights = torch.tensor([math.log(2), math.log(4), 1e-9])  # opacities 1/2, 3/4, 0
    pairs = torch.triu_indices(3, 3, 1)  # 01, 02, 12
    assert opacity(weights).tolist() == pytest.approx([0.5, 0.75, 0.0], abs=1e-6)
    first, second = 0.5 * 0.5 + 0.75 * 1.0, 0.5 * 0.1 + 0.75 * 0.3
    assert drawn_length(keypoints, weights, pairs).item() == pytest.approx((first + second) / 2)


def test_chromaticity_is_blind_to_shadows_and_sees_colours():
    colours = torch.tensor([[0.6, 0.4, 0.2], [0.3, 0.2, 0.1], [0.2, 0.4, 0.6]])[:, :, None, None]
    lit, shadow, other = chromaticity(colours)[..., 0, 0]
    assert lit.tolist() == pytest.approx([0.6 / 1.3, 0.4 / 1.3, 0.2 / 1.3])
    assert (lit - shadow).abs().max() < 0.04 and (lit - other).abs().max() > 0.3


def test_optional_terms_are_weighted_and_the_edges_cost_moves_no_keypoint():
    regularisation = Regularisation(concentration=1.0, separation=1.0, foreground=1.0, equivariance=1.0)
    images = bars(4)
    batch = {"image": images, "reference": images.flip(0)}
    method = build(layered=True, edge_cost=2.0, motion_weight=3.0, shadow_free=True, regularisation=regularisation)
    terms = method.loss(batch, "main")
    assert set(terms) == {"perceptual", "edges", "concentration", "separation", "foreground", "equivariance"}
    keypoints = method.keypoints(images)[0]
    torch.testing.assert_close(terms["edges"], 2 * drawn_length(keypoints, method.weights(), method.pairs))
    terms["edges"].backward()
    assert method.edges.grad.min() > 0
    assert all(p.grad is None for p in method.detector.parameters())


@pytest.mark.parametrize(
    "option",
    [
        {"motion_weight": 1.0},
        {"regularisation": Regularisation(foreground=1.0)},
        {"regularisation": Regularisation(equivariance=1.0)},
    ],
)
def test_terms_of_motion_ask_for_pairs(option):
    with pytest.raises(UserError, match="need pairs"):
        build(**option).loss({"image": bars(2)}, "main")


def test_layers_learn_lines_on_the_object():
    """Eight images of one bar: what is drawn lies on it."""
    method, images = build(layered=True, keep=0.1, initial_edge=0.0), bars(8)
    groups = [{"params": g["params"], "lr": 5e-3} for g in method.param_groups("main")]
    optimizer = torch.optim.Adam(groups)
    for _ in range(120):
        optimizer.zero_grad()
        sum(method.loss({"image": images}, "main").values()).backward()
        optimizer.step()
    drawn = torch.nn.functional.interpolate(method.reconstruct(images, method.keypoints(images)[0])[1], (32, 32))
    bar = (images[:, :1] > 0.9).float()
    assert (drawn * bar).sum() / drawn.sum() > 2 * bar.mean()
