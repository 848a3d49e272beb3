"""Annotated pictures: one size, one split, and errors that say what is wrong."""

import json

import cv2
import numpy as np
import pytest
from huge_png import huge_png

from keypoint_perception.errors import UserError
from training.evaluation.reading import read_labelled

SIZES = {"a.png": (20, 10), "b.png": (40, 20), "c.png": (20, 10)}
"""(width, height)"""


def coco(
    folder, splits=("train", "test", "test"), keypoints=(4, 2, 2, 9, 9, 0), names=("nose", "tail"), skeleton=((1, 2),)
):
    images = []
    for number, ((name, (width, height)), split) in enumerate(zip(SIZES.items(), splits, strict=True)):
        cv2.imwrite(str(folder / name), np.full((height, width, 3), 60 * number, np.uint8))
        images.append({"id": number, "file_name": name} | ({"split": split} if split else {}))
    annotations = [{"image_id": number, "keypoints": list(keypoints)} for number in range(len(images))]
    category = {"name": "mouse", "keypoints": names, "skeleton": skeleton}
    file = folder / "labels.json"
    file.write_text(json.dumps({"images": images, "annotations": annotations, "categories": [category]}))
    return file


def test_pictures_of_several_sizes_come_out_as_the_most_frequent_one(tmp_path):
    (video,) = read_labelled(coco(tmp_path))
    assert video.frames.shape == (3, 10, 20, 3) and video.names == ("nose", "tail") and not video.ordered
    assert video.joints[0, 0].tolist() == [4, 2]
    assert video.joints[1, 0].tolist() == [4.5 / 2 - 0.5, 2.5 / 2 - 0.5]  # from 40 x 20: halved about pixel corners
    assert np.isnan(video.joints[:, 1]).all() and not video.visible[:, 1].any()  # visibility 0 is no label
    assert video.adjacency.tolist() == [[False, True], [True, False]]


def test_the_split_is_in_the_images_or_in_a_list(tmp_path):
    (video,) = read_labelled(coco(tmp_path))
    assert video.fit.tolist() == [True, False, False]
    names = tmp_path / "fit.txt"
    names.write_text("a.png\n\nc.png\n")
    (video,) = read_labelled(tmp_path / "labels.json", fit_on=names)
    assert video.fit.tolist() == [True, False, True]
    (video,) = read_labelled(coco(tmp_path, splits=(None, "test", "test")))
    assert video.fit is None  # not every image says


def test_mistakes_in_a_split_are_named(tmp_path):
    with pytest.raises(UserError, match="split holdout: allowed are train, test and val"):
        next(read_labelled(coco(tmp_path, splits=("train", "test", "holdout"))))
    names = tmp_path / "fit.txt"
    names.write_text("nothing.png\n")
    with pytest.raises(UserError, match="names none of the images"):
        next(read_labelled(coco(tmp_path), fit_on=names))
    names.write_text("")
    with pytest.raises(UserError, match="names nothing"):
        next(read_labelled(coco(tmp_path), fit_on=names))


def test_a_missing_or_damaged_picture_is_named(tmp_path):
    file = coco(tmp_path)
    (tmp_path / "b.png").unlink()
    with pytest.raises(UserError, match=r"b\.png: .*beside the \.json"):
        next(read_labelled(file))
    (tmp_path / "b.png").write_bytes(huge_png())
    with pytest.raises(UserError, match=r"b\.png: .*beside the \.json"):
        next(read_labelled(file))


def test_what_is_no_coco_file_is_said(tmp_path):
    with pytest.raises(UserError, match="not a COCO keypoints file"):
        next(read_labelled(coco(tmp_path, keypoints=(1, 2))))


@pytest.mark.parametrize("link", [[0, 1], [1, 3], [2, 2], [1.5, 2]])
def test_a_link_of_joints_that_are_not_there_is_named(tmp_path, link):
    with pytest.raises(UserError, match=r"has the link \[.*COCO counts joints from 1, here to 2"):
        next(read_labelled(coco(tmp_path, skeleton=[[1, 2], link])))


