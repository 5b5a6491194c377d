"""One table of all adapters and the settings they accept, run through the same checks; then each trap on its own."""

from __future__ import annotations

import copy
import pickle
import random
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from adapter_table import (
    ADAPTERS,
    CLASSES,
    REFUSING,
    ROWS,
    STOCHASTIC,
    WITHOUT_BASELINE,
    Net,
    arguments,
    build,
    has_target,
    images,
    references,
    settings_of,
)
from captum import attr
from captum.attr import DataLoaderAttribution, NoiseTunnel
from captum.attr._utils.lrp_rules import GammaRule
from captum.metrics import infidelity, sensitivity_max
from torch import Tensor, nn

import absence_plugins.captum as adapters
from absence_plugins import ReferenceSet
from absence_plugins.core import AbsenceWarning

pytestmark = pytest.mark.filterwarnings("ignore")
DETERMINISTIC = [row for row in ROWS if row[0] not in STOCHASTIC]
TOLERANCE = {"rtol": 1e-9, "atol": 1e-10}
SINGLE_PRECISION = {"AbsenceOcclusion", "AbsenceShapleyValues"}  # Captum collects these in float32


def method(row: tuple[str, str, str], net: nn.Module, **more: Any) -> Any:
    name, setting, evidence = row
    return build(ADAPTERS[name], net, **dict(settings_of(name))[setting], evidence=evidence, **more)


def call(row: tuple[str, str, str], samples: int) -> dict[str, Any]:
    """Arguments of ``attribute``; against a user's own baselines where the setting brings none."""
    cls = ADAPTERS[row[0]]
    options = arguments(cls, baselines=row[1] in ("default", "others"))
    if has_target(cls):
        options["target"] = torch.arange(samples) % CLASSES
    elif row[1] == "default" and row[2] != "signed":
        options.pop("baselines", None)
        if cls.__name__.endswith("Shap"):  # blank ones: the question stays what holds the neuron down
            options["baselines"] = torch.zeros(2, 1, 5, 5, dtype=torch.float64)
    return options


def seeded() -> None:
    torch.manual_seed(3)
    np.random.seed(3)
    random.seed(3)


def random_states() -> tuple[Any, ...]:
    numpy_state = np.random.get_state()
    return torch.get_rng_state().tolist(), numpy_state[1].tolist(), numpy_state[2:], random.getstate()  # type: ignore[union-attr, index]


def marked_net(seed: int = 0) -> Net:
    """A net whose every flag has a value that a careless restore would lose."""
    net = Net(seed)
    net.relu.train()  # no effect on values
    net.conv.weight.requires_grad_(False)
    net.conv.weight.grad = torch.full_like(net.conv.weight, 2.0)
    net.linear.weight.grad = torch.ones_like(net.linear.weight)
    net.conv.register_forward_hook(lambda *_: None)
    net.linear.note = "user's"
    return net


def trace(net: nn.Module) -> list[Any]:
    """Everything about a model that must stay: attributes, hooks, flags, values, gradients."""
    state: list[Any] = []
    for module in net.modules():
        for name, value in sorted(vars(module).items()):
            if name == "fuse":
                continue
            if isinstance(value, dict):
                state.append((name, [(key, id(entry)) for key, entry in value.items()]))
            else:
                state.append((name, value if isinstance(value, (bool, str)) else id(value)))
    for parameter in net.parameters():
        grad = parameter.grad
        state.append((parameter.requires_grad, parameter.tolist(), None if grad is None else (id(grad), grad.tolist())))
    return state


@pytest.mark.parametrize("row", ROWS, ids="-".join)
def test_nothing_is_left_behind(row: tuple[str, str, str]) -> None:
    """Normal use, a wrong target (or neuron), a module that raises at its first and its second forward."""
    samples = 1 if row[0] == "AbsenceLimeBase" else 3
    for accident in ("none", "target", 1, 2):
        net, x = marked_net(), images(samples).requires_grad_()
        x.grad = torch.full_like(x, 7.0)
        options, before_x = call(row, samples), x.detach().clone()
        if accident == "target":
            options["target" if has_target(ADAPTERS[row[0]]) else "neuron_selector"] = (
                99 if has_target(ADAPTERS[row[0]]) else (99, 0, 0)
            )
        explainer, before = method(row, net), trace(net)
        constructed = {name: id(value) for name, value in vars(explainer).items()}
        seeded()
        start = random_states()
        if accident in (1, 2):
            net.fuse[0] = int(accident)
        if accident == "none":
            explainer.attribute(x, **options)
        else:
            expected = RuntimeError if accident in (1, 2) else (ValueError, AssertionError)
            with pytest.raises(expected):
                explainer.attribute(x, **options)
        assert trace(net) == before, accident
        assert {name: id(value) for name, value in vars(explainer).items()} == constructed
        assert torch.equal(x, before_x)
        assert x.requires_grad
        assert x.is_leaf
        assert torch.equal(x.grad, torch.full_like(x, 7.0))
        if row[0] not in STOCHASTIC or accident == "target":
            assert random_states() == start, accident


