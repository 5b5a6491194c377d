"""Bad input: the message names the value and says what would be right, or what to use instead."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from threading import get_ident
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from zennit import attribution
from zennit.composites import BetaSmooth, DeconvNet, EpsilonPlus, LayerMapComposite, NameMapComposite
from zennit_nets import CONSERVATIVE, OURS, conv_net, dense_net, explain, images, one, rows, summed

import absence_plugins.zennit as adapters
from absence_plugins import ReferenceSet
from absence_plugins.core import AbsenceWarning
from absence_plugins.zennit import (
    AbsenceEpsilon,
    AbsenceEpsilonGamma,
    AbsenceGradient,
    AbsenceGuidedBackprop,
    AbsenceIntegratedGradients,
    AbsenceOcclusion,
    nontarget,
)
from absence_plugins.zennit.root_hook import Question

pytestmark = pytest.mark.filterwarnings("ignore")


# -- what is explained ------------------------------------------------------------------------------------------------

SEEDS: dict[str, tuple[Any, type[Exception], str]] = {
    "zeros": (torch.zeros(1, 3), ValueError, r"names no output for sample 0: .*torch.eye\(K\)\[\[k\]\]"),
    "zeros for one": (one(0, 1) * torch.tensor([[1.0], [0.0]]), ValueError, "names no output for sample 1"),
    "shape": (torch.eye(4)[[0]], ValueError, r"attr_output of shape \(1, 4\) does not fit outputs of shape \(2, 3\)"),
    "batch": (torch.eye(3), ValueError, r"attr_output of shape \(3, 3\) does not fit outputs of shape \(2, 3\)"),
    "integer": (1, TypeError, "attr_output must be a tensor, .* got int"),
    "list": ([1.0, 0.0, 0.0], TypeError, "attr_output must be a tensor, .* got list"),
    "function of nothing": (lambda output: None, TypeError, "attr_output must be a tensor, .* got NoneType"),
    "function of zeros": (lambda output: output * 0, ValueError, "names no output for sample 0"),
}


@pytest.mark.parametrize("case", SEEDS)
def test_attr_output(case: str) -> None:
    seed, error, message = SEEDS[case]
    net, x, r = dense_net(1), rows(2), rows(2, seed=2)
    for attributor in (
        AbsenceGradient(net, AbsenceEpsilonGamma(), reference=r),
        AbsenceGradient(net, nontarget="others"),
        AbsenceIntegratedGradients(net, reference=r),
        AbsenceOcclusion(net, None, window=1, stride=1, reference=r),
    ):
        with pytest.raises(error, match=message):
            attributor(x, seed)


def test_two_outputs_where_one_is_needed() -> None:
    net, x = dense_net(1), rows(2)
    references = ReferenceSet(rows(9, seed=3), torch.arange(9) % 3, k=1)
    for seed in (torch.ones(1, 3), None, one(0, 1) + one(2, 2)):
        for options, purpose in (
            ({"nontarget": "runner_up"}, "a non-target"),
            ({"reference": references}, "ReferenceSet"),
        ):
            with pytest.raises(ValueError, match=rf"names \d outputs of sample 0, but .*{purpose}.*needs one target"):
                AbsenceGradient(net, AbsenceEpsilonGamma(), seed, **options)(x)


NONTARGETS: dict[str, tuple[Any, type[Exception], str]] = {
    "word": ("best", ValueError, "'best' is not known: use 'runner_up', 'others'"),
    "target": (0, ValueError, "non-target 0 of sample 0 is the target itself"),
    "missing": (9, ValueError, r"non-target \[9, 9\] does not exist: class indices go from 0 to 2"),
    "negative": (-1, ValueError, r"non-target \[-1, -1\] does not exist"),
    "boolean": (True, TypeError, "got True"),
    "fraction": (1.5, TypeError, r"got 1\.5"),
    "number": ([1, 2, 1], ValueError, "3 targets for 2 samples"),
    "function": (lambda outputs, target: 1, TypeError, "must return a tensor of 2 class indices, got int"),
}


@pytest.mark.parametrize("case", NONTARGETS)
def test_nontargets(case: str) -> None:
    given, error, message = NONTARGETS[case]
    net, x = dense_net(1), rows(2)
    with pytest.raises(error, match=message):
        AbsenceGradient(net, AbsenceEpsilonGamma(), one(0, 0), nontarget=given)(x)
    with pytest.raises(error, match=message):
        attribution.Gradient(net, EpsilonPlus(), nontarget([0, 0], given))(x)


# -- what it is compared with -----------------------------------------------------------------------------------------


def test_references() -> None:
    net, x = dense_net(1), rows(2)
    for shape in ((4,), (3, 5), (2, 2, 5), (2, 5, 1)):
        for attributor in (
            AbsenceGradient(net, AbsenceEpsilonGamma(), reference=torch.zeros(shape)),
            AbsenceIntegratedGradients(net, reference=torch.zeros(shape)),
            AbsenceOcclusion(net, None, window=1, stride=1, reference=torch.zeros(shape)),
        ):
            with pytest.raises(ValueError, match=r"reference of shape .* does not broadcast to inputs of shape"):
                attributor(x, one(0, 0))
    with pytest.raises(ValueError, match=r"inputs have shape \(5,\), references \(4,\)"):
        AbsenceGradient(net, AbsenceEpsilonGamma(), reference=ReferenceSet(torch.zeros(9, 4), k=1))(x, one(0, 0))
    for value in (0.0, [0.0], "zeros", rows(2).numpy()):
        with pytest.raises(TypeError, match=f"must be a ReferenceSet or a tensor, got {type(value).__name__}"):
            AbsenceGradient(net, AbsenceEpsilonGamma(), reference=value)
    with pytest.raises(ValueError, match="tuples of inputs"):
        AbsenceGradient(net, AbsenceEpsilonGamma(), reference=ReferenceSet((rows(9), rows(9))))


@pytest.mark.parametrize("kind", ["Gradient", "SmoothGrad"])
def test_a_reference_that_nothing_is_compared_with(kind: str) -> None:
    for composite, name in ((None, "no composite"), (EpsilonPlus(), "EpsilonPlus")):
        attributor = getattr(adapters, f"Absence{kind}")(dense_net(1), composite, one(0, 0), reference=rows(2))
        message = f"Absence{kind} with {name} compares with no reference; pass composite=AbsenceEpsilonGamma"
        for use in (attributor, attributor.explain):
            with pytest.raises(ValueError, match=message):
                use(rows(2))


def test_refused_composites() -> None:
    net = dense_net(1)
    for cls, options in ((adapters.AbsenceDeconvNet, {}), (adapters.AbsenceBetaSmooth, {"beta_smooth": 3.0})):
        with pytest.warns(AbsenceWarning, match=r"cannot show absences: .*use AbsenceEpsilonGamma.* Zennit's own"):
            made = cls(**options)
        host = cls.__bases__[0](**options)
        kinds = (AbsenceGradient, attribution.Gradient)
        found, expected = (
            kind(net, one)(rows(2), torch.eye(3)[[0, 0]].double())[1]
            for kind, one in zip(kinds, (made, host), strict=True)
        )
        assert torch.equal(found, expected)
    for composite in (DeconvNet(), BetaSmooth(), adapters.AbsenceDeconvNet(), adapters.AbsenceBetaSmooth()):
        for given in ({"reference": rows(2)}, {"nontarget": 1}):
            with pytest.raises(ValueError, match=r"cannot show absences: .*use AbsenceEpsilonGamma"):
                AbsenceGradient(net, composite, **given)
        AbsenceGradient(net, composite)
        AbsenceIntegratedGradients(net, composite, reference=rows(2))


def test_contradictions() -> None:
    net, r = dense_net(1), rows(2)
    with pytest.raises(ValueError, match=r"baseline_fn and reference both .*pass one of them"):
        AbsenceIntegratedGradients(net, baseline_fn=torch.zeros_like, reference=r)
    with pytest.raises(ValueError, match=r"occlusion_fn and reference both .*pass one of them"):
        AbsenceOcclusion(net, occlusion_fn=lambda x, mask: x, reference=r)
    with pytest.raises(ValueError, match="a difference already, and no gradient to integrate; use AbsenceGradient"):
        AbsenceIntegratedGradients(net, AbsenceEpsilonGamma(), one(0, 0), reference=r)(rows(2))
    with pytest.raises(ValueError, match="only what is present; pass reference=ReferenceSet"):
        AbsenceGradient(net, AbsenceEpsilonGamma(), one(0, 0)).explain(rows(2))


# -- inputs and models ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
@pytest.mark.parametrize("kind", ["Gradient", "SmoothGrad", "IntegratedGradients", "Occlusion"])
def test_inputs_that_are_no_numbers(kind: str, value: float) -> None:
    # IntegratedGradients and Occlusion return NaN (attributor.py, _plan)
    x = rows(2)
    x[1, 2] = value
    composite = AbsenceEpsilonGamma() if kind in ("Gradient", "SmoothGrad") else None
    few: dict[str, Any] = {"window": 1, "stride": 1} if kind == "Occlusion" else {}
    for reference in (rows(2, seed=2), ReferenceSet(rows(9, seed=3), torch.arange(9) % 3, k=1)):
        with pytest.raises(ValueError, match="output 0 of sample 1 is NaN or infinite"):
            getattr(adapters, f"Absence{kind}")(dense_net(1), composite, one(0, 0), reference=reference, **few)(x)


def test_a_unit_that_is_no_number() -> None:
    # an IndexError (core/targets.py, check_logits: flatten(1) of outputs [B])
    net = nn.Sequential(nn.Linear(5, 1), nn.Flatten(0)).double()
    with pytest.raises(ValueError, match="output of sample 1 is NaN"):
        AbsenceGradient(net, AbsenceEpsilonGamma(), reference=rows(1))(rows(2) * torch.tensor([[1.0], [torch.nan]]))


def test_a_reference_that_is_no_number() -> None:
    # "a rule of the composite may not fit its module" (pairing.py, expanded_reference)
    with pytest.raises(ValueError, match=r"reference .*(NaN|finite)"):
        explain(dense_net(1), AbsenceEpsilonGamma(), rows(2), rows(2, seed=2) * torch.nan)


@pytest.mark.parametrize("name", OURS)
def test_empty_batches(name: str) -> None:
    for host in (attribution.Gradient, AbsenceGradient):
        with pytest.raises(ValueError, match=r"the input has shape \(0, 5\); it needs at least one sample"):
            host(dense_net(1), OURS[name]())(rows(2)[:0], one(0)[:0])
    with pytest.raises(ValueError, match=r"the input has shape \(\)"):
        AbsenceGradient(dense_net(1), OURS[name]())(torch.tensor(1.0), one(0))


@dataclass
class Scores:
    logits: Tensor


class Odd(nn.Module):
    """A model with an interface that Zennit has no word for."""

    def __init__(self, form: str) -> None:
        super().__init__()
        self.form, self.dense = form, nn.Linear(5, 3).double()

    def forward(self, x: Tensor, *others: Tensor) -> Any:
        out = self.dense(x)
        forms = {
            "object": Scores(out),
            "tuple": (out, out),
            "dict": {"out": out},
            "sum": out.sum(),
            "mean": out.mean(0),
            "first": out[:1],
        }
        return forms.get(self.form, out)


@pytest.mark.parametrize("form", ["tuple", "sum", "mean", "first"])
def test_models_that_return_something_else(form: str) -> None:
    net, x = Odd(form), rows(2)
    named = {"tuple": "tuple with 0", "sum": r"\(\)", "mean": r"\(3,\)", "first": r"\(1, 3\)"}[form]
    for name in ("absence_epsilon_gamma", "absence_guided_backprop"):
        with pytest.raises(ValueError, match=rf"must return one row of outputs per sample( \(2\))?, got {named}"):
            explain(net, OURS[name](), x, rows(2, seed=2))
        with pytest.raises(ValueError, match=r"wrap it so that|must return one row of outputs per sample"):
            attribution.Gradient(net, OURS[name]())(x, one(0, 0))


@pytest.mark.parametrize("form", ["dict", "object"])
def test_models_that_return_an_object_with_scores(form: str) -> None:
    net, x, r = Odd(form), rows(2), rows(2, seed=2)
    plain = Odd("tensor")
    plain.load_state_dict(net.state_dict())
    for name in ("absence_epsilon_gamma", "absence_guided_backprop"):
        assert torch.equal(explain(net, OURS[name](), x, r), explain(plain, OURS[name](), x, r))
    for kind in (AbsenceIntegratedGradients, partial(AbsenceOcclusion, window=1, stride=1)):
        maps = [kind(model, reference=r)(x, one(0, 0))[1] for model in (net, plain)]
        assert torch.equal(*maps)
    with OURS["absence_epsilon_gamma"]().context(net) as model:
        assert torch.equal(model(x.requires_grad_()), plain(x))
    assert not net._forward_hooks


@pytest.mark.parametrize("context", [torch.no_grad, torch.inference_mode])
def test_inside_blocks_without_gradients(context: Any) -> None:
    net, x, r = dense_net(1), rows(2), rows(2, seed=2)
    expected = explain(net, AbsenceEpsilonGamma(), x, r)
    with context():
        assert torch.equal(explain(net, AbsenceEpsilonGamma(), rows(2), r), expected)


def test_integers_and_training_mode_and_names_of_nothing() -> None:
    net = nn.Sequential(nn.Linear(5, 4), nn.BatchNorm1d(4), nn.Linear(4, 3)).double()
    before = {key: value.clone() for key, value in net.state_dict().items()}
    with pytest.raises(ValueError, match=r"1 \(BatchNorm1d\) is in training mode.*call model\.eval\(\)"):
        AbsenceIntegratedGradients(net, reference=rows(1))(rows(2), one(0, 0))
    assert all(torch.equal(value, before[key]) for key, value in net.state_dict().items())
    with pytest.raises(ValueError, match=r"the input is int64.*input\.float\(\).*AbsenceLayerIntegratedGradients"):
        explain(net.eval(), AbsenceEpsilonGamma(), torch.ones(2, 5, dtype=torch.long))
    composite = NameMapComposite([(["layer"], AbsenceEpsilon())])
    with pytest.raises(
        ValueError, match=r"no name of NameMapComposite fits a module: the model has no layer 'layer'; it has: "
    ):
        explain(net, composite, rows(2), rows(1))


def test_one_reference_for_several_inputs_that_want_gradients() -> None:
    net, composite = Odd("plain"), AbsenceEpsilonGamma()
    with composite.context(net):
        (root,) = (hook.__self__ for hook in net._forward_hooks.values())
        root.questions[get_ident()] = Question(rows(2, seed=2))
        with pytest.raises(ValueError, match=r"2 inputs require gradients, and there is one reference; let the others"):
            net(rows(2).requires_grad_(), rows(2).requires_grad_())
    assert not net._forward_pre_hooks


def test_the_batch_may_leave_its_place() -> None:
    class Turned(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner, self.dense = nn.Linear(5, 4), nn.Linear(12, 3)
            self.double()

        def forward(self, x: Tensor) -> Tensor:
            return self.dense(self.inner(x.transpose(0, 1)).transpose(0, 1).flatten(1))  # type: ignore[no-any-return]

    x, r = torch.randn(2, 2, 3, 5, generator=torch.Generator().manual_seed(0)).double()
    net = Turned()
    found = explain(net, AbsenceEpsilonGamma(), x, r)
    gradient = torch.autograd.functional.jacobian(lambda value: net(value)[:, 0].sum(), x)
    assert torch.allclose(found, gradient * (x - r))  # it is linear


def test_callables_that_are_no_modules() -> None:
    """Without a composite Zennit's attributors take any function."""
    # AttributeError: 'function' object has no attribute 'modules' (pairing.py, hooks_on)
    net, x = dense_net(1), rows(2)
    expected = attribution.Gradient(lambda value: net(value))(x, one(0, 0))[1]
    assert torch.equal(AbsenceGradient(lambda value: net(value))(x, one(0, 0))[1], expected)


