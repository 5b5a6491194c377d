"""A unit's value, before and after the rectifier, and which layers are refused."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from absence_plugins import Unit
from absence_plugins.core.reading import is_rectifier


class Nested(nn.Module):
    """A block that ends in a ReLU, then a head."""

    def __init__(self, inplace: bool = False) -> None:
        super().__init__()
        self.block = nn.Sequential(
            nn.Linear(2, 2, bias=False), nn.Sequential(nn.Linear(2, 2, bias=False), nn.ReLU(inplace))
        )
        self.head = nn.Linear(2, 2, bias=False)
        self.unused = nn.Linear(1, 1)
        with torch.no_grad():
            self.block[0].weight.copy_(torch.eye(2))
            self.block[1][0].weight.copy_(torch.tensor([[1.0, -1.0], [0.0, 1.0]]))
            self.head.weight.copy_(torch.tensor([[2.0, 0.0], [0.0, 3.0]]))

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.block(x))  # type: ignore[no-any-return]


X = torch.tensor([[1.0, 3.0], [5.0, 1.0]])


@pytest.mark.parametrize("inplace", [False, True])
@pytest.mark.parametrize("layer", ["block", "block.1", "block.1.1", "block.1.0"])
def test_the_preactivation_is_read_whatever_the_container(layer: str, inplace: bool) -> None:
    assert Unit(layer, 0).values(Nested(inplace), X).tolist() == [-2.0, 4.0]


@pytest.mark.parametrize("layer", ["block", "block.1", "block.1.1"])
def test_post_is_rectified(layer: str) -> None:
    assert Unit(layer, 0, activation="post").values(Nested(), X).tolist() == [0.0, 4.0]


def test_the_empty_name_is_the_model() -> None:
    assert Unit("", 1).values(Nested(), X).tolist() == [9.0, 3.0]


@pytest.mark.parametrize(("reduce", "expected"), [("mean", 2.5), ("max", 4.0), ("min", 1.0), ("sum", 10.0)])
def test_space_is_reduced(reduce: str, expected: float) -> None:
    images = torch.stack([torch.zeros(2, 2), torch.tensor([[1.0, 2.0], [3.0, 4.0]])])[None]
    assert Unit("0", 1, reduce=reduce).values(nn.Sequential(nn.Identity()), images).tolist() == [expected]  # type: ignore[arg-type]


def test_a_unit_is_differentiable_and_leaves_nothing() -> None:
    net = Nested()
    x = X.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(Unit("block", 0).of(net)(x).sum(), x)
    assert gradient.tolist() == [[1.0, -1.0], [1.0, -1.0]]  # also where the rectifier is closed
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in net.modules())


def test_hooks_go_when_the_model_raises() -> None:
    net = Nested()
    with pytest.raises(RuntimeError):
        Unit("block", 0).values(net, torch.zeros(1, 7))
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in net.modules())


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: Unit("a", -1), "index=-1"),
        (lambda: Unit("a", True), "index=True"),
        (lambda: Unit("a", 0, activation="both"), "activation='both'"),  # type: ignore[arg-type]
        (lambda: Unit("a", 0, reduce="median"), "reduce='median' must be one of mean"),  # type: ignore[arg-type]
        (lambda: Unit.parse("features"), "LAYER:INDEX"),
        (lambda: Unit.parse("features:x"), "LAYER:INDEX"),
        (lambda: Unit("blok", 0).values(Nested(), X), "no layer 'blok'; it has: block, block.0"),
        (lambda: Unit("blok", 0).of(Nested()), "no layer 'blok'"),
        (lambda: Unit("unused", 0).values(Nested(), X), "'unused' does not run"),
        (lambda: Unit("head", 2).values(Nested(), X), r"shape \(2, 2\); there is no unit 2"),
    ],
)
def test_a_bad_unit_is_named(build: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build()  # type: ignore[operator]


def test_parse_and_dict_are_inverse() -> None:
    unit = Unit.parse("features.3:12", reduce="max")
    assert Unit(**unit.to_dict()) == unit == Unit("features.3", 12, reduce="max")


def test_which_modules_rectify() -> None:
    assert is_rectifier(nn.ReLU6())
    assert is_rectifier(nn.Sequential(nn.Linear(1, 1), nn.Sequential(nn.ReLU())))
    for module in (nn.GELU(), nn.LeakyReLU(), nn.Sequential(), nn.Sequential(nn.ReLU(), nn.Linear(1, 1))):
        assert not is_rectifier(module)


def test_a_module_is_no_layer_name() -> None:
    with pytest.raises(TypeError, match="got a Linear"):
        Unit(nn.Linear(1, 1), 0)  # type: ignore[arg-type]