@pytest.mark.parametrize("row", DETERMINISTIC, ids="-".join)
def test_a_batch_is_its_samples(row: tuple[str, str, str]) -> None:
    net, x, options = Net(), images(3), call(row, 3)
    whole = method(row, net).attribute(x, **options)
    assert whole.dtype == (torch.float32 if row[0] in SINGLE_PRECISION else torch.float64)
    for sample in range(3):
        one = dict(options)
        if "target" in one:
            one["target"] = int(one["target"][sample])
        alone = method(row, net).attribute(x[sample : sample + 1], **one)
        tolerance = {"rtol": 1e-5, "atol": 1e-5} if row[0] in SINGLE_PRECISION else TOLERANCE
        assert torch.allclose(whole[sample : sample + 1], alone, **tolerance)


@pytest.mark.parametrize("row", ROWS, ids="-".join)
def test_copies_and_pickles_give_the_same_bits_and_the_same_draws(row: tuple[str, str, str]) -> None:
    samples = 1 if row[0] == "AbsenceLimeBase" else 2
    explainer = method(row, Net())
    results = []
    copies = [explainer, copy.deepcopy(explainer)]
    if row[0] != "AbsenceLime":  # its default similarity is a local function of Captum's
        copies.append(pickle.loads(pickle.dumps(explainer)))
    for copied in copies:
        seeded()
        results.append((copied.attribute(images(samples), **call(row, samples)), random_states()))
    for result, state in results[1:]:
        assert torch.equal(result, results[0][0])
        assert state == results[0][1]


@pytest.mark.parametrize("row", [row for row in DETERMINISTIC if row[2] == "signed"], ids="-".join)
def test_tuples_stay_tuples_and_hold_the_same_map(row: tuple[str, str, str]) -> None:
    name = row[0].removeprefix("Absence")
    net, x, options = Net(), images(2), call(row, 2)
    plain = method(row, net).attribute(x, **options)
    if "baselines" in options:
        options["baselines"] = (options["baselines"],)
    if "sliding_window_shapes" in options:
        options["sliding_window_shapes"] = (options["sliding_window_shapes"],)
    wrapped = method(row, net).attribute((x,), **options)
    if name.startswith(("Layer", "InternalInfluence")):
        assert torch.equal(wrapped, plain)  # the form of the layer's output, as in Captum
    else:
        assert isinstance(wrapped, tuple)
        assert len(wrapped) == 1
        assert torch.equal(wrapped[0], plain)


@pytest.mark.parametrize("row", [row for row in ROWS if row[2] == "absence"], ids="-".join)
def test_parts_are_magnitudes_and_agree_with_explain(row: tuple[str, str, str]) -> None:
    samples = 1 if row[0] == "AbsenceLimeBase" else 3
    options, parts = call(row, samples), {}
    for evidence in ("signed", "absence", "presence"):
        seeded()
        parts[evidence] = method((*row[:2], evidence), Net()).attribute(images(samples), **options)
    seeded()
    explanation = method(row, Net()).explain(images(samples), **options)
    assert torch.equal(explanation.attribution, parts["signed"])
    assert torch.equal(explanation.absence, parts["absence"])
    assert torch.equal(explanation.presence, parts["presence"])
    assert float(parts["absence"].min()) >= 0
    assert float(parts["presence"].min()) >= 0
    if explanation.view == "nontarget":
        presence, held = parts["signed"].clamp(min=0), (-parts["signed"]).clamp(min=0)
        assert torch.equal(parts["presence"], presence)
        if row[1] == "both" and row[0] != "AbsenceInternalInfluence":
            each = (-explanation.per_reference).clamp(min=0).mean(1)  # content of x holds down, not all that does
            assert float((parts["absence"] - each).max()) <= 1e-6 < float(each.max())
        elif row[1] != "both":
            assert torch.equal(parts["absence"], held)
    if row[1] in ("reference", "both"):
        assert torch.allclose(explanation.per_reference.mean(1), parts["signed"], **TOLERANCE)
        assert explanation.reference_output.shape == (samples, 2)


SAME_ALGORITHM = {"AbsenceGuidedBackprop", "AbsenceLayerFeaturePermutation"}  # changed on purpose, tested below


@pytest.mark.parametrize(
    "name", [n for n in ADAPTERS if n not in REFUSING | SAME_ALGORITHM and has_target(ADAPTERS[n])]
)
def test_the_default_is_one_host_call_on_the_runner_up(name: str) -> None:
    """The same bits, and the same random draws, as the host called on that output."""
    host, samples = getattr(attr, name.removeprefix("Absence")), 1 if name == "AbsenceLimeBase" else 3
    net, x, options = Net(), images(samples), arguments(ADAPTERS[name], baselines=True)
    target = torch.arange(samples) % CLASSES
    runner_up = net(x).detach().scatter(1, target[:, None], -torch.inf).argmax(1)
    seeded()
    found, state = build(ADAPTERS[name], net).attribute(x, target=target, **options), random_states()
    if name == "AbsenceSaliency":
        options["abs"] = False
    seeded()
    expected = build(host, net).attribute(x, target=runner_up, **options).detach()
    assert random_states() == state
    if "DeepLift" in name:  # the host is not complete here, see below
        assert found.shape == expected.shape
    else:
        assert torch.equal(found, expected)


