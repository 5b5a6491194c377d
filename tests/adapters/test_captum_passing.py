"""The output is chosen in the host's own forward where that can tell it, and by one more forward where it cannot."""

from __future__ import annotations

import contextlib
import gc
import warnings
from collections import Counter
from typing import Any

import captum.attr
import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

import absence_plugins.captum
from absence_plugins.captum.passing import Deciding
from absence_plugins.captum.plan import Plan
from absence_plugins.core import AbsenceWarning
from absence_plugins.core.outputs import check_logits

ONCE = ("InputXGradient", "Saliency", "LayerGradCam", "LayerGradientXActivation")


class Net(nn.Module):
    """A convolution, a ReLU and logits; counts its forwards, and does ``after`` and ``before`` in them."""

    def __init__(self, after: Any = None, before: Any = None) -> None:
        super().__init__()
        self.conv, self.relu, self.linear = nn.Conv2d(1, 3, 3), nn.ReLU(), nn.Linear(48, 4)
        self.after, self.before, self.calls = after, before, 0

    def forward(self, x: Tensor) -> Any:
        self.calls += 1
        x = x if self.before is None else self.before(x)
        scores = self.linear(self.relu(self.conv(x)).flatten(1))
        return scores if self.after is None else self.after(scores)


@pytest.fixture
def images() -> Tensor:
    return torch.randn(5, 1, 6, 6, generator=torch.Generator().manual_seed(1))


def make(after: Any = None, before: Any = None) -> Net:
    torch.manual_seed(0)
    return Net(after, before).eval()


def both(name: str, net: Net, **options: Any) -> tuple[Any, Any, dict[str, Any]]:
    layers = [net.conv] if name.startswith("Layer") else []
    keywords = {"abs": False} if name == "Saliency" else {}
    ours = getattr(absence_plugins.captum, f"Absence{name}")(net, *layers, **options)
    return ours, getattr(captum.attr, name)(net, *layers), keywords


def rivals(net: Net, images: Tensor) -> tuple[Tensor, Tensor]:
    with torch.no_grad():
        order = net(images).sort(1, descending=True).indices
    net.calls = 0
    return order[:, 0], order[:, 1]


@pytest.mark.parametrize("samples", [1, 5])
@pytest.mark.parametrize("question", ["runner_up", "given", "auto"])
@pytest.mark.parametrize("name", ONCE)
def test_one_forward_chooses_and_explains_and_the_bits_are_captums(
    name: str, question: str, samples: int, images: Tensor
) -> None:
    net, images = make(), images[:samples]
    target, runner_up = rivals(net, images)
    ours, host, keywords = both(name, net, nontarget=runner_up if question == "given" else question)
    state = torch.get_rng_state()
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # Captum's announcements do not come through
        found = ours.attribute(images, target=target, **keywords)
    assert net.calls == 1
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(found, host.attribute(images, target=runner_up, **keywords).detach())
    assert not images.requires_grad
    assert not found.requires_grad


@pytest.mark.parametrize("name", ["DeepLift", "LRP"])
def test_a_comparison_needs_its_two_forwards_alone(name: str, images: Tensor) -> None:
    net = make()
    target, runner_up = rivals(net, images)
    found = both(name, net)[0].attribute(images, target=target)
    assert net.calls == 2
    assert torch.equal(found, both(name, net, nontarget=runner_up)[0].attribute(images, target=target))


