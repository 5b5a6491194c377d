"""Heads: the part of a network behind a layer, which resumes the forward from its features."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from absence_plugins import Layer, Unit
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


class Rectified(nn.Module):
    """A block that ends in a rectifier."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.act = nn.Conv2d(3, 3, 1), nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        return self.act(self.conv(x) + x)  # type: ignore[no-any-return]


class Counting(nn.Module):
    """Its forward remembers the number of samples, so that what lies in front runs on all of them."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.third = nn.Conv2d(2, 3, 1), Rectified(), Rectified()
        self.last = nn.Linear(3, 2)

    def forward(self, x: Tensor) -> Tensor:
        samples = len(x)
        return self.last(self.third(self.second(self.first(x))).mean((2, 3)).reshape(samples, 3))  # type: ignore[no-any-return]


@pytest.mark.parametrize("counting", [False, True])
@pytest.mark.parametrize("images", [1, 5])
def test_units_that_are_read_before_the_layer_are_rejected(counting: bool, images: int) -> None:
    torch.manual_seed(0)
    net = Counting().eval()
    names = ("first", "second", "third")
    if not counting:
        net = nn.Sequential(net.first, net.second, net.third, nn.Flatten(), nn.Linear(12, 2)).eval()  # type: ignore[assignment]
        names = ("0", "1", "2")
    first, second, third = names
    x = torch.randn(images, 2, 2, 2)
    behind = Layer(second, side="output")
    head = head_of(net, behind, x)
    features = layer_features(net, behind, x)
    for unit in (Unit(first, 0), Unit(second, 0), Unit(f"{second}.conv", 1), Unit(f"{second}.act", 1)):
        with pytest.raises(ValueError, match=f"'{unit.layer}' does not lie behind layer '{second}'"):
            head.read(features, [unit])
    for unit in (Unit(third, 0), Unit(f"{third}.conv", 1), Unit(second, 2, side="output")):
        assert torch.allclose(head.read(features, [unit])[1][0], unit.values(net, x), atol=1e-6)
    within = head_of(net, second, x)  # in front of the rectifier: the block itself lies behind
    features = layer_features(net, second, x)
    for unit in (Unit(second, 0), Unit(f"{second}.act", 1), Unit(second, 2, side="output"), Unit(third, 0)):
        assert torch.allclose(within.read(features, [unit])[1][0], unit.values(net, x), atol=1e-6)
