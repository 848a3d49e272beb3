"""The table of all measures: what applies to what."""

from dataclasses import replace

import numpy as np
import pytest
from predictions import SIZE, video

from keypoint_perception.geometry import Viewport
from keypoint_perception.model import ModelInfo
from training.__main__ import main
from training.evaluation.measures import direct, identity, keypoints_are_joints, levels, measure
from training.evaluation.predicted import SingleImages

NAMES = ("left_hand", "right_hand")
INFO = ModelInfo("m", "imm", (64, 64), ("k00", "k01"), None, (-1, -1), (0, 0))


def hands(offset=0.0, exchanged=False, **fields):
    joints = np.array([[[-0.5, 0.0], [0.5, 0.0]]] * 6)
    points = joints[:, ::-1] if exchanged else joints
    return video(points + (offset, 0), joints, names=NAMES, **fields)


def test_keypoints_are_joints_where_names_or_the_method_say_so():
    assert not keypoints_are_joints([hands()], INFO)  # as many, but nobody says which is which
    assert keypoints_are_joints([hands()], replace(INFO, method="keypointgan"))
    assert keypoints_are_joints([hands()], replace(INFO, keypoint_names=NAMES))
    more = replace(INFO, method="keypointgan", keypoint_names=("a", "b", "c"))
    assert not keypoints_are_joints([hands()], more)


def test_direct_error_with_and_without_flips():
    assert direct([hands(0.1)]) == pytest.approx({"error": 0.1, "error_with_flips": 0.1})
    assert direct([hands(exchanged=True)]) == pytest.approx({"error": 1.0, "error_with_flips": 0.0})


def test_what_is_fitted_on_other_data_counts_in_no_other_measure():
    named, other = replace(INFO, keypoint_names=NAMES), video(np.zeros((6, 2, 2)), np.ones((6, 2, 2)), names=NAMES)
    alone, figures = measure([hands(0.1)], 0.2, named), measure([hands(0.1)], 0.2, named, [other])
    assert figures["direct"] == alone["direct"] and figures["identity"] == alone["identity"]
    assert (
        figures["regression"]["error"] > 1 > alone["regression"]["error"]
    )  # joints of all that was fitted are at 1, 1


def test_each_variant_counts_the_same_in_the_direct_error():
    videos = [hands(0.1, variant="walking"), hands(0.3, variant="sitting"), hands(0.3, variant="sitting")]
    assert direct(videos)["error"] == pytest.approx(0.2)


def test_what_does_not_apply_is_none_and_every_family_is_there():
    figures = measure([hands()], 0.2, INFO)
    assert list(figures) == [
        "structure", "structure_lenient", "joints", "structure_single", "joints_single", "regression",
        "label_efficiency", "direct", "identity", "motion", "levels", "lifting", "grasp",
    ]  # fmt: skip
    for family in ("structure_single", "joints_single", "direct", "motion", "lifting", "grasp"):
        assert set(figures[family].values()) == {None}
    assert figures["joints"]["dist"] is None and figures["joints"]["diff"] == 2  # no keypoint is linked


def test_each_level_of_a_hierarchy_is_measured_alone():
    rng = np.random.default_rng(0)
    joints = rng.uniform(-1, 1, (60, 1, 2))
    points = np.concatenate((rng.uniform(-1, 1, (60, 2, 2)), joints), axis=1)  # the coarse level knows nothing
    graph = ((0.0,) * 3,) * 3
    hierarchy = replace(INFO, keypoint_names=("a", "b", "c"), adjacency=graph, parent=(-1, -1, 0), level=(0, 0, 1))
    found = levels([replace(video(points, joints, ordered=False), parent=hierarchy.parent)], hierarchy)
    assert list(found) == ["error_0", "rmse_0", "motion_0", "error_1", "rmse_1", "motion_1"]
    assert found["error_1"] == pytest.approx(0, abs=1e-9)
    assert found["error_0"] > 0.5
    assert found["motion_0"] is None
    assert levels([video(points, joints)], replace(hierarchy, parent=(-1,) * 3, level=(0,) * 3)) == {}


def test_levels_of_a_predicted_tree_are_depths_and_not_measured():
    tree = replace(INFO, adjacency=None, parent=(-1, 0), level=(0, 1))
    assert levels([hands()], tree) == {}


