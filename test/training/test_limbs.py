from dataclasses import replace

import numpy as np
import pytest
import torch

from keypoint_perception.errors import UserError
from keypoint_perception.limb_tree import inner_limbs, interchangeable, root_limbs
from training.methods import limb_ends
from training.methods.figures import Figure, background, draw, posed_figure, random_figure
from training.methods.limb_matching import best_order, joint_costs
from training.methods.limb_numbering import Numbering, redness
from training.methods.limbs import Limbs, LimbsConfig, tree
from training.onnx_graph import detect_frames, parity, to_onnx
from training.prior import Poses, parents_of_tree

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
        figure = random_figure(config, above, rng)
        present = np.isfinite(figure.joints[:, 0])
        assert present[0] and present[above[1:]][present[1:]].all(), "a link hangs in the air"
        steps = figure.joints[1:] - figure.joints[above[1:]]
        lengths = np.linalg.norm(steps, axis=1)[present[1:]]
        assert lengths.min() > 0.05 and lengths.sum() <= config.limbs[1] * config.reach[1] * 1.15
        counts.add(int(present.sum()) - 1)
    limbs, links = range(config.limbs[0], config.limbs[1] + 1), range(config.links[0], config.links[1] + 1)
    assert counts == {a * b for a in limbs for b in links}


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
    method = Limbs(LimbsConfig(above=(-1, 0, 0, 2, 2), width=8), (32, 32)).eval()
    with torch.no_grad():
        method.network.presence[-1].weight.zero_()
        method.network.presence[-1].bias.copy_(torch.tensor([9.0, -9.0, 9.0, 9.0, 9.0]))
    detection = method.detect(torch.rand(2, 3, 32, 32))
    edges = np.argwhere(np.triu(detection.adjacency[0].detach().numpy()) >= 0.5)
    assert edges.tolist() == [[0, 2], [2, 3], [2, 4]]
    assert (detection.scores[0] >= 0.5).tolist() == [True, False, True, True, True]
    with torch.no_grad():
        method.network.presence[-1].bias[2] = -9.0  # Without its first joint a limb has no others either.
    assert (method.detect(torch.rand(1, 3, 32, 32)).scores[0] >= 0.5).tolist() == [True] + 4 * [False]
    assert detection.parent[0].tolist() == [-1, 0, 0, 2, 2] and detection.level[0].tolist() == [0, 1, 1, 2, 2]


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
    images, figures = method.figures(batch)
    joints = torch.from_numpy(np.stack([figure.joints for figure in figures]))
    with torch.no_grad():
        found = method.detect(images)
    nearest = torch.cdist(found.keypoints.double(), joints).min(dim=-1).values  # either end may be the first
    assert nearest.median() < 0.25
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
    assert parents_of_tree(np.array([[1, 2], [0, 1], [1, 3]]), 4) == (-1, 0, 1, 1)
    for edges in ([[0, 1]], [[0, 1], [1, 2], [0, 2]], [[0, 1], [0, 1]]):
        with pytest.raises(UserError, match="one tree"):
            parents_of_tree(np.array(edges), 3)


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


def test_a_joint_on_the_one_above_is_there_where_one_below_it_is_elsewhere():
    above, rng = np.array([-1, 2, 0]), np.random.default_rng(0)
    pose = np.array([[0.0, 0.0], [0.4, 0.0], [0.0, 0.0]])
    figure = posed_figure(pose, above, LimbsConfig(), rng)
    assert np.isfinite(figure.joints).all()
    draw(figure, np.zeros((32, 32, 3), np.uint8), above, rng)


