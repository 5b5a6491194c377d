"""Image files as a viewer shows them, against numpy: every mode, depth and container that Pillow can write."""

from __future__ import annotations

import io
import os
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from picture_files import (
    ALPHA,
    COLORS,
    COLUMNS,
    DEEP,
    GENERATOR,
    GRAY,
    ROWS,
    assert_shown,
    compose,
    png_bytes,
    read,
    tiff_bytes,
)
from PIL import Image

from absence_plugins.data.pictures import SUFFIXES, UnreadableImage, read_picture


@pytest.mark.parametrize("name", ["a.png", "a.bmp", "a.ppm", "a.tif", "a.tga", "a.webp", "a.jpg", "a.sgi", "a.qoi"])
@pytest.mark.parametrize("channels", [3, 1])
def test_plain_pictures_have_the_very_pixels_of_pillow(tmp_path: Path, name: str, channels: int) -> None:
    path, mode = tmp_path / name, "RGB" if channels == 3 else "L"
    for given_mode in ("RGB", "L") if name != "a.qoi" else ("RGB",):
        Image.fromarray(COLORS).convert(given_mode).save(path)
        with Image.open(path) as opened:
            assert np.array_equal(read(path, channels), np.asarray(opened.convert(mode)))


@pytest.mark.parametrize("suffix", ["jpg", "png", "webp", "tif", "avif"])
def test_orientation_as_viewers_show_it(tmp_path: Path, suffix: str) -> None:
    """All eight orientations; what lies in the file's first row and column is told by three corners."""
    if f".{suffix}" not in SUFFIXES:
        pytest.skip(f"this Pillow reads no {suffix}")
    upright = np.zeros((32, 48), np.uint8)
    upright[:16, :16], upright[:16, 32:], upright[16:, :16] = 80, 160, 240
    stored = {  # EXIF: which turn makes the picture upright; here its inverse
        1: upright,
        2: upright[:, ::-1],
        3: upright[::-1, ::-1],
        4: upright[::-1],
        5: upright.T,
        6: np.rot90(upright, 1),
        7: upright[::-1, ::-1].T,
        8: np.rot90(upright, -1),
    }
    for number, pixels in stored.items():
        exif, path = Image.Exif(), tmp_path / f"{number}.{suffix}"
        exif[0x112] = number
        options = {"lossless": True} if suffix == "webp" else {} if suffix in ("png", "tif") else {"quality": 95}
        Image.fromarray(np.ascontiguousarray(pixels)).convert("RGB").save(path, exif=exif, **options)
        assert_shown(read(path, 1), upright, within=12 if suffix in ("jpg", "avif") else 0)


def test_damaged_exif_data_leave_the_picture_as_it_lies(tmp_path: Path) -> None:
    path, exif = tmp_path / "a.jpg", b"Exif\0\0II*\0\x08\0\0\0\xff\xff\x12\x01"
    Image.fromarray(COLORS).save(path, exif=exif)
    assert read(path).shape == (ROWS, COLUMNS, 3)


@pytest.mark.parametrize("name", ["a.png", "a.tif", "a.pgm", "a.jp2"])
def test_gray_of_16_bits_is_scaled_by_its_depth(tmp_path: Path, name: str) -> None:
    for highest in (65535, 200):  # also where a picture is so dark that its values would fit 8 bits
        values = (DEEP.astype(float) * highest / 65535).astype(np.uint16)
        Image.fromarray(values).save(tmp_path / name)
        for channels in (1, 3):
            found = read(tmp_path / name, channels)
            assert_shown(found if channels == 1 else found[..., 2], values / 257, within=0.51)


