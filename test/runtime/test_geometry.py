import numpy as np
import pytest

from keypoint_perception.errors import UserError
from keypoint_perception.geometry import Viewport, normalised_to_pixels, pixels_to_normalised, rescale_pixels, resize


def test_normalised_ends_are_pixel_centres():
    assert normalised_to_pixels([[-1, -1], [1, 1], [0, 0]], (64, 48)).tolist() == [[0, 0], [63, 47], [31.5, 23.5]]


def test_round_trip_between_pixels_and_normalised():
    points = np.random.default_rng(0).uniform(-1, 1, (20, 2))
    assert pixels_to_normalised(normalised_to_pixels(points, (64, 48)), (64, 48)) == pytest.approx(points)


def test_resizing_keeps_the_pixel_grid_aligned():
    # The top-left pixel of a half-size image covers pixels 0 and 1 of the original: its centre lies between them.
    assert rescale_pixels([0, 0], (32, 32), (64, 64)).tolist() == [0.5, 0.5]
    assert rescale_pixels([31, 31], (32, 32), (64, 64)).tolist() == [62.5, 62.5]


@pytest.mark.parametrize("roi", [None, (0.25, 0.5, 0.75, 1.0)])
def test_viewport_round_trip(roi):
    viewport = Viewport.of((640, 480), (128, 96), roi)
    points = np.random.default_rng(0).uniform(-1, 1, (20, 2))
    assert viewport.to_normalised(viewport.to_pixels(points)) == pytest.approx(points)


def test_viewport_finds_a_blob_where_it_is():
    image = np.zeros((480, 640, 3), np.uint8)
    image[196:205, 296:305] = 255  # centred at (300, 200)
    viewport = Viewport.of((640, 480), (128, 96), (0.25, 0.25, 0.75, 0.75))
    weight = viewport.view(image)[..., 0].astype(float)
    y, x = np.mgrid[: weight.shape[0], : weight.shape[1]]
    centre = np.array([(x * weight).sum(), (y * weight).sum()]) / weight.sum()
    assert viewport.to_pixels(pixels_to_normalised(centre, (128, 96))) == pytest.approx([300, 200], abs=0.1)


def exact_areas(image, size):
    """Averages over areas, (h, w, C) float64, by the definition: each pixel weighs as much as it is covered."""

    def covered(length, parts):
        edges = np.arange(parts + 1) * length / parts
        pixels = np.arange(length)
        overlap = np.minimum(edges[1:, None], pixels + 1) - np.maximum(edges[:-1, None], pixels)
        return overlap.clip(0) * parts / length

    (height, width), (w, h) = image.shape[:2], size
    rows = np.tensordot(covered(height, h), image.astype(np.float64), 1)
    return np.moveaxis(np.tensordot(covered(width, w), rows, (1, 1)), 0, 1)


@pytest.mark.parametrize(
    ("image_size", "size"),
    [
        ((640, 480), (128, 128)),  # 5 and 3.75 pixels: edges meet every 15 rows
        ((640, 480), (128, 96)),  # whole pixels
        ((640, 480), (320, 240)),  # halved
        ((848, 480), (256, 144)),
        ((1280, 720), (96, 64)),
        ((613, 479), (128, 128)),  # edges never meet
        ((640, 480), (640, 300)),  # one direction only
        ((200, 97), (199, 96)),
    ],
)
def test_shrinking_averages_over_exact_areas(image_size, size):
    image = np.random.default_rng(0).integers(0, 256, (*image_size[::-1], 3), np.uint8)
    assert np.abs(resize(image, size) - exact_areas(image, size)).max() <= 0.51


def test_shrinking_takes_crops_grey_and_read_only_images():
    image = np.random.default_rng(0).integers(0, 256, (500, 700, 3), np.uint8)
    crop = image[7:487, 11:651]
    crop.flags.writeable = False
    resized = resize(crop, (128, 128))
    assert (resized == resize(crop.copy(), (128, 128))).all()
    assert (resize(crop[..., 1], (128, 128)) == resized[..., 1]).all()
    assert (resize(crop[..., 1:2], (128, 128)) == resized[..., 1]).all()  # OpenCV drops a single channel
    assert (resize(crop[..., ::-1], (128, 128)) == resized[..., ::-1]).all()


def test_an_image_of_the_right_size_is_not_copied():
    image = np.zeros((48, 64, 3), np.uint8)
    assert resize(image, (64, 48)) is image


def test_a_tiny_image_still_has_a_viewport():
    assert Viewport.of((1, 1), (64, 64), (0.4, 0.4, 0.6, 0.6)).view(np.zeros((1, 1, 3), np.uint8)).shape == (64, 64, 3)


@pytest.mark.parametrize("roi", [(0.5, 0, 0.5, 1), (0, 0, 1.1, 1), (-0.1, 0, 1, 1)])
def test_bad_roi_is_refused_with_what_is_allowed(roi):
    with pytest.raises(UserError, match="fractions of the image"):
        Viewport.of((640, 480), (64, 64), roi)