def test_limbs_of_the_root_are_left_out_but_for_the_fewest():
    above, rng = tree(SPIDER), np.random.default_rng(0)
    pose, counts = rng.uniform(-1, 1, (len(above), 2)), set()
    for _ in range(30):
        present = np.isfinite(posed_figure(pose, above, replace(SPIDER, left_out=1.0), rng).joints[:, 0])
        assert all(present[limb].all() or not present[limb].any() for limb in root_limbs(above)[0])
        counts.add((int(present.sum()) - 1) // 3)
    assert counts == {2, 3}


def test_limbs_of_one_shape_are_alike():
    (legs,) = interchangeable(np.array([-1, 0, 1, 0, 3, 0]))  # two of two links; one of one
    assert legs.tolist() == [[1, 2], [3, 4]]
    (legs,) = interchangeable(np.array([-1, 0, 1, 1, 2, 3]))  # a trunk, and two below it
    assert legs.tolist() == [[2, 4], [3, 5]]
    (arms,) = interchangeable(np.array([-1, 0, 0, 1, 1, 2, 2, 3, 6]))  # the same shape, whatever its numbers are
    assert arms.tolist() == [[1, 4, 3, 7], [2, 5, 6, 8]]
    assert interchangeable(np.array([-1, 0, 1, 2])) == []
    rooted_last = np.array([2, 2, -1])
    assert [limbs.tolist() for limbs in root_limbs(rooted_last)] == [[[0], [1]]], "wherever the root stands"
    assert inner_limbs(rooted_last, np.ones(3, bool)) == []


def test_limbs_may_be_alike_in_one_body_and_not_in_another():
    above = np.array([-1, 0, 0, 1])
    assert root_limbs(above) == [] and inner_limbs(above, np.ones(4, bool)) == []
    assert [limbs.tolist() for limbs in inner_limbs(above, np.array([True, True, True, False]))] == [[[1], [2]]]
    star = np.array([-1, 0, 0])
    assert [limbs.tolist() for limbs in root_limbs(star)] == [[[1], [2]]] and inner_limbs(star, star < 9) == []


def test_costs_are_cross_entropies():
    log_heat = torch.tensor([[[0.5, 0.5], [0.25, 0.75]]]).log()  # of two slots
    target = torch.tensor([[[1.0, 0.0], [0.0, 0.0]]])  # the second joint is not there
    costs = joint_costs(log_heat, target, torch.zeros(1, 2), torch.tensor([[True, False]]), (1.0, 2.0))
    seen = 2 * np.log(2)  # an undecided logit costs ln 2 either way, of weight 2
    np.testing.assert_allclose(costs, [[[np.log(2) + seen, seen], [np.log(4) + seen, seen]]], rtol=1e-6)


def test_limbs_go_to_the_slots_where_they_cost_least():
    limbs = np.array([[1, 2], [3, 4]])
    costs = np.zeros((2, 5, 5))
    costs[1, 1, 3], costs[1, 4, 2] = -2, 1  # to the network the second limb is the first
    order = best_order(costs, np.ones((2, 5), bool), [[limbs]] * 2, np.zeros(2, bool))
    assert order.tolist() == [[0, 1, 2, 3, 4], [0, 3, 4, 1, 2]]


def test_inner_limbs_change_places_beside_limbs_of_the_root():
    """Two legs, and a trunk with two arms, of which the network finds the second first."""
    method = Limbs(LimbsConfig(above=(-1, 0, 0, 0, 3, 3), width=4), (32, 32))
    assert [limbs.tolist() for limbs in method.limbs] == [[[1], [2]]] and method.single.tolist() == [0, 3, 4, 5]
    figure = Figure(np.zeros((6, 2)), np.zeros((6, 3)), np.ones(6), body=True)
    costs = np.zeros((1, 4, 4))
    costs[0, 2, 3] = costs[0, 3, 2] = -1
    assert method.order([figure], costs).tolist() == [[0, 1, 3, 2]]


def test_a_chain_without_a_body_begins_where_it_costs_least():
    costs = np.zeros((3, 4, 4))
    costs[1:, 0, 2] = -1  # slot 0 is joint 2, the last that is there
    present = np.tile([True, True, True, False], (3, 1))
    order = best_order(costs, present, [[]] * 3, np.array([True, True, False]))
    assert order.tolist() == [[0, 1, 2, 3], [2, 1, 0, 3], [0, 1, 2, 3]]


def test_redness_does_not_depend_on_the_light():
    colours = torch.tensor([[0.8, 0.0, 0.0], [0.4, 0.0, 0.0], [0.8, 0.8, 0.8], [0.0, 0.0, 0.3], [0.0, 0.3, 0.3]])
    assert redness(*colours.unbind(dim=1)).tolist() == [1, 1, -1, -1, -2]


def ends_of(tips, size=(9, 9)):
    """Targets of one figure with limbs of two joints, the first half way to the tip; None is a limb that is missing."""
    limbs = [[[np.nan] * 2] * 2 if tip is None else [[tip[0] / 2, tip[1] / 2], tip] for tip in tips]
    return limb_ends.targets(torch.tensor([limbs], dtype=torch.float32), size, sigma=0.25)


def test_ends_have_a_peak_each_and_offsets_to_their_limb():
    heat, ends, offsets = ends_of([(0.5, 0.0), (-0.5, -0.55), None])  # cells are 0.25 apart
    assert ends[0].nonzero().tolist() == [[2, 2], [4, 6]] and (heat[0][ends[0]] == 1).all()
    assert heat[0, 4, 7] == pytest.approx(np.exp(-0.5)) and heat[0, 8, 0] < 0.01
    np.testing.assert_allclose(offsets[0, 4, 6], [[-0.25, 0], [0, 0]], atol=1e-6)
    np.testing.assert_allclose(offsets[0, 2, 2], [[0.25, 0.225], [0, -0.05]], atol=1e-6)
    np.testing.assert_allclose(offsets[0, 4, 7], [[-0.5, 0], [-0.25, 0]], atol=1e-6)


def test_what_is_found_is_what_was_to_be_learned():
    tips = [(0.5, 0.0), (-0.5, -0.55), None]
    heat, ends, offsets = ends_of(tips)
    logits = torch.where(ends, 4.0, torch.logit(heat.clamp(1e-4, 0.5)))
    limbs, scores = limb_ends.find(logits, offsets.flatten(3).permute(0, 3, 1, 2), 3)
    found = sorted(limbs[0, :2].tolist())
    np.testing.assert_allclose(found, [[[-0.25, -0.275], [-0.5, -0.55]], [[0.25, 0], [0.5, 0]]], atol=1e-6)
    assert (scores[0] >= 0.5).tolist() == [True, True, False]
    assert limb_ends.end_loss(logits, heat, ends) < 0.2 < limb_ends.end_loss(-logits, heat, ends)
    assert limb_ends.offset_loss(offsets.flatten(3).permute(0, 3, 1, 2), offsets, heat) == 0


def test_the_loss_of_ends_is_centernet_s():
    heat, ends = torch.tensor([[[1.0, 0.5]]]), torch.tensor([[[True, False]]])
    p = torch.tensor([[[0.8, 0.25]]])
    expected = -(0.2**2 * np.log(0.8) + 0.5**4 * 0.25**2 * np.log(0.75))
    assert limb_ends.end_loss(torch.logit(p), heat, ends).item() == pytest.approx(expected, rel=1e-5)
    wanted = torch.tensor([[[[[0.3, 0.4]], [[0.0, 0.0]]]]])  # (1, 1, 2, 1, 2)
    assert limb_ends.offset_loss(torch.zeros(1, 2, 1, 2), wanted, heat).item() == pytest.approx(0.5 / 1.5)


@pytest.mark.parametrize(("by", "order"), [("place", [0, 2, 1, 3]), ("colour", [0, 1, 2, 3])])
def test_limbs_are_sorted_clockwise_or_by_redness(by, order):
    """Slot 1 is a red limb that points up, slot 2 a blue one that points right; slot 3 is not there."""
    image = torch.zeros(1, 3, 33, 33)
    image[:, 0, :16, 16], image[:, 2, 16, 17:] = 0.5, 1.0
    keypoints = torch.tensor([[[0.0, 0], [0, -1], [1, 0], [1, 1]]])
    numbering = Numbering(np.array([-1, 0, 0, 0]), [np.array([[1], [2], [3]])], by)
    assert numbering(image, keypoints, torch.tensor([[1.0, 0.9, 0.8, 0.1]])).tolist() == [order]
    swapped = [0, 2, 1, 3]  # the same picture, found in another order
    assert numbering(image, keypoints[:, swapped], torch.tensor([[1.0, 0.8, 0.9, 0.1]]))[0].tolist() == [
        swapped[place] for place in order
    ]


def test_legs_are_found_however_many_there_are():
    torch.manual_seed(0)
    looks = {"body": 0.0, "one_hue": 0.0, "thickness": (0.06, 0.08), "reach": (0.7, 1.0)}
    config = LimbsConfig(limbs=(1, 3), links=(1, 1), width=12, drawn=16, **looks)
    method, batch = Limbs(config, (32, 32)), frames()
    assert method.network.offsets.out_channels == 2 and method.single.tolist() == [0]
    optimizer = torch.optim.Adam(method.parameters(), 3e-3)
    for _ in range(400):
        optimizer.zero_grad()
        sum(method.loss(batch, "main").values()).backward()
        optimizer.step()
    method.eval()
    near, counts = [], []
    for _ in range(8):  # 0.90 to 0.95 are near with four seeds; of one batch alone by luck fewer
        images, figures = method.figures(batch)
        with torch.no_grad():
            found = method.detect(images)
        for keypoints, scores, figure in zip(found.keypoints.numpy(), found.scores.numpy(), figures, strict=True):
            true = figure.joints[1:][np.isfinite(figure.joints[1:, 0])]
            likely = keypoints[1:][np.argsort(-scores[1:])[: len(true)]]
            near += list(np.linalg.norm(true[:, None] - likely[None], axis=-1).min(axis=1) < 0.2)
            counts.append((len(true), scores[1:].sum()))
    assert np.mean(near) > 0.8, "the likeliest ends are those of the legs"
    assert np.corrcoef(np.array(counts).T)[0, 1] > 0.5, "more legs are more ends"


def test_poses_of_a_file_are_what_is_learned():
    names = ("hip", "knee", "foot")
    prior = Poses(np.zeros((1, 3, 2), np.float32), np.array([[0, 1], [1, 2]]), names)
    config = Limbs.fill_from_prior(LimbsConfig(drawn=4, width=4), prior)
    method = Limbs(config, (32, 32))
    assert method.keypoint_names == names
    with pytest.raises(UserError, match="names has 3 entries"):
        LimbsConfig(names=names)
    assert method.parent.tolist() == [-1, 0, 1] and method.level.tolist() == [0, 1, 2]
    frames = torch.full((2, 3, 32, 32), 0.4)
    poses = torch.tensor([[[0.0, 0.0], [0.4, 0.0], [0.4, 0.0]]]).repeat(2, 1, 1)
    _, figures = method.figures({"image": frames, "reference": frames, "prior_keypoints": poses})
    joints = np.stack([figure.joints for figure in figures])
    assert np.isfinite(joints[:, :2]).all() and np.isnan(joints[:, 2]).all()
    with pytest.raises(UserError, match="no `edges`"):
        Limbs.fill_from_prior(LimbsConfig(), Poses(np.zeros((1, 3, 2), np.float32)))


def test_a_tree_without_poses_of_its_joints_and_poses_without_a_link_are_refused():
    with pytest.raises(UserError, match=r"above has 3 joints and the poses of --data\.prior are not given"):
        Limbs.fill_from_prior(LimbsConfig(above=(-1, 0, 1)), None)
    poses = Poses(np.zeros((1, 2, 2), np.float32), np.array([[0, 1]]))
    with pytest.raises(UserError, match=r"above has 3 joints and the poses of --data\.prior 2"):
        Limbs.fill_from_prior(LimbsConfig(above=(-1, 0, 1)), poses)
    assert Limbs.fill_from_prior(LimbsConfig(above=(-1, 0)), poses).above == (-1, 0)
    with pytest.raises(UserError, match="less than two joints"):
        Limbs.fill_from_prior(LimbsConfig(), Poses(np.zeros((1, 1, 2), np.float32), np.zeros((0, 2), int)))


@pytest.mark.parametrize("numbering", ["place", "colour"])
def test_legs_are_sorted_in_the_exported_model_as_here(numbering):
    torch.manual_seed(0)
    method = Limbs(replace(SPIDER, numbering=numbering), (32, 32)).eval()
    with torch.no_grad():
        method.network.heat_half.bias[-1] = 2.0  # so that there are ends
    images = np.random.default_rng(0).integers(0, 256, (6, 32, 32, 3), np.uint8)
    assert parity(method, to_onnx(method, images), images).max < 0.01
    assert (detect_frames(method, images).scores >= 0.5).any()
