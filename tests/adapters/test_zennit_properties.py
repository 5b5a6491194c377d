"""What holds for every network: conservation, antisymmetry, invariances, and agreement with Zennit and Captum."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from captum.attr import DeepLift
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from zennit import rules
from zennit.attribution import Gradient
from zennit.canonizers import SequentialMergeBatchNorm
from zennit.composites import LayerMapComposite, MixedComposite, NameMapComposite
from zennit.layer import Sum
from zennit.types import Activation, AvgPool, BatchNorm, Convolution, Linear, MaxPool
from zennit_nets import (
    ACTIVATIONS,
    CONSERVATIVE,
    HEADS,
    POOLS,
    UPSTREAM,
    conv_net,
    dense_net,
    explain,
    images,
    one,
    randomized,
    relative,
    rows,
    summed,
)

from absence_plugins.zennit import (
    AbsenceAlphaBeta,
    AbsenceEpsilon,
    AbsenceEpsilonGamma,
    AbsenceMaxPool,
    AbsenceNorm,
    AbsencePass,
    AbsenceZPlus,
)

pytestmark = pytest.mark.filterwarnings("ignore")

FEW = settings(max_examples=10, deadline=None, derandomize=True, database=None)
SEEDS = st.integers(0, 10**6)
NETS = st.builds(
    conv_net,
    SEEDS,
    st.sampled_from(list(ACTIVATIONS)),
    st.sampled_from(list(POOLS)),
    st.sampled_from(HEADS),
    bias=st.booleans(),
    norm=st.booleans(),
    residual=st.booleans(),
)
DENSE = st.builds(dense_net, SEEDS, st.sampled_from(list(ACTIVATIONS)), norm=st.booleans(), bias=st.booleans())


def best(net: nn.Module, x: torch.Tensor, r: torch.Tensor) -> torch.Tensor:
    """Per sample the output that differs most: its difference is no chance near zero."""
    with torch.no_grad():
        return one(*(net(x) - net(r)).abs().argmax(1).tolist())


def check(net: nn.Module, x: torch.Tensor, r: torch.Tensor) -> None:
    target = best(net, x, r)
    with torch.no_grad():
        difference = ((net(x) - net(r)) * target).sum(1)
    for name, composite in CONSERVATIVE.items():
        found = explain(net, composite(), x, r, target)
        assert float(((summed(found) - difference) / difference).abs().max()) <= 1e-6, name
        assert relative(explain(net, composite(), r, x, target), -found) <= 1e-10, name


@FEW
@given(NETS, SEEDS)
def test_conservation_and_antisymmetry(net: nn.Module, seed: int) -> None:
    check(net, images(2, seed), images(2, seed + 1))


@FEW
@given(DENSE, SEEDS)
def test_conservation_and_antisymmetry_of_dense_nets(net: nn.Module, seed: int) -> None:
    check(net, rows(3, seed), rows(3, seed + 1))


@pytest.mark.slow
@FEW
@given(NETS, SEEDS)
def test_where_only_a_patch_differs(net: nn.Module, seed: int) -> None:
    """Dead windows, ties in max pooling, outputs that do not differ at all."""
    x = images(1, seed).clamp(min=0)
    r = x.clone()
    r[:, :, 2:5, 3:6] = 0.0
    check(net, x, r)
    for name, composite in CONSERVATIVE.items():
        found = explain(net, composite(), x, r)
        if not name.endswith("flat"):
            assert bool((found[x == r] == 0).all()), name
        assert not explain(net, composite(), x, x).any(), name


@FEW
@given(NETS, SEEDS, st.floats(-100, 100))
def test_a_constant_added_to_the_own_layers_bias_changes_nothing(net: Any, seed: int, constant: float) -> None:
    x, r = images(1, seed), images(1, seed + 1)
    target = best(net, x, r)
    own = [module for module in net.modules() if isinstance(module, (nn.Linear, nn.Conv2d))][-1]
    before = {name: explain(net, composite(), x, r, target) for name, composite in CONSERVATIVE.items()}
    own.bias = nn.Parameter(torch.full((3,), constant).double())
    for name, composite in CONSERVATIVE.items():
        assert relative(explain(net, composite(), x, r, target), before[name]) <= 1e-8, name


@FEW
@given(NETS, SEEDS)
def test_merging_batch_norm_of_either_sign_changes_nothing(net: nn.Module, seed: int) -> None:
    x, r = images(1, seed), images(1, seed + 1)
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eps = 0.0  # Zennit's merged batch norm keeps eps and shrinks the network by 5e-6
    target = best(net, x, r)
    for name, composite in CONSERVATIVE.items():
        merged = explain(net, composite(canonizers=[SequentialMergeBatchNorm()]), x, r, target)
        assert relative(merged, explain(net, composite(), x, r, target)) <= 1e-8, name


@pytest.mark.slow
@FEW
@given(NETS, SEEDS)
def test_a_batch_is_its_samples(net: nn.Module, seed: int) -> None:
    x, r = images(3, seed), images(3, seed + 1)
    target = best(net, x, r)
    for name, composite in CONSERVATIVE.items():
        whole = explain(net, composite(), x, r, target)
        for row in range(3):
            part = slice(row, row + 1)
            assert relative(explain(net, composite(), x[part], r[part], target[part]), whole[part]) <= 1e-9, name


# BUG (the two below and test_a_difference_of_rounding_carries_nothing): the check knows no rounding of the outputs
# themselves, |u| times a few units in the last place, and so blames a model that is fine (pairing.py, check_conservation)


@pytest.mark.parametrize("distance", [1e-3, 1e-4, 1e-5, 1e-6])
def test_references_that_hardly_differ_are_no_error(distance: float) -> None:
    """As near-duplicates in a data set: outputs differ by little more than rounding in float32."""
    for seed in range(8):
        net, x = conv_net(seed, dtype=torch.float32), images(1, seed, torch.float32)
        r = x + distance * images(1, seed + 1, torch.float32)
        for name, composite in CONSERVATIVE.items():
            found = explain(net, composite(), x, r)
            assert bool(torch.isfinite(found).all()), name


def test_outputs_that_differ_by_rounding_alone_are_no_error() -> None:
    """A moved image, and a network that does not see the place."""
    for seed in range(12):
        layers = [nn.Conv2d(2, 4, 3, padding=1, padding_mode="circular"), nn.ReLU(), nn.AdaptiveAvgPool2d(1)]
        net = randomized(nn.Sequential(*layers, nn.Flatten(), nn.Linear(4, 3)), seed, torch.float32)
        x = images(1, seed, torch.float32)
        for name, composite in CONSERVATIVE.items():
            found = explain(net, composite(), x, x.roll(2, 3))
            assert abs(float(found.sum())) <= 1e-5, name


# -- Captum -----------------------------------------------------------------------------------------------------------

EPSILON = [
    (Linear, AbsenceEpsilon()),
    (Activation, AbsencePass()),
    (BatchNorm, AbsencePass()),
    ((AvgPool, Sum), AbsenceNorm()),
    (MaxPool, AbsenceMaxPool()),
]


def by_name(net: nn.Module, skip: int = 0) -> NameMapComposite:
    pairs = []
    for name, module in list(net.named_modules())[skip:]:
        hook = next((hook for types, hook in EPSILON if isinstance(module, types)), None)
        if hook is not None:
            pairs.append(([name], hook))
    return NameMapComposite(pairs)


@FEW
@given(
    st.builds(
        conv_net,
        SEEDS,
        st.sampled_from(["relu", "leaky", "tanh"]),
        st.sampled_from(["none", "average", "average overlapping"]),
        st.sampled_from(HEADS),
        norm=st.booleans(),
        residual=st.booleans(),
    ),
    SEEDS,
)
def test_epsilon_is_deeplift(net: nn.Module, seed: int) -> None:
    x, r = images(2, seed), images(2, seed + 1)
    target = best(net, x, r)
    expected = DeepLift(copy.deepcopy(net)).attribute(x, r, target=target.argmax(1)).detach()
    mixed = MixedComposite([NameMapComposite([(["0"], AbsenceEpsilon())]), LayerMapComposite(EPSILON)])
    for composite in (LayerMapComposite(EPSILON), by_name(net), mixed):
        assert relative(explain(net, composite, x, r, target), expected) <= 1e-8
    dense_too = AbsenceEpsilonGamma(layer_map=[(Convolution, AbsenceEpsilon())])
    assert relative(explain(net, dense_too, x, r, target), expected) <= 1e-8


# -- Zennit -----------------------------------------------------------------------------------------------------------

# Bias-free ReLU nets against zeros: differences are values, so p - n is the pre-activation. Zennit's rules and ours
# are the same where it is positive wherever relevance passes, which a ReLU right behind every convolution sees to.
TINY = {"stabilizer": 1e-13}
SAME = {
    "epsilon_plus": {"epsilon": 1e-13},
    "epsilon_plus_flat": {"epsilon": 1e-13},
    "epsilon_gamma_box": {"epsilon": 1e-13, "low": -3.0, "high": 3.0, "first_map": [(Convolution, rules.Gamma(0.25, 1e-13))]},
}  # fmt: skip


def upstream(net: nn.Module, composite: Any, x: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """Zennit's own relevance, seeded with the logit."""
    relevance: torch.Tensor = Gradient(net, composite)(x, lambda output: output * target)[1]
    return relevance


