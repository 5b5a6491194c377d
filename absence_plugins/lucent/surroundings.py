"""What surrounds a rendering and must be as before: random states, the model, and the device that Lucent assumes."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any
from unittest import mock

import torch
from lucent.optvis import objectives as host_objectives
from lucent.optvis.param import color, spatial
from torch import Tensor, nn

from absence_plugins.core.hooks import unchanged
from absence_plugins.core.running import explained_running
from absence_plugins.core.turns import Shared

HOST = Shared()  # what Lucent keeps in its modules, and torch's random states: one rendering at a time


@contextmanager
def frozen(model: nn.Module) -> Iterator[None]:
    """The model in evaluation mode, its parameters without gradients, outside of inference mode; hooks, modes and
    ``.grad`` as before afterwards.
    """
    with ExitStack() as stack:
        stack.enter_context(explained_running())
        stack.enter_context(unchanged(model))
        if torch.is_inference_mode_enabled():
            stack.enter_context(torch.inference_mode(False))
        for module in model.modules():
            module.training = False  # exported programs have no eval()
        for parameter in model.parameters():
            if not parameter.is_inference():
                parameter.requires_grad_(False)
        yield


def load_rendering() -> tuple[Any, Any]:
    """Lucent's modules ``render`` and ``transform``, imported where they are needed: kornia and torchvision take a
    second.

    Raises:
        ImportError: they cannot be imported.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # of torch, about the kornia that Lucent pins
        from lucent.optvis import render, transform
    return render, transform


def lucent_uses_cuda() -> bool:
    """Whether Lucent puts its images on ``cuda:0``: it does wherever there is CUDA."""
    return torch.cuda.is_available()


@contextmanager
def on_device(device: torch.device) -> Iterator[None]:
    """Lucent's images and transforms on the model's device, where Lucent itself says ``cuda:0`` if there is CUDA."""
    if not lucent_uses_cuda() or device == torch.device("cuda:0"):
        yield
        return
    with ExitStack() as stack:
        for module in (spatial, load_rendering()[1]):
            stack.enter_context(mock.patch.object(module, "device", device))
        stack.enter_context(mock.patch.object(color, "_linear_decorrelate_color", lambda t: _decorrelated(t)))
        stack.enter_context(mock.patch.object(host_objectives, "_torch_blur", _blurred))
        yield


def _decorrelated(images: Tensor) -> Tensor:
    """Colors as natural images have them: [B, 3, H, W], Lucent's matrix, on the images' device."""
    matrix = torch.as_tensor(color.color_correlation_normalized).to(images)
    return torch.einsum("bchw,dc->bdhw", images, matrix)


def _blurred(images: Tensor, out_c: int = 3) -> Tensor:
    """Lucent's 3x3 blur of every channel, on the images' device; its corners weigh half."""
    kernel = torch.full((out_c, out_c), 0.5)
    kernel[1:-1, 1:-1] = 1.0
    channels = images.shape[1]
    weight = kernel.to(images).expand(channels, 1, out_c, out_c)

    def blur(values: Tensor) -> Tensor:
        return nn.functional.conv2d(values, weight, None, 1, 1, groups=channels)

    return blur(images) / blur(torch.ones_like(images))