def test_depth_of_other_files(tmp_path: Path) -> None:
    """12 bits of a TIFF; 16 of a color PNG and PPM; a TIFF in which 0 is white."""
    words = (DEEP >> 4).astype(np.uint16)
    bits = np.unpackbits(words.astype(">u2").view(np.uint8).reshape(ROWS, COLUMNS, 2), axis=2)[:, :, 4:]
    strip = np.packbits(bits.reshape(ROWS, -1), axis=1).tobytes()
    (tmp_path / "12.tif").write_bytes(tiff_bytes(strip, bits=12, white_is_zero=False))
    assert_shown(read(tmp_path / "12.tif", 1), words / 4095 * 255, within=0.51)
    (tmp_path / "white.tif").write_bytes(tiff_bytes(DEEP.astype("<u2").tobytes(), bits=16, white_is_zero=True))
    assert_shown(read(tmp_path / "white.tif", 1), 255 - DEEP / 257, within=0.51)
    deep = GENERATOR.integers(0, 65536, (ROWS, COLUMNS, 3), dtype=np.uint16)
    raw = b"".join(b"\0" + row.astype(">u2").tobytes() for row in deep)
    (tmp_path / "color.png").write_bytes(png_bytes(raw, bits=16, color=2))
    assert_shown(read(tmp_path / "color.png"), deep / 257)
    (tmp_path / "color.ppm").write_bytes(b"P6 20 12 65535\n" + deep.astype(">u2").tobytes())
    assert_shown(read(tmp_path / "color.ppm"), deep / 257)


@pytest.mark.parametrize(
    ("values", "black", "white"),
    [
        (DEEP / 65535, 0, 1),
        (DEEP / 65535 * 200, 0, 255),
        (DEEP * 0.9, 0, 65535),
        (DEEP - 40000.0, None, None),
        (DEEP * 1000.0, None, None),
        (DEEP * 0.0 + 7e9, 7e9, 8e9),
    ],
)
def test_floats_and_integers_of_32_bits_are_scaled_by_their_range(
    tmp_path: Path, values: NDArray[Any], black: float | None, white: float | None
) -> None:
    for dtype in (np.float32, np.int32):
        if (dtype == np.int32 and values.max() <= 1) or values.max() > 2**31:
            continue
        kept = values.astype(dtype)
        low = float(kept.min()) if black is None else black
        high = float(kept.max()) if white is None else white
        Image.fromarray(kept).save(tmp_path / "a.tif")
        assert_shown(read(tmp_path / "a.tif", 1), (kept - low) / (high - low) * 255, within=0.51)
        assert len(np.unique(read(tmp_path / "a.tif", 1))) > 50 or black == 7e9


def test_floats_that_are_not_finite_are_refused(tmp_path: Path) -> None:
    for value in (np.nan, np.inf):
        values = np.full((4, 4), 0.5, np.float32)
        values[1, 2] = value
        Image.fromarray(values).save(tmp_path / "a.tif")
        with pytest.raises(UnreadableImage, match=r"a\.tif is not an image.*not all finite"):
            read(tmp_path / "a.tif")


@pytest.mark.parametrize("background", [(255, 255, 255), (0, 0, 0), (10, 200, 90)])
def test_transparency_is_composed_on_the_background(tmp_path: Path, background: tuple[int, int, int]) -> None:
    both = Image.fromarray(np.dstack([COLORS, ALPHA]))
    gray = Image.merge("LA", (Image.fromarray(GRAY), Image.fromarray(ALPHA)))
    for name in ("a.png", "a.tif", "a.webp", "a.tga", "a.qoi"):
        both.save(tmp_path / name, **({"lossless": True, "exact": True} if name == "a.webp" else {}))
        assert_shown(read(tmp_path / name, background=background), compose(COLORS, ALPHA, background), within=1.5)
    for name in ("g.png", "g.tif"):
        gray.save(tmp_path / name)
        shown = compose(np.dstack([GRAY] * 3), ALPHA, background)
        assert_shown(read(tmp_path / name, background=background), shown, within=1.5)
        if len(set(background)) == 1:
            assert_shown(read(tmp_path / name, 1, background=background), shown[..., 0], within=1.5)