@pytest.mark.parametrize("name", [n for n in ADAPTERS if n not in REFUSING | STOCHASTIC | WITHOUT_BASELINE])
def test_references_are_the_mean_of_host_calls(name: str) -> None:
    host = getattr(attr, name.removeprefix("Absence"))
    net, x, options, given = Net(), images(3), arguments(ADAPTERS[name]), references()
    target = torch.tensor([0, 1, 2])
    if has_target(ADAPTERS[name]):
        options["target"] = target
        nearest = given.nearest(x, target)
    else:
        nearest = given.nearest(x)
    found = build(ADAPTERS[name], net, reference=given).attribute(x, **options)
    key = "layer_baselines" if name == "AbsenceLayerFeatureAblation" else "baselines"
    host = {"AbsenceDeepLiftShap": attr.DeepLift, "AbsenceLayerDeepLiftShap": attr.LayerDeepLift}.get(name, host)
    host = attr.NeuronDeepLift if name == "AbsenceNeuronDeepLiftShap" else host
    if "DeepLift" in name:  # a host that is complete: an identity that is no module stands between
        net.pool.register_forward_pre_hook(lambda module, value: (value[0].clone(),))
    each = []
    for column in range(2):
        base = nearest[:, column]
        each.append(build(host, net).attribute(x, **options, **{key: net.conv(base) if "layer" in key else base}))
    assert torch.allclose(found, torch.stack(each).mean(0).detach(), **TOLERANCE)


@pytest.mark.parametrize("name", sorted(REFUSING))
def test_classes_that_cannot_show_absences_say_why_and_what_can(name: str) -> None:
    for options in (
        {},
        {"nontarget": "others"},
        {"nontarget": None, "evidence": "absence"},
        {"reference": references()},
    ):
        if (
            name.startswith("AbsenceNeuron")
            and options.get("nontarget", "auto") is not None
            and "reference" not in options
        ):
            options = {}
        with pytest.raises(ValueError, match=f"{name} cannot show absences: it .*; use Absence"):
            build(ADAPTERS[name], Net(), **options)


@pytest.mark.parametrize("name", sorted(WITHOUT_BASELINE))
def test_classes_without_baseline_refuse_references_with_an_alternative(name: str) -> None:
    with pytest.raises(ValueError, match=f"{name} takes no reference: .*(use|put) "):
        build(ADAPTERS[name], Net(), reference=references())


# -- combinations of outputs ------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["IntegratedGradients", "InputXGradient", "FeatureAblation", "LayerConductance"])
def test_others_is_the_mean_of_all_other_maps(name: str) -> None:
    cls, host = ADAPTERS[f"Absence{name}"], getattr(attr, name)
    net, x, options = Net(), images(3), arguments(ADAPTERS[f"Absence{name}"])
    target = [0, 1, 3]
    found = build(cls, net, nontarget="others").attribute(x, target=target, **options)
    for sample, own in enumerate(target):
        one = x[sample : sample + 1]
        others = [build(host, net).attribute(one, target=k, **options) for k in range(CLASSES) if k != own]
        assert torch.allclose(found[sample : sample + 1], torch.stack(others).mean(0).detach(), **TOLERANCE)


@pytest.mark.parametrize("name", ["DeepLift", "LRP"])
def test_others_is_linear_for_rule_based_methods(name: str) -> None:
    cls, net, x = ADAPTERS[f"Absence{name}"], Net(), images(2)
    found = cls(net, nontarget="others").attribute(x, target=0)
    each = [cls(net, nontarget=k).attribute(x, target=0) for k in (1, 2, 3)]
    assert torch.allclose(found, torch.stack(each).mean(0), rtol=1e-6, atol=1e-7)


class Head(nn.Module):
    """Two weights on a flat input, in outputs of any shape."""

    def __init__(self, shape: str) -> None:
        super().__init__()
        self.linear = nn.Linear(2, 1, bias=False).double()
        self.shape = shape
        with torch.no_grad():
            self.linear.weight.copy_(torch.tensor([[1.0, -2.0]]))

    def forward(self, x: Tensor) -> Tensor:
        z = self.linear(x)
        if self.shape == "[B]":
            return z[:, 0]  # type: ignore[no-any-return]
        if self.shape == "[B, 1]":
            return z  # type: ignore[no-any-return]
        scale = torch.arange(1.0, 13.0, dtype=x.dtype).reshape(3, 2, 2)
        return z[:, :, None, None] * scale


