"""The one reader of an image file: the picture that a viewer shows, in 8 bits of gray or RGB.

What is done to what a file holds, in this order:

- **Frames**: of an animation or a file of several pages, the first; their number stands in ``info["frames"]``.
- **Depth**: 16 bits of gray by their depth (65535 is white; the 12 bits of some TIFF files likewise). Integers and
  floats of 32 bits have no stated white, so their values decide: within 0 to 1, 0 to 255 or 0 to 65535, the highest
  of that range is white; otherwise the lowest value is black and the highest white.
- **Transparency** is composed on ``background``, white unless told otherwise.
- **Color**: palettes, CMYK, YCbCr, HSV and LAB become RGB, as Pillow converts them; profiles are not applied.
- **Orientation**: turned and mirrored as the EXIF data say.

A picture of 8 bits of gray or RGB without any of these has the very pixels that Pillow decodes. From 2^25 pixels on (33
megapixels) a picture is reduced while it is read, to about twice the side that is needed or more; beyond 2^26 only JPEG
and JPEG 2000 can be, and other files are refused before they are decoded. All threads together decode at most 2^26
pixels at a time.
"""

from __future__ import annotations

import ctypes
import errno
import os
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from absence_plugins.core.names import spell_name

try:
    from PIL import Image
except ImportError as error:
    raise ImportError(f'loading images needs Pillow ({error}); pip install "absence-plugins[report]"') from error

Color = tuple[int, int, int]
WHITE: Color = (255, 255, 255)
OF_THE_SYSTEM = (errno.EMFILE, errno.ENFILE, errno.ENOMEM)  # too many open files, no memory: no fault of the image
# Pillow only names these, needs a reader of somebody else's, or hands them to Ghostscript, which would run their code
NO_PICTURES = {"BUFR", "EPS", "GRIB", "HDF5", "MPEG", "WMF"}
ONE_PICTURE = {"MPO", "PSD"}  # of which further frames are no pages: depth maps, layers
WHOLE = 2**25  # pixels up to which a picture is decoded as it is
LARGEST = 2**26  # that are decoded at a time
LARGE = 2**24  # from which on the memory is given back at once
SPARE = 2  # a reduced picture keeps so many times the side that is needed
SIDE = 1024  # for which a huge picture is reduced where nothing is said
STRIP = 2**21  # pixels that are converted at a time
ORIENTATION, BITS, INTERPRETATION = 0x0112, 258, 262  # tags of EXIF and TIFF
TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


class UnreadableImage(ValueError):
    """A file that is no image, half of one, or too large; ``why`` says how in a few words."""

    def __init__(self, text: str, why: str = "") -> None:  # with one argument, workers of a DataLoader can pass it on
        super().__init__(text)
        self.why = why


@cache
def find_formats() -> dict[str, str]:
    """The formats that can be read, by the extensions of their files; of HEIF, if pillow-heif is installed."""
    Image.preinit()  # the usual ones are tried first
    try:
        from pillow_heif import register_heif_opener  # type: ignore[import-not-found,unused-ignore]

        register_heif_opener()
    except ImportError:
        pass
    extensions = Image.registered_extensions()
    return {name: format for name, format in extensions.items() if format in Image.OPEN and format not in NO_PICTURES}


SUFFIXES = frozenset(find_formats()) | {".mpo"}  # of all files that count as images, in lower case with the dot


def read_picture(path: Path, channels: int = 3, *, side: int | None = None, background: Color = WHITE) -> Image.Image:
    """An image file's picture as a viewer shows it, wholly decoded.

    Args:
        path: of the file; what it holds decides its format, not its name.
        channels: 1 for gray (mode L); otherwise RGB.
        side: to which the picture will be reduced at least; only huge ones are reduced on it here (see above).
        background: on which transparency is composed.

    Returns:
        A picture whose ``info`` holds the number of ``frames`` of the file, of which it is the first.

    Raises:
        UnreadableImage: whatever is wrong with the file; ``why`` in a few words.

    >>> import tempfile
    >>> path = Path(tempfile.mkdtemp()) / "stroke.png"
    >>> Image.new("LA", (2, 1), (0, 128)).save(path)  # black, half transparent
    >>> read_picture(path).getpixel((0, 0)), read_picture(path, 1, background=(0, 0, 0)).getpixel((0, 0))
    ((127, 127, 127), 0)
    """
    name = spell_name(path)
    if path.is_dir():
        raise UnreadableImage(f"{name} is a folder; name image files, for example {name}/*.png", "a folder")
    if not path.is_file():
        raise UnreadableImage(f"image {name} does not exist", "no file")
    try:
        with path.open("rb") as file:
            return _read(
                _identify(file, name), name, "L" if channels == 1 else "RGB", SIDE if side is None else side, background
            )
    except (MemoryError, UnreadableImage):
        raise
    except Exception as error:  # OSError, SyntaxError, struct.error, ...: whatever the bytes of a foreign file lead to
        if isinstance(error, OSError) and error.errno in OF_THE_SYSTEM:
            raise
        why = spell_name((str(error) or type(error).__name__).splitlines()[0])
        raise UnreadableImage(f"{name} is not an image that Pillow can read ({why})", why) from None


