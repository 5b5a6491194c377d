"""The adapters inside Captum's own tools: noise tunnels, metrics, data loaders, batching, deltas."""

from __future__ import annotations

import copy
import pickle
import warnings
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from adapter_table import (
    ADAPTERS,
    CLOSE,
    FLIPPING,
    TOLERANCE,
    Net,
    arguments,
    build,
    call,
    images,
    linear,
    method,
    random_states,
    references,
    seeded,
    settings_of,
)
from captum import attr
from captum.attr import DataLoaderAttribution, NoiseTunnel
from captum.concept import TCAV, Concept
from captum.log import log_usage
from captum.metrics import infidelity, sensitivity_max
from torch import Tensor, nn

import absence_plugins.captum as adapters
from absence_plugins import ReferenceSet
from absence_plugins.core import AbsenceWarning

pytestmark = pytest.mark.filterwarnings("ignore")


# -- inside Captum's tools --------------------------------------------------------------------------


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


def chain(frames: int, function: Callable[[], Any]) -> Any:
    return function() if frames == 0 else chain(frames - 1, function)


class Deep(adapters.AbsenceSaliency):
    """A subclass that retries, caches or times the call, with any number of frames in between."""

    frames = 40

    @log_usage()  # type: ignore[untyped-decorator]
    def attribute(self, *args: Any, **kwargs: Any) -> Any:
        return chain(self.frames, lambda: super(Deep, self).attribute(*args, **kwargs))


class Threaded(adapters.AbsenceSaliency):
    @log_usage()  # type: ignore[untyped-decorator]
    def attribute(self, *args: Any, **kwargs: Any) -> Any:
        with ThreadPoolExecutor(1) as pool:
            return pool.submit(super().attribute, *args, **kwargs).result()


class Delegating(adapters.AbsenceSaliency):
    @log_usage()  # type: ignore[untyped-decorator]
    def attribute(self, *args: Any, **kwargs: Any) -> Any:
        return adapters.AbsenceSaliency(FLIPPING).attribute(*args, **kwargs)


class Clamping(adapters.AbsenceSaliency):
    @log_usage()  # type: ignore[untyped-decorator]
    def attribute(self, inputs: Tensor, *args: Any, **kwargs: Any) -> Any:
        return super().attribute(inputs.clamp(-9, 9), *args, **kwargs)


class Halving(adapters.AbsenceSaliency):
    @log_usage()  # type: ignore[untyped-decorator]
    def attribute(self, inputs: Tensor, *args: Any, **kwargs: Any) -> Any:
        return torch.cat([super(Halving, self).attribute(half, *args, **kwargs) for half in inputs.chunk(2)])


class Labeled(NoiseTunnel):
    """A user's own tunnel."""


class Outer(adapters.AbsenceSaliency):
    """Asks the host's class what a tunnel asks."""

    def has_convergence_delta(self) -> bool:
        return chain(30, lambda: super(Outer, self).has_convergence_delta())  # type: ignore[no-any-return]


EXPECTED = [[1.0, 0.0], [0.0, 1.0]]


@pytest.mark.parametrize("method", [Deep, Threaded, Delegating, Clamping, Outer])
@pytest.mark.parametrize("batch", [None, 3])
def test_the_real_input_is_known_whatever_stands_between_tunnel_and_method(method: Any, batch: int | None) -> None:
    seeded()
    found = NoiseTunnel(method(FLIPPING)).attribute(CLOSE, nt_samples=10, target=0, nt_samples_batch_size=batch)
    assert found.tolist() == EXPECTED


def test_copies_pickles_and_tunnels_in_tunnels_know_the_real_input() -> None:
    seeded()
    tunnel = NoiseTunnel(adapters.AbsenceSaliency(FLIPPING))
    own = Labeled(adapters.AbsenceSaliency(FLIPPING))
    made = [tunnel, own, copy.copy(tunnel), copy.deepcopy(own), pickle.loads(pickle.dumps(tunnel)),
            pickle.loads(pickle.dumps(own)), adapters.AbsenceNoiseTunnel(adapters.AbsenceSaliency(FLIPPING)),
            NoiseTunnel(tunnel), NoiseTunnel(own), NoiseTunnel(NoiseTunnel(own))]  # fmt: skip
    for one in made:
        assert one.attribute(CLOSE, nt_samples=10, target=0).tolist() == EXPECTED
        assert isinstance(one, NoiseTunnel)
    assert all(isinstance(one, Labeled) for one in (made[1], made[3], made[5]))


