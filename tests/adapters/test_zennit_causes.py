"""What no rule describes, and what the error says about it: functions in a forward, modules without a rule, softmax, attention."""

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
from zennit_nets import CONSERVATIVE, Residual, dense_net, explain, images, one, relative, rows, summed

import absence_plugins.zennit as adapters
from absence_plugins.zennit import AbsenceEpsilon, AbsenceEpsilonGamma, AbsenceIntegratedGradients, ConservationError

pytestmark = pytest.mark.filterwarnings("ignore")


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


CAUSES: dict[str, tuple[Callable[[Any, Tensor], Tensor], str]] = {
    "relu": (lambda net, h: F.relu(net.other(h)), r"relu in the forward of Net: .*called as a function.*use nn.ReLU"),
    "relu of torch": (lambda net, h: torch.relu(net.other(h)), r"relu in the forward of Net: .*use nn.ReLU"),
    "method": (lambda net, h: net.other(h).relu_(), r"relu in the forward of Net"),
    "clamp": (lambda net, h: net.other(h).clamp(min=0), r"clamp in the forward of Net: .*called as a function"),
    "tanh": (lambda net, h: torch.tanh(net.other(h)), r"tanh in the forward of Net"),
    "sigmoid": (lambda net, h: F.sigmoid(net.other(h)), r"sigmoid in the forward of Net"),
    "mean": (lambda net, h: h.mean((2, 3)), r"wrong places.* mean in the forward of Net"),
    "avg_pool": (lambda net, h: F.avg_pool2d(h, 2), r"avg_pool2d in the forward of Net: .*pooling"),
    "adaptive": (lambda net, h: F.adaptive_avg_pool2d(h, 1), r"adaptive_avg_pool2d in the forward of Net"),
    "branches": (lambda net, h: h + net.other(h), r"add in the forward of Net: a sum of two branches.*ResNetCanonizer.*zennit.layer.Sum"),
    "difference": (lambda net, h: h - net.other(h), r"sub in the forward of Net: a sum of two branches"),
    "gate": (lambda net, h: h * net.gate(net.other(h)), r"mul in the forward of Net: a product of two activations"),
    "layer norm": (lambda net, h: F.layer_norm(h, h.shape[1:]), r"layer_norm in the forward of Net: a normalization"),
    "linear": (lambda net, h: F.linear(h, torch.ones(4, 6).to(h)), r"linear in the forward of Net: a layer called as a function"),
    "softmax": (lambda net, h: net.other(h).softmax(1), r"softmax in the forward of Net: a softmax"),
    "attention": (lambda net, h: F.scaled_dot_product_attention(h, h, h), r"scaled_dot_product_attention in .*no rule"),
    "interpolate": (lambda net, h: F.interpolate(h, scale_factor=2.0, mode="bilinear"), r"interpolate in .*no rule"),
    "negation": (lambda net, h: -h, r"neg\w* in the forward of Net"),
    "square": (lambda net, h: h.square(), r"square in the forward of Net"),
    "power": (lambda net, h: net.other(h) ** 2, r"pow\w* in the forward of Net"),
    "magnitude": (lambda net, h: net.other(h).abs(), r"abs in the forward of Net"),
    "where": (lambda net, h: torch.where(net.other(h) > 0, net.other(h), 0.0), r"where in the forward of Net"),
}  # fmt: skip


@pytest.mark.parametrize("cause", CAUSES)
def test_what_the_rules_cannot_see_is_named(cause: str) -> None:
    middle, message = CAUSES[cause]
    net, x, r = Net(middle), images(2), images(2, seed=2)
    for composite in CONSERVATIVE.values():
        with pytest.raises(ConservationError, match=message) as caught:
            explain(net, composite(), x, r)
        assert "AbsenceIntegratedGradients" in str(caught.value)
        assert "the relevance of sample" in str(caught.value) or "would land in the wrong places" in str(caught.value)
    with pytest.raises(ConservationError, match=message):
        attribution.Gradient(net, AbsenceEpsilonGamma())(x, one(0, 0))


HIDDEN = {
    "mean": (lambda net, h: h.mean((2, 3)), nn.AdaptiveAvgPool2d(1)),
    "average": (lambda net, h: F.avg_pool2d(h, 3), nn.AvgPool2d(3)),
    "max": (lambda net, h: F.max_pool2d(h, 2), nn.MaxPool2d(2)),
    "amax": (lambda net, h: h.amax((2, 3)), nn.AdaptiveMaxPool2d(1)),
}


