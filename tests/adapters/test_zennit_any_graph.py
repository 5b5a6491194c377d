"""What runs outside of modules, or in modules that Zennit has no rule for: right, against relevance() and known maps, or refused."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from zennit import attribution
from zennit.composites import LayerMapComposite
from zennit.types import Linear
from zennit_nets import CONSERVATIVE, Net, Residual, by_engine, dense_net, explain, images, one, relative, rows, summed

import absence_plugins.zennit as adapters
from absence_plugins.relevance import relevance
from absence_plugins.zennit import AbsenceEpsilon, AbsenceEpsilonGamma, ConservationError

pytestmark = pytest.mark.filterwarnings("ignore")


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
