import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from keypoint_perception.errors import UserError
from training.losses import PerceptualLoss, difference, image_pyramid, masked_mean, pyramid_mse
from training.perceptual import perceptual_features


class Doubled:
    """Two layers: the image, and its 2x2 means doubled."""

    def __len__(self) -> int:
        return 2

    def __call__(self, image: Tensor) -> list[Tensor]:
        return [image, 2 * F.avg_pool2d(image, 2)]


def test_masked_mean_counts_only_what_the_mask_keeps():
    values = torch.tensor([[[[1.0, 2.0], [3.0, 4.0]], [[5.0, 6.0], [7.0, 8.0]]]])
    mask = torch.tensor([[[[1.0, 0.0], [0.0, 0.5]]]])
    assert masked_mean(values).item() == pytest.approx(4.5)
    assert masked_mean(values, mask).item() == pytest.approx((1 + 5 + 0.5 * 4 + 0.5 * 8) / (1.5 * 2))
    assert masked_mean(values, torch.zeros_like(mask)).item() == 0


def test_a_mask_is_brought_to_the_size_of_a_layer_by_area():
    mask = torch.tensor([[[[1.0, 1.0, 0.0, 0.0], [0.0, 0.0, 0.0, 0.0]]]])
    assert masked_mean(torch.tensor([[[[3.0, 100.0]]]]), mask).item() == pytest.approx(3)


def test_difference_squared_and_absolute():
    a, b = torch.tensor([[[[0.0, 2.0]]]]), torch.tensor([[[[1.0, -1.0]]]])
    assert difference(a, b, power=2).item() == pytest.approx((1 + 9) / 2)
    assert difference(a, b, power=1).item() == pytest.approx((1 + 3) / 2)


def test_pyramid_mse_of_a_checkerboard_vanishes_at_the_coarse_levels():
    board = torch.tensor([[1.0, 0.0], [0.0, 1.0]]).repeat(2, 2)[None, None].repeat(1, 3, 1, 1)  # 4 x 4
    flat = torch.full_like(board, 0.5)
    assert [level.shape[-1] for level in image_pyramid(board, 5)] == [4, 2]
    assert pyramid_mse(flat, board).item() == pytest.approx(0.25 / 2)


def test_perceptual_loss_divides_each_layer_by_its_running_mean():
    loss = PerceptualLoss(Doubled(), running_mean_rate=0.9)
    target = torch.zeros(1, 3, 2, 2)
    first, second = torch.full_like(target, 0.5), torch.full_like(target, 1.0)
    assert loss(first, target).item() == pytest.approx(2)  # every layer over its own first error
    # errors 0.25 and 1 at first, then 1 and 4; means 0.9 · 0.25 + 0.1 · 1 = 0.325 and 0.9 · 1 + 0.1 · 4 = 1.3
    assert loss(second, target).item() == pytest.approx(1 / 0.325 + 4 / 1.3)
    assert loss.running_mean.tolist() == pytest.approx([0.325, 1.3])
    loss.eval()
    assert loss(first, target).item() == pytest.approx(0.25 / 0.325 + 1 / 1.3)
    assert loss.running_mean.tolist() == pytest.approx([0.325, 1.3])


def test_perceptual_loss_that_is_measured_before_it_was_trained_counts_every_layer_as_one():
    loss = PerceptualLoss(Doubled()).eval()
    assert loss(torch.full((1, 3, 2, 2), 0.5), torch.zeros(1, 3, 2, 2)).item() == pytest.approx(2)
    assert loss.running_mean.tolist() == [0, 0]


def test_perceptual_loss_without_normalisation_and_with_absolute_errors():
    loss = PerceptualLoss(Doubled(), running_mean_rate=None, power=1, reduction="mean")
    target = torch.zeros(1, 3, 2, 2)
    assert loss(torch.full_like(target, 0.5), target).item() == pytest.approx((0.5 + 1.0) / 2)


def test_perceptual_loss_ignores_what_the_mask_hides():
    loss = PerceptualLoss(perceptual_features("pixels"), running_mean_rate=None)
    target, prediction = torch.zeros(1, 3, 2, 2), torch.zeros(1, 3, 2, 2)
    prediction[..., 0, 0] = 9.0
    mask = torch.ones(1, 1, 2, 2)
    mask[..., 0, 0] = 0
    assert loss(prediction, target, mask).item() == 0


def test_gradient_reaches_the_prediction_and_not_the_target():
    loss = PerceptualLoss(perceptual_features("efficientnet_lite0"))
    generator = torch.Generator().manual_seed(0)
    prediction = torch.rand(1, 3, 32, 32, generator=generator, requires_grad=True)
    target = torch.rand(1, 3, 32, 32, generator=generator)
    loss(prediction, target).backward()
    assert prediction.grad.abs().max() > 0
    assert not list(loss.parameters())
    assert set(loss.state_dict()) == {"running_mean"}  # a checkpoint holds no frozen network


def test_efficientnet_sees_edges_that_colour_alone_does_not_show():
    """Stripes of one pixel against the flat grey of their mean, and against as large a step of that grey."""
    columns = torch.arange(64) % 2 * 0.2 - 0.1
    grey = torch.full((1, 3, 64, 64), 0.5)
    loss = PerceptualLoss(perceptual_features("efficientnet_lite0"), running_mean_rate=None)
    stripes, shade = (loss.errors(grey + change, grey) for change in (columns, torch.tensor(0.1)))
    assert stripes[0].item() == pytest.approx(shade[0].item())  # the images themselves are as far apart
    assert (stripes[1:] > 3 * shade[1:]).all()


