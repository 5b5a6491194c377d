"""The text of a file in any of the usual encodings, or one line that says why it cannot be told."""

from __future__ import annotations

import codecs
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from absence_plugins.data.same_names import normalize_name

REMEDY = "save it as CSV UTF-8"
MARKS = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32-le"),  # before UTF-16, whose mark it begins with
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)
FOREIGN = (
    (b"PK\x03\x04", "a zip file (a workbook of Excel or LibreOffice?)"),
    (b"\xd0\xcf\x11\xe0", "a workbook of an old Excel"),
    (b"\x1f\x8b", "a compressed file"),
    (b"%PDF", "a PDF"),
    (b"version https://git-lfs", "a Git LFS pointer; fetch the file with `git lfs pull`"),
    (b"<!doctype", "a web page"),
    (b"<html", "a web page"),
)
WINDOWS, MACINTOSH, DOS = "cp1252", "mac_roman", "cp850"
OTHERS = (DOS, "cp1250", "cp1251", "cp1253", "cp1254", "cp1257", "cp932", "gb18030", "big5", "cp949")
SPOKEN = {WINDOWS: "Windows-1252 (Latin-1)", MACINTOSH: "Mac Roman", "cp932": "Shift JIS"}
OPENING, CLOSING = "“„«‘‚¿¡", "”»…"
AROUND, SIGNS = "–—’\xa0", "€£§°×"  # next to letters or not; not next to them
IMPROBABLE = "ðþÐÞıƒﬁﬂªº"  # what another code page's letters most often turn into


@dataclass(frozen=True)
class DecodedText:
    r"""What a file says.

    Attributes:
        text: without byte order marks; every line ends with ``\n``.
        encoding: Python's name of it.
        note: a sentence where the encoding was inferred from the text; else "".
    """

    text: str
    encoding: str
    note: str = ""


def read_text(path: Path | str, known: Iterable[str] = ()) -> DecodedText:
    r"""Read a text file as Unicode: by its byte order mark, as UTF-8, else as the one 8-bit encoding that fits.

    Text without a mark that is not UTF-8 is read as Windows-1252 (what Excel saves as CSV) or Mac Roman if it makes
    words in one of them only, or in any other usual encoding if names from ``known`` are found in it; a note says so.

    Args:
        path: of the file.
        known: names that the file may contain, for example those of class folders.

    Raises:
        ValueError: no such file, a file that is empty or no text, an encoding that cannot be told.

    >>> import tempfile
    >>> path = Path(tempfile.mkdtemp()) / "a.csv"
    >>> _ = path.write_bytes("class,big\r\nLöwe,1\r\n".encode("latin-1"))
    >>> found = read_text(path)
    >>> found.encoding, found.text
    ('cp1252', 'class,big\nLöwe,1\n')
    """
    path = Path(path)
    try:
        raw = path.read_bytes()
    except FileNotFoundError:
        raise ValueError(f"table {path} does not exist") from None
    except OSError as error:
        raise ValueError(f"table {path} cannot be read: {error.strerror or error}") from None
    start = raw.lstrip()[:32]
    for sign, what in FOREIGN:
        if start.lower().startswith(sign.lower()):
            raise ValueError(f"{path} is {what}, not a table; {REMEDY}")
    found = _decode(path, raw, list(known))
    text = found.text.replace("\ufeff", "").replace("\r\n", "\n").replace("\r", "\n")
    if "\0" in text:
        raise ValueError(f"{path} is no text file (it holds NUL characters); {REMEDY}")
    if not text.strip():
        raise ValueError(f"table {path} is empty")
    return DecodedText(text, found.encoding, found.note)


def _decode(path: Path, raw: bytes, known: list[str]) -> DecodedText:
    for mark, encoding in MARKS:
        if raw.startswith(mark):
            try:
                return DecodedText(raw[len(mark) :].decode(encoding), encoding)
            except UnicodeDecodeError as error:
                at = f"line {_line(raw, error.start + len(mark))}"
                raise ValueError(f"{path} begins as {encoding.upper()} and is not, {at}; {REMEDY}") from None
    if b"\0" in raw:
        return _without_mark(path, raw)
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError as error:
        return _eight_bits(path, raw, known, _line(raw, error.start))
    names = {normalize_name(name) for name in known if not name.isascii()}
    if names and not text.isascii() and not _count_names(text, names):  # a short text may be UTF-8 by chance
        try:
            return _eight_bits(path, raw, known, 1, only_known=True)
        except ValueError:
            pass
    return DecodedText(text, "utf-8")


