"""What the attribution prior is given, checked: every error names the value and the remedy."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import is_dataclass
from typing import Any

import torch
from torch import Tensor

from absence_plugins.core.outputs import as_columns, check_logits
from absence_plugins.core.scores import logits_of

FUSED_ATTENTION = "ScaledDotProduct"  # autograd nodes of the kernels that cannot be differentiated twice


def check_inputs(x: Tensor, y: Tensor) -> None:
    """x and y as the prior takes them. Raises TypeError or ValueError otherwise."""
    if not isinstance(x, Tensor) or not x.is_floating_point():
        raise TypeError(f"x must be a floating-point tensor [N, C, ...], got {kind(x)}")
    if x.dim() < 2 or len(x) == 0:
        raise ValueError(f"x must have the shape [N, C, ...] with N >= 1, got {tuple(x.shape)}")
    if not isinstance(y, Tensor) or y.is_floating_point() or y.is_complex():
        raise TypeError(f"y must be an integer tensor of class indices, got {kind(y)}; use y.long() or y.argmax(1)")
    if tuple(y.shape) != (len(x),):
        raise ValueError(f"y must hold one class index per sample: shape ({len(x)},), got {tuple(y.shape)}")


def fitting(mask: Tensor, x: Tensor) -> Tensor:
    """The mask with as many axes as x."""
    if not isinstance(mask, Tensor) or mask.is_complex():
        raise TypeError(f"mask must be a tensor of booleans or of numbers in [0, 1], got {kind(mask)}")
    mask = mask.detach().to(x.device)
    allowed = [tuple(x.shape)]
    if x.dim() > 2:
        allowed += [(len(x), 1, *x.shape[2:]), (len(x), *x.shape[2:])]
    if tuple(mask.shape) not in allowed:
        shapes = " or ".join(map(str, reversed(allowed)))
        raise ValueError(f"mask must have the shape {shapes} for x of shape {tuple(x.shape)}, got {tuple(mask.shape)}")
    if mask.dtype != torch.bool:
        low, high = (float(end) for end in torch.aminmax(mask))
        if not (low >= 0 and high <= 1):  # NaN is neither
            raise ValueError(f"mask must lie in [0, 1], got values from {low:g} to {high:g}; divide it by 255, or compare it")  # fmt: skip
    return mask if mask.dim() == x.dim() else mask[:, None]


def find_logits(outputs: Any, x: Tensor) -> Tensor:
    """Logits [N, K] or [N] of as many samples as x, in what a model returned. Raises TypeError or ValueError
    otherwise.
    """
    if not isinstance(outputs, (Tensor, Mapping, tuple, list)) and not is_dataclass(outputs):
        raise TypeError(f"the model's output must be a tensor of logits [N, K], or hold one, got {kind(outputs)}")
    logits = logits_of(outputs, samples=len(x))
    if logits.dim() not in (1, 2) or len(logits) != len(x) or not logits.numel():
        remedy = "; pass a module that sums them over the image" if logits.dim() > 2 and len(logits) == len(x) else ""
        raise ValueError(f"logits must have the shape ({len(x)}, K) or ({len(x)},), got {tuple(logits.shape)}{remedy}")
    return logits


def check_shared(logits: Tensor, x: Tensor) -> None:
    """Logits with a graph back to x that can be differentiated twice. Raises ValueError otherwise."""
    if not x.requires_grad:
        raise ValueError(
            "x does not require gradients, so the logits given know nothing of it: call x.requires_grad_() before "
            "logits = model(x), or leave out logits="
        )
    if not logits.requires_grad:
        raise ValueError(
            "the logits given have no graph: compute them with gradients enabled and do not detach them, or leave out "
            "logits="
        )
    fused = fused_attention(logits)
    if fused:
        raise ValueError(
            f"the logits given come from a fused attention kernel ({fused}), which cannot be differentiated twice: "
            "run your forward inside `with twice_differentiable():`, or leave out logits="
        )


def check_given(logits: Tensor) -> None:
    """Given logits that are no probabilities. Raises ValueError otherwise: their logits cannot be had from them."""
    try:
        check_logits(as_columns(logits).detach())
    except ValueError as error:
        raise ValueError(f"{error}; or leave out logits=, then the logits in front of a softmax are found") from None


def fused_attention(logits: Tensor) -> str:
    """The name of the first fused attention in the graph of the logits, else ""."""
    return next((node.name() for node in graph_nodes(logits) if node.name().startswith(FUSED_ATTENTION)), "")


def graph_nodes(*outputs: Tensor) -> Iterator[Any]:
    """Every node of the graphs that autograd holds of tensors."""
    waiting, seen = [one.grad_fn for one in outputs], set()
    while waiting:
        node = waiting.pop()
        if node is None or node in seen:
            continue
        yield node
        seen.add(node)
        waiting += [following for following, _ in node.next_functions]


def check_classes(y: Tensor, columns: int) -> None:
    """Classes that exist. Raises ValueError otherwise."""
    classes = max(columns, 2)  # one logit: 0 is -z, 1 is +z
    low, high = (int(end) for end in torch.aminmax(y))
    if low < 0 or high >= classes:
        wrong = low if low < 0 else high
        raise ValueError(f"y holds class {wrong}, which does not exist: {columns} logit(s) make the classes 0 to {classes - 1}")  # fmt: skip


def kind(value: Any) -> str:
    """What something is, for an error."""
    return f"a tensor of {value.dtype}" if isinstance(value, Tensor) else type(value).__name__
