"""Tables: as aligned text, as HTML for notebooks, and as CSV that no spreadsheet computes."""

from __future__ import annotations

import html
import math
import re
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

_CELL = "padding:2px 12px 2px 0;vertical-align:top;text-align:"
_SIDES = {"left": "left;max-width:44em;overflow-wrap:break-word", "right": "right;white-space:nowrap"}
# What a spreadsheet takes for a formula: a sign, also its full-width form, behind quotes, blanks and invisible letters.
_FORMULA = re.compile(
    "[\\s\"'`\u00b4\u2018-\u201f\uff07\uff02\u00ad\u200b-\u200f\u202a-\u202e\u2060-\u2069\ufeff\x00-\x1f]*"
    "[=+\\-@\uff1d\uff0b\uff0d\uff20\ufe66\ufe62\ufe63\ufe6b]"
)
_BLANK = re.compile("'*[\t\r\n]")
_NUMBER = re.compile(r"[+-]?(\d+(\.\d*)?|\.\d+)([eE][+-]?\d+)?|[+-]?(inf|nan)", re.ASCII)
_SPLITS = re.compile(r"([;|\t\r\n])")  # what separates cells in a spreadsheet of another country
_QUOTED = re.compile(r'[,;|\t\r\n"]')


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


def format_interval(interval: tuple[float, float]) -> str:
    """An interval in words, with a blank in front; "" where there is none.

    >>> format_interval((0.25, 0.5)), format_interval((-math.inf, 1.0)), format_interval((math.nan, math.nan))
    (' [0.25, 0.50]', ' [no interval: too few samples]', '')
    """
    low, high = interval
    if math.isnan(low):
        return ""
    bounded = math.isfinite(low) and math.isfinite(high)
    return f" [{low:.2f}, {high:.2f}]" if bounded else " [no interval: too few samples]"


def guard_cell(cell: str) -> str:
    """The text of a CSV cell, with an apostrophe in front where a spreadsheet would compute it.

    Formulas begin with ``= + - @``, a tab or a line break, also behind quotes, blanks and in full-width forms, and
    behind a semicolon, where a spreadsheet of another country begins the next cell. Numbers stay as they are.
    :func:`restore_cell` gives the text back.

    >>> [guard_cell(cell) for cell in ("=1+1", " @SUM(A1)", "cat", "-0.5", "-a", "a;=1")]
    ["'=1+1", "' @SUM(A1)", 'cat', '-0.5', "'-a", "a;'=1"]
    """
    guarded = "".join(f"'{part}" if _is_formula(part) else part for part in _SPLITS.split(cell))
    return f"'{guarded}" if _BLANK.match(guarded) else guarded


def restore_cell(cell: str) -> str:
    """What :func:`guard_cell` was given.

    >>> [restore_cell(cell) for cell in ("'=1+1", "'cat'", "-0.5")]
    ['=1+1', "'cat'", '-0.5']
    """
    guarded = cell[1:] if cell.startswith("'") and _BLANK.match(cell[1:]) else cell
    parts = _SPLITS.split(guarded)
    return "".join(part[1:] if part.startswith("'") and _is_formula(part[1:]) else part for part in parts)


def _is_formula(part: str) -> bool:
    return _FORMULA.match(part) is not None and not _NUMBER.fullmatch(part)


def write_csv(rows: Iterable[Iterable[Any]]) -> str:
    """Rows of cells as CSV: commas, a line feed at the end of each, text by :func:`guard_cell`, None as an empty cell.

    A cell with a comma, semicolon, bar, tab, quote or line break is quoted.

    >>> print(write_csv([("unit", "name"), (3, "a;b"), (-0.5, "=cmd|' /C calc'!A0")]), end="")
    unit,name
    3,"a;b"
    -0.5,"'=cmd|' /C calc'!A0"
    """
    return "".join(",".join(map(_write_cell, row)) + "\n" for row in rows)


def _write_cell(cell: Any) -> str:
    text = "" if cell is None else guard_cell(cell) if isinstance(cell, str) else str(cell)
    return '"' + text.replace('"', '""') + '"' if _QUOTED.search(text) else text
