"""Every parameterization of ``lucent.optvis.param``, and a user's own, in ``render_vis``."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from lucent.optvis import param, render
from torch import nn

from absence_plugins.core.randomness import seeded
from absence_plugins.lucent import absence_contrast, render_vis

SHAPE = (1, 3, 12, 12)


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 4, 3)).eval()


def generator(batch: int = 1, width: int = 6, frozen: bool = False, form: Callable[[Any], Any] = list) -> Any:
    """A network of the user's that makes the images."""
    net = nn.Sequential(nn.Conv2d(2, width, 1), nn.Tanh(), nn.Conv2d(width, 3, 1), nn.Sigmoid())
    net[0].requires_grad_(not frozen)
    seeds = torch.randn(batch, 2, 12, 12)
    return form(net.parameters()), lambda: net(seeds)


def latent() -> Any:
    """A code per image, before a fixed network: as ``param.gan`` is used."""
    net, code = nn.Linear(8, 3 * 12 * 12).requires_grad_(False), torch.randn(2, 8, requires_grad=True)
    return [code], lambda: net(code).view(2, *SHAPE[1:]).sigmoid()


def valid_colors() -> Any:
    parameters, image_f = param.fft_image(SHAPE)
    return parameters, param.to_valid_rgb(image_f)


PARAMETERIZATIONS: dict[str, Callable[[], Any]] = {
    "image": lambda: param.image(12, batch=2),
    "pixels, not square": lambda: param.image(12, 10, fft=False, decorrelate=False),
    "cppn": lambda: param.cppn(12),
    "cppn, normalized": lambda: param.cppn(12, num_layers=3, num_hidden_channels=4, normalize=True),
    "pixel_image": lambda: param.pixel_image(SHAPE),
    "fft_image": lambda: param.fft_image(SHAPE),
    "lowres_tensor": lambda: param.lowres_tensor((2, *SHAPE[1:]), (1, 3, 4, 4)),
    "to_valid_rgb": valid_colors,
    "own": generator,
    "own, as many channels as images": lambda: generator(batch=6),
    "own, an iterator": lambda: generator(form=iter),
    "own, frozen in part": lambda: generator(frozen=True),
    "own, groups": lambda: generator(form=lambda parameters: [{"params": list(parameters), "lr": 0.02}]),
    "latent": latent,
}
OPTIONS: dict[str, Any] = {
    "optimizer": lambda parameters: torch.optim.Adam(parameters, 5e-3),
    "thresholds": (1, 4), "transforms": [], "fixed_image_size": 12, "progress": False, "show_image": False,
}  # fmt: skip


@pytest.mark.parametrize("name", PARAMETERIZATIONS)
def test_upward_the_images_are_lucents_and_downward_the_value_falls(name: str) -> None:
    made, net = PARAMETERIZATIONS[name], network()
    with seeded(3):
        host = render.render_vis(net, "2:1", made, **OPTIONS)
    ours = render_vis(network(), "2:1", made, seed=3, **OPTIONS)
    assert all(np.array_equal(a, b) for a, b in zip(host, ours, strict=True))
    lowered, again = (render_vis(network(), "-2:1", made, seed=3, **OPTIONS) for _ in range(2))
    assert all(np.array_equal(a, b) for a, b in zip(lowered, again, strict=True))
    first, last = lowered.reached[0].values
    assert all(after < before for before, after in zip(first, last, strict=True))


def test_a_contrast_begins_alike_where_rows_are_images() -> None:
    found = render_vis(network(), absence_contrast("2", 1), latent, seed=3, **{**OPTIONS, "thresholds": (1, 20)})
    low, high = (part.values[-1] for part in found.reached)
    assert abs(np.subtract(*found[0])).max() < abs(np.subtract(*found[1])).max()
    assert low != high


@pytest.mark.parametrize(("made", "words"), [
    (lambda: generator(batch=2, width=2), "every parameter of param_f moves both images"),
    (lambda: param.cppn(12), "two images, got 1"),
])  # fmt: skip
def test_a_contrast_of_images_that_cannot_differ(made: Callable[[], Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        render_vis(network(), absence_contrast("2", 1), made, seed=3, **OPTIONS)


@pytest.mark.parametrize(("made", "kind", "words"), [
    (lambda: param.pixel_image(SHAPE)[0], TypeError, "a function that makes the images"),
    (lambda: ([3], lambda: torch.zeros(SHAPE)), TypeError, "must be tensors, got int"),
    (lambda: ([torch.zeros(SHAPE)], lambda: torch.zeros(SHAPE)), ValueError, "requires a gradient"),
])  # fmt: skip
def test_what_is_no_parameterization(made: Callable[[], Any], kind: type[Exception], words: str) -> None:
    with pytest.raises(kind, match=words):
        render_vis(network(), "2:1", made, **OPTIONS)
