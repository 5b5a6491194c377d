"""Heads: the part of a network behind a layer, which resumes the forward from its features."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from absence_plugins.core.hooks import evaluating
from absence_plugins.methods.directions import (
    head_of,
    layer_features,
)


class Residual(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.front, self.inside, self.last = nn.Conv2d(1, 4, 1), nn.Conv2d(4, 4, 1), nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        h = self.front(x)
        h = (h + self.inside(h)).relu_()
        return self.last(h.mean((2, 3)))


class Tokens(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Conv2d(1, 8, 4, 4)
        self.block = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True, dropout=0.5)
        self.last = nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.block(self.embed(x).flatten(2).transpose(1, 2)).mean(1))


class Remembering(nn.Module):
    """Reshapes by the number of images that it was given."""

    def __init__(self) -> None:
        super().__init__()
        self.front, self.last = nn.Conv2d(1, 4, 1), nn.Linear(4 * 64, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.front(x).reshape(len(x), 4 * 64))


def test_heads_resume_the_forward() -> None:
    generator = torch.Generator().manual_seed(0)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        residual, tokens, remembering = Residual(), Tokens().train(), Remembering()
    images = torch.randn(6, 1, 8, 8, generator=generator)
    with evaluating(tokens), torch.no_grad():
        expected = tokens(images)
    for model, layer, outputs, shape in (
        (residual, "front", residual(images), (6, 8, 8, 4)),
        (remembering, "front", remembering(images), (6, 8, 8, 4)),
        (tokens, "block", expected, (6, 1, 4, 8)),
        (tokens, "embed", expected, (6, 2, 2, 8)),
    ):
        features = layer_features(model, layer, images)
        assert features.shape == shape
        before = features.clone()
        head = head_of(model, layer, images)
        assert torch.allclose(head(features), outputs, atol=1e-5)
        assert torch.equal(features, before)
    assert tokens.training
    assert tokens.block.training
    with pytest.raises(ValueError, match="another path leads around"):
        head_of(residual, "inside", images)
    with pytest.raises(ValueError, match="no layer"):
        head_of(residual, "nowhere", images)
    for model, layer in ((residual, "front"), (tokens, "block")):  # without an example a random one is made
        features = layer_features(model, layer, images)
        assert torch.allclose(head_of(model, layer)(features), model.eval()(images), atol=1e-5)
    with pytest.raises(ValueError, match="another path leads around"):
        head_of(residual, "inside")
    with pytest.raises(ValueError, match=r"cannot be told from its layers; pass one: head_of"):
        head_of(torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Identity()), "0")
    with pytest.raises(TypeError, match="example"):
        head_of(residual, "front", 3)
