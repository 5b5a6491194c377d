"""What runs outside of modules, or in modules that Zennit has no rule for: right, against relevance() and known maps, or refused."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.overrides import _get_current_function_mode_stack
from zennit import attribution, rules
from zennit.composites import LayerMapComposite, NameMapComposite
from zennit.types import Convolution, Linear
from zennit_nets import CONSERVATIVE, Residual, dense_net, explain, images, one, relative, rows, summed

import absence_plugins.zennit as adapters
from absence_plugins.relevance import RelevanceError, relevance
from absence_plugins.relevance.secants.redistribution import Gamma
from absence_plugins.zennit import AbsenceEpsilon, AbsenceEpsilonGamma, AbsenceGradient, ConservationError

pytestmark = pytest.mark.filterwarnings("ignore")


def by_engine(net: nn.Module, x: Tensor, r: Tensor, output: int = 0) -> Tensor:
    """AbsenceEpsilonGamma, named module by module for the engine."""
    modules = dict(net.named_modules())
    rule = lambda name: Gamma(0.25) if isinstance(modules[name], Convolution) else None  # noqa: E731
    found: Tensor = relevance(net, x, r, output, rule=rule).attribution
    return found


class Net(nn.Module):
    """Convolution and whatever ``middle`` does, then a dense layer."""

    def __init__(
        self,
        middle: Callable[[Net, Tensor], Tensor],
        activation: nn.Module | None = None,
        pool: nn.Module | None = None,
    ) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv, self.active, self.middle = nn.Conv2d(2, 3, 3), activation or nn.ReLU(), middle
        self.pool = pool
        self.other, self.gate = nn.Conv2d(3, 3, 1), nn.Sigmoid()
        with torch.no_grad():
            size = self.middle(self, self.active(self.conv(torch.zeros(1, 2, 8, 8)))).flatten(1).shape[1]
        self.dense = nn.Linear(size, 3)
        self.double().eval()

    def forward(self, x: Tensor) -> Tensor:
        return self.dense(self.middle(self, self.active(self.conv(x))).flatten(1))  # type: ignore[no-any-return]


OPERATIONS: dict[str, Callable[[Any, Tensor], Tensor]] = {
    "relu": lambda net, h: F.relu(net.other(h)),
    "relu of torch": lambda net, h: torch.relu(net.other(h)),
    "method": lambda net, h: net.other(h).relu_(),
    "clamp": lambda net, h: net.other(h).clamp(min=0),
    "tanh": lambda net, h: torch.tanh(net.other(h)),
    "sigmoid": lambda net, h: F.sigmoid(net.other(h)),
    "mean": lambda net, h: h.mean((2, 3)),
    "avg_pool": lambda net, h: F.avg_pool2d(h, 2),
    "adaptive": lambda net, h: F.adaptive_avg_pool2d(h, 1),
    "branches": lambda net, h: h + net.other(h),
    "difference": lambda net, h: h - net.other(h),
    "gate": lambda net, h: h * net.gate(net.other(h)),
    "layer norm": lambda net, h: F.layer_norm(h, h.shape[1:]),
    "linear": lambda net, h: F.linear(h, torch.ones(4, 6).to(h)),
    "softmax": lambda net, h: net.other(h).softmax(1),
    "attention": lambda net, h: F.scaled_dot_product_attention(h, h, h),
    "interpolate": lambda net, h: F.interpolate(h, scale_factor=2.0, mode="bilinear"),
    "negation": lambda net, h: -h,
    "square": lambda net, h: h.square(),
    "power": lambda net, h: net.other(h) ** 2,
    "magnitude": lambda net, h: net.other(h).abs(),
    "statistics": lambda net, h: torch.cat(torch.var_mean(h, (2, 3)), 1),
    "unsharp mask": lambda net, h: h + (h - F.avg_pool2d(h, 3, 1, 1)),
    "sum of three": lambda net, h: h + net.other(h) - F.relu(net.other(h)),
    "softmax pooling": lambda net, h: (h.flatten(2).softmax(2) * h.flatten(2)).sum(2),
}


@pytest.mark.parametrize("name", OPERATIONS)
def test_operations_outside_of_modules_are_right(name: str) -> None:
    net, x, r = Net(OPERATIONS[name]), images(2), images(2, seed=2)
    difference = (net(x) - net(r))[:, 0].detach()
    for composite in CONSERVATIVE.values():
        found = explain(net, composite(), x, r)
        assert relative(summed(found), difference) <= 1e-9
        assert relative(explain(net, composite(), r, x), -found) <= 1e-10
    assert torch.equal(explain(net, AbsenceEpsilonGamma(), x, r), by_engine(net, x, r))
    zeros = attribution.Gradient(net, AbsenceEpsilonGamma())(x, one(0, 0))[1]
    assert torch.equal(zeros, by_engine(net, x, torch.zeros_like(x)))


HIDDEN = {
    "mean": (lambda net, h: h.mean((2, 3)), nn.AdaptiveAvgPool2d(1)),
    "average": (lambda net, h: F.avg_pool2d(h, 3), nn.AvgPool2d(3)),
    "max": (lambda net, h: F.max_pool2d(h, 2), nn.MaxPool2d(2)),
    "amax": (lambda net, h: h.amax((2, 3)), nn.AdaptiveMaxPool2d(1)),
}


@pytest.mark.parametrize("activation", [nn.ReLU(), nn.Tanh()], ids=str)
@pytest.mark.parametrize("name", HIDDEN)
def test_pooling_as_a_function_is_as_the_module(name: str, activation: nn.Module) -> None:
    middle, module = HIDDEN[name]
    x, r = images(2), images(2, seed=2)
    expected = explain(Net(lambda net, h: net.pool(h), activation, module), AbsenceEpsilonGamma(), x, r)
    assert relative(explain(Net(middle, activation), AbsenceEpsilonGamma(), x, r), expected) <= 1e-9


MODULES = {
    "layer norm": lambda: nn.LayerNorm(6),
    "mish": nn.Mish,
    "softmax": lambda: nn.Softmax(1),
    "residual": lambda: Residual(nn.Linear(6, 6)),
}


@pytest.mark.parametrize("name", MODULES)
def test_modules_without_a_hook_are_right(name: str) -> None:
    net = nn.Sequential(nn.Linear(5, 6), MODULES[name](), nn.Linear(6, 3)).double().eval()
    x, r = rows(2), rows(2, seed=2)
    found = explain(net, AbsenceEpsilonGamma(), x, r)
    assert torch.equal(found, relevance(net, x, r, 0).attribution)
    hooked = AbsenceEpsilonGamma(layer_map=[(type(net[1]), adapters.AbsencePass())])
    assert torch.equal(explain(net, hooked, x, r), found)


@pytest.mark.parametrize("last", ["module", "function", "log"])
@pytest.mark.parametrize("kind", ["Gradient", "SmoothGrad", "IntegratedGradients", "Occlusion"])
def test_a_softmax_head_is_refused(kind: str, last: str) -> None:
    # IntegratedGradients and Occlusion look at the outputs only where there is a non-target (attributor.py, _plan)
    net = dense_net(1)
    if last == "module":
        net.append(nn.Softmax(1))
    else:
        head = F.softmax if last == "function" else F.log_softmax
        net.register_forward_hook(lambda module, value, output: head(output, 1))
    composite = AbsenceEpsilonGamma() if kind in ("Gradient", "SmoothGrad") else None
    few: dict[str, Any] = {"window": 1, "stride": 1} if kind == "Occlusion" else {}
    for options in ({"nontarget": 1}, {"reference": rows(2, seed=2)}):
        attributor = getattr(adapters, f"Absence{kind}")(net, composite, one(0, 0), **few, **options)
        with pytest.raises(ValueError, match=r"probabilities .*explain the logits: drop the softmax"):
            attributor(rows(2))


def test_a_softmax_head_under_zennits_attributor() -> None:
    net = dense_net(1).append(nn.Softmax(1))
    with pytest.raises(ValueError, match=r"probabilities .*drop the softmax"):
        attribution.Gradient(net, AbsenceEpsilonGamma())(rows(2), one(0, 0))


class Attention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.ModuleDict({"mix": nn.MultiheadAttention(4, 2, batch_first=True)})
        self.dense = nn.Linear(4, 3)
        self.double().eval()

    def forward(self, x: Tensor) -> Tensor:
        return self.dense(self.inner["mix"](x, x, x)[0][:, 0])  # type: ignore[no-any-return]


@pytest.mark.parametrize("name", [*CONSERVATIVE, "layer map"])
def test_attention_is_right(name: str) -> None:
    composite = LayerMapComposite([(Linear, AbsenceEpsilon())]) if name == "layer map" else CONSERVATIVE[name]()
    net, x, r = Attention(), torch.randn(1, 3, 4).double(), torch.randn(1, 3, 4).double()
    try:
        found = explain(net, composite, x, r)
    except ConservationError as error:
        assert "Flat" in str(error)  # noqa: PT017  (its first dense layer in the order of modules is none of the input)
        assert "flat" in name
        return
    assert relative(summed(found), (net(x) - net(r))[:, 0].detach()) <= 1e-9
    if name in ("layer map", "absence_epsilon_gamma"):
        assert torch.equal(found, relevance(net, x, r, 0).attribution)


def test_a_normalization_of_the_input_inside_the_model() -> None:
    class Normalized(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = dense_net(1)

        def forward(self, x: Tensor) -> Tensor:
            return self.net((x - 0.5) / 0.25)  # type: ignore[no-any-return]

    x, r = rows(2), rows(2, seed=2)
    for composite in CONSERVATIVE.values():
        found = explain(Normalized(), composite(), x, r)
        assert relative(found, explain(dense_net(1), composite(), (x - 0.5) / 0.25, (r - 0.5) / 0.25)) <= 1e-9


# -- operations whose gradient keeps the sum of relevance, so that the sum alone tells nothing ----------------------------

# linear: right is what an average pooling gets
AVERAGES: dict[str, Callable[[Tensor], Tensor]] = {
    "sum and division": lambda h: h.sum((2, 3)) / 36,
    "einsum": lambda h: torch.einsum("bchw->bc", h) / 36,
    "matmul": lambda h: h.flatten(2) @ h.new_full((36, 1), 1 / 36),
    "nanmean": lambda h: h.nanmean((2, 3)),
    "std_mean": lambda h: torch.std_mean(h, (2, 3))[1],
    "convolution": lambda h: F.conv2d(h, h.new_full((3, 1, 6, 6), 1 / 36), groups=3),
}
# not linear: which value comes out depends on the input, so x and r differ in it
SELECTIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "sort": lambda h: h.flatten(2).sort(2).values,
    "topk": lambda h: h.flatten(2).topk(3).values,
    "kthvalue": lambda h: h.flatten(2).kthvalue(3).values,
    "cummax": lambda h: h.flatten(2).cummax(2).values,
    "where": lambda h: torch.where(h > 0, h, 0.0),
    "at the argmax": lambda h: h.flatten(2).gather(2, h.flatten(2).argmax(2, keepdim=True)),
    "index of the argmax": lambda h: h.flatten(2)[
        torch.arange(len(h))[:, None], torch.arange(3), h.flatten(2).argmax(2)
    ],
}
# linear, and made of sums and products with constants alone
MIXTURES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "mean of two branches": lambda a, b: (a + b) / 2,
    "blend": lambda a, b: 0.25 * a + 0.75 * b,
    "extrapolation": lambda a, b: 2 * a - b,
    "neighbors": lambda a, b: (a[..., ::2] + a[..., 1::2]) * 0.5,
    "lerp": lambda a, b: torch.lerp(a, b, 0.25),
}


@pytest.mark.parametrize("name", MIXTURES)
def test_mixtures_are_right(name: str) -> None:
    """As the mixture written as a dense layer."""
    mix, x, r = MIXTURES[name], images(2), images(2, seed=2)
    plain = Net(lambda net, h: mix(h, net.other(h)), nn.Tanh())
    size = 3 * 6 * 6
    ruled = Net(
        lambda net, h: net.pool(torch.cat([h.flatten(1), net.other(h).flatten(1)], 1)), nn.Tanh(), _mixing(mix, size)
    )
    expected = explain(ruled, AbsenceEpsilonGamma(), x, r)
    assert relative(explain(plain, AbsenceEpsilonGamma(), x, r), expected) <= 1e-9


def _mixing(mix: Callable[[Tensor, Tensor], Tensor], size: int) -> nn.Linear:
    """The mixture as a dense layer, whose rule is Epsilon."""
    inputs = torch.eye(2 * size).reshape(2 * size, 2, 3, 6, 6)
    weight = mix(inputs[:, 0], inputs[:, 1]).flatten(1).T
    layer = nn.Linear(2 * size, len(weight), bias=False)
    layer.weight.data = weight.clone()
    return layer


@pytest.mark.parametrize("name", AVERAGES)
def test_averages_by_other_names_are_right(name: str) -> None:
    x, r, average = images(2), images(2, seed=2), AVERAGES[name]
    expected = explain(Net(lambda net, h: net.pool(h), nn.Tanh(), nn.AdaptiveAvgPool2d(1)), AbsenceEpsilonGamma(), x, r)
    assert relative(explain(Net(lambda net, h: average(h), nn.Tanh()), AbsenceEpsilonGamma(), x, r), expected) <= 1e-9


@pytest.mark.parametrize("name", SELECTIONS)
def test_selections_are_refused_in_a_line_or_two(name: str) -> None:
    select = SELECTIONS[name]
    with pytest.raises(ConservationError) as caught:
        explain(Net(lambda net, h: select(h), nn.Tanh()), AbsenceEpsilonGamma(), images(2), images(2, seed=2))
    assert len(str(caught.value)) < 500
    assert name.split()[0] in str(caught.value) or "argmax" in str(caught.value)


@pytest.mark.parametrize("as_module", [True, False], ids=["module", "function"])
def test_interpolation_is_right(as_module: bool) -> None:
    x, r, up = images(2), images(2, seed=2), nn.Upsample(scale_factor=2.0, mode="bilinear")
    net = Net(lambda net, h: net.pool(h), nn.Tanh(), up)
    expected = explain(net, AbsenceEpsilonGamma(layer_map=[(nn.Upsample, adapters.AbsenceNorm())]), x, r)
    if not as_module:
        net = Net(lambda net, h: F.interpolate(h, scale_factor=2.0, mode="bilinear"), nn.Tanh())
    assert relative(explain(net, AbsenceEpsilonGamma(), x, r), expected) <= 1e-12


COPIES: dict[str, Callable[[Tensor], Tensor]] = {
    "nearest": lambda h: F.interpolate(h, scale_factor=2.0),
    "shift": lambda h: h + 1.5,
    "shift by a parameter's mean": lambda h: h + nn.Parameter(h.new_ones(3)).mean(),
    "shuffle": lambda h: F.pixel_unshuffle(h, 2),
    "pad": lambda h: F.pad(h, (1, 1, 2, 0), mode="reflect"),
    "crop, turn, join": lambda h: torch.cat([h[..., 1:].flip(3), h[..., :-1].transpose(2, 3).roll(1, 2).transpose(2, 3)], 1),
    "repeat": lambda h: h.repeat(1, 2, 1, 1),
    "unfold": lambda h: F.unfold(h, 3),
}  # fmt: skip


@pytest.mark.parametrize("name", COPIES)
def test_operations_that_only_move_values_need_no_rule(name: str) -> None:
    """Relevance goes where the value came from: the map is that of a matrix with one 1 in every row (Epsilon)."""
    move, x, r = COPIES[name], images(2), images(2, seed=2)
    found = explain(Net(lambda net, h: move(h), nn.Tanh()), AbsenceEpsilonGamma(), x, r)
    size = 3 * 6 * 6
    zero = move(torch.zeros(1, 3, 6, 6).double()).flatten()
    rows_of = [move(row.reshape(1, 3, 6, 6)).flatten() - zero for row in torch.eye(size).double()]
    moved = nn.Linear(size, len(zero)).double()
    moved.weight.data, moved.bias.data = torch.stack(rows_of, 1).detach(), zero.detach()
    net = Net(lambda net, h: move(h), nn.Tanh())
    net.pool, net.middle = nn.Sequential(nn.Flatten(), moved), lambda net, h: net.pool(h)
    assert relative(found, explain(net, AbsenceEpsilonGamma(), x, r)) <= 1e-9


def test_the_reference_does_not_move_the_users_random_state() -> None:
    def draw(net: Net, h: Tensor) -> Tensor:
        torch.rand(1)
        return F.relu(net.other(h))

    net = Net(draw)
    torch.manual_seed(4)
    net(images(1))
    expected = torch.get_rng_state()
    for middle in (draw, lambda net, h: draw(net, h).sort(1)[0]):
        net.middle = middle
        torch.manual_seed(4)
        try:
            explain(net, AbsenceEpsilonGamma(), images(1), images(1, seed=2))
        except ConservationError as error:
            assert "sort" in str(error)  # noqa: PT017
        assert torch.equal(torch.get_rng_state(), expected)


# -- layers that do more than their class -------------------------------------------------------------------------------


class Conv2dSame(nn.Conv2d):
    """Pads in its own forward, as every network ported from TensorFlow."""

    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(F.pad(x, (1, 1, 1, 1)), self.weight, self.bias, self.stride)


class Standardized(nn.Conv2d):
    """Standardizes its weights in its own forward."""

    def forward(self, x: Tensor) -> Tensor:
        mean, std = self.weight.mean((1, 2, 3), keepdim=True), self.weight.std((1, 2, 3), keepdim=True)
        return self._conv_forward(x, (self.weight - mean) / std, self.bias)


@pytest.mark.parametrize("name", CONSERVATIVE)
def test_convolutions_with_a_forward_of_their_own(name: str) -> None:
    """As the convolution that they stand for; Flat gives nothing to the padding."""
    torch.manual_seed(0)
    for own, padding in ((Conv2dSame(2, 4, 3).double(), 1), (Standardized(2, 4, 3).double(), 0)):
        plain = nn.Conv2d(2, 4, 3, padding=padding).double()
        plain.load_state_dict(own.state_dict())
        if isinstance(own, Standardized):
            mean, std = own.weight.mean((1, 2, 3), keepdim=True), own.weight.std((1, 2, 3), keepdim=True)
            plain.weight.data = ((own.weight - mean) / std).detach()
        head = [nn.ReLU(), nn.Flatten(), nn.Linear(4 * (6 + 2 * padding) ** 2, 3)]
        nets = [nn.Sequential(conv, *head).double().eval() for conv in (own, plain)]
        found, expected = (explain(net, CONSERVATIVE[name](), images(2), images(2, seed=2)) for net in nets)
        assert relative(found, expected) <= 1e-12


def test_detached_branches_are_refused() -> None:
    class Detached(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Linear(5, 3).double(), nn.Linear(5, 3).double()

        def forward(self, x: Tensor) -> Tensor:
            return self.a(x) + self.b(x.detach())  # type: ignore[no-any-return]

    with pytest.raises(ConservationError, match=r"detach"):
        explain(Detached(), AbsenceEpsilonGamma(), rows(2), rows(2, seed=2))


# -- cells of Zennit's documentation -----------------------------------------------------------------------------------


def test_norm_on_a_max_pooling_changes_nothing() -> None:
    net = Net(lambda net, h: net.pool(h), pool=nn.MaxPool2d(2))
    x, r = images(2), images(2, seed=2)
    hooks = [(["conv"], adapters.AbsenceZPlus()), (["active"], adapters.AbsencePass()), (["dense"], AbsenceEpsilon())]
    maps = [
        AbsenceGradient(net, NameMapComposite([*hooks, (["pool"], hook)]), one(0, 0), reference=r)(x)[1]
        for hook in (adapters.AbsenceNorm(), adapters.AbsenceMaxPool())
    ]
    assert torch.equal(*maps)
    assert relative(summed(maps[0]), (net(x) - net(r))[:, 0].detach()) <= 1e-9


def test_zbox_is_gamma() -> None:
    net, x, r = dense_net(1), rows(2), rows(2, seed=2)
    maps = [
        explain(net, adapters.AbsenceEpsilonPlusFlat(first_map=[(nn.Linear, hook)]), x, r)
        for hook in (adapters.AbsenceZBox(-3.0, 3.0), adapters.AbsenceZBox(low=0.0, high=1.0), adapters.AbsenceGamma())
    ]
    assert torch.equal(maps[0], maps[1])
    assert torch.equal(maps[0], maps[2])


def test_a_rule_alone_says_what_is_missing() -> None:
    net, x = dense_net(1), rows(2).requires_grad_()
    handles = AbsenceEpsilon().register(net[0])
    with pytest.raises(
        ValueError, match=r"none was paired; use AbsenceGradient in place of Gradient, or an Absence comp"
    ):
        net(x)
    with torch.no_grad():
        net(x)
    found = AbsenceGradient(net, None, one(0, 0), reference=rows(2, seed=2))(x.detach())[1]
    handles.remove()
    assert torch.equal(found, relevance(net, x.detach(), rows(2, seed=2), 0).attribution)
    torch.autograd.grad(net(x), x, one(0, 0))


def test_every_class_that_a_message_names_exists() -> None:
    for name in ("ZBox", "Epsilon", "Gamma", "ZPlus", "AlphaBeta", "Flat", "WSquare", "Norm", "Pass"):
        hook = getattr(adapters, f"Absence{name}")
        host = rules.ZBox(-1.0, 1.0) if name == "ZBox" else getattr(rules, name)()
        both = LayerMapComposite([(nn.ReLU, adapters.AbsencePass()), (nn.Linear, host)])
        with pytest.raises(ValueError, match=f"use {hook.__name__} beside"):
            explain(dense_net(1), both, rows(1), rows(1))


# -- several inputs, outputs of one sample, modules inside of modules ------------------------------------------------------


class Two(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.head = nn.Linear(5, 4), nn.Linear(3, 4), nn.Linear(4, 3)
        self.double().eval()

    def forward(self, x: Tensor, other: Tensor, *, scale: float = 1.0) -> Tensor:
        return self.head(torch.tanh(self.a(x)) * self.b(other) * scale)  # type: ignore[no-any-return]


@pytest.mark.parametrize("name", ["absence_epsilon_gamma", "absence_excitation_backprop"])
def test_models_with_several_inputs(name: str) -> None:
    net, x, other = Two(), rows(2).requires_grad_(), rows(2, seed=3)[:, :3].contiguous().requires_grad_()
    with CONSERVATIVE[name]().context(net):
        output = net(x, other, scale=2.0)
        first, second = torch.autograd.grad(output, (x, other), one(1, 1))
        (alone,) = torch.autograd.grad(net(x, other.detach(), scale=2.0), x, one(1, 1))
    change = (net(x, other, scale=2.0) - net(torch.zeros_like(x), torch.zeros_like(other), scale=2.0))[:, 1]
    assert relative(summed(first) + summed(second), change.detach()) <= 1e-9
    change = (net(x, other, scale=2.0) - net(torch.zeros_like(x), other, scale=2.0))[:, 1]
    assert relative(summed(alone), change.detach()) <= 1e-9


def test_the_innermost_rule_counts() -> None:
    """Epsilon inside of a block with another rule is Epsilon."""
    block = nn.Sequential(nn.Linear(5, 6), nn.ReLU(), nn.Linear(6, 4))
    net = nn.Sequential(block, nn.ReLU(), nn.Linear(4, 3)).double().eval()
    x, r = rows(2), rows(2, seed=2)
    hooks = [(["0"], adapters.AbsenceZPlus()), (["0.2"], AbsenceEpsilon())]
    found = AbsenceGradient(net, NameMapComposite(hooks), one(0, 0), reference=r)(x)[1]
    assert torch.equal(
        found, relevance(net, x, r, 0, rule={"0.0": adapters.AbsenceZPlus().redistribution}.get).attribution
    )


# -- threads, and calls that are broken off --------------------------------------------------------------------------------


@pytest.mark.parametrize("way", ["attributor each", "one attributor", "context around"])
def test_one_model_in_several_threads(way: str) -> None:
    net, x, r = dense_net(1), rows(24), rows(24, seed=2)
    net.append(nn.Sequential(nn.Linear(3, 3), nn.Tanh(), nn.Linear(3, 3)).double())
    wanted = [explain(net, AbsenceEpsilonGamma(), x[i : i + 1], r[i : i + 1]) for i in range(24)]

    def ours(row: int) -> Tensor:
        part = slice(row, row + 1)
        if way == "attributor each":
            return explain(net, AbsenceEpsilonGamma(), x[part], r[part])
        model = AbsenceGradient(net, None, one(0), reference=r[part])
        return model(x[part])[1]  # type: ignore[no-any-return]

    with ExitStack() as stack, ThreadPoolExecutor(4) as pool:
        if way == "context around":
            stack.enter_context(AbsenceEpsilonGamma().context(net))
        elif way == "one attributor":
            stack.enter_context(AbsenceGradient(net, AbsenceEpsilonGamma()))
        found = list(pool.map(ours, range(24)))
    assert all(torch.equal(one, other) for one, other in zip(found, wanted, strict=True))
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in net.modules())


@pytest.mark.parametrize("passes", [1, 2])
@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError])
def test_a_call_that_is_broken_off_leaves_no_mode(error: type[BaseException], passes: int) -> None:
    net, x, r, left = dense_net(1), rows(2), rows(2, seed=2), [passes]

    def blow(*_: Any) -> None:
        left[0] -= 1
        if left[0] == 0:
            raise error

    handle = net[2].register_forward_hook(blow)
    with pytest.raises(error):
        AbsenceGradient(net, AbsenceEpsilonGamma(), one(0, 0), reference=r)(x)
    handle.remove()
    assert not _get_current_function_mode_stack()
    assert torch.equal(explain(net, AbsenceEpsilonGamma(), x, r), relevance(net, x, r, 0).attribution)


def test_one_class_for_what_is_refused() -> None:
    assert ConservationError is RelevanceError
    assert issubclass(ConservationError, ValueError)
