"""Norms of vectors, and what is made of them. L2: m a_bar / n_bar."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from absence_plugins.relevance.operation import Multiplier, Operation, Pull, RelevanceError, secant
from absence_plugins.relevance.secants.arguments import Arguments, single
from absence_plugins.relevance.secants.arithmetic import quotient, reduce_to, shape_up
from absence_plugins.relevance.secants.tape import Pair, Tape, pair_of


def _dims(dim: Any) -> tuple[int, ...] | None:
    return None if dim is None else (dim,) if isinstance(dim, int) else tuple(dim)


@secant(
    "norm", "vector_norm", "linalg_vector_norm", "linalg_norm", "frobenius_norm", "linalg_matrix_norm", "matrix_norm"
)
def norm(op: Operation) -> Pull:
    """Of order 2: m a_bar / n_bar, 0 where both are 0. Other orders: step by step."""
    order_name = "p" if op.name in ("norm", "frobenius_norm") else "ord"
    default: Any = "fro" if op.name in ("norm", "linalg_matrix_norm", "matrix_norm", "frobenius_norm") else 2
    dim: Any = (-2, -1) if "matrix" in op.name else None
    names: dict[str, Any] = {"input": None, order_name: default, "dim": dim, "keepdim": False}
    if op.name == "frobenius_norm":
        names = {"input": None, "dim": None, "keepdim": False, "p": "fro"}
    arguments = Arguments(op, **names)
    a, order = arguments["input"], arguments.value(order_name)
    dims, keepdim = _dims(arguments.value("dim")), arguments.value("keepdim")
    is_matrix = "matrix" in op.name or (op.name == "linalg_norm" and (len(dims) if dims else a.value.ndim) == 2)
    if order in (None, "fro") or (order == 2 and not (is_matrix and op.name != "norm")):
        return _euclidean(op, arguments, dims, keepdim)
    if is_matrix or order == 0 or isinstance(order, str):
        raise RelevanceError(f"{op.name} of order {order!r} has no rule; orders of vectors above 0 and 'fro' have")
    tape, pair = Tape(), Pair(a.value, a.other)
    y = p_norm(tape, pair, float(order), dims, keepdim)
    return _pull_of(tape, y, [pair], arguments, ["input"])


def _euclidean(op: Operation, arguments: Arguments, dims: tuple[int, ...] | None, keepdim: bool) -> Pull:
    a = arguments["input"]
    total, ndim = a.value + a.other, a.value.ndim
    share = total * quotient(1.0, shape_up(op.output + op.other_output, dims, keepdim, ndim))

    def pull(multiplier: Multiplier) -> tuple[Tensor | None, ...]:
        m = single(multiplier)
        return (None if m is None else reduce_to(shape_up(m, dims, keepdim, ndim) * share, a.value),)

    return pull


def p_norm(tape: Tape, a: Pair, order: float, dims: tuple[int, ...] | None, keepdim: bool) -> Pair:
    """(sum abs(a)^p)^(1/p) on a tape; the largest or smallest magnitude for infinite p."""
    axes = tuple(range(a.value.ndim)) if dims is None else dims
    if order == 2:
        return tape.call("linalg_vector_norm", torch.linalg.vector_norm, a, ord=2, dim=axes, keepdim=keepdim)
    size = tape.call("abs", torch.abs, a)
    if math.isinf(order):
        name = "amax" if order > 0 else "amin"
        return tape.call(name, getattr(torch, name), size, dim=axes, keepdim=keepdim)
    if order != 1:
        size = tape.call("pow", torch.pow, size, order)
    total = tape.linear(lambda t: t.sum(axes, keepdim=keepdim), size)
    return total if order == 1 else tape.call("pow", torch.pow, total, 1 / order)


def _pull_of(tape: Tape, y: Pair, pairs: list[Any], arguments: Arguments, names: list[str]) -> Pull:
    def pull(multiplier: Multiplier) -> tuple[Tensor | None, ...]:
        m = single(multiplier)
        if m is None:
            return (None,) * len(names)
        found = tape.pull({y: m}, pairs)
        return arguments.in_order(
            {name: reduce_to(v, arguments.value(name)) for name, v in zip(names, found, strict=True) if v is not None}
        )

    return pull


@secant("dist", "pairwise_distance")
def distance(op: Operation) -> Pull:
    """The norm of a - b; ``pairwise_distance`` adds its eps to the difference."""
    if op.name == "dist":
        arguments = Arguments(op, input=None, other=None, p=2.0)
        eps, dims, keepdim, first_two = 0.0, None, False, ("input", "other")
    else:
        arguments = Arguments(op, x1=None, x2=None, p=2.0, eps=1e-6, keepdim=False)
        eps, dims, keepdim, first_two = arguments.value("eps"), (-1,), arguments.value("keepdim"), ("x1", "x2")
    one, two = (Pair(arguments[name].value, arguments[name].other) for name in first_two)
    tape = Tape()
    difference = Pair(one.value - two.value + eps, one.other - two.other + eps)
    y = p_norm(tape, difference, float(arguments.value("p")), dims, keepdim)
    names = arguments.varying()

    def pull(multiplier: Multiplier) -> tuple[Tensor | None, ...]:
        m = single(multiplier)
        (found,) = (None,) if m is None else tape.pull({y: m}, [difference])
        if found is None:
            return (None,) * len(names)
        each = dict(zip(first_two, (found, -found), strict=True))
        return arguments.in_order({name: reduce_to(each[name], arguments.value(name)) for name in names})

    return pull


@secant("cosine_similarity")
def cosine_similarity(op: Operation) -> Pull:
    """The sum of products of a / max(norm a, eps) and b / max(norm b, eps)."""
    arguments = Arguments(op, x1=None, x2=None, dim=1, eps=1e-8)
    dim, eps, tape = arguments.value("dim"), arguments.value("eps"), Tape()
    pairs = {name: pair_of(arguments[name]) for name in ("x1", "x2")}
    units = []
    for v in pairs.values():
        if isinstance(v, Pair):
            n = p_norm(tape, v, 2.0, (dim,), True)
            units.append(tape.call("div", torch.div, v, tape.call("clamp_min", torch.clamp_min, n, eps)))
        else:
            units.append(v / torch.linalg.vector_norm(v, dim=dim, keepdim=True).clamp_min(eps))
    y = tape.linear(lambda t: t.sum(dim), tape.call("mul", torch.mul, *units))
    names = arguments.varying()
    return _pull_of(tape, y, [pairs[name] for name in names], arguments, names)
