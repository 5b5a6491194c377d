"""Names of any bytes and any script in what people read: shown as they are, or as an escape, never an error."""

from __future__ import annotations

import unicodedata

_NAMED = {"\n": "\\n", "\t": "\\t", "\r": "\\r"}
# Marks that turn the direction of all text behind them; and line breaks that a browser or a terminal may not know.
_TURNING = frozenset("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069\u2028\u2029")


def is_shown(letter: str) -> bool:
    r"""Whether a letter is one that can be shown and copied.

    Not so: control characters, lone surrogates (bytes of a file's name that are no UTF-8), marks of direction.

    >>> [is_shown(letter) for letter in ("a", "\u732b", " ", "\n", "\udce9", "\u202e")]
    [True, True, True, False, False, False]
    """
    return letter not in _TURNING and unicodedata.category(letter) not in ("Cc", "Cs")


def make_printable(text: str, keep: str = "\n\t") -> str:
    r"""Text in which what cannot be shown is written as an escape.

    Args:
        text: any.
        keep: control characters that stay.

    >>> print(make_printable("caf\udce9 \x07 \u202egnp.exe"))
    caf\xe9 \x07 \u202egnp.exe
    """
    if text.isascii() and text.isprintable():
        return text
    return "".join(letter if letter in keep or is_shown(letter) else _escape(letter) for letter in text)


def _escape(letter: str) -> str:
    if letter in _NAMED:
        return _NAMED[letter]
    number = ord(letter)
    if 0xDC80 <= number <= 0xDCFF:  # a byte of a name in the file system
        return f"\\x{number - 0xDC00:02x}"
    return f"\\x{number:02x}" if number < 256 else f"\\u{number:04x}"
