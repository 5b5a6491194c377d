"""What strokes the ten digits have: a small table made by hand, as concepts for naming units."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

# As most people write them, and as scikit-learn's digits look; a single writer may differ.
STROKES: dict[str, tuple[int, ...]] = {
    "closed loop": (0, 6, 8, 9),
    "loop on top": (8, 9),
    "loop at the bottom": (6, 8),
    "vertical bar": (1, 4),
    "bar on top": (5, 7),
    "stroke at the upper left": (0, 4, 5, 6, 8, 9),
    "stroke at the lower left": (0, 2, 6, 8),
    "stroke at the upper right": (0, 2, 3, 4, 7, 8, 9),
    "top open to the left": (2, 3, 7),
    "top open to the right": (5, 6),
    "bottom open to the left": (3, 5, 9),
}


def stroke_concepts(labels: Any) -> tuple[Tensor, list[str]]:
    """Digits as concepts: the ten classes, and the strokes that most people write them with.

    Args:
        labels: [N] whole numbers, the digit 0..9 of every image.

    Returns:
        [N, 21] bool on the device of ``labels``, and the names: ``digit 0`` to ``digit 9``, then the strokes.

    Raises:
        ValueError: a label that is no digit, or labels that are no list.

    Example:
        >>> concepts, names = stroke_concepts([3, 8])
        >>> [name for name, three, eight in zip(names, *concepts.tolist()) if eight and not three][1:4]
        ['closed loop', 'loop on top', 'loop at the bottom']
    """
    digits = torch.as_tensor(labels)
    if digits.dim() != 1 or len(digits) == 0 or digits.is_floating_point():
        raise ValueError(f"labels have shape {tuple(digits.shape)} and dtype {digits.dtype}; pass [N] whole numbers")
    if bool(((digits < 0) | (digits > 9)).any()):
        wrong = int(digits[(digits < 0) | (digits > 9)][0])
        raise ValueError(f"label {wrong} is no digit; labels must be 0 to 9")
    table = torch.zeros(10, 10 + len(STROKES), dtype=torch.bool)
    table[:, :10] = torch.eye(10, dtype=torch.bool)
    for k, members in enumerate(STROKES.values(), 10):
        table[list(members), k] = True
    return table.to(digits.device)[digits.long()], [*(f"digit {d}" for d in range(10)), *STROKES]
