"""The attribution prior against its formula on paper, its second derivatives, and one forward against two."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch
from debias_nets import batch, cnn
from torch import Tensor, nn
from torch.nn import functional as F

from absence_plugins.methods.debias import AttributionPrior

X = torch.tensor([[1.0, -2.0, 3.0], [0.5, 4.0, -1.0]], dtype=torch.float64)
MASK = torch.tensor([[1.0, 1.0, 0.0], [0.0, 0.5, 0.0]], dtype=torch.float64)
WEIGHTS = torch.tensor([[1.0, 2.0, 0.5], [-3.0, 0.25, 4.0], [0.1, -1.0, 2.0]], dtype=torch.float64)
Y = torch.tensor([0, 1])


def linear(weights: Tensor = WEIGHTS) -> nn.Linear:
    net = nn.Linear(weights.shape[1], weights.shape[0], bias=False, dtype=weights.dtype)
    net.weight.data = weights.clone()
    return net


def slow(model: nn.Module, x: Tensor, rows: Tensor, mask: Tensor, *, square: bool = False) -> Tensor:
    """The formula sample by sample, for outputs u_n = sum_k rows[n, k] f_k."""
    parts = []
    for sample, weights, inside in zip(x, rows, mask, strict=True):
        one = sample[None].clone().requires_grad_()
        ((model(one)[0] * weights).sum()).backward(inputs=[one])
        assert one.grad is not None
        content = (one * one.grad)[0].abs() ** (2 if square else 1)
        parts.append((content.sum(0) * inside[0]).sum() / (inside.sum().double() + 1e-5))
    return torch.stack(parts).detach()


# -- the formula -------------------------------------------------------------------------------------------------------


def test_closed_form_on_a_linear_net() -> None:
    counts = MASK.sum(1) + 1e-5
    target = ((X * WEIGHTS[Y]).abs() * MASK).sum(1) / counts
    runner = torch.tensor([2, 2])  # of the logits (-1.5, 8.5, 8.1) and (8, -4.5, -5.95)
    runner[0], runner[1] = 1, 0
    other = ((X * WEIGHTS[runner]).abs() * MASK).sum(1) / counts
    for mode, wanted in (("presence", target), ("absence", other), ("both", (target + other) / 2)):
        prior = AttributionPrior(linear(), mode)  # type: ignore[arg-type]
        assert torch.allclose(prior(X, Y, MASK), wanted.mean(), rtol=0, atol=1e-14)
        assert prior.last is not None
        assert torch.allclose(prior.last.value, wanted, rtol=0, atol=1e-14)
        assert (prior.last.nontargets is None) == (mode == "presence")
    assert prior.last.nontargets.tolist() == [1, 0]  # type: ignore[union-attr]


def test_closed_form_on_a_two_layer_net_and_its_gradient() -> None:
    """f = V relu(W x): df_o/dx = sum_h V_oh [h > 0] W_h, and the prior's gradient to V is known on paper."""
    first = torch.tensor([[1.0, -1.0], [2.0, 1.0]], dtype=torch.float64)
    second = torch.tensor([[1.0, 3.0], [-2.0, 5.0]], dtype=torch.float64)
    net = nn.Sequential(linear(first), nn.ReLU(), linear(second))
    x, mask = torch.tensor([[1.0, 2.0]], dtype=torch.float64), torch.tensor([[1.0, 0.0]])
    # hidden (-1, 4): only the second unit is on; df/dx_0 = (3 * 2, 5 * 2)
    prior = AttributionPrior(net, "both", normalize=None)
    value = prior(x, torch.tensor([0]), mask)
    assert value.item() == (6 + 10) / 2
    value.backward()
    assert torch.equal(net[2].weight.grad, torch.tensor([[0.0, 1.0], [0.0, 1.0]], dtype=torch.float64))
    assert torch.equal(net[0].weight.grad, torch.tensor([[0.0, 0.0], [4.0, 0.0]], dtype=torch.float64))


@pytest.mark.parametrize("nontarget", ["runner_up", "others", 2, "callable"])
@pytest.mark.parametrize("form", ["channel", "flat", "full"])
def test_a_second_writing_agrees(nontarget: Any, form: str) -> None:
    (x, y, mask), model = batch(), cnn()
    y = y % 2  # class 2 is free to be the non-target
    logits = model(x).detach()
    if nontarget == "callable":
        nontarget = lambda scores, target: (target + 1) % 3  # noqa: E731
        chosen = (y + 1) % 3
    elif nontarget == "runner_up":
        chosen = logits.scatter(1, y[:, None], -torch.inf).argmax(1)
    else:
        chosen = torch.full_like(y, 2)
    rows = F.one_hot(chosen, 3).double()
    if nontarget == "others":
        rows = (1 - F.one_hot(y, 3).double()) / 2
    one, two = slow(model, x, F.one_hot(y, 3), mask), slow(model, x, rows, mask)
    given = {"channel": mask, "flat": mask[:, 0].double(), "full": mask.expand(-1, 2, -1, -1)}[form]
    prior = AttributionPrior(model, "both", nontarget=nontarget)
    prior(x, y, given)
    assert prior.last is not None
    assert prior.last.presence is not None
    scale = 2 if form == "full" else 1  # its own entries are counted
    assert torch.allclose(prior.last.presence * scale, one, rtol=1e-5)
    assert torch.allclose(prior.last.value * scale, (one + two) / 2, rtol=1e-5)


