"""Handwritten digits that need no download, and a small network trained on them."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from importlib import resources
from typing import TYPE_CHECKING, Any

import torch
from safetensors.torch import load
from torch import Tensor, nn
from torch.nn import functional as F

if TYPE_CHECKING:
    import numpy as np

IMAGE_SIZE = 32
NUM_CLASSES = 10
WEIGHTS_FILE = "digits_cnn.safetensors"

_TEST_FRACTION = 0.25
_SPLIT_SEED = 0


@dataclass(frozen=True, eq=False)
class DigitData:
    """Handwritten digits, split once and for all into a training and a held-out part.

    Attributes:
        train_images: ``[N, 1, 32, 32]`` float32 in [0, 1]; background 0, strokes up to 1.
        train_labels: ``[N]`` int64, the digit 0..9.
        test_images: ``[M, 1, 32, 32]`` float32, as ``train_images``.
        test_labels: ``[M]`` int64, as ``train_labels``.
    """

    train_images: Tensor
    train_labels: Tensor
    test_images: Tensor
    test_labels: Tensor

    def __repr__(self) -> str:
        train, test = len(self.train_labels), len(self.test_labels)
        return f"DigitData({train} training and {test} test images of {IMAGE_SIZE}x{IMAGE_SIZE})"

    @property
    def images(self) -> Tensor:
        """All images ``[N + M, 1, 32, 32]``: the training part, then the held-out part."""
        return torch.cat([self.train_images, self.test_images])

    @property
    def labels(self) -> Tensor:
        """All labels ``[N + M]``, in the order of :attr:`images`."""
        return torch.cat([self.train_labels, self.test_labels])

    def to_dict(self) -> dict[str, Tensor]:
        """The four tensors by name (not copied)."""
        return {
            "train_images": self.train_images,
            "train_labels": self.train_labels,
            "test_images": self.test_images,
            "test_labels": self.test_labels,
        }


def load_digits() -> DigitData:
    """Load scikit-learn's 1,797 handwritten digits as 32x32 images.

    The 8x8 originals (values 0..16) are divided by 16 and upscaled bilinearly
    (``align_corners=False``). A fixed quarter of every class is held out; the split does not
    depend on, and does not advance, any global random state.

    Source: E. Alpaydin and C. Kaynak, Optical Recognition of Handwritten Digits, UCI Machine
    Learning Repository, 1998 (its test part, as bundled with scikit-learn).

    Returns:
        A :class:`DigitData` on the CPU. A pixel value of 0 is empty, so ``empty=0`` wherever a
        method asks what counts as no content.

    Raises:
        ImportError: scikit-learn, whose installation contains the images, is missing.

    Example:
        >>> load_digits()
        DigitData(1352 training and 445 test images of 32x32)
    """
    pixels, digits = _sklearn_digits()
    small = torch.tensor(pixels, dtype=torch.float32).div(16.0).unsqueeze(1)
    size = (IMAGE_SIZE, IMAGE_SIZE)
    images = F.interpolate(small, size=size, mode="bilinear", align_corners=False).clamp(0, 1)
    labels = torch.tensor(digits, dtype=torch.int64)
    held_out = _held_out(labels)
    return DigitData(images[~held_out], labels[~held_out], images[held_out], labels[held_out])


def digits_cnn(*, pretrained: bool = True, seed: int = 0) -> nn.Sequential:
    """A small convolutional network for :func:`load_digits`, made to be explained.

    Every step is a named module used once and not in-place, so that hook-based tools see all of
    them: three blocks ``conv, relu, pool``, then ``flatten``, ``linear1``, ``relu4``, ``linear2``.

    Args:
        pretrained: Load the weights that ``python -m absence_plugins.data.train`` made.
        seed: Seed of the random weights where ``pretrained`` is false; otherwise unused.

    Returns:
        The network in eval mode on the CPU. It maps images ``[N, 1, 32, 32]`` to logits
        ``[N, 10]`` (before softmax): a larger logit k means more evidence for digit k.

    Example:
        >>> model = digits_cnn()
        >>> tuple(model(torch.zeros(2, 1, 32, 32)).shape)
        (2, 10)
    """
    # Built without storage: torch's default initialization would advance the global random state.
    with torch.device("meta"):
        model = nn.Sequential(OrderedDict(_layers()))
    if pretrained:
        packed = resources.files(__package__).joinpath(WEIGHTS_FILE).read_bytes()
        model.load_state_dict(load(packed), assign=True)
    else:
        model.to_empty(device="cpu")
        _initialize(model, torch.Generator().manual_seed(seed))
    return model.eval()


def _layers() -> list[tuple[str, nn.Module]]:
    return [
        ("conv1", nn.Conv2d(1, 16, 3, padding=1)),
        ("relu1", nn.ReLU()),
        ("pool1", nn.MaxPool2d(2)),
        ("conv2", nn.Conv2d(16, 32, 3, padding=1)),
        ("relu2", nn.ReLU()),
        ("pool2", nn.MaxPool2d(2)),
        ("conv3", nn.Conv2d(32, 32, 3, padding=1)),
        ("relu3", nn.ReLU()),
        ("pool3", nn.MaxPool2d(2)),
        ("flatten", nn.Flatten()),
        ("linear1", nn.Linear(32 * 4 * 4, 64)),
        ("relu4", nn.ReLU()),
        ("linear2", nn.Linear(64, NUM_CLASSES)),
    ]


def _initialize(model: nn.Sequential, generator: torch.Generator) -> None:
    """Fill weights with He's uniform initialization, biases with zeros."""
    for module in model:
        if isinstance(module, (nn.Conv2d, nn.Linear)):
            nn.init.kaiming_uniform_(module.weight, nonlinearity="relu", generator=generator)
            if module.bias is not None:
                nn.init.zeros_(module.bias)


def _held_out(labels: Tensor) -> Tensor:
    """Which samples are held out: the same fixed quarter of every class, ``[N]`` bool."""
    generator = torch.Generator().manual_seed(_SPLIT_SEED)
    held_out = torch.zeros_like(labels, dtype=torch.bool)
    for digit in range(NUM_CLASSES):
        members = (labels == digit).nonzero().flatten()
        order = torch.randperm(len(members), generator=generator)
        held_out[members[order[: int(_TEST_FRACTION * len(members))]]] = True
    return held_out


def _sklearn_digits() -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """The raw images ``[1797, 8, 8]`` (values 0..16) and the digits ``[1797]``."""
    try:
        from sklearn import datasets  # type: ignore[import-untyped,unused-ignore]
    except ImportError as error:
        raise ImportError(
            "load_digits needs scikit-learn, which contains the images: pip install scikit-learn"
        ) from error
    bunch = datasets.load_digits()
    return bunch.images, bunch.target
