"""What stood in the way of absences and was mended, each written down as a case that fails without the mend."""

from __future__ import annotations

import warnings
from typing import Any

import pytest
import torch
from captum.attr import DeepLift, NoiseTunnel
from torch import Tensor, nn
from torch.nn import functional as F

from absence_plugins import ReferenceSet
from absence_plugins import captum as adapters
from absence_plugins.core import AbsenceWarning

X = torch.rand(3, 1, 9, 9, generator=torch.Generator().manual_seed(1)).double()
R = torch.rand(3, 1, 9, 9, generator=torch.Generator().manual_seed(2)).double()


def linear(*rows: list[float]) -> nn.Linear:
    layer = nn.Linear(len(rows[0]), len(rows), bias=False)
    layer.weight.data = torch.tensor(rows)
    return layer


def seeded(*modules: nn.Module) -> nn.Sequential:
    net = nn.Sequential(*modules).double().eval()
    generator = torch.Generator().manual_seed(0)
    for parameter in net.parameters():
        parameter.data = torch.randn(parameter.shape, generator=generator, dtype=torch.float64) / 2
    return net


# -- evidence --------------------------------------------------------------------------------------


def test_what_x_lacks_of_the_nontarget_is_no_absence() -> None:
    """No weight is negative, so no unit encodes an absence; R < 0 only says that the non-target's own content is missing."""
    net = linear([1.0, 0.0], [0.0, 1.0])
    zeros = ReferenceSet(torch.tensor([[1.0, 0.0]]), torch.tensor([0]), k=1)
    found = adapters.AbsenceIntegratedGradients(net, reference=zeros, nontarget=0).explain(
        torch.tensor([[0.0, 1.0]]), target=1
    )
    assert float(found.attribution[0, 0]) == pytest.approx(-1, abs=1e-4)
    assert found.absence.abs().max() == 0


@pytest.mark.parametrize("name", ["IntegratedGradients", "DeepLift", "GradientShap"])
def test_a_gradient_becomes_evidence_only_with_the_difference(name: str) -> None:
    """u = a - b; x has a, the reference has b too: the gradient at b is -1, and b's absence raises u by 2."""
    given = ReferenceSet(torch.tensor([[1.0, 2.0]]), k=1)
    method = adapters.__dict__[f"Absence{name}"](
        linear([1.0, -1.0], [0.0, 1.0]), multiply_by_inputs=False, reference=given
    )
    found = method.explain(torch.tensor([[1.0, 0.0]]), target=0)
    assert torch.allclose(found.attribution, torch.tensor([[1.0, -1.0]]), atol=1e-4)
    assert torch.allclose(found.absence, torch.tensor([[0.0, 2.0]]), atol=1e-4)
    assert float(found.presence.abs().max()) < 1e-6
    assert found.completeness_error is None


def test_noise_is_no_evidence() -> None:
    """u = b; x has no b. Noisy copies have b of either sign; their mean has none."""
    method = adapters.AbsenceIntegratedGradients(linear([0.0, 1.0], [1.0, 0.0]), nontarget=0, evidence="absence")
    torch.manual_seed(0)
    found = NoiseTunnel(method).attribute(torch.tensor([[1.0, 0.0]]), target=1, nt_samples=400, stdevs=1.0)
    assert float(found[0, 1]) < 0.15  # 0.36 if every copy is clamped on its own


def test_the_choice_survives_a_tunnel_in_a_tunnel() -> None:
    batches = []

    def remember(outputs: Tensor, target: Tensor) -> Tensor:
        batches.append(len(outputs))
        return 1 - target

    method = adapters.AbsenceInputXGradient(linear([1.0, -1.0], [0.0, 1.0]), nontarget=remember)
    torch.manual_seed(0)
    NoiseTunnel(NoiseTunnel(method)).attribute(torch.tensor([[1.0, 2.0]]), target=1, nt_samples=3)
    assert set(batches) == {1}


