"""Whether an image file is whole, without decoding it: proven for the usual JPEG, else to be found out by decoding.

A JPEG of one scan (baseline, not progressive) decodes if three things hold:

1. Pillow reads its headers, and libjpeg accepts its tables: some pixels with these tables are decoded.
2. Behind the headers nothing but coded pixels and restart marks follow. The decoder of these raises no errors: a wrong
   code is read as some pixels, too few of them are filled up.
3. The mark of the end is there, at the very end, so that the decoder never waits for more.

Everything else (progressive files, several pictures in one file, bytes behind the end, other formats) is decoded.
"""

from __future__ import annotations

import re
import struct
from functools import lru_cache
from io import BytesIO

from PIL import Image

from absence_plugins.data.pictures import WHOLE

BEGIN, END = b"\xff\xd8\xff", b"\xff\xd9"
BASELINE, SCAN, FRAMES = (
    0xC0,
    0xDA,
    {0xC0, 0xC1, 0xC2, 0xC3, *range(0xC5, 0xC8), *range(0xC9, 0xCC), *range(0xCD, 0xD0)},
)
ALONE = {0x00, 0x01, *range(0xD0, 0xDA), 0xFF}  # marks without a segment; none of them is usual in front of the pixels
SKIPPED = {*range(0xE1, 0xEE), 0xEF, 0xFE}  # by libjpeg: EXIF, profiles, comments; not what decides on the colors
OTHER = re.compile(rb"\xff[^\x00\xd0-\xd7]")  # what is neither a stuffed byte nor a restart mark
LONGEST = 65500  # side, of libjpeg
SIDE = struct.pack(">HH", 16, 16)  # of the picture on which tables are tried
KNOWN = 256  # sets of tables, of which a folder has few


def is_surely_whole(content: bytes) -> bool:
    """Whether a file of this content can be decoded, for sure; False says nothing.

    >>> stream = BytesIO()
    >>> Image.new("RGB", (40, 30)).save(stream, "JPEG")
    >>> whole = stream.getvalue()
    >>> is_surely_whole(whole), is_surely_whole(whole[:-20]), is_surely_whole(whole + b"more")
    (True, False, False)
    """
    if not (content.startswith(BEGIN) and content.endswith(END)):
        return False
    found = _read_headers(content)
    if found is None:
        return False
    pixels, height, width, tables = found
    if not (0 < height <= LONGEST and 0 < width <= LONGEST and height * width <= WHOLE):
        return False
    if OTHER.search(content, pixels, len(content) - len(END)) or content[-3] == 0xFF:
        return False
    return _can_open(content[:pixels] + END) and _are_accepted(tables)


def _read_headers(content: bytes) -> tuple[int, int, int, bytes] | None:
    """The first byte of the pixels, height, width, and the headers by which they are decoded, as those of a small
    picture; None of a file of another kind.
    """
    at, frame, kept = 2, -1, [content[:2]]
    while at + 4 <= len(content) and content[at] == 0xFF:
        kind, end = content[at + 1], at + 2 + int.from_bytes(content[at + 2 : at + 4], "big")
        if kind in ALONE or not at + 4 <= end <= len(content):
            return None
        if kind in FRAMES:
            if kind != BASELINE or frame >= 0 or end < at + 10:
                return None
            frame = at
            kept.append(content[at : at + 5] + SIDE + content[at + 9 : end])
        elif kind not in SKIPPED:
            kept.append(content[at:end])
        if kind == SCAN:
            if frame < 0 or content[at + 4] != content[frame + 9]:  # not all components in one scan
                return None
            return end, *struct.unpack_from(">HH", content, frame + 5), b"".join(kept)
        at = end
    return None


def _can_open(start: bytes) -> bool:
    try:
        Image.open(BytesIO(start), formats=("JPEG",)).close()
    except Exception:  # whatever the bytes of a foreign file lead to; decoding the whole says what it is
        return False
    return True


@lru_cache(KNOWN)
def _are_accepted(tables: bytes) -> bool:
    """Whether libjpeg decodes a picture with these headers: one of which all pixels are filled up."""
    try:
        with Image.open(BytesIO(tables + END), formats=("JPEG",)) as small:
            small.load()
    except Exception:
        return False
    return True