@pytest.mark.parametrize("shape", ["[B]", "[B, 1]"])
@pytest.mark.parametrize(
    "name", ["InputXGradient", "IntegratedGradients", "FeatureAblation", "DeepLift", "Occlusion", "KernelShap"]
)
@pytest.mark.parametrize("nontarget", ["runner_up", "others"])
def test_one_logit_is_two_neurons(shape: str, name: str, nontarget: str) -> None:
    if name == "DeepLift" and shape == "[B]":
        pytest.skip("Captum's DeepLift needs two output axes")
    x, options = torch.tensor([[3.0, 5.0], [1.0, -1.0]], dtype=torch.float64), {}
    if name == "Occlusion":
        options["sliding_window_shapes"] = (1,)
    seeded()
    target = None if shape == "[B]" else 0
    found = ADAPTERS[f"Absence{name}"](Head(shape), nontarget=nontarget).attribute(x, target=target, **options)
    assert torch.allclose(found.double(), torch.tensor([[-3.0, 10.0], [-1.0, -2.0]]).double(), atol=1e-4)


def test_one_logit_takes_its_references_from_the_right_class() -> None:
    x = torch.tensor([[1.0, 1.0]], dtype=torch.float64)
    pool = ReferenceSet(torch.tensor([[0.0, 4.0], [6.0, 0.0]]), torch.tensor([0, 1]), k=1)  # z = -8, z = +6
    ig = adapters.AbsenceIntegratedGradients
    target = ig(Head("[B, 1]"), reference=pool).attribute(x, target=0)  # +z against class 0
    assert torch.allclose(target, torch.tensor([[1.0, 6.0]], dtype=torch.float64))
    other = ig(Head("[B, 1]"), reference=pool, nontarget="runner_up").attribute(x, target=0)  # -z against class 0
    assert torch.allclose(other, torch.tensor([[-1.0, -6.0]], dtype=torch.float64))


@pytest.mark.parametrize(
    "name", ["InputXGradient", "IntegratedGradients", "FeatureAblation", "DeepLift", "GradientShap"]
)
def test_outputs_with_places_take_tuple_targets(name: str) -> None:
    x = torch.tensor([[3.0, 5.0], [4.0, 1.0]], dtype=torch.float64)  # z = -7: the lowest class wins; z = 2: the highest
    options = {"baselines": torch.zeros(1, 2, dtype=torch.float64)} if name == "GradientShap" else {}
    seeded()
    found = ADAPTERS[f"Absence{name}"](Head("[B, 3, 2, 2]")).attribute(x, target=[(0, 0, 1), (2, 1, 0)], **options)
    # runner-up of sample 0 is class 1 at (0, 1): scale 6; of sample 1 class 1 at (1, 0): scale 7
    assert torch.allclose(found, torch.tensor([[18.0, -60.0], [28.0, -14.0]], dtype=torch.float64))


# -- inside Captum's tools --------------------------------------------------------------------------


def linear(rows: list[list[float]], bias: list[float] | None = None) -> nn.Linear:
    layer = nn.Linear(len(rows[0]), len(rows), bias=bias is not None).double()
    with torch.no_grad():
        layer.weight.copy_(torch.tensor(rows))
        if bias is not None:
            layer.bias.copy_(torch.tensor(bias))
    return layer


FLIPPING = linear([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0]], [10.0, 0.0, 0.0])
CLOSE = torch.tensor([[1.0, 0.9], [0.4, 0.5]], dtype=torch.float64)  # runners-up 1 and 2, by a hair


@pytest.mark.parametrize("batch", [None, 1, 3, 20])
def test_noise_does_not_choose_the_non_target_again(batch: int | None) -> None:
    seeded()
    noisy = CLOSE + torch.randn(50, 2, 2, dtype=torch.float64)
    assert 0.2 < float((FLIPPING(noisy)[..., 1] > FLIPPING(noisy)[..., 2]).double().mean()) < 0.8  # noise would
    tunnel = NoiseTunnel(adapters.AbsenceSaliency(FLIPPING))
    for targets in (0, torch.tensor([0, 0])):
        found = tunnel.attribute(CLOSE, nt_samples=10, stdevs=1.0, target=targets, nt_samples_batch_size=batch)
        assert found.tolist() == [[1.0, 0.0], [0.0, 1.0]]
    fixed = NoiseTunnel(adapters.AbsenceSaliency(FLIPPING, nontarget=torch.tensor([2, 1])))
    assert fixed.attribute(CLOSE, nt_samples=10, target=0, nt_samples_batch_size=batch).tolist() == [[0, 1], [1, 0]]


def test_saliency_stays_signed_in_the_tunnel() -> None:
    net = linear([[0.0, 0.0], [1.0, -2.0]])
    assert NoiseTunnel(adapters.AbsenceSaliency(net)).attribute(CLOSE, target=0).tolist() == [[1.0, -2.0]] * 2
    assert adapters.AbsenceSaliency(net).attribute(CLOSE, target=0, abs=True).tolist() == [[1.0, -2.0]] * 2
    assert adapters.AbsenceSaliency(net, evidence="absence").attribute(CLOSE, target=0).tolist() == [[0.0, 2.0]] * 2