def test_the_mixture_is_an_unbiased_estimate_of_the_sum_of_squares() -> None:
    x, y, mask = batch(4, 4)
    model = cnn(classes=4)
    exact = sum(slow(model, x, F.one_hot((y + k) % 4, 4), mask, square=True) for k in (1, 2, 3))
    prior = AttributionPrior(model, "absence", nontarget="mixture")
    every = []
    for signs in itertools.product((-1.0, 1.0), repeat=4):
        prior._signs = lambda logits, y, s=signs: torch.tensor([s]).to(logits).expand_as(logits).scatter(1, y[:, None], 0.0)  # type: ignore[method-assign]  # fmt: skip
        prior(x, y, mask)
        assert prior.last is not None
        every.append(prior.last.value)
    assert torch.allclose(torch.stack(every).mean(0), exact, rtol=1e-10)


def test_the_mixture_is_seeded_and_goes_on_where_a_saved_one_stopped() -> None:
    x, y, mask = batch(8, 4)
    model = cnn(classes=4)
    first = AttributionPrior(model, nontarget="mixture", seed=3)
    values = [first(x, y, mask).item() for _ in range(4)]
    assert len(set(values)) > 1
    assert AttributionPrior(model, nontarget="mixture", seed=3)(x, y, mask).item() == values[0]
    assert AttributionPrior(model, nontarget="mixture", seed=4)(x, y, mask).item() != values[0]
    resumed = AttributionPrior(model, nontarget="mixture", seed=3)
    resumed.draws = 2
    restored = AttributionPrior(model, nontarget="mixture", seed=3)
    restored.load_state_dict(resumed.state_dict())
    assert restored(x, y, mask).item() == values[2]


def test_shares_do_not_know_the_scale_of_the_logits() -> None:
    (x, y, mask), model = batch(), cnn()
    model[-1].bias.data.zero_()
    prior = AttributionPrior(model, normalize="share")
    before = prior(x, y, mask).item()
    model[-1].weight.data.mul_(100)
    assert prior(x, y, mask).item() == pytest.approx(before, rel=1e-12)
    assert prior(x, y, torch.ones_like(mask)).item() == pytest.approx(1.0)


@pytest.mark.parametrize("shape", [(4,), (4, 1)])
@pytest.mark.parametrize("mode", ["presence", "absence", "both"])
def test_one_logit_has_one_magnitude(mode: Any, shape: tuple[int, ...]) -> None:
    x, y, mask = batch(4, 2)
    model = nn.Sequential(cnn(classes=1), nn.Unflatten(1, shape[1:]) if len(shape) > 1 else nn.Flatten(0))
    one = slow(nn.Sequential(model, nn.Unflatten(0, (-1, 1))) if len(shape) == 1 else model, x, torch.ones(4, 1), mask)
    prior = AttributionPrior(model, mode)
    assert prior(x, y, mask).item() == pytest.approx(float(one.mean()), rel=1e-12)
    prior(x, 1 - y, mask)
    assert torch.allclose(prior.last.value, one)  # type: ignore[union-attr]


def test_an_empty_mask_costs_nothing() -> None:
    (x, y, mask), model = batch(), cnn()
    value = AttributionPrior(model)(x, y, torch.zeros_like(mask))
    assert value.item() == 0
    value.backward()
    assert all(torch.isfinite(p.grad).all() for p in model.parameters() if p.grad is not None)


# -- second derivatives ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("nontarget", ["runner_up", "others", "mixture"])
def test_gradients_of_the_prior_pass_gradcheck(nontarget: Any) -> None:
    """To x and to the weights; twice, on a net that is smooth."""
    torch.manual_seed(1)
    net = nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 3)).double()
    x, mask = torch.randn(2, 4).double().requires_grad_(), torch.tensor([[1.0, 0.3, 0, 0], [0, 1, 1, 0]])
    y = torch.tensor([0, 2])
    names = [name for name, _ in net.named_parameters()]

    def value(x: Tensor, *weights: Tensor) -> Tensor:
        prior = AttributionPrior(net, "both", nontarget=nontarget)
        logits = torch.func.functional_call(net, dict(zip(names, weights, strict=True)), (x,))
        return prior(x, y, mask, logits=logits)

    inputs = (x, *(p.detach().clone().requires_grad_() for p in net.parameters()))
    assert torch.autograd.gradcheck(value, inputs)
    assert torch.autograd.gradgradcheck(value, inputs)


