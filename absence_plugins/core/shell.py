"""Commands as text that a shell reads back to the same words."""

from __future__ import annotations

import shlex
from collections.abc import Iterable
from typing import Any

from absence_plugins.core.printable import is_shown

_NAMED = {"\\": r"\\", "'": r"\'", "\n": r"\n", "\t": r"\t", "\r": r"\r"}


def join_command(words: Iterable[str]) -> str:
    r"""One line that can be pasted into a shell, whatever the words hold.

    Each word is quoted as by ``shlex``. A word with letters that cannot be shown or copied (control characters, line
    breaks, bytes that are no UTF-8, marks that turn the direction of a text) is written as ``$'...'``, which bash, zsh
    and ksh read.

    >>> print(join_command(["explain", "my photos/a b.png", "--out", "it's"]))
    explain 'my photos/a b.png' --out 'it'"'"'s'
    >>> print(join_command(["explain", "two\nlines.png", "caf\udce9.jpg"]))
    explain $'two\nlines.png' $'caf\xe9.jpg'
    """
    return " ".join(shlex.quote(word) if all(map(is_shown, word)) else _quote_bytes(word) for word in words)


def write_command(*words: str, **options: Any) -> str:
    """The line ``absence-plugins WORDS --option value``; options that are None are left out, sequences take commas.

    >>> write_command("experiment", "imagenet", data="my photos", units=[0, 5], batch_size=None)
    "absence-plugins experiment imagenet --data 'my photos' --units 0,5"
    """
    given = [
        (f"--{name.replace('_', '-')}", ",".join(map(str, value)) if isinstance(value, (list, tuple)) else str(value))
        for name, value in options.items()
        if value is not None
    ]
    return join_command(["absence-plugins", *words, *(word for pair in given for word in pair)])


def _quote_bytes(word: str) -> str:
    return "$'" + "".join(_NAMED.get(letter) or (letter if is_shown(letter) else _hex(letter)) for letter in word) + "'"


def _hex(letter: str) -> str:
    try:
        content = letter.encode("utf-8", "surrogateescape")  # the bytes of a name in the file system
    except UnicodeEncodeError:
        content = letter.encode("utf-8", "surrogatepass")
    return "".join(f"\\x{byte:02x}" for byte in content)
