"""Bad input: an error that names the value and the remedy, and the model as before."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from adapter_table import ADAPTERS, REFUSING, Net, arguments, build, has_target, images, references, seeded
from torch import Tensor, nn

import absence_plugins.captum as adapters
from absence_plugins import ReferenceSet

pytestmark = pytest.mark.filterwarnings("ignore")
WORKING = [name for name in ADAPTERS if name not in REFUSING]


def fingerprint(net: nn.Module) -> list[Any]:
    return [
        (sorted(vars(m)), len(m._forward_hooks), len(m._forward_pre_hooks), len(m._backward_hooks), m.training)
        for m in net.modules()
    ] + [(p.requires_grad, p.grad, p.sum().item()) for p in net.parameters()]


def options_of(name: str, samples: int = 3) -> dict[str, Any]:
    options = arguments(ADAPTERS[name], baselines=True)
    if has_target(ADAPTERS[name]):
        options["target"] = torch.arange(samples)
    return options


def refused(net: nn.Module, act: Any, message: str, error: type[Exception] = ValueError) -> None:
    before = fingerprint(net)
    with pytest.raises(error, match=message):
        act()
    assert fingerprint(net) == before


@pytest.mark.parametrize("name", WORKING)
@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_images_that_are_not_finite(name: str, value: float) -> None:
    net, x = Net(), images(3)
    x[1, 0, 2, 2] = value
    refused(
        net, lambda: build(ADAPTERS[name], net).attribute(x, **options_of(name)), "sample 1 of input 0 holds NaN or inf"
    )


@pytest.mark.parametrize("name", WORKING)
def test_empty_batches(name: str) -> None:
    net = Net()
    explainer = build(ADAPTERS[name], net)
    refused(net, lambda: explainer.attribute(images(0), **options_of(name, 0)), r"empty batch of shape \(0, 1, 5, 5\)")


@pytest.mark.parametrize("name", [name for name in WORKING if has_target(ADAPTERS[name])])
@pytest.mark.parametrize(
    ("target", "message"),
    [
        (torch.tensor([0, 1]), "2 targets for 3 samples: pass one target per sample, or one for all"),
        ([0, 1, 2, 3], "4 targets for 3 samples"),
        (4, "target 4 of sample 0 does not exist: indices go from 0 to 3"),
        (None, r"outputs of shape \(4,\); say which one: target=<class index>"),
    ],
)
def test_bad_targets(name: str, target: Any, message: str) -> None:
    net = Net()
    options = {**options_of(name), "target": target}
    refused(net, lambda: build(ADAPTERS[name], net).attribute(images(3), **options), message)


@pytest.mark.parametrize("name", [name for name in WORKING if has_target(ADAPTERS[name])])
@pytest.mark.parametrize(
    ("nontarget", "message"),
    [
        (1, "non-target 1 of sample 1 is the target itself; choose another class, or nontarget='runner_up'"),
        (4, r"non-target \[4, 4, 4\] does not exist: class indices go from 0 to 3"),
        (torch.tensor([1, 2]), "2 targets for 3 samples"),
        (lambda scores, target: target, "is the target itself"),
    ],
)
def test_bad_non_targets(name: str, nontarget: Any, message: str) -> None:
    net = Net()
    explainer = build(ADAPTERS[name], net, nontarget=nontarget)
    refused(net, lambda: explainer.attribute(images(3), **options_of(name)), message)


REFERENCES = [  # what is given, the options, the message
    (
        lambda: ReferenceSet(torch.zeros(9, 1, 4, 4)),
        {},
        r"shape \(1, 5, 5\), references \(1, 4, 4\).*preprocessing",
    ),
    (lambda: ReferenceSet((images(9), images(9))), {}, "takes 1 inputs, the references have 2"),
    (lambda: ReferenceSet(images(9), k=10), {}, "9 reference samples, but k=10 are asked for; add samples"),
    (
        lambda: ReferenceSet(images(9)),
        {"nontarget": "runner_up"},
        "class . is named, but the references have no labels; pass",
    ),
    (lambda: references(k=5), {"nontarget": "runner_up"}, "4 reference samples of class ., but k=5.*or lower k"),
    (lambda: references(k=14), {"nontarget": None}, "12 reference samples outside class ., but k=14"),
]


@pytest.mark.parametrize(
    ("name", "given", "options", "message"),
    [
        (name, *case)
        for name in ("AbsenceIntegratedGradients", "AbsenceLayerDeepLift", "AbsenceNeuronGradientShap", "AbsenceLime")
        for case in REFERENCES
        if has_target(ADAPTERS[name]) or "class" not in case[2]  # a neuron has no class
    ],
)
def test_references_that_do_not_fit(name: str, given: Any, options: dict[str, Any], message: str) -> None:
    net = Net()
    call = arguments(ADAPTERS[name])
    if has_target(ADAPTERS[name]):
        call["target"] = torch.arange(3)
    refused(net, lambda: build(ADAPTERS[name], net, reference=given(), **options).attribute(images(3), **call), message)


class Ending(nn.Module):
    """The net with something behind its logits."""

    def __init__(self, end: Any) -> None:
        super().__init__()
        self.net = Net()
        self.conv, self.end = self.net.conv, end

    def forward(self, x: Tensor) -> Tensor:
        return self.end(self.net(x))  # type: ignore[no-any-return]


class Averaged(nn.Module):
    """The mean of two softmaxes, which has no logits."""

    def forward(self, z: Tensor) -> Tensor:
        return (z.softmax(1) + (2 * z).softmax(1)) / 2


@pytest.mark.parametrize("name", [name for name in WORKING if has_target(ADAPTERS[name])])
def test_probabilities_without_logits(name: str) -> None:
    net = Ending(Averaged())
    message = r"every row.*a softmax.*explain the logits: drop the softmax.*a softmax in 'end' \(Averaged\) runs"
    refused(net, lambda: build(ADAPTERS[name], net).attribute(images(3), **options_of(name)), message)


@pytest.mark.parametrize("x", [[[1.0, 0.0]], [[0.25, 0.75], [0.5, 0.5]], [[0.0, 1.0]]])
def test_logits_that_sum_to_one_by_chance_are_explained(x: list[list[float]]) -> None:
    net = nn.Linear(2, 2, bias=False).double()
    nn.init.eye_(net.weight)
    inputs = torch.tensor(x, dtype=torch.float64)
    found = adapters.AbsenceInputXGradient(net).attribute(inputs, target=0)
    assert found.tolist() == [[0.0, row[1]] for row in x]


def test_a_black_image_whose_biases_sum_to_one_is_explained() -> None:
    net = nn.Linear(2, 2).double()
    with torch.no_grad():
        net.weight.copy_(torch.tensor([[1.0, 0.0], [0.0, 3.0]]))
        net.bias.fill_(0.5)
    assert adapters.AbsenceSaliency(net).attribute(torch.zeros(1, 2).double(), target=0).tolist() == [[0.0, 3.0]]


NEURONS = [n for n in WORKING if n.startswith("AbsenceNeuron") and not has_target(ADAPTERS[n])]


class Blocks(nn.Module):
    """Three places where a rectified neuron can be asked for."""

    def __init__(self) -> None:
        super().__init__()
        self.plain, self.relu = nn.Conv2d(1, 3, 2), nn.ReLU()
        self.block = nn.Sequential(nn.Conv2d(3, 3, 1), nn.ReLU())
        self.behind, self.inplace = nn.Conv2d(3, 3, 1), nn.ReLU(inplace=True)
        generator = torch.Generator().manual_seed(0)
        for parameter in self.parameters():
            parameter.data.copy_(torch.randn(parameter.shape, generator=generator))
        self.double()

    def forward(self, x: Tensor) -> Tensor:
        return self.inplace(self.behind(self.block(self.relu(self.plain(x))))).mean((2, 3))  # type: ignore[no-any-return]


@pytest.mark.parametrize("name", NEURONS)
@pytest.mark.parametrize(("layer", "front"), [("relu", "plain"), ("block", "block.0"), ("inplace", "behind")])
def test_neurons_of_a_rectifier_are_those_in_front_of_it(name: str, layer: str, front: str) -> None:
    """Also where the rectifier works in place; `attribute_to_neuron_input=True` asks for the same by name."""
    options = {**arguments(ADAPTERS[name], baselines=True), "neuron_selector": (1, 1, 1)}
    found = []
    for module, is_input in ((layer, False), (front, False), (layer, True)):
        net = Blocks()
        before = fingerprint(net)
        seeded()
        explainer = ADAPTERS[name](net, net.get_submodule(module))
        is_sequential = module == "block" and is_input  # whose input is that of its convolution
        found.append(
            found[0] if is_sequential else explainer.attribute(images(2), **options, attribute_to_neuron_input=is_input)
        )
        assert fingerprint(net) == before
    assert torch.equal(found[0], found[1])
    assert torch.equal(found[0], found[2])
    assert found[0].abs().sum() > 0


@pytest.mark.parametrize("name", WORKING)
@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"evidence": "absent"}, ValueError, "evidence='absent' must be 'signed', 'absence' or 'presence'"),
        ({"nontarget": "second"}, ValueError, "nontarget='second' is not known: use 'runner_up', 'others'"),
        ({"reference": torch.zeros(3, 1, 5, 5)}, TypeError, "must be a ReferenceSet, got Tensor; build one"),
    ],
)
def test_unknown_options_are_refused_at_once(
    name: str, options: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        build(ADAPTERS[name], Net(), **options)


@pytest.mark.parametrize("name", [name for name in WORKING if has_target(ADAPTERS[name])])
@pytest.mark.parametrize("evidence", ["absence", "presence"])
def test_parts_of_a_target_with_nothing_to_compare_with(name: str, evidence: str) -> None:
    net, options = Net(), options_of(name)
    if "baselines" in options:  # blank ones
        options["baselines"] = torch.zeros_like(options["baselines"])
    explainer = build(ADAPTERS[name], net, nontarget=None, evidence=evidence)
    refused(
        net, lambda: explainer.attribute(images(3), **options), "only what is present; pass reference=.* or a nontarget"
    )


def test_inputs_that_are_no_batch() -> None:
    net, ig = Net(), adapters.AbsenceIntegratedGradients(Net())
    refused(net, lambda: ig.attribute(images(3).tolist(), target=0), "input 0 must be a tensor, got list", TypeError)
    refused(net, lambda: ig.attribute((images(3), images(2)), target=0), "input 1 has 2 samples, input 0 has 3")
    shapeless = adapters.AbsenceIntegratedGradients(lambda x: net(x).sum())
    refused(net, lambda: shapeless.attribute(images(3), target=0), r"one row of outputs per sample \(3\)")
    refused(net, lambda: adapters.AbsenceGradientShap(net).attribute(images(3), target=0), "needs baselines", TypeError)
    broken = Ending(lambda z: z / 0)
    refused(
        broken, lambda: adapters.AbsenceSaliency(broken).attribute(images(1), target=0), "sample 0 is NaN or infinite"
    )


def test_neurons_that_do_not_exist() -> None:
    net = Net()
    method = adapters.AbsenceNeuronIntegratedGradients(net, net.conv)
    refused(
        net, lambda: method.attribute(images(1), neuron_selector=(9, 0, 0)), r"\(9, 0, 0\) does not exist.*\(3, 4, 4\)"
    )
    refused(net, lambda: method.attribute(images(1), neuron_selector=1), "name one, or sum with slices")
    with pytest.raises(ValueError, match="explains one neuron, which has no non-target; leave nontarget out"):
        adapters.AbsenceNeuronIntegratedGradients(net, net.conv, nontarget=1)