def test_efficientnet_has_a_map_for_each_stage():
    features = perceptual_features("efficientnet_lite0")
    maps = features(torch.rand(2, 3, 48, 64, generator=torch.Generator().manual_seed(0)))
    assert len(maps) == len(features) == 7
    assert [tuple(m.shape[1:]) for m in maps] == [
        (3, 48, 64),
        (32, 24, 32),
        (16, 24, 32),
        (24, 12, 16),
        (40, 6, 8),
        (80, 3, 4),
        (112, 3, 4),
    ]


def make_vgg_weights(path, name):
    plan = {"vgg16": (2, 2, 3, 3, 3), "vgg19": (2, 2, 4, 4, 4)}[name]
    state, channels, position = {}, 3, 0
    for stage, count in enumerate(plan):
        for _ in range(count):
            width = min(64 * 2**stage, 512)
            state[f"features.{position}.weight"] = torch.randn(width, channels, 3, 3) * (2 / (9 * channels)) ** 0.5
            state[f"features.{position}.bias"] = 0.1 * torch.randn(width)
            channels, position = width, position + 2
        position += 1
    torch.save(state, path)
    return state


def vgg_by_loop(state, image):
    """Every map of VGG by its name, from the positions of torchvision's state dict; a gap of three is a pooling."""
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    maps, x = {}, (image - mean[:, None, None]) / std[:, None, None]
    stage, index, before = 1, 0, -2
    for position in sorted({int(key.split(".")[1]) for key in state}):
        if position - before == 3:
            x, stage, index = F.max_pool2d(x, 2), stage + 1, 0
        index, before = index + 1, position
        maps[f"conv{stage}_{index}"] = F.conv2d(
            x, state[f"features.{position}.weight"], state[f"features.{position}.bias"], padding=1
        )
        x = maps[f"relu{stage}_{index}"] = F.relu(maps[f"conv{stage}_{index}"])
    return maps


@pytest.mark.parametrize(
    ("name", "layers"),
    [
        ("vgg19", ("conv1_2", "conv2_2", "conv3_2", "conv4_2", "conv5_2")),  # IMM
        ("vgg16", ("relu1_2", "relu2_2", "relu3_3", "relu4_3")),  # AutoLink
        ("vgg19", ("relu3_4", "conv4_4")),
    ],
)
def test_vgg_from_a_file_gives_the_layers_asked_for(tmp_path, name, layers):
    torch.manual_seed(0)
    state = make_vgg_weights(tmp_path / "vgg.pth", name)
    image = torch.rand(2, 3, 32, 48)
    maps = perceptual_features(name, str(tmp_path / "vgg.pth"), layers)(image)
    wanted = vgg_by_loop(state, image)
    assert torch.equal(maps[0], image)
    for layer, ours in zip(layers, maps[1:], strict=True):
        torch.testing.assert_close(ours, wanted[layer], rtol=1e-3, atol=1e-4)


def test_imm_s_layers_of_vgg19_are_the_default(tmp_path):
    make_vgg_weights(tmp_path / "vgg19.pth", "vgg19")
    maps = perceptual_features("vgg19", str(tmp_path / "vgg19.pth"))(torch.rand(1, 3, 32, 32))
    assert [m.shape[1] for m in maps] == [3, 64, 128, 256, 512, 512]
    assert [m.shape[2] for m in maps] == [32, 32, 16, 8, 4, 2]


def test_features_of_resized_images_and_without_the_image_itself(tmp_path):
    """What AutoLink's official code compares: four layers of VGG-16 at a size of its own."""
    make_vgg_weights(tmp_path / "vgg16.pth", "vgg16")
    layers = ("relu1_2", "relu2_2", "relu3_3", "relu4_3")
    image = torch.rand(1, 3, 16, 24)
    features = perceptual_features("vgg16", str(tmp_path / "vgg16.pth"), layers, size=56, image=False)
    maps = features(image)
    assert len(features) == len(maps) == 4
    assert [tuple(m.shape[1:]) for m in maps] == [(64, 56, 56), (128, 28, 28), (256, 14, 14), (512, 7, 7)]
    resized = F.interpolate(image, (56, 56), mode="bilinear", align_corners=False)
    first, *rest = perceptual_features("vgg16", str(tmp_path / "vgg16.pth"), layers)(resized)
    assert torch.equal(first, resized)
    for ours, plain in zip(maps, rest, strict=True):
        torch.testing.assert_close(ours, plain)


def test_vgg_without_usable_weights_is_refused_with_the_remedy(tmp_path):
    with pytest.raises(UserError, match="needs weights"):
        perceptual_features("vgg19")
    image = torch.zeros(1, 3, 16, 16)
    with pytest.raises(UserError, match="does not exist"):
        perceptual_features("vgg19", str(tmp_path / "none.pth"))(image)
    (tmp_path / "text.pth").write_text("hello")
    with pytest.raises(UserError, match="no state dict"):
        perceptual_features("vgg19", str(tmp_path / "text.pth"))(image)
    torch.save({"features.0.weight": torch.zeros(3)}, tmp_path / "other.pth")
    with pytest.raises(UserError, match=r"has no features\.0"):
        perceptual_features("vgg16", str(tmp_path / "other.pth"))(image)
