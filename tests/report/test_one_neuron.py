"""One neuron on the whole page: on tokens, channels-last maps and rectified layers every part reads the same unit."""

from __future__ import annotations

from collections import OrderedDict
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from unit_subjects import SMALL, images

from absence_plugins import Layer
from absence_plugins.methods.directions import DirectionPairs
from absence_plugins.report import explain_unit

UNIT, SIDE = 4, 12


class Tokens(nn.Module):
    """12 tokens of 12 pixels each, 6 channels."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.act, self.head = nn.Linear(SIDE, 6), nn.GELU(), nn.Linear(6, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.act(self.embed(x.squeeze(1))).mean(1))  # type: ignore[no-any-return]


class Windows(nn.Module):
    """Channels-last maps [B, 6, 6, 6 channels], as Swin has them."""

    def __init__(self) -> None:
        super().__init__()
        self.patch, self.block = nn.Conv2d(1, 6, 2, 2), nn.Sequential(nn.LayerNorm(6), nn.Linear(6, 6))
        self.head = nn.Linear(6, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.block(self.patch(x).permute(0, 2, 3, 1)).mean((1, 2)))  # type: ignore[no-any-return]


def rectified() -> nn.Module:
    layers = OrderedDict(conv=nn.Conv2d(1, 6, 3, padding=1), relu=nn.ReLU(inplace=True), flat=nn.Flatten())
    return nn.Sequential(OrderedDict(**layers, head=nn.Linear(6 * SIDE**2, 2)))


@pytest.mark.parametrize(
    ("build", "layer", "inner", "axis"),
    [(Tokens, "embed", "embed", 2), (Tokens, "act", "embed", 2), (Windows, "block", "block", 3), (rectified, "relu", "conv", 1)],
    ids=["tokens", "tokens in front of their GELU", "Swin", "in front of a ReLU"],
)  # fmt: skip
def test_every_part_of_the_page_is_about_one_neuron(build: Any, layer: str, inner: str, axis: int) -> None:
    torch.manual_seed(0)
    model, (pixels, _) = build().eval(), images()
    seen: dict[str, Tensor] = {}

    def independent(x: Tensor) -> Tensor:
        found: list[Tensor] = []
        handle = model.get_submodule(inner).register_forward_hook(lambda _m, _i, out: found.append(out.clone()))
        with torch.no_grad():
            model(x)
        handle.remove()
        return found[0].select(axis, UNIT).flatten(1).mean(1)

    def maps(unit: nn.Module, inputs: Tensor, baselines: Tensor) -> Tensor:
        seen["maps"] = unit(inputs).detach() - independent(inputs)
        return inputs - baselines

    def pictures(unit: nn.Module, shape: tuple[int, ...], prepare: Any, seed: int) -> tuple[Tensor, Tensor]:
        seen["pictures"] = unit(pixels).detach() - independent(pixels)
        return torch.ones(shape), torch.zeros(shape)

    pairs = DirectionPairs(2, starts=1, seed=0).fit_model(model, layer, pixels)
    scan = {**SMALL, "mode": "mask", "scored": 2}
    found = explain_unit(model, layer, UNIT, pixels, directions=pairs, maps=maps, pictures=pictures, **scan)
    data = found.to_dict()["sections"]
    values = independent(pixels)
    positions = Layer(layer).activation(model, pixels[:1]).shape[2]
    for difference in seen.values():
        assert torch.allclose(difference, torch.zeros(()), atol=1e-5)
    assert set(seen) == {"maps", "pictures"}
    size = data["patches"]["settings"]["size"]
    for side in ("highest", "lowest"):
        (number, y, x), score = data["patches"][side]["positions"][0], data["patches"][side]["scores"][0]
        window = torch.zeros_like(pixels[:1])
        window[..., y : y + size, x : x + size] = pixels[number, :, y : y + size, x : x + size]
        assert score == pytest.approx(independent(window).item(), abs=1e-5)
    assert data["insertion"]["means"]["clean"] <= values.max() + 1e-6
    assert data["maps_low"]["examples"][0]["value"] == pytest.approx(values.min().item(), abs=1e-5)
    assert data["maps_high"]["examples"][0]["value"] == pytest.approx(values.max().item(), abs=1e-5)
    assert data["pictures"]["maximizing"] == pytest.approx(independent(torch.ones_like(pixels[:1])).item(), abs=1e-5)
    # a step along s_i at one position changes the mean of the unit by its own entry of s_i
    expected = pairs.encoding[UNIT] * pairs.step / positions
    assert data["directions"]["effect"] == pytest.approx(expected.tolist(), rel=1e-2, abs=1e-7)
