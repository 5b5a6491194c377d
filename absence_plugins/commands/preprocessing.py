"""From an image file to a model's input, as the model publishes it; and back to a picture for figures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from absence_plugins.core.checks import check_integer
from absence_plugins.data.pictures import WHITE, Color, read_picture

try:
    from PIL import Image, ImageOps
except ImportError as error:
    raise ImportError(f'loading images needs Pillow ({error}); pip install "absence-plugins[report]"') from error

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
CROP, SQUASH, PAD = "crop", "squash", "pad"
INTERPOLATIONS = ("nearest", "nearest-exact", "bilinear", "bicubic", "box", "hamming", "lanczos")


@dataclass(frozen=True)
class Preprocessing:
    """Image file -> model input: grayscale or RGB, resized, cropped to a square, normalized.

    Attributes:
        size: side of the input in pixels.
        channels: 1 for gray, 3 for RGB.
        mean, std: one per channel, of pixels in [0, 1].
        resize: the side before the crop to ``size``; None: ``size``.
        interpolation: of the resizing, as Pillow and torchvision call it.
        fit: what is resized to ``resize``: "crop" the shorter side, "squash" both (the shape is not kept), "pad" the
            longer side, with a border of the mean color.
        floors: whether half a pixel at the left of the crop is rounded down, as transformers does; torchvision rounds
            to even.
        dtype: of the model's parameters, and so of its input.
        source: who publishes it; "" if nothing is known.
        background: color on which transparent images are composed.

    >>> Preprocessing(224, 1, (0.5,), (0.25,), 256, "bicubic").describe()
    'shorter side to 256 pixels (bicubic), the middle 224 x 224, mean 0.5, std 0.25'
    >>> Preprocessing(32, 1, (0.0,), (1.0,)).describe()
    'shorter side to 32 pixels (bilinear), the middle 32 x 32, values in [0, 1]'
    """

    size: int
    channels: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    resize: int | None = None
    interpolation: str = "bilinear"
    fit: str = CROP
    floors: bool = False
    dtype: torch.dtype = torch.float32
    source: str = ""
    background: Color = WHITE

    def picture(self, path: Path) -> Tensor:
        """The image as a viewer shows it: [C, size, size] in [0, 1].

        Raises:
            UnreadableImage: no such file, or not an image.
        """
        return self.cut(read_picture(path, self.channels, side=self.resize or self.size, background=self.background))

    def cut(self, image: Image.Image) -> Tensor:
        """A picture of Pillow, resized and cropped: [C, size, size] in [0, 1]."""
        side = self.resize or self.size
        if self.fit == PAD:
            longest = max(image.size)
            height, width = (max(1, round(side * edge / longest)) for edge in reversed(image.size))
            image = self._scale(image, width, height)
            left, top = (self.size - width) // 2, (self.size - height) // 2
            border = (max(0, left), max(0, top), max(0, self.size - width - left), max(0, self.size - height - top))
            fill = tuple(round(255 * value) for value in self.mean)
            image = ImageOps.expand(image, border, fill if self.channels > 1 else fill[0])
        elif self.fit == SQUASH:
            image = self._scale(image, side, side)
        else:
            shorter = min(image.size)
            image = self._scale(image, *(int(side * edge / shorter) for edge in image.size))
        left, top = (_half(edge - self.size, floors=self.floors) for edge in image.size)
        image = image.crop((left, top, left + self.size, top + self.size))  # what lies outside is black
        pixels = torch.from_numpy(np.array(image)).reshape(self.size, self.size, self.channels)
        return pixels.permute(2, 0, 1).to(torch.float32, memory_format=torch.contiguous_format).div_(255)

    def input(self, path: Path) -> Tensor:
        """An image file as the model takes it, :meth:`normalize` of its :meth:`picture`, without copies: [C, size,
        size].

        Raises:
            UnreadableImage: no such file, or not an image.
        """
        return self.picture(path).sub_(self._column(self.mean)).div_(self._column(self.std)).to(self.dtype)

    def _scale(self, image: Image.Image, width: int, height: int) -> Image.Image:
        """As torchvision scales a picture of Pillow."""
        name = self.interpolation.removesuffix("-exact").upper()
        return image if image.size == (width, height) else image.resize((width, height), Image.Resampling[name])

    def normalize(self, picture: Tensor) -> Tensor:
        """Pictures [..., C, H, W] in [0, 1] -> model inputs, in the model's dtype."""
        return ((picture - self._column(self.mean)) / self._column(self.std)).to(self.dtype)

    @property
    def empty(self) -> Tensor:
        """What black becomes: one value per channel [C, 1, 1]."""
        return self.normalize(torch.zeros(self.channels, 1, 1))

    def describe(self) -> str:
        """Size, interpolation and scaling, in words."""
        side = f"{self.resize or self.size} pixels ({self.interpolation})"
        square = f"the middle {self.size} x {self.size}"
        fits = {CROP: f"shorter side to {side}", SQUASH: f"both sides to {side}", PAD: f"longer side to {side}"}
        cut = f"{fits[self.fit]}, {square}"
        if self.fit == SQUASH and self.resize in (None, self.size):
            cut = f"resized to {self.size} x {self.size} pixels ({self.interpolation})"
        if self.fit == PAD:
            cut += " with a border of the mean"
        plain = not any(self.mean) and all(value == 1 for value in self.std)
        scaled = "values in [0, 1]" if plain else f"mean {_numbers(self.mean)}, std {_numbers(self.std)}"
        return f"{cut}, {scaled}"

    def _column(self, values: Sequence[float]) -> Tensor:
        return torch.tensor(values).reshape(-1, 1, 1)


