"""Many questions about one input: several outputs against the same references, over one graph of x."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from absence_plugins.core.outputs import Output, check_explained
from absence_plugins.core.precision import warn_unresolved
from absence_plugins.core.running import EXPORTED, is_exported
from absence_plugins.core.scores import announce, read_scores
from absence_plugins.core.turns import working_on
from absence_plugins.relevance.api import build_result
from absence_plugins.relevance.asking import check_sum
from absence_plugins.relevance.comparison import Comparison
from absence_plugins.relevance.result import Relevance
from absence_plugins.relevance.rules import rule_of_modules
from absence_plugins.relevance.structure import flatten, list_references

LINEAR = 1e3  # roundings by which u may differ from <w, z>: a sum of thousands of logits in another order


class SharedGraph:
    """The relevance of any output of one input, with one forward of x, and one for each reference.

    As :func:`~absence_plugins.relevance.relevance` for each output and reference, with the same values: the multipliers
    of an output z w that is linear in the logits z are pulled back from the seed w. What is asked one after the other
    about the same reference runs it once. The graph is held until :meth:`close`.

    Args:
        model: in evaluation mode; neither changed nor copied. It must stay as it is until the last question.
        x: a tensor.
        rule: as of :func:`~absence_plugins.relevance.relevance`.

    Raises:
        RelevanceError, ValueError: as :func:`~absence_plugins.relevance.relevance`.

    >>> from absence_plugins.core.outputs import Logit
    >>> net = torch.nn.Linear(2, 2, bias=False)
    >>> net.weight.data = torch.tensor([[2.0, 0.0], [0.0, -3.0]])
    >>> graph = SharedGraph(net, torch.ones(1, 2))
    >>> [graph.explain(torch.zeros(1, 2), Logit(index)).attribution.tolist() for index in (0, 1)]
    [[[2.0, 0.0]], [[0.0, -3.0]]]
    """

    @torch.inference_mode(False)
    def __init__(self, model: Callable[..., Any], x: Tensor, *, rule: Any = "epsilon") -> None:
        self.model = model
        self._values, self._structure = flatten(x)
        self._asked: list[Tensor] | None = None  # the reference that the comparison holds
        self._others = x
        endings: list[str] = []

        def read(*inputs: Any) -> Tensor:
            scores, ending = read_scores(lambda: model(*inputs))
            endings.append(ending)
            return scores

        rules = rule_of_modules(rule, model)
        if rules is not None and is_exported(model):
            raise ValueError(f"rule={rule!r} belongs to layers, and {EXPORTED}, or leave rule out")
        with working_on(model):
            self._comparison: Comparison | None = Comparison(
                read,
                self._values,
                model=model,  # type: ignore[arg-type]
                rule=rules,
            )
        announce(endings[0], stacklevel=2)

    @property
    def logits(self) -> Tensor:
        """The model's scores of x [B, K, ...]."""
        return self._opened().output.detach()  # type: ignore[no-any-return]

    def close(self) -> None:
        """Free the graph; no further question can be asked."""
        self._comparison = self._asked = None

    @torch.inference_mode(False)
    def explain(self, reference: Any, output: Output) -> Relevance:
        """Divide u(x) - u(r) among the entries of x.

        Args:
            reference: a tensor like x, or a list of them.
            output: linear in the logits, such as :class:`~absence_plugins.core.outputs.Logit`, or a choice of
                :func:`~absence_plugins.core.choices.choose`.

        Raises:
            RelevanceError, ValueError, TypeError: as :func:`~absence_plugins.relevance.relevance`.
            ValueError: an output that is not linear in the logits.
        """
        comparison = self._opened()
        with torch.enable_grad():
            leaf = self.logits.clone().requires_grad_()
            u = output.values(leaf)
            (weights,) = torch.autograd.grad(u.sum(), leaf)
        u = u.detach()
        _check_linear(output, weights, self.logits, u)
        check_explained(u, lambda sample: "the explained output")
        pulled, outputs, errors = [], [], []
        with working_on(self.model):
            for one in list_references(reference, self._values, self._structure):
                scores = self._run(one)
                other = output.values(scores).detach()
                _check_linear(output, weights, scores, other)
                check_explained(other, lambda sample: "the explained output on the reference")
                pulled.append(comparison.pull(comparison.output, weights))
                errors.append(check_sum(pulled[-1], u, other, torch.ones_like(u), comparison.coarsest))
                outputs.append(other)
        warn_unresolved(u, torch.stack(outputs).T, u.abs(), comparison.coarsest, level=3)
        return build_result(self._structure, pulled, u, torch.stack(outputs), torch.stack(errors))

    def _run(self, reference: list[Tensor]) -> Tensor:
        """The model's scores of a reference, which the comparison holds afterwards."""
        if self._asked is None or not all(map(torch.equal, self._asked, reference)):
            self._asked = None  # if the model raises, it holds no reference
            self._others = self._opened().against(reference).detach()
            self._asked = reference
        return self._others

    def _opened(self) -> Comparison:
        if self._comparison is None:
            raise ValueError("the graph is closed: its memory was given back; make another SharedGraph")
        return self._comparison


def _check_linear(output: Output, weights: Tensor, scores: Tensor, u: Tensor) -> None:
    """Raise ValueError where u is not <w, z>, of scores z [B, K, ...] and the gradient w of u."""
    if not bool(torch.isfinite(u).all()):
        return  # said better later
    terms = (weights.double() * scores.double()).flatten(1)
    least = LINEAR * torch.finfo(u.dtype).eps * terms.abs().sum(1)
    if bool(((terms.sum(1) - u.double()).abs() > least).any()):
        raise ValueError(
            f"{output!r} is not linear in the model's scores, so that outputs cannot share a graph; call relevance(model, "
            "x, reference, output) for it"
        )
