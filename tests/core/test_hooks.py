"""Every hook and every attribute is gone after its block, also when something raises."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager

import pytest
import torch
from torch import Tensor, nn

from absence_plugins.core.hooks import quiet_forward, reversible, unchanged
from absence_plugins.core.reading import Watch
from absence_plugins.core.recorder import Recorder


def hooks(net: nn.Module) -> int:
    return sum(
        len(getattr(m, name))
        for m in net.modules()
        for name in ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
    )


@pytest.mark.parametrize(
    "block",
    [
        lambda m: Watch(m, "output", ""),
        lambda m: Watch(m, "input", ""),
        lambda m: Recorder(nn.Sequential(m)),
    ],
)
def test_no_hook_is_left(block: Callable[[nn.Module], AbstractContextManager[object]]) -> None:
    net = nn.Linear(1, 1)
    with block(net):
        assert hooks(net) == 1
    assert hooks(net) == 0

    def fail() -> None:
        with block(net):
            net(torch.zeros(1, 5))

    with pytest.raises(RuntimeError):
        fail()
    assert hooks(net) == 0


def test_what_is_overwritten_behind_a_watch_is_kept() -> None:
    net = nn.Sequential(nn.Linear(1, 1, bias=False), nn.ReLU(inplace=True))
    nn.init.constant_(net[0].weight, -2.0)
    with Watch(net[0], "output", "0") as out, Watch(net[1], "input", "1") as into:
        net(torch.ones(1, 1))
        net(torch.full((1, 1), 3.0))
    assert [value.item() for value in out.values] == [-2.0, -6.0]
    assert [value.item() for value in into.values] == [-2.0, -6.0]


def test_unchanged_puts_everything_back() -> None:
    net = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))
    handle = net[0].register_forward_hook(lambda *_: None)
    net[0].note = {"kept": 1}
    names = [sorted(vars(m)) for m in net.modules()]
    weight = net[0].weight

    def disturb() -> None:
        with unchanged(net):
            net[0].rule = "mine"
            net[0].note["added"] = 2
            net[1].register_forward_pre_hook(lambda *_: None)
            net[1].eval()
            net[0].weight = nn.Parameter(torch.zeros(2, 2))
            weight.requires_grad_(False)
            weight.grad = torch.ones(2, 2)
            raise KeyError("half-way")

    with pytest.raises(KeyError):
        disturb()
    assert [sorted(vars(m)) for m in net.modules()] == names
    assert net[0].note == {"kept": 1}
    assert net[0].weight is weight
    assert weight.requires_grad
    assert weight.grad is None
    assert net[1].training
    assert hooks(net) == 1
    handle.remove()  # the user's handle still finds its dictionary
    assert hooks(net) == 0


def test_unchanged_takes_bound_methods_and_lets_functions_through() -> None:
    net = nn.Linear(1, 1)
    with unchanged(net.forward):
        net.mark = 1
    assert not hasattr(net, "mark")
    with unchanged(lambda x: x):
        pass


def test_quiet_forward_draws_in_secret_and_without_gradients() -> None:
    state = torch.get_rng_state()
    x: Tensor = torch.ones(1, requires_grad=True)
    with quiet_forward([x]):
        torch.rand(3)
        assert not (x * 2).requires_grad
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.is_grad_enabled()


def test_reversible_puts_everything_back_on_error_and_on_demand() -> None:
    net = nn.Sequential(nn.Linear(2, 2, bias=False), nn.BatchNorm1d(2))
    net[0].note = "user's"
    weight, values, mean = net[0].weight, net[0].weight.tolist(), net[1].running_mean

    def change() -> None:
        net[0].bias = nn.Parameter(torch.ones(2))
        net[0].weight.data = torch.zeros(2, 2)
        net[1].running_mean = torch.ones(2)
        net[1].eps = 0.5
        net[0].note, net[0].extra = "changed", nn.Identity()

    def check() -> None:
        assert list(net.state_dict())[:2] == ["0.weight", "1.weight"]
        assert net[0].weight is weight
        assert weight.tolist() == values
        assert net[1].running_mean is mean
        assert net[1].eps == 1e-5
        assert net[0].note == "user's"
        assert not hasattr(net[0], "extra")

    with reversible(net) as undo:
        change()
    assert "0.bias" in net.state_dict()
    undo()
    check()

    def fail() -> None:
        with reversible(net):
            net[0].register_forward_hook(lambda *_: None)
            change()
            raise KeyError("half-way")

    with pytest.raises(KeyError):
        fail()
    check()
    assert hooks(net) == 0


def test_reversible_keeps_what_happens_after_its_block() -> None:
    net = nn.Linear(2, 2)
    with reversible(net) as undo:
        net.bias.data = torch.zeros(2)
    with torch.no_grad():
        net.weight.fill_(3.0)
    net.added = 1
    undo()
    assert net.weight.tolist() == [[3.0, 3.0], [3.0, 3.0]]
    assert net.added == 1
    assert net.bias.any()
