"""Images are resized and cut as torchvision does it, without importing it."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
import torch
from PIL import Image

from absence_plugins.commands.preprocessing import CROP, INTERPOLATIONS, PAD, SQUASH, Preprocessing
from absence_plugins.commands.sources import _read_imagenet_names

SIZES = ((16, None), (17, 20), (20, 17), (17, 14))  # of the input, and the side before the crop
SHAPES = ((16, 16), (33, 20), (9, 31), (20, 21))


def cut_by_torchvision(wanted: Preprocessing, image: Image.Image) -> torch.Tensor:
    """The second writing."""
    from torchvision import transforms
    from torchvision.transforms import InterpolationMode
    from torchvision.transforms import functional as F

    size, side, mode = wanted.size, wanted.resize or wanted.size, InterpolationMode(wanted.interpolation)
    if wanted.fit == PAD:
        height, width = (max(1, round(side * edge / max(image.size))) for edge in reversed(image.size))
        image = F.resize(image, [height, width], mode)
        left, top = (size - width) // 2, (size - height) // 2
        border = [max(0, left), max(0, top), max(0, size - width - left), max(0, size - height - top)]
        fill = tuple(round(255 * value) for value in wanted.mean)
        image = F.pad(image, border, fill=fill if wanted.channels > 1 else fill[0])
    else:
        image = F.resize(image, [side, side] if wanted.fit == SQUASH else [side], mode)
    if wanted.floors:
        width, height = image.size
        image = F.crop(image, (height - size) // 2, (width - size) // 2, size, size)
    else:
        image = F.center_crop(image, [size, size])
    return transforms.ToTensor()(image)  # type: ignore[no-any-return]


@pytest.mark.parametrize("fit", [CROP, SQUASH, PAD])
def test_the_same_bits_as_torchvision(fit: str) -> None:
    pytest.importorskip("torchvision")
    draw = np.random.default_rng(0)
    for channels, floors, mode, (size, resize), shape in product((1, 3), (False, True), INTERPOLATIONS, SIZES, SHAPES):
        image = Image.fromarray(draw.integers(0, 256, (*shape, 3) if channels == 3 else shape, dtype=np.uint8))
        wanted = Preprocessing(size, channels, (0.48,) * channels, (0.2,) * channels, resize, mode, fit, floors)
        assert torch.equal(wanted.cut(image), cut_by_torchvision(wanted, image)), (channels, floors, mode, size, shape)


def test_all_interpolations_of_torchvision_are_known() -> None:
    pytest.importorskip("torchvision")
    from torchvision.transforms import InterpolationMode

    assert tuple(mode.value for mode in InterpolationMode) == INTERPOLATIONS


def test_names_of_classes_are_read_as_timm_reads_them() -> None:
    data = pytest.importorskip("timm.data")
    info = data.ImageNetInfo("imagenet-1k")
    names = tuple(info.index_to_description(index).partition(",")[0] for index in range(1000))
    assert _read_imagenet_names() == names
