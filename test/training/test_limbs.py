from dataclasses import replace

import numpy as np
import pytest
import torch

from keypoint_perception.errors import UserError
from training.methods.figures import Figure, background, draw, posed_figure, random_figure
from training.methods.limbs import Limbs, LimbsConfig, rooted, tree
from training.prior import Poses

CHAIN = LimbsConfig(links=(1, 3), width=8, drawn=8)
SPIDER = LimbsConfig(limbs=(2, 4), links=(3, 3), hip=0.5, width=8, drawn=8)


def frames(count=4, size=32):
    """Pairs of grey images with a white square that moves."""
    rng = np.random.default_rng(0)
    images = np.full((2, count, 3, size, size), 0.4, np.float32)
    for image in images.reshape(-1, 3, size, size):
        x, y = rng.integers(0, size - 4, 2)
        image[:, y : y + 4, x : x + 4] = 1
    return {"image": torch.from_numpy(images[0]), "reference": torch.from_numpy(images[1])}


def test_slots_are_places_in_the_tree():
    assert tree(LimbsConfig(limbs=(1, 2), links=(1, 3))).tolist() == [-1, 0, 1, 2, 0, 4, 5]


@pytest.mark.parametrize("config", [CHAIN, SPIDER])
def test_figures_follow_the_prior(config):
    rng = np.random.default_rng(0)
    above = tree(config)
    counts = set()
    for _ in range(100):
        figure = random_figure(config, rng)
        present = np.isfinite(figure.joints[:, 0])
        assert present[0] and present[above[1:]][present[1:]].all(), "a link hangs in the air"
        steps = figure.joints[1:] - figure.joints[above[1:]]
        lengths = np.linalg.norm(steps, axis=1)[present[1:]]
        assert lengths.min() > 0.05 and lengths.sum() <= config.limbs[1] * config.reach[1] * 1.15
        counts.add(int(present.sum()) - 1)
    limbs, links = range(config.limbs[0], config.limbs[1] + 1), range(config.links[0], config.links[1] + 1)
    assert counts == {a * b for a in limbs for b in links}


def test_a_limb_without_a_body_starts_at_its_brighter_end():
    config = replace(CHAIN, body=0.0, links=(2, 3))
    rng = np.random.default_rng(1)
    for _ in range(50):
        figure = random_figure(config, rng)
        luminance = figure.colours @ (0.299, 0.587, 0.114)
        last = int(np.isfinite(figure.joints[:, 0]).sum()) - 1
        assert luminance[1] >= luminance[last]


def test_a_link_is_drawn_where_its_joints_are():
    joints = np.array([[-0.5, 0.25], [0.5, 0.25], [np.nan, np.nan], [np.nan, np.nan]])
    figure = Figure(joints, np.tile([[255.0, 0, 0]], (4, 1)), np.full(4, 0.06), body=False)
    image = draw(figure, np.full((65, 65, 3), 40, np.uint8), tree(CHAIN), np.random.default_rng(0))
    red = np.argwhere(image[..., 0].astype(int) - image[..., 1] > 60)
    row, column = red.mean(axis=0)
    assert column == pytest.approx(32, abs=0.7) and row == pytest.approx(40, abs=0.7)
    width, height = np.ptp(red[:, 1]) + 1, np.ptp(red[:, 0]) + 1
    assert width == pytest.approx(32 + 2 * 0.06 * 32, abs=3) and height == pytest.approx(2 * 0.06 * 32, abs=2)


def test_the_object_is_taken_out_of_the_background_and_a_rail_is_not():
    rng = np.random.default_rng(0)
    still = rng.integers(90, 110, (48, 48, 3)).astype(np.uint8)
    still[40, :] = 220  # a rail
    image, reference = still.copy(), still.copy()
    image[10:14, 5:25], reference[26:30, 20:40] = 255, 255
    image[20:24, 8:16] = reference[20:24, 8:16] = 200  # a part that has not moved
    found = background(image, reference, window=15).astype(int)
    assert np.abs(found - still).max() <= 20
    untouched = [*range(10), *range(14, 20), *range(30, 48)]
    assert np.array_equal(found[untouched], still[untouched]), "the rest keeps its texture"


def test_adjacency_is_the_tree_of_the_joints_that_are_present():
    torch.manual_seed(0)
    method = Limbs(replace(CHAIN, limbs=(1, 2), links=(1, 2)), (32, 32)).eval()
    with torch.no_grad():
        method.network.presence[2].weight.zero_()
        method.network.presence[2].bias.copy_(torch.tensor([9.0, 9.0, -9.0, 9.0, 9.0]))
    detection = method.detect(torch.rand(2, 3, 32, 32))
    edges = np.argwhere(np.triu(detection.adjacency[0].detach().numpy()) >= 0.5)
    assert edges.tolist() == [[0, 1], [0, 3], [3, 4]]
    assert (detection.scores[0] >= 0.5).tolist() == [True, True, False, True, True]
    with torch.no_grad():
        method.network.presence[2].bias[3] = -9.0  # Without its middle the second limb has no end either.
    assert (method.detect(torch.rand(1, 3, 32, 32)).scores[0] >= 0.5).tolist() == [True, True, False, False, False]
    assert detection.parent[0].tolist() == [-1, 0, 1, 0, 3] and detection.level[0].tolist() == [0, 1, 2, 1, 2]


