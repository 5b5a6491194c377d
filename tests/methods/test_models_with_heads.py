"""Models that end in a softmax or sigmoid, or return an object: the methods read the logits, and say so once."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from absence_plugins import Layer, Unit
from absence_plugins.core.outputs import Margin
from absence_plugins.methods.debias import AttributionPrior
from absence_plugins.methods.directions import head_of, layer_features
from absence_plugins.methods.faithfulness import absence_scores
from absence_plugins.methods.patches import find_extreme_patches


@dataclass
class Found:
    """As Hugging Face returns it."""

    logits: Tensor
    hidden_states: Any = None


def body() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 36, 3)).eval()


class Headed(nn.Module):
    def __init__(self, head: Callable[[Tensor], Any]) -> None:
        super().__init__()
        self.body, self.head = body(), head

    def forward(self, x: Tensor) -> Any:
        return self.head(self.body(x))


HEADS: dict[str, Callable[[], nn.Module]] = {
    "module": lambda: nn.Sequential(*body(), nn.Softmax(1)).eval(),
    "function": lambda: Headed(lambda z: F.log_softmax(z, 1)).eval(),
    "dataclass": lambda: Headed(lambda z: Found(z.softmax(-1))).eval(),
    "sigmoid": lambda: Headed(lambda z: (torch.sigmoid(z), None)).eval(),
}
X = torch.rand(4, 1, 8, 8, generator=torch.Generator().manual_seed(1))
Y = torch.tensor([0, 1, 2, 0])
MASK = torch.zeros(4, 1, 8, 8)
MASK[:2, :, :3] = 1


def first_layer(model: nn.Module) -> str:
    return "0" if isinstance(model, nn.Sequential) else "body.0"


def said_by(act: Callable[[], Any]) -> tuple[Any, list[warnings.WarningMessage]]:
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        found = act()
    return found, [one for one in seen if "the model ends in a" in str(one.message)]


heads = pytest.mark.parametrize("kind", HEADS)


@heads
def test_the_scores_of_a_map(kind: str) -> None:
    def scores(model: nn.Module) -> Any:
        return absence_scores(model, X, Margin(0, 1), torch.ones(4, 1, 8, 8), steps=3, cell=4, draws=2, progress=False)

    found, said = said_by(lambda: scores(HEADS[kind]()))
    assert [one.filename for one in said] == [__file__]
    assert torch.equal(found.curves["map"], scores(body()).curves["map"])


@heads
def test_the_prior(kind: str) -> None:
    model = HEADS[kind]()
    prior, expected = AttributionPrior(model), AttributionPrior(body())(X, Y, MASK)
    (first, again), said = said_by(lambda: (prior(X, Y, MASK), prior(X, Y, MASK)))
    assert [one.filename for one in said] == [__file__]
    assert torch.equal(first, expected)
    assert torch.equal(again, expected)
    (returned, penalty), said = said_by(lambda: AttributionPrior(model).with_logits(X, Y, MASK))
    assert [one.filename for one in said] == [__file__]
    torch.testing.assert_close(penalty, expected)
    own = model(X)
    own = own.logits if isinstance(own, Found) else own[0] if isinstance(own, tuple) else own
    torch.testing.assert_close(returned, own)  # for the criterion, as the model gives it


@heads
def test_the_network_behind_a_layer(kind: str) -> None:
    model, features = HEADS[kind](), torch.rand(3, 6, 6, 4, generator=torch.Generator().manual_seed(2))
    head, said = said_by(lambda: head_of(model, first_layer(model), X[:1]))
    assert [one.filename for one in said] == [__file__]
    expected = head_of(body(), "0", X[:1])
    assert torch.equal(head(features), expected(features))
    assert torch.equal(head.read(features, [])[0], expected.read(features, [])[0])
    assert torch.equal(head(layer_features(model, first_layer(model), X)), body()(X))


@heads
def test_the_unit_of_an_output(kind: str) -> None:
    model = HEADS[kind]()
    assert torch.equal(Unit("", 1).values(model, X), body()(X)[:, 1])
    assert torch.equal(Unit("", 1).of(model)(X), body()(X)[:, 1])
    with Layer("").reading(model) as read:
        assert torch.equal(read(X), body()(X))
    side = Unit("", 1, side="output").values(model, X)
    own = model(X)
    own = own.logits if isinstance(own, Found) else own[0] if isinstance(own, tuple) else own
    assert torch.equal(side, own[:, 1])
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())
    assert not torch.overrides._get_current_function_mode_stack()


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_a_forward_that_raises_leaves_no_mode_behind(error: type[BaseException]) -> None:
    def broken(z: Tensor) -> Tensor:
        raise error("the forward breaks")

    for act in (Unit("", 1).values, Layer("").maps):
        with pytest.raises(error, match="the forward breaks"):
            act(Headed(broken), X)  # type: ignore[operator]
    assert not torch.overrides._get_current_function_mode_stack()


def test_the_extreme_patches_of_the_outputs() -> None:
    options: dict[str, Any] = {"k": 1, "size": 4, "stride": 4, "mode": "mask", "progress": False}
    found = find_extreme_patches(HEADS["dataclass"](), "", X, **options)
    assert torch.equal(found.lowest.scores, find_extreme_patches(body(), "", X, **options).lowest.scores)
