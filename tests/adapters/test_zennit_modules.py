"""Modules used twice or in place, derivatives of maps, hidden units, and modes in which pairing would go wrong."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from zennit.attribution import Gradient
from zennit.composites import BetaSmooth, LayerMapComposite
from zennit.types import Activation, AvgPool, Linear
from zennit_nets import CONSERVATIVE, OURS, conv_net, dense_net, explain, images, one, relative, rows, summed

from absence_plugins import ReferenceSet, Unit
from absence_plugins.zennit import (
    AbsenceEpsilon,
    AbsenceEpsilonGamma,
    AbsenceGradient,
    AbsenceNorm,
    AbsenceOcclusion,
    AbsencePass,
    ConservationError,
)

pytestmark = pytest.mark.filterwarnings("ignore")


class Twice(nn.Module):
    """One ReLU, one max pooling and one dense layer, each used twice; ``apart`` uses copies of them instead."""

    def __init__(self, *, apart: bool = False) -> None:
        super().__init__()
        torch.manual_seed(3)
        self.first, self.second = nn.Conv2d(2, 3, 3, padding=1), nn.Conv2d(3, 3, 3, padding=1)
        self.relu, self.pool, self.dense, self.down = nn.ReLU(), nn.MaxPool2d(2), nn.Linear(12, 12), nn.Linear(12, 3)
        other = copy.deepcopy if apart else (lambda module: module)
        self.relus = nn.ModuleList([self.relu, *(other(self.relu) for _ in range(3))])
        self.pool_2, self.dense_2 = other(self.pool), other(self.dense)
        self.double().eval()

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.pool(self.relus[0](self.first(x)))
        hidden = self.pool_2(self.relus[1](self.second(hidden))).flatten(1)
        hidden = self.relus[3](self.dense_2(self.relus[2](self.dense(hidden))))
        return self.down(hidden)  # type: ignore[no-any-return]


@pytest.mark.parametrize("name", OURS)
def test_modules_used_twice_are_as_two_modules(name: str) -> None:
    x, r = images(2), images(2, seed=2)
    found = explain(Twice(), OURS[name](), x, r)
    assert torch.equal(found, explain(Twice(apart=True), OURS[name](), x, r))
    assert float(found.abs().max()) > 0


@pytest.mark.parametrize("name", CONSERVATIVE)
def test_an_own_layer_that_is_used_below_as_well(name: str) -> None:
    """Only its last use is the explained unit's own."""
    torch.manual_seed(1)
    shared, x, r = nn.Linear(4, 4).double(), torch.randn(2, 4).double(), torch.randn(2, 4).double()
    target = torch.eye(4)[[1, 2]].double()
    tied = nn.Sequential(nn.Linear(4, 4).double(), nn.Tanh(), shared, nn.Tanh(), shared)
    apart = copy.deepcopy(tied)
    apart[2] = copy.deepcopy(shared)
    assert torch.equal(explain(tied, CONSERVATIVE[name](), x, r, target), explain(apart, CONSERVATIVE[name](), x, r, target))  # fmt: skip


@pytest.mark.parametrize("name", OURS)
def test_in_place_activations(name: str) -> None:
    x, r = images(2), images(2, seed=2)
    expected = explain(conv_net(4, "relu"), OURS[name](), x, r)
    assert torch.equal(explain(conv_net(4, "relu in place"), OURS[name](), x, r), expected)


@pytest.mark.parametrize("name", ["none", "beta_smooth", *OURS])
def test_a_model_that_works_in_place_on_its_input(name: str) -> None:
    # without a rule of ours on that module the plan's forward changes the user's input before anything is
    # computed (attributor.py, _plan: `input.detach()` shares its storage): none, beta_smooth, absence_guided_backprop
    net, x, r = nn.Sequential(nn.ReLU(inplace=True), dense_net(4)), rows(1), rows(1, seed=2)
    before = x.clone()
    if name in OURS:
        explain(net, OURS[name](), x, r)
    else:
        composite = None if name == "none" else BetaSmooth()
        found = AbsenceOcclusion(net, composite, one(0), window=1, stride=1, reference=r)(x)[1]
        other = torch.where(torch.arange(5) == 2, r, before)
        expected = (net(before.clone()) - net(other))[0, 0].detach()
        assert torch.allclose(found[0, 2], expected)
    assert torch.equal(x, before)