def test_the_own_forward_passes_gradcheck_to_the_weights() -> None:
    (x, y, mask), model = batch(2), cnn()
    parameter = model[0].weight

    def value(weight: Tensor) -> Tensor:
        with torch.no_grad():
            parameter.copy_(weight)
        return AttributionPrior(model)(x, y, mask)

    start = parameter.detach().clone()
    value(start).backward()
    step = 1e-6
    assert parameter.grad is not None
    for index in [(0, 0, 1, 1), (3, 1, 2, 0), (2, 0, 0, 2)]:
        moved = torch.zeros_like(start)
        moved[index] = step
        slope = (value(start + moved) - value(start - moved)).item() / (2 * step)
        assert float(parameter.grad[index]) == pytest.approx(slope, rel=1e-4, abs=1e-7)


# -- one forward or two ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("mode", ["presence", "absence", "both"])
def test_a_shared_forward_equals_the_own_one(mode: Any, training: bool) -> None:
    (x, y, mask), model = batch(), cnn(norm=True).train(training)
    prior = AttributionPrior(model, mode)
    values, gradients = [], []
    own = prior(x, y, mask)
    own.backward()
    for value in (own, None):
        if value is None:
            model.zero_grad()
            leaf = x.clone().requires_grad_()
            value = prior(leaf, y, mask, logits=model(leaf))
            value.backward(inputs=list(model.parameters()))
        values.append(value.item())
        gradients.append([p.grad.clone() for p in model.parameters() if p.grad is not None])
    assert values[0] == values[1]
    assert all(torch.equal(a, b) for a, b in zip(*gradients, strict=True))


def test_training_with_it_makes_it_small() -> None:
    x, y, mask = batch()
    x.requires_grad_()
    reached = []
    for weight in (0.0, 10.0):
        model = cnn()
        prior, optimizer = AttributionPrior(model), torch.optim.Adam(model.parameters(), lr=0.01)
        for _ in range(60):
            logits = model(x)
            loss = F.cross_entropy(logits, y) + weight * prior(x, y, mask, logits=logits)
            optimizer.zero_grad()
            loss.backward(inputs=list(model.parameters()))
            optimizer.step()
        assert F.cross_entropy(model(x), y).item() < 0.5
        reached.append(prior(x, y, mask).item())
    assert reached[1] < reached[0] / 4


def test_accumulated_gradients_are_those_of_the_batch() -> None:
    (x, y, mask), model = batch(8), cnn()
    prior = AttributionPrior(model)
    prior(x, y, mask).backward()
    whole = [p.grad.clone() for p in model.parameters() if p.grad is not None]
    model.zero_grad()
    for rows in torch.arange(8).split(2):
        (prior(x[rows], y[rows], mask[rows]) / 4).backward()
    parts = [p.grad for p in model.parameters() if p.grad is not None]
    assert all(torch.allclose(a, b, rtol=1e-12, atol=1e-14) for a, b in zip(whole, parts, strict=True))


# -- samples without a mask -------------------------------------------------------------------------------------------


def test_samples_without_a_mask_take_no_part_in_an_own_forward_and_change_nothing() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(1, 3, 3), nn.ReLU(), nn.Flatten(), nn.Linear(48, 4)).double()
    x, y = torch.rand(5, 1, 6, 6, dtype=torch.float64), torch.tensor([0, 1, 2, 3, 0])
    mask = torch.zeros(5, 1, 6, 6, dtype=torch.bool)
    mask[1, :, 2:4], mask[4, :, :2] = True, True
    seen: list[int] = []
    model.register_forward_hook(lambda module, inputs, output: seen.append(len(output)))
    own, shared = AttributionPrior(model), AttributionPrior(model)
    first = own(x, y, mask)
    leaf = x.clone().requires_grad_()
    second = shared(leaf, y, mask, logits=model(leaf))
    assert seen == [2, 5]
    assert torch.allclose(first, second, rtol=1e-12)
    slopes = [torch.autograd.grad(value, list(model.parameters()), allow_unused=True) for value in (first, second)]
    for one, other in zip(*slopes, strict=True):
        assert (one is None) == (other is None)
        assert one is None or torch.allclose(one, other, rtol=1e-10, atol=1e-14)
    assert own.last is not None
    assert shared.last is not None
    assert torch.allclose(own.last.value, shared.last.value)
    assert own.last.nontargets is not None
    assert own.last.nontargets[0] == -1
    assert (own.last.nontargets[[1, 4]] == shared.last.nontargets[[1, 4]]).all()  # type: ignore[index]
    nothing = own(x, y, torch.zeros_like(mask))
    assert nothing.item() == 0
    assert nothing.requires_grad
    seen.clear()
    normed = nn.Sequential(nn.Conv2d(1, 3, 3), nn.BatchNorm2d(3), nn.Flatten(), nn.Linear(48, 4)).double()
    normed.register_forward_hook(lambda module, inputs, output: seen.append(len(output)))
    AttributionPrior(normed)(x, y, mask)
    AttributionPrior(normed.eval())(x, y, mask)
    assert seen == [5, 2]  # batch norm sees the batch while it trains
