"""The names that are nearest to one that does not exist: for layers, classes, models, methods, concepts, files."""

from __future__ import annotations

import difflib
import re
import unicodedata
from collections.abc import Iterable

SHOWN = 3
CONTAINED, SHARED = (
    0.5,
    0.3,
)  # what it adds to the likeness of the letters that a name contains the other, or has a word of it


def find_nearest(name: str, known: Iterable[str], count: int = SHOWN, least: float = 0.0) -> list[str]:
    """The names most like ``name``, the most alike first; case, and the kind of a separator, do not count.

    Args:
        name: that does not exist.
        known: those that do.
        count: how many at most.
        least: likeness (from 0 to 1) below which a name is left out.

    >>> find_nearest("tiger-cot", ["lamp", "tiger", "Tiger Cat"], 2)
    ['Tiger Cat', 'tiger']
    >>> find_nearest("lamp post", ["tiger", "cat"], least=0.6)
    []
    """
    wanted = plain_name(name)
    matcher = difflib.SequenceMatcher(b=wanted, autojunk=False)

    def likeness(other: str) -> float:
        plain = plain_name(other)
        matcher.set_seq1(plain)
        shared = bool(set(wanted.split()) & set(plain.split()))
        part = len(wanted) / len(plain) if wanted and wanted in plain else 0.0
        return matcher.ratio() + CONTAINED * part + SHARED * shared

    found = {other: likeness(other) for other in dict.fromkeys(known)}
    return [other for other in sorted(found, key=lambda o: -found[o])[:count] if found[other] >= least]


def describe_nearest(name: str, known: Iterable[str]) -> str:
    """The nearest three names, as the end of a message that says what there is.

    >>> describe_nearest("layr4", ["conv1", "layer1", "layer2", "layer4"])
    'layer4, layer1, layer2 and 1 more (these are the nearest names)'
    >>> describe_nearest("x", [])
    'none'
    """
    names = list(dict.fromkeys(known))
    shown = find_nearest(name, names)
    rest = len(names) - len(shown)
    return (", ".join(shown) or "none") + (f" and {rest:,} more (these are the nearest names)" if rest else "")


def plain_name(name: str) -> str:
    """A name for comparison: lower case, one blank for underscores, hyphens, dots and blanks, and an accented letter as
    one character (NFC), as file systems differ in that.

    >>> plain_name("Red_Fox"), plain_name("tabby  cat"), plain_name("layer4.0.conv1")
    ('red fox', 'tabby cat', 'layer4 0 conv1')
    >>> plain_name("Cafe" + chr(0x301)) == plain_name("caf" + chr(0xE9))
    True
    """
    text = unicodedata.normalize("NFC", unicodedata.normalize("NFC", name).casefold())
    return " ".join(re.sub(r"[_\-.]+", " ", text).split())