# -- settings of rules ------------------------------------------------------------------------------------------------


def test_settings_of_rules() -> None:
    for gamma in (0, -1.0, torch.nan):
        for build in (adapters.AbsenceGamma, lambda value: AbsenceEpsilonGamma(gamma=value)):
            with pytest.raises(ValueError, match=rf"gamma={gamma!r} must be above 0; gamma=0 is AbsenceEpsilon"):
                build(gamma)
    for pair in ((2, 0), (-1, -2), (0.5, -0.5), (1, 1)):
        with pytest.raises(ValueError, match=rf"alpha={pair[0]!r} and beta={pair[1]!r} must not be negative"):
            adapters.AbsenceAlphaBeta(*pair)
    for names in (["weight"], "weight", ["bias", "weight"]):
        for cls in (
            adapters.AbsenceZPlus,
            adapters.AbsenceEpsilon,
            AbsenceEpsilonGamma,
            adapters.AbsenceEpsilonPlusFlat,
        ):
            with pytest.raises(ValueError, match=r"zero_params=.*weight.* nothing is left to share out; leave"):
                cls(zero_params=names)
    for value in ("a", [1.0]):
        with pytest.raises(TypeError, match="is not a valid stabilizer"):
            adapters.AbsenceEpsilon(value)
    pool = LayerMapComposite([(nn.AvgPool1d, adapters.AbsenceGamma())])  # nothing in it has a weight
    x = rows(1)[:, None]
    found = explain(nn.AvgPool1d(2), pool, x, torch.zeros(()), torch.ones(1, 1, 2))
    assert torch.allclose(found[..., :4], x[..., :4] / 2)


