"""What must hold on every model: conserved, antisymmetric to the bit, the model's own bits, nothing left behind."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from absence_plugins.relevance import relevance


def images(size: int, channels: int = 3) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    x, r = torch.randn(2, 1, channels, size, size, dtype=torch.float64, generator=generator)
    return x, r


def build(make: Any, *args: Any, **kwargs: Any) -> nn.Module:
    """A model with random weights in float64; weights that start at 0 (heads of transformers) are drawn, too."""
    torch.manual_seed(0)
    model: nn.Module = make(*args, **kwargs).eval().double()
    for parameter in model.parameters():
        if parameter.dim() > 1 and not bool(parameter.any()):
            nn.init.normal_(parameter, 0, 0.1)
    return model


def gap(found: Any) -> tuple[float, float]:
    """abs(sum of R - (u(x) - u(r))), and the sum of abs(R)."""
    maps = [value for value in listed(found.attribution) if value is not None]
    total = sum(float(value.double().sum()) for value in maps)
    return abs(total - float(found.difference.double().sum())), sum(float(v.double().abs().sum()) for v in maps)


def listed(values: Any) -> list[Any]:
    if isinstance(values, dict):
        return list(values.values())
    return list(values) if isinstance(values, tuple) else [values]


def check_model(model: nn.Module, x: Any, r: Any, output: Any = 1, *, single: bool = True, exact: float = 1e-9) -> None:
    """In float64, to ``exact`` (less where a model computes in float32 inside), and in float32 with ``single``."""
    found, back = relevance(model, x, r, output), relevance(model, r, x, output)
    off, gross = gap(found)
    assert gross > 0
    assert off <= exact * gross + _rounding(found)
    for one, other in zip(listed(found.attribution), listed(back.attribution), strict=True):
        assert (one is None and other is None) or torch.equal(one, -other)
    if isinstance(output, int):
        # torch chooses kernels (of attention) by whether gradients are on: the bits are those of one of the two
        assert any(torch.equal(bits, found.output) for bits in _outputs(model, x, output))
    for module in model.modules():
        assert not module._forward_hooks
        assert not module._forward_pre_hooks
    assert all(parameter.grad is None and parameter.requires_grad for parameter in model.parameters())
    if single:
        x, r = (_single(value) for value in (x, r))
        coarse = relevance(model.float(), x, r, output)
        off, gross = gap(coarse)
        assert off <= 1e-5 * gross + _rounding(coarse)
        model.double()


def _rounding(found: Any) -> float:
    """What u(x) - u(r) is itself rounded by: random weights can leave a difference in the last places of u."""
    size = torch.maximum(found.output.abs(), found.reference_output.abs()).sum()
    return 8 * torch.finfo(found.output.dtype).eps * float(size)


def _outputs(model: nn.Module, x: Any, output: int) -> list[Tensor]:
    found = []
    for with_gradients in (True, False):
        with torch.set_grad_enabled(with_gradients):
            logits = model(**x) if isinstance(x, dict) else model(*listed(x))
        found.append((logits if isinstance(logits, Tensor) else logits.logits)[:, output].detach())
    return found


def _single(values: Any) -> Any:
    if isinstance(values, dict):
        return {name: _single(value) for name, value in values.items()}
    if isinstance(values, tuple):
        return tuple(_single(value) for value in values)
    return values.float() if isinstance(values, Tensor) and values.is_floating_point() else values
