"""One table of all adapters and the settings they accept, run through the same checks; then each trap on its own."""

from __future__ import annotations

import copy
import pickle

import pytest
import torch
from adapter_table import (
    ADAPTERS,
    CLASSES,
    DETERMINISTIC,
    REFUSING,
    ROWS,
    SINGLE_PRECISION,
    STOCHASTIC,
    TOLERANCE,
    WITHOUT_BASELINE,
    Net,
    arguments,
    build,
    call,
    has_target,
    images,
    marked,
    marked_net,
    method,
    random_states,
    references,
    seeded,
    trace,
)
from captum import attr

pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.mark.parametrize("row", marked(ROWS), ids="-".join)
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
            try:
                explainer.attribute(x, **options)
            except expected:
                pass
            else:  # the method ran one forward alone
                assert accident == 2 and net.fuse[0] == 1, accident  # noqa: PT018
        assert trace(net) == before, accident
        assert {name: id(value) for name, value in vars(explainer).items()} == constructed
        assert torch.equal(x, before_x)
        assert x.requires_grad
        assert x.is_leaf
        assert torch.equal(x.grad, torch.full_like(x, 7.0))
        if row[0] not in STOCHASTIC or accident == "target":
            assert random_states() == start, accident


@pytest.mark.parametrize("row", marked(DETERMINISTIC), ids="-".join)
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


@pytest.mark.parametrize("row", marked(ROWS), ids="-".join)
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
    if "DeepLift" in name or "LRP" in name:  # relevance of differences, which is complete where the host is not
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
    host = {  # without rules of Captum's on the modules, LRP of differences is DeepLIFT
        "AbsenceDeepLiftShap": attr.DeepLift,
        "AbsenceLRP": attr.DeepLift,
        "AbsenceLayerDeepLiftShap": attr.LayerDeepLift,
        "AbsenceLayerLRP": attr.LayerDeepLift,
    }.get(name, host)
    host = attr.NeuronDeepLift if name == "AbsenceNeuronDeepLiftShap" else host
    if "DeepLift" in name or "LRP" in name:  # a host that is complete: an identity that is no module stands between
        net.pool.register_forward_pre_hook(lambda module, value: (value[0].clone(),))
    each = []
    for column in range(2):
        base = nearest[:, column]
        each.append(build(host, net).attribute(x, **options, **{key: net.conv(base) if "layer" in key else base}))
    assert torch.allclose(found, torch.stack(each).mean(0).detach(), **TOLERANCE)


@pytest.mark.parametrize("name", sorted(REFUSING))
def test_classes_that_cannot_show_absences_say_why_and_what_can(name: str) -> None:
    for options in (
        {"nontarget": "others"},
        {"nontarget": None, "evidence": "absence"},
        {"reference": references()},
    ):
        if (
            name.startswith("AbsenceNeuron")
            and options.get("nontarget", "auto") is not None
            and "reference" not in options
        ):
            options = {"evidence": "absence"}
        with pytest.raises(ValueError, match=f"{name} cannot show absences: it .*; use Absence"):
            build(ADAPTERS[name], Net(), **options)


def test_activations_have_no_explanation() -> None:
    net = Net()
    with pytest.raises(ValueError, match=r"AbsenceLayerActivation has nothing to explain: it shows .*; use Absence"):
        build(ADAPTERS["AbsenceLayerActivation"], net, nontarget=None).explain(images(2))


@pytest.mark.parametrize("name", sorted(WITHOUT_BASELINE))
def test_classes_without_baseline_refuse_references_with_an_alternative(name: str) -> None:
    with pytest.raises(ValueError, match=f"{name} takes no reference: .*(use|put) "):
        build(ADAPTERS[name], Net(), reference=references())
