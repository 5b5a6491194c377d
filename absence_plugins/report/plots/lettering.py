"""Text in figures, in one place: names of any script by the installed fonts, and lines broken by the width of letters.

The fonts are DejaVu Sans, which comes with matplotlib, and for letters that it lacks the installed fonts that have
them. What no font has is transliterated (``anyascii``), or written as an escape. Names from right to left are in
readable order, with their letters joined, from matplotlib 3.11 on; older versions draw letter by letter from the left,
so there such scripts are transliterated, too. No name is taken for TeX.
"""

from __future__ import annotations

import re
import textwrap
import unicodedata
import warnings
from collections.abc import Mapping, Set
from functools import lru_cache
from typing import Any

from matplotlib import ft2font
from matplotlib.font_manager import FontProperties, fontManager, get_font
from matplotlib.textpath import text_to_path

from absence_plugins.core import AbsenceWarning
from absence_plugins.core.printable import make_printable

FONT = "DejaVu Sans"  # comes with matplotlib: the same figure everywhere
HEADING, TITLE, LABEL = 10.5, 9.0, 8.5  # points
LINE = 0.155  # inches from one line of text to the next
PREFERRED = ("Noto Sans", "Source Han Sans", "Arial Unicode MS", "WenQuanYi", "PingFang", "Hiragino Sans", "Yu Gothic",
             "Microsoft YaHei", "Malgun Gothic", "Segoe UI", "Nirmala UI", "Mukta", "Lohit")  # fmt: skip
WITHOUT_LETTERS = ("Last Resort", "LastResort", "Adobe Blank", "Adobe NotDef")  # a box, or nothing, for every letter
SHAPES = hasattr(ft2font, "__libraqm_version__")  # whether matplotlib orders and joins letters, from 3.11 on
_RUN = re.compile("[^\x00-\u024f\u2010-\u2027\u2030-\u205e]+")  # letters that are not Latin
_SHAPED = re.compile("[\u0900-\u0dff\u0e80-\u109f\u1780-\u17ff]")  # of scripts whose letters change places


def spell(text: str, weight: str = "normal") -> str:
    r"""Text as it is drawn: letters that no installed font has are transliterated, or written as escapes.

    Args:
        text: any, such as a class's name.
        weight: "normal" or "bold".

    Warns:
        AbsenceWarning: once per process, if a name is transliterated.

    >>> spell("naïve → 3"), spell("caf\udce9")
    ('naïve → 3', 'caf\\xe9')
    """
    if text.isascii() and text.isprintable():
        return text
    text = make_printable(text)

    def replace(found: re.Match[str]) -> str:
        run = found.group()
        if all(_is_drawn(letter, weight) for letter in run):
            return run
        kept = "".join(letter for letter in run if unicodedata.category(letter) not in ("Cf", "Mn"))
        if all(_is_drawn(letter, weight) for letter in kept):  # only a mark without a shape of its own is missing
            return kept
        _warn_once()
        return transliterate(run)

    return _RUN.sub(replace, text)


def set_letters(*texts: str, weight: str = "normal", always: bool = True) -> dict[str, Any]:
    """What matplotlib needs to draw spelled texts: the fonts, and that they are no TeX.

    Args:
        texts: of :func:`spell`.
        weight: "normal" or "bold".
        always: name the font also where the text is plain; False leaves that to the user's style.

    >>> set_letters("a $ and a _")
    {'parse_math': False, 'usetex': False, 'family': ['DejaVu Sans']}
    >>> set_letters("a $ and a _", always=False)
    {'parse_math': False, 'usetex': False}
    """
    found: dict[str, Any] = {"parse_math": False, "usetex": False}
    if always or not all(text.isascii() for text in texts):
        found["family"] = find_fonts("".join(texts), weight)
    return found


def find_fonts(text: str, weight: str = "normal") -> list[str]:
    """DejaVu Sans, and the installed fonts that have the letters it lacks.

    >>> find_fonts("cat")
    ['DejaVu Sans']
    """
    lacking = {ord(letter) for letter in text if not letter.isascii()} - _charmap(FONT, weight)
    return [FONT, *choose_fonts(lacking, _installed(weight))] if lacking else [FONT]


def choose_fonts(letters: Set[int], fonts: Mapping[str, Set[int]]) -> list[str]:
    """Few of the fonts that together have all letters that any of them has; the earlier of two that have as many.

    >>> choose_fonts({1, 2, 3}, {"a": {1}, "b": {1, 2}, "c": {2, 1}})
    ['b']
    """
    chosen: list[str] = []
    left = set(letters)
    while left and fonts:
        best = max(fonts, key=lambda name: len(left & fonts[name]))
        if not left & fonts[best]:
            break
        chosen.append(best)
        left -= fonts[best]
    return chosen


