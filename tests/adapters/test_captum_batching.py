"""Ablation maps whose perturbations share forwards: Captum's values, in fewer forwards of bounded size."""

from __future__ import annotations

import warnings
from typing import Any

import pytest
import torch
from batching_nets import Entangled, Net, TwoInputs, images, references
from captum.attr import FeatureAblation, NoiseTunnel, Occlusion

from absence_plugins import ReferenceSet
from absence_plugins.captum import AbsenceFeatureAblation, AbsenceNeuronFeatureAblation, AbsenceOcclusion
from absence_plugins.captum import ablation as ablation_module
from absence_plugins.core import AbsenceWarning, weighing
from absence_plugins.core.changed_parts import Changed, Followed

pytestmark = pytest.mark.filterwarnings("ignore:samples .* have references")
CLOSE = {torch.float64: 1e-12, torch.float32: 1e-5}  # of the largest output


WINDOWS = {"sliding_window_shapes": (2, 3, 4), "strides": (1, 2, 3)}
MASK = (torch.arange(200) // 7).reshape(1, 2, 10, 10) * 3 - 5
OF_EACH = torch.stack([(torch.arange(200) // size).reshape(2, 10, 10) for size in (7, 11, 60)])
CALLS: dict[str, tuple[type, dict[str, Any]]] = {
    "windows": (AbsenceOcclusion, WINDOWS),
    "windows of one size": (AbsenceOcclusion, {"sliding_window_shapes": (1, 3, 3)}),
    "whole rows": (AbsenceOcclusion, {"sliding_window_shapes": (2, 3, 10), "strides": 3}),
    "gray": (AbsenceOcclusion, WINDOWS | {"baselines": 0.5}),
    "image as baseline": (AbsenceOcclusion, WINDOWS | {"baselines": images(1)[0] * 0.3}),
    "baseline of each": (AbsenceFeatureAblation, {"baselines": images().flip(0), "feature_mask": MASK}),
    "every entry": (AbsenceFeatureAblation, {}),
    "groups": (AbsenceFeatureAblation, {"feature_mask": MASK}),
    "groups of each image": (AbsenceFeatureAblation, {"feature_mask": OF_EACH}),
    "groups of all channels": (AbsenceFeatureAblation, {"feature_mask": MASK[:, :1]}),
    "scaled": (AbsenceOcclusion, WINDOWS | {"additional_forward_args": (torch.tensor([1.0, 2, 3]).double(), None)}),
    "a table beside": (AbsenceOcclusion, WINDOWS | {"additional_forward_args": (None, torch.rand(7, 4).double())}),
}
OPTIONS: dict[str, dict[str, Any]] = {
    "auto": {},
    "margin": {"nontarget": "margin"},
    "others": {"nontarget": "others"},
    "number": {"nontarget": 3},
    "references": {"reference": references()},
    "absence": {"reference": references(), "evidence": "absence"},
}


@pytest.mark.parametrize("options", OPTIONS)
@pytest.mark.parametrize("call", CALLS)
def test_the_values_are_those_of_captums_loop(call: str, options: str) -> None:
    cls, arguments = CALLS[call]
    if "baselines" in arguments and "reference" in OPTIONS[options]:
        arguments = {name: value for name, value in arguments.items() if name != "baselines"}
    net, x, target = Net().double(), images(), torch.tensor([0, 1, 2])
    method = cls(net, **OPTIONS[options])
    found = method.attribute(x, target=target, **arguments)
    shared = len(net.sizes)
    looped = method.attribute(x, target=target, perturbations_per_eval=1, **arguments)
    assert found.dtype == looped.dtype
    assert found.shape == looped.shape
    close = 1e-6 if cls is AbsenceOcclusion else CLOSE[x.dtype]  # Captum's maps of windows are float32
    assert torch.allclose(found, looped, rtol=0, atol=close * float(net(x).abs().max()))
    assert float(looped.abs().max()) > 0
    alone = len(net.sizes) - shared
    assert shared <= max(6, alone // 40)
    assert alone > 2 * shared


@pytest.mark.parametrize("host", [Occlusion, FeatureAblation])
def test_float32_is_within_the_stated_tolerance_of_captum(host: type) -> None:
    net, x, target = Net(), images(dtype=torch.float32), torch.tensor([0, 1, 2])
    rival = torch.tensor([3, 3, 3])
    arguments = WINDOWS if host is Occlusion else {}
    adapter = AbsenceOcclusion if host is Occlusion else AbsenceFeatureAblation
    found = adapter(net, nontarget=rival).attribute(x, target=target, **arguments)
    expected = host(net).attribute(x, target=rival, **arguments)
    assert torch.allclose(found, expected, rtol=0, atol=CLOSE[x.dtype] * float(net(x).abs().max()))


def test_changed_parts_give_the_values_of_captums_loop() -> None:
    net, x, target = Net().double(), images(2, 32), torch.tensor([0, 1])
    x[0, :, :16] = 0
    method = AbsenceOcclusion(net, reference=references(32), nontarget="target")
    call: dict[str, Any] = {"sliding_window_shapes": (2, 5, 5), "strides": (2, 3, 3)}
    found = method.explain(x, target=target, **call)
    looped = method.explain(x, target=target, perturbations_per_eval=1, **call)
    assert torch.allclose(found.attribution, looped.attribution, rtol=0, atol=1e-6)
    assert torch.allclose(found.per_reference, looped.per_reference, rtol=0, atol=1e-6)
    pixels = AbsenceFeatureAblation(net)
    few = x[:, :, 10:26, 4:20].contiguous()
    found, looped = (pixels.attribute(few, target=target, **chosen) for chosen in ({}, {"perturbations_per_eval": 1}))
    assert torch.allclose(found, looped, rtol=0, atol=1e-12)


@pytest.mark.parametrize("cls", [AbsenceOcclusion, AbsenceFeatureAblation])
def test_several_inputs(cls: type) -> None:
    net, inputs = TwoInputs().double(), (images(2, 6, 1), torch.rand(2, 5).double())
    call: dict[str, Any] = {"sliding_window_shapes": ((1, 2, 2), (2,)), "strides": ((1, 2, 2), 1)}
    if cls is AbsenceFeatureAblation:
        call = {"feature_mask": (torch.arange(36).reshape(1, 1, 6, 6) // 3, torch.arange(5)[None] * 3)}  # shared groups
    method = cls(net)
    found, looped = (
        method.attribute(inputs, target=0, **call, **chosen) for chosen in ({}, {"perturbations_per_eval": 1})
    )
    assert isinstance(found, tuple)
    for one, other in zip(found, looped, strict=True):
        assert torch.allclose(one, other, rtol=0, atol=1e-6 if cls is AbsenceOcclusion else 1e-12)


@pytest.mark.parametrize("selector", [(3, 1, 2), (2, slice(0, 2), 1), lambda activation: activation.flatten(1)[:, 7]])
@pytest.mark.parametrize("options", [{}, {"reference": ReferenceSet(images(9), k=3)}])
def test_a_neuron(selector: Any, options: dict[str, Any]) -> None:
    net, x = Net().double(), images()
    method = AbsenceNeuronFeatureAblation(net, net.body[5], **options)
    net.sizes.clear()
    found = method.attribute(x, neuron_selector=selector)
    shared = len(net.sizes)
    looped = method.attribute(x, neuron_selector=selector, perturbations_per_eval=1)
    assert torch.allclose(found, looped, rtol=0, atol=1e-12)
    assert float(looped.abs().max()) > 0
    assert shared <= 6
    assert len(net.sizes) > 200


def test_a_tunnel_around_it_gives_the_map_of_the_real_inputs_choice() -> None:
    net, x = Net().double(), images()
    found, looped = (
        NoiseTunnel(AbsenceOcclusion(net)).attribute(
            x, nt_samples=2, stdevs=0.0, target=torch.tensor([0, 1, 2]), **WINDOWS, **chosen
        )
        for chosen in ({}, {"perturbations_per_eval": 1})
    )
    assert torch.allclose(found, looped, rtol=0, atol=1e-6)


def test_batches_stay_within_the_memory_that_is_set(monkeypatch: pytest.MonkeyPatch) -> None:
    net, x = Net(), images(dtype=torch.float32)
    with weighing.Weighing() as one, torch.no_grad():
        net(x[:1])
    monkeypatch.setattr(weighing, "ON_CPU", 8 * weighing.HELD * one.largest)
    for count in (3, 1):
        net.sizes.clear()
        AbsenceFeatureAblation(net).attribute(x[:count], target=0)
        assert max(net.sizes) == 8
        assert len(net.sizes) == 2 + -(-count * 200 // 8)  # the choice, one alone, and all entries
    monkeypatch.setattr(weighing, "ON_CPU", 1)
    net.sizes.clear()
    AbsenceFeatureAblation(net).attribute(x, target=0)
    assert set(net.sizes) == {len(x)}  # as Captum runs them


def test_the_number_of_perturbations_is_the_callers_where_it_is_given() -> None:
    net, x = Net(), images(dtype=torch.float32)
    for chosen in (1, 4):
        net.sizes.clear()
        found = AbsenceFeatureAblation(net, nontarget=3).attribute(x, target=0, perturbations_per_eval=chosen)
        assert net.sizes == [3, 3, *[3 * chosen] * (200 // chosen)]
        assert torch.equal(found, FeatureAblation(net).attribute(x, target=3, perturbations_per_eval=chosen))


def test_what_changes_nothing_is_not_run_and_has_no_effect() -> None:
    net, x = Net(), images(dtype=torch.float32)
    x[:, :, :, 3:] = 0
    x[2] = 0
    net.sizes.clear()
    found = AbsenceFeatureAblation(net).attribute(x, target=0)
    assert sum(net.sizes) == 3 + 3 + 2 * 2 * 10 * 3
    assert torch.equal(found[:, :, :, 3:], torch.zeros_like(found[:, :, :, 3:]))
    assert torch.equal(found[2], torch.zeros_like(found[2]))
    net.sizes.clear()
    assert torch.equal(AbsenceOcclusion(net).attribute(x * 0, target=0, **WINDOWS), x * 0)
    assert net.sizes == [3]


@pytest.mark.parametrize(
    ("kind", "count", "side"),
    [("mean", 1, 32), *((kind, *case) for kind in ("mean", "first", "last") for case in ((1, 10), (3, 10), (3, 32)))],
)
def test_samples_that_depend_on_each_other_are_noticed(kind: str, side: int, count: int) -> None:
    net = Entangled()
    net.kind = kind
    x = images(count, side, dtype=torch.float32)
    call: dict[str, Any] = {"sliding_window_shapes": (2, 5, 5), "strides": (2, 5, 5)}
    with pytest.warns(AbsenceWarning, match="does not give for many samples in one batch") as caught:
        found = AbsenceOcclusion(net, nontarget=3).attribute(x, target=0, **call)
    assert caught[0].filename == __file__
    assert torch.equal(found, Occlusion(net).attribute(x, target=3, **call))


@pytest.mark.parametrize("kind", ["first", "last"])
def test_the_parts_of_a_single_sample_are_those_of_a_batch_of_one(kind: str) -> None:
    net = Entangled()
    net.kind = kind
    x = images(1, 32, dtype=torch.float32)
    call: dict[str, Any] = {"sliding_window_shapes": (2, 5, 5), "strides": (2, 5, 5)}
    found = AbsenceOcclusion(net, nontarget=3).attribute(x, target=0, **call)
    assert torch.allclose(found, Occlusion(net).attribute(x, target=3, **call), rtol=0, atol=1e-5)


def test_a_model_for_one_size_of_batches_runs_as_captum_runs_it() -> None:
    net = Net()
    fixed = lambda x: net(x.view(3, 2, 10, 10))  # noqa: E731
    x = images(dtype=torch.float32)
    with pytest.warns(AbsenceWarning, match="does not give for many samples.*RuntimeError: shape"):
        found = AbsenceOcclusion(fixed, nontarget=3).attribute(x, target=0, **WINDOWS)
    assert torch.equal(found, Occlusion(fixed).attribute(x, target=3, **WINDOWS))


@pytest.mark.parametrize("shape", [(1, 1, 1), (7, 1, 1), (7, 1, 6), (7, 6, 6), (1, 1, 6), (1, 6, 1)])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float16])
@pytest.mark.parametrize("chance", [0.02, 0.6])
def test_few_entries_are_put_in_as_many_are(
    shape: tuple[int, ...], dtype: torch.dtype, chance: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ablation_module, "CALL", 0)
    x = torch.rand(5, 7, 6, 6).double()
    generator = torch.Generator().manual_seed(3)
    inside = torch.rand(5, *shape, generator=generator) < chance
    reference = torch.rand(4, 2, *x.shape[1:]).to(dtype)
    of, column = torch.tensor([0, 0, 3, 2, 2]), torch.tensor([1, 0, 1, 1, 1])
    expected = torch.where(inside, reference[of, column], x)
    for layout in (torch.contiguous_format, torch.channels_last):
        own = x.clone(memory_format=layout)
        assert torch.equal(ablation_module.put_in(own, reference, inside, of, column), expected)


def test_a_wrong_value_of_changed_parts_would_be_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    net, x, made = Net().double(), images(1, 32), []

    def wrong(run: Any, changed: Changed) -> Followed:
        made.append(len(changed))
        return Followed(run(changed.whole()) * 1.001)

    monkeypatch.setattr(ablation_module, "run_changed", wrong)
    method = AbsenceOcclusion(net)
    call: dict[str, Any] = {"sliding_window_shapes": (2, 5, 5), "strides": (2, 3, 3)}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = method.attribute(x, target=0, **call)
    looped = method.attribute(x, target=0, perturbations_per_eval=1, **call)
    assert sum(made) > 50
    assert torch.allclose(found, looped, rtol=0, atol=1e-6 * float(looped.abs().max()))


def test_a_model_that_somebody_watches_sees_ordinary_tensors() -> None:
    net, x, seen = Net(), images(1, 32, dtype=torch.float32), []
    handle = net.body[0].register_forward_hook(lambda module, inputs, output: seen.append(output.numpy().shape))
    method = AbsenceOcclusion(net, nontarget=3)
    watched = method.attribute(x, target=0, sliding_window_shapes=(2, 8, 8), strides=(2, 4, 4))
    handle.remove()
    assert len(seen) == 3
    found = method.attribute(x, target=0, sliding_window_shapes=(2, 8, 8), strides=(2, 4, 4))
    assert torch.allclose(found, watched, rtol=0, atol=1e-6)


def test_captums_own_errors_and_progress(capsys: pytest.CaptureFixture[str]) -> None:
    net, x = Net(), images(dtype=torch.float32)
    with pytest.raises(AssertionError, match="cannot exceed input dimensions"):
        AbsenceOcclusion(net).attribute(x, target=0, sliding_window_shapes=(2, 11, 3))
    with pytest.raises(AssertionError, match="Stride dimension"):
        AbsenceOcclusion(net).attribute(x, target=0, sliding_window_shapes=(2, 3, 3), strides=(2, 4, 1))
    AbsenceFeatureAblation(net).attribute(x, target=0, show_progress=True)
    assert "Feature Ablation attribution: 100%" in capsys.readouterr().err