def test_zero_params_bias_changes_nothing() -> None:
    for name, composite in CONSERVATIVE.items():
        for names in ("bias", ["bias"]):
            found = explain(dense_net(1), composite(zero_params=names), rows(2), rows(2, seed=2))
            assert torch.equal(found, explain(dense_net(1), composite(), rows(2), rows(2, seed=2))), name


@pytest.mark.parametrize("name", CONSERVATIVE)
def test_a_large_stabilizer_absorbs_and_is_no_error(name: str) -> None:
    """R is multiplied by d / (d + epsilon sign d) at every layer that has one; with a function, by d / f(d)."""
    net, x, r = conv_net(1), images(2), images(2, seed=2)
    options = {"epsilon": 5.0} if name != "absence_excitation_backprop" else {}
    exact, damped = (explain(net, CONSERVATIVE[name](**given), x, r) for given in ({}, {"stabilizer": 2.0, **options}))
    assert bool((summed(damped).abs() < 0.5 * summed(exact).abs()).all())
    assert float(damped.abs().max()) > 0
    halved = explain(nn.Sequential(nn.Linear(5, 3), nn.ReLU(), nn.Linear(3, 3)).double(), LayerMapComposite([(nn.Linear, AbsenceEpsilon(lambda d: 2 * d)), (nn.ReLU, adapters.AbsencePass())]), rows(2), rows(2, seed=2))  # fmt: skip
    assert float(halved.abs().max()) > 0


