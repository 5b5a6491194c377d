"""Arrays, and files made of them byte by byte, for the tests of pictures."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from absence_plugins.data.pictures import read_picture

ROWS, COLUMNS = 12, 20
GENERATOR = np.random.default_rng(0)
COLORS = GENERATOR.integers(0, 256, (ROWS, COLUMNS, 3), dtype=np.uint8)
ALPHA = GENERATOR.integers(0, 256, (ROWS, COLUMNS), dtype=np.uint8)
GRAY = COLORS[..., 0]
DEEP = GENERATOR.integers(0, 65536, (ROWS, COLUMNS), dtype=np.uint16)


def read(path: Path, channels: int = 3, **options: Any) -> NDArray[np.uint8]:
    found: NDArray[np.uint8] = np.asarray(read_picture(path, channels, **options))
    return found


def compose(colors: NDArray[np.uint8], alpha: NDArray[np.uint8], background: tuple[int, int, int]) -> NDArray[Any]:
    share = alpha[..., None].astype(float) / 255
    return share * colors.astype(float) + (1 - share) * np.array(background, float)


def assert_shown(found: NDArray[np.uint8], expected: NDArray[Any], within: float = 1.0) -> None:
    assert found.dtype == np.uint8
    assert found.shape == expected.shape
    assert np.abs(found.astype(float) - expected).max() <= within


def png_bytes(
    raw: bytes, *, bits: int, color: int, size: tuple[int, int] = (COLUMNS, ROWS), is_packed: bool = False
) -> bytes:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", *size, bits, color, 0, 0, 0)
    packed = raw if is_packed else zlib.compress(raw)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", packed) + chunk(b"IEND", b"")


def tiff_bytes(strip: bytes, *, bits: int, white_is_zero: bool, channels: int = 1) -> bytes:
    tags = [
        (256, COLUMNS),
        (257, ROWS),
        (258, bits),
        (259, 1),
        (262, 2 if channels == 3 else 0 if white_is_zero else 1),
    ]
    tags += [(273, 200), (277, channels), (278, ROWS), (279, len(strip))]
    body = struct.pack("<H", len(tags)) + b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags)
    return (b"II*\0" + struct.pack("<I", 8) + body + b"\0\0\0\0").ljust(200, b"\0") + strip
