"""Input x gradient inside a mask, and the forward that lets it be differentiated a second time."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from absence_plugins.core.running import as_written, explained_running
from absence_plugins.methods.debias.second import SecondDerivatives

Normalize = Literal["mask", "share"] | None

EMPTY_MASK = 1e-5  # published: keeps the quotient finite where nothing is masked


@contextmanager
def twice_differentiable() -> Iterator[None]:
    """Run a forward whose gradient can be differentiated again: attention takes its math kernel, restored after.

    The fused kernels of scaled dot product attention have no second derivative, nor has hardsigmoid; that of a norm is
    NaN at a zero vector. Here they have the same values and a second derivative. A prior that makes its own forward
    does this by itself; where the forward is shared (``logits=``), it is the user's forward that must run inside.

    >>> q = torch.ones(1, 1, 2, 4, requires_grad=True)
    >>> with twice_differentiable():
    ...     y = torch.nn.functional.scaled_dot_product_attention(q, q, q)
    >>> (slope,) = torch.autograd.grad(y.sum(), q, create_graph=True)
    >>> slope.square().sum().backward()
    """
    with sdpa_kernel(SDPBackend.MATH), SecondDerivatives(), as_written(), explained_running():
        yield


def masked_attribution(
    output: Tensor, x: Tensor, mask: Tensor, *, square: bool = False, normalize: Normalize = "mask"
) -> Tensor:
    """Input x gradient of one output per sample that falls inside a mask.

        P_n = sum_i m_i abs(x_i d u_n / d x_i) / (sum_i m_i + 1e-5)

    Source: Hesse et al., ICML 2026, section 6.

    Args:
        output: u [N], computed from ``x``; ``u_n`` must depend on sample n alone (batch norm in training mode makes
            that an approximation, as it is in the publication).
        x: [N, C, ...], part of the graph of ``output``.
        mask: [N, 1, ...] or [N, C, ...], of the dtype of the result.
        square: sum the squares instead of the magnitudes.
        normalize: "mask" as above; "share": divided by the same sum over the whole input instead (scale-free, 0..1);
            None: not divided.

    Returns:
        P [N] in float32 or wider, in units of u ("share": none). It has a graph where gradients are enabled.

    Sign: P >= 0, both signs of the attribution count alike.

    Raises:
        ValueError: ``output`` does not depend on ``x``.

    >>> x = torch.tensor([[2.0, 3.0]], requires_grad=True)
    >>> masked_attribution((x * torch.tensor([-1.0, 5.0])).sum(1), x, torch.tensor([[1.0, 0.0]]), normalize=None)
    tensor([2.], grad_fn=<SumBackward1>)
    """
    (slope,) = (
        torch.autograd.grad(
            output,
            x,
            torch.ones_like(output),
            create_graph=torch.is_grad_enabled(),
            retain_graph=True,
            allow_unused=True,
        )
        if output.requires_grad and x.requires_grad
        else (None,)
    )
    if slope is None:
        raise ValueError(
            "the outputs do not depend on x: x must require gradients and be the very tensor that went into the model, "
            "not a copy made later"
        )
    wide = torch.promote_types(x.dtype, torch.float32)
    content = x.to(wide) * slope.to(wide)
    content = content.square() if square else content.abs()
    inside = (content * mask).flatten(1).sum(1)
    if normalize is None:
        return inside
    whole = content.flatten(1).sum(1) + torch.finfo(wide).tiny if normalize == "share" else None
    return inside / (mask.flatten(1).sum(1) + EMPTY_MASK if whole is None else whole)