PLAIN = {"bias": st.just(False), "norm": st.just(False)}


@pytest.mark.parametrize("name", SAME)
@FEW
@given(
    net=st.builds(
        conv_net, SEEDS, st.just("relu"), st.sampled_from(list(POOLS)), st.sampled_from(HEADS[:3]),
        residual=st.just(False), **PLAIN,
    ),
    seed=SEEDS,
)  # fmt: skip
def test_zennit_agrees_on_bias_free_relu_nets(name: str, net: nn.Module, seed: int) -> None:
    x = images(2, seed)
    target = best(net, x, torch.zeros_like(x))
    expected = upstream(net, UPSTREAM[name](**TINY, **SAME[name]), x, target)
    for reference in (torch.zeros(()), None):
        assert relative(explain(net, CONSERVATIVE[f"absence_{name}"](), x, reference, target), expected) <= 1e-6
    plain = Gradient(net, CONSERVATIVE[f"absence_{name}"]())(x, target)[1]
    assert relative(plain, expected) <= 1e-6


@FEW
@given(
    st.builds(
        conv_net, SEEDS, st.sampled_from(list(ACTIVATIONS)), st.sampled_from(["none", "average"]),
        st.sampled_from(HEADS[:3]), residual=st.booleans(), **PLAIN,
    ),
    SEEDS,
)  # fmt: skip
def test_zennits_gamma_is_mirrored_too_and_agrees_on_every_bias_free_net(net: nn.Module, seed: int) -> None:
    """Without max pooling: Zennit has no rule for it, and a fall of the maximum is not the gradient's."""
    x = images(2, seed)
    target = best(net, x, torch.zeros_like(x))
    expected = upstream(net, UPSTREAM["epsilon_gamma_box"](**TINY, **SAME["epsilon_gamma_box"]), x, target)
    found = explain(net, AbsenceEpsilonGamma(), x, torch.zeros(()), target)
    assert relative(found, expected) <= 1e-6


