"""What is written down as true of the simulated objects, held against the pictures."""

import cv2
import numpy as np
import pytest
from segmented import segmentation

from keypoint_perception.geometry import rescale_pixels
from training.simulation.articulated import CAMERA, SUPERSAMPLING, Actor
from training.simulation.episodes import SCENES

BUILDERS = {
    name: build for splits in SCENES.values() for builders in splits.values() for name, build in builders.items()
}
JOINTS = (
    {f"spider{n}": 1 + 3 * n for n in range(3, 9)}
    | {f"cartpole{n}": n + 1 for n in range(1, 6)}
    | {f"swimmer{n}": n + 1 for n in range(2, 8)}
    | {"walker": 8, "hopper": 7, "cheetah": 9, "manipulator": 8}
)
HIDES_JOINTS = [name for name in sorted(JOINTS) if name.startswith("spider") or name == "walker"]
"""Of the other objects no limb passes before a joint."""
FRAMES = 12


@pytest.fixture(scope="module", params=sorted(BUILDERS))
def actor(request):
    with Actor(BUILDERS[request.param](), (64, 64)) as actor:
        yield actor


@pytest.fixture(scope="module")
def bodies_seen(actor):
    with segmentation(actor.world) as bodies_seen:
        yield bodies_seen


def play(actor, seed=0, frames=FRAMES):
    return actor.episode("set", seed, np.random.default_rng(seed), frames)


def test_every_object_of_the_paper_is_there():
    assert set(BUILDERS) == set(JOINTS)


def test_the_skeleton_is_one_tree_over_all_joints(actor):
    adjacency = actor.world.adjacency
    count = JOINTS[actor.variant.name]
    assert adjacency.shape == (count, count) and len(set(actor.world.names)) == count
    assert (adjacency == adjacency.T).all() and not adjacency.diagonal().any()
    assert adjacency.sum() == 2 * (count - 1)
    reached = np.linalg.matrix_power(adjacency.astype(int) + np.eye(count, dtype=int), count)
    assert (reached > 0).all()


def test_an_episode_is_what_it_says(actor):
    episode = play(actor)
    assert episode.frames.shape == (FRAMES, 64, 64, 3) and episode.frames.dtype == np.uint8
    assert episode.mask.shape == (FRAMES, 64, 64)
    in_picture = ((episode.keypoints > -0.5) & (episode.keypoints < 63.5)).all(-1)
    assert in_picture.mean() > 0.95
    assert not (episode.visible & ~in_picture).any()
    assert episode.visible.mean() > 0.6
    assert 0.005 < episode.mask.mean() < 0.3


def test_links_keep_their_length(actor):
    """A limb is rigid: the distance of its joints is the same in all frames. The walker's hips stand for two."""
    points = play(actor).keypoints_3d.astype(float)
    i, j = np.nonzero(np.triu(actor.world.adjacency))
    lengths = np.linalg.norm(points[:, i] - points[:, j], axis=-1)
    assert lengths.min() > 0.03
    tolerance = 0.1 if actor.variant.name == "walker" else 1e-3
    assert np.ptp(lengths, axis=0).max() < tolerance * lengths.max()


def test_joints_lie_on_the_limbs_that_they_join(actor, bodies_seen):
    """By segmentation: within a pixel and a half of a pixel that shows one of the joint's bodies."""
    world = actor.world
    play(actor)
    bodies = [{node.body} for node in world.nodes]
    for i, j in np.argwhere(world.adjacency):
        bodies[i].add(world.nodes[j].body)
    shown = bodies_seen(CAMERA)
    pixels, _ = world.project(CAMERA)
    for i in np.flatnonzero(world.visible(CAMERA)):
        rows, columns = np.nonzero(np.isin(shown, list(bodies[i])))
        assert len(rows), world.names[i]
        nearest = np.hypot(columns - pixels[i, 0], rows - pixels[i, 1]).min()
        assert nearest < 1.5 * SUPERSAMPLING, (world.names[i], nearest)


