"""Layers with a forward of their own, cells of Zennit's documentation, several inputs, threads, calls that are broken off."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, nullcontext
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.overrides import _get_current_function_mode_stack
from zennit import rules
from zennit.canonizers import SequentialMergeBatchNorm
from zennit.composites import LayerMapComposite, NameMapComposite
from zennit_nets import CONSERVATIVE, Net, dense_net, explain, images, one, relative, rows, summed

import absence_plugins.zennit as adapters
from absence_plugins import Unit
from absence_plugins.core import turns
from absence_plugins.relevance import RelevanceError, relevance
from absence_plugins.zennit import AbsenceEpsilon, AbsenceEpsilonGamma, AbsenceGradient, ConservationError

pytestmark = pytest.mark.filterwarnings("ignore")


# -- layers that do more than their class -------------------------------------------------------------------------------


class Conv2dSame(nn.Conv2d):
    """Pads in its own forward, as every network ported from TensorFlow."""

    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(F.pad(x, (1, 1, 1, 1)), self.weight, self.bias, self.stride)


class Standardized(nn.Conv2d):
    """Standardizes its weights in its own forward."""

    def forward(self, x: Tensor) -> Tensor:
        mean, std = self.weight.mean((1, 2, 3), keepdim=True), self.weight.std((1, 2, 3), keepdim=True)
        return self._conv_forward(x, (self.weight - mean) / std, self.bias)


@pytest.mark.parametrize("name", CONSERVATIVE)
def test_convolutions_with_a_forward_of_their_own(name: str) -> None:
    """As the convolution that they stand for; Flat gives nothing to the padding."""
    torch.manual_seed(0)
    for own, padding in ((Conv2dSame(2, 4, 3).double(), 1), (Standardized(2, 4, 3).double(), 0)):
        plain = nn.Conv2d(2, 4, 3, padding=padding).double()
        plain.load_state_dict(own.state_dict())
        if isinstance(own, Standardized):
            mean, std = own.weight.mean((1, 2, 3), keepdim=True), own.weight.std((1, 2, 3), keepdim=True)
            plain.weight.data = ((own.weight - mean) / std).detach()
        head = [nn.ReLU(), nn.Flatten(), nn.Linear(4 * (6 + 2 * padding) ** 2, 3)]
        nets = [nn.Sequential(conv, *head).double().eval() for conv in (own, plain)]
        found, expected = (explain(net, CONSERVATIVE[name](), images(2), images(2, seed=2)) for net in nets)
        assert relative(found, expected) <= 1e-12


def test_detached_branches_are_refused() -> None:
    class Detached(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Linear(5, 3).double(), nn.Linear(5, 3).double()

        def forward(self, x: Tensor) -> Tensor:
            return self.a(x) + self.b(x.detach())  # type: ignore[no-any-return]

    with pytest.raises(ConservationError, match=r"detach"):
        explain(Detached(), AbsenceEpsilonGamma(), rows(2), rows(2, seed=2))


# -- cells of Zennit's documentation -----------------------------------------------------------------------------------


def test_norm_on_a_max_pooling_changes_nothing() -> None:
    net = Net(lambda net, h: net.pool(h), pool=nn.MaxPool2d(2))
    x, r = images(2), images(2, seed=2)
    hooks = [(["conv"], adapters.AbsenceZPlus()), (["active"], adapters.AbsencePass()), (["dense"], AbsenceEpsilon())]
    maps = [
        AbsenceGradient(net, NameMapComposite([*hooks, (["pool"], hook)]), one(0, 0), reference=r)(x)[1]
        for hook in (adapters.AbsenceNorm(), adapters.AbsenceMaxPool())
    ]
    assert torch.equal(*maps)
    assert relative(summed(maps[0]), (net(x) - net(r))[:, 0].detach()) <= 1e-9


def test_zbox_is_gamma() -> None:
    net, x, r = dense_net(1), rows(2), rows(2, seed=2)
    maps = [
        explain(net, adapters.AbsenceEpsilonPlusFlat(first_map=[(nn.Linear, hook)]), x, r)
        for hook in (adapters.AbsenceZBox(-3.0, 3.0), adapters.AbsenceZBox(low=0.0, high=1.0), adapters.AbsenceGamma())
    ]
    assert torch.equal(maps[0], maps[1])
    assert torch.equal(maps[0], maps[2])


def test_a_rule_alone_says_what_is_missing() -> None:
    net, x = dense_net(1), rows(2).requires_grad_()
    handles = AbsenceEpsilon().register(net[0])
    with pytest.raises(
        ValueError, match=r"none was paired; use AbsenceGradient in place of Gradient, or an Absence comp"
    ):
        net(x)
    with torch.no_grad():
        net(x)
    found = AbsenceGradient(net, None, one(0, 0), reference=rows(2, seed=2))(x.detach())[1]
    handles.remove()
    assert torch.equal(found, relevance(net, x.detach(), rows(2, seed=2), 0).attribution)
    torch.autograd.grad(net(x), x, one(0, 0))


def test_every_class_that_a_message_names_exists() -> None:
    for name in ("ZBox", "Epsilon", "Gamma", "ZPlus", "AlphaBeta", "Flat", "WSquare", "Norm", "Pass"):
        hook = getattr(adapters, f"Absence{name}")
        host = rules.ZBox(-1.0, 1.0) if name == "ZBox" else getattr(rules, name)()
        both = LayerMapComposite([(nn.ReLU, adapters.AbsencePass()), (nn.Linear, host)])
        with pytest.raises(ValueError, match=f"use {hook.__name__} beside"):
            explain(dense_net(1), both, rows(1), rows(1))


# -- several inputs, outputs of one sample, modules inside of modules ------------------------------------------------------


class Two(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.head = nn.Linear(5, 4), nn.Linear(3, 4), nn.Linear(4, 3)
        self.double().eval()

    def forward(self, x: Tensor, other: Tensor, *, scale: float = 1.0) -> Tensor:
        return self.head(torch.tanh(self.a(x)) * self.b(other) * scale)  # type: ignore[no-any-return]


@pytest.mark.parametrize("name", ["absence_epsilon_gamma", "absence_excitation_backprop"])
def test_models_with_several_inputs(name: str) -> None:
    net, x, other = Two(), rows(2).requires_grad_(), rows(2, seed=3)[:, :3].contiguous().requires_grad_()
    with CONSERVATIVE[name]().context(net):
        output = net(x, other, scale=2.0)
        first, second = torch.autograd.grad(output, (x, other), one(1, 1))
        (alone,) = torch.autograd.grad(net(x, other.detach(), scale=2.0), x, one(1, 1))
    change = (net(x, other, scale=2.0) - net(torch.zeros_like(x), torch.zeros_like(other), scale=2.0))[:, 1]
    assert relative(summed(first) + summed(second), change.detach()) <= 1e-9
    change = (net(x, other, scale=2.0) - net(torch.zeros_like(x), other, scale=2.0))[:, 1]
    assert relative(summed(alone), change.detach()) <= 1e-9


def test_the_innermost_rule_counts() -> None:
    """Epsilon inside of a block with another rule is Epsilon."""
    block = nn.Sequential(nn.Linear(5, 6), nn.ReLU(), nn.Linear(6, 4))
    net = nn.Sequential(block, nn.ReLU(), nn.Linear(4, 3)).double().eval()
    x, r = rows(2), rows(2, seed=2)
    hooks = [(["0"], adapters.AbsenceZPlus()), (["0.2"], AbsenceEpsilon())]
    found = AbsenceGradient(net, NameMapComposite(hooks), one(0, 0), reference=r)(x)[1]
    assert torch.equal(
        found, relevance(net, x, r, 0, rule={"0.0": adapters.AbsenceZPlus().redistribution}.get).attribution
    )


# -- threads, and calls that are broken off --------------------------------------------------------------------------------


@pytest.mark.parametrize("way", ["attributor each", "one attributor", "context around"])
def test_one_model_in_several_threads(way: str) -> None:
    net, x, r = dense_net(1), rows(24), rows(24, seed=2)
    net.append(nn.Sequential(nn.Linear(3, 3), nn.Tanh(), nn.Linear(3, 3)).double())
    wanted = [explain(net, AbsenceEpsilonGamma(), x[i : i + 1], r[i : i + 1]) for i in range(24)]

    def ours(row: int) -> Tensor:
        part = slice(row, row + 1)
        if way == "attributor each":
            return explain(net, AbsenceEpsilonGamma(), x[part], r[part])
        model = AbsenceGradient(net, None, one(0), reference=r[part])
        return model(x[part])[1]  # type: ignore[no-any-return]

    with ExitStack() as stack, ThreadPoolExecutor(4) as pool:
        if way == "context around":
            stack.enter_context(AbsenceEpsilonGamma().context(net))
        elif way == "one attributor":
            stack.enter_context(AbsenceGradient(net, AbsenceEpsilonGamma()))
        found = list(pool.map(ours, range(24)))
    assert all(torch.equal(one, other) for one, other in zip(found, wanted, strict=True))
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in net.modules())


def conv_net() -> nn.Sequential:
    torch.manual_seed(0)
    layers = (nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 36, 3))
    net = nn.Sequential(*layers).double().eval()
    net[1].running_mean.normal_()  # type: ignore[operator, union-attr]
    return net


@pytest.mark.parametrize("way", ["attributor", "attributor in a block", "another in its block", "context"])
def test_a_pool_in_the_block_of_a_composite_with_canonizers(way: str) -> None:
    """The block keeps the weights merged; a thread of the pool that waited for its end would wait for ever."""
    net, x = conv_net(), torch.rand(12, 1, 8, 8).double()
    reference, state = torch.zeros(1, 8, 8).double(), {name: one.clone() for name, one in net.state_dict().items()}
    composite = AbsenceEpsilonGamma(canonizers=[SequentialMergeBatchNorm()])
    attributor = AbsenceGradient(net, composite, one(0, 0)[:1], reference=reference)
    wanted = [attributor(row[None])[1] for row in x]
    if way == "another in its block":
        call = AbsenceGradient(net, composite, one(0, 0)[:1], reference=reference)
    else:
        call = AbsenceGradient(net, None, one(0, 0)[:1], reference=reference) if way == "context" else attributor
    blocks = {"context": composite.context(net), "attributor": nullcontext()}
    with ThreadPoolExecutor(3) as pool, blocks.get(way, attributor):
        found = [pool.submit(call, row[None]) for row in x[1:]]
        maps = [call(x[:1])[1], *(one.result(20)[1] for one in found)]
    assert all(torch.equal(one, other) for one, other in zip(maps, wanted, strict=True))
    assert all(torch.equal(one, state[name]) for name, one in net.state_dict().items())
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in net.modules())


def test_other_work_in_the_block_of_canonizers_is_rejected_and_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(turns, "PATIENCE", 0.1)
    net, composite = conv_net(), AbsenceEpsilonGamma(canonizers=[SequentialMergeBatchNorm()])
    x = torch.rand(1, 1, 8, 8).double()
    with ThreadPoolExecutor(1) as pool, AbsenceGradient(net, composite, one(0, 0)[:1]):
        with pytest.raises(RuntimeError, match="changed by a `with` block of AbsenceEpsilonGamma in thread"):
            pool.submit(lambda: Unit("0", 1).values(net, x)).result(20)
        inside = Unit("0", 1).values(net, x)  # the thread of the block works on the merged weights
    assert not torch.allclose(inside, Unit("0", 1).values(net, x))


@pytest.mark.parametrize("passes", [1, 2])
@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError])
def test_a_call_that_is_broken_off_leaves_no_mode(error: type[BaseException], passes: int) -> None:
    net, x, r, left = dense_net(1), rows(2), rows(2, seed=2), [passes]

    def blow(*_: Any) -> None:
        left[0] -= 1
        if left[0] == 0:
            raise error

    handle = net[2].register_forward_hook(blow)
    with pytest.raises(error):
        AbsenceGradient(net, AbsenceEpsilonGamma(), one(0, 0), reference=r)(x)
    handle.remove()
    assert not _get_current_function_mode_stack()
    assert torch.equal(explain(net, AbsenceEpsilonGamma(), x, r), relevance(net, x, r, 0).attribution)


def test_one_class_for_what_is_refused() -> None:
    assert ConservationError is RelevanceError
    assert issubclass(ConservationError, ValueError)