def test_zennits_zplus_and_ours_part_where_a_negative_pre_activation_passes_relevance() -> None:
    net = conv_net(3, "tanh", "none", bias=False, norm=False, residual=False)
    x = images(2)
    target = best(net, x, torch.zeros_like(x))
    expected = upstream(net, UPSTREAM["epsilon_plus"](epsilon=1e-13, **TINY), x, target)
    assert relative(explain(net, CONSERVATIVE["absence_epsilon_plus"](), x, torch.zeros(()), target), expected) > 0.1


@FEW
@given(SEEDS)
def test_output_by_output_our_rule_is_zennits_on_the_layer_or_on_its_negation(seed: int) -> None:
    """For ZPlus and AlphaBeta(2, 1); the latter is Zennit's Epsilon where that is gentler (n / (p - n) < 1)."""
    torch.manual_seed(seed)
    layer, x = nn.Linear(6, 1, bias=False).double(), torch.randn(1, 6).double()
    contributions = (layer.weight * x).detach()
    larger, smaller = sorted([contributions.clamp(min=0).sum(), (-contributions).clamp(min=0).sum()], reverse=True)
    positive = bool(contributions.sum() > 0)
    other = copy.deepcopy(layer)
    other.weight.data *= 1 if positive else -1
    mild = bool(smaller < larger - smaller)
    pairs = (
        (AbsenceZPlus(), rules.ZPlus(1e-14)),
        (AbsenceAlphaBeta(2, 1), rules.Epsilon(1e-14) if mild else rules.AlphaBeta(2, 1, 1e-14)),
    )
    for own, theirs in pairs:
        expected = upstream(other, LayerMapComposite([(nn.Linear, theirs)]), x, torch.ones(1, 1).double())
        found = explain(layer, LayerMapComposite([(nn.Linear, own)]), x, torch.zeros(6), torch.ones(1, 1).double())
        assert relative(found, expected if positive else -expected) <= 1e-9


@FEW
@given(SEEDS)
def test_excitation_backprop_agrees_where_nothing_holds_the_own_layer_down(seed: int) -> None:
    """Its own layer is Epsilon here and ZPlus upstream: the same where all weights of the unit are positive."""
    net: Any = conv_net(seed, "relu", "max", bias=False, norm=False, residual=False)
    net[-1].weight.data = net[-1].weight.data.abs()
    x = images(1, seed)
    expected = upstream(net, UPSTREAM["excitation_backprop"](stabilizer=1e-13), x, one(0))
    found = explain(net, CONSERVATIVE["absence_excitation_backprop"](), x, torch.zeros(()), one(0))
    assert relative(found, expected) <= 1e-6
