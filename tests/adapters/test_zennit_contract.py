"""One table of composites and attributors through the same checks: nothing left behind, neutral is Zennit, copies."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from adapter_table import random_states, seeded, trace
from torch import Tensor, nn
from zennit import attribution
from zennit.canonizers import Canonizer, SequentialMergeBatchNorm
from zennit.composites import LayerMapComposite, MixedComposite, NameMapComposite
from zennit_nets import (
    ATTRIBUTORS,
    CONSERVATIVE,
    OURS,
    UPSTREAM,
    conv_net,
    explain,
    images,
    one,
    randomized,
    relative,
    summed,
)

import absence_plugins.zennit as adapters
from absence_plugins import ReferenceSet
from absence_plugins.core import AbsenceWarning
from absence_plugins.zennit import AbsenceEpsilon, AbsenceEpsilonGamma, AbsenceGradient, ConservationError

pytestmark = pytest.mark.filterwarnings("ignore")


class Net(nn.Module):
    """Images [B, 2, 8, 8] -> [B, 3]; the fuse raises at a forward of choice, in the middle of the net."""

    def __init__(self, *, lossy: bool = False) -> None:
        super().__init__()
        self.conv, self.norm, self.relu = nn.Conv2d(2, 3, 3, bias=False), nn.BatchNorm2d(3), nn.ReLU(inplace=True)
        self.pool, self.linear = nn.MaxPool2d(2), nn.Linear(27, 3)
        self.fuse, self.lossy = [-1], lossy
        randomized(nn.Sequential(self.conv, self.norm, self.linear), 7)
        self.double().eval()

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.relu(self.norm(self.conv(x)))
        self.fuse[0] -= 1
        if self.fuse[0] == 0:
            raise RuntimeError("the fuse has blown")
        if self.lossy:
            hidden = hidden.sort(-1)[0]
        return self.linear(self.pool(hidden).flatten(1))  # type: ignore[no-any-return]


class Blown(Canonizer):
    """Fails after the canonizers in front of it have changed the model."""

    def apply(self, root_module: nn.Module) -> Any:
        raise RuntimeError("the fuse has blown")

    def register(self) -> None: ...

    def remove(self) -> None: ...


def marked_net(**options: Any) -> Net:
    """Every flag has a value that a careless restore would lose."""
    net = Net(**options)
    net.relu.train()
    net.conv.weight.requires_grad_(False)
    net.conv.weight.grad = torch.full_like(net.conv.weight, 2.0)
    net.linear.weight.grad = torch.ones_like(net.linear.weight)
    net.conv.register_forward_hook(lambda *_: None)
    net.linear.note = "user's"
    return net


def state(net: nn.Module) -> list[Any]:
    return [*trace(net), [buffer.tolist() for buffer in net.buffers()]]


def composite_of(name: str, **options: Any) -> Any:
    if name == "epsilon_gamma_box":
        options |= {"low": -4.0, "high": 4.0}
    return None if name == "none" else {**OURS, **UPSTREAM}[name](**options)


REFERENCES = ReferenceSet(images(12, seed=9), torch.arange(12) % 3, k=2)
# composite, attributor, options
ROWS: list[tuple[str, str, dict[str, Any]]] = [
    *((name, kind, {"reference": REFERENCES}) for name in OURS for kind in ("Gradient", "SmoothGrad", "Occlusion")),
    *((name, "Gradient", {"nontarget": "runner_up"}) for name in (*OURS, *UPSTREAM, "none") if name not in ("deconvnet", "beta_smooth")),
    *((name, kind, {}) for name in (*UPSTREAM, "none") for kind in ATTRIBUTORS),
    *(("none", kind, {"reference": REFERENCES, "nontarget": "others"}) for kind in ATTRIBUTORS[2:]),
    ("beta_smooth", "IntegratedGradients", {"reference": images(1, seed=4)}),
]  # fmt: skip
IDS = [f"{name}-{kind}-{'-'.join(options) or 'neutral'}" for name, kind, options in ROWS]


def build(net: nn.Module, name: str, kind: str, options: dict[str, Any], **of_composite: Any) -> Any:
    few = {"Gradient": {}, "Occlusion": {"window": 4, "stride": 4}}.get(kind, {"n_iter": 3})
    return getattr(adapters, f"Absence{kind}")(net, composite_of(name, **of_composite), **few, **options)


@pytest.mark.parametrize(("name", "kind", "options"), ROWS, ids=IDS)
def test_nothing_is_left_behind(name: str, kind: str, options: dict[str, Any]) -> None:
    """After normal use, a wrong target, a forward that raises, a registration that fails half-way, a loss of relevance."""
    needs_rules = name in CONSERVATIVE and kind != "Occlusion"
    accidents = ["none", "target", 1, *([2] if options else []), *(["register"] if name != "none" else [])]
    for accident in [*accidents, *(["lossy"] if needs_rules else [])]:
        net = marked_net(lossy=accident == "lossy")
        canonizers = [SequentialMergeBatchNorm(), *([Blown()] if accident == "register" else [])]
        attributor = build(net, name, kind, options, **({} if name == "none" else {"canonizers": canonizers}))
        # Zennit's hooks raise on an input that requires grad where grad is off, as in its Occlusion
        wants_grad = accident != "target" and not (kind == "Occlusion" and name in UPSTREAM)
        x = images(2).requires_grad_(wants_grad)
        x.grad = torch.full_like(x, 7.0)
        before, before_x, start = state(net), x.detach().clone(), random_states()
        constructed = {key: id(value) for key, value in vars(attributor).items()}
        if accident in (1, 2):
            net.fuse[0] = int(accident)
        target = torch.eye(5)[[0, 0]].double() if accident == "target" else one(0, 1)
        if accident == "none":
            attributor(x, target)
        elif accident == "target" and kind == "Occlusion" and not options:
            attributor(x, target)  # Zennit sums whatever it is given
        else:
            expected = (ConservationError,) if accident == "lossy" else (RuntimeError, ValueError)
            with pytest.raises(expected):
                attributor(x, target)
        assert state(net) == before, accident
        assert {key: id(value) for key, value in vars(attributor).items()} == constructed
        assert torch.equal(x, before_x)
        assert x.requires_grad == wants_grad
        assert x.is_leaf
        assert torch.equal(x.grad, torch.full_like(x, 7.0))
        if kind != "SmoothGrad":
            assert random_states() == start, accident
        if attributor.composite is not None:
            assert not attributor.composite.handles


class HalfMerged(SequentialMergeBatchNorm):
    """Fails with its own work half done, so that nobody holds a handle to undo it."""

    def apply(self, root_module: nn.Module) -> Any:
        super().apply(root_module)
        root_module.extra = True
        raise RuntimeError("the fuse has blown")


class HalfRegistered(adapters.AbsencePass):
    """Fails with some of its hooks on the module."""

    def register(self, module: nn.Module) -> Any:
        super().register(module)
        raise RuntimeError("the fuse has blown")


@pytest.mark.parametrize("name", OURS)
def test_a_context_of_the_composite_is_whole_or_not_at_all(name: str) -> None:
    net = marked_net()
    before = state(net)
    with composite_of(name, canonizers=[SequentialMergeBatchNorm()]).context(net) as registered:
        assert registered is net
        assert state(net) != before
    assert state(net) == before
    for options in (
        {"canonizers": [SequentialMergeBatchNorm(), Blown()]},
        {"canonizers": [HalfMerged()]},
        {"canonizers": [SequentialMergeBatchNorm()], "layer_map": [(nn.MaxPool2d, HalfRegistered())]},
    ):
        composite = composite_of(name, **options)
        for use in (composite.register, lambda model: AbsenceGradient(model, composite)(images(1), one(0))):  # noqa: B023
            with pytest.raises(RuntimeError, match="the fuse"):
                use(net)
            assert state(net) == before
            assert not composite.handles


@pytest.mark.parametrize("name", UPSTREAM)
def test_zennits_composites_are_whole_or_not_at_all_in_our_attributors(name: str) -> None:
    net = marked_net()
    before = state(net)
    for options in ({"canonizers": [HalfMerged()]}, {"layer_map": [(nn.MaxPool2d, HalfRegistered())]}):
        with pytest.raises(RuntimeError, match="the fuse"):
            AbsenceGradient(net, composite_of(name, **options))(images(1), one(0))
        assert state(net) == before


@pytest.mark.parametrize("options", [{"nontarget": 1}, {"nontarget": 1, "reference": images(1, seed=2)}], ids=str)
@pytest.mark.parametrize("kind", ["Gradient", "IntegratedGradients", "Occlusion"])
def test_extra_forwards_do_not_move_the_users_random_state(kind: str, options: dict[str, Any]) -> None:
    """A model that draws: the state afterwards is as if only Zennit's own forwards had run."""
    if kind == "Gradient" and "reference" in options:
        options = {**options, "composite": AbsenceEpsilonGamma()}
    few = {"Gradient": {}, "Occlusion": {"window": 4, "stride": 4}}.get(kind, {"n_iter": 2})
    net, drawn = conv_net(1), []
    net.register_forward_hook(lambda module, value, output: drawn.append(torch.rand(1)) or output)
    seeded()
    getattr(attribution, kind)(net, None, lambda output: output * one(0), **few)(images(1))
    expected = torch.get_rng_state()
    seeded()
    getattr(adapters, f"Absence{kind}")(net, attr_output=one(0), **few, **options)(images(1))
    assert torch.equal(torch.get_rng_state(), expected)