@pytest.mark.parametrize("word", ["others", "margin", "negated", "target"])
@pytest.mark.parametrize("name", ["InputXGradient", "DeepLift"])
def test_combinations_of_outputs_are_made_in_the_same_forward(name: str, word: str, images: Tensor) -> None:
    net = make()
    target, runner_up = rivals(net, images)
    found = both(name, net, nontarget=word)[0].attribute(images, target=target)
    assert net.calls == (2 if name == "DeepLift" else 1)
    weights = torch.zeros(5, 4).scatter(1, target[:, None], -1.0 if word == "negated" else 1.0)
    if word == "others":
        weights = (1 - weights) / 3
    elif word == "margin":
        weights = weights.scatter(1, runner_up[:, None], -1.0)
    x = images.clone().requires_grad_()
    (gradient,) = torch.autograd.grad((net(x) * weights).sum(), x)
    if name == "InputXGradient":
        torch.testing.assert_close(found, images * gradient)
    else:
        value = ((net(images) - net(torch.zeros_like(images))) * weights).sum(1)
        torch.testing.assert_close(found.flatten(1).sum(1), value, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("after", "said"),
    [(lambda z: z.softmax(1), "ends in a softmax"), (lambda z: z.softmax(1).view(-1, 4), "ends in a softmax")],
)
def test_logits_in_front_of_a_softmax_are_found_by_one_more_forward(after: Any, said: str, images: Tensor) -> None:
    net, plain = make(after), make()
    target, runner_up = rivals(net, images)
    ours, _, _ = both("InputXGradient", net, nontarget="runner_up")
    expected = both("InputXGradient", plain)[1].attribute(images, target=runner_up)
    for forwards in (3, 2):  # it is not tried again
        net.calls = 0
        with pytest.warns(AbsenceWarning, match=said):
            found = ours.attribute(images, target=target)
        assert torch.equal(found, expected.detach())
        assert net.calls == forwards


def test_objects_in_place_of_tensors_are_read_as_ever(images: Tensor) -> None:
    net = make(lambda z: {"logits": z})
    expected = both("InputXGradient", make())[1].attribute(images, target=rivals(make(), images)[1])
    assert torch.equal(both("InputXGradient", net)[0].attribute(images, target=rivals(make(), images)[0]), expected)


@pytest.mark.parametrize("name", ["InputXGradient", "LayerGradCam"])
def test_a_forward_that_overwrites_its_input_leaves_the_users(name: str, images: Tensor) -> None:
    net, plain = (
        make(before=lambda x: x.detach().mul_(2) if not x.requires_grad else x * 2),
        make(before=lambda x: x * 2),
    )
    target, runner_up = rivals(plain, images)
    before = images.clone()
    ours, _, keywords = both(name, net, nontarget="runner_up")
    found = ours.attribute(images, target=target, **keywords)
    assert torch.equal(images, before)
    expected = both(name, plain)[1].attribute(images, target=runner_up, **keywords)
    torch.testing.assert_close(found, expected.detach())


def test_a_random_draw_is_one_draw_and_said(images: Tensor) -> None:
    net = make(before=lambda x: nn.functional.dropout(x, 0.5, training=True))
    ours, host, _ = both("InputXGradient", net, nontarget=torch.tensor([1]))
    torch.manual_seed(3)
    with pytest.warns(AbsenceWarning, match="draws at random"):
        found = ours.attribute(images[:1], target=0)
    after = torch.get_rng_state()
    torch.manual_seed(3)
    assert torch.equal(found, host.attribute(images[:1], target=1))
    assert torch.equal(torch.get_rng_state(), after)


@pytest.mark.parametrize(
    ("after", "target", "message"),
    [
        (None, 7, "does not exist"),
        (lambda z: z * torch.nan, 0, "NaN"),
        (lambda z: z.exp() / z.exp().sum(1, keepdim=True), 0, "probabilities"),
        (lambda z: z.detach(), 0, "needs gradients"),
        (lambda z: z.sum(), 0, "one number"),
    ],
)
@pytest.mark.parametrize("name", ["InputXGradient", "LayerGradCam"])
def test_errors_are_those_of_a_choice_made_ahead(
    name: str, after: Any, target: int, message: str, images: Tensor
) -> None:
    net = make(after)
    ours, _, keywords = both(name, net, nontarget="runner_up")
    hooks = {module: len(module._forward_hooks) for module in net.modules()}
    with pytest.raises(ValueError, match=message):
        ours.attribute(images, target=target, **keywords)
    assert {module: len(module._forward_hooks) for module in net.modules()} == hooks