def test_the_mask_is_the_moving_bodies(actor, bodies_seen):
    """By segmentation, which is another rendering than the depth that the mask is made of."""
    mask = play(actor).mask[-1]
    shown = bodies_seen(CAMERA) > 0
    expected = shown.reshape(64, SUPERSAMPLING, 64, SUPERSAMPLING).mean(axis=(1, 3)) >= 0.5
    assert (mask & expected).sum() > 0.97 * (mask | expected).sum()


def test_frames_drawn_over_a_backdrop_are_frames_drawn_whole(actor):
    episode = play(actor)
    colour, _ = actor.world.render_with_depth(CAMERA)
    whole = cv2.resize(colour, actor.size, interpolation=cv2.INTER_AREA)
    np.testing.assert_array_equal(episode.frames[-1], whole)


@pytest.mark.parametrize("actor", HIDES_JOINTS, indirect=True)
def test_a_hidden_joint_has_a_limb_in_front_of_it(actor, bodies_seen):
    """By segmentation: only the object itself can hide its joints, never the floor."""
    world, hidden = actor.world, 0
    for seed in range(6):
        play(actor, seed, frames=1)
        pixels, points = world.project(CAMERA)
        inside = ((pixels > 0) & (pixels < np.array(world.size) - 1)).all(1)
        shown, depth = bodies_seen(CAMERA), world.depth(CAMERA)
        for i in np.flatnonzero(inside & ~world.visible(CAMERA)):
            column, row = pixels[i].round().astype(int)
            assert shown[row, column] > 0
            assert depth[row, column] < points[i, 2]
            hidden += 1
    assert hidden > 0


@pytest.mark.parametrize("name", ["walker", "hopper", "cheetah"])
def test_without_gravity_the_centre_of_mass_goes_straight_on(name):
    with Actor(BUILDERS[name](), (32, 32)) as actor:
        data, path = actor.world.data, []
        rng = np.random.default_rng(3)
        actor.poses(rng, 1)
        for frame in range(1, 60):
            actor._move(frame, rng)
            path.append(data.subtree_com[0].copy())
        assert np.abs(np.diff(path, n=2, axis=0)).max() < 1e-3
        assert np.linalg.norm(path[-1] - path[0]) < 0.6


def test_bodies_turn_so_that_no_place_tells_which_joint_it_is():
    """The walker's head is above its hips about as often as below."""
    with Actor(BUILDERS["walker"](), (32, 32)) as actor:
        head, hips = (actor.world.names.index(name) for name in ("head", "hips"))
        above = [
            (pose[:, head, 1] < pose[:, hips, 1]).mean()
            for pose in (actor.poses(np.random.default_rng(seed), 20) for seed in range(30))
        ]
        assert 0.25 < np.mean(above) < 0.75


def test_colours_and_sizes_differ_between_episodes_but_not_within_one():
    with Actor(BUILDERS["spider3"](), (64, 64)) as actor:
        first, second = play(actor, 0), play(actor, 1)
        rgba = actor.world.model.geom_rgba[actor._limbs, :3]
        assert len(np.unique(rgba.round(3), axis=0)) == len(rgba)
        colours = [e.frames[-1][e.mask[-1]].mean(axis=0) for e in (first, second)]
        assert np.abs(colours[0] - colours[1]).max() > 10
        np.testing.assert_array_equal(play(actor, 0).frames, first.frames)


def test_pictures_that_are_not_square_show_all_of_the_object():
    for size in ((48, 96), (96, 48)):
        with Actor(BUILDERS["swimmer3"](), size) as actor:
            episode = play(actor)
            assert episode.frames.shape == (FRAMES, size[1], size[0], 3)
            assert ((episode.keypoints > -0.5) & (episode.keypoints < np.array(size) - 0.5)).all()
            pixels, _ = actor.world.project(CAMERA)
            np.testing.assert_allclose(rescale_pixels(pixels, actor.world.size, size), episode.keypoints[-1], atol=1e-4)
