"""One question about a model: u on x against references, checked; what is pulled back is the caller's choice."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from absence_plugins.core.outputs import check_explained
from absence_plugins.core.running import EXPORTED, is_exported
from absence_plugins.core.scores import announce
from absence_plugins.relevance.comparison import Comparison, Pulled
from absence_plugins.relevance.operation import RelevanceError
from absence_plugins.relevance.result import conservation
from absence_plugins.relevance.rules import rule_of_modules
from absence_plugins.relevance.selection import Explained, Selection
from absence_plugins.relevance.structure import Structure, flatten, list_references


@dataclass(frozen=True, eq=False)
class Answer:
    """Of one reference: what was pulled back from u, u(r) [B], and the relative error of the sum [B]."""

    pulled: Pulled
    output: Tensor
    error: Tensor


@dataclass(frozen=True, eq=False)
class Question:
    """The graph of x, and the references that are compared with it one after the other.

    Attributes:
        comparison: x's graph; after each answer it holds that reference, so that more can be pulled back.
    """

    comparison: Comparison
    structure: Structure
    references: list[list[Any]]

    @property
    def u(self) -> Tensor:
        """The explained output of x [B]."""
        u: Tensor = self.comparison.output.detach()
        return u

    def answers(self) -> list[Answer]:
        """Compare with all references, one after the other."""
        return [self.answer(one) for one in self.references]

    def answer(self, reference: list[Any]) -> Answer:
        """Compare with one of the references, which the comparison holds afterwards.

        Raises:
            RelevanceError: the sum is not u(x) - u(r).
        """
        output, seed = self.comparison.output, torch.ones_like(self.comparison.output)
        others: Tensor = self.comparison.against(reference).detach()
        check_explained(others, lambda sample: "the explained output on the reference")
        pulled = self.comparison.pull(output, seed)
        return Answer(pulled, others, check_sum(pulled, self.u, others, seed, self.comparison.coarsest))


def check_sum(pulled: Pulled, u: Tensor, others: Tensor, seed: Tensor, dtype: torch.dtype) -> Tensor:
    """The relative error of the sum of what was pulled back from u(x) [B] against u(r) [B], per sample.

    Raises:
        RelevanceError: it is more than the rounding of ``dtype``.
    """
    relevances = [entry.relevance for entry in pulled.inputs if entry is not None] + pulled.absorbed
    error, is_conserved = conservation(relevances, u, others, seed, dtype)
    if not is_conserved:
        raise RelevanceError(
            f"the relevance sums to another value than u(x) - u(r), by {float(error.max()):.1e} of it: part of the "
            "model is not seen as torch operations, or its numbers overflow; try float64"
        )
    return error


def ask(
    model: Callable[..., Any],
    x: Any,
    reference: Any,
    output: Selection,
    *,
    rule: Any = "epsilon",
    layers: Mapping[str, nn.Module | tuple[nn.Module, str]],
    level: int = 4,
) -> Question:
    """Run x, and be ready for its references; call it, and :meth:`Question.answer`, in ``working_on(model)``.

    Arguments as those of :func:`~absence_plugins.relevance.relevance`; ``level``: frames up to the user's call. No
    generator stands between the model and the user, as that would turn a StopIteration of the model into another error.
    """
    values, structure = flatten(x)
    references = list_references(reference, values, structure)
    rules = rule_of_modules(rule, model)
    if rules is not None and is_exported(model):
        raise ValueError(f"rule={rule!r} belongs to layers, and {EXPORTED}, or leave rule out")
    explained = Explained(lambda *inputs: structure.call(model, inputs), output)
    comparison = Comparison(explained, values, model=model, rule=rules, layers=layers)  # type: ignore[arg-type]
    announce(explained.ending, stacklevel=level)
    check_explained(comparison.output.detach(), lambda sample: "the explained output")
    return Question(comparison, structure, references)