def test_single_images_are_measured_beside_the_body_that_was_followed():
    link = ~np.eye(2, dtype=bool)
    apart = hands(adjacency=link)
    alone = SingleImages(apart.points + (0.1, 0), np.zeros((2, 2)))
    unlinked = measure([replace(apart, adjacency=link * 1.0, single=alone)], 0.2, INFO)
    assert unlinked["structure"]["f1"] == 1 and unlinked["joints"]["dist"] == 0
    assert unlinked["structure_single"]["f1"] == 0 and unlinked["joints_single"]["recall"] == 0
    linked = measure([replace(apart, adjacency=link * 1.0, single=alone._replace(adjacency=link * 0.9))], 0.2, INFO)
    assert linked["structure_single"]["f1"] == 1 and linked["joints_single"]["dist"] == pytest.approx(0.1)


def test_a_joint_that_is_never_annotated_is_left_out_with_its_edges():
    # A chain shoulder - elbow - hand - tip, whose elbow is in no frame and whose tip is missing in the last of three.
    # Keypoint k is joint k, the elbow's is far off; hand - tip is found, and shoulder - hand is a false alarm.
    joints = np.array([[[-0.5, 0], [0, 0], [0.5, 0], [0.5, 0.5]]] * 3)
    points = joints + np.array([[0, 0], [0, 0.9], [0.1, 0], [0, 0]])
    points[2] += 1
    joints[:, 1] = joints[2, 3] = np.nan
    true, found = np.zeros((2, 4, 4))
    for graph, edges in ((true, ((0, 1), (1, 2), (2, 3))), (found, ((0, 2), (2, 3)))):
        for edge in edges:
            graph[edge] = graph[edge[::-1]] = 1
    seen = replace(video(points, joints, adjacency=true.astype(bool)), adjacency=found, one_graph=True)
    figures = measure([seen], 0.2)
    assert figures["structure"]["precision"] == 0.5 and figures["structure"]["recall"] == 1  # of hand - tip alone
    assert figures["joints"]["dist"] == pytest.approx(0.1 / 3)  # of the frames that have the tip
    assert figures["joints"]["precision"] == 0.75 and figures["joints"]["recall"] == figures["joints"]["diff"] == 1
    assert figures["identity"]["same_part"] == 1
    never = measure([replace(seen, joints=np.full_like(joints, np.nan))], 0.2)
    assert never["joints"]["dist"] is None and never["structure"]["f1"] is None


def test_where_one_graph_is_for_all_images_every_keypoint_counts_as_a_joint():
    unlinked = hands(adjacency=~np.eye(2, dtype=bool))  # what is true; predicted is no edge
    figures = measure([replace(unlinked, adjacency=np.zeros((2, 2)), one_graph=True)], 0.2, INFO)
    assert figures["joints"]["f1"] == 1 and figures["joints"]["diff"] == 0
    assert figures["structure"]["precision"] == 0 and figures["structure"]["recall"] == 0


def test_keypoints_of_a_model_that_sees_a_part_of_the_picture_are_looked_up_in_all_of_it():
    right_half = Viewport.of(SIZE, (51, 101), (0.5, 0, 1, 1))  # from column 50 on: the keypoints are in 62.5 and 87.5
    mask = np.zeros((6, SIZE[1], SIZE[0]), bool)
    mask[:, 50, 60:65] = True
    assert identity([replace(hands(mask=mask), viewport=right_half)])["on_object"] == 0.5


def test_without_a_mask_the_true_skeleton_says_what_is_on_the_object():
    link = ~np.eye(2, dtype=bool)
    assert identity([hands(adjacency=link)])["on_object"] == 1
    assert identity([hands(0.2, adjacency=link)])["on_object"] == 0.5  # one slides along it, the other off its end
    assert identity([hands()])["on_object"] is None


def test_a_seed_below_0_is_refused(tmp_path, capsys):
    assert main(["evaluate", "model.onnx", "--data", str(tmp_path), "--seed", "-1"]) == 2
    assert "--seed is -1: give a number from 0" in capsys.readouterr().err


@pytest.mark.parametrize("epsilon", ["0", "-1", "nan"])
def test_a_distance_that_matches_nothing_is_refused(epsilon, tmp_path, capsys):
    assert main(["evaluate", "model.onnx", "--data", str(tmp_path), "--epsilon", epsilon]) == 2
    assert f"--epsilon is {float(epsilon)}: give a distance above 0" in capsys.readouterr().err
