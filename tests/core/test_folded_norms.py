"""Batch norms that are folded while a model runs: the same values, and what else is done with an output is noticed."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from absence_plugins.core.folded_norms import Pair, folding_norms, watching_norms
from absence_plugins.core.memory_layout import find_way

X = torch.randn(2, 4, 6, 6, generator=torch.Generator().manual_seed(0))


class Net(nn.Module):
    """A convolution, a batch norm, and what a test does with them."""

    def __init__(self, run: Callable[[Net, Tensor], Tensor], *, affine: bool = True, bias: bool = False) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv = nn.Conv2d(4, 4, 3, padding=1, groups=2, bias=bias)
        self.norm = nn.BatchNorm2d(4, affine=affine, eps=1e-3)
        for own in (self.norm.running_mean, self.norm.running_var, *self.norm.parameters()):
            own.data.uniform_(0.5, 2)
        self.run, self.calls, self.strays = run, 0, False
        self.eval()

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        return self.run(self, x).flatten(1)


def watch(net: nn.Module, x: Tensor = X) -> tuple[Tensor, watching_norms]:
    with torch.no_grad(), watching_norms() as seen:
        return net(x), seen


USUAL = (
    lambda net, x: net.norm(net.conv(x)).relu(),
    lambda net, x: net.norm(net.conv(net.norm(net.conv(x)).relu())),  # twice, behind each other
    lambda net, x: x + F.batch_norm(net.conv(x), net.norm.running_mean, net.norm.running_var, net.norm.weight),
    lambda net, x: torch.relu_(net.norm(net.conv(x))) + x.mean((2, 3), keepdim=True),
)


@pytest.mark.parametrize("run", USUAL)
@pytest.mark.parametrize(("affine", "bias"), [(True, False), (True, True), (False, True)])
def test_the_values_are_those_of_float64(run: Callable[[Net, Tensor], Tensor], affine: bool, bias: bool) -> None:
    net = Net(run, affine=affine, bias=bias)
    expected = copy.deepcopy(net).double()(X.double()).detach()
    before = copy.deepcopy(net.state_dict())
    _, seen = watch(net)
    pairs = seen.pairs()
    assert len(pairs) == 1
    with torch.no_grad(), folding_norms(pairs) as folding:
        found = net(X)
    assert not folding.has_strayed
    assert float((found - expected).abs().max()) < 1e-6 * float(expected.abs().max())
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())


def test_the_folded_weights_are_the_formula() -> None:
    net = Net(USUAL[0], bias=True)
    (pair,) = watch(net)[1].pairs().values()
    norm = net.norm
    for channel in range(4):
        scale = float(norm.weight[channel]) / (float(norm.running_var[channel]) + 1e-3) ** 0.5
        torch.testing.assert_close(pair.folded[0][channel], net.conv.weight[channel].detach() * scale)
        shift = (float(net.conv.bias[channel]) - float(norm.running_mean[channel])) * scale + float(norm.bias[channel])
        assert float(pair.folded[1][channel].detach()) == pytest.approx(shift, rel=1e-6)


@pytest.mark.parametrize(
    "run",
    [
        lambda net, x: net.norm(net.conv(x).relu()),
        lambda net, x: net.norm(made := net.conv(x)) + made,
        lambda net, x: net.norm(net.conv(x)) + net.conv(x),
        lambda net, x: F.batch_norm(net.conv(x), net.norm.running_mean, net.norm.running_var, training=True),
        lambda net, x: F.batch_norm(net.conv(x), None, None, training=True),
        lambda net, x: net.conv(x).mul_(2).add(net.norm(x)),
        lambda net, x: net.norm(net.conv(x).data),
        lambda net, x: F.batch_norm(torch.conv2d(x, net.conv.weight * 1, None, 1, 1, 1, 2), *own(net)) + net.conv(x),
    ],
)
def test_what_is_used_otherwise_is_not_folded(run: Callable[[Net, Tensor], Tensor]) -> None:
    net = Net(run)
    used = [pair for pair in watch(net)[1].pairs().values() if pair.weight is net.conv.weight]
    assert not used


def own(net: Net) -> tuple[Tensor, Tensor]:
    return net.norm.running_mean, net.norm.running_var


@pytest.mark.parametrize(
    "strayed",
    [
        lambda net, x: net.conv(x) * net.norm.weight[0],
        lambda net, x: net.conv(x),
        lambda net, x: torch.cat([net.conv(x), net.conv(x)], 1),
        lambda net, x: F.batch_norm(net.conv(x), *own(net)),
        lambda net, x: net.norm(net.conv(x).detach()),
        lambda net, x: x + len([net.conv(x)].pop().tolist()),
    ],
)
def test_a_forward_that_strays_runs_again_as_it_is(strayed: Callable[[Net, Tensor], Tensor]) -> None:
    net = Net(lambda net, x: strayed(net, x) if net.strays else net.norm(net.conv(x)))
    outputs, seen = watch(net)
    way = find_way(net, X, outputs, net, seen)
    assert len(way.pairs) == 1
    assert torch.allclose(way.read(net, X), outputs, atol=1e-5)
    net.strays, net.calls = True, 0
    with torch.no_grad():
        found = way.read(net, X)
        assert net.calls == 2
        assert torch.allclose(found, net(X), atol=1e-6)


def test_weights_that_changed_are_not_used() -> None:
    net = Net(USUAL[0])
    outputs, seen = watch(net)
    way = find_way(net, X, outputs, net, seen)
    for change in (
        lambda: net.norm.weight.mul_(3),
        lambda: setattr(net.conv.weight, "data", net.conv.weight.data * 2),
        lambda: setattr(net.norm, "running_mean", torch.zeros(4)),
        lambda: setattr(net.norm, "eps", 0.5),
        lambda: net.train(),
    ):
        with torch.no_grad():
            change()
            expected = copy.deepcopy(net)(X)
            assert torch.allclose(way.read(net, X), expected, atol=1e-5)


def test_hooks_that_see_the_outputs_inside_keep_the_model_as_it_is() -> None:
    net = Net(USUAL[0])
    outputs, seen = watch(net)
    net.register_forward_hook(lambda *_: None)
    assert find_way(net, X, outputs, net, seen).pairs
    handle = net.conv.register_forward_hook(lambda *_: None)
    assert not find_way(net, X, outputs, net, seen).pairs
    handle.remove()
    with torch.nn.modules.module.register_module_forward_pre_hook(lambda *_: None):
        assert not find_way(net, X, outputs, net, seen).pairs


def test_half_precision_and_gradients_stay_as_they_are() -> None:
    net = Net(USUAL[0])
    pairs: dict[int, Pair] = watch(net)[1].pairs()
    with folding_norms(pairs):
        assert net(X).requires_grad
    assert torch.equal(net(X), watch(net)[0])
    assert not watch(net.bfloat16(), X.bfloat16())[1].pairs()
