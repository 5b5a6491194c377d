"""``unit_values`` and ``preprocess``: what a unit says of given images, on the model's own inputs."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from lucent.optvis import transform
from test_lucent_render import QUICK, clean, everything, plain_net, same, small
from torch import Tensor, nn

from absence_plugins import Direction, Layer, Unit
from absence_plugins.lucent import (
    absence_channel,
    absence_class,
    absence_contrast,
    absence_direction,
    absence_neuron,
    render_vis,
    unit_values,
)

pytestmark = pytest.mark.filterwarnings("ignore")


def test_unit_values_are_those_of_a_clean_forward() -> None:
    model, x = plain_net().train(), torch.rand(7, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    before = everything(model)
    expected = model[:3](x)[:, 2].mean((1, 2))
    for objective in (absence_channel("3", 2), -absence_channel("3", 2, batch=4), "-3:2", absence_contrast("3", 2)):
        assert torch.equal(unit_values(model, objective, x, batch_size=7), expected)
        assert torch.allclose(unit_values(model, objective, x, batch_size=3), expected, atol=1e-6)
    assert torch.allclose(unit_values(model, absence_class(1), x), model(x)[:, 1], atol=1e-6)
    assert same(everything(model), before)
    with pytest.raises(TypeError, match="absence_channel"):
        unit_values(model, "3:2", x)
    with pytest.raises(ValueError, match="no images"):
        unit_values(model, "-3:2", x[:0])
    with pytest.raises(ValueError, match="no layer 'x'"):
        unit_values(model, "-x:2", x)
    assert same(everything(model), before)


def test_preprocess_may_be_a_function() -> None:
    """The values reached are those on the model's inputs, and Lucent's own normalization is one such function."""
    model = plain_net()
    options = {**QUICK, "thresholds": (20,), "fixed_image_size": 8}
    found = render_vis(model, "-3:2", small(), **{**options, "preprocess": lambda images: 3 * images - 1})
    x = torch.from_numpy(found[0]).permute(0, 3, 1, 2)
    assert found.reached[0].values[0][0] == pytest.approx(float(model[:3](3 * x - 1)[:, 2].mean()), abs=1e-5)
    own = render_vis(model, "-3:2", small(), **{**options, "preprocess": transform.normalize()})
    lucents = render_vis(model, "-3:2", small(), **{**options, "preprocess": True})
    assert np.array_equal(own[0], lucents[0])


class Tokens(nn.Module):
    """Images [B, 3, 8, 8] -> 24 tokens of 5 channels."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.act, self.head = nn.Linear(8, 5), nn.GELU(), nn.Linear(5, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.act(self.embed(x.flatten(1, 2))).mean(1))  # type: ignore[no-any-return]


class Windows(nn.Module):
    """Maps [B, H, W, C] behind the first layer, as in Swin."""

    def __init__(self) -> None:
        super().__init__()
        self.patch, self.norm, self.act, self.head = nn.Conv2d(3, 5, 2, 2), nn.LayerNorm(5), nn.ReLU(), nn.Linear(5, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.act(self.norm(self.patch(x).permute(0, 2, 3, 1))).mean((1, 2)))  # type: ignore[no-any-return]


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv, self.relu = nn.Conv2d(5, 5, 3, padding=1), nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.conv(x)
        hidden += x
        return self.relu(hidden)  # type: ignore[no-any-return]


def in_blocks() -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(3, 5, 3), Block(), nn.Flatten(), nn.Linear(180, 2))


READ = [  # a network, a layer, the module and side at which a hook sees it, the axis of its channels
    (plain_net, "2", "2", "output", 1),
    (plain_net, "3", "3", "input", 1),
    (plain_net, "5", "5", "output", 1),
    (Tokens, "embed", "embed", "output", 2),
    (Tokens, "act", "act", "input", 2),
    (Windows, "norm", "norm", "output", 3),
    (Windows, "act", "act", "input", 3),
    (Windows, "patch", "patch", "output", 1),
    (in_blocks, "1", "1.relu", "input", 1),
    (in_blocks, "1_conv", "1.conv", "output", 1),
]


@pytest.mark.parametrize(("build", "layer", "dotted", "side", "axis"), READ)
def test_lucent_reads_what_a_unit_reads(build: Any, layer: str, dotted: str, side: str, axis: int) -> None:
    torch.manual_seed(0)
    model, x = build().eval(), torch.randn(4, 3, 8, 8)
    value = clean(model, dotted, x, side).movedim(axis, 1)
    expected = value.reshape(4, value.shape[1], -1).mean(2)
    unit, weights = Unit(layer, 1), torch.arange(1.0, 1.0 + value.shape[1])
    assert torch.allclose(expected[:, 1], unit.values(model, x), atol=1e-6)
    for objective in (f"-{layer}:1", absence_channel(layer, 1), absence_channel(Layer(layer), 1), unit):
        assert torch.allclose(unit_values(model, objective, x), expected[:, 1], atol=1e-6)
    highest = unit_values(model, absence_channel(Layer(layer, reduce="max"), 1), x)
    assert torch.allclose(highest, value.reshape(4, value.shape[1], -1).amax(2)[:, 1], atol=1e-6)
    placed = value[:, 1] if value.dim() == 2 else value[(slice(None), 1, *(size // 2 for size in value.shape[2:]))]
    assert torch.allclose(unit_values(model, absence_neuron(layer, 1), x), placed, atol=1e-6)
    along = Direction(layer, weights)
    assert torch.allclose(unit_values(model, along, x), expected @ weights, atol=1e-5)
    found = unit_values(model, absence_direction(layer, weights), x)
    cosine = torch.cosine_similarity(value, weights.reshape(1, -1, *[1] * (value.dim() - 2)), 1)
    assert torch.allclose(found, cosine.reshape(4, -1).mean(1), atol=1e-6)


def test_images_stay_as_they_are_when_the_model_normalizes_in_place() -> None:
    class InPlace(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first = nn.Linear(4, 3)

        def forward(self, x: Tensor) -> Tensor:
            x -= 0.5
            return self.first(x)  # type: ignore[no-any-return]

    model, x = InPlace(), torch.rand(2, 4)
    before = x.clone()
    expected = model.first(x - 0.5)[:, 1]
    assert torch.allclose(unit_values(model, "-first:1", x), expected)
    assert torch.equal(x, before)
