"""Tables as plain text."""

from __future__ import annotations

from collections.abc import Collection, Sequence


def align(rows: Sequence[Sequence[str]], left: Collection[int] = (0,)) -> list[str]:
    """Format rows of cells as lines with columns of equal width, two spaces apart.

    Args:
        rows: the same number of cells in each, headings included.
        left: numbers of the columns that are aligned to the left; the others are aligned to the right.

    >>> align([("", "ratio"), ("digits", "1.02"), ("resnet18", "11.5")])
    ['          ratio', 'digits     1.02', 'resnet18   11.5']
    """
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(
            cell.ljust(width) if place in left else cell.rjust(width)
            for place, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]