@pytest.mark.parametrize("activation", [nn.ReLU(), nn.Tanh()], ids=str)
@pytest.mark.parametrize("name", HIDDEN)
def test_pooling_as_a_function_is_refused_or_right(name: str, activation: nn.Module) -> None:
    """Its gradient keeps the sum of relevance, so conservation alone cannot tell; where nothing is dead nothing strays."""
    # silently another map than with the module (pairing.py, check_conservation); max pooling always, means with Tanh
    middle, module = HIDDEN[name]
    x, r = images(2), images(2, seed=2)
    expected = explain(Net(lambda net, h: net.pool(h), activation, module), AbsenceEpsilonGamma(), x, r)
    try:
        found = explain(Net(middle, activation), AbsenceEpsilonGamma(), x, r)
    except ConservationError as error:
        assert name in str(error) or "pool" in str(error)  # noqa: PT017
    else:
        assert relative(found, expected) <= 1e-9


MODULES = {
    "layer norm": (nn.LayerNorm(6), r"layer_norm in 1 \(LayerNorm\): a normalization"),
    "mish": (nn.Mish(), r"mish in 1 \(Mish\)"),
    "softmax": (nn.Softmax(1), r"softmax in 1 \(Softmax\)"),
    "residual": (Residual(nn.Linear(6, 6)), ""),
}


@pytest.mark.parametrize("name", MODULES)
def test_modules_without_a_rule_are_named(name: str) -> None:
    module, message = MODULES[name]
    net = nn.Sequential(nn.Linear(5, 6), module, nn.Linear(6, 3)).double().eval()
    if not message:
        explain(net, AbsenceEpsilonGamma(), rows(2), rows(2, seed=2))
        return
    with pytest.raises(ConservationError, match=message):
        explain(net, AbsenceEpsilonGamma(), rows(2), rows(2, seed=2))


def test_an_activation_without_a_rule_gets_one_by_the_layer_map() -> None:
    net = nn.Sequential(nn.Linear(5, 6), nn.Mish(), nn.Linear(6, 3)).double().eval()
    composite = AbsenceEpsilonGamma(layer_map=[(nn.Mish, adapters.AbsencePass())])
    found = explain(net, composite, rows(2), rows(2, seed=2))
    assert torch.allclose(summed(found), (net(rows(2)) - net(rows(2, seed=2)))[:, 0].detach())
    # the message for a module tells to use a module (nn.ReLU), and not of layer_map=[(nn.Mish, AbsencePass())]
    with pytest.raises(ConservationError, match="layer_map"):
        explain(net, AbsenceEpsilonGamma(), rows(2), rows(2, seed=2))


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
def test_attention_is_refused(name: str) -> None:
    composite = LayerMapComposite([(Linear, AbsenceEpsilon())]) if name == "layer map" else CONSERVATIVE[name]()
    net, x = Attention(), torch.randn(1, 3, 4).double()
    with pytest.raises(ValueError, match=r"inner.mix is a MultiheadAttention.*AbsenceIntegratedGradients"):
        explain(net, composite, x, torch.zeros(4).double())
    AbsenceIntegratedGradients(net, None, one(0), reference=torch.zeros(4).double())(x)


def test_a_normalization_of_the_input_inside_the_model() -> None:
    """(x - mean) / std in a forward, as in Sequential(Normalize(...), net): the message must not speak of two branches."""

    # "sub: a sum of two branches: add the canonizer; div: a normalization whose scale depends on the input" (causes.py)
    class Normalized(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = dense_net(1)

        def forward(self, x: Tensor) -> Tensor:
            return self.net((x - 0.5) / 0.25)  # type: ignore[no-any-return]

    x, r = rows(2), rows(2, seed=2)
    try:
        found = explain(Normalized(), AbsenceEpsilonGamma(), x, r)
    except ConservationError as error:
        assert "two branches" not in str(error)  # noqa: PT017
    else:
        assert torch.allclose(found, explain(dense_net(1), AbsenceEpsilonGamma(), (x - 0.5) / 0.25, (r - 0.5) / 0.25))


# -- operations whose gradient keeps the sum of relevance -------------------------------------------------------------

# linear: right is what an average pooling gets (Norm), or a refusal
AVERAGES: dict[str, Callable[[Tensor], Tensor]] = {
    "sum and division": lambda h: h.sum((2, 3)) / 36,
    "einsum": lambda h: torch.einsum("bchw->bc", h) / 36,
    "matmul": lambda h: h.flatten(2) @ h.new_full((36, 1), 1 / 36),
    "nanmean": lambda h: h.nanmean((2, 3)),
    "std_mean": lambda h: torch.std_mean(h, (2, 3))[1],
    "convolution": lambda h: F.conv2d(h, h.new_full((3, 1, 6, 6), 1 / 36), groups=3),
}
# not linear: which value comes out depends on the input, so x and r differ in it; right is a refusal
SELECTIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "sort": lambda h: h.flatten(2).sort(2).values,
    "topk": lambda h: h.flatten(2).topk(3).values,
    "kthvalue": lambda h: h.flatten(2).kthvalue(3).values,
    "cummax": lambda h: h.flatten(2).cummax(2).values,
    "at the argmax": lambda h: h.flatten(2).gather(2, h.flatten(2).argmax(2, keepdim=True)),
    "softmax pooling": lambda h: (h.flatten(2).softmax(2) * h.flatten(2)).sum(2),
    "index of the argmax": lambda h: h.flatten(2)[
        torch.arange(len(h))[:, None], torch.arange(3), h.flatten(2).argmax(2)
    ],
}
# linear, and made of sums and products with constants alone; right is Norm, or a refusal
MIXTURES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "mean of two branches": lambda a, b: (a + b) / 2,
    "blend": lambda a, b: 0.25 * a + 0.75 * b,
    "extrapolation": lambda a, b: 2 * a - b,
    "neighbors": lambda a, b: (a[..., ::2] + a[..., 1::2]) * 0.5,
    "lerp": lambda a, b: torch.lerp(a, b, 0.25),
}