def test_transparency_of_palettes_and_of_single_values(tmp_path: Path) -> None:
    palette = Image.fromarray(COLORS).quantize(16)
    index = np.asarray(palette)
    colors = np.array(palette.getpalette(), np.uint8).reshape(-1, 3)[index]
    palette.save(tmp_path / "one.gif", transparency=3)
    palette.save(tmp_path / "one.png", transparency=3)
    palette.save(tmp_path / "each.png", transparency=bytes(range(0, 256, 16)))
    alone = np.where(index == 3, 0, 255).astype(np.uint8)
    for name, alpha in (("one.gif", alone), ("one.png", alone), ("each.png", (index * 16).astype(np.uint8))):
        assert_shown(read(tmp_path / name), compose(colors, alpha, (255, 255, 255)), within=1.5)
    Image.fromarray(GRAY).save(tmp_path / "gray.png", transparency=int(GRAY[0, 0]))
    assert_shown(read(tmp_path / "gray.png", 1), np.where(GRAY[0, 0] == GRAY, 255, GRAY), within=0)
    Image.fromarray(DEEP).save(tmp_path / "deep.png", transparency=int(DEEP[2, 3]))
    assert_shown(read(tmp_path / "deep.png", 1), np.where(DEEP[2, 3] == DEEP, 255, DEEP / 257), within=1)
    Image.fromarray(COLORS).save(tmp_path / "color.png", transparency=tuple(map(int, COLORS[4, 5])))
    where = (COLORS[4, 5] == COLORS).all(2)[..., None]
    assert_shown(read(tmp_path / "color.png"), np.where(where, 255, COLORS), within=0)
    Image.fromarray(GRAY > 100).save(tmp_path / "bits.png", transparency=0)
    assert (read(tmp_path / "bits.png", 1) == 255).all()


def test_premultiplied_colors(tmp_path: Path) -> None:
    """A TIFF whose fourth channel says that the colors were multiplied by it: on black the stored values themselves."""
    multiplied = (COLORS.astype(float) * ALPHA[..., None] / 255).astype(np.uint8)
    buffer, entry = io.BytesIO(), struct.pack("<HHI", 338, 3, 1)
    Image.fromarray(np.dstack([multiplied, ALPHA])).save(buffer, "tiff")
    (tmp_path / "a.tif").write_bytes(buffer.getvalue().replace(entry + b"\2", entry + b"\1"))
    assert_shown(read(tmp_path / "a.tif", background=(0, 0, 0)), multiplied, within=2)
    white = multiplied + 255.0 - ALPHA[..., None]
    assert_shown(read(tmp_path / "a.tif"), white, within=2)


def test_color_spaces(tmp_path: Path) -> None:
    """CMYK, YCbCr and LAB: pure colors are seen as what they are."""
    for name, mode, stored, seen in (
        ("a.tif", "CMYK", (0, 255, 255, 0), (255, 0, 0)),
        ("a.jpg", "CMYK", (255, 0, 0, 0), (0, 255, 255)),
        ("b.tif", "YCbCr", (76, 85, 255), (254, 0, 0)),
        ("c.tif", "LAB", (255, 128, 128), (255, 255, 255)),
        ("d.tif", "LAB", (0, 128, 128), (0, 0, 0)),
    ):
        parts = [Image.new("L", (8, 8), value) for value in stored]
        Image.merge(mode, parts).save(tmp_path / name)
        assert_shown(read(tmp_path / name), np.tile(np.array(seen, float), (8, 8, 1)), within=3)


