"""Tables: as aligned text, and as HTML for notebooks."""

from __future__ import annotations

import html
from collections.abc import Collection, Sequence
from dataclasses import dataclass

_CELL = "padding:2px 12px 2px 0;vertical-align:top;text-align:"
_SIDES = {"left": "left;max-width:44em;overflow-wrap:break-word", "right": "right;white-space:nowrap"}


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


@dataclass(frozen=True)
class Grid:
    """A table with a sentence below it; the same cells as text and as HTML.

    Attributes:
        rows: the same number of cells in each; the first row is the head.
        left: numbers of the columns that are aligned to the left.
        foot: below the table, a line each.

    >>> print(Grid((("unit", "AUC"), ("3", "0.91")), left=(), foot=("40 samples",)).text())
    unit   AUC
       3  0.91
    40 samples
    """

    rows: tuple[tuple[str, ...], ...]
    left: Collection[int] = (0,)
    foot: tuple[str, ...] = ()

    def text(self) -> str:
        """Aligned columns, then the foot."""
        return "\n".join([*align(self.rows, self.left), *self.foot])

    def html(self) -> str:
        """A table element; every cell is escaped.

        >>> "&lt;b&gt;" in Grid((("name",), ("<b>",))).html()
        True
        """
        head, *body = ["".join(self._cells(row, tag)) for row, tag in self._tagged()]
        lines = "".join(f"<tr>{row}</tr>" for row in body)
        foot = "".join(f"<div>{html.escape(line)}</div>" for line in self.foot if line)
        return (
            f'<table style="border-collapse:collapse"><thead><tr>{head}</tr></thead><tbody>{lines}</tbody></table>'
            f'<div style="max-width:60em">{foot}</div>'
        )

    def _tagged(self) -> list[tuple[tuple[str, ...], str]]:
        return [(row, "td" if number else "th") for number, row in enumerate(self.rows)]

    def _cells(self, row: tuple[str, ...], tag: str) -> list[str]:
        sides = ["left" if place in self.left else "right" for place in range(len(row))]
        pairs = zip(row, sides, strict=True)
        return [f'<{tag} style="{_CELL}{_SIDES[side]}">{html.escape(cell)}</{tag}>' for cell, side in pairs]