@pytest.mark.parametrize("kind", ["smoothgrad_sq", "vargrad"])
def test_tunnels_that_square_are_refused(kind: str) -> None:
    with pytest.raises(ValueError, match=f"nt_type='{kind}' has no sign.*use nt_type='smoothgrad'"):
        NoiseTunnel(adapters.AbsenceSaliency(FLIPPING)).attribute(CLOSE, nt_type=kind, target=0)
    neutral = NoiseTunnel(adapters.AbsenceSaliency(FLIPPING, nontarget=None))
    seeded()
    found = neutral.attribute(CLOSE, nt_type=kind, target=1)
    seeded()
    assert torch.equal(found, NoiseTunnel(attr.Saliency(FLIPPING)).attribute(CLOSE, nt_type=kind, target=1))


@pytest.mark.parametrize("batch", [None, 3])
def test_references_in_the_tunnel_belong_to_the_real_input(batch: int | None) -> None:
    """Noise of size 1 would flip the nearest of the two, which lie on either side."""
    net, x = linear([[1.0, -1.0], [0.0, 1.0]]), torch.tensor([[1.0, 0.0], [1.0, 0.2]], dtype=torch.float64)
    pool = ReferenceSet(torch.tensor([[1.0, 2.0], [1.0, -2.1]]), torch.tensor([1, 1]), k=1)
    options = {"nt_samples": 7, "stdevs": 1.0, "target": 0, "nt_samples_batch_size": batch}
    seeded()
    tunnel = NoiseTunnel(adapters.AbsenceIntegratedGradients(net, reference=pool))
    found, state = tunnel.attribute(x, **options), random_states()
    seeded()
    host = NoiseTunnel(attr.IntegratedGradients(net))
    expected = host.attribute(x, baselines=torch.tensor([[1.0, 2.0]] * 2).double(), **options)
    assert torch.equal(found, expected)
    assert random_states() == state
    absent = NoiseTunnel(adapters.AbsenceIntegratedGradients(net, reference=pool, evidence="absence"))
    assert absent.attribute(x, **options)[:, 1].min() > 1.0
    assert absent.attribute(x, **options)[:, 0].abs().max() < 1e-12


def test_the_tunnel_repeats_additional_arguments() -> None:
    """Tensors come once per noisy copy, lists as they are; the choice sees the real sample's own."""

    class Shifted(nn.Module):
        def forward(self, x: Tensor, shift: Tensor, mode: list[int]) -> Tensor:
            assert mode == [1, 2, 3]
            return FLIPPING(x) + shift  # type: ignore[no-any-return]

    shift = torch.tensor([[0.0, 0.0, 5.0], [0.0, 5.0, 0.0]])  # turns both runners-up round
    tunnel = NoiseTunnel(adapters.AbsenceSaliency(Shifted()))
    found = tunnel.attribute(CLOSE, target=0, additional_forward_args=(shift, [1, 2, 3]))
    assert found.tolist() == [[0.0, 1.0], [1.0, 0.0]]


def test_captums_metrics_run_and_judge() -> None:
    net, x = linear([[4.0, 4.0, 0.0], [1.0, -2.0, 3.0]]), torch.tensor([[1.0, 2.0, 0.5]], dtype=torch.float64)

    def noise(inputs: Tensor) -> tuple[Tensor, Tensor]:
        step = torch.randn_like(inputs) * 0.1
        return step, inputs - step

    seeded()
    saliency = adapters.AbsenceSaliency(net)
    found = saliency.attribute(x, target=0)
    assert infidelity(net, noise, x, found, target=1, n_perturb_samples=20).item() < 1e-12  # of the non-target
    assert infidelity(net, noise, x, found, target=0, n_perturb_samples=20).item() > 1e-2
    assert sensitivity_max(saliency.attribute, x, target=0).item() == 0.0  # the gradient of a linear net
    ig = adapters.AbsenceIntegratedGradients(net)
    assert 0 < sensitivity_max(ig.attribute, x, target=0, perturb_radius=0.02).item() < 0.1


@pytest.mark.parametrize("name", ["IntegratedGradients", "Saliency", "DeepLift", "Occlusion"])
def test_an_explain_function_as_quantus_calls_it(name: str) -> None:
    def explain(
        model: nn.Module, inputs: np.ndarray[Any, Any], targets: np.ndarray[Any, Any], **_: Any
    ) -> np.ndarray[Any, Any]:
        options = {"sliding_window_shapes": (1, 2, 2)} if name == "Occlusion" else {}
        explainer = ADAPTERS[f"Absence{name}"](model)
        maps = explainer.attribute(torch.as_tensor(inputs), target=torch.as_tensor(targets), **options)
        return maps.sum(1, keepdim=True).numpy()  # type: ignore[no-any-return]

    net, x = Net(), images(3)
    found = explain(net, x.numpy(), np.array([0, 1, 2]))
    alone = explain(net, x[1:2].numpy(), np.array([1]))
    assert np.allclose(found[1:2], alone)
    assert np.abs(found).sum() > 0