@pytest.mark.parametrize("kind", ATTRIBUTORS)
@pytest.mark.parametrize("name", [*UPSTREAM, "none"])
def test_neutral_is_zennit_bit_by_bit(name: str, kind: str) -> None:
    few = {"Gradient": {}, "Occlusion": {"window": 5, "stride": 4}}.get(kind, {"n_iter": 2})
    seeds: list[Any] = [None, one(1, 2), lambda output: output * one(0, 2)]
    for seed in seeds:
        results = []
        for host in (attribution, adapters):
            cls = getattr(host, kind if host is attribution else f"Absence{kind}")
            net, x = conv_net(5, "relu in place"), images(2)
            seeded()
            with cls(net, composite_of(name), seed, **few) as attributor:
                inside = attributor(x)
            outside = cls(net, composite_of(name), one(0, 0), **few)(x, seed if seed is not None else one(0, 0))
            results.append([*inside, *outside, torch.get_rng_state()])
        for theirs, ours in zip(*results, strict=True):
            assert torch.equal(theirs, ours)


@pytest.mark.parametrize("kind", ["Gradient", "SmoothGrad"])
@pytest.mark.parametrize("name", CONSERVATIVE)
def test_zennits_attributors_take_our_composites(name: str, kind: str) -> None:
    """Against zeros, with Zennit's own seeds: the same bits as our attributor with a reference of zeros."""
    few = {} if kind == "Gradient" else {"n_iter": 2}
    net, x, target = conv_net(6), images(2), one(1, 2)
    seeded()
    expected = getattr(adapters, f"Absence{kind}")(
        net, composite_of(name), **few, reference=torch.zeros((), dtype=x.dtype)
    )(x, target)[1]
    for seed in (target, lambda output: output * target):
        seeded()
        found = getattr(attribution, kind)(net, composite_of(name), **few)(x, seed)[1]
        assert torch.equal(found, expected)


