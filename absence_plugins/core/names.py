"""Names that come from files and from users: how they are spelled in a text, compared, and read as numbers."""

from __future__ import annotations

import os
import re
import unicodedata
from pathlib import Path

from absence_plugins.core.printable import make_printable

LONGEST = 18  # digits of a number; more are no index


def read_number(text: str) -> int | None:
    """The whole number that a text is, spelled as Python spells it; None for any other text, which is a name.

    >>> [read_number(text) for text in ("7", "-1", "07", "+7", "1_000", "7 ", "²", "①", "٣", "")]
    [7, -1, None, None, None, None, None, None, None, None]
    """
    return int(text) if re.fullmatch(rf"0|-?[1-9][0-9]{{0,{LONGEST - 1}}}", text) else None


def spell_name(name: str | Path) -> str:
    r"""A name of the file system as text that can be written anywhere: bytes that are no UTF-8, and control characters,
    are spelled as in Python, as are marks of direction.

    >>> spell_name(os.fsdecode(b"caf\xe9.jpg")), spell_name("café"), spell_name("two" + chr(10) + "lines")
    ('caf\\xe9.jpg', 'café', 'two\\nlines')
    """
    return make_printable(os.fspath(name), keep="")


def normal_name(name: str | Path) -> str:
    """A name by which others are equal: spelled, and with accented letters as single characters (NFC), as file systems
    differ in that.

    >>> normal_name("cafe" + chr(0x301)) == normal_name("caf" + chr(0xE9))
    True
    """
    return unicodedata.normalize("NFC", spell_name(name))