@pytest.mark.parametrize("name", MIXTURES)
def test_mixtures_are_refused_or_right(name: str) -> None:
    """Their weights sum to 1, so the sum of relevance is kept, wherever it goes."""
    # Add and Mul with constants outside the rules would make another map, silently (graph.py).
    # A check without names: let the multiplier R / da travel in r's half of the gradient (where zeros travel now) and
    # compare R with multiplier * change at every module with a rule. Measured: 1e-16 where values are only moved,
    # above 0.5 for everything in this file that is not.
    mix, x, r = MIXTURES[name], images(2), images(2, seed=2)
    plain = Net(lambda net, h: mix(h, net.other(h)), nn.Tanh())
    size = 3 * 6 * 6
    ruled = Net(
        lambda net, h: net.pool(torch.cat([h.flatten(1), net.other(h).flatten(1)], 1)), nn.Tanh(), _mixing(mix, size)
    )
    expected = explain(ruled, AbsenceEpsilonGamma(), x, r)
    try:
        found = explain(plain, AbsenceEpsilonGamma(), x, r)
    except ConservationError:
        return
    assert relative(found, expected) <= 1e-9


def _mixing(mix: Callable[[Tensor, Tensor], Tensor], size: int) -> nn.Linear:
    """The mixture as a dense layer, whose rule is Epsilon."""
    inputs = torch.eye(2 * size).reshape(2 * size, 2, 3, 6, 6)
    weight = mix(inputs[:, 0], inputs[:, 1]).flatten(1).T
    layer = nn.Linear(2 * size, len(weight), bias=False)
    layer.weight.data = weight.clone()
    return layer


@pytest.mark.parametrize("name", AVERAGES)
def test_averages_by_other_names_are_refused_or_right(name: str) -> None:
    x, r, average = images(2), images(2, seed=2), AVERAGES[name]
    expected = explain(Net(lambda net, h: net.pool(h), nn.Tanh(), nn.AdaptiveAvgPool2d(1)), AbsenceEpsilonGamma(), x, r)
    try:
        found = explain(Net(lambda net, h: average(h), nn.Tanh()), AbsenceEpsilonGamma(), x, r)
    except ConservationError:
        return
    assert relative(found, expected) <= 1e-9


@pytest.mark.parametrize("name", SELECTIONS)
def test_selections_are_refused(name: str) -> None:
    # an index that depends on the values is taken for one that only moves them (graph.py)
    select = SELECTIONS[name]
    with pytest.raises(ConservationError):
        explain(Net(lambda net, h: select(h), nn.Tanh()), AbsenceEpsilonGamma(), images(2), images(2, seed=2))


@pytest.mark.parametrize("as_module", [True, False], ids=["module", "function"])
def test_interpolation_is_refused_or_right(as_module: bool) -> None:
    """A bilinear nn.Upsample has no rule in the composites; AbsenceNorm is one."""
    x, r, up = images(2), images(2, seed=2), nn.Upsample(scale_factor=2.0, mode="bilinear")
    net = Net(lambda net, h: net.pool(h), nn.Tanh(), up)
    expected = explain(net, AbsenceEpsilonGamma(layer_map=[(nn.Upsample, adapters.AbsenceNorm())]), x, r)
    if not as_module:
        net = Net(lambda net, h: F.interpolate(h, scale_factor=2.0, mode="bilinear"), nn.Tanh())
    try:
        found = explain(net, AbsenceEpsilonGamma(), x, r)
    except ConservationError as error:
        assert "interpol" in str(error)  # noqa: PT017
    else:
        assert relative(found, expected) <= 1e-9


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


def test_looking_for_the_cause_does_not_move_the_users_random_state() -> None:
    def draw(net: Net, h: Tensor) -> Tensor:
        torch.rand(1)
        return F.relu(net.other(h))

    net = Net(draw)
    x, r = images(1), images(1, seed=2)
    torch.manual_seed(4)
    net(x)
    expected = torch.get_rng_state()
    torch.manual_seed(4)
    with pytest.raises(ConservationError, match="relu"):
        explain(net, AbsenceEpsilonGamma(), x, r)
    assert torch.equal(torch.get_rng_state(), expected)