def test_tunnels_around_other_objects_stay_captums() -> None:
    for inner in (attr.Saliency(FLIPPING), adapters.AbsenceSaliency(FLIPPING, nontarget=None)):
        assert type(NoiseTunnel(inner)) is NoiseTunnel


def test_copies_of_an_unknown_input_are_an_error() -> None:
    """Rather than a non-target for each copy."""
    with pytest.raises(ValueError, match=r"may be noisy copies.*all in one call"):
        NoiseTunnel(Halving(FLIPPING)).attribute(CLOSE, nt_samples=10, target=0)
    exchanged = NoiseTunnel(attr.Saliency(FLIPPING))
    exchanged.attribution_method = adapters.AbsenceSaliency(FLIPPING)
    with pytest.raises(ValueError, match="copies of an unknown input: make the tunnel anew"):
        exchanged.attribute(CLOSE, nt_samples=10, target=0)
    assert adapters.AbsenceSaliency(FLIPPING).attribute(CLOSE, target=0).tolist() == EXPECTED  # nothing is left behind


def test_a_raising_tunnel_leaves_no_state() -> None:
    tunnel = NoiseTunnel(adapters.AbsenceSaliency(FLIPPING))
    with pytest.raises(ValueError, match="target 9"):
        tunnel.attribute(CLOSE, nt_samples=4, target=9)
    noisy = CLOSE.repeat_interleave(4, 0) + 1.0  # looks like copies, but no tunnel runs
    assert adapters.AbsenceSaliency(FLIPPING).attribute(noisy, target=0).shape == noisy.shape


def test_saliency_stays_signed_in_the_tunnel() -> None:
    net = linear([[0.0, 0.0], [1.0, -2.0]])
    assert NoiseTunnel(adapters.AbsenceSaliency(net)).attribute(CLOSE, target=0).tolist() == [[1.0, -2.0]] * 2
    assert adapters.AbsenceSaliency(net).attribute(CLOSE, target=0).tolist() == [[1.0, -2.0]] * 2
    assert adapters.AbsenceSaliency(net, evidence="absence").attribute(CLOSE, target=0).tolist() == [[0.0, 2.0]] * 2


@pytest.mark.parametrize("kind", ["smoothgrad_sq", "vargrad"])
@pytest.mark.parametrize("batch", [None, 2])
def test_tunnels_that_square_give_the_hosts_map_of_the_chosen_output(kind: str, batch: int | None) -> None:
    options = {"nt_type": kind, "nt_samples": 5, "nt_samples_batch_size": batch, "stdevs": 0.5}
    net = nn.Sequential(nn.Linear(2, 8), nn.ReLU(), nn.Linear(8, 3)).double()
    host = NoiseTunnel(attr.IntegratedGradients(net))
    seeded()
    expected = host.attribute(CLOSE, target=torch.tensor([1, 2]), **options)
    seeded()
    tunnel = NoiseTunnel(adapters.AbsenceIntegratedGradients(net, nontarget=[1, 2]))
    words = f"nt_type='{kind}' has no sign.*AbsenceIntegratedGradients chose"
    with pytest.warns(AbsenceWarning, match=words) as caught:
        found = tunnel.attribute(CLOSE, target=0, **options)
    assert torch.equal(found, expected)
    assert [Path(one.filename).name for one in caught if "no sign" in str(one.message)] == [Path(__file__).name]
    plain = NoiseTunnel(adapters.AbsenceIntegratedGradients(net, nontarget=None))
    seeded()
    with warnings.catch_warnings():
        warnings.simplefilter("error", AbsenceWarning)
        assert torch.equal(plain.attribute(CLOSE, target=torch.tensor([1, 2]), **options), expected)


@pytest.mark.parametrize("kind", ["smoothgrad_sq", "vargrad"])
@pytest.mark.parametrize("evidence", ["absence", "presence"])
def test_tunnels_that_square_have_no_parts(kind: str, evidence: str) -> None:
    tunnel = NoiseTunnel(adapters.AbsenceSaliency(FLIPPING, evidence=evidence))
    with pytest.raises(ValueError, match=f"nt_type='{kind}' has no sign, so it has no {evidence} part"):
        tunnel.attribute(CLOSE, nt_type=kind, target=0)


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
