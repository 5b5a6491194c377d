"""The preprocessing and the class names that models publish: torchvision's transforms, timm's data config, the image
processors of Hugging Face.
"""

from __future__ import annotations

import functools
import math
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from PIL import Image
from torch import nn

from absence_plugins.commands.preprocessing import (
    CROP,
    IMAGENET_MEAN,
    IMAGENET_STD,
    INTERPOLATIONS,
    PAD,
    SQUASH,
    Preprocessing,
)

STEPS = {"Resize", "CenterCrop", "ToTensor", "Normalize", "ToImage", "ToDtype", "PILToTensor", "ConvertImageDtype"}
TIMM_CROP = 0.875  # timm's default share
SAME = 0.02  # mean difference of pixels in [0, 1] up to which two ways to resize are the same
CONVNEXT_FULL = 384  # from this size on its processor does not crop


def read_transforms(published: Any, source: str) -> Preprocessing | None:
    """Of torchvision's presets (``weights.transforms()``), or a ``Compose`` of Resize, CenterCrop and Normalize; None
    for anything else.

    >>> from torchvision import transforms
    >>> steps = transforms.Compose([transforms.Resize(36), transforms.CenterCrop(32), transforms.Normalize([0.5], [0.1])])
    >>> read_transforms(steps, "own").describe()
    'shorter side to 36 pixels (bilinear), the middle 32 x 32, mean 0.5, std 0.1'
    """
    if isinstance(published, functools.partial):
        published = published()
    transforms = sys.modules.get("torchvision.transforms")  # a second to import; who has a Compose has it
    if transforms is not None and isinstance(published, transforms.Compose):
        return _read_steps(published.transforms, source)
    names = ("crop_size", "resize_size", "mean", "std", "interpolation")
    if any(getattr(published, name, None) is None for name in names):
        return None
    crop, resize, mean, std, _ = (getattr(published, name) for name in names)
    mode = str(getattr(published.interpolation, "value", published.interpolation))
    return _made(_side(crop), _side(resize), CROP, mode, mean, std, source)


def _read_steps(steps: Sequence[Any], source: str) -> Preprocessing | None:
    found = {type(step).__name__: step for step in steps}
    is_plain = set(found) <= STEPS and len(found) == len(steps)
    if not is_plain or "Normalize" not in found or not {"Resize", "CenterCrop"} & set(found):
        return None
    resize, crop = found.get("Resize"), found.get("CenterCrop")
    size = resize.size if resize is not None else crop.size  # type: ignore[union-attr]
    squashed = isinstance(size, Sequence) and len(size) > 1
    if crop is None and not squashed:  # not a square
        return None
    mode = str(resize.interpolation.value) if resize is not None else "bilinear"
    side = _side(crop.size if crop is not None else size)
    mean, std = found["Normalize"].mean, found["Normalize"].std
    return _made(side, _side(size), SQUASH if squashed else CROP, mode, mean, std, source)


def read_timm(config: Mapping[str, Any], source: str) -> Preprocessing:
    """Of timm's ``pretrained_cfg`` or resolved data config, as its evaluation transform reads it.

    >>> read_timm({"input_size": (3, 224, 224), "crop_pct": 0.9, "interpolation": "bicubic"}, "timm").resize
    248
    """
    channels, height, width = config.get("input_size") or (3, 224, 224)
    side = _side((height, width))
    share = config.get("crop_pct") or TIMM_CROP
    fit = {"squash": SQUASH, "border": PAD}.get(config.get("crop_mode") or "center", CROP)
    mean, std = config.get("mean") or IMAGENET_MEAN, config.get("std") or IMAGENET_STD
    mode = str(config.get("interpolation") or "bicubic")
    mode = mode if mode in INTERPOLATIONS else "bicubic"
    return _made(side, math.floor(side / share), fit, mode, mean, std, source, int(channels))


def read_processor(processor: Any, channels: int, source: str) -> tuple[Preprocessing, str]:
    """Of an image processor of Hugging Face; and what to say where it does more than resize, crop and normalize.

    Raises:
        ValueError: it makes no squares.
    """
    size, crop = _sizes(processor, "size"), _sizes(processor, "crop_size")
    fit, share = CROP, getattr(processor, "crop_pct", None)
    does_resize, does_crop = getattr(processor, "do_resize", True), getattr(processor, "do_center_crop", False)
    if "shortest_edge" in size:
        resize = size["shortest_edge"]
        side = _side((crop["height"], crop["width"])) if does_crop and crop else resize
        if share is not None and resize < CONVNEXT_FULL:
            side, resize = resize, int(resize / share)
        elif share is not None:
            side, fit = resize, SQUASH
        elif type(processor).__name__.startswith("Levit"):
            resize = int(256 / 224 * resize)
    else:
        fit, resize = SQUASH, _side((size.get("height", 224), size.get("width", 224)))
        side = _side((crop["height"], crop["width"])) if does_crop and crop else resize
    if not does_resize:
        fit, resize = CROP, side
    mean, std = _measured_scale(processor, channels)
    mode = _pillow_name(getattr(processor, "resample", None))
    found = replace(_made(side, resize, fit, mode, mean, std, source, channels), floors=True)
    return found, _difference(processor, found)


