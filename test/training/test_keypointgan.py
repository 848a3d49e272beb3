"""KeypointGAN: the renderer and the losses against loops, which phase moves what, where its options come from."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

import training.fit
from keypoint_perception.errors import UserError
from training.config import RunConfig, config_from_dict, parse_config
from training.methods.keypointgan import KeypointGAN, render
from training.methods.keypointgan_config import KeypointGANConfig
from training.prior import Poses, write_poses

EDGES = ((0, 1), (1, 2))
CONFIG = Path(__file__).parents[2] / "config" / "train" / "keypointgan_small.yaml"
OFFICIAL = CONFIG.with_name("keypointgan_official.yaml")
PAPER = KeypointGANConfig(keypoints=3, edges=EDGES)
SMALL = replace(
    PAPER, width=4, code_stride=4, heatmap_stride=4, discriminator_width=4, discriminator_halvings=1, scales=2, pool=4,
    features="pyramid", pretrain_steps=4, init_std=None,
)  # fmt: skip
SIZE = (32, 32)


def batch_of(count: int = 4) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(0)
    image, reference = torch.rand(2, count, 3, 32, 32, generator=generator)
    poses = torch.rand(count, 3, 2, generator=generator) * 1.6 - 0.8
    return {"image": image, "reference": reference, "prior_keypoints": poses}


def distance_to_skeleton(x: float, y: float, pose: Tensor) -> float:
    """The least distance of a point to the edges, by trying 2001 places on each."""
    least = math.inf
    for i, j in EDGES:
        for r in np.linspace(0, 1, 2001):
            place = r * pose[i].numpy() + (1 - r) * pose[j].numpy()
            least = min(least, math.hypot(x - place[0], y - place[1]))
    return least


@pytest.mark.parametrize("line", ["squared", "linear"])
def test_skeletons_are_equation_1(line: str) -> None:
    pose = torch.tensor([[-0.5, -0.4], [0.1, 0.6], [0.7, -0.2]])
    aspect = 4 / 6  # distances are those in pixels, over half the width
    drawn = render(pose[None], replace(PAPER, line=line), 5, 7)
    assert drawn.shape == (1, 1, 5, 7)
    for row, column in np.ndindex(5, 7):
        distance = distance_to_skeleton(column / 3 - 1, (row / 2 - 1) * aspect, pose * torch.tensor([1, aspect]))
        wanted = math.exp(-(distance**2 if line == "squared" else distance) / 0.04)
        assert drawn[0, 0, row, column] == pytest.approx(wanted, abs=4e-3)


def test_blobs_are_equation_2() -> None:
    pose = torch.tensor([[-0.5, -0.5], [0.0, 0.5]])
    drawn = render(pose[None], KeypointGANConfig(keypoints=2, blob_sigma=0.5), 5, 5)
    for row, column in np.ndindex(5, 5):
        x, y = column / 2 - 1, row / 2 - 1
        wanted = sum(math.exp(-((x - px) ** 2 + (y - py) ** 2) / (2 * 0.25)) for px, py in pose.tolist())
        assert drawn[0, 0, row, column] == pytest.approx(wanted, abs=1e-5)


def test_blobs_of_the_authors_code_lack_the_half_of_the_exponent() -> None:
    official = parse_config("keypointgan", ["--config", str(OFFICIAL)]).options
    drawn = render(torch.zeros(1, 1, 2), official, 101, 101)[0, 0, 50]
    for cells in (0, 1, 2):  # 0.02 wide, as σ; drawings go from -1 to 1
        assert drawn[50 + cells].item() == pytest.approx(2 * math.exp(-(cells**2)) - 1, abs=0.005)


def test_signed_skeletons_go_from_minus_one_to_one() -> None:
    pose = torch.tensor([[-1.0, -1.0], [-1.0, 0.0], [-1.0, 1.0]])
    drawn = render(pose[None], replace(PAPER, signed=True), 16, 16)
    assert drawn[..., 0].min() == pytest.approx(1)
    assert drawn[..., -1].max() == pytest.approx(-1)


@pytest.mark.parametrize("line", ["squared", "linear"])
def test_a_pixel_on_the_line_is_as_bright_as_can_be_and_has_a_finite_gradient(line: str) -> None:
    pose = torch.tensor([[[-1.0, 0.0], [0.0, 0.0], [1.0, 0.0]]], requires_grad=True)
    drawn = render(pose, replace(PAPER, line=line, signed=True), 5, 5)[0, 0]
    assert drawn[2].tolist() == pytest.approx([1] * 5, abs=1e-6)
    drawn.sum().backward()
    assert torch.isfinite(pose.grad).all()


@pytest.mark.parametrize("line", ["squared", "linear"])
def test_gradient_of_a_skeleton_is_finite_for_joints_that_coincide(line: str) -> None:
    pose = torch.zeros(1, 3, 2, requires_grad=True)
    render(pose, replace(PAPER, line=line), 9, 9).sum().backward()
    assert torch.isfinite(pose.grad).all()


def test_weights_begin_normal_and_not_truncated() -> None:
    torch.manual_seed(0)
    method = KeypointGAN(replace(SMALL, width=16, init_std=0.02), SIZE)
    networks = (method.image_encoder, method.skeleton_encoder, method.generator, method.discriminator)
    layers = [part for network in networks for part in network.modules() if isinstance(part, torch.nn.Conv2d)]
    weights = torch.cat([layer.weight.detach().flatten() for layer in layers])
    assert weights.std().item() == pytest.approx(0.02, rel=0.01)
    assert (weights.abs() > 0.04).float().mean().item() == pytest.approx(0.0455, rel=0.03)  # beyond two deviations
    assert not any(layer.bias.any() for layer in layers if layer.bias is not None)


def test_generator_terms_are_equation_6() -> None:
    config = replace(SMALL, perceptual=2.0, adversarial=3.0)
    method, batch = KeypointGAN(config, SIZE).eval(), batch_of()
    method.perceptual.running_mean.fill_(0.5)
    terms = method.loss(batch, "generator")
    skeleton = method.image_encoder(batch["image"])
    reconstruction = method.generator(method.draw(method.skeleton_encoder(skeleton)), batch["reference"])
    errors = method.perceptual.errors(reconstruction, batch["image"])
    assert terms["adversarial"].item() == pytest.approx(3 * method.discriminator(skeleton, 1.0).item(), rel=1e-5)
    assert terms["reconstruction"].item() == pytest.approx(2 * (errors / 0.5).mean().item(), rel=1e-4)


@pytest.mark.parametrize("stride", [1, 2])
def test_reconstruction_is_compared_where_the_mask_keeps_it(stride: int) -> None:
    config = replace(SMALL, features="pixels", perceptual=2.0, skeleton_stride=stride, scales=1)
    method, batch = KeypointGAN(config, SIZE).eval(), batch_of()
    method.perceptual.running_mean.fill_(0.5)
    mask = torch.zeros(4, 1, 32, 32)
    mask[..., :8] = 1
    with torch.no_grad():
        term = method.loss({**batch, "loss_mask": mask}, "generator")["reconstruction"]
        keypoints = method.skeleton_encoder(method.image_encoder(batch["image"]))
        drawn = method.generator(method.draw(keypoints), batch["reference"])
    small = batch["image"].unfold(2, stride, stride).unfold(3, stride, stride).mean(dim=(-1, -2))
    kept = (drawn - small)[..., : 8 // stride]
    assert term.item() == pytest.approx(2 * kept.square().mean().item() / 0.5, rel=1e-4)


def test_discriminator_wants_one_of_drawings_and_zero_of_translated_images() -> None:
    method, batch = KeypointGAN(replace(SMALL, pool=0), SIZE), batch_of()
    with torch.no_grad():
        terms = method.loss(batch, "discriminator")
        real, fake = method.draw(batch["prior_keypoints"]), method.image_encoder(batch["image"])
        wanted = {"real": 0.0, "fake": 0.0}
        for index, scale in enumerate(method.discriminator.scales):
            scores = [scale(F.avg_pool2d(skeleton, 2**index)) for skeleton in (real, fake)]
            wanted["real"] += (scores[0] - 1).square().mean().item() / 2
            wanted["fake"] += scores[1].square().mean().item() / 2
    assert {name: term.item() for name, term in terms.items()} == pytest.approx(wanted, rel=1e-4)


def test_finetuning_weighs_real_poses_and_redrawn_predictions() -> None:
    method, batch = KeypointGAN(replace(SMALL, finetune=(0.9, 0.1)), SIZE).eval(), batch_of()
    with torch.no_grad():
        terms = method.loss(batch, "finetune")
        poses, skeleton = batch["prior_keypoints"], method.image_encoder(batch["image"])
        gap = method.skeleton_encoder(method.draw(poses)) - poses
        redrawn = method.draw(method.skeleton_encoder(skeleton)) - skeleton
    assert terms["pose"].item() == pytest.approx(0.9 * (gap**2).mean().item(), rel=1e-5)
    assert terms["redraw"].item() == pytest.approx(0.1 * (redrawn**2).mean().item(), rel=1e-5)


def test_running_means_of_the_layers_move_at_the_rate_of_the_authors_code() -> None:
    method, batch = KeypointGAN(SMALL, SIZE), batch_of()
    method.loss(batch, "generator")
    first = method.perceptual.running_mean.clone()
    brighter = {**batch, "image": batch["image"] + 1}
    reconstruction = method.generator(method.draw(method.detect(brighter["image"]).keypoints), batch["reference"])
    wanted = 0.99 * first + 0.01 * method.perceptual.errors(reconstruction, brighter["image"])
    method.loss(brighter, "generator")
    assert torch.allclose(method.perceptual.running_mean, wanted, rtol=1e-5)


def test_a_joint_is_drawn_and_found_in_the_cell_of_its_pixels() -> None:
    """Pixels 12 and 13 are column 6 of skeletons at half the size; 20 and 21 are row 10."""
    method = KeypointGAN(replace(SMALL, skeleton_stride=2, scales=1, line_width=0.001), SIZE).eval()
    pose = torch.tensor([12.5, 20.5]).expand(1, 3, 2) / 31 * 2 - 1
    seen: list[Tensor] = []
    cell = (torch.tensor([6.0, 10.0]) / 15 * 2 - 1).expand(1, 3, 2)
    method.skeleton_encoder.forward = lambda skeleton: seen.append(skeleton) or cell
    terms = method.loss({**batch_of(1), "prior_keypoints": pose}, "pretrain")
    assert terms["pose"].item() == pytest.approx(0, abs=1e-9)
    assert divmod(int(seen[0].argmax()), 16) == (10, 6)
    assert seen[0].max() == pytest.approx(1, abs=1e-5)
    torch.testing.assert_close(method.detect(batch_of(1)["image"]).keypoints, pose)


def test_pretraining_reads_drawn_poses() -> None:
    method, batch = KeypointGAN(SMALL, SIZE).eval(), batch_of()
    poses = batch["prior_keypoints"]
    gap = method.skeleton_encoder(method.draw(poses)) - poses
    assert method.loss(batch, "pretrain")["pose"].item() == pytest.approx(gap.square().mean().item(), rel=1e-5)


def test_phases_follow_the_steps() -> None:
    method = KeypointGAN(SMALL, SIZE)
    assert [method.phases(step)[0] for step in range(4)] == ["pretrain"] * 3 + ["pretrain_slow"]
    assert method.phases(4) == ("generator", "discriminator")
    assert KeypointGAN(replace(SMALL, finetune=(0.9, 0.1)), SIZE).phases(4)[2:] == ("finetune",)


PARTS = {
    "pretrain": {"skeleton_encoder"},
    "pretrain_slow": {"skeleton_encoder"},
    "generator": {"image_encoder", "generator"},
    "discriminator": {"discriminator"},
    "finetune": {"skeleton_encoder"},
}


@pytest.mark.parametrize("phase", PARTS)
def test_a_phase_moves_its_own_networks_and_no_other(phase: str) -> None:
    method = KeypointGAN(replace(SMALL, finetune=(0.9, 0.1)), SIZE)
    torch.stack(list(method.loss(batch_of(), phase).values())).sum().backward()
    moved = {name.split(".")[0] for name, p in method.named_parameters() if p.grad is not None}
    assert moved == PARTS[phase]
    stepped = {id(p) for group in method.param_groups(phase) for p in group["params"]}
    assert stepped == {id(p) for name, p in method.named_parameters() if name.split(".")[0] in PARTS[phase]}


def test_frozen_skeleton_encoder_keeps_its_statistics() -> None:
    method = KeypointGAN(SMALL, SIZE).train()
    before = {name: value.clone() for name, value in method.skeleton_encoder.state_dict().items()}
    for phase in ("generator", "discriminator"):
        method.loss(batch_of(), phase)
    assert all(torch.equal(before[name], value) for name, value in method.skeleton_encoder.state_dict().items())


def test_both_terms_reach_the_image_encoder() -> None:
    method = KeypointGAN(SMALL, SIZE)
    for term in ("reconstruction", "adversarial"):
        method.zero_grad()
        method.loss(batch_of(), "generator")[term].backward()
        assert all(p.grad.any() for p in method.image_encoder.up.blocks[-1].parameters())


def test_skeleton_encoder_learns_to_read_drawings() -> None:
    torch.manual_seed(0)
    method, batch = KeypointGAN(replace(SMALL, width=8), SIZE), batch_of(8)
    optimizer = torch.optim.Adam(method.skeleton_encoder.parameters(), lr=1e-2)
    losses = []
    for _ in range(80):
        optimizer.zero_grad()
        loss = method.loss(batch, "pretrain")["pose"]
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.1 * losses[0]


def test_graph_is_the_given_skeleton_and_scores_are_the_brightness_under_the_keypoints() -> None:
    method = KeypointGAN(SMALL, SIZE).eval()
    image = batch_of(2)["image"]
    found = method.detect(image)
    assert found.adjacency[1].tolist() == [[0, 1, 0], [1, 0, 1], [0, 1, 0]]
    skeleton = method.image_encoder(image).detach()
    for index, (x, y) in enumerate(((found.keypoints[0] + 1) / 2 * 31).tolist()):
        column, row = int(x), int(y)
        cells = skeleton[0, 0, row : row + 2, column : column + 2]
        right, below = x - column, y - row
        weights = torch.tensor([[(1 - right) * (1 - below), right * (1 - below)], [(1 - right) * below, right * below]])
        wanted = min(max(float((cells * weights).sum()), 0), 1)
        assert found.scores[0, index].item() == pytest.approx(wanted, abs=1e-4)


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"edges": ((0, 3),)}, "edges has .*0, 3.*two different joints of 0 to 2"),
        ({"edges": ((1, 1),)}, "two different joints"),
        ({"code_stride": 6}, "powers of two from 2 to 64"),
        ({"skeleton_stride": 2, "heatmap_stride": 1}, "heatmap_stride is 1"),
        ({"skeleton_softmax": "max"}, "skeleton_softmax is 'max': give 'joint' or 'mean' or 'sum'"),
        ({"finetune": (-1.0, 0.0)}, "finetune is .*-1.0, 0.0.*: give 0 or more"),
    ],
)
def test_bad_options_are_refused_with_the_allowed_ones(options: dict, text: str) -> None:
    with pytest.raises(UserError, match=text):
        replace(PAPER, **options)


def test_an_input_too_small_for_the_discriminators_is_refused() -> None:
    with pytest.raises(UserError, match="need at least 96 pixels"):
        KeypointGAN(PAPER, (64, 64))


def test_poses_of_another_body_are_refused() -> None:
    batch = batch_of()
    batch["prior_keypoints"] = torch.zeros(4, 5, 2)
    with pytest.raises(UserError, match="5 joints and keypoints is 3"):
        KeypointGAN(SMALL, SIZE).loss(batch, "pretrain")


def test_keypoints_and_edges_are_the_prior_poses_where_the_config_says_nothing() -> None:
    prior = Poses(np.zeros((2, 3, 2), np.float32), np.array([[0, 1], [1, 2]]))
    filled = KeypointGAN.fill_from_prior(KeypointGANConfig(width=8), prior)
    assert (filled.keypoints, filled.edges, filled.width) == (3, ((0, 1), (1, 2)), 8)
    named = replace(prior, names=("hip", "knee", "foot"))
    assert KeypointGAN.fill_from_prior(KeypointGANConfig(), named).names == named.names
    assert KeypointGAN.fill_from_prior(KeypointGANConfig(keypoints=2, edges=()), named).names == ()  # of other joints
    assert KeypointGAN(replace(SMALL, names=named.names), SIZE).keypoint_names == named.names
    with pytest.raises(UserError, match="names has 2 entries: give 3 of them"):
        KeypointGANConfig(keypoints=3, names=("hip", "knee"))
    blobs = KeypointGANConfig(keypoints=3, edges=())
    assert KeypointGAN.fill_from_prior(blobs, replace(prior, edges=None)) == blobs


def test_missing_poses_and_missing_edges_are_told() -> None:
    with pytest.raises(UserError, match=r"--data\.prior"):
        KeypointGAN.fill_from_prior(KeypointGANConfig(), None)
    with pytest.raises(UserError, match=r"no `edges`.*--method\.edges"):
        KeypointGAN.fill_from_prior(KeypointGANConfig(), Poses(np.zeros((2, 3, 2), np.float32)))
    with pytest.raises(UserError, match="keypoints is not set"):
        KeypointGAN(KeypointGANConfig(), (128, 128))


@pytest.mark.parametrize("line", ["squared", "linear"])
def test_edges_without_length_change_no_drawing_and_give_no_nan(line: str) -> None:
    """As in poses of a body that has fewer joints than the skeleton."""
    config = replace(PAPER, keypoints=5, edges=(*EDGES, (2, 3), (0, 4)), line=line)
    pose = torch.tensor([[-0.5, -0.4], [0.1, 0.6], [0.7, -0.2]])
    padded = pose[[0, 1, 2, 2, 0]].requires_grad_()
    drawn = render(padded[None], config, 16, 16)
    assert torch.allclose(drawn, render(pose[None], replace(PAPER, line=line), 16, 16), atol=1e-6)
    drawn.sum().backward()
    assert torch.isfinite(padded.grad).all()


def fitted_config(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> RunConfig:
    """The config that `fit keypointgan ARGUMENTS` would train."""
    seen: list[RunConfig] = []
    monkeypatch.setattr(training.fit, "load_data", lambda config, progress: None)
    monkeypatch.setattr(training.fit, "train", lambda config, *rest: seen.append(config))
    training.fit.main(["keypointgan", "--accelerator", "cpu", "--data", "nowhere", "--no-export", *arguments])
    return seen[0]


def test_fit_takes_the_skeleton_from_the_file_of_poses(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_poses(tmp_path / "poses.npz", Poses(np.zeros((2, 4, 2), np.float32), np.array([[0, 1], [0, 2], [2, 3]])))
    arguments = ["-o", str(tmp_path / "run"), "--config", str(CONFIG)]
    config = fitted_config(monkeypatch, *arguments, "--data.prior", str(tmp_path / "poses.npz"))
    assert (config.options.keypoints, config.options.edges) == (4, ((0, 1), (0, 2), (2, 3)))
    assert config_from_dict("keypointgan", config.to_dict()) == config
    with pytest.raises(UserError, match=r"--data\.prior"):
        fitted_config(monkeypatch, *arguments)
