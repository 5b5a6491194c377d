"""Functions on signed maps: which part is about content that is there, which about content that is not.

Sign everywhere: R > 0 raises the explained output, R < 0 holds it down.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


def split_by_sign(signed: Tensor) -> tuple[Tensor, Tensor]:
    """What raises and what holds down, both as magnitudes >= 0: ``(max(R, 0), max(-R, 0))``.

    >>> split_by_sign(torch.tensor([2.0, -3.0]))
    (tensor([2., 0.]), tensor([0., 3.]))
    """
    return signed.clamp(min=0), (-signed).clamp(min=0)


def absence_part(x: Tensor, reference: Tensor, empty: Tensor | float = 0.0) -> Tensor:
    """Where the reference has content and x has none: ``|x - empty| < |reference - empty|``, boolean.

    Content is the distance from ``empty``, the value of a blank pixel; on inputs normalized to [-1, 1]
    black is -1, and comparing raw magnitudes there takes strokes for background (docs/concepts.md).

    x, reference: the same shape; ``empty`` broadcasts to it. Raises ValueError where it does not.

    >>> absence_part(torch.tensor([-1.0, 1.0]), torch.tensor([1.0, 1.0]), empty=-1.0)
    tensor([ True, False])
    """
    if x.shape != reference.shape:
        raise ValueError(
            f"the reference has shape {tuple(reference.shape)}, the input {tuple(x.shape)}; they must be the same"
        )
    blank = torch.as_tensor(empty, dtype=x.dtype, device=x.device)
    try:
        return (x - blank).abs() < (reference - blank).abs()
    except RuntimeError:
        raise ValueError(
            f"empty of shape {tuple(blank.shape)} does not broadcast to inputs of shape {tuple(x.shape)}; "
            "pass a number, one value per channel as [C, 1, 1], or an image"
        ) from None


def split_by_content(
    signed: Tensor, x: Tensor, reference: Tensor, empty: Tensor | float = 0.0
) -> tuple[Tensor, Tensor]:
    """The signed map cut into its presence and its absence part; the two sum to it.

    The absence part is the evidence at places where the reference has content and x has none. For a
    complete method the sums of both parts add up to u(x) - u(reference). All tensors of one shape.

    >>> split_by_content(torch.tensor([3.0, 4.0]), torch.tensor([1.0, 0.0]), torch.tensor([0.0, 1.0]))
    (tensor([3., 0.]), tensor([0., 4.]))
    """
    return split_by_mask(signed, absence_part(x, reference, empty))


def split_by_mask(signed: Tensor, absent: Tensor) -> tuple[Tensor, Tensor]:
    """The signed map where ``absent`` is False, and where it is True; the two sum to the map.

    absent: boolean, of the map's shape or of its first axes.

    >>> split_by_mask(torch.tensor([[[3.0, 1.0], [4.0, 2.0]]]), torch.tensor([[False, True]]))[1]
    tensor([[[0., 0.],
             [4., 2.]]])
    """
    mask = absent.reshape(*absent.shape, *[1] * (signed.dim() - absent.dim()))
    return signed.masked_fill(mask, 0.0), signed.masked_fill(~mask, 0.0)


def sum_channels(signed: Tensor) -> Tensor:
    """Sum over the channel axis, signs kept: [B, C, H, W] -> [B, H, W]; [C, H, W] -> [H, W].

    >>> sum_channels(torch.tensor([[[1.0]], [[-3.0]]]))
    tensor([[-2.]])
    """
    if signed.dim() < 3:
        raise ValueError(f"a map with channels has at least three axes ([C, H, W]), got shape {tuple(signed.shape)}")
    return signed.sum(-3)


def symmetric_range(signed: Tensor, quantile: float = 1.0) -> float:
    """The v of a color range [-v, v] in which zero lies in the middle; 1.0 for a map of zeros.

    ``quantile`` below 1 lets the strongest pixels saturate.

    >>> symmetric_range(torch.tensor([0.5, -2.0]))
    2.0
    """
    if not 0 < quantile <= 1:
        raise ValueError(f"quantile={quantile} must lie in (0, 1]")
    magnitude = signed.detach().abs().flatten().double()
    limit = float(magnitude.max() if quantile == 1 else magnitude.quantile(quantile)) if magnitude.numel() else 0.0
    return limit if limit > 0 else 1.0


def tree_map(function: Any, tree: Any, *others: Any) -> Any:
    """Apply to every tensor of nested tuples and lists (the forms in which hosts return maps)."""
    if isinstance(tree, (tuple, list)):
        return type(tree)(tree_map(function, *leaves) for leaves in zip(tree, *others, strict=True))
    return function(tree, *others)