def count_frames(path: Path) -> int:
    """How many frames or pages a file has, of which :func:`read_picture` takes the first; 1 where it cannot be read."""
    try:
        with path.open("rb") as file:
            return _count_frames(_identify(file, ""))
    except Exception:  # said by whoever reads it
        return 1


def _identify(file: BinaryIO, name: str) -> Any:
    """Opens a file by its first bytes, as ``Image.open`` does, but for formats that are no pictures, and without the
    warning of its own limit of pixels, which is decided on here.

    Raises:
        UnreadableImage: no format fits.
    """
    find_formats()
    first, reason = file.read(16), ""
    for format in Image.ID:
        opener, accepts = Image.OPEN[format]
        if format in NO_PICTURES:
            continue
        try:
            answer = accepts is None or accepts(first)
            if isinstance(answer, str):  # of a format that this Pillow was built without
                reason = f": {answer}"
            elif answer:
                file.seek(0)
                return opener(file, "")
        except (SyntaxError, IndexError, TypeError, KeyError, EOFError, struct.error) as error:  # of another format
            if accepts is not None:  # or of a kind that Pillow cannot read, such as floats in color
                reason = f": {format}, {str(error) or type(error).__name__}"
    kind = "empty" if not first else f"not an image{reason}"
    raise UnreadableImage(f"{name} is not an image that Pillow can read ({kind})", kind)


def _read(opened: Any, name: str, mode: str, side: int, background: Color) -> Image.Image:
    frames = _count_frames(opened)
    given = opened.width * opened.height
    if given > WHOLE:
        _reduce_on_reading(opened, SPARE * side)
    _check_size(opened, given, name)
    with ROOM.take(opened.width * opened.height):
        try:
            opened.load()
            turn = TURNS.get(_orientation(opened))
            factor = min(opened.size) // (SPARE * side) if opened.width * opened.height > WHOLE else 1
            found: Image.Image
            if opened.mode == mode and factor <= 1 and not opened.has_transparency_data:
                found = opened._new(opened.im)  # the same pixels, without a copy of them
            else:
                found = _convert(opened, mode, max(1, factor), background)
            found = found if turn is None else found.transpose(turn)
        finally:
            opened.close()  # its pixels go before others are given room
            if opened.width * opened.height > LARGE:
                _find_trim()()
    found.info = {"frames": frames}
    return found


@cache
def _find_trim() -> Callable[[], object]:
    """What gives freed memory back to the system: glibc keeps it for each thread, 250 MB of a picture of 67
    megapixels.
    """
    try:
        trim = ctypes.CDLL(None).malloc_trim
    except (AttributeError, OSError, TypeError):  # another C library, which may not keep it
        return lambda: None
    return lambda: trim(0)


def _count_frames(opened: Any) -> int:
    if opened.format in ONE_PICTURE:
        return 1
    try:
        return int(getattr(opened, "n_frames", 1))
    except Exception:  # a file that ends in a later frame; the first may be whole
        opened.seek(0)
        return 1


