"""Keypoint Pyramids: Eqs. 1 to 5 against loops, the hierarchy, sizes, what gets a gradient."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from keypoint_perception.errors import UserError
from training.methods.keypoint_pyramids import KeypointPyramids, hierarchy, spring_energy
from training.methods.keypoint_pyramids_config import KeypointPyramidsConfig
from training.methods.transporter import one_map, transport

SMALL = KeypointPyramidsConfig(
    keypoints=(2, 4), coarsest_stride=4, width=8, pyramid_width=12, transport_channels=(8, 4), decoder_width=16,
    decoder_least_width=8,
)  # fmt: skip
SIZE = (32, 32)


def batch_of(count: int = 2) -> dict[str, Tensor]:
    image, reference = torch.rand(2, count, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    return {"image": image, "reference": reference}


@pytest.mark.parametrize("mask", ["both", "target"])
def test_transported_features_follow_equation_2(mask: str) -> None:
    generator = torch.Generator().manual_seed(1)
    reference, target = torch.rand(2, 1, 2, 3, 4, generator=generator)
    reference_map, target_map = torch.rand(2, 1, 1, 3, 4, generator=generator)
    found = transport(reference, reference_map, target, target_map, mask)
    for c, y, x in np.ndindex(2, 3, 4):
        there, here = reference_map[0, 0, y, x], target_map[0, 0, y, x]
        pasted = 1 - (1 - there) * (1 - here) if mask == "both" else here
        wanted = reference[0, c, y, x] * (1 - there) * (1 - here) + target[0, c, y, x] * pasted
        assert found[0, c, y, x] == pytest.approx(wanted.item(), abs=1e-6)


def test_spring_energy_is_a_loop_over_levels_parents_and_children() -> None:
    generator = torch.Generator().manual_seed(2)
    levels = [torch.rand(3, count, 2, generator=generator) for count in (2, 4, 12)]
    wanted = 0.0
    for image in range(3):
        for coarse, fine in ((0, 1), (1, 2)):
            children = levels[fine].shape[1] // levels[coarse].shape[1]
            for m in range(levels[fine].shape[1]):
                gap = levels[coarse][image, m // children] - levels[fine][image, m]
                wanted += float(gap[0] ** 2 + gap[1] ** 2) / 3
    assert spring_energy(levels).item() == pytest.approx(wanted, rel=1e-5)


def test_child_m_belongs_to_parent_m_over_children() -> None:
    parent, level = hierarchy((2, 4, 12))
    assert level.tolist() == [0] * 2 + [1] * 4 + [2] * 12
    assert parent.tolist() == [-1, -1, 0, 0, 1, 1, 2, 2, 2, 3, 3, 3, 4, 4, 4, 5, 5, 5]


def test_hierarchy_and_links_are_the_same_for_every_image() -> None:
    method = KeypointPyramids(SMALL, SIZE).eval()
    found = method.detect(batch_of(3)["image"])
    assert found.keypoints.shape == (3, 6, 2)
    assert found.parent.tolist() == [[-1, -1, 0, 0, 1, 1]] * 3
    links = {(0, 2), (0, 3), (1, 4), (1, 5)}
    for i, j in np.ndindex(6, 6):
        assert found.adjacency[0, i, j] == float((i, j) in links or (j, i) in links)
    assert ((found.scores >= 0) & (found.scores <= 1)).all()


def test_sizes_are_the_papers() -> None:
    method = KeypointPyramids(KeypointPyramidsConfig(), (128, 128))
    image = torch.rand(1, 3, 128, 128)
    levels = method.encode(image)
    assert [level.features.shape[-2:] for level in levels] == [(16, 16), (32, 32)]
    assert [level.keypoints.shape for level in levels] == [(1, 10, 2), (1, 20, 2)]
    assert method.encoders[1][0][0].in_channels == method.config.pyramid_width + 10  # [Ψ_1, f_2]
    assert [block[0].out_channels for block in method.local] == [64, 32]
    for picture in method.reconstruct_levels(levels, levels):
        assert picture.shape == image.shape
    points = method.all_points(levels)
    assert method.reconstruct(image, points, image, points).shape == image.shape


def test_any_number_of_levels() -> None:
    config = replace(SMALL, keypoints=(1, 3, 6), transport_channels=(8, 6, 4), transport=(0.1, 0.5, 1.0))
    method = KeypointPyramids(config, SIZE)
    assert [level.features.shape[-1] for level in method.encode(batch_of()["image"])] == [8, 16, 32]
    terms = method.loss(batch_of(), "main")
    assert set(terms) == {"reconstruction", "transport_0", "transport_1", "transport_2", "spring"}


def test_terms_have_their_weights_and_are_equation_5_over_the_image_values() -> None:
    config = replace(SMALL, reconstruction=3.0, transport=(0.5, 2.0), spring=7.0)
    method, batch = KeypointPyramids(config, SIZE).eval(), batch_of()
    terms = method.loss(batch, "main")
    values = 3 * 32 * 32
    levels, reference = method.encode(batch["image"]), method.encode(batch["reference"])
    keypoints = [level.keypoints for level in levels]

    def squared_norm(picture: Tensor) -> float:
        return float((picture - batch["image"]).detach().square().sum(dim=(1, 2, 3)).mean())

    combined = method.reconstruct(
        batch["image"], method.all_points(levels), batch["reference"], method.all_points(reference)
    )
    assert terms["reconstruction"].item() == pytest.approx(3 * squared_norm(combined) / values, rel=1e-4)
    for index, (weight, picture) in enumerate(
        zip((0.5, 2.0), method.reconstruct_levels(levels, reference), strict=True)
    ):
        assert terms[f"transport_{index}"].item() == pytest.approx(weight * squared_norm(picture) / values, rel=1e-4)
    assert terms["spring"].item() == pytest.approx(7 * spring_energy(keypoints).item() / values, rel=1e-4)


def test_reconstructions_count_where_the_mask_does() -> None:
    config = replace(SMALL, reconstruction=3.0, transport=(0.5, 2.0))
    method, batch = KeypointPyramids(config, SIZE).eval(), batch_of()
    levels, reference = method.encode(batch["image"]), method.encode(batch["reference"])
    combined = method.reconstruct(
        batch["image"], method.all_points(levels), batch["reference"], method.all_points(reference)
    )
    pictures = (combined, *method.reconstruct_levels(levels, reference))
    mask = torch.zeros(2, 1, 32, 32)
    mask[..., :8] = 1
    terms = method.loss({**batch, "loss_mask": mask}, "main")
    names = ("reconstruction", "transport_0", "transport_1")
    for name, weight, picture in zip(names, (3.0, 0.5, 2.0), pictures, strict=True):
        gap = (picture - batch["image"])[..., :8].detach()
        assert terms[name].item() == pytest.approx(weight * gap.square().mean().item(), rel=1e-4)


def test_all_transport_redraws_from_the_appearance_transported() -> None:
    method, batch = KeypointPyramids(replace(SMALL, redraw_all="transport"), SIZE).eval(), batch_of()
    points, others = (method.all_points(method.encode(batch[name])) for name in ("image", "reference"))
    here, there = method.appearance(batch["image"]), method.appearance(batch["reference"])
    here_map, there_map = (one_map(method.point_maps(at, here)) for at in (points, others))
    keep = (1 - here_map) * (1 - there_map)
    wanted = method.decoder(there * keep + here * (1 - keep))
    found = method.reconstruct(batch["image"], points, batch["reference"], others)
    assert torch.allclose(found, wanted, atol=1e-6)


def test_all_reconstruction_redraws_a_level_from_its_points_alone() -> None:
    method, batch = KeypointPyramids(replace(SMALL, redraw_level="points"), SIZE).eval(), batch_of()
    levels, reference = method.encode(batch["image"]), method.encode(batch["reference"])
    found = method.reconstruct_levels(levels, reference)
    other = [level._replace(features=torch.rand_like(level.features)) for level in levels]  # of the image: unused
    for picture, same in zip(found, method.reconstruct_levels(other, reference), strict=True):
        assert torch.equal(picture, same)
    moved = [level._replace(keypoints=level.keypoints + 0.5) for level in levels]
    assert not torch.allclose(found[0], method.reconstruct_levels(moved, reference)[0])
    detector = {"pyramid", "encoders"}
    assert gradient_of("transport_0", method) == detector | {"local", "level_decoders"}


def test_context_lets_a_level_see_all_of_the_image() -> None:
    """Whether what is in one corner moves anything in the other."""
    size = (64, 64)
    image = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(4))
    other = image.clone()
    other[..., :2, :2] = 1 - other[..., :2, :2]
    for context, sees in ((0, False), (3, True)):
        method = KeypointPyramids(replace(SMALL, norm="none", context=context), size).eval()
        change = (method.pyramid(image)[-1] - method.pyramid(other)[-1])[..., -1, -1].abs().max()
        assert bool(change > 0) == sees
        assert method.pyramid(image)[-1].shape[-2:] == (32, 32)


def test_gaussians_have_no_half() -> None:
    """A point in the third of 8 columns, 2 / 7 apart; σ is as much, and 7 / 5 σ the distance of the 6 rows."""
    method = KeypointPyramids(replace(SMALL, sigma=2 / 7), (32, 24))
    point = torch.tensor([-1 + 9.5 * 2 / 31, -1 + 13.5 * 2 / 23]).view(1, 1, 2)
    maps = method.point_maps(point, torch.zeros(1, 5, 6, 8))
    assert maps.shape == (1, 1, 6, 8)
    assert maps[0, 0, 3, 2].item() == pytest.approx(1)
    assert maps[0, 0, 3, 3].item() == pytest.approx(math.exp(-1))
    assert maps[0, 0, 4, 2].item() == pytest.approx(math.exp(-((7 / 5) ** 2)))


def gradient_of(term: str, method: KeypointPyramids) -> set[str]:
    """The parts of the method that a term of the loss moves."""
    method.zero_grad()
    method.loss(batch_of(), "main")[term].backward()
    return {name.split(".")[0] for name, p in method.named_parameters() if p.grad is not None and p.grad.any()}


def test_each_term_moves_its_own_parts() -> None:
    method = KeypointPyramids(SMALL, SIZE)
    detector = {"pyramid", "encoders"}
    assert gradient_of("spring", method) == detector
    assert gradient_of("reconstruction", method) == detector | {"appearance", "decoder"}
    assert gradient_of("transport_1", method) == detector | {"local", "level_decoders"}


@pytest.mark.parametrize("conditioned", [True, False])
def test_fine_points_depend_on_coarse_ones_only_where_conditioned(conditioned: bool) -> None:
    method = KeypointPyramids(replace(SMALL, conditioned=conditioned), SIZE)
    method.encode(batch_of()["image"])[1].keypoints.square().sum().backward()
    assert (method.encoders[0][2].weight.grad is not None) == conditioned


def test_reference_gets_no_gradient_through_transport() -> None:
    method, batch = KeypointPyramids(SMALL, SIZE), batch_of()
    batch["reference"].requires_grad_()
    terms = method.loss(batch, "main")
    (terms["transport_0"] + terms["transport_1"]).backward()
    assert batch["reference"].grad is None


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"keypoints": (10, 25)}, "multiples of the level before"),
        ({"keypoints": (10,)}, "transport_channels has 2 entries for 1 levels"),
        ({"transport_channels": (32, 32)}, "fewer to each finer level"),
        ({"coarsest_stride": 1}, "powers of two from 2 to 64"),
        ({"spring": -1.0}, "spring is -1.0: give 0 or more"),
        ({"redraw_all": "features"}, "redraw_all is 'features': give 'points' or 'transport'"),
    ],
)
def test_bad_options_are_refused_with_the_allowed_ones(options: dict, text: str) -> None:
    with pytest.raises(UserError, match=text):
        KeypointPyramidsConfig(**options)
