"""What one row of a page of kinds shows: a picture, colored tokens or slices, and its numbers as a table."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from matplotlib.colors import to_hex
from PIL import Image
from torch import Tensor

from absence_plugins.core.kinds import Kind, SignalKind, TableKind, VolumeKind
from absence_plugins.core.table import write_csv
from absence_plugins.report.pages.pictures import BarText
from absence_plugins.report.pages.slices import MOST, AxisSlices, is_shrunk, slice_volume
from absence_plugins.report.plots.color_bar import bar_ends
from absence_plugins.report.plots.entries import say_number, take_entries, take_references
from absence_plugins.report.plots.palette import BLUES, REDS, SOFT_COLORS
from absence_plugins.report.plots.panel import Panel
from absence_plugins.report.plots.sheet import DPI
from absence_plugins.report.plots.signal import time_axis
from absence_plugins.report.plots.table_row import table_lines
from absence_plugins.report.plots.text import ReadText, Token
from absence_plugins.report.plots.volume import read_volumes
from absence_plugins.report.plots.words import is_right_to_left

LISTED = 50  # samples of a signal, or voxels, whose numbers stand in a table


@dataclass(frozen=True)
class PageToken:
    """A token of a page: its word, the color behind it ("" for none), its relevance in words ("" where it has none)."""

    word: str
    color: str
    said: str
    is_special: bool
    is_missing: bool
    is_shared: bool


@dataclass(frozen=True)
class Body:
    """What the template of a row reads; texts are escaped when it is rendered.

    Attributes:
        id: of the row.
        picture, width, height, alt: the figure as data, its size in pixels, and what it shows; inches: its width.
        tokens: pairs that stand above each other, None where a text has none; direction: "ltr" or "rtl".
        slices: of a volume.
        bar: what the colors mean.
        notes: sentences below.
        verdict: of a test.
        heads, rows: the numbers; summary: what they are; csv: the same as CSV.
    """

    id: str
    verdict: str = ""
    picture: str = ""
    width: int = 0
    height: int = 0
    alt: str = ""
    inches: float = 0.0
    tokens: tuple[tuple[PageToken | None, PageToken | None], ...] = ()
    direction: str = "ltr"
    has_reference: bool = False
    slices: tuple[AxisSlices, ...] = ()
    bar: BarText | None = None
    notes: tuple[str, ...] = ()
    heads: tuple[str, ...] = ()
    rows: tuple[tuple[str, ...], ...] = ()
    summary: str = ""
    csv: str = field(default="", repr=False)


def draw_body(
    kind: Kind | None,
    signed: Tensor | None,
    x: Tensor | None,
    reference: Tensor | None,
    *,
    text: ReadText | None,
    words: tuple[str, str],
    picture: bytes,
    verdict: str,
    name: str,
) -> Body:
    """The body of a row; ``words``: what red and blue mean; ``picture``: its figure as PNG."""
    if text is not None:
        return Body(name, verdict, **_tokens(text, words), **_text_numbers(text))
    if kind is None or signed is None or x is None:
        return Body(name, verdict, **_picture(picture, "Figure"))
    if isinstance(kind, VolumeKind):
        return Body(name, verdict, **_slices(kind, signed, x, reference, words))
    says = f"red {words[0]}, blue {words[1]}; the table below has the numbers"
    if isinstance(kind, TableKind):
        return Body(name, verdict, **_picture(picture, f"Bars; {says}"), **_table_numbers(kind, signed, x, reference))
    if isinstance(kind, SignalKind):
        return Body(name, verdict, **_picture(picture, f"Lines; {says}"), **_signal_numbers(kind, signed, x, reference))
    raise TypeError(f"kind is a {type(kind).__name__}; pass a TableKind, TextKind, SignalKind or VolumeKind")


def _picture(picture: bytes, alt: str) -> dict[str, Any]:
    width, height = Image.open(io.BytesIO(picture)).size
    uri = f"data:image/png;base64,{base64.b64encode(picture).decode()}"
    return {"picture": uri, "width": width, "height": height, "alt": alt, "inches": round(width / DPI, 2)}


# -- Texts -------------------------------------------------------------------------------------------------------------


def _tokens(text: ReadText, words: tuple[str, str]) -> dict[str, Any]:
    limit = max((abs(value) for value in text.values), default=0.0) or 1.0
    shown = []
    for run in text.runs(text.columns):
        sides = zip((text.tokens, text.reference), zip(*run, strict=True), strict=True)
        shown.append(
            tuple(_page_token(tokens, [one for one in side if one is not None], limit) for tokens, side in sides)
        )
    notes = [text.compared] if text.compared else []
    if any(one.is_special for one in text.tokens):
        notes.append(f"R at special tokens sums to {say_number(text.hidden)}.")
    if text.moved:
        notes.append(f"Tokens that stand in another place: R sums to {say_number(text.moved)}.")
    return {
        "tokens": tuple(shown),
        "direction": "rtl" if is_right_to_left([one.word for one in text.tokens]) else "ltr",
        "has_reference": bool(text.reference),
        "bar": _bar(torch.tensor([text.values or [0.0]], dtype=torch.float64), limit, words, soft=True),
        "notes": (*notes, f"All of R sums to {say_number(text.total)}."),
    }  # fmt: skip


def _page_token(tokens: Sequence[Token], places: Sequence[int], limit: float) -> PageToken | None:
    """One token, or a run of the same special one; None of no place."""
    if not places:
        return None
    one = tokens[places[0]]
    color = "" if one.value is None else to_hex(SOFT_COLORS(0.5 + 0.5 * one.value / limit))
    said = "" if one.value is None else say_number(one.value)
    times = f" ×{len(places)}" if len(places) > 1 else ""
    return PageToken(one.word + times, color, said, one.is_special, one.is_missing, one.is_shared)


def _text_numbers(text: ReadText) -> dict[str, Any]:
    rows: list[tuple[Any, ...]] = []
    for here, there in text.columns:
        own = None if here is None else text.tokens[here]
        other = None if there is None else text.reference[there]
        value = own.value if own is not None and own.value is not None else other.value if other is not None else None
        words = ["" if own is None else own.word, *(["" if other is None else other.word] if text.reference else [])]
        rows.append((*words, value))
    heads = ("text", *(("reference",) if text.reference else ()), "R")
    return _numbers(heads, rows, f"All {len(rows)} tokens as a table")


# -- Tables, signals, volumes ------------------------------------------------------------------------------------------


def _table_numbers(kind: TableKind, signed: Tensor, x: Tensor, reference: Tensor | None) -> dict[str, Any]:
    lines, references = table_lines(kind, signed, x, reference, len(kind.columns))
    said = f"All {len(lines)} columns as a table" if len(lines) > 1 else "The column as a table"
    if not references:
        return _numbers(("column", "here", "R"), [(one.name, one.here, one.value) for one in lines], said)
    named = "reference" if references == 1 else f"mean of {references} references"
    rows = [(one.name, one.here, one.word, one.reference, one.value) for one in lines]
    return _numbers(("column", "here", "compared", named, "R"), rows, said)


def _signal_numbers(kind: SignalKind, signed: Tensor, x: Tensor, reference: Tensor | None) -> dict[str, Any]:
    maps, values = take_entries(signed, "signed"), take_entries(x, "x")
    there = take_references(reference, values)
    mean = None if there is None else there.mean(0)
    length = values.shape[-1]
    borders, axis = time_axis(kind, length)
    times = ((borders[:-1] + borders[1:]) / 2).tolist()
    rows = []
    for flat in _strongest(maps):
        channel, place = divmod(flat, length)
        named = kind.channels[channel] if kind.channels else str(channel)
        seen = [values.flatten()[flat].item(), *([] if mean is None else [mean.flatten()[flat].item()])]
        rows.append((f"{times[place]:.6g}", named, *(f"{one:.4g}" for one in seen), maps.flatten()[flat].item()))
    heads = (axis, "channel", "here", *([] if mean is None else ["reference"]), "R")
    return _numbers(heads, rows, f"The {len(rows)} strongest samples as a table")


def _slices(
    kind: VolumeKind, signed: Tensor, x: Tensor, reference: Tensor | None, words: tuple[str, str]
) -> dict[str, Any]:
    found = read_volumes(kind, signed, x, reference)
    shape = found.signed.shape
    rows = []
    for flat in _strongest(found.signed):
        place = (flat // (shape[1] * shape[2]), flat // shape[2] % shape[1], flat % shape[2])
        seen = [found.x[place], *([] if found.reference is None else [found.reference[place]])]
        rows.append((*map(str, place), *(f"{float(one):.4g}" for one in seen), float(found.signed[place])))
    heads = (*kind.axes, "here", *([] if found.reference is None else ["reference"]), "R")
    notes = [f"The strongest voxel: R = {say_number(float(found.signed[found.place]))}."]
    if is_shrunk(found):
        notes.append(
            f"At most {MOST} slices and voxels along an axis are shown: means, and of R the strongest of each block."
        )
    notes.append(f"All of R sums to {say_number(float(found.signed.sum()))}.")
    limit = float(found.signed.abs().max()) or 1.0
    return {
        "slices": tuple(slice_volume(kind, found)),
        "bar": _bar(found.signed.flatten(1), limit, words),
        "notes": tuple(notes),
        **_numbers(heads, rows, f"The {len(rows)} strongest voxels as a table"),
    }


def _strongest(maps: Tensor) -> list[int]:
    """Places of the largest magnitudes above 0, the strongest first."""
    flat = maps.flatten().abs()
    order = flat.argsort(descending=True, stable=True)[:LISTED]
    return [place for place in order.tolist() if flat[place] > 0]


def _numbers(heads: Sequence[str], rows: Sequence[tuple[Any, ...]], summary: str) -> dict[str, Any]:
    """The last cell of a row is R, or None."""
    shown = tuple((*row[:-1], "" if row[-1] is None else say_number(row[-1])) for row in rows)
    return {"heads": tuple(heads), "rows": shown, "summary": summary, "csv": write_csv([heads, *rows])}


def _bar(maps: Tensor, limit: float, words: tuple[str, str], *, soft: bool = False) -> BarText:
    panel = Panel("signed", maps, "map", positive=words[0], negative=words[1])
    colors = [*BLUES[2:0:-1], *REDS[:3]] if soft else [*BLUES[:0:-1], *REDS]
    return BarText(", ".join(colors), bar_ends(panel, limit), panel.negative, panel.positive, True)
