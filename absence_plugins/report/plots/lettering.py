"""Text that fits: lines broken by the width of their letters, the same with every style."""

from __future__ import annotations

import textwrap
from functools import lru_cache

from matplotlib.font_manager import FontProperties
from matplotlib.textpath import text_to_path

FONT = "DejaVu Sans"  # comes with matplotlib: the same figure everywhere
HEADING, TITLE, LABEL = 10.5, 9.0, 8.5  # points
LINE = 0.155  # inches from one line of text to the next


def wrap(text: str, inches: float, size: float, weight: str = "normal") -> list[str]:
    """The text in the longest lines that fit; a word that is too long is cut."""
    for characters in range(int(inches * 72 / size * 3), 1, -1):  # few letters are below a third em
        lines = textwrap.wrap(text, characters)
        if all(sum(_advance(letter, weight) for letter in line) * size / 72 <= inches for line in lines):
            return lines
    return textwrap.wrap(text, 1)


@lru_cache(maxsize=4096)
def _advance(letter: str, weight: str) -> float:
    """By how much a letter lengthens a line, in units of the font size."""
    font = FontProperties(family=FONT, size=100, weight=weight)
    lengths = [text_to_path.get_text_width_height_descent(s, font, False)[0] for s in (f"|{letter}|", "||")]
    return float(lengths[0] - lengths[1]) / 100