@pytest.mark.parametrize("x", [1e300, float("inf"), float("nan")])
def test_a_label_that_is_nowhere_is_named(tmp_path, x):
    with pytest.raises(UserError, match=r"has nose of a\.png at .*give pixels"):
        next(read_labelled(coco(tmp_path, keypoints=(x, 2, 2, 9, 9, 0))))
    next(read_labelled(coco(tmp_path, keypoints=(4, 2, 2, x, 9, 0))))  # visibility 0 is no label


def test_a_file_without_joints_or_of_two_categories_is_refused(tmp_path):
    with pytest.raises(UserError, match="has no joints"):
        next(read_labelled(coco(tmp_path, keypoints=(), names=(), skeleton=[])))
    file = coco(tmp_path)
    content = json.loads(file.read_text())
    for number, annotation in enumerate(content["annotations"]):
        annotation["category_id"] = 1 + number % 2
    file.write_text(json.dumps(content))
    with pytest.raises(UserError, match="annotations of categories 1, 2: give a file for each"):
        next(read_labelled(file))


@pytest.mark.parametrize(
    ("place", "value", "says"),
    [
        (("categories",), 5, "its `categories` are no list of objects"),
        (("categories", 0), "mouse", "its `categories` are no list of objects"),
        (("images",), None, "its `images` are no list of objects"),
        (("annotations",), {"a": 1}, "its `annotations` are no list of objects"),
        (("images", 0, "file_name"), 7, "an image with the file_name 7: give the name of its file"),
        (("images", 0, "file_name"), None, "an image with the file_name None"),
        (("images", 0, "file_name"), ["a.png"], r"an image with the file_name \['a\.png'\]"),
        (("images", 0, "file_name"), "a\0.png", "an image with the file_name 'a.x00.png'"),
        (("images", 0, "file_name"), "\ud800.png", "an image with the file_name '.ud800.png'"),
        (("images", 1, "file_name"), "a.png", "two images with the file_name 'a.png': give each file once"),
        (("images", 1, "id"), 0, "two images with the id 0: give each its own"),
        (("images", 1, "id"), [1], r"an image with the id \[1\]: give each image a number"),
        (("annotations", 0, "image_id"), 99, "an annotation of image 99, which is none of its images, such as 0"),
        (("annotations", 0, "image_id"), "0", "an annotation of image '0', which is none of its images, such as 0"),
        (("annotations", 0, "image_id"), {}, "an annotation of image {}, which is none"),
        (("annotations", 0, "keypoints", 0), 10**400, "not a COCO keypoints file .*too large"),
        (("annotations", 0, "category_id"), 3, "annotations of category 3, which is none of its categories"),
        (("categories", 0, "skeleton"), 5, "not a COCO keypoints file"),
        (("categories", 0, "skeleton"), [[1, 10**400]], "not a COCO keypoints file"),
    ],
    ids=lambda given: str(given)[:40],
)
def test_what_makes_no_sense_is_one_clear_line(tmp_path, place, value, says):
    file = coco(tmp_path)
    content = json.loads(file.read_text())
    *above, last = place
    inner = content
    for key in above:
        inner = inner[key]
    inner[last] = value
    file.write_text(json.dumps(content))
    with pytest.raises(UserError, match=says) as caught:
        next(read_labelled(file))
    assert "\n" not in str(caught.value)


def test_categories_of_several_types_and_json_without_an_end(tmp_path):
    file = coco(tmp_path)
    content = json.loads(file.read_text())
    for annotation, category in zip(content["annotations"], (1, "1", None), strict=True):
        annotation["category_id"] = category
    file.write_text(json.dumps(content))
    with pytest.raises(UserError, match="annotations of categories 1, '1': give a file for each"):
        next(read_labelled(file))
    for text in ("[" * 100_000, "{", "[]"):
        file.write_text(text)
        with pytest.raises(UserError, match=r"labels\.json (cannot be read as JSON|is not a COCO keypoints file)"):
            next(read_labelled(file))
