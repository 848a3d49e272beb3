"""A heatmap's cell is a square of pixels; what is found in it is in the middle of that square, not a little outside."""

from __future__ import annotations

import pytest
import torch

from training.heatmaps import map_extent
from training.methods.autolink import AutoLink
from training.methods.autolink_config import AutoLinkConfig
from training.methods.imm import IMM, IMMConfig
from training.methods.keypoint_pyramids import KeypointPyramids, KeypointPyramidsConfig
from training.methods.npt import Npt
from training.methods.npt_config import NptConfig
from training.methods.transporter import Transporter, TransporterConfig

SIZE = (64, 32)


def imm():
    method = IMM(IMMConfig(keypoints=2, width=4, map_stride=8, generator_width=8), SIZE)
    return method, [(method.detector, 8, 2)]


def transporter():
    method = Transporter(TransporterConfig(keypoints=2, width=4, map_stride=4), SIZE)
    return method, [(method.detector, 4, 2)]


def autolink():
    config = AutoLinkConfig(keypoints=2, detector_widths=(8, 8, 8), upsamplings=1, decoder_width=8, decoder_depth=2)
    method = AutoLink(config, SIZE)
    return method, [(method.detector, 4, 2)]


def keypoint_pyramids():
    config = KeypointPyramidsConfig(keypoints=(2, 4), width=4, pyramid_width=4, transport_channels=(4, 2))
    method = KeypointPyramids(config, SIZE)
    return method, [(method.encoders[0], 8, 2), (method.encoders[1], 4, 4)]


def npt():
    config = NptConfig(points=2, width=4, stride=2, psi_widths=(4,) * 8, psi_strides=(2, 2, 2, 1, 1, 1, 1, 1))
    method = Npt(config, SIZE)
    return method, [(method.points, 2, 2)]


@pytest.mark.parametrize("build", [imm, transporter, autolink, keypoint_pyramids, npt])
def test_a_keypoint_is_in_the_middle_of_its_cell(build):
    """Column 3 of cells that are 4 pixels wide are pixels 12 to 15: 13.5."""
    method, heads = build()
    method.eval()
    expected = []
    for head, stride, count in heads:
        logits = torch.full((1, count, SIZE[1] // stride, SIZE[0] // stride), -1e4)
        logits[:, :, 1, 3] = 1e4
        head.forward = lambda *_, logits=logits: logits
        expected += [[3 * stride + (stride - 1) / 2, stride + (stride - 1) / 2]] * count
    with torch.no_grad():
        found = method.detect(torch.rand(1, 3, SIZE[1], SIZE[0])).keypoints[0]
    pixels = (found + 1) / 2 * (torch.tensor(SIZE) - 1)
    torch.testing.assert_close(pixels, torch.tensor(expected), atol=1e-3, rtol=0)


@pytest.mark.parametrize("edge_stride", [1, 2, 4])
def test_autolink_draws_an_edge_between_the_pixels_of_its_ends(edge_stride):
    sizes = {"detector_widths": (8, 8, 8), "upsamplings": 1, "decoder_width": 8, "decoder_depth": 1}
    config = AutoLinkConfig(keypoints=2, edge_stride=edge_stride, thickness=0.001, **sizes)
    method = AutoLink(config, SIZE).eval()
    ends = torch.tensor([[5.5, 17.5], [57.5, 17.5]])
    with torch.no_grad():
        _, edges = method.reconstruct(torch.zeros(1, 3, 32, 64), ends[None] / (torch.tensor(SIZE) - 1) * 2 - 1)
    rows, columns = (edges[0, 0] > 0.7 * edges.max()).nonzero().unbind(-1)
    middle = (edge_stride - 1) / 2
    assert rows.float().mean().item() * edge_stride + middle == pytest.approx(17.5, abs=0.5)
    for column, end in ((columns.min(), 5.5), (columns.max(), 57.5)):
        assert column.item() * edge_stride + middle == pytest.approx(end, abs=edge_stride / 2 + 0.5)


def test_a_map_of_one_cell_a_pixel_has_the_image_s_own_extent():
    assert map_extent(SIZE, 1).tolist() == [1, 1]
