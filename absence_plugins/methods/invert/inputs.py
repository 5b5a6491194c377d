"""What goes in: activations without NaN, labels of 0, 1 and unknown, distinct names.

Labels are **three-valued**: a concept is present on a sample (1), absent (0), or *unknown* (NaN). So ``concepts`` is a
bool or integer tensor where everything is known, and a floating one with NaN where something is not; ``None`` in nested
lists counts as NaN. -1 is rejected, as it means "absent" in some data sets (CelebA) and "uncertain" in others
(CheXpert): write 0 or NaN. Unknown is never absent: formulas follow Kleene's logic (:class:`Truth`), and a sample on
which a formula is unknown takes no part in that formula's score, support, bounds, p-value, and the worth of its NOTs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor


def as_activations(activations: Any, first: int = 0) -> Tensor:
    """[N] or [N, U], any real dtype, as a detached tensor that can be sorted.

    first: the number of the first sample, for errors.

    Raises:
        TypeError: not real numbers. ValueError: another shape, no samples, NaN.

    >>> as_activations([[1, 2], [3, 4]]).shape
    torch.Size([2, 2])
    """
    values = _as_tensor(activations, "activations").detach()
    check_values(tuple(values.shape))
    if values.is_floating_point():
        if bool(values.amax().isnan()):
            row, *unit = values.isnan().nonzero()[0].tolist()
            raise ValueError(
                f"activations hold NaN, first at {[first + row, *unit]} ([sample, unit]), which has no rank; leave out that "
                "sample or unit"
            )
        return values.float() if values.dtype in (torch.float16, torch.bfloat16) else values
    return values.to(torch.uint8) if values.dtype == torch.bool else values


def check_values(shape: tuple[int, ...]) -> None:
    """Raise ValueError for activations that are neither [N] nor [N, U]."""
    if len(shape) not in (1, 2) or 0 in shape:
        raise ValueError(
            f"activations have shape {shape}; pass [N] or [N, U], one number per sample and unit "
            "(average or maximize a convolution's channels over space first)"
        )


@dataclass(frozen=True, eq=False)
class Truth:
    """Three-valued truth, as two masks (tensors or arrays) of one shape; unknown where neither holds.

    ``&``, ``|`` and ``~`` are Kleene's: a AND b is false as soon as one of them is, and unknown only if that leaves it
    open.

    Attributes:
        true: where it holds.
        false: where it does not.
        complete: whether everything is said to be known, so that nobody need look.

    >>> a, b = (as_truth([[1.0], [0.0], [float("nan")]]), as_truth([[float("nan")]] * 3))
    >>> (a & b).true[:, 0].tolist(), (a & b).false[:, 0].tolist()
    ([False, False, False], [False, True, False])
    """

    true: Any
    false: Any
    complete: bool = False

    @property
    def is_known(self) -> bool:
        """Whether everything is known."""
        return self.complete or bool(self.known.all())

    @property
    def known(self) -> Any:
        """Where it is true or false."""
        return self.true | self.false

    def __and__(self, other: Truth) -> Truth:
        return Truth(self.true & other.true, self.false | other.false)

    def __or__(self, other: Truth) -> Truth:
        return Truth(self.true | other.true, self.false & other.false)

    def __invert__(self) -> Truth:
        return Truth(self.false, self.true)

    def __getitem__(self, index: Any) -> Truth:
        return Truth(self.true[index], self.false[index])

    def values(self) -> Tensor:
        """As labels: bool if everything is known, else float64 with NaN where unknown."""
        if self.is_known:
            result: Tensor = self.true
            return result
        return torch.where(self.known, self.true.double(), torch.nan)


def as_labels(concepts: Any) -> Tensor:
    """[N, K] of numbers as a tensor. Raises ValueError for another shape, TypeError for no numbers."""
    labels = _as_tensor(concepts, "concepts").detach()
    check_shape(tuple(labels.shape))
    return labels


def check_shape(shape: tuple[int, ...]) -> None:
    """Raise ValueError for labels that are not [N, K]."""
    if len(shape) != 2 or 0 in shape:
        raise ValueError(f"concepts have shape {shape}; pass [N, K], one row per sample")


def as_truth(concepts: Any, first: int = 0) -> Truth:
    """[N, K] of 0, 1 and NaN (unknown) in any dtype -> two masks [N, K].

    first: the number of the first sample, for errors.

    Raises:
        ValueError: another shape, a value that is neither 0 nor 1 nor NaN.

    >>> as_truth([[0, 1, None]]).known
    tensor([[ True,  True, False]])
    """
    labels = as_labels(concepts)
    if labels.dtype == torch.bool:
        return Truth(labels, ~labels, complete=True)
    truth = Truth(labels == 1, labels == 0)
    wrong = ~truth.known & ~labels.isnan()
    if bool(wrong.any()):
        row, column = wrong.nonzero()[0].tolist()
        raise ValueError(
            f"concepts[{first + row}, {column}] is {labels[row, column].item()}; labels must be 0 or 1, and NaN where they are "
            "unknown (of scores pass ConceptScores(scores), or threshold them, for example scores > 0.5)"
        )
    return truth


def check_names(names: Sequence[str], count: int) -> list[str]:
    """The names as a list. Raises TypeError or ValueError if they are not ``count`` distinct strings.

    >>> check_names(("dog", "leash"), 2)
    ['dog', 'leash']
    """
    if isinstance(names, str):
        raise TypeError(f"names={names!r} is one string; pass one name per concept")
    listed = list(names)
    for name in listed:
        if not isinstance(name, str):
            raise TypeError(f"the name {name!r} is no string; pass str(name)")
    if len(listed) != count:
        raise ValueError(f"{len(listed)} names for {count} concepts; pass one name per column")
    if len(set(listed)) < count:
        twice = next(name for k, name in enumerate(listed) if name in listed[:k])
        raise ValueError(f"the name {twice!r} stands for two concepts; names must be distinct")
    return listed


def refuse_constant(present: Any, absent: Any, is_known: Any, names: Sequence[str] | None = None) -> None:
    """Raise ValueError for a concept that holds on no sample, or fails on none; of K concepts, arrays of bool.

    is_known: whether it is known on every sample.
    """
    constant = ~(present & absent)
    if bool(constant.any()):
        k = int(constant.nonzero()[0][0])
        which = f"concept {k}" if names is None else f"concept {names[k]!r} (column {k})"
        known = "" if bool(is_known[k]) else " on which it is known"
        extent = f"holds on every sample{known}" if bool(present[k]) else f"holds on no sample{known}"
        extent = extent if bool(present[k]) or bool(absent[k]) else "is unknown on every sample"
        more = int(constant.sum()) - 1
        others = f" ({more} more {'is' if more == 1 else 'are'} constant)" if more else ""
        raise ValueError(f"{which} {extent}{others}: there is nothing to tell apart; leave it out")


def _as_tensor(values: Any, what: str) -> Tensor:
    try:
        tensor = torch.as_tensor(_without_none(values))
    except (TypeError, ValueError, RuntimeError) as error:
        raise TypeError(f"{what} must be a tensor or array of numbers, got {type(values).__name__} ({error})") from None
    if tensor.is_complex():
        raise TypeError(f"{what} are {tensor.dtype}; pass real numbers")
    return tensor


def _without_none(values: Any) -> Any:
    """Nested lists and object arrays with ``None`` as floats with NaN; anything else as it is."""
    if isinstance(values, (list, tuple)) and any(isinstance(row, (list, tuple)) and None in row for row in values):
        return np.array(values, dtype=np.float64)
    if isinstance(values, np.ndarray) and values.dtype == object:
        return values.astype(np.float64)
    return values
