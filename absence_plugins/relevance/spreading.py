"""Flat and WSquare, which have no multiplier: their relevance goes from the first layer's operand to the inputs as it
is.

Between them there may be linear operations (padding, a change of shape, a normalization by constants) and such that
work on every value alone. With P the product of their secants, R_input = P^T (R_operand / P 1): each place of the
operand hands its relevance to the inputs that it is made of; places with P 1 = 0 (padding) count for nothing.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

import torch
from torch import Tensor

from absence_plugins.relevance.nodes import SecantNode
from absence_plugins.relevance.operation import RelevanceError
from absence_plugins.relevance.records import Record
from absence_plugins.relevance.secants.arithmetic import quotient


def support(record: Record, inputs: Sequence[Tensor], weighted: Collection[Any]) -> None:
    """Tell the pull of a Flat or WSquare operation where its operand depends on the inputs (not where it is padded).

    weighted: the nodes of all convolutions and linear layers.

    Raises:
        RelevanceError: it is not the first layer.
    """
    assert record.graph_operand is not None
    before = _nodes_before(record.graph_operand)
    between = [node.record for node in before if getattr(type(node), "_forward_cls", None) is SecantNode]
    if not before.isdisjoint(weighted) or not all(_is_elementwise(one) for one in between):
        raise RelevanceError(
            f"{record.name} in {record.where} has {record.rule}, but is not the first layer: Flat and WSquare give "
            "relevance where nothing differs, which cannot be continued; use Gamma there"
        )
    for one in between:
        one.is_linear_in_m = True
    reached = _image_of_ones(record.graph_operand, inputs) != 0
    record.pull.support = reached.to(record.graph_operand.dtype)  # type: ignore[union-attr]


def spread_to(record: Record, inputs: Sequence[Tensor]) -> Sequence[Tensor | None]:
    """The relevance of each input that the last pull left at the operand of a Flat or WSquare operation."""
    assert record.graph_operand is not None
    found: Tensor | None = getattr(record.pull, "spread", None)
    if found is None:
        return [None] * len(inputs)
    given = quotient(found, _image_of_ones(record.graph_operand, inputs))
    return torch.autograd.grad(record.graph_operand, inputs, given, retain_graph=True, allow_unused=True)


def _image_of_ones(operand: Tensor, inputs: Sequence[Tensor]) -> Tensor:
    """P 1, as the derivative of P^T v in v."""
    with torch.enable_grad():
        v = torch.zeros_like(operand).requires_grad_()
        pulled = torch.autograd.grad(operand, inputs, v, create_graph=True, allow_unused=True)
        reached = [value for value in pulled if value is not None]
        return torch.autograd.grad(reached, v, [torch.ones_like(value) for value in reached])[0]


def _is_elementwise(record: Record) -> bool:
    """Whether each value of the output comes from one value of one operand."""
    if record.name == "batch_norm":
        return True
    return len(record.varying) == 1 and getattr(record.output, "shape", None) == _at(record, record.varying[0]).shape


def _at(record: Record, place: Any) -> Any:
    value: Any = record.kwargs if isinstance(place[0], str) else record.args
    for index in place:
        value = value[index]
    return value


def _nodes_before(tensor: Tensor) -> set[Any]:
    """The graph that a tensor is computed by."""
    left: list[Any] = [tensor.grad_fn]
    seen = set(left)
    while left:
        for following, _ in left.pop().next_functions:
            if following is not None and following not in seen:
                seen.add(following)
                left.append(following)
    return seen
