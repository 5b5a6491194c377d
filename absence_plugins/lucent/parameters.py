"""What a parameterization hands over: tensors in whatever form an optimizer takes, and which of them belong to one
image.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import Tensor


def make_images(param_f: Callable[[], Any]) -> tuple[Any, list[Tensor], Callable[[], Tensor]]:
    """What ``param_f()`` returns: its parameters for the optimizer, the same as tensors, and the function of the
    images.

    Parameters may be a tensor, a list, an iterator (``param.cppn`` hands over ``net.parameters()``), a dictionary, or
    an optimizer's groups; those that need no gradient are left out.

    Raises:
        TypeError: anything else than a pair of parameters and a function.
        ValueError: no parameter that needs a gradient.
    """
    made = param_f()
    if not isinstance(made, (tuple, list)) or len(made) != 2 or not callable(made[1]):
        raise TypeError(
            f"param_f must return parameters and a function that makes the images [B, C, H, W], got {made!r:.80}"
        )
    given, image_f = made
    if isinstance(given, Tensor):
        given = [given]
    elif isinstance(given, Mapping):
        given = list(given.values())
    elif isinstance(given, Iterable):
        given = list(given)  # an iterator can be read once
    tensors = [one for one in _tensors(given) if one.requires_grad]
    if not tensors:
        raise ValueError("param_f returned no tensor that requires a gradient: nothing can be optimized")
    return given, tensors, image_f


def _tensors(given: Any) -> list[Tensor]:
    if isinstance(given, Tensor):
        return [given]
    if not isinstance(given, Iterable):
        raise TypeError(f"the parameters of param_f must be tensors, got {type(given).__name__}")
    found = []
    for one in given:
        # named parameters, groups of an optimizer
        inner = one["params"] if isinstance(one, Mapping) else one[1] if isinstance(one, tuple) else one
        found += [inner] if isinstance(inner, Tensor) else _tensors(inner)
    return found


def belong_to_images(parameters: list[Tensor], image_f: Callable[[], Tensor]) -> list[bool]:
    """Of every parameter, whether its rows are the images of the batch: row n moves image n and no other.

    The weights of a network that makes the images do not, also where the network has as many channels as images.

    >>> rows, shared = torch.ones(2, 3, requires_grad=True), torch.ones(2, 1, requires_grad=True)
    >>> belong_to_images([rows, shared], lambda: rows * shared.sum())
    [True, False]
    """
    with torch.enable_grad():
        images = image_f()
        count = len(images)
        candidates = [one for one in parameters if one.dim() and len(one) == count]
        if count == 1 or not candidates:
            return [any(one is other for other in candidates) for one in parameters]
        # unequal weights: a sum could cancel
        weights = torch.linspace(0.5, 1.5, images[0].numel()).view(images[0].shape).to(images)
        ends = [(images[0] * weights).sum(), (images[1:] * weights).sum()]
        slopes = [
            torch.autograd.grad(end, candidates, retain_graph=True, allow_unused=True, materialize_grads=True)
            for end in ends
        ]
    owned = [
        one
        for one, first, others in zip(candidates, *slopes, strict=True)
        if not first[1:].any() and not others[0].any() and (first.any() or others.any())
    ]
    return [any(one is other for other in owned) for one in parameters]