def test_an_error_behind_the_choice_is_not_tried_again(images: Tensor) -> None:
    class Stops(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: Tensor) -> Tensor:
            return x.clone()

        @staticmethod
        def backward(ctx: Any, grad: Tensor) -> Tensor:
            raise RuntimeError("stopped in the backward pass")

    net = make(before=Stops.apply)
    with pytest.raises(RuntimeError, match="stopped in the backward pass"):
        both("InputXGradient", net)[0].attribute(images, target=0)
    assert net.calls == 1


@pytest.mark.parametrize("classes", [2, 10, 80])
def test_the_look_at_one_row_rejects_no_other_outputs_than_the_look_at_all(classes: int) -> None:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(6, classes, generator=generator)
    check_logits(logits)
    check_logits(logits.softmax(1) * 1.001)
    check_logits(torch.cat([logits.softmax(1)[:5], logits[:1]]))
    for bad in (logits.softmax(1), logits.log_softmax(1), logits.half().softmax(1)):
        with pytest.raises(ValueError, match="probabilities"):
            check_logits(bad)


@pytest.mark.parametrize("layer", ["conv", "relu"])
@pytest.mark.parametrize("selector", [(0, 1, 1), lambda h: h[:, 1, 0, 0] - h[:, 0, 1, 1], (slice(0, 2), 0, 0)])
def test_a_neuron_is_read_in_one_forward_ahead_of_the_hosts(selector: Any, layer: str, images: Tensor) -> None:
    net = make()
    ours = absence_plugins.captum.AbsenceNeuronGradient(net, getattr(net, layer))
    found = ours.explain(images, neuron_selector=selector)
    assert net.calls == 2
    pre = net.conv(images)  # in front of the ReLU, for both layers
    values = selector(pre) if callable(selector) else pre[(slice(None), *selector)]
    torch.testing.assert_close(found.output, values.flatten(1).sum(1) if values.dim() > 1 else values)
    host = captum.attr.NeuronGradient(net, net.conv)
    assert torch.equal(found.attribution, host.attribute(images, neuron_selector=selector))


def test_a_neuron_of_a_layer_with_several_tensors_is_read_as_captum_sees_them(images: Tensor) -> None:
    class Two(nn.Module):
        def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
            return x, 2 * x

    class Around(Net):
        def __init__(self) -> None:
            super().__init__()
            self.two = Two()

        def forward(self, x: Tensor) -> Any:
            one, other = self.two(self.conv(x))
            return self.linear((one + other).flatten(1))

    net = Around().eval()
    ours = absence_plugins.captum.AbsenceNeuronGradient(net, net.two)
    found = ours.explain(images, neuron_selector=lambda both: both[1][:, 0, 0, 0])
    torch.testing.assert_close(found.output, 2 * net.conv(images)[:, 0, 0, 0])


class Operations(TorchDispatchMode):
    """Counts the operations that torch runs."""

    def __init__(self) -> None:
        super().__init__()
        self.names: Counter[str] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.names[str(func)] += 1
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("name", ONCE)
def test_the_choice_and_all_checks_are_a_dozen_operations(name: str, images: Tensor) -> None:
    net, images = make(), images[:1]
    target, runner_up = rivals(net, images)
    ours, host, keywords = both(name, net, nontarget=runner_up)
    with Operations() as own:
        ours.attribute(images, target=target, **keywords)
    with Operations() as its:
        host.attribute(images, target=runner_up, **keywords)
    added = own.names - its.names
    assert sum(added.values()) <= 12, added
    assert not its.names - own.names


@pytest.mark.parametrize("target", [0, 7])
@pytest.mark.parametrize("name", [*ONCE, "DeepLift"])
def test_no_tensor_of_a_call_waits_for_the_search_for_cycles(name: str, target: int, images: Tensor) -> None:
    ours, _, keywords = both(name, make(), nontarget=1)
    gc.collect()
    gc.disable()
    try:
        with contextlib.suppress(ValueError):  # there is no class 7
            ours.attribute(images, target=target, **keywords)
        assert not [one for one in gc.get_objects() if type(one) in (Plan, Deciding)]
    finally:
        gc.enable()
