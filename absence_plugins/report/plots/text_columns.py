"""Two texts above each other: which tokens share a column, and which columns of a long text are shown."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

Pairs = Sequence[tuple[int | None, int | None]]
_AROUND = 5  # columns on either side of a strong one
_SHORTEST = 3  # columns that are worth leaving out


@dataclass(frozen=True)
class Stretch:
    """Columns of a text that are shown, or left out together.

    Attributes:
        columns: of (place in the text, place in the reference), None where a text has no token there.
        is_shown: each in its own place; else one mark stands for all of them.
    """

    columns: tuple[tuple[int | None, int | None], ...]
    is_shown: bool = True


def align_columns(length: int, reference_length: int, pairs: Pairs | None) -> list[tuple[int | None, int | None]]:
    """Every token of both texts, in order: the two of a pair share a column, any other has its own.

    Raises:
        ValueError: pairs outside the texts, or not in order.

    >>> align_columns(3, 3, [(0, 0), (2, 2)])
    [(0, 0), (1, None), (None, 1), (2, 2)]
    >>> align_columns(1, 2, None)
    [(0, 0), (None, 1)]
    """
    if pairs is None:
        matched = [(place, place) for place in range(min(length, reference_length))]
    else:
        matched = [(here, there) for here, there in pairs if here is not None and there is not None]
    found: list[tuple[int | None, int | None]] = []
    last = (-1, -1)
    for pair in [*matched, (length, reference_length)]:
        if pair[0] <= last[0] or pair[1] <= last[1] or pair[0] > length or pair[1] > reference_length:
            raise ValueError(
                f"pair {pair} does not fit texts of {length} and {reference_length} tokens, behind {last}; pass pairs "
                "(place in the text, place in the reference), both rising"
            )
        found += [(place, None) for place in range(last[0] + 1, pair[0])]
        found += [(None, place) for place in range(last[1] + 1, pair[1])]
        found.append(pair)
        last = pair
    return found[:-1]


def choose_passages(
    columns: Sequence[tuple[int | None, int | None]], strength: Sequence[float], most: int | None
) -> list[Stretch]:
    """All columns of a short text; of a long one the passages around the strongest, about ``most`` columns in all.

    >>> [len(one.columns) for one in choose_passages([(i, None) for i in range(40)], [0.0] * 20 + [1.0] * 20, 20)]
    [15, 20, 5]
    """
    if most is None or len(columns) <= most:
        return [Stretch(tuple(columns))]
    kept = [False] * len(columns)
    order = sorted(range(len(columns)), key=lambda place: -strength[place])
    for place in order:
        window = range(max(0, place - _AROUND), min(len(columns), place + _AROUND + 1))
        if sum(kept) + sum(not kept[one] for one in window) > most:
            break
        for one in window:
            kept[one] = True
    runs: list[Stretch] = []
    start = 0
    for place in range(1, len(columns) + 1):
        if place < len(columns) and kept[place] == kept[start]:
            continue
        is_shown = kept[start] or place - start < _SHORTEST
        part = tuple(columns[start:place])
        if runs and runs[-1].is_shown and is_shown:
            runs[-1] = Stretch(runs[-1].columns + part)
        else:
            runs.append(Stretch(part, is_shown))
        start = place
    return runs
