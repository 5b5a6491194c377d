"""The softmax family, by the logarithmic mean L = (y - y') / (log y - log y') of the probabilities.

softmax: m_z = L (m - sum(L m) / sum L). With w = L / sum L: logsumexp m_z = w m; log_softmax m_z = m - w sum m.
A masked position (-inf in both passes) gets 0.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from absence_plugins.relevance.operation import Multiplier, Operation, Pull, secant
from absence_plugins.relevance.secants.arguments import Arguments, single
from absence_plugins.relevance.secants.arithmetic import quotient, reduce_to, shape_up
from absence_plugins.relevance.secants.elementwise import decay


def logarithmic_mean(log_p: Tensor, log_q: Tensor) -> Tensor:
    """(p - q) / (log p - log q) from the logarithms, as max(p, q) (1 - exp(-u)) / u, u = abs(log p - log q).

    >>> p, q = torch.tensor([0.5, 0.2, 0.0]), torch.tensor([0.5, 0.1, 0.0])
    >>> logarithmic_mean(p.log(), q.log())
    tensor([0.5000, 0.1443, 0.0000])
    """
    u = torch.where(log_p == log_q, 0.0, (log_p - log_q).abs())
    return torch.nan_to_num(torch.maximum(log_p, log_q).exp() * decay(u))


def softmax_pull(mean: Tensor, multiplier: Tensor, dim: int | tuple[int, ...]) -> Tensor:
    """L (m - sum(L m) / sum L)."""
    weighted = mean * multiplier
    return weighted - mean * quotient(weighted.sum(dim, keepdim=True), mean.sum(dim, keepdim=True))


def _scores(op: Operation) -> tuple[Arguments, Tensor, Tensor]:
    arguments = Arguments(op, input=None, dim=None, dtype=None)
    kind: Any = op.output.dtype
    return arguments, arguments["input"].value.to(kind), arguments["input"].other.to(kind)


@secant("softmax")
def softmax(op: Operation) -> Pull:
    """m_z = L (m - sum(L m) / sum L)."""
    arguments, z, other = _scores(op)
    dim = arguments.value("dim")
    mean = logarithmic_mean(torch.log_softmax(z, dim), torch.log_softmax(other, dim))
    like = arguments.value("input")

    def pull(multiplier: Multiplier) -> tuple[Tensor | None, ...]:
        m = single(multiplier)
        return (None if m is None else reduce_to(softmax_pull(mean, m, dim), like),)

    return pull


@secant("log_softmax")
def log_softmax(op: Operation) -> Pull:
    """m_z = m - w sum m."""
    arguments = Arguments(op, input=None, dim=None, dtype=None)
    dim, like = arguments.value("dim"), arguments.value("input")
    mean = logarithmic_mean(op.output, op.other_output)
    share = quotient(mean, mean.sum(dim, keepdim=True))

    def pull(multiplier: Multiplier) -> tuple[Tensor | None, ...]:
        m = single(multiplier)
        return (None if m is None else reduce_to(m - share * m.sum(dim, keepdim=True), like),)

    return pull


@secant("logsumexp")
def logsumexp(op: Operation) -> Pull:
    """m_z = w m."""
    arguments = Arguments(op, input=None, dim=None, keepdim=False)
    z, other, dim = arguments["input"].value, arguments["input"].other, arguments.value("dim")
    dims = (dim,) if isinstance(dim, int) else tuple(dim)
    keepdim = arguments.value("keepdim")
    y, other_y = (shape_up(t, dims, keepdim, z.ndim) for t in (op.output, op.other_output))
    mean = logarithmic_mean(_log_share(z, y), _log_share(other, other_y))
    share = quotient(mean, mean.sum(dims, keepdim=True))

    def pull(multiplier: Multiplier) -> tuple[Tensor | None, ...]:
        m = single(multiplier)
        return (None if m is None else shape_up(m, dims, keepdim, z.ndim) * share,)

    return pull


def _log_share(z: Tensor, total: Tensor) -> Tensor:
    return torch.where(torch.isneginf(z), z, z - total)
