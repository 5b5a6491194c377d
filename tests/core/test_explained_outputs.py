"""The scores in whatever a model returns, and the explained output as an object."""

from __future__ import annotations

from collections import OrderedDict, namedtuple
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from absence_plugins.core.choices import choose
from absence_plugins.core.outputs import Logit, Margin, Others, Output, Similarity
from absence_plugins.core.scores import logits_of

Z = torch.tensor([[3.0, 1.0, 2.0], [0.0, 5.0, 4.0]])


@dataclass
class Classified:
    loss: Tensor | None
    logits: Tensor
    hidden_states: tuple[Tensor, ...] = ()


class ModelOutput(OrderedDict):  # type: ignore[type-arg]
    """A dictionary with attributes, as transformers has it."""


Named = namedtuple("Named", "logits aux_logits")


@pytest.mark.parametrize(
    "returned",
    [
        Z,
        Classified(None, Z, (torch.zeros(2, 9),)),
        ModelOutput(loss=torch.tensor(0.5), logits=Z),
        Named(Z, torch.zeros(2, 3)),
        {"out": Z, "aux": torch.zeros(2, 3)},
        {"scores": Z, "ids": torch.arange(2)},
        (Z, None),
        [Z],
    ],
)
def test_the_scores_are_found(returned: Any) -> None:
    assert logits_of(returned) is Z


def test_several_fields_are_asked_for_by_name() -> None:
    two = {"a": Z, "b": -Z}
    with pytest.raises(
        ValueError, match=r"got dict with a \(2, 3\), b \(2, 3\): it cannot be told.*Scores\(model, field='a'\)"
    ):
        logits_of(two)
    assert logits_of(two, name="b") is two["b"]
    with pytest.raises(ValueError, match="no tensor 'c'"):
        logits_of(two, name="c")
    assert logits_of({"a": Z, "b": torch.zeros(5, 3)}, samples=2) is Z
    with pytest.raises(ValueError, match="got int; wrap it"):
        logits_of(3)


def closed_forms() -> list[tuple[Output, list[float], str]]:
    return [
        (Logit(2), [2.0, 4.0], "logit 2"),
        (Logit(torch.tensor([0, 1])), [3.0, 5.0], "logit of each sample"),
        (Logit(1, sign=-1), [-1.0, -5.0], "minus logit 1"),
        (Others(0), [1.5, 4.5], "the mean of all logits but 0"),
        (Others([0, 1]), [1.5, 2.0], "the mean of all logits but of each sample"),
        (Margin(0, 2), [1.0, -4.0], "logit 0 minus logit 2"),
        (choose(Z, 0, None), [3.0, 0.0], "logit 0"),
        (choose(Z, [0, 1], None), [3.0, 5.0], "the target"),
        (choose(Z, 0, "runner_up"), [2.0, 5.0], "the non-target"),
        (choose(Z, 0, "others"), [1.5, 4.5], "the mean of all logits but the target 0"),
        (choose(Z, 0, "negated"), [-3.0, 0.0], "minus logit 0"),
        (choose(Z, 0, "margin"), [1.0, -5.0], "the target minus its runner-up"),
    ]


@pytest.mark.parametrize(("output", "values", "words"), closed_forms())
def test_an_output_is_one_number_per_sample(output: Output, values: list[float], words: str) -> None:
    assert output.values(Z).tolist() == values
    assert output.describe() == words

    class Returns(nn.Module):
        def forward(self, x: Tensor) -> Classified:
            return Classified(None, x)

    assert output.of(Returns())(Z).tolist() == values


def test_plus_and_minus_of_a_single_output() -> None:
    single = torch.tensor([2.0, -1.0])
    assert Logit().values(single).tolist() == [2.0, -1.0]
    assert choose(single, None, "negated").values(single).tolist() == [-2.0, 1.0]
    with pytest.raises(ValueError, match="at least two outputs"):
        Others(0).values(single)


def test_more_axes_take_tuples() -> None:
    grid = torch.arange(12.0).reshape(2, 3, 2)
    assert Logit((1, 0)).values(grid).tolist() == [2.0, 8.0]
    assert Logit([(1, 0), (2, 1)]).values(grid).tolist() == [2.0, 11.0]  # type: ignore[arg-type]
    assert Others((0, 1)).values(grid).tolist() == [4.0, 10.0]
    with pytest.raises(ValueError, match=r"output \(1,\) has 1 indices, but the outputs have 2 axes"):
        Logit(1).values(grid)


def test_similarity() -> None:
    vectors = torch.randn(2, 3, generator=torch.Generator().manual_seed(0))
    expected = (Z * vectors).sum(1) / (Z.norm(dim=1) * vectors.norm(dim=1))
    assert torch.allclose(Similarity(vectors).values(Z), expected)
    with pytest.raises(ValueError, match=r"2 entries, but the model's output is \(2, 3\)"):
        Similarity(torch.ones(2)).values(Z)


@pytest.mark.parametrize("index", [3, -1, [0, 3], [0, 1, 2]])
def test_an_output_that_does_not_exist(index: Any) -> None:
    with pytest.raises(ValueError, match=r"does not exist|3 indices for 2 samples"):
        Logit(index).values(Z)
