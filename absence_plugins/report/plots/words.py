"""Tokens as words of a figure or a page."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence


def show_word(word: str) -> str:
    """A token's word; blanks, line breaks and nothing as signs.

    >>> [show_word(word) for word in (" not", "", " ", "a" + chr(10))]
    ['not', '·', '␣', 'a']
    """
    bare = word.strip()
    if bare:
        return bare
    return "·" if not word else "⏎" if "\n" in word else "␣"


def is_right_to_left(words: Sequence[str]) -> bool:
    """Whether most letters of a text with a direction run from right to left.

    >>> is_right_to_left(["שלום", "a"]), is_right_to_left(["cat", "42"])
    (True, False)
    """
    ways = [unicodedata.bidirectional(letter) for word in words for letter in word]
    return sum(way in ("R", "AL") for way in ways) > sum(way == "L" for way in ways)
