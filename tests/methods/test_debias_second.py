"""Second derivatives of the attribution prior: made where torch lacks them, tried before training, watched during it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torchvision
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from absence_plugins.methods.debias import AttributionPrior
from absence_plugins.methods.debias.second import SecondDerivatives


def batch(size: int = 64) -> tuple[Tensor, Tensor, Tensor]:
    x, mask = torch.rand(2, 3, size, size, generator=torch.Generator().manual_seed(0)), torch.zeros(2, 1, size, size)
    mask[..., : size // 4, : size // 4] = 1
    return x, torch.tensor([0, 1]), mask


def hooks_left(model: nn.Module) -> int:
    modules = sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.modules())
    return modules + sum(len(one._backward_hooks or {}) for one in model.parameters())


# -- the functions with another way back -------------------------------------------------------------------------------

SAME: dict[str, Callable[[Tensor], Tensor]] = {
    "hardsigmoid": F.hardsigmoid,
    "hardsigmoid in place": lambda x: F.hardsigmoid(x * 1, inplace=True),
    "hardswish": F.hardswish,
    "normalize": lambda x: F.normalize(x, dim=-1),
    "normalize, two axes": lambda x: F.normalize(x, dim=(1, 2)),
    "normalize, large eps": lambda x: F.normalize(x, eps=0.5),
    "Tensor.norm": lambda x: x.norm(dim=-1),
    "torch.norm": lambda x: torch.norm(x, p="fro"),
    "linalg.norm": lambda x: torch.linalg.norm(x, dim=-1, keepdim=True),
    "vector_norm": lambda x: torch.linalg.vector_norm(x, dim=1),
    "vector_norm, order 1": lambda x: torch.linalg.vector_norm(x, 1, dim=1),
    "cosine_similarity": lambda x: F.cosine_similarity(x, x.roll(1, 1), dim=-1),
    "pairwise_distance": lambda x: F.pairwise_distance(x, x.roll(1, 1)),
}


@pytest.mark.parametrize("name", SAME)
def test_values_are_torchs_bits_and_derivatives_torchs_where_it_has_them(name: str) -> None:
    x = torch.randn(4, 5, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(1)).requires_grad_()
    weight = torch.rand(x.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(2))

    def derivatives(value: Tensor) -> list[Tensor]:
        (slope,) = torch.autograd.grad(
            (value.square() * weight.flatten()[: value.numel()].view(value.shape)).sum(), x, create_graph=True
        )
        return [slope, *torch.autograd.grad(slope.square().sum(), x)]

    plain = SAME[name](x)
    with SecondDerivatives():
        ours = SAME[name](x)
    assert torch.equal(plain, ours)
    found = derivatives(ours)
    if "hardsigmoid" not in name:
        assert all(torch.allclose(a, b, rtol=1e-12, atol=1e-14) for a, b in zip(found, derivatives(plain), strict=True))
    else:
        inside = (x.abs() < 3).double()
        assert torch.allclose(found[1], 2 * (2 * weight / 36 * inside) ** 2 * (x + 3), rtol=1e-12)
    at_zero = torch.zeros(2, 3, 4, requires_grad=True)
    with SecondDerivatives():
        value = SAME[name](at_zero)
    (slope,) = torch.autograd.grad((value + value.square()).sum(), at_zero, create_graph=True)
    (second,) = torch.autograd.grad(slope.sum(), at_zero)
    assert second.isfinite().all()


class Cosine(nn.Module):  # keys of length one, as in Swin v2; one token is padding
    def __init__(self) -> None:
        super().__init__()
        self.key, self.head = nn.Linear(64, 8, bias=False), nn.Linear(32, 3)

    def forward(self, x: Tensor) -> Tensor:
        tokens = torch.cat([x.mean(3), x.new_zeros(len(x), 1, 64)], 1)
        return self.head(F.normalize(self.key(tokens), dim=-1).flatten(1))  # type: ignore[no-any-return]


class Padded(Cosine):  # the same without the padding: one key less
    def forward(self, x: Tensor) -> Tensor:
        keys = self.key(x.mean(3))
        keys = keys / keys.square().sum(-1, keepdim=True).sqrt()
        return F.linear(keys.flatten(1), self.head.weight[:, :24], self.head.bias)


def test_a_key_of_length_zero_adds_nothing_to_the_gradient() -> None:
    found = []
    for cls in (Cosine, Padded):
        torch.manual_seed(0)
        net = cls().double()
        x, y, mask = batch()
        AttributionPrior(net).with_logits(x.double(), y, mask)[1].backward()
        found.append(net.key.weight.grad)
    assert torch.allclose(*found, rtol=1e-9)
    assert found[0].abs().max() > 1e-4


@pytest.mark.parametrize(
    ("name", "size"),
    [
        ("mobilenet_v3_small", 64),
        pytest.param("mobilenet_v3_large", 64, marks=pytest.mark.slow),
        pytest.param("swin_v2_t", 64, marks=pytest.mark.slow),  # its windows are padded
        pytest.param("efficientnet_b0", 48, marks=pytest.mark.slow),
        pytest.param("mnasnet0_5", 48, marks=pytest.mark.slow),
        pytest.param("convnext_tiny", 32, marks=pytest.mark.slow),
    ],
)
def test_torchvision(name: str, size: int) -> None:
    torch.manual_seed(0)
    net = torchvision.models.get_model(name, weights=None, num_classes=3).eval()
    x, y, mask = batch(size)
    logits, penalty = AttributionPrior(net).with_logits(x, y, mask)
    with torch.no_grad():
        assert torch.equal(logits, net(x))
    (F.cross_entropy(logits, y) + penalty).backward()
    slopes = [one.grad for one in net.parameters() if one.grad is not None]
    assert slopes
    assert all(one.isfinite().all() for one in slopes)
    assert penalty.item() > 0
    assert hooks_left(net) == 0


# -- derivatives that do not exist -------------------------------------------------------------------------------------


class Once(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return x.square()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, slope: Tensor) -> Tensor:
        return 2 * slope * ctx.saved_tensors[0]


class Square(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return Once.apply(x)  # type: ignore[no-any-return]


class Deformed(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.rand(2, 3, 3, 3))

    def forward(self, x: Tensor) -> Tensor:
        return torchvision.ops.deform_conv2d(x, x.mean() * torch.ones(len(x), 18, 6, 6), self.weight)


class Root(nn.Module):  # its second derivative is infinite at 0, its first is not
    def forward(self, x: Tensor) -> Tensor:
        return x.abs() ** 1.5


def around(module: nn.Module, channels: int = 3) -> nn.Module:
    torch.manual_seed(0)
    body = nn.Sequential(nn.Conv2d(3, 3, 1), nn.ModuleDict({"gate": module})["gate"], nn.Flatten())
    return nn.Sequential(body, nn.LazyLinear(3))


@pytest.mark.parametrize("module", [Square(), Deformed()], ids=lambda module: type(module).__name__)
@pytest.mark.parametrize("how", ["with_logits", "call", "logits"])
def test_a_missing_derivative_is_named_before_the_training(module: nn.Module, how: str) -> None:
    net = around(module)
    x, y, mask = batch(8)
    net(x)
    state = {name: value.clone() for name, value in net.state_dict().items()}
    prior = AttributionPrior(net)

    def ask() -> Any:
        if how == "logits":
            leaf = x.clone().requires_grad_()
            return prior(leaf, y, mask, logits=net(leaf))
        return prior.with_logits(x, y, mask) if how == "with_logits" else prior(x, y, mask)

    for _ in range(2):  # tried again until it works
        with pytest.raises(ValueError, match=rf"0\.1 \({type(module).__name__}\) has no second derivative.*exchange"):
            ask()
    assert hooks_left(net) == 0
    assert all(torch.equal(value, state[name]) for name, value in net.state_dict().items())
    assert all(one.grad is None for one in net.parameters())
    with torch.no_grad():
        assert prior(x, y, mask) > 0  # the value alone needs none


def roots(at_zero: bool) -> tuple[nn.Module, Tensor]:
    net = nn.Sequential(nn.Linear(4, 4, bias=False), Root(), nn.Linear(4, 3))
    torch.manual_seed(0)
    for one in net.parameters():
        one.data = torch.rand(one.shape)
    x = torch.rand(2, 4)
    return net, torch.cat([x[:1], torch.zeros(1, 4)]) if at_zero else x


def test_gradients_that_are_not_finite_at_the_first_call() -> None:
    net, x = roots(at_zero=True)
    with pytest.raises(ValueError, match=r"not finite at the parameter 0\.weight.*1 \(Root\)"):
        AttributionPrior(net).with_logits(x, torch.tensor([0, 1]), torch.ones(2, 4))


@pytest.mark.parametrize("by", ["backward", "grad"])
def test_gradients_that_are_not_finite_later_raise_before_an_optimizer_steps(by: str) -> None:
    net, x = roots(at_zero=False)
    prior, optimizer = AttributionPrior(net), torch.optim.SGD(net.parameters(), 0.1)
    y, mask = torch.tensor([0, 1]), torch.ones(2, 4)

    def step(x: Tensor) -> None:
        optimizer.zero_grad()
        logits, penalty = prior.with_logits(x, y, mask)
        loss = F.cross_entropy(logits, y) + penalty
        loss.backward() if by == "backward" else torch.autograd.grad(loss, list(net.parameters()))
        optimizer.step()

    step(x)
    before = [one.detach().clone() for one in net.parameters()]
    with pytest.raises(ValueError, match=r"not finite at the parameter 0\.weight.*1 \(Root\)"):
        step(roots(at_zero=True)[1])
    assert all(torch.equal(a, b) for a, b in zip(before, net.parameters(), strict=True))
    assert hooks_left(net) == 0
    step(x)


def test_a_backward_pass_that_fails_half_way_leaves_nothing() -> None:
    net, x = roots(at_zero=False)
    logits, penalty = AttributionPrior(net).with_logits(x, torch.tensor([0, 1]), torch.ones(2, 4))

    def fail(_slope: Tensor) -> None:
        raise KeyError("mine")

    logits.register_hook(fail)
    with pytest.raises(KeyError, match="mine"):
        (logits.sum() + penalty).backward()
    assert hooks_left(net) == 0


def test_float16_is_left_to_the_scaler() -> None:
    net, x = roots(at_zero=False)
    net, y, mask = net.half(), torch.tensor([0, 1]), torch.ones(2, 4)
    prior = AttributionPrior(net)
    prior.with_logits(x.half(), y, mask)[1].backward()
    (prior.with_logits(roots(at_zero=True)[1].half(), y, mask)[1] * 2.0**16).backward()
    assert not next(net.parameters()).grad.isfinite().all()  # the scaler skips such a step


def test_a_compiled_model() -> None:
    found = []
    for compiled in (False, True):
        torch.manual_seed(0)
        net: Any = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Hardswish(), nn.Flatten(), nn.Linear(144, 3))
        x, y, mask = batch(8)
        run = torch.compile(net, backend="eager") if compiled else net
        run(x).sum().backward()
        net.zero_grad()
        AttributionPrior(run).with_logits(x, y, mask)[1].backward()
        found.append(net[0].weight.grad)
    assert torch.equal(*found)