def test_no_annotation_is_used():
    """Keypoints in the batch change nothing, and only the two images are asked for."""
    assert Limbs.required_keys == {"image", "reference"}
    method, batch = Limbs(CHAIN, (32, 32)), frames()
    values = []
    for extra in ({}, {"keypoints": torch.rand(4, 3, 2)}):
        torch.manual_seed(3)
        values.append(method.loss(batch | extra, "main")["position"].item())
    assert values[0] == values[1]


def test_learns_to_find_the_joints_of_drawn_figures():
    torch.manual_seed(0)
    config = replace(CHAIN, links=(1, 1), width=12, drawn=16, thickness=(0.06, 0.08), reach=(0.8, 1.2))
    method, batch = Limbs(config, (32, 32)), frames()
    optimizer = torch.optim.Adam(method.parameters(), 3e-3)
    errors = []
    for _ in range(80):
        optimizer.zero_grad()
        loss = sum(method.loss(batch, "main").values())
        loss.backward()
        optimizer.step()
        errors.append(loss.item())
    assert np.mean(errors[-5:]) < 0.7 * errors[0]
    method.eval()
    images, joints = method.figures(batch)
    with torch.no_grad():
        found = method.detect(images)
    assert (found.keypoints - joints).norm(dim=-1).median() < 0.25
    assert found.scores.min() > 0.9


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("limbs", (3, 2)),
        ("links", (0, 2)),
        ("body", 1.5),
        ("background_window", 14),
        ("sigma", 0.0),
    ],
)
def test_bad_values_are_refused(key, value):
    with pytest.raises(UserError, match=key):
        replace(CHAIN, **{key: value})


def test_the_prior_s_edges_become_a_tree_from_the_first_joint():
    assert rooted(np.array([[1, 2], [0, 1], [1, 3]]), 4) == (-1, 0, 1, 1)
    for edges in ([[0, 1]], [[0, 1], [1, 2], [0, 2]], [[0, 1], [0, 1]]):
        with pytest.raises(UserError, match="one tree"):
            rooted(np.array(edges), 3)


def test_a_pose_gives_a_figure_of_its_shape_without_what_it_lacks():
    above, rng = np.array([-1, 0, 1, 2]), np.random.default_rng(0)
    pose = np.array([[0.0, 0.0], [0.4, 0.0], [0.4, 0.3], [0.4, 0.3]])
    for _ in range(20):
        figure = posed_figure(pose, above, LimbsConfig(body=1.0), rng)
        assert np.isfinite(figure.joints).all(axis=1).tolist() == [True, True, True, False]
        steps = np.diff(figure.joints[:3], axis=0)
        scale = steps[0, 0] / 0.4
        assert 0.9 <= scale <= 1.1
        np.testing.assert_allclose(steps, scale * np.array([[0.4, 0.0], [0.0, 0.3]]), atol=1e-9)


def test_limbs_that_look_alike_are_told_apart_by_their_hue():
    above, rng = np.array([-1, 0, 1, 0, 3, 0, 5]), np.random.default_rng(0)
    pose = np.array([[0, 0], [0.2, 0], [0.4, 0], [0, 0.2], [0, 0.4], [0, 0], [0, 0]], float)  # the third is missing
    firsts = set()
    for _ in range(20):
        figure = posed_figure(pose, above, LimbsConfig(limbs=(1, 3), links=(2, 2), one_hue=0.0), rng)
        assert np.isfinite(figure.joints).all(axis=1).tolist() == [True] * 5 + [False] * 2
        step = figure.joints[1] - figure.joints[0]
        firsts.add(bool(abs(step[0]) > abs(step[1])))
    assert firsts == {True, False}


def test_poses_of_a_file_are_what_is_learned():
    prior = Poses(np.zeros((1, 3, 2), np.float32), np.array([[0, 1], [1, 2]]))
    config = Limbs.completed(LimbsConfig(drawn=4, width=4), prior)
    method = Limbs(config, (32, 32))
    assert method.parent.tolist() == [-1, 0, 1] and method.level.tolist() == [0, 1, 2]
    frames = torch.full((2, 3, 32, 32), 0.4)
    poses = torch.tensor([[[0.0, 0.0], [0.4, 0.0], [0.4, 0.0]]]).repeat(2, 1, 1)
    _, joints = method.figures({"image": frames, "reference": frames, "prior_keypoints": poses})
    assert joints[:, :2].isfinite().all() and joints[:, 2].isnan().all()
    with pytest.raises(UserError, match="no `edges`"):
        Limbs.completed(LimbsConfig(), Poses(np.zeros((1, 3, 2), np.float32)))
