"""Panels as a page shows them: the picture alone, its values for reading off, its color bar as text, a thumbnail."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from absence_plugins.core.interrupts import uncut
from absence_plugins.report.plots.color_bar import bar_ends
from absence_plugins.report.plots.palette import BLUES, GRAY, REDS
from absence_plugins.report.plots.panel import Panel
from absence_plugins.report.plots.picture import as_rgb, color_by_strength, draw_picture, paint

SIDE = 640  # pixels of the longer side of a drawn map, about
DPI = 240  # in which its lines are as strong as in the figures
PIXELATED_BELOW = 128  # pixels a side up to which an image is enlarged in squares
INDEXED_FROM = 60_000  # bytes of a PNG from which on it gets a palette; photographs, not digits
SURELY = 1.5  # packed quickly, a PNG is at most this much larger; of photographs 1.15
COARSE = [value & 0xFC | value >> 6 for value in range(256)]  # 6 bits: a palette is found in a third of the time
FINE_UP_TO = 128 * 128  # values that are kept in 16 bits; of more, 8
TALL = 96  # pixels of a thumbnail's height


@dataclass(frozen=True)
class PackedValues:
    """The values of a map, rounded to whole numbers of ``step`` and packed for a page.

    Attributes:
        text: base64 of signed whole numbers, row by row; 16 bits have the low byte first.
        bits: 16, or 8 for more than 16,384 values.
        step: value = number * step; the error is at most half of it, 1/65,534 of the largest magnitude (8 bits: 1/254).
        rows, columns: of the grid.
    """

    text: str
    bits: int
    step: float
    rows: int
    columns: int


@dataclass(frozen=True)
class BarText:
    """A color bar in HTML: a CSS list of colors, the numbers at its ends and in the middle, what its sides mean."""

    colors: str
    ends: tuple[str, str, str]
    negative: str
    positive: str
    signed: bool


@dataclass(frozen=True)
class PagePicture:
    """One panel as the page's template reads it.

    Attributes:
        title, caption, alt: texts.
        notes: how the map is drawn.
        uri: the picture as data.
        width, height: of the picture in pixels.
        pixelated: whether the browser enlarges it in squares.
        rows, columns: of the panel's data, in pixels.
        cell: side of the squares in which a map is shown.
        values: of a map.
        bar: of a map.
    """

    title: str
    caption: str
    alt: str
    notes: tuple[str, ...]
    uri: str
    width: int
    height: int
    pixelated: bool
    rows: int
    columns: int
    cell: int
    values: PackedValues | None
    bar: BarText | None

    @property
    def ratio(self) -> float:
        """Width by height, bounded so that a strip of values can still be seen."""
        return round(min(max(self.columns / self.rows, 0.25), 10.0), 4)


def draw_for_page(panel: Panel) -> PagePicture:
    """Draw a panel and pack what the page says of it."""
    rows, columns = panel.data.shape[-2:]
    is_map = panel.kind != "image"
    picture = _draw_map(panel) if is_map else Image.fromarray(_bytes(panel.data))
    width, height = picture.size  # they keep the page from jumping while it loads
    return PagePicture(
        title=panel.title,
        caption=panel.caption,
        alt=_describe(panel),
        notes=panel.notes,
        uri=_embed(picture, is_photograph=not is_map or panel.photograph is not None),
        width=width,
        height=height,
        pixelated=(is_map and panel.photograph is None) or max(rows, columns) <= PIXELATED_BELOW,
        rows=rows,
        columns=columns,
        cell=panel.resolution,
        values=pack_values(panel.totals) if is_map else None,
        bar=_bar(panel) if is_map else None,
    )


def pack_values(values: Tensor) -> PackedValues:
    """Pack a map [H, W] for a page.

    >>> import torch
    >>> packed = pack_values(torch.tensor([[0.5, -1.0]]))
    >>> packed.bits, round(packed.step * 32767, 6), base64.b64decode(packed.text).hex()
    (16, 1.0, '00400180')
    """
    rows, columns = values.shape
    bits = 16 if values.numel() <= FINE_UP_TO else 8
    most = 2 ** (bits - 1) - 1
    step = float(values.abs().max()) / most or 1.0
    numbers = (values.double() / step).round().clamp(-most, most).numpy().astype("<i2" if bits == 16 else "i1")
    return PackedValues(base64.b64encode(numbers.tobytes()).decode(), bits, step, rows, columns)


def draw_png(figure: Figure) -> bytes:
    """A figure on white as a PNG, the same bytes every time; in 256 colors where it is large."""
    color = figure.get_facecolor()
    figure.set_facecolor("white")
    try:
        picture = _render(figure)
    finally:
        figure.set_facecolor(color)
    packed = _Packed(picture, dpi=(figure.dpi, figure.dpi))
    return _index_colors(picture) if packed.is_above(INDEXED_FROM) else packed.whole


def thumbnail(panels: Sequence[Panel]) -> bytes:
    """Image panels side by side as a small JPEG, 96 pixels high; b"" without panels.

    >>> import torch
    >>> thumbnail([Panel("image", torch.zeros(4, 8), "black")])[:3].hex()
    'ffd8ff'
    """
    shrunk = []
    for panel in panels:
        picture = Image.fromarray(_bytes(panel.data))
        size = (max(1, round(picture.width * TALL / picture.height)), TALL)
        way = Image.Resampling.NEAREST if picture.height <= TALL // 2 else Image.Resampling.LANCZOS
        shrunk.append(picture.resize(size, way))
    if not shrunk:
        return b""
    gap = 6
    whole = Image.new("RGB", (sum(one.width for one in shrunk) + gap * (len(shrunk) - 1), TALL), GRAY)
    across = 0
    for one in shrunk:
        whole.paste(one, (across, 0))
        across += one.width + gap
    return _save(whole, "jpeg", quality=85)


def _draw_map(panel: Panel) -> Image.Image:
    """The map without frame and bar; every pixel of it takes the same whole number of pixels, one on bare white."""
    if panel.photograph is None and panel.underlay is None:
        return Image.fromarray((paint(panel.at_pixels.numpy(), panel.range) * 255).round().astype(np.uint8))
    rows, columns = panel.data.shape[-2:]
    times = max(1, round(SIDE / max(rows, columns)))
    figure = Figure(figsize=(columns * times / DPI, rows * times / DPI), dpi=DPI, facecolor="white")
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set_axis_off()
    draw_picture(axes, panel, panel.range)
    return _render(figure)


def _render(figure: Figure) -> Image.Image:
    canvas = FigureCanvasAgg(figure)
    with uncut():  # matplotlib's compiled part turns an exception of Ctrl-C into another one
        canvas.draw()  # type: ignore[no-untyped-call]
    return Image.fromarray(np.asarray(canvas.buffer_rgba())).convert("RGB")  # type: ignore[no-untyped-call]


def _bytes(image: Tensor) -> NDArray[np.uint8]:
    found: NDArray[np.uint8] = (as_rgb(image) * 255).round().byte().contiguous().numpy()
    return found


def _embed(picture: Image.Image, *, is_photograph: bool) -> str:
    """As data for an ``img``: a PNG; of what is large, a JPEG (photographs, not charts), or 256 colors (maps on
    white).
    """
    packed = _Packed(picture)
    if not packed.is_above(INDEXED_FROM):
        data, kind = packed.whole, "png"
    elif is_photograph:
        smaller = _save(picture, "jpeg", quality=92, subsampling=0)
        data, kind = (smaller, "jpeg") if packed.is_above(2 * len(smaller)) else (packed.whole, "png")
    else:
        data, kind = _index_colors(picture), "png"
    return f"data:image/{kind};base64,{base64.b64encode(data).decode()}"


class _Packed:
    """A picture as a PNG, no more of which is made than has to be known."""

    def __init__(self, picture: Image.Image, **options: Any) -> None:
        self.picture, self.options = picture, options

    def is_above(self, most: int) -> bool:
        """Whether it has more than so many bytes. Of most that have, the quickest packing of the upper third, or of
        all, tells.
        """
        if self.upper > SURELY * most or self.quick > SURELY * most:
            return True
        return self.quick > most and len(self.whole) > most

    @cached_property
    def upper(self) -> int:
        """Bytes of its upper third, packed quickly."""
        return self._pack_quickly(self.picture.crop((0, 0, self.picture.width, -(-self.picture.height // 3))))

    @cached_property
    def quick(self) -> int:
        """Bytes of all of it, packed quickly."""
        return self._pack_quickly(self.picture)

    @cached_property
    def whole(self) -> bytes:
        """The PNG."""
        return _save(self.picture, "png", **self.options)

    @staticmethod
    def _pack_quickly(picture: Image.Image) -> int:
        return len(_save(picture, "png", compress_level=1))


def _save(picture: Image.Image, kind: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, format=kind, **options)
    return buffer.getvalue()


def _index_colors(picture: Image.Image) -> bytes:
    """The picture in 256 colors, a third of the size, with white still white."""
    found = picture.convert("RGB").point(COARSE * 3).quantize(256, method=Image.Quantize.MEDIANCUT)
    palette = found.getpalette() or []
    colors = np.array(palette).reshape(-1, 3)
    nearest = int(np.abs(colors - 255).sum(1).argmin())
    if colors[nearest].min() >= 250:  # what was white before, as is every zero of a map
        palette[3 * nearest : 3 * nearest + 3] = [255, 255, 255]
        found.putpalette(palette)
    return _save(found, "png")


def _bar(panel: Panel) -> BarText:
    signed = panel.kind == "signed"
    colors = [*BLUES[:0:-1], *REDS] if signed else list(REDS)
    if panel.photograph is not None:
        steps = np.linspace(-1.0 if signed else 0.0, 1.0, 17)[None]
        colors = [to_hex(color, keep_alpha=True) for color in color_by_strength(steps, 1.0)[0]]
    return BarText(", ".join(colors), bar_ends(panel, panel.range), panel.negative, panel.positive, signed)


def _describe(panel: Panel) -> str:
    if panel.kind == "image":
        return f"Picture: {panel.title}"
    values = panel.totals
    extent = f"values from {float(values.min()):.3g} to {float(values.max()):.3g}"
    if panel.kind == "absence":
        return f"Absence map: {panel.title}; red: {panel.positive}; {extent}"
    return f"Signed map: {panel.title}; red {panel.positive}, blue {panel.negative}; {extent}"
