"""A layer's value is replaced at the very point where it is read, on every layout of activations."""

from __future__ import annotations

import copy
from collections import namedtuple
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from test_layers import ADDRESSES, CASES, Residual, by_hook, cnn, seeded
from torch import Tensor, nn

from absence_plugins import Layer, Unit
from absence_plugins.core.reading import plain_model
from absence_plugins.core.replacing import exchange, replaced, replacing


def left_over(model: nn.Module) -> list[Any]:
    return [hook for module in model.modules() for hook in (*module._forward_hooks, *module._forward_pre_hooks)]


@pytest.mark.parametrize(("net", "layer", "module", "side", "axis"), ADDRESSES)
def test_the_layers_own_maps_give_the_models_own_outputs(
    net: str, layer: str, module: str, side: str, axis: int
) -> None:
    build, shape, _ = CASES[net]
    model, x = seeded(build), torch.randn(3, *shape)
    seen: list[Tensor] = []

    def keep(maps: Tensor) -> Tensor:
        seen.append(maps)
        return maps

    with torch.no_grad():
        expected = model(x)
        with replacing(model, layer, keep):
            assert torch.equal(model(x), expected)
        assert torch.equal(
            seen[-1].flatten(2) if seen[-1].dim() > 2 else seen[-1][..., None], by_hook(model, x, module, side, axis)
        )
        with replacing(model, layer, lambda maps: maps + 1):
            assert torch.equal(by_hook_behind(model, x, module, side), by_hook_plain(model, x, module, side) + 1)
            # another reader reads what was put there
            assert torch.equal(Layer(layer).maps(model, x), seen[-1] + 1)
            assert torch.equal(Unit(layer, 1).values(model, x), Unit(layer, 1).select(seen[-1] + 1))
    assert not left_over(model)


def by_hook_plain(model: nn.Module, x: Tensor, module: str, side: str) -> Tensor:
    """What a module of a copy without replacement takes or puts out."""
    plain = copy.deepcopy(model)
    for one in plain.modules():
        one._forward_hooks.clear()
        one._forward_pre_hooks.clear()
    return by_hook_behind(plain, x, module, side)


def by_hook_behind(model: nn.Module, x: Tensor, module: str, side: str) -> Tensor:
    """What a module really works on: by its last call, after all other hooks."""
    seen: list[Tensor] = []

    def keep(_module: nn.Module, inputs: Any, output: Any = None) -> None:
        value = inputs[0] if side == "input" else output
        seen.append((value if isinstance(value, Tensor) else value.last_hidden_state).clone())

    found = dict(model.named_modules())[module]
    handle = found.register_forward_pre_hook(keep) if side == "input" else found.register_forward_hook(keep)
    model(x)
    handle.remove()
    return seen[-1]


class Shared(nn.Module):
    """A block as in torchvision: one rectifier, called twice; only the second call ends the block."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.relu = nn.Linear(3, 3), nn.Linear(3, 3), nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.relu(self.second(self.relu(self.first(x))) + x)  # type: ignore[no-any-return]


def test_only_the_call_that_ends_the_block_is_changed() -> None:
    torch.manual_seed(0)
    block, x = Shared(), torch.randn(5, 3)
    model = nn.Sequential(block, nn.Linear(3, 2))
    own = block.second((block.first(x)).relu()) + x
    assert torch.allclose(Layer("0").read(model, x), own, atol=1e-6)
    with replacing(model, "0", lambda maps: maps - 0.5):
        assert torch.allclose(model(x), model[1]((own - 0.5).relu()), atol=1e-6)


def test_gradients_pass_through_the_new_value_only() -> None:
    model, x = seeded(cnn), torch.randn(2, 1, 4, 5, requires_grad=True)
    new = Layer("2").maps(model, x).detach().requires_grad_()
    with replacing(model, "2", lambda maps: new):
        model(x).sum().backward()
    assert new.grad is not None
    assert bool(new.grad.any())
    assert x.grad is None or not bool(x.grad.any())


def test_another_number_of_samples() -> None:
    model = seeded(cnn)
    maps = Layer("2").maps(model, torch.randn(1, 1, 4, 5)).detach()
    with replacing(model, "2", lambda _maps: maps.expand(7, -1, -1, -1)):
        assert model(torch.randn(1, 1, 4, 5)).shape == (7, 2)


def test_nothing_is_left_after_a_failure() -> None:
    model, x = seeded(cnn), torch.randn(2, 1, 4, 5)
    with pytest.raises(RuntimeError), replacing(model, "2", lambda maps: maps[:, :1]):
        model(x)
    assert not left_over(model)
    with pytest.raises(ValueError, match="no layer '9'"), replacing(model, "9", lambda maps: maps):
        model(x)
    assert not left_over(plain_model(model))


def test_of_several_outputs_the_one_that_is_read_is_replaced() -> None:
    attention = nn.MultiheadAttention(4, 1)
    x = torch.ones(2, 1, 4)
    with replaced(Layer("").watch(attention), lambda output: output * 0):
        value, weights = attention(x, x, x)
    assert not bool(value.any())
    assert bool(weights.any())
    assert not left_over(attention)


@dataclass
class Hidden:
    last: Tensor
    others: tuple[Tensor, ...] = ()


def test_a_value_is_exchanged_in_any_container() -> None:
    old, new, other = torch.zeros(1), torch.ones(1), torch.full((1,), 2.0)
    made = exchange(Hidden(old, (other, old)), old, new)
    assert made.last is new
    assert made.others[0] is other
    assert made.others[1] is new
    pair = exchange(namedtuple("Pair", "a b")(other, old), old, new)
    assert (pair.a is other, pair.b is new) == (True, True)
    kept = {"x": [old]}
    assert exchange(kept, old, new)["x"][0] is new
    assert kept["x"][0] is old


def test_the_last_block_of_a_stage() -> None:
    """`Sequential` of residual blocks: the value in front of the last one's rectifier."""
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(1, 2, 1), nn.Sequential(Residual(), Residual()), nn.Flatten(), nn.Linear(40, 2)
    ).eval()
    x = torch.randn(2, 1, 4, 5)
    with torch.no_grad():
        before = Layer("1").maps(model, x)
        assert bool((before < 0).any())
        with replacing(model, "1", lambda maps: -maps):
            assert torch.allclose(model(x), model[3](model[2]((-before).relu())))
