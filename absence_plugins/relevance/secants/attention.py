"""scaled_dot_product_attention: product, softmax, product, each by its own secant.

y = P V, P = softmax(S), S = s Q K^T + mask. m_V = P_bar^T m, m_P = m V_bar^T, m_S by the logarithmic mean of P,
m_Q = s m_S K_bar, m_K = s m_S^T Q_bar. The forward pass keeps torch's own kernel; P is made again here.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from absence_plugins.core.training import DRAWS, REMEDY
from absence_plugins.relevance.operation import Multiplier, Operation, Pull, RelevanceError, secant
from absence_plugins.relevance.secants.arguments import Arguments, single
from absence_plugins.relevance.secants.arithmetic import midpoint, reduce_to
from absence_plugins.relevance.secants.softmax import logarithmic_mean, softmax_pull


def _log_attention(q: Tensor, k: Tensor, mask: Any, scale: float, is_causal: bool) -> Tensor:
    """log P; -inf where masked, and in rows without any position."""
    scores: Tensor = q @ k.transpose(-2, -1) * scale
    if is_causal:
        allowed = torch.ones(scores.shape[-2:], dtype=torch.bool, device=scores.device).tril()
        scores = scores.masked_fill(~allowed, -math.inf)
    if mask is not None:
        scores = scores.masked_fill(~mask, -math.inf) if mask.dtype == torch.bool else scores + mask
    total = scores.logsumexp(-1, keepdim=True)
    return torch.where(torch.isneginf(scores), -math.inf, scores - total)


def _grouped(tensor: Tensor, heads: int) -> Tensor:
    """Keys or values once per query head."""
    return tensor.repeat_interleave(heads // tensor.shape[-3], -3)


def _ungrouped(multiplier: Tensor, like: Tensor) -> Tensor:
    heads = like.shape[-3]
    *batch, every, length, width = multiplier.shape
    return multiplier.reshape(*batch, heads, every // heads, length, width).sum(-3)


@secant("scaled_dot_product_attention")
def attention(op: Operation) -> Pull:
    """Q, K, V and the mask may all depend on the input."""
    arguments = Arguments(
        op,
        query=None,
        key=None,
        value=None,
        attn_mask=None,
        dropout_p=0.0,
        is_causal=False,
        scale=None,
        enable_gqa=False,
    )
    if arguments.value("dropout_p"):
        raise RelevanceError(f"attention with dropout {DRAWS}; {REMEDY}")
    q, k, v, mask = (arguments[name] for name in ("query", "key", "value", "attn_mask"))
    scale = arguments.value("scale")
    scale = 1 / math.sqrt(q.value.shape[-1]) if scale is None else scale
    grouped = bool(arguments.value("enable_gqa"))
    heads = q.value.shape[-3] if grouped else 0
    keys, other_keys, values, other_values = (
        _grouped(t, heads) if grouped else t for t in (k.value, k.other, v.value, v.other)
    )
    causal = arguments.value("is_causal")
    log_p = _log_attention(q.value, keys, mask.value, scale, causal)
    log_other = _log_attention(q.other, other_keys, mask.other, scale, causal)
    mean, p_bar = logarithmic_mean(log_p, log_other), midpoint(log_p.exp(), log_other.exp())
    del log_p, log_other
    q_bar, k_bar, v_bar = midpoint(q.value, q.other), midpoint(keys, other_keys), midpoint(values, other_values)
    names = arguments.varying()

    def pull(multiplier: Multiplier) -> tuple[Tensor | None, ...]:
        m = single(multiplier)
        if m is None:
            return (None,) * len(names)
        found: dict[str, Tensor] = {}
        if "value" in names:
            found["value"] = p_bar.transpose(-2, -1) @ m
        if set(names) - {"value"}:
            scores = softmax_pull(mean, m @ v_bar.transpose(-2, -1), -1)
            found["attn_mask"] = scores
            found["query"] = scores @ k_bar * scale
            found["key"] = scores.transpose(-2, -1) @ q_bar * scale
        if grouped:
            found |= {n: _ungrouped(found[n], arguments.value(n)) for n in ("key", "value") if n in found}
        return arguments.in_order({name: reduce_to(found[name], arguments.value(name)) for name in names})

    return pull
