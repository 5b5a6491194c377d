"""Permuted features, Shapley values and ablated layers whose perturbations share forwards: the values of Captum's loop
on the same random draws, in fewer forwards.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
from batching_nets import Entangled, Net, TwoInputs, images, references
from captum import attr
from torch import Tensor, nn

import absence_plugins.captum as adapters
from absence_plugins.captum import coalitions, perturbed
from absence_plugins.core import AbsenceWarning, weighing

pytestmark = pytest.mark.filterwarnings("ignore:samples .* have references")
GRID = (torch.arange(10)[:, None] // 4 * 3 + torch.arange(10) // 4)[None, None]  # nine squares, or pieces of them
FOUR = (torch.arange(10)[:, None] // 5 * 2 + torch.arange(10) // 5)[None, None]
OF_EACH = torch.stack([GRID[0], GRID[0].flip(1), GRID[0].transpose(1, 2)])
TARGET = torch.tensor([0, 1, 2])


def draw_both(method: Any, net: nn.Module, *call: Any, **options: Any) -> tuple[Any, Any, int, int]:
    """The map in shared forwards and that of the loop, each from the same random state, and both numbers of forwards.

    Both leave the same state.
    """
    counted = next(part for part in net.modules() if isinstance(part, Net)).sizes
    maps, states, forwards = [], [], []
    for chosen in ({}, {"perturbations_per_eval": 1}):
        torch.manual_seed(3)
        counted.clear()
        maps.append(method.attribute(*call, **options, **chosen))
        states.append(torch.get_rng_state())
        forwards.append(len(counted))
    assert torch.equal(*states)
    return maps[0], maps[1], forwards[0], forwards[1]


def is_near(found: Any, expected: Any, close: float) -> bool:
    pairs = zip(found, expected, strict=True) if isinstance(found, tuple) else [(found, expected)]
    return all(
        one.shape == other.shape
        and one.dtype == other.dtype
        and bool(other.abs().max() > 0)
        and torch.allclose(one, other, rtol=0, atol=close * float(other.abs().max()))
        for one, other in pairs
    )


CALLS: dict[str, tuple[str, dict[str, Any]]] = {
    "permuted squares": ("FeaturePermutation", {"feature_mask": GRID}),
    "permuted entries": ("FeaturePermutation", {}),
    "squares of each, permuted": ("FeaturePermutation", {"feature_mask": OF_EACH}),
    "scaled": ("FeaturePermutation", {"additional_forward_args": (torch.tensor([1.0, 2, 3]).double(), None)}),
    "orders of squares": ("ShapleyValueSampling", {"feature_mask": GRID, "n_samples": 4}),
    "orders of entries": ("ShapleyValueSampling", {"n_samples": 2}),
    "orders of squares of each": ("ShapleyValueSampling", {"feature_mask": OF_EACH, "n_samples": 2}),
    "gray": ("ShapleyValueSampling", {"feature_mask": GRID, "n_samples": 3, "baselines": 0.5}),
    "all orders": ("ShapleyValues", {"feature_mask": FOUR}),
    "all orders of one": ("ShapleyValues", {"feature_mask": FOUR * 0}),
}
OPTIONS: dict[str, dict[str, Any]] = {
    "auto": {},
    "margin": {"nontarget": "margin"},
    "number": {"nontarget": 3},
    "references": {"reference": references()},
}


@pytest.mark.parametrize("options", OPTIONS)
@pytest.mark.parametrize("call", CALLS)
def test_the_values_and_the_random_state_are_those_of_captums_loop(call: str, options: str) -> None:
    name, arguments = CALLS[call]
    if options == "references" and (name == "FeaturePermutation" or "baselines" in arguments):
        return
    net, x = Net().double(), images()
    method = getattr(adapters, f"Absence{name}")(net, **OPTIONS[options])
    found, looped, shared, alone = draw_both(method, net, x, target=TARGET, **arguments)
    # Shapley values are added up in float32, Captum's as ours
    assert is_near(found, looped, 1e-12 if name == "FeaturePermutation" else 1e-6)
    assert shared <= max(5 + (options == "references") * 3, alone // 40)
    assert alone > shared or call == "all orders of one"


@pytest.mark.parametrize("call", ["permuted squares", "orders of squares", "all orders"])
def test_float32_is_within_the_stated_tolerance_of_captum(call: str) -> None:
    name, arguments = CALLS[call]
    net, x = Net(), images(dtype=torch.float32)
    found, looped, *_ = draw_both(getattr(adapters, f"Absence{name}")(net, nontarget=3), net, x, target=0, **arguments)
    size = float(net(x).detach().abs().max())
    assert torch.allclose(found, looped, rtol=0, atol=1e-6 * size)
    torch.manual_seed(3)
    host = getattr(attr, name)(net).attribute(x, target=3, **arguments)
    assert torch.equal(looped, host)


@pytest.mark.parametrize("name", ["FeaturePermutation", "ShapleyValueSampling", "ShapleyValues"])
def test_several_inputs_with_shared_groups(name: str) -> None:
    net, inputs = TwoInputs().double(), (images(3, 6, 1), torch.rand(3, 5).double())
    masks = (torch.arange(36).reshape(1, 1, 6, 6) // 12, torch.tensor([[4, 2, 0, 3, 4]]))
    call: dict[str, Any] = {"feature_mask": masks} | ({"n_samples": 3} if name == "ShapleyValueSampling" else {})
    method = getattr(adapters, f"Absence{name}")(net)
    found, looped, shared, alone = draw_both(method, net, inputs, target=0, **call)
    assert is_near(found, looped, 1e-12 if name == "FeaturePermutation" else 1e-6)
    assert shared < alone


def test_a_permutation_of_the_callers_own_is_asked_once_for_each_feature_in_order() -> None:
    net, x, seen = Net().double(), images(), []

    def permute(batch: Tensor, mask: Tensor) -> Tensor:
        seen.append(mask)
        return torch.where(mask, batch[torch.randperm(len(batch))], batch)

    method = adapters.AbsenceFeaturePermutation(net, permute)
    found, looped, shared, _ = draw_both(method, net, x, target=TARGET, feature_mask=GRID)
    assert is_near(found, looped, 1e-12)
    assert shared == 3
    assert len(seen) == 18
    assert all(torch.equal(one, other) and one.shape == GRID.shape for one, other in zip(seen, seen[9:], strict=False))


def test_no_group_of_features_is_said_to_be_incomplete(recwarn: pytest.WarningsRecorder) -> None:
    adapters.AbsenceShapleyValues(Net()).attribute(images(dtype=torch.float32), target=0, feature_mask=FOUR)
    assert not [one for one in recwarn if "does not sum" in str(one.message)]


def test_one_sample_cannot_be_permuted() -> None:
    net, x = Net(), images(1, dtype=torch.float32)
    assert not adapters.AbsenceFeaturePermutation(net).attribute(x, target=0, feature_mask=GRID).any()


def test_all_coalitions_are_run_once() -> None:
    net, x = Net().double(), images(1)
    x[:, :, :5, :5] = 0  # the first square is that of the baseline
    adapters.AbsenceShapleyValues(net).attribute(x, target=0, feature_mask=FOUR)
    assert net.sizes == [1, 1, 2**3 - 1, 1]  # the choice, one alone, the three other squares' but for x itself, blank


def test_the_weighted_sum_over_coalitions_is_the_mean_over_all_orders(monkeypatch: pytest.MonkeyPatch) -> None:
    net, x = Net().double(), images()
    x[1, :, :5] = 0
    method = adapters.AbsenceShapleyValues(net, reference=references(), nontarget="target")
    by_orders = method.explain(x, target=TARGET, feature_mask=FOUR).per_reference
    monkeypatch.setattr(coalitions, "FEW", 0)
    weighted = method.explain(x, target=TARGET, feature_mask=FOUR).per_reference
    assert torch.allclose(weighted, by_orders, rtol=0, atol=1e-6)


def test_nine_features_of_a_product_share_it_equally() -> None:
    x, mask = torch.full((1, 9), 2.0, dtype=torch.float64), torch.arange(9)[None]
    found = adapters.AbsenceShapleyValues(lambda x: torch.stack([x.prod(1), x.sum(1)], 1), nontarget="target")
    assert torch.allclose(found.attribute(x, target=0, feature_mask=mask), torch.full((1, 9), 512 / 9))
    assert torch.allclose(found.attribute(x, target=1, feature_mask=mask), torch.full((1, 9), 2.0))


@pytest.mark.parametrize("kind", ["mean", "first", "last"])
@pytest.mark.parametrize("call", ["permuted squares", "orders of squares", "all orders"])
def test_samples_that_depend_on_each_other_are_noticed(call: str, kind: str) -> None:
    name, arguments = CALLS[call]
    net, x = Entangled(), images(dtype=torch.float32)
    net.kind = kind
    torch.manual_seed(3)
    with pytest.warns(AbsenceWarning, match="does not give for many samples in one batch"):
        found = getattr(adapters, f"Absence{name}")(net, nontarget=3).attribute(x, target=0, **arguments)
    state = torch.get_rng_state()
    torch.manual_seed(3)
    assert torch.equal(found, getattr(attr, name)(net).attribute(x, target=3, **arguments))
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("name", ["FeaturePermutation", "ShapleyValueSampling"])
def test_batches_stay_within_the_memory_that_is_set(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    net, x = Net(), images(dtype=torch.float32)
    with weighing.Weighing() as one, torch.no_grad():
        net(x)
    monkeypatch.setattr(weighing, "ON_CPU", 8 * weighing.HELD * one.largest // 3)
    net.sizes.clear()
    more = {"n_samples": 2} if name == "ShapleyValueSampling" else {}
    getattr(adapters, f"Absence{name}")(net).attribute(x, target=0, **more)
    assert max(net.sizes) in (7, 8)


# -- layers ------------------------------------------------------------------------------------------


class Residual(nn.Module):
    """A convolution, a connection around the next one, and a head."""

    def __init__(self) -> None:
        super().__init__()
        self.net = Net()
        self.first, self.second, self.head = nn.Conv2d(2, 5, 3), nn.Conv2d(5, 5, 3, padding=1), nn.Linear(5, 4)
        self.mode = "sum"

    def forward(self, x: Tensor) -> Tensor:
        start = self.first(x).relu()
        after = self.second(start)
        joined = torch.cat([start, after], 1).unflatten(1, (2, 5)).sum(1) if self.mode == "cat" else start + after
        found = joined.relu().mean((2, 3))
        if self.mode == "count":  # a size of the inputs, not of the layer
            found = found.reshape(len(x), -1)
        return self.head(found) + self.net(x)


LAYER_MASK = torch.arange(6).reshape(1, 6, 1, 1) // 2
LAYERS: dict[str, tuple[Any, dict[str, Any]]] = {
    "channels": (lambda net: net.body[0], {"layer_mask": LAYER_MASK}),
    "every unit": (lambda net: net.head, {}),
    "pooled": (lambda net: net.body[3], {"layer_mask": torch.arange(150).reshape(1, 6, 5, 5) // 5}),
    "an input": (lambda net: net.body[4], {"layer_mask": LAYER_MASK, "attribute_to_layer_input": True}),
    "a number": (lambda net: net.body[0], {"layer_mask": LAYER_MASK, "layer_baselines": 0.3}),
    "by name": (lambda net: "body.2", {"layer_mask": LAYER_MASK}),
}


@pytest.mark.parametrize("name", ["LayerFeatureAblation", "LayerFeaturePermutation"])
@pytest.mark.parametrize("layer", LAYERS)
def test_the_values_of_layers_are_those_of_captums_loop(layer: str, name: str) -> None:
    choose, arguments = LAYERS[layer]
    if name == "LayerFeaturePermutation" and set(arguments) - {"layer_mask"}:
        return
    net, x = Net().double(), images()
    for options in ({}, {"nontarget": "margin"}, {"reference": references()}):
        if "reference" in options and (name == "LayerFeaturePermutation" or layer == "a number"):
            continue
        method = getattr(adapters, f"Absence{name}")(net, choose(net), **options)
        found, looped, shared, alone = draw_both(method, net, x, target=TARGET, **arguments)
        assert is_near(found, looped, 1e-12)
        assert shared <= alone + 3
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in net.modules())


@pytest.mark.parametrize("mode", ["sum", "cat", "count"])
def test_what_is_in_front_of_a_layer_runs_once_for_each_sample(mode: str, monkeypatch: pytest.MonkeyPatch) -> None:
    net, x = Residual().double(), images()
    net.mode = mode
    monkeypatch.setattr(perturbed, "CALL", 0)
    monkeypatch.setattr(perturbed, "LEAST_FRONT", 0)
    net.net = nn.Sequential(net.net)  # it is beside the layer, and gets the inputs
    method = adapters.AbsenceLayerFeatureAblation(net, net.second)
    mask = torch.arange(320).reshape(1, 5, 8, 8) // 8
    found, looped, shared, alone = draw_both(method, net, x, target=TARGET, layer_mask=mask)
    assert is_near(found, looped, 1e-12)
    assert alone > 40
    assert shared < 12
    sizes = net.net[0].sizes
    net.net[0].sizes.clear()
    method.attribute(x, target=TARGET, layer_mask=mask)
    assert (max(sizes) == 3) == (mode == "sum")  # rows of a sample are made behind the layer; else they are whole


def test_early_layers_stay_in_the_cache_and_late_ones_do_not_count_the_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    net, x, rows = nn.Sequential(nn.Conv2d(2, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(512, 400)), images(), []
    net = net.double()
    net[3].register_forward_hook(lambda module, inputs, output: rows.append(len(output)))
    most = 12 * weighing.HELD * 2 * 8 * 512  # twelve rows of what ReLU reads and puts out; the weights are more
    assert most < 8 * net[3].weight.numel()
    monkeypatch.setattr(weighing, "CACHED", most)
    mask = torch.arange(512).reshape(1, 8, 8, 8)
    for layer in (net[0], net[1]):
        rows.clear()
        found = adapters.AbsenceLayerFeatureAblation(net, layer, nontarget=3).attribute(x, target=0, layer_mask=mask)
        assert max(rows) >= 12
        if layer is net[0]:
            assert max(rows) == 12
            assert len(rows) <= 3 * 512 / 12 + 3  # the choice, the layer's values, and one alone
        expected = attr.LayerFeatureAblation(net, layer).attribute(x, target=3, layer_mask=mask)
        assert is_near(found, expected, 1e-12)


@pytest.mark.parametrize("kind", ["mean", "first"])
def test_layers_of_samples_that_depend_on_each_other_are_noticed(kind: str) -> None:
    net, x = Entangled(), images(dtype=torch.float32)
    net.kind = kind
    handle = net.body[4].register_forward_hook(lambda module, inputs, output: output - output.mean(0))
    with pytest.warns(AbsenceWarning, match="does not give for many samples in one batch"):
        found = adapters.AbsenceLayerFeatureAblation(net, net.body[0], nontarget=3).attribute(
            x, target=0, layer_mask=LAYER_MASK
        )
    host = attr.LayerFeatureAblation(net, net.body[0])
    expected = host.attribute(x, target=3, layer_mask=LAYER_MASK)
    handle.remove()
    assert torch.equal(found, expected)


def test_the_number_of_perturbations_is_the_callers_where_it_is_given() -> None:
    net, x = Net(), images(dtype=torch.float32)
    for name in ("FeaturePermutation", "ShapleyValueSampling"):
        for chosen in (1, 3):
            options = {"target": 3, "feature_mask": GRID, "perturbations_per_eval": chosen}
            torch.manual_seed(3)
            net.sizes.clear()
            found = getattr(adapters, f"Absence{name}")(net, nontarget=3).attribute(x, **options | {"target": 0})
            assert set(net.sizes) == {3, 3 * chosen}
            torch.manual_seed(3)
            assert torch.equal(found, getattr(attr, name)(net).attribute(x, **options))