def test_one_empty_value_per_channel_may_be_a_tuple() -> None:
    given = ReferenceSet(torch.zeros(8, 3, 2, 2), empty=(0.1, 0.2, 0.3))
    assert given.empty[0].flatten().tolist() == pytest.approx([0.1, 0.2, 0.3])


# -- DeepLift --------------------------------------------------------------------------------------

POOLS = {
    "overlapping": nn.MaxPool2d(3, 2, 1),
    "every pixel": nn.MaxPool2d(3, 1),
    "dilated": nn.MaxPool2d(2, dilation=2),
    "ceil": nn.MaxPool2d(2, ceil_mode=True),
}


def pooled(pool: nn.Module) -> nn.Sequential:
    side = pool(torch.zeros(1, 1, 9, 9)).shape[-1]
    return seeded(nn.Conv2d(1, 3, 3, padding=1), nn.ReLU(), pool, nn.Flatten(), nn.Linear(3 * side * side, 3))


@pytest.mark.parametrize("name", POOLS)
def test_deep_lift_is_complete_behind_every_max_pooling(name: str) -> None:
    found = adapters.AbsenceDeepLift(pooled(POOLS[name]), nontarget=1).explain(X, R, target=0)
    assert float(found.completeness_error.abs().max()) < 1e-10


def test_captums_deep_lift_is_not() -> None:
    net = pooled(POOLS["overlapping"])
    difference = (net(X) - net(R))[:, 1].detach()
    plain = DeepLift(net).attribute(X, R, target=1).detach().flatten(1).sum(1)
    assert float((plain - difference).abs().max()) > 0.05


def test_the_max_pooling_rule_written_again() -> None:
    """One window, by hand: x = (3, 1), r = (0, 2). The rise max(3,2) - 2 = 1 is x's winner's, the fall 3 - 3 = 0 r's."""
    net = seeded(nn.MaxPool1d(2), nn.Flatten(), nn.Linear(1, 1, bias=False))
    net[2].weight.data.fill_(1.0)
    x, r = torch.tensor([[[3.0, 1.0]]]).double(), torch.tensor([[[0.0, 2.0]]]).double()
    found = adapters.AbsenceDeepLift(net, nontarget=None, evidence="presence")
    assert found.explain(x, r, target=0).attribution.tolist() == [[[1.0, 0.0]]]
    assert found.explain(r, x, target=0).attribution.tolist() == [[[-1.0, 0.0]]]


def test_deep_lift_of_a_batch_is_that_of_its_samples() -> None:
    net = seeded(nn.Conv2d(1, 3, 3, padding=1), nn.MaxPool2d(3, 2, 1), nn.ReLU(), nn.Flatten(), nn.Linear(75, 3))
    x, r = X.clone(), R.clone()
    r[:, :, 3:6] = x[:, :, 3:6]  # differences of exactly zero
    method = adapters.AbsenceDeepLift(net, nontarget=1)
    single = torch.cat([method.attribute(x[i : i + 1], r[i : i + 1], target=0) for i in range(3)])
    assert torch.allclose(method.attribute(x, r, target=0), single, atol=1e-12)


@pytest.mark.filterwarnings("ignore::absence_plugins.core.AbsenceWarning")
def test_neuron_and_layer_deep_lift_are_complete_behind_overlapping_pooling() -> None:
    net = pooled(POOLS["overlapping"])
    given = ReferenceSet(R, k=2)
    neuron = adapters.AbsenceNeuronDeepLift(net, net[4], reference=given).explain(X, 2)
    layer = adapters.AbsenceLayerDeepLift(net, net[0], reference=given).explain(X, target=0)
    for found in (neuron, layer):
        assert float(found.completeness_error.abs().max()) < 1e-10