def _line(raw: bytes, place: int) -> int:
    return raw[:place].replace(b"\r\n", b"\n").replace(b"\r", b"\n").count(b"\n") + 1


def _without_mark(path: Path, raw: bytes) -> DecodedText:
    """UTF-16 without its mark: the zeros of Latin letters and line ends all lie on one side."""
    even, odd = raw[::2].count(0), raw[1::2].count(0)
    if len(raw) % 2 == 0 and (even == 0) != (odd == 0):
        encoding = "utf-16-le" if even == 0 else "utf-16-be"
        try:
            text = raw.decode(encoding)
        except UnicodeDecodeError:
            text = "\0"
        if "\0" not in text:
            return DecodedText(text, encoding, f"{path} was read as {encoding.upper()}; it has no byte order mark")
    raise ValueError(f"{path} is no text file (it holds NUL characters); {REMEDY}")


def _eight_bits(path: Path, raw: bytes, known: list[str], line: int, only_known: bool = False) -> DecodedText:
    texts: dict[str, str] = {}
    for encoding in (WINDOWS, MACINTOSH, *OTHERS):
        try:
            texts[encoding] = raw.decode(encoding)
        except UnicodeDecodeError:
            continue
    names = {normalize_name(name) for name in known if not name.isascii()}
    hits = {encoding: _count_names(text, names) for encoding, text in texts.items()}
    most = max(hits.values(), default=0)
    if most:  # the folder's own names tell it
        fitting = [encoding for encoding in texts if hits[encoding] == most]
        clean = [one for one in fitting[:1] if one == WINDOWS or len({texts[other] for other in fitting}) == 1]
    elif only_known:
        clean = []
    else:
        clean = [encoding for encoding in (WINDOWS, MACINTOSH, DOS) if encoding in texts and _is_clean(texts[encoding])]
        if WINDOWS in clean and MACINTOSH not in clean:
            clean = [WINDOWS]
        clean = [] if clean == [DOS] else clean  # only a rival of the other two
    shown = [f"{_first_word(text)!r} in {SPOKEN.get(one, one)}" for one, text in list(texts.items())[:2]]
    if len(clean) != 1:
        guess = f" (it could be {' or '.join(shown)})" if shown else ""
        raise ValueError(f"{path}, line {line}: the encoding is not UTF-8 and cannot be told{guess}; {REMEDY}")
    encoding = clean[0]
    word = _first_word(texts[encoding])
    note = f"{path} was read as {SPOKEN.get(encoding, encoding)}: {word!r}; if that is wrong, {REMEDY}"
    return DecodedText(texts[encoding], encoding, note)


def _count_names(text: str, names: set[str]) -> int:
    plain = normalize_name(text)
    return sum(name in plain for name in names)


def _first_word(text: str) -> str:
    words = text.replace(",", " ").replace(";", " ").replace('"', " ").split()
    return next((word for word in words if not word.isascii()), "")[:40]


def _is_clean(text: str) -> bool:
    """Whether all that is not ASCII are letters as Western words have them, and usual signs in their places."""
    return all(_fits(text, place) for place, letter in enumerate(text) if not letter.isascii())


def _fits(text: str, place: int) -> bool:
    letter = text[place]
    before, after = text[place - 1 : place], text[place + 1 : place + 2]
    if letter in IMPROBABLE:
        return False
    if unicodedata.category(letter) in ("Lu", "Ll"):  # a capital begins a word, or all are capitals
        if letter.isupper():
            return not before.islower() and not _is_run(text, place)
        return not after.isupper() and not (before.isupper() and after.isupper()) and not _is_run(text, place)
    if letter in OPENING:
        return not before.isalnum() and after.isalnum()
    if letter in CLOSING:
        return not after.isalnum() and bool(before.strip())
    if letter in SIGNS:
        return not before.isalpha() and (not after.isalpha() or (letter == "°" and before.isdigit()))
    return letter in AROUND


def _is_run(text: str, place: int) -> bool:
    """Three letters in a row that are not ASCII: no Western word has them."""
    part = text[place : place + 3]
    return len(part) == 3 and not any(one.isascii() for one in part) and part.isalpha()
