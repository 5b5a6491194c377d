"""A JPEG that is said to be whole without being decoded can be decoded: whatever was done to its bytes."""

from __future__ import annotations

import tempfile
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from absence_plugins.data.pictures import UnreadableImage, read_picture
from absence_plugins.data.whole_files import is_surely_whole

NOISE = np.random.default_rng(0).integers(0, 256, (37, 50, 4), dtype=np.uint8)


def jpeg(mode: str = "RGB", **options: Any) -> bytes:
    stream = BytesIO()
    Image.fromarray(NOISE).convert("RGB").resize((50, 37)).convert(mode).save(stream, "JPEG", **options)
    return stream.getvalue()


def with_orientation() -> bytes:
    exif = Image.Exif()
    exif[0x0112] = 6
    return jpeg(exif=exif)


USUAL = {
    "4:2:0": jpeg(subsampling=2),
    "4:4:4": jpeg(subsampling=0),
    "gray": jpeg("L"),
    "CMYK": jpeg("CMYK"),
    "restart marks": jpeg(restart_marker_blocks=2),
    "own tables": jpeg(optimize=True, quality=30),
    "EXIF": with_orientation(),
    "comment": jpeg(comment="a\xff\xd9b"),
}
OTHERS = {
    "progressive": jpeg(progressive=True),
    "PNG": b"\x89PNG\r\n\x1a\n",
    "nothing": b"",
    "end": b"\xff\xd8\xff\xd9",
}


def can_be_read(content: bytes, folder: Path, channels: int = 3) -> bool:
    path = folder / "x.jpg"
    path.write_bytes(content)
    try:
        read_picture(path, channels)
    except UnreadableImage:
        return False
    return True


@pytest.mark.parametrize("name", USUAL)
def test_the_usual_kinds_need_no_decoding(name: str, tmp_path: Path) -> None:
    assert is_surely_whole(USUAL[name])
    assert can_be_read(USUAL[name], tmp_path)


@pytest.mark.parametrize("name", OTHERS)
def test_others_are_decoded(name: str) -> None:
    assert not is_surely_whole(OTHERS[name])


@pytest.mark.parametrize("name", USUAL)
def test_what_was_cut_off_is_never_said_to_be_whole(name: str) -> None:
    content = USUAL[name]
    assert not any(is_surely_whole(content[:end]) for end in range(len(content)))
    half = content[: len(content) // 2]
    assert not is_surely_whole(half + bytes(len(content) - len(half)))  # as a broken download leaves it
    assert not is_surely_whole(content + content)


@settings(max_examples=400, deadline=None, derandomize=True)
@given(
    st.just(Path(tempfile.mkdtemp())),
    st.sampled_from(list(USUAL)),
    st.lists(st.tuples(st.floats(0, 1), st.integers(0, 255)), max_size=4),
    st.data(),
)
def test_what_is_said_to_be_whole_can_be_decoded(
    folder: Path, name: str, changes: list[tuple[float, int]], data: Any
) -> None:
    """Bytes that are changed, left out or put in, in the headers as in the pixels."""
    content = bytearray(USUAL[name])
    header = content.index(b"\xff\xda") + 20
    for where, value in changes:
        limit = data.draw(st.sampled_from([header, len(content)]))
        at = min(int(where * limit), len(content) - 1)
        kind = data.draw(st.sampled_from(["change", "leave out", "put in", "mark"]))
        if kind == "change":
            content[at] = value
        elif kind == "leave out":
            del content[at : at + 1 + value % 7]
        elif kind == "put in":
            content[at:at] = bytes([value])
        else:
            content[at : at + 2] = bytes([0xFF, value])
    if is_surely_whole(bytes(content)):
        assert can_be_read(bytes(content), folder)
        assert can_be_read(bytes(content), folder, 1)
