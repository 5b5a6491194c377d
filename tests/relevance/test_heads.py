"""relevance() of a model that ends in a softmax or sigmoid is that of its logits, on the same graph."""

from __future__ import annotations

import warnings
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from absence_plugins.core import AbsenceWarning
from absence_plugins.core.outputs import Margin, Others
from absence_plugins.relevance import relevance


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 6), nn.GELU(), nn.Linear(6, 3)).double().eval()


class Ending(nn.Module):
    def __init__(self, end: Any) -> None:
        super().__init__()
        self.body, self.end = network(), end

    def forward(self, x: Tensor) -> Any:
        return self.end(self.body(x))


X, R = torch.randn(2, 5, 4, generator=torch.Generator().manual_seed(1)).double()
ENDS: dict[str, Any] = {
    "softmax": nn.Softmax(1),
    "log_softmax": lambda z: {"logits": z.log_softmax(-1)},
    "sigmoid": lambda z: z.sigmoid().unsqueeze(1).squeeze(1),
}


@pytest.mark.parametrize("rule", ["epsilon", "gamma"])
@pytest.mark.parametrize("output", [1, Margin(0, 1), Others(2), [0, 1, 2, 0, 1]], ids=str)
@pytest.mark.parametrize("end", ENDS)
def test_the_map_is_that_of_the_logits(end: str, output: Any, rule: str) -> None:
    with pytest.warns(AbsenceWarning, match=f"the model ends in a {end}.*the logits, is explained") as seen:
        found = relevance(Ending(ENDS[end]), X, R, output, rule=rule, layers=["body.0"])
    expected = relevance(network(), X, R, output, rule=rule, layers=["0"])
    assert len(seen) == 1
    assert seen[0].filename == __file__
    assert torch.equal(found.attribution, expected.attribution)
    assert torch.equal(found.output, expected.output)
    assert torch.equal(found.at("body.0"), expected.at("0"))


def test_a_function_gets_what_the_model_returns() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = relevance(Ending(nn.Softmax(1)), X, R, lambda probabilities: probabilities[:, 1])
    torch.testing.assert_close(found.output, network()(X).softmax(1)[:, 1].detach())
    assert (found.conservation_error < 1e-9).all()
