"""Groups of samples that are not independent (copies, crops, frames, patients), as the user names them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor


def as_groups(groups: Any, count: int) -> Tensor | None:
    """[N] integers or strings, equal for samples of one group, as numbers 0 to G - 1 in their order; None stays None.

    Args:
        groups: a list, a tensor, or an array (NumPy, pandas) of them.
        count: of samples, N.

    Raises:
        TypeError: neither integers nor strings. ValueError: not one per sample, or only one group.

    >>> as_groups(["b", "a", "b"], 3).tolist(), as_groups([7, 3, 7], 3).tolist(), as_groups(None, 2)
    ([1, 0, 1], [1, 0, 1], None)
    """
    if groups is None:
        return None
    listed = groups.tolist() if hasattr(groups, "tolist") else groups
    values = list(listed) if isinstance(listed, Sequence) and not isinstance(listed, (str, bytes)) else [listed]
    values = [value.tolist() if hasattr(value, "tolist") else value for value in values]  # of scalars, rows
    deep = next((value for value in values if isinstance(value, (list, tuple))), None)
    shape = getattr(groups, "shape", (len(values),) if deep is None else (len(values), len(deep)))
    if tuple(shape) != (count,):
        raise ValueError(f"groups have shape {tuple(shape)}; pass one per sample, [{count}]")
    kinds = {str if isinstance(value, str) else int if isinstance(value, int) else type(value) for value in values}
    if kinds not in ({str}, {int}):
        found = " and ".join(sorted(kind.__name__ for kind in kinds))
        raise TypeError(f"groups are {found}; pass one integer or string per sample, equal for samples of one group")
    distinct = sorted(set(values))
    if len(distinct) < 2:
        raise ValueError(f"all {count} samples are of one group, {values[0]!r}; two groups are the least")
    number = {value: place for place, value in enumerate(distinct)}
    return torch.tensor([number[value] for value in values])