def test_the_call_wins_over_the_constructor_and_with_registers_once() -> None:
    net, x, r = conv_net(1), images(1), images(1, seed=2)
    expected = [explain(net, AbsenceEpsilonGamma(), x, r, one(k)) for k in range(3)]
    composite = AbsenceEpsilonGamma()
    attributor = AbsenceGradient(net, composite, one(1), reference=r)
    assert torch.equal(attributor(x)[1], expected[1])
    with attributor as entered:
        assert entered is attributor
        handles = list(composite.handles)
        assert handles
        assert torch.equal(attributor(x)[1], expected[1])
        assert torch.equal(attributor(x, one(2))[1], expected[2])
        assert torch.equal(attributor(x, lambda output: output * one(0))[1], expected[0])
        assert torch.equal(attributor.explain(x).attribution, expected[1])
        assert all(a is b for a, b in zip(composite.handles, handles, strict=True))
    assert not composite.handles
    with composite.context(net) as registered:
        assert torch.equal(AbsenceGradient(registered, None, one(2), reference=r)(x)[1], expected[2])
    assert torch.equal(attributor.explain(x, one(2)).attribution, expected[2])


def test_one_call_leaves_no_reference_for_the_next() -> None:
    net, x, r, composite = conv_net(1), images(1), images(1, seed=2), AbsenceEpsilonGamma()
    zeros = explain(net, AbsenceEpsilonGamma(), x, torch.zeros(()), one(0))
    with composite.context(net):
        for accident in (False, True):
            if accident:
                with pytest.raises(ValueError, match="does not fit"):
                    AbsenceGradient(net, None, torch.eye(5)[[0]], reference=r)(x)
            else:
                AbsenceGradient(net, None, one(0), reference=r)(x)
            with pytest.warns(AbsenceWarning, match="compared with zeros"):
                found = attribution.Gradient(net)(x, lambda output: output * one(0))[1]
            assert torch.equal(found, zeros)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("name", OURS)
def test_the_type_of_the_numbers_is_kept(name: str, dtype: torch.dtype) -> None:
    net, x, r = conv_net(2, dtype=dtype), images(2, dtype=dtype), images(2, seed=3, dtype=dtype)
    exact = explain(conv_net(2), composite_of(name), x.double(), r.double())
    output, found = AbsenceGradient(net, composite_of(name), reference=r)(x, one(0, 0, dtype=dtype))
    assert output.dtype == found.dtype == dtype
    tolerance = {torch.float64: 1e-12, torch.float32: 1e-4, torch.bfloat16: 0.3}[dtype]
    assert relative(found.double(), exact) <= tolerance
    if name in CONSERVATIVE:
        assert relative(summed(found.double()), summed(exact)) <= tolerance


