"""The adapters inside Captum's own tools: metrics, data loaders, batching, deltas, TCAV."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pytest
import torch
from adapter_table import (
    ADAPTERS,
    TOLERANCE,
    Net,
    arguments,
    build,
    call,
    images,
    linear,
    method,
    references,
    seeded,
    settings_of,
)
from captum import attr
from captum.attr import DataLoaderAttribution
from captum.concept import TCAV, Concept
from captum.metrics import infidelity, sensitivity_max
from torch import Tensor, nn

import absence_plugins.captum as adapters
from absence_plugins import ReferenceSet
from absence_plugins.core import AbsenceWarning

pytestmark = pytest.mark.filterwarnings("ignore")


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


@pytest.mark.parametrize("evidence", ["signed", "absence"])
@pytest.mark.parametrize(
    ("name", "option", "setting"),
    [
        (name, option, setting)
        for name, option in [
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
        ]
        for setting in ("default", "others", "reference", "both")
        if setting in dict(settings_of(f"Absence{name}"))
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_batching_inside_changes_nothing(name: str, option: dict[str, int], setting: str, evidence: str) -> None:
    name = f"Absence{name}"
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


# -- TCAV: a tool that hands a class on -------------------------------------------------------------


def tcav_score(method: Any, folder: Any, **options: Any) -> tuple[float, list[str]]:
    """The share of inputs whose class 0 rises with feature 0, which raises class 0 and lowers its runner-up."""
    net = method.forward_func
    data = [[torch.rand(4, 6) + 2 * torch.eye(6)[k] for _ in range(4)] for k in (0, 1)]
    concepts = [Concept(k, f"concept {k}", rows) for k, rows in enumerate(data)]  # type: ignore[arg-type]
    tcav = TCAV(net, ["0"], layer_attr_method=method, save_path=str(folder))
    inputs = torch.rand(10, 6) + torch.eye(6)[0]
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        scores = tcav.interpret(inputs, [concepts], target=0, **options)
    said = [one for one in caught if issubclass(one.category, AbsenceWarning) and "TCAV" in str(one.message)]
    assert all(one.filename == __file__ for one in said)
    return float(next(iter(scores.values()))["0"]["sign_count"][0]), [str(one.message) for one in said]


def striped_net() -> nn.Sequential:
    net = nn.Sequential(nn.Linear(6, 6, bias=False), nn.ReLU(), nn.Linear(6, 3, bias=False)).eval()
    net[0].weight.data = torch.eye(6)
    net[2].weight.data = torch.tensor([[1.0, -1, 0, 0, 0, 0], [-1, 1, 0, 0, 0, 0], [-9.0] * 6])
    return net


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("name", "made", "options"),
    [
        ("LayerIntegratedGradients", {"multiply_by_inputs": False}, {"n_steps": 5}),
        ("LayerIntegratedGradients", {}, {"n_steps": 5}),
        ("LayerGradientXActivation", {"multiply_by_inputs": False}, {}),
        ("LayerConductance", {}, {"n_steps": 5}),
    ],
)
def test_tcav_gets_the_class_that_it_asks_for(tmp_path: Any, name: str, made: Any, options: Any) -> None:
    ours = getattr(adapters, f"Absence{name}")
    found = {}
    for cls, words in (
        (getattr(attr, name), {}),
        (ours, {}),
        (ours, {"nontarget": "target"}),
        (ours, {"nontarget": 1}),
    ):
        seeded()
        folder = tmp_path / f"{len(found)}"
        found[cls.__name__, *words.values()] = tcav_score(cls(striped_net(), None, **made, **words), folder, **options)
    assert [score for score, _ in found.values()] == [1.0, 1.0, 1.0, 0.0]  # a class that is named stays that class
    said = [len(words) for _, words in found.values()]
    assert said == [0, 1, 0, 0]
    assert "TCAV asks" in found[ours.__name__,][1][0]


@pytest.mark.filterwarnings("ignore")
def test_tcav_counts_signs_and_gets_no_magnitudes(tmp_path: Any) -> None:
    method = adapters.AbsenceLayerIntegratedGradients(striped_net(), None, evidence="absence")
    with pytest.raises(ValueError, match=r"TCAV counts the signs of the map.*leave evidence='signed'"):
        tcav_score(method, tmp_path)
