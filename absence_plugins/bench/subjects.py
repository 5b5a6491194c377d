"""The networks that are measured, with images for them."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from absence_plugins.core.randomness import seeded


def subject(network: str, batch: int, pool: int, pixels: int) -> tuple[nn.Module, Tensor, Tensor, Tensor | None]:
    """Network "digits" or "resnet18", ``batch`` images, ``pool`` references and their labels.

    The resnet18 has random weights and images of ``pixels`` a side, which cost what real ones do.
    """
    return _resnet18(batch, pool, pixels) if network == "resnet18" else _digits(batch, pool)


def _digits(batch: int, pool: int) -> tuple[nn.Module, Tensor, Tensor, Tensor]:
    from absence_plugins.data import digits_cnn, load_digits

    data = load_digits()
    return digits_cnn(), data.test_images[:batch], data.train_images[:pool], data.train_labels[:pool]


def _resnet18(batch: int, pool: int, pixels: int) -> tuple[nn.Module, Tensor, Tensor, None]:
    from torchvision.models import resnet18  # type: ignore[import-untyped,unused-ignore]

    with seeded(0):
        model = resnet18(weights=None).eval()
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(batch + pool, 3, pixels, pixels, generator=generator)
    return model, images[:batch], images[batch:], None
