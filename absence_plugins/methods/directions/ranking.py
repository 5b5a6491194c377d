"""Which directions the network uses: what a typical step along each does to its outputs."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor


@torch.no_grad()
def measure_effects(head: Callable[[Tensor], Tensor], images: Tensor, strength: Tensor, steps: Tensor) -> Tensor:
    """How much each direction moves the logits: [I], in their units, at least 0.

    In every image the position at which a concept is weakest moves by the step from a typical position without it to
    one with it. The effect is the root mean square of the change over images and classes, without what all classes
    share; of one logit that of its change.

    Args:
        head: features [n, H, W, D] to logits [n, C].
        images: features [N, H, W, D].
        strength: [N, H, W, I], how much of each concept is where.
        steps: [D, I], in the features' units.

    Example:
        >>> images, steps = torch.zeros(2, 1, 1, 2), torch.eye(2)
        >>> head = lambda x: x.sum((1, 2)) @ torch.tensor([[2.0, -2.0], [1.0, 1.0]])
        >>> measure_effects(head, images, torch.zeros(2, 1, 1, 2), steps)
        tensor([2., 0.])
    """
    rows = torch.arange(len(images), device=images.device)
    before = head(images).double()
    found = []
    for values, step in zip(strength.flatten(1, 2).unbind(-1), steps.T.to(images), strict=True):
        moved = images.flatten(1, 2).clone()
        moved[rows, values.argmin(1)] += step
        change = head(moved.reshape(images.shape)).double() - before
        shared = change.mean(1, keepdim=True) if change.shape[1] > 1 else 0.0
        found.append((change - shared).square().mean().sqrt())
    return torch.stack(found).to(strength.dtype)