def test_of_several_frames_the_first_is_read_and_counted(tmp_path: Path) -> None:
    frames = [Image.new("RGB", (8, 8), color) for color in ((250, 0, 0), (0, 250, 0), (0, 0, 250))]
    for name in ("a.gif", "a.png", "a.webp", "a.tif", "a.avif"):
        if Path(name).suffix not in SUFFIXES:
            continue
        frames[0].save(tmp_path / name, save_all=True, append_images=frames[1:], duration=50)
        found = read_picture(tmp_path / name)
        assert found.info == {"frames": 3}, name
        assert_shown(np.asarray(found), np.asarray(frames[0]).astype(float), within=8)
    frames[0].save(tmp_path / "a.mpo", save_all=True, append_images=frames[1:])  # further views, no animation
    assert read_picture(tmp_path / "a.mpo").info == {"frames": 1}
    cut = (tmp_path / "a.gif").read_bytes()
    (tmp_path / "a.gif").write_bytes(cut[:-40])  # the first frame is whole
    assert_shown(read(tmp_path / "a.gif"), np.asarray(frames[0]).astype(float), within=2)


def test_extensions() -> None:
    usual = {
        ".png",
        ".jpg",
        ".jpeg",
        ".jfif",
        ".bmp",
        ".gif",
        ".webp",
        ".tif",
        ".tiff",
        ".ppm",
        ".pgm",
        ".apng",
        ".tga",
    }
    assert usual <= SUFFIXES
    assert not {".pdf", ".eps", ".ps", ".h5", ".mpg", ".grib", ".txt", ""} & SUFFIXES


def test_foreign_files_say_what_they_are_in_a_few_words(tmp_path: Path) -> None:
    whole = io.BytesIO()
    Image.fromarray(COLORS).resize((200, 200)).save(whole, "png")
    for name, data, why in (
        ("empty.png", b"", "empty"),
        ("text.jpg", b"<html>not found</html>", "not an image"),
        ("._0.png", b"\0\5\x16\7", "not an image"),
        ("half.png", whole.getvalue()[:2000], "truncated"),
        ("script.png", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "not an image"),
    ):
        (tmp_path / name).write_bytes(data)
        with pytest.raises(UnreadableImage, match=name.replace(".", r"\.")) as caught:
            read(tmp_path / name)
        assert why in caught.value.why
        assert "\n" not in str(caught.value)
        assert len(caught.value.why) < 80
    color = tiff_bytes(bytes(12 * ROWS * COLUMNS), bits=32, white_is_zero=False, channels=3)
    (tmp_path / "floats.tif").write_bytes(color)
    with pytest.raises(
        UnreadableImage, match=r"floats\.tif is not an image that Pillow can read .*TIFF, unknown pixel mode"
    ):
        read(tmp_path / "floats.tif")
    for path, why in ((tmp_path, "a folder"), (tmp_path / "none.png", "no file")):
        with pytest.raises(UnreadableImage) as caught:
            read(path)
        assert caught.value.why == why


def test_names_of_any_bytes_can_be_printed(tmp_path: Path) -> None:
    path = Path(os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9\n.png"))
    path.write_bytes(b"no picture")
    with pytest.raises(UnreadableImage) as caught:
        read(path)
    str(caught.value).encode("utf-8")
    assert r"caf\xe9\n.png is not an image" in str(caught.value)
    Image.fromarray(COLORS).save(path, "png")
    assert np.array_equal(read(path), COLORS)


@settings(max_examples=60, deadline=None)
@given(
    cut=st.integers(0, 400),
    place=st.integers(0, 400),
    byte=st.integers(0, 255),
    kind=st.sampled_from(["png", "gif", "tiff", "jpeg", "webp"]),
)
def test_whatever_the_bytes_the_error_is_ours(
    cut: int, place: int, byte: int, kind: str, tmp_path_factory: Any
) -> None:
    buffer = io.BytesIO()
    Image.fromarray(COLORS).save(buffer, kind)
    data = bytearray(buffer.getvalue())
    data[place % len(data)] = byte
    path = tmp_path_factory.getbasetemp() / f"any.{kind}"
    path.write_bytes(bytes(data[: len(data) - cut % len(data)] if cut % 3 else data))
    try:
        found = read(path)
    except UnreadableImage as error:
        said = str(error)
        if not error.why or "\n" in said:
            pytest.fail(said)
    else:
        assert found.dtype == np.uint8
        assert found.shape[2] == 3