# -- derivatives ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", CONSERVATIVE)
def test_the_derivative_of_a_map_is_refused(name: str) -> None:
    """With ``create_graph`` the map is the same; what is not known is not silently taken for constant."""
    net, r = conv_net(8, "tanh", "average", "two dense"), images(1, seed=2)
    x = images(1).requires_grad_()
    found = AbsenceGradient(net, CONSERVATIVE[name](), one(1), True, reference=r)(x)[1]
    assert torch.equal(found.detach(), explain(net, CONSERVATIVE[name](), x.detach(), r, one(1)))
    with pytest.raises(ConservationError, match=r"derivative of a map of relevance is not available; train with"):
        torch.autograd.grad(found.sum(), x)


def plain_gradient(net: nn.Module, x: Tensor, target: Tensor) -> Tensor:
    x = x.clone().requires_grad_()
    return torch.autograd.grad(net(x), x, target)[0]


@pytest.mark.parametrize("name", CONSERVATIVE)
def test_inactive_is_the_plain_gradient(name: str) -> None:
    net, x, r = conv_net(2), images(2), images(2, seed=2)
    expected, active = plain_gradient(net, x, one(1, 2)), explain(net, CONSERVATIVE[name](), x, r, one(1, 2))
    with AbsenceGradient(net, CONSERVATIVE[name](), reference=r) as attributor:
        with attributor.inactive():
            output, found = attributor(x, one(1, 2))
        assert torch.allclose(found, expected, rtol=1e-12, atol=1e-14)
        assert torch.allclose(output, net(x), rtol=1e-12)
        assert torch.equal(attributor(x, one(1, 2))[1], active)


def test_inactive_rules_in_a_layer_map() -> None:
    # the pair that the attributor adds stays active, so the check raises a ConservationError (attributor.py, _root)
    net, x, r = dense_net(2), rows(2), rows(2, seed=2)
    rules = [(Linear, AbsenceEpsilon()), (Activation, AbsencePass()), (nn.BatchNorm1d, AbsencePass())]
    with AbsenceGradient(net, LayerMapComposite(rules), reference=r) as attributor, attributor.inactive():
        found = attributor(x, one(1, 2))[1]
    assert torch.allclose(found, plain_gradient(net, x, one(1, 2)), rtol=1e-12, atol=1e-14)


def test_a_retained_graph_can_be_asked_again() -> None:
    net, r = conv_net(2), images(1, seed=2)
    x = images(1).requires_grad_()
    with AbsenceGradient(net, AbsenceEpsilonGamma(), one(0), retain_graph=True, reference=r) as attributor:
        output, first = attributor(x)
        for k in (2, 0):
            (again,) = torch.autograd.grad(output, x, one(k), retain_graph=True)
            assert torch.equal(again, explain(conv_net(2), AbsenceEpsilonGamma(), x.detach(), r, one(k)))
    assert torch.equal(again, first)
    with AbsenceGradient(net, AbsenceEpsilonGamma(), one(0), reference=r) as attributor:
        output, _ = attributor(x)
        with pytest.raises(RuntimeError, match="second time"):
            torch.autograd.grad(output, x, one(0))


def test_a_hook_registered_by_hand_can_be_registered_again() -> None:
    net, x, r = nn.Sequential(nn.Linear(5, 3)).double(), rows(2), rows(2, seed=2)
    hook, found = AbsenceEpsilon(), []
    for _ in range(2):
        handles = hook.register(net[0])
        found.append(AbsenceGradient(net, None, one(0, 0), reference=r)(x)[1])
        handles.remove()
    assert torch.allclose(found[0], (x - r) * net[0].weight[0].detach())
    assert torch.equal(found[0], found[1])
    assert not net[0]._forward_hooks


# -- hidden units -----------------------------------------------------------------------------------------------------

# u from a pre-activation 2x over four places; R of x against r
X, R = [1.0, 4.0, 2.0, 3.0], [3.0, 0.0, 1.0, 5.0]
BY_HAND = {
    "sum": [-4.0, 8.0, 2.0, -4.0],
    "mean": [-1.0, 2.0, 0.5, -1.0],
    "max": [0.0, 0.0, 0.0, -2.0],  # 8 against 10: a fall, at r's winner
    "min": [0.0, 2.0, 0.0, 0.0],  # 2 against 0: a rise of the minimum, at r's winner
}