HOOKS = {
    "epsilon": AbsenceEpsilon(0.5),
    "gamma": adapters.AbsenceGamma(3.0, own_layer_epsilon=True),
    "alpha beta": adapters.AbsenceAlphaBeta(3, 2, stabilizer=0.1),
    "zplus": adapters.AbsenceZPlus(zero_params="bias"),
    "flat": adapters.AbsenceFlat(),
    "wsquare": adapters.AbsenceWSquare(),
    "norm": adapters.AbsenceNorm(0.25),
    "pass": adapters.AbsencePass(),
    "max": adapters.AbsenceMaxPool(),
}


def settings(hook: Any) -> dict[str, Any]:
    values = {**vars(hook), "stabilizer": getattr(getattr(hook, "stabilizer", None), "epsilon", None)}
    return {key: value for key, value in values.items() if isinstance(value, (int, float, bool, type(None)))}


@pytest.mark.parametrize("name", HOOKS)
def test_hooks_can_be_copied_and_hashed(name: str) -> None:
    hook = HOOKS[name]
    for copier in (lambda h: h.copy(), lambda h: h.copy().copy(), copy.copy, copy.deepcopy):
        clone = copier(hook)
        assert type(clone) is type(hook)
        assert settings(clone) == settings(hook)
        assert clone != hook
        assert len({hook, clone, hook}) == 2
    clone = hook.copy()
    clone.stored_tensors["x"] = torch.zeros(1)
    assert not hook.stored_tensors
    assert clone.pairs is not hook.pairs


@pytest.mark.parametrize("name", CONSERVATIVE)
def test_composites_can_be_hashed_and_used_again_on_other_models(name: str) -> None:
    composite = composite_of(name)
    assert len({composite, composite_of(name), composite}) == 2
    for seed, activation in ((1, "relu"), (2, "tanh"), (1, "relu")):
        net = conv_net(seed, activation)
        found = explain(net, composite, images(1), images(1, seed=2))
        assert torch.equal(found, explain(net, composite_of(name), images(1), images(1, seed=2)))
        assert relative(explain(copy.deepcopy(net), composite, images(1), images(1, seed=2)), found) == 0


# -- our rules in Zennit's own composites -----------------------------------------------------------------------------

MAPS: dict[str, Callable[[], Any]] = {
    "layer map": lambda: LayerMapComposite([(nn.Linear, AbsenceEpsilon())]),
    "name map": lambda: NameMapComposite([(["0"], AbsenceEpsilon())]),
    "mixed": lambda: MixedComposite([NameMapComposite([(["1"], AbsenceEpsilon())]), AbsenceEpsilonGamma()]),
}


@pytest.mark.parametrize("name", MAPS)
def test_without_a_pair_our_rules_say_what_to_use(name: str) -> None:
    net, x = nn.Sequential(nn.Linear(4, 3)).double(), torch.randn(2, 4).double()
    for kind in ("Gradient", "SmoothGrad", "IntegratedGradients"):
        with pytest.raises(ValueError, match=r"AbsenceEpsilon compares .* none was paired; use AbsenceGradient"):
            getattr(attribution, kind)(net, MAPS[name]())(x, torch.ones(2, 3).double())
    assert not net[0]._forward_hooks
    found = AbsenceGradient(net, MAPS[name](), reference=x[:1])(x, one(1, 1))[1]
    assert torch.allclose(found, (x - x[:1]) * net[0].weight[1].detach(), rtol=1e-9)


def test_guided_backprop_in_a_mixed_composite() -> None:
    """AbsenceGuidedBackprop's ReLU hook needs the batch [x, x, x], which only the composite itself makes."""
    # the hook drops the last third of the user's batch, silently (guided.py, AbsenceReLUGuidedBackprop.backward)
    net, x = conv_net(1), images(3)
    mixed = MixedComposite([adapters.AbsenceGuidedBackprop()])
    try:
        found = attribution.Gradient(net, mixed)(x, one(0, 0, 0))[1]
    except ValueError as error:
        assert "AbsenceGuidedBackprop" in str(error)  # noqa: PT017
    else:
        expected = attribution.Gradient(net, UPSTREAM["guided_backprop"]())(x, one(0, 0, 0))[1]
        assert torch.allclose(found, expected)
