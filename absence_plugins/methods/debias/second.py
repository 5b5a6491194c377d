"""Functions of torch without a second derivative, or with one that is NaN at 0, computed so that it exists."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from torch.overrides import TorchFunctionMode

ROOT = (2, 2.0, "fro", None)  # spellings of the Euclidean norm


class SecondDerivatives(TorchFunctionMode):
    """In this block hardsigmoid, Euclidean norms and what divides by them have second derivatives.

    torch has none for hardsigmoid, and NaN for the norm of a zero vector. The values stay torch's, to the bit (a cosine
    similarity near 0: to rounding); only the way back is another one. A norm counts as constant where it is 0 (in
    ``normalize`` and ``cosine_similarity``: not above ``eps``), as in torch's first derivative.

    >>> x = torch.zeros(1, 2, requires_grad=True)
    >>> with SecondDerivatives():
    ...     y = functional.hardsigmoid(x) + functional.normalize(x, dim=1, eps=1.0)
    >>> (slope,) = torch.autograd.grad(y.square().sum(), x, create_graph=True)
    >>> slope, torch.autograd.grad(slope.sum(), x)
    (tensor([[1.1667, 1.1667]], grad_fn=<AddBackward0>), (tensor([[2.7222, 2.7222]]),))
    """

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """The function itself, or its form below."""
        kwargs = kwargs or {}
        form = FORMS.get(func)
        made = None
        if form is not None and torch.is_grad_enabled() and kwargs.get("out") is None:
            made = form(func, *args, **kwargs)
        return func(*args, **kwargs) if made is None else made


def _hardsigmoid(func: Any, input: Tensor, inplace: bool = False) -> Tensor:
    wide = input.to(torch.promote_types(input.dtype, torch.float32))
    made = (functional.relu6(wide + 3) / 6).to(input.dtype)
    is_inplace = inplace or func is torch._C._nn.hardsigmoid_
    return input.copy_(made) if is_inplace else made


def _norm(func: Any, input: Tensor, p: Any = 2, dim: Any = None, *args: Any, **kwargs: Any) -> Tensor | None:
    """``norm``, ``linalg.norm`` and ``linalg.vector_norm``: their second argument is the order."""
    order = kwargs.pop("ord", p)
    kwargs = {name: value for name, value in kwargs.items() if value is not None}
    is_vector = func is not torch.linalg.norm or order is None or dim is None or isinstance(dim, int)
    if order not in ROOT or not is_vector or args[1:] or kwargs.keys() - {"keepdim"} or not input.is_floating_point():
        return None
    if func is torch.linalg.norm and order is not None and dim is None and input.dim() > 1:
        return None  # of a matrix: its largest singular value
    keepdim = bool(args[0] if args else kwargs.get("keepdim", False))
    with torch.no_grad():
        value = func(
            input, *(() if order is None and func is torch.linalg.norm else (order,)), dim=dim, keepdim=keepdim
        )
    return _with_value(_length(input, dim, keepdim, 0.0), value)


def _normalize(func: Any, input: Tensor, p: Any = 2.0, dim: Any = 1, eps: float = 1e-12, out: Any = None) -> Any:
    if p not in ROOT or out is not None or not input.is_floating_point():
        return None
    with torch.no_grad():
        length = input.norm(2, dim, keepdim=True)
    # the division as in torch, so that the values are the same bits
    return input / _with_value(_length(input, dim, True, eps), length).clamp_min(eps).expand_as(input)


def _cosine_similarity(func: Any, x1: Tensor, x2: Tensor, dim: int = 1, eps: float = 1e-8) -> Any:
    if not (x1.is_floating_point() and x2.is_floating_point()):
        return None
    with torch.no_grad():
        value = func(x1, x2, dim, eps)
    unit = [one / _length(one, dim, True, eps).clamp_min(eps) for one in (x1, x2)]
    return _with_value((unit[0] * unit[1]).sum(dim), value)


def _pairwise_distance(
    func: Any, x1: Tensor, x2: Tensor, p: float = 2.0, eps: float = 1e-6, keepdim: bool = False
) -> Any:
    return None if p not in ROOT else _norm(torch.linalg.vector_norm, x1 - x2 + eps, 2, -1, keepdim=keepdim)


def _length(input: Tensor, dim: Any, keepdim: bool, least: float) -> Tensor:
    """The Euclidean norm, a constant where it is not above ``least``."""
    axes = tuple(range(input.dim())) if dim is None else dim
    wide = input.to(torch.promote_types(input.dtype, torch.float32))
    squares = wide.square().sum(axes, keepdim=keepdim)
    is_constant = squares <= least * least
    length = squares.masked_fill(is_constant, 1.0).sqrt()
    return length.masked_fill(is_constant, least).to(input.dtype)


def _with_value(smooth: Tensor, value: Tensor) -> Tensor:
    """A number with the graph of one and the value of the other, which are equal to rounding."""
    return smooth + (value.to(smooth.dtype) - smooth).detach()  # exact: the difference of close numbers has no rounding


FORMS: dict[Any, Callable[..., Any]] = {
    functional.hardsigmoid: _hardsigmoid,
    torch._C._nn.hardsigmoid: _hardsigmoid,
    torch._C._nn.hardsigmoid_: _hardsigmoid,
    functional.normalize: _normalize,
    torch.norm: _norm,
    Tensor.norm: _norm,
    torch.linalg.norm: _norm,
    torch.linalg.vector_norm: _norm,
    torch.cosine_similarity: _cosine_similarity,
    torch.pairwise_distance: _pairwise_distance,
}