@pytest.mark.parametrize("reduce", BY_HAND)
def test_units_on_paper(reduce: Any) -> None:
    net = nn.Sequential(nn.Conv2d(1, 2, 1), nn.ReLU(inplace=True)).double()
    net[0].weight.data = torch.tensor([-1.0, 2.0]).reshape(2, 1, 1, 1).double()
    unit = Unit("1", 1, reduce=reduce).of(net)
    x, r = (torch.tensor(values).reshape(1, 1, 2, 2).double() for values in (X, R))
    expected = torch.tensor(BY_HAND[reduce]).reshape(1, 1, 2, 2).double()
    for composite in CONSERVATIVE.values():
        found = AbsenceGradient(unit, composite(), reference=r)(x)[1]
        assert torch.allclose(found, expected)
        assert torch.allclose(AbsenceGradient(unit, composite(), reference=x)(r)[1], -expected)


@pytest.mark.parametrize("unit", [
    *(Unit("5", 2, reduce=reduce) for reduce in ("mean", "sum", "max", "min")), Unit("4", 1), Unit("4.body", 0, reduce="max"),
    Unit("7", 3, activation="pre"), Unit("10", 1), Unit("", 2), Unit("2", 0, reduce="sum", activation="post"),
], ids=str)  # fmt: skip
@pytest.mark.parametrize("name", CONSERVATIVE)
def test_units_are_conserved_and_antisymmetric(name: str, unit: Unit) -> None:
    net, x, r = conv_net(9, "relu in place", "max", "two dense"), images(2), images(2, seed=2)
    explained = unit.of(net)
    with torch.no_grad():
        difference = explained(x) - explained(r)
        assert torch.equal(explained(x), unit.values(net, x))
    output, found = AbsenceGradient(explained, CONSERVATIVE[name](), torch.ones(2).double(), reference=r)(x)
    assert output.shape == (2,)
    assert relative(summed(found), difference) <= 1e-9
    swapped = AbsenceGradient(explained, CONSERVATIVE[name](), torch.ones(2).double(), reference=x)(r)[1]
    assert relative(swapped, -found) <= 1e-10


def test_a_unit_of_value_zero_is_explained_like_any_other() -> None:
    """Behind a ReLU a unit is 0 exactly where what it detects is missing: R = -u(r)."""
    # a seed of 0 is taken for "not this output", so the map is 0 (seeds.py, explained_weights; pairing.py, output_weights)
    net = nn.Sequential(nn.Linear(2, 1), nn.ReLU()).double()
    net[0].weight.data, net[0].bias.data = torch.tensor([[1.0, -1.0]]).double(), torch.zeros(1).double()
    x, r = torch.tensor([[1.0, 3.0]]).double(), torch.tensor([[3.0, 1.0]]).double()
    for unit in (net, Unit("1", 0, activation="post").of(net)):
        by_name = AbsenceGradient(unit, AbsenceEpsilonGamma(), torch.ones(1).double(), reference=r)(x)[1]
        assert by_name.tolist() == [[-1.0, -1.0]]
        assert torch.equal(AbsenceGradient(unit, AbsenceEpsilonGamma(), reference=r)(x)[1], by_name)


def test_outputs_of_zero_and_one_are_no_seeds() -> None:
    """Zennit's default seed is the outputs themselves, whatever they are: all of them are explained."""
    net = nn.Linear(2, 3, bias=False).double()
    net.weight.data = torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, -1.0]]).double()
    for values in ([1.0, 0.0], [1.0, 1.0], [0.0, 0.0], [0.0, 1.0]):
        x, r = torch.tensor([values]).double(), torch.tensor([3.0, -1.0]).double()
        expected = ((x - r) * net.weight.sum(0).detach()).tolist()
        assert AbsenceGradient(net, AbsenceEpsilonGamma(), reference=r)(x)[1].tolist() == expected
    falling = nn.Sequential(nn.Linear(1, 1), nn.ReLU()).double()
    falling[0].weight.data.fill_(-1.0)
    falling[0].bias.data.fill_(1.0)
    x = torch.tensor([[2.0]]).double()  # relu(1 - x) = 0, and 1 at zeros
    assert Gradient(falling, AbsenceEpsilonGamma())(x)[1].tolist() == [[-1.0]]