def test_a_stabilizer_on_paper() -> None:
    net = nn.Sequential(nn.Linear(2, 1, bias=False), nn.ReLU(), nn.Linear(1, 1, bias=False)).double()
    net[0].weight.data, net[2].weight.data = torch.tensor([[1.0, 1.0]]).double(), torch.tensor([[2.0]]).double()
    x, r = torch.tensor([[3.0, 1.0]]).double(), torch.zeros(2).double()
    for epsilon, expected in (
        (0.0, [6.0, 2.0]),
        (4.0, [3 * 2 / 3 / 2 * 2, 2 / 3 / 2 * 2]),
        (lambda d: 2 * d, [1.5, 0.5]),
    ):
        rules = [(nn.Linear, AbsenceEpsilon(epsilon)), (nn.ReLU, adapters.AbsencePass())]
        found = explain(net, LayerMapComposite(rules), x, r, torch.ones(1, 1).double())
        assert found[0].tolist() == pytest.approx(expected)  # 4: 8 / (8 + 4) above, 4 / (4 + 4) below


def test_guided_backprop_takes_no_other_settings() -> None:
    with pytest.raises(TypeError, match="epsilon"):
        AbsenceGuidedBackprop(epsilon=1.0)


@pytest.mark.parametrize("word", ["runner_up", "others", "margin"])
def test_labels_that_are_no_rivals_have_no_runner_up(word: str) -> None:
    several = ReferenceSet(torch.rand(2, 3), torch.tensor([[1, 1, 0], [0, 0, 0]]), k=1)
    with pytest.raises(ValueError, match=r"which are no rivals.*nontarget='target'"):
        AbsenceGradient(nn.Linear(3, 3), AbsenceEpsilonGamma(), reference=several, nontarget=word)


@pytest.mark.parametrize("options", [{}, {"reference": torch.zeros(5).double()}])
def test_class_numbers_are_no_outputs(options: dict[str, Any]) -> None:
    class Predicted(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.scores = nn.Linear(5, 3).double()

        def forward(self, x: Tensor) -> Tensor:
            return self.scores(x).argmax(1)

    for name in ("Gradient", "SmoothGrad"):
        with pytest.raises(ValueError, match=r"the model returns int64, which are no scores .*argmax"):
            getattr(adapters, f"Absence{name}")(Predicted(), adapters.AbsenceEpsilonGamma(), **options)(rows(2))