@dataclass(frozen=True)
class Overrides:
    """What --size, --channels, --mean and --std replace; None: as published."""

    size: int | None = None
    channels: int | None = None
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None

    def apply(self, published: Preprocessing) -> Preprocessing:
        """The preprocessing with these in place of its own; the share that the crop leaves stays.

        Raises:
            ValueError: a number of values that is not that of the channels, a size or std that is not positive.

        >>> Overrides(size=112).apply(Preprocessing(224, 1, (0.5,), (0.5,), 256)).resize
        128
        """
        size = published.size if self.size is None else check_integer("--size", self.size)
        channels = published.channels if self.channels is None else check_integer("--channels", self.channels)
        resize = None if published.resize is None else round(published.resize * size / published.size)
        mean, std = self.mean or published.mean, self.std or published.std
        for option, values in (("--mean", mean), ("--std", std)):
            if len(values) != channels:
                raise ValueError(f"{option} has {len(values)} values for {channels} channels; pass one per channel")
        if any(value <= 0 for value in std):
            raise ValueError(f"--std {std} must be positive")
        return replace(published, size=size, channels=channels, mean=tuple(mean), std=tuple(std), resize=resize)

    def plain(self, size: int, channels: int, source: str = "") -> Preprocessing:
        """Where nothing is published: pixels in [0, 1]."""
        channels = self.channels or channels
        return Preprocessing(size, channels, (0.0,) * channels, (1.0,) * channels, source=source)

    @property
    def named(self) -> list[str]:
        """The options that were given, but for --channels."""
        given = {"--size": self.size, "--mean": self.mean, "--std": self.std}
        return [option for option, value in given.items() if value is not None]

    def sentence(self, prepared: Preprocessing) -> str:
        """How the model's images are made, and who says so."""
        named = ", ".join(self.named)
        if prepared.source:
            by = f", as {prepared.source}{f' but for {named}' if named else ''}"
        elif self.mean or self.std:
            by = f", as {named} say{'' if len(self.named) > 1 else 's'}; the model publishes no preprocessing"
        else:
            by = ": the model publishes no preprocessing, so none is applied (see --mean, --std)"
        return f"Images: {prepared.describe()}{by}."


def input_dtype(model: nn.Module) -> torch.dtype:
    """The dtype of a model's first parameter of floating point, which its input must have; float32 without any.

    >>> input_dtype(nn.Linear(1, 1).half())
    torch.float16
    """
    return next((one.dtype for one in model.parameters() if one.is_floating_point()), torch.float32)


def _half(excess: int, *, floors: bool) -> int:
    """Where a crop begins in an image that is larger by ``excess``, or (below 0) how much of it lies outside.

    >>> [_half(excess, floors=False) for excess in (3, 5, -3)]
    [2, 2, -1]
    """
    return excess // 2 if floors else round(excess / 2) if excess > 0 else -(-excess // 2)


def _numbers(values: Sequence[float]) -> str:
    short = [f"{value:.4g}" for value in values]
    return short[0] if len(set(short)) == 1 else ", ".join(short)