def _measured_scale(processor: Any, channels: int) -> tuple[list[float], list[float]]:
    """Mean and std of pixels in [0, 1], from what a processor makes of a black and a white picture: rescaling, offsets
    and normalization at once.
    """
    side, ends = 64, []
    for value in (0, 255):
        image = Image.new("L", (side, side), value) if channels == 1 else Image.new("RGB", (side, side), (value,) * 3)
        made = torch.as_tensor(processor(image, return_tensors="pt")["pixel_values"][0]).double()
        middle = made[..., made.shape[-2] // 2, made.shape[-1] // 2].reshape(-1)
        ends.append(middle if len(middle) == channels else middle.mean().expand(channels))
    black, white = ends
    if not bool((white > black).all()):
        raise ValueError("the image processor makes the same of black and white pictures")
    std = 1 / (white - black)
    return [round(value, 6) + 0.0 for value in (-black * std).tolist()], [round(value, 6) for value in std.tolist()]


def _difference(processor: Any, found: Preprocessing) -> str:
    """A sentence where a processor's input of a picture is not ours; "" where it is."""
    if found.channels != 3:
        return ""
    rows, columns = torch.arange(240)[:, None], torch.arange(320)[None]
    pixels = torch.stack([rows + 0 * columns, columns // 2 + 0 * rows, (rows // 40 + columns // 40) % 2 * 255])
    image = Image.fromarray(pixels.to(torch.uint8).permute(1, 2, 0).numpy())
    theirs = torch.as_tensor(processor(image, return_tensors="pt")["pixel_values"][0])
    ours = found.normalize(found.cut(image))
    if theirs.shape == ours.shape:
        apart = float(((theirs - ours).abs() * torch.tensor(found.std).reshape(-1, 1, 1)).mean())
        if apart <= SAME:
            return ""
    else:
        apart = math.inf
    name = type(processor).__name__
    return (
        f"The {name} does more than resize, crop and normalize, and that is not done here: its input of a picture is "
        f"{tuple(theirs.shape)}, here {tuple(ours.shape)}, {apart:.2g} apart on average."
    )


def read_model(model: nn.Module) -> Preprocessing | None:
    """What a model carries with it: ``pretrained_cfg`` or ``default_cfg`` (timm), ``transforms`` (torchvision); None
    without any.

    >>> net = nn.Identity()
    >>> net.default_cfg = {"input_size": (1, 28, 28), "mean": (0.5,), "std": (0.5,), "crop_pct": 1.0}
    >>> read_model(net).size
    28
    """
    for name in ("pretrained_cfg", "default_cfg"):
        config = getattr(model, name, None)
        if isinstance(config, Mapping) and config.get("mean") and config.get("std"):
            return read_timm(config, f"the model's {name} says")
    return read_transforms(getattr(model, "transforms", None), "the model's transforms say")


def read_categories(config: Any) -> tuple[str, ...]:
    """Class names of a configuration of Hugging Face (``id2label``); () where they are LABEL_0, LABEL_1, ..."""
    named = getattr(config, "id2label", None) or {}
    names = tuple(str(named[key]) for key in sorted(named, key=int))
    return () if all(name == f"LABEL_{place}" for place, name in enumerate(names)) else names


def _made(
    size: int,
    resize: int,
    fit: str,
    mode: str,
    mean: Sequence[float],
    std: Sequence[float],
    source: str,
    channels: int = 3,
) -> Preprocessing:
    means, stds = tuple(map(float, mean)), tuple(map(float, std))
    return Preprocessing(size, channels if channels != 3 else len(means), means, stds, resize, mode, fit, source=source)


def _side(size: Any) -> int:
    """The side of a square, from a number or one or two numbers. Raises ValueError for two that differ."""
    sides = [int(one) for one in size] if isinstance(size, Sequence) else [int(size)]
    if len(set(sides)) > 1:
        raise ValueError(f"the model's images are {' x '.join(map(str, sides))} pixels; only squares are supported")
    return sides[0]


def _sizes(processor: Any, name: str) -> dict[str, int]:
    found = getattr(processor, name, None)
    if isinstance(found, int):
        return {"height": found, "width": found}
    keys = ("shortest_edge", "height", "width")
    if isinstance(found, Mapping):
        values = {key: found.get(key) for key in keys}
    else:
        values = {key: getattr(found, key, None) for key in keys}
    return {key: int(value) for key, value in values.items() if value is not None}


def _pillow_name(resample: Any) -> str:
    """Pillow's number of a filter, or torchvision's mode, by its name."""
    if resample is None:
        return "bilinear"
    value = getattr(resample, "value", resample)
    return Image.Resampling(value).name.lower() if isinstance(value, int) else str(value)