def transliterate(text: str) -> str:
    r"""In Latin letters by ``anyascii``; letters that it does not know, or all without it, as escapes.

    >>> transliterate("\ue000")
    '\\ue000'
    """
    try:
        from anyascii import anyascii
    except ImportError:
        return "".join(_spell_letter(letter, "") for letter in text)
    return "".join(_spell_letter(letter, anyascii(letter)) for letter in text)


def wrap(text: str, inches: float, size: float, weight: str = "normal") -> list[str]:
    """The text, spelled, in the longest lines that fit; a word that is too long is cut."""
    text = spell(text, weight)
    for characters in range(int(inches * 72 / size * 3), 1, -1):  # few letters are below a third em
        lines = textwrap.wrap(text, characters)
        if all(measure(line, size, weight) <= inches for line in lines):
            return lines
    return textwrap.wrap(text, 1)


def measure(text: str, size: float, weight: str = "normal") -> float:
    """The width of a spelled text in inches, letter by letter (an upper bound where letters are joined).

    >>> measure("mm", 72.0) > measure("ii", 72.0) > 0
    True
    """
    return sum(_advance(letter, weight) for letter in text) * size / 72


def fit(text: str, inches: float, size: float, weight: str = "normal") -> str:
    """The text, spelled, cut in the middle where it is too wide: names of columns often differ at their ends.

    >>> fit("worst fractal dimension", 0.8, 8.0)
    'worst…ension'
    """
    text = spell(text, weight)
    if measure(text, size, weight) <= inches:
        return text
    kept = len(text) - 1
    while kept > 1:
        shorter = text[: -(-kept // 2)].rstrip() + "…" + text[len(text) - kept // 2 :].lstrip()
        if measure(shorter, size, weight) <= inches:
            return shorter
        kept -= 1
    return "…"


def _spell_letter(letter: str, latin: str) -> str:
    if latin or unicodedata.category(letter) in ("Cf", "Mn", "Me"):
        return latin
    number = ord(letter)
    return f"\\u{number:04x}" if number < 0x10000 else f"\\U{number:08x}"


def _is_drawn(letter: str, weight: str) -> bool:
    if not SHAPES and (unicodedata.bidirectional(letter) in ("R", "AL") or _SHAPED.match(letter)):
        return False
    number = ord(letter)
    return number in _charmap(FONT, weight) or any(number in letters for letters in _installed(weight).values())


@lru_cache(maxsize=1)
def _warn_once() -> None:
    warnings.warn(
        "no installed font has all letters of the names: some are written in Latin letters in figures (the text of pages "
        "shows them as they are); to see them install fonts that have them, such as Noto Sans CJK",
        AbsenceWarning,
        stacklevel=2,
    )


@lru_cache(maxsize=2)
def _installed(weight: str) -> dict[str, frozenset[int]]:
    """The letters of every installed font, by its name; looked up when a letter is first missing."""
    names = {font.name for font in fontManager.ttflist if not font.name.startswith(WITHOUT_LETTERS)} - {FONT}
    ordered = sorted(names, key=lambda name: (_preference(name), name))
    return {name: letters for name in ordered if (letters := _charmap(name, weight))}


def _preference(name: str) -> int:
    """Sans-serif fonts of whole scripts first."""
    return next((place for place, start in enumerate(PREFERRED) if name.startswith(start)), len(PREFERRED))


@lru_cache(maxsize=4096)
def _charmap(name: str, weight: str) -> frozenset[int]:
    """The letters that a font can draw; none of one that holds pictures (emoji in color), or cannot be read."""
    faces = [face for face in fontManager.ttflist if face.name == name and face.style == "normal"]
    if not faces:
        return frozenset()
    nearest = min(faces, key=lambda face: fontManager.score_weight(weight, face.weight))
    try:
        font = get_font(nearest.fname)
        return frozenset(font.get_charmap()) if font.scalable else frozenset()
    except (OSError, RuntimeError, ValueError):
        return frozenset()


@lru_cache(maxsize=4096)
def _advance(letter: str, weight: str) -> float:
    """By how much a letter lengthens a line, in units of the font size."""
    font = FontProperties(family=find_fonts(letter, weight), size=100, weight=weight)
    lengths = [text_to_path.get_text_width_height_descent(s, font, False)[0] for s in (f"|{letter}|", "||")]
    return float(lengths[0] - lengths[1]) / 100