def _reduce_on_reading(opened: Any, side: int) -> None:
    """Has a JPEG decoded at a half, a quarter or an eighth of its size, where no less than ``side`` is left."""
    factor = min(opened.size) // side
    if factor < 2:
        return
    if opened.format in ("JPEG", "MPO"):
        opened.draft(None, (opened.width // factor, opened.height // factor))
    elif opened.format == "JPEG2000" and opened.width * opened.height > LARGEST:
        opened.reduce = min(factor.bit_length() - 1, 5)  # halvings, of which an encoder's default keeps five


def _check_size(opened: Any, given: int, name: str) -> None:
    """Raises UnreadableImage for a picture of more pixels than may be decoded."""
    is_progressive = "progression" in opened.info  # is held in full, whatever it is decoded at
    pixels = given if is_progressive else opened.width * opened.height
    if opened.format == "JPEG2000" and isinstance(opened.reduce, int):
        pixels = given >> (2 * opened.reduce)
    if pixels > LARGEST:
        raise UnreadableImage(
            f"{name} has {given:,} pixels, and at most {LARGEST:,} of a {opened.format} file are decoded; make it "
            "smaller first, or save it as a JPEG that is not progressive, which can be reduced while it is read",
            f"{given:,} pixels, of at most {LARGEST:,}",
        )


def _orientation(opened: Any) -> int:
    try:
        return int(opened.getexif().get(ORIENTATION, 1))
    except Exception:  # damaged EXIF data; the picture is as it lies
        return 1


def _convert(opened: Image.Image, mode: str, factor: int, background: Color) -> Image.Image:
    """In gray or RGB of 8 bits, reduced by a factor; strip by strip, as no second picture of that size is needed."""
    width, height = opened.size
    found = Image.new(mode, (-(-width // factor), -(-height // factor)))
    rows = max(1, STRIP // (width * factor)) * factor
    convert = _choose_conversion(opened, rows)
    for top in range(0, height, rows):
        strip = opened.crop((0, top, width, min(height, top + rows)))
        part = _to_mode(_compose(convert(strip), background), mode)
        found.paste(part if factor == 1 else part.reduce(factor), (0, top // factor))
    return found


def _choose_conversion(opened: Any, rows: int) -> Any:
    """What makes a strip of the picture one of 8 bits, with transparency in a channel of its own."""
    if opened.mode == "LAB":
        return _lab_to_rgb
    if opened.mode in ("I", "F") or opened.mode.startswith("I;16"):
        scale = _find_scale(opened, rows)
        clear = opened.info.get("transparency")
        return lambda strip: _to_8_bits(strip, scale, clear)
    if "transparency" in opened.info and opened.mode == "RGB" and _is_deep(opened):
        opened.info["transparency"] = tuple(value >> 8 for value in opened.info["transparency"])
    return _separate_transparency


def _separate_transparency(strip: Image.Image) -> Image.Image:
    return strip.convert("RGBA") if strip.has_transparency_data else strip


def _is_deep(opened: Any) -> bool:
    """Whether the values of a PNG in RGB had 16 bits, of which Pillow keeps 8, but 16 of the transparent color."""
    return opened.format == "PNG" and any(value > 255 for value in opened.info["transparency"])


def _compose(part: Image.Image, background: Color) -> Image.Image:
    """On the background, where there is transparency."""
    if part.mode != "RGBA":
        return part
    return Image.alpha_composite(Image.new("RGBA", part.size, (*background, 255)), part)


def _to_mode(part: Image.Image, mode: str) -> Image.Image:
    return part if part.mode == mode else part.convert(mode)


def _lab_to_rgb(strip: Image.Image) -> Image.Image:
    from PIL import ImageCms

    lab, rgb = ImageCms.createProfile("LAB"), ImageCms.createProfile("sRGB")
    found = ImageCms.profileToProfile(strip, lab, rgb, outputMode="RGB")
    assert found is not None
    return found


def _find_scale(opened: Any, rows: int) -> tuple[float, float]:
    """The values that are black and white.

    Raises:
        ValueError: NaN or infinite values.
    """
    tags = getattr(opened, "tag_v2", {})
    black, white = 0.0, 65535.0
    if opened.mode.startswith("I;16") and opened.format == "TIFF":
        white = 2.0 ** tags.get(BITS, (16,))[0] - 1
    elif opened.mode == "F" or (opened.mode == "I" and opened.format not in ("PNG", "PPM")):  # of these, always 16 bits
        black, white = _measure_range(opened, rows)
        for limit in (1.0, 255.0, 65535.0):
            if black >= 0 and white <= limit:
                black, white = 0.0, limit
                break
    return (white, black) if tags.get(INTERPRETATION) == 0 else (black, white)  # TIFF in which 0 is white


def _measure_range(opened: Image.Image, rows: int) -> tuple[float, float]:
    low, high = np.inf, -np.inf
    for top in range(0, opened.height, rows):
        values = np.asarray(opened.crop((0, top, opened.width, min(opened.height, top + rows))))
        if not np.isfinite(values).all():
            raise ValueError("its values are not all finite")
        low, high = min(low, float(values.min())), max(high, float(values.max()))
    return low, high


def _to_8_bits(strip: Image.Image, scale: tuple[float, float], clear: Any) -> Image.Image:
    """A strip of 16 or 32 bits in 8; with a channel of transparency where one value is transparent."""
    values: NDArray[Any] = np.asarray(strip)
    black, white = scale
    shares = (values.astype(np.float64) - black) / ((white - black) or 1.0)
    gray = Image.fromarray((shares * 255).round().clip(0, 255).astype(np.uint8))
    if not isinstance(clear, int):
        return gray
    gray.putalpha(Image.fromarray(np.where(values == clear, 0, 255).astype(np.uint8)))
    return gray.convert("RGBA")


class _Room:
    """What all threads may decode at a time; a thread waits until there is room for its picture."""

    def __init__(self, pixels: int) -> None:
        self.pixels = self.free = pixels
        self.changed = threading.Condition()

    @contextmanager
    def take(self, pixels: int) -> Iterator[None]:
        asked = min(pixels, self.pixels)
        with self.changed:
            self.changed.wait_for(lambda: self.free >= asked)
            self.free -= asked
        try:
            yield
        finally:
            with self.changed:
                self.free += asked
                self.changed.notify_all()

    def renew(self) -> None:
        """For a forked process, which has none of the threads that hold room."""
        self.free, self.changed = self.pixels, threading.Condition()


ROOM = _Room(LARGEST)
if hasattr(os, "register_at_fork"):  # not on Windows
    os.register_at_fork(after_in_child=ROOM.renew)