def test_dataloader_attribution_takes_the_neutral_ablation() -> None:
    net = Net(dtype=torch.float32)
    loader = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(images(6, dtype=torch.float32)), batch_size=2)

    def forward(x: Tensor) -> Tensor:
        return net(x)[:, 1]  # type: ignore[no-any-return]

    found, expected = (
        DataLoaderAttribution(ablation).attribute(loader)
        for ablation in (adapters.AbsenceFeatureAblation(forward, nontarget=None), attr.FeatureAblation(forward))
    )
    assert torch.equal(found[0], expected[0])
    assert float(found[0].abs().sum()) > 0


@pytest.mark.parametrize("setting", ["default", "others", "reference", "both"])
@pytest.mark.parametrize("evidence", ["signed", "absence"])
@pytest.mark.parametrize(
    ("name", "option"),
    [
        ("IntegratedGradients", {"internal_batch_size": 4}),
        ("LayerIntegratedGradients", {"internal_batch_size": 4}),
        ("LayerConductance", {"internal_batch_size": 4}),
        ("InternalInfluence", {"internal_batch_size": 4}),
        ("NeuronConductance", {"internal_batch_size": 4}),
        ("FeatureAblation", {"perturbations_per_eval": 3}),
        ("Occlusion", {"perturbations_per_eval": 3}),
        ("ShapleyValues", {"perturbations_per_eval": 3}),
        ("LayerFeatureAblation", {"perturbations_per_eval": 3}),
        ("NeuronFeatureAblation", {"perturbations_per_eval": 3}),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_batching_inside_changes_nothing(name: str, option: dict[str, int], setting: str, evidence: str) -> None:
    name = f"Absence{name}"
    if setting not in dict(settings_of(name)):
        pytest.skip("the class has no such setting")
    row, options = (name, setting, evidence), call((name, setting, evidence), 3)
    whole = method(row, Net()).attribute(images(3), **options)
    assert torch.allclose(method(row, Net()).attribute(images(3), **options, **option), whole, **TOLERANCE)


@pytest.mark.parametrize(
    ("name", "rows"),
    [
        ("IntegratedGradients", 2),
        ("DeepLift", 2),
        ("DeepLiftShap", 4),
        ("GradientShap", 6),
        ("LayerConductance", 2),
        ("LayerIntegratedGradients", 2),
        ("LayerDeepLift", 2),
        ("LayerDeepLiftShap", 4),
        ("LayerGradientShap", 6),
    ],
)
def test_deltas_keep_their_form_and_measure_completeness(name: str, rows: int) -> None:
    """Per sample; of DeepLiftShap per sample and reference, of GradientShap per sample and draw, as in Captum."""
    options = arguments(ADAPTERS[f"Absence{name}"])
    if "n_steps" in options:
        options["n_steps"] = 100
    given = references()
    explainer = build(ADAPTERS[f"Absence{name}"], Net(), reference=given)
    seeded()
    maps, delta = explainer.attribute(images(2), target=torch.tensor([0, 1]), return_convergence_delta=True, **options)
    assert delta.shape == (rows,)
    seeded()
    explanation = explainer.explain(images(2), target=torch.tensor([0, 1]), **options)
    assert torch.equal(explanation.attribution, maps)
    if "GradientShap" not in name:
        assert torch.allclose(delta.reshape(2, -1).mean(1).detach(), explanation.completeness_error, atol=1e-9)
        assert delta.abs().max() < (1e-9 if "Lift" in name else 0.1)


def test_several_inputs_draw_jointly_and_are_complete_together() -> None:
    net, x = Net(), (images(3), images(3, seed=2))
    pool = (images(12, seed=3), images(12, seed=4))
    given = ReferenceSet(pool, torch.arange(12) % 4, k=2, empty=(0.0, -1.0))
    target = torch.tensor([0, 1, 2])
    ig = adapters.AbsenceIntegratedGradients(net, reference=given)
    explanation = ig.explain(x, target=target, n_steps=200)
    distance = sum(((a[:, None] - b[None]) ** 2).flatten(2).sum(2) for a, b in zip(x, pool, strict=True))
    distance[target[:, None] == (torch.arange(12) % 4)[None]] = torch.inf  # type: ignore[index]
    chosen = distance.argsort(1)[:, :2]  # type: ignore[union-attr]
    values = torch.stack(
        [net(pool[0][chosen[:, i]], pool[1][chosen[:, i]]).gather(1, target[:, None])[:, 0] for i in (0, 1)], 1
    )
    assert torch.allclose(explanation.reference_output, values)
    own = net(*x).gather(1, target[:, None])[:, 0]
    total = sum(part.flatten(1).sum(1) for part in explanation.attribution)
    assert torch.allclose(total, own - values.mean(1), atol=0.02)
    assert torch.allclose(explanation.completeness_error, total - (own - values.mean(1)))
    expected = [torch.zeros_like(part) for part in x]
    for column in (0, 1):
        base = tuple(part[chosen[:, column]] for part in pool)
        maps = attr.IntegratedGradients(net).attribute(x, baselines=base, target=target, n_steps=200)
        for number, empty in enumerate((0.0, -1.0)):
            absent = (x[number] - empty).abs() < (base[number] - empty).abs()
            expected[number] += torch.where(absent, maps[number], 0.0) / 2
    for part, wanted in zip(explanation.absence, expected, strict=True):
        assert torch.allclose(part, wanted.clamp(min=0))


# -- traps ------------------------------------------------------------------------------------------


def test_deeplift_is_complete_behind_relu_and_max_pooling_where_captum_is_not() -> None:
    net, x, base = Net(), images(4), images(4, seed=8)
    target = torch.tensor([0, 1, 2, 3])
    runner_up = net(x).detach().scatter(1, target[:, None], -torch.inf).argmax(1)
    wanted = (net(x) - net(base)).gather(1, runner_up[:, None])[:, 0].detach()
    ours = adapters.AbsenceDeepLift(net).attribute(x, base, target=target).flatten(1).sum(1)
    theirs = attr.DeepLift(net).attribute(x, base, target=runner_up).flatten(1).sum(1)
    assert torch.allclose(ours, wanted, atol=1e-9)
    assert (theirs - wanted).abs().max() > 0.05  # if this fails, Captum is mended and our remedy can go
    layer = adapters.AbsenceLayerDeepLift(net, net.conv).attribute(x, base, target=target).flatten(1).sum(1)
    assert torch.allclose(layer, wanted, atol=1e-9)


def test_lrp_passes_flatten_and_keeps_the_users_rules() -> None:
    net, x = Net(), images(2)
    flat = nn.Sequential(net.conv, net.relu, net.pool, nn.Flatten(), net.linear)
    with pytest.raises(TypeError, match="Flatten"):
        attr.LRP(copy.deepcopy(flat)).attribute(x, target=1)  # a copy: Captum leaves its rules behind
    # without a rule of the user's, LRP-epsilon of a ReLU net is input times gradient
    expected = attr.InputXGradient(net).attribute(x, target=1).detach()
    assert torch.allclose(adapters.AbsenceLRP(flat, nontarget=1).attribute(x, target=0), expected, rtol=1e-6, atol=1e-7)
    rule = GammaRule()
    net.conv.rule = rule
    with_rule = adapters.AbsenceLRP(flat, nontarget=1).attribute(x, target=0)
    assert net.conv.rule is rule
    assert not hasattr(flat[3], "rule")
    assert not torch.allclose(with_rule, expected, atol=1e-3)
    host = attr.LRP(net).attribute(x, target=1).detach()  # Captum takes the rule off afterwards
    assert torch.allclose(with_rule, host, rtol=1e-6, atol=1e-7)  # the epsilon of the rule on Flatten


@pytest.mark.parametrize("columns", [2, 1])
def test_guided_backprop_is_two_sided(columns: int) -> None:
    """u = relu(x0) - relu(x1), at x = (1, 2): one-sided guided backpropagation hides x1."""
    body = nn.Sequential(nn.Identity(), nn.ReLU(), linear([[0.0, 0.0], [1.0, -1.0]][-columns:]))
    x = torch.tensor([[1.0, 2.0]], dtype=torch.float64)
    sign = 1.0 if columns == 2 else -1.0
    with pytest.warns(AbsenceWarning, match="local"):
        found = adapters.AbsenceGuidedBackprop(body).attribute(x, target=0)
    assert found.tolist() == [[sign * 1.0, sign * -2.0]]
    assert attr.GuidedBackprop(body).attribute(x, target=columns - 1)[0, 1] <= 0


def test_grad_cam_refuses_to_rectify() -> None:
    with pytest.raises(ValueError, match=r"relu_attributions=True deletes.*leave it False"):
        build(adapters.AbsenceLayerGradCam, Net()).attribute(images(1), target=0, relu_attributions=True)


def dead_net() -> nn.Sequential:
    """Logit 1 = relu(1 - x0): at x0 = 2 its unit is dead; what holds it down is x0."""
    return nn.Sequential(linear([[-1.0, 0.0]], [1.0]), nn.ReLU(), linear([[0.0], [1.0]], [5.0, 0.0]))


DEAD = torch.tensor([[2.0, 3.0]], dtype=torch.float64)


@pytest.mark.parametrize(
    "name", ["InputXGradient", "Saliency", "LRP", "GuidedBackprop", "LayerGradientXActivation", "LayerLRP"]
)
def test_local_methods_say_that_a_dead_unit_blinds_them(name: str) -> None:
    net = dead_net()
    layer = (net[0],) if name.startswith("Layer") else ()
    with pytest.warns(AbsenceWarning, match=r"samples \[0\] is zero.*dead unit.*use AbsenceIntegratedGradients"):
        found = ADAPTERS[f"Absence{name}"](net, *layer).attribute(DEAD, target=0)
    assert not found.any()


@pytest.mark.parametrize("name", ["IntegratedGradients", "FeatureAblation", "DeepLift", "ShapleyValues"])
def test_path_and_ablation_methods_see_through_a_dead_unit(name: str) -> None:
    found = ADAPTERS[f"Absence{name}"](dead_net(), evidence="absence").attribute(DEAD, target=0)
    assert found[0, 0].item() == pytest.approx(1.0, abs=0.03)
    assert found[0, 1].item() == 0.0


@pytest.mark.parametrize(
    ("reference", "options", "warns"),
    [
        ([3.0, 0.0], {}, True),  # the target is higher on the reference: no absence
        ([0.0, 3.0], {}, False),
        ([3.0, 0.0], {"nontarget": 1}, True),
        ([0.0, 3.0], {"nontarget": 1}, False),
    ],
)
def test_references_on_the_wrong_side_are_announced(
    reference: list[float], options: dict[str, Any], warns: bool
) -> None:
    x, net = torch.tensor([[1.0, 0.0]], dtype=torch.float64), linear([[1.0, 0.0], [0.0, 1.0]])
    given = ReferenceSet(torch.tensor([reference]), torch.tensor([1]), k=1)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        adapters.AbsenceIntegratedGradients(net, reference=given, **options).attribute(x, target=0)
    texts = [str(one.message) for one in caught if issubclass(one.category, AbsenceWarning)]
    assert bool(texts) is warns
    if warns:
        assert ("not higher" if options else "not lower") in texts[0]


def test_a_distribution_of_baselines_is_not_paired_with_the_samples() -> None:
    """Two samples, two baselines: GradientShap compares every sample with both."""
    x, net = torch.tensor([[1.0, 0.0], [0.0, 1.0]], dtype=torch.float64), linear([[1.0, 0.0], [0.0, 1.0]])
    for name in ("GradientShap", "DeepLiftShap"):
        explainer = ADAPTERS[f"Absence{name}"](net, nontarget=None, evidence="absence")
        with pytest.raises(ValueError, match=r"one baseline image per sample.*pass reference="):
            explainer.attribute(x, baselines=torch.eye(2, dtype=torch.float64), target=0)


def test_one_axis_inputs_are_taken() -> None:
    def model(x: Tensor) -> Tensor:
        return torch.stack([x, -2 * x], 1)

    x = torch.tensor([1.0, 3.0], dtype=torch.float64)
    assert adapters.AbsenceInputXGradient(model).attribute(x, target=0).tolist() == [-2.0, -6.0]
    assert adapters.AbsenceIntegratedGradients(model).explain(x, target=0).absence.tolist() == pytest.approx([2.0, 6.0])


def test_training_mode_and_dropout_draw_no_more_than_the_host() -> None:
    net = nn.Sequential(nn.Linear(4, 8), nn.Dropout(0.5), nn.ReLU(), nn.Linear(8, 3)).double().train()
    x = torch.randn(2, 4, generator=torch.Generator().manual_seed(0)).double()
    states: list[Callable[[], Any]] = [
        lambda: adapters.AbsenceIntegratedGradients(net, nontarget=2).attribute(x, target=0, n_steps=4),
        lambda: attr.IntegratedGradients(net).attribute(x, target=2, n_steps=4),
    ]
    results = []
    for run in states:
        seeded()
        results.append((run(), random_states()))
    assert torch.equal(results[0][0], results[1][0])
    assert results[0][1] == results[1][1]
    assert all(module.training for module in net.modules())


def test_lists_of_layers() -> None:
    class Sum(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = linear([[1.0, -1.0], [0.0, 1.0]]), linear([[0.0, -2.0], [1.0, 0.0]])

        def forward(self, x: Tensor) -> Tensor:
            return self.a(x) + self.b(x)  # type: ignore[no-any-return]

    net, given = Sum(), ReferenceSet(torch.tensor([[1.0, 2.0]]), k=1)
    x = torch.tensor([[1.0, 0.0]], dtype=torch.float64)
    ig = adapters.AbsenceLayerIntegratedGradients
    maps = ig(net, [net.a, net.b], reference=given, evidence="absence").attribute(x, target=0, n_steps=5)
    assert isinstance(maps, list)
    # a: 1 on x, -1 on r, so no less content; b: 0 on x, -4 on r: content that x lacks
    assert torch.allclose(torch.cat(maps), torch.tensor([[0.0, 0.0], [4.0, 0.0]], dtype=torch.float64))
    signed = ig(net, [net.a, net.b], reference=given).attribute(x, target=0, n_steps=5)
    assert torch.allclose(torch.cat(signed), torch.tensor([[2.0, 0.0], [4.0, 0.0]], dtype=torch.float64))


def test_a_subclass_of_the_users_keeps_working_in_the_tunnel() -> None:
    class Mine(adapters.AbsenceSaliency):  # type: ignore[misc]
        pass

    assert NoiseTunnel(Mine(FLIPPING)).attribute(CLOSE, stdevs=1.0, target=0).tolist() == [[1.0, 0.0], [0.0, 1.0]]