@pytest.mark.filterwarnings("error::absence_plugins.core.AbsenceWarning")
@pytest.mark.parametrize("activation", [F.relu, F.gelu])
def test_what_is_called_as_a_function_is_seen(activation: Any) -> None:
    class Functional(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body, self.head = seeded(nn.Conv2d(1, 3, 3)), seeded(nn.Flatten(), nn.Linear(147, 3))

        def forward(self, x: Tensor) -> Tensor:
            return self.head(activation(self.body(x)))

    net = Functional().double().eval()
    for method in (adapters.AbsenceDeepLift(net, nontarget=1), adapters.AbsenceDeepLift(net)):
        found = method.explain(X, R, target=0)
        assert float(found.completeness_error.abs().max()) < 1e-10
        assert float((method.attribute(X, R, target=0) - found.attribution).abs().max()) == 0


@pytest.mark.filterwarnings("error::absence_plugins.core.AbsenceWarning")
def test_a_module_that_runs_twice_is_no_obstacle() -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.relu, self.a, self.head = (
                nn.ReLU(),
                seeded(nn.Conv2d(1, 3, 3)),
                seeded(nn.Flatten(), nn.Linear(147, 3)),
            )

        def forward(self, x: Tensor) -> Tensor:
            return self.head(self.relu(self.a(self.relu(x))))

    with pytest.raises(RuntimeError, match="does not contain"):
        DeepLift(Twice().double()).attribute(X, R, target=1)
    found = adapters.AbsenceDeepLift(Twice().double(), nontarget=1).explain(X, R, target=0)
    assert float(found.completeness_error.abs().max()) < 1e-10


def test_a_nonlinearity_can_be_a_deep_lift_layer_on_both_sides() -> None:
    net = pooled(POOLS["ceil"])
    for layer_input in (True, False):
        method = adapters.AbsenceLayerDeepLift(net, net[1])
        found = method.explain(X, R, target=0, attribute_to_layer_input=layer_input)
        assert float(found.completeness_error.abs().max()) < 1e-10


@pytest.mark.filterwarnings("error::absence_plugins.core.AbsenceWarning")
def test_a_layer_that_is_no_cut_is_said_to_be_none() -> None:
    class Around(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.head = seeded(nn.Conv2d(1, 1, 3, padding=1)), seeded(nn.Flatten(), nn.Linear(81, 3))

        def forward(self, x: Tensor) -> Tensor:
            return self.head(x + self.a(x))

    net = Around().double()
    with pytest.raises(AbsenceWarning, match="paths to the output lead around the layer"):
        adapters.AbsenceLayerDeepLift(net, net.a, nontarget=1).attribute(X, R, target=0)


# -- completeness of paths --------------------------------------------------------------------------


def steep() -> nn.Module:
    """One steep step on the way from 0 to 1."""
    net = nn.Sequential(nn.Linear(1, 2), nn.Sigmoid(), nn.Linear(2, 2, bias=False)).double().eval()
    net[0].weight.data[:], net[0].bias.data = 300.0, torch.tensor([-150.0, -160.0]).double()
    net[2].weight.data = torch.eye(2).double()
    return net


def test_integrated_gradients_say_where_their_sum_is_off() -> None:
    one = torch.ones(1, 1).double()
    method = adapters.AbsenceIntegratedGradients(steep(), nontarget=1)
    for call in (method.attribute, method.explain):
        with pytest.warns(AbsenceWarning, match=r"samples \[0\] \(more than 5% off\): its steps are too few"):
            call(one, target=0, n_steps=50)
    with warnings.catch_warnings():
        warnings.simplefilter("error", AbsenceWarning)
        enough = method.attribute(one, target=0, n_steps=500)
        found = method.attribute(one, target=0, n_steps="auto")
    assert float(found.sum()) == pytest.approx(1.0, abs=0.05)
    assert float(enough.sum()) == pytest.approx(1.0, abs=0.05)


# -- LRP and guided backpropagation -----------------------------------------------------------------


@pytest.mark.parametrize("between", [nn.Identity, nn.Flatten])
@pytest.mark.parametrize("name", ["LRP", "LayerLRP"])
def test_lrp_passes_modules_that_do_nothing(between: type[nn.Module], name: str) -> None:
    first, last = nn.Linear(4, 5, bias=False), nn.Linear(5, 3, bias=False)
    plain = seeded(first, nn.ReLU(), last)
    padded = nn.Sequential(first, nn.ReLU(), between(), last).eval()
    x = torch.rand(2, 4, generator=torch.Generator().manual_seed(0)).double()
    layer = [first] if name == "LayerLRP" else []
    maps = [
        adapters.__dict__[f"Absence{name}"](net, *layer, nontarget=1).attribute(x, target=0) for net in (plain, padded)
    ]
    assert torch.allclose(*maps, atol=1e-6)
    assert float(maps[0].abs().max()) > 0.01


def test_guided_backpropagation_counts_paths_without_a_relu_once() -> None:
    """u = x0 - relu(x1): a skip beside a ReLU, whose path both one-sided passes contain."""

    class Skip(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.relu = nn.ReLU()

        def forward(self, x: Tensor) -> Tensor:
            return torch.stack([x[:, 0] - self.relu(x[:, 1]), x[:, 1]], 1)

    with pytest.warns(AbsenceWarning, match="is local"):
        found = adapters.AbsenceGuidedBackprop(Skip()).attribute(torch.tensor([[1.0, 1.0]]), target=1)
    assert found.tolist() == [[1.0, -1.0]]


# -- the model -------------------------------------------------------------------------------------


def test_a_lazy_model_is_refused_and_lives() -> None:
    net = nn.Sequential(nn.LazyLinear(3))
    with pytest.raises(ValueError, match="run it once before explaining"):
        adapters.AbsenceIntegratedGradients(net).attribute(torch.rand(1, 4), target=0)
    assert net(torch.rand(1, 4)).shape == (1, 3)


def test_a_hook_that_removes_itself_stays_removed() -> None:
    net, calls = linear([1.0, -1.0], [0.0, 1.0]), []

    def once(*_: Any) -> None:
        calls.append(1)
        handle.remove()

    handle = net.register_forward_hook(once)
    adapters.AbsenceIntegratedGradients(net).attribute(torch.tensor([[1.0, 2.0]]), target=1)
    assert len(calls) == 1


def test_a_layer_that_looks_rectified_draws_a_warning() -> None:
    class Block(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return F.relu(x)

    net = nn.Sequential(linear([1.0, -1.0], [0.0, 1.0]), Block())
    with pytest.warns(AbsenceWarning, match="as behind a ReLU"):
        adapters.AbsenceNeuronIntegratedGradients(net, net[1]).attribute(torch.tensor([[1.0, 2.0]]), 0)
    with warnings.catch_warnings():
        warnings.simplefilter("error", AbsenceWarning)
        adapters.AbsenceNeuronIntegratedGradients(net, net[0]).attribute(torch.tensor([[1.0, 2.0]]), 0)


@pytest.mark.parametrize("call", ["attribute", "explain"])
def test_warnings_point_at_the_users_line(call: str) -> None:
    given = ReferenceSet(torch.tensor([[3.0, 0.0]]), k=1)
    method = adapters.AbsenceIntegratedGradients(linear([1.0, -1.0], [0.0, 1.0]), reference=given)
    with pytest.warns(AbsenceWarning, match="not lower") as caught:
        getattr(method, call)(torch.tensor([[1.0, 0.0]]), target=0)
    assert caught[0].filename == __file__


def test_a_loader_is_sampled_without_holding_its_batches() -> None:
    data = torch.utils.data.TensorDataset(torch.rand(200, 1, 4, 4), torch.arange(200))
    given = ReferenceSet.from_dataset(torch.utils.data.DataLoader(data, batch_size=100), max_samples=10)
    assert given.images[0].untyped_storage().nbytes() == 10 * 16 * 4


@pytest.mark.parametrize("contrast", ["tri", {0: "tri"}, True])
def test_class_names_are_no_contrast(contrast: Any) -> None:
    with pytest.raises(TypeError, match="class_to_idx"):
        ReferenceSet(torch.rand(9, 2), torch.arange(9), k=1, contrast=contrast)