def test_a_units_mean_has_a_rule_in_layer_maps_too() -> None:
    """The rule of the reduction is in our composites only; in a layer map of one's own its mean must not pass for linear."""
    # the mean's gradient spreads R evenly, conserved and silent; AbsenceReduction is not exported (rules.py, AbsenceReduction)
    net = nn.Sequential(nn.Conv2d(1, 1, 1)).double()
    unit, x, r = Unit("0", 0).of(net), images(1)[:, :1], images(1, seed=2)[:, :1]
    rules = [(Linear, AbsenceEpsilon()), (Activation, AbsencePass()), (AvgPool, AbsenceNorm())]
    expected = (net[0].weight.detach() * (x - r)) / 64
    assert torch.allclose(AbsenceGradient(unit, AbsenceEpsilonGamma(), reference=r)(x)[1], expected)
    try:
        found = AbsenceGradient(unit, LayerMapComposite(rules), reference=r)(x)[1]
    except ValueError:
        return
    assert torch.allclose(found, expected)


def test_contributions_that_cancel_are_shown() -> None:
    """They sum to the difference, which is 0 on paper: what is gross in Epsilon is not hidden (DeepLIFT's Rescale)."""
    net = nn.Sequential(nn.Linear(2, 1, bias=False), nn.ReLU(), nn.Linear(1, 1, bias=False)).double()
    net[0].weight.data, net[2].weight.data = torch.tensor([[2.0, -3.0]]).double(), torch.tensor([[5.0]]).double()
    x, r = torch.tensor([[4.0, 2.0]]).double(), torch.tensor([[1.0, 0.0]]).double()  # both 2 before the ReLU
    assert explain(net, AbsenceEpsilonGamma(), x, r, torch.ones(1, 1).double()).tolist() == [[30.0, -30.0]]


# -- modes ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("layer", [nn.BatchNorm1d(6), nn.Dropout(0.5), nn.AlphaDropout(0.5)], ids=str)
@pytest.mark.parametrize("name", OURS)
def test_training_mode_is_refused(name: str, layer: nn.Module) -> None:
    net = nn.Sequential(nn.Linear(5, 6), copy.deepcopy(layer), nn.ReLU(), nn.Linear(6, 3)).double().train()
    with pytest.raises(ValueError, match=rf"1 \({type(layer).__name__}\) is in training mode.* model.eval\(\)"):
        explain(net, OURS[name](), rows(2), rows(2, seed=2))
    net.eval()
    net[2].train()  # means nothing
    explain(net, OURS[name](), rows(2), rows(2, seed=2))


def test_batch_norm_that_takes_its_statistics_from_the_batch() -> None:
    """In eval mode, too, it mixes input and reference: the outputs are other ones than the model's."""
    # not refused (pairing.py, check_mode looks at `training` only)
    net = nn.Sequential(nn.Linear(5, 6), nn.BatchNorm1d(6, track_running_stats=False), nn.Linear(6, 3)).double().eval()
    with pytest.raises(ValueError, match="BatchNorm1d"):
        explain(net, AbsenceEpsilonGamma(), rows(4), rows(4, seed=2))


def test_a_random_activation_in_training_mode() -> None:
    # not refused (pairing.py, RANDOM_OR_MIXING)
    net = nn.Sequential(nn.Linear(5, 6), nn.RReLU(), nn.Linear(6, 3)).double().train()
    with pytest.raises(ValueError, match=r"RReLU.*model.eval\(\)"):
        explain(net, AbsenceEpsilonGamma(), rows(4), rows(4, seed=2))


def test_references_are_compared_one_by_one() -> None:
    """Which samples share a batch has no influence, also through a ReferenceSet."""
    net, given = conv_net(3), ReferenceSet(images(9, seed=9), torch.arange(9) % 3, k=3)
    whole = explain(net, AbsenceEpsilonGamma(), images(3), given, one(0, 1, 2))
    for row in range(3):
        part = slice(row, row + 1)
        assert torch.allclose(explain(net, AbsenceEpsilonGamma(), images(3)[part], given, one(row)), whole[part], rtol=1e-9, atol=1e-12)  # fmt: skip
