"""EfficientNet-Lite0 with the module names and the operations of timm's ``tf_efficientnet_lite0``: the same bits,
without importing timm, which takes longer than all that is asked of the network.

Tan and Le, "EfficientNet", ICML 2019; Lite: no squeeze-and-excitation, ReLU6 in place of swish. Convolutions of stride
2 pad as TensorFlow does.
"""

from __future__ import annotations

from typing import Any

import torch  # noqa: F401  (examples)
from torch import Tensor, nn
from torch.nn import functional as F

EPS = 1e-3  # of TensorFlow's batch norm
STEM, HEAD, CLASSES = 32, 1280, 1000
# Blocks, channels that come out, expansion, kernel and stride of each stage.
STAGES = (
    (1, 16, 1, 3, 1), (2, 24, 6, 3, 2), (2, 40, 6, 5, 2), (3, 80, 6, 3, 2), (3, 112, 6, 5, 1), (4, 192, 6, 5, 2),
    (1, 320, 6, 3, 1),
)  # fmt: skip
PUBLISHED = {
    "input_size": (3, 224, 224),
    "crop_pct": 0.875,
    "interpolation": "bicubic",
    "mean": (0.5, 0.5, 0.5),
    "std": (0.5, 0.5, 0.5),
}  # as timm has them for its own weights


class Conv2dSame(nn.Conv2d):
    """A convolution of stride 2 with TensorFlow's padding, which may be one more at the right and below."""

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, H, W] -> [B, D, H / 2, W / 2], rounded up."""
        sides = []
        for size, kernel, stride in zip(x.shape[-2:], self.kernel_size, self.stride, strict=True):
            whole = max((-(-size // stride) - 1) * stride + kernel - size, 0)
            sides.append((whole // 2, whole - whole // 2))
        x = F.pad(x, (*sides[1], *sides[0]))
        return F.conv2d(x, self.weight, self.bias, self.stride, (0, 0), self.dilation, self.groups)


class BatchNormAct2d(nn.BatchNorm2d):
    """Batch norm, and ReLU6 behind it unless ``rectifies`` is False."""

    def __init__(self, channels: int, *, rectifies: bool = True) -> None:
        super().__init__(channels, eps=EPS)
        self.drop = nn.Identity()
        self.act = nn.ReLU6(inplace=True) if rectifies else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, H, W], the same shape."""
        return self.act(self.drop(super().forward(x)))  # type: ignore[no-any-return]


class DepthwiseSeparableConv(nn.Module):
    """The block of the first stage: no expansion."""

    def __init__(self, channels: int, out: int, kernel: int, stride: int) -> None:
        super().__init__()
        self.has_skip = stride == 1 and channels == out
        self.conv_dw = make_convolution(channels, channels, kernel, stride, groups=channels)
        self.bn1 = BatchNormAct2d(channels)
        self.aa, self.se = nn.Identity(), nn.Identity()
        self.conv_pw = make_convolution(channels, out)
        self.bn2 = BatchNormAct2d(out, rectifies=False)
        self.drop_path = nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, H, W] -> [B, D, H / stride, W / stride]."""
        found = self.se(self.aa(self.bn1(self.conv_dw(x))))
        found = self.bn2(self.conv_pw(found))
        return self.drop_path(found) + x if self.has_skip else found  # type: ignore[no-any-return]


class InvertedResidual(nn.Module):
    """Expansion, convolution of each channel, projection; around them the input, where nothing changes its shape."""

    def __init__(self, channels: int, out: int, expansion: int, kernel: int, stride: int) -> None:
        super().__init__()
        self.has_skip = stride == 1 and channels == out
        inner = channels * expansion
        self.conv_pw = make_convolution(channels, inner)
        self.bn1 = BatchNormAct2d(inner)
        self.conv_dw = make_convolution(inner, inner, kernel, stride, groups=inner)
        self.bn2 = BatchNormAct2d(inner)
        self.aa, self.se = nn.Identity(), nn.Identity()
        self.conv_pwl = make_convolution(inner, out)
        self.bn3 = BatchNormAct2d(out, rectifies=False)
        self.drop_path = nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, H, W] -> [B, D, H / stride, W / stride]."""
        found = self.bn1(self.conv_pw(x))
        found = self.se(self.aa(self.bn2(self.conv_dw(found))))
        found = self.bn3(self.conv_pwl(found))
        return self.drop_path(found) + x if self.has_skip else found  # type: ignore[no-any-return]


class AveragePool(nn.Module):
    """The mean over the image, as [B, C]."""

    def __init__(self) -> None:
        super().__init__()
        self.pool, self.flatten = nn.AdaptiveAvgPool2d(1), nn.Flatten(1)

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, H, W] -> [B, C]."""
        return self.flatten(self.pool(x))  # type: ignore[no-any-return]


class EfficientNetLite0(nn.Module):
    """EfficientNet-Lite0 for 1,000 classes: [B, 3, H, W] -> logits [B, 1000].

    >>> with torch.device("meta"):
    ...     net = EfficientNetLite0()
    >>> sum(one.numel() for one in net.parameters())
    4652008
    """

    pretrained_cfg: dict[str, Any] = PUBLISHED
    num_classes = CLASSES

    def __init__(self) -> None:
        super().__init__()
        self.conv_stem = make_convolution(3, STEM, 3, 2)
        self.bn1 = BatchNormAct2d(STEM)
        stages, channels = [], STEM
        for count, out, expansion, kernel, stride in STAGES:
            blocks: list[nn.Module] = []
            for number in range(count):
                step = stride if number == 0 else 1
                if expansion == 1:
                    blocks.append(DepthwiseSeparableConv(channels, out, kernel, step))
                else:
                    blocks.append(InvertedResidual(channels, out, expansion, kernel, step))
                channels = out
            stages.append(nn.Sequential(*blocks))
        self.blocks = nn.Sequential(*stages)
        self.conv_head = make_convolution(channels, HEAD)
        self.bn2 = BatchNormAct2d(HEAD)
        self.global_pool = AveragePool()
        self.classifier = nn.Linear(HEAD, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        """Images to logits."""
        x = self.blocks(self.bn1(self.conv_stem(x)))
        return self.classifier(self.global_pool(self.bn2(self.conv_head(x))))  # type: ignore[no-any-return]


def make_convolution(channels: int, out: int, kernel: int = 1, stride: int = 1, groups: int = 1) -> nn.Conv2d:
    """A convolution without bias that keeps the size of the image, or divides it by ``stride``."""
    if stride > 1:
        return Conv2dSame(channels, out, kernel, stride, groups=groups, bias=False)
    return nn.Conv2d(channels, out, kernel, padding=kernel // 2, groups=groups, bias=False)
