"""A text as colored tokens, and below it, aligned, its reference with the tokens that the text lacks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch
from torch import Tensor

from absence_plugins.core.kinds import TextKind
from absence_plugins.report.plots.color_bar import BAR, ColorBar
from absence_plugins.report.plots.entries import say_number, take_entries
from absence_plugins.report.plots.lettering import HEADING, LINE, fit, measure, set_letters, wrap
from absence_plugins.report.plots.palette import EMPTY, GRAY, INK, MUTED, SOFT_COLORS
from absence_plugins.report.plots.panel import Panel
from absence_plugins.report.plots.placing import place_figure
from absence_plugins.report.plots.sheet import Sheet
from absence_plugins.report.plots.text_columns import Pairs, Stretch, align_columns, choose_passages
from absence_plugins.report.plots.words import is_right_to_left, show_word

MOST = 160  # columns of tokens
SIZE, SMALL = 8.0, 6.5  # points
_WIDTH, _PAD, _MARGIN = 7.4, 0.05, 0.62  # inches; the margin holds the names of the two texts
_BOX, _BETWEEN, _LINES = 0.185, 0.03, 0.13  # height of a token, between the texts, between lines
_INSIDE, _APART, _WIDEST = 0.045, 0.04, 2.0  # inside a token, between tokens, widest token
_BAR = 3.4

Columns = Sequence[tuple[int | None, int | None]]


@dataclass(frozen=True)
class Token:
    """One token as it is drawn.

    Attributes:
        word: what it says; a blank, a line break or nothing by a sign.
        value: its relevance; None: it has no color (a special token; one that text and reference share).
        is_special: padding, or another token that is never evidence.
        is_missing: the reference has it, and the text has not.
        is_shared: of the reference, the text has it, too.
    """

    word: str
    value: float | None = None
    is_special: bool = False
    is_missing: bool = False
    is_shared: bool = False


@dataclass(frozen=True)
class ReadText:
    """A text and its reference as they are drawn, or written on a page.

    Attributes:
        tokens: of the text.
        reference: of the reference, () without one.
        columns: which of them stand above each other, as places in both, None where one has no token.
        hidden: the sum of the map at special tokens, which are not colored.
        moved: the sum of the map at tokens that both have, at another place; where it is known apart.
        compared: which of several references is shown, in a sentence.
    """

    tokens: tuple[Token, ...]
    reference: tuple[Token, ...]
    columns: tuple[tuple[int | None, int | None], ...]
    hidden: float
    moved: float = 0.0
    compared: str = ""

    def sum_of(self, columns: Columns) -> float:
        """The relevance of these columns' colored tokens, that of a pair counted once."""
        total = 0.0
        for here, there in columns:
            own = None if here is None else self.tokens[here].value
            other = None if there is None else self.reference[there].value
            total += own if own is not None else other or 0.0
        return total

    def runs(self, columns: Columns) -> list[list[tuple[int | None, int | None]]]:
        """The columns one by one, those of the same special token (padding) that follow each other together."""
        found: list[list[tuple[int | None, int | None]]] = []
        for column in columns:
            word = self._special_word(column)
            if found and word is not None and word == self._special_word(found[-1][-1]):
                found[-1].append(column)
            else:
                found.append([column])
        return found

    def _special_word(self, column: tuple[int | None, int | None]) -> str | None:
        """The word of a column that holds one special token alone, in one text or in both."""
        here, there = column
        tokens = [self.tokens[here]] if here is not None else []
        tokens += [self.reference[there]] if there is not None else []
        words = {one.word for one in tokens}
        return words.pop() if len(words) == 1 and all(one.is_special for one in tokens) else None

    @property
    def total(self) -> float:
        """The sum of the whole map."""
        return self.sum_of(self.columns) + self.hidden + self.moved

    @property
    def values(self) -> list[float]:
        """The relevance of all tokens that are colored."""
        return [one.value for one in (*self.tokens, *self.reference) if one.value is not None]


def text_figure(
    kind: TextKind,
    signed: Tensor,
    ids: Tensor,
    reference_ids: Tensor | None = None,
    *,
    reference_signed: Tensor | None = None,
    pairs: Pairs | None = None,
    most: int | None = MOST,
    ax: Any = None,
    title: str = "",
    positive: str = "raises the output",
    negative: str = "holds the output down",
) -> Figure:
    """Draw a text as colored tokens; below every line the reference, in which what the text lacks is outlined.

    Args:
        kind: the words, and which tokens are special: those are gray and never colored.
        signed: R, [T], or [T, D] at the embedding (summed over D), in units of the explained output.
        ids: the text, [T].
        reference_ids: the text that it is compared with, [T'], or several [k, T'], of which the first is shown and R is
            the mean over all; None: none is shown.
        reference_signed: R of the reference's tokens that the text lacks, [T'] or [T', D]; where it is that of a pair,
            it is the R of the text's token, too, and counts once. None: a token that the text lacks has the color of
            its place, R there.
        pairs: which tokens stand above each other, as places (in the text, in the reference), both rising, of a token
            alone None in place of the other; None: the same places.
        most: of a longer text only passages around the strongest tokens are shown, about so many tokens; what is left
            out is counted, with its sum. None: all of it.
        ax: axes to draw into; None: a new figure.
        title: above.
        positive: what red means.
        negative: what blue means.

    The sign: red raises the output, blue holds it down. A red outlined token of the reference raises it by being
    missing.

    Raises:
        TypeError: no text, or no tensors.
        ValueError: shapes that do not fit each other, NaN, pairs that are not in order.

    Example:
        >>> kind = TextKind({0: "[PAD]", 1: "not", 2: "good"}, special=(0,))
        >>> figure = text_figure(kind, torch.tensor([0.5, 1.0]), torch.tensor([0, 2]), torch.tensor([1, 2]))
        >>> [patch.get_gid() for patch in figure.axes[0].patches]
        ['text-0', 'reference-0', 'text-1', 'reference-1']
    """
    read = read_text(kind, signed, ids, reference_ids, reference_signed=reference_signed, pairs=pairs)
    return draw_text(read, most=most, ax=ax, title=title, positive=positive, negative=negative)


def draw_text(
    read: ReadText,
    *,
    most: int | None = MOST,
    ax: Any = None,
    title: str = "",
    positive: str = "raises the output",
    negative: str = "holds the output down",
) -> Figure:
    """:func:`text_figure` of tokens that were read before."""
    return place_figure(_draw(read, most, title, positive, negative), ax)


def read_text(
    kind: TextKind,
    signed: Tensor,
    ids: Tensor,
    reference_ids: Tensor | None = None,
    *,
    reference_signed: Tensor | None = None,
    pairs: Pairs | None = None,
) -> ReadText:
    """The tokens of :func:`text_figure` with their colors; arguments and errors are those of it."""
    if not isinstance(kind, TextKind):
        raise TypeError(f"kind is a {type(kind).__name__}; a text needs a TextKind, the others have kind_figure")
    own = _one_text(ids, "ids")
    values = _per_token(signed, own, "signed")
    is_special = kind.is_special(own)
    tokens = tuple(
        Token(show_word(word), None if special else float(value), is_special=bool(special))
        for word, value, special in zip(kind.tokens(own), values, is_special, strict=True)
    )
    hidden = float(values[is_special].sum())
    if reference_ids is None:
        if reference_signed is not None or pairs is not None:
            raise ValueError("reference_signed and pairs belong to a reference; pass reference_ids, too")
        return ReadText(tokens, (), tuple((place, None) for place in range(len(own))), hidden)
    several = isinstance(reference_ids, Tensor) and reference_ids.dim() == 2 and len(reference_ids) > 1
    other = _one_text(reference_ids[0] if several else reference_ids, "reference_ids")
    columns = align_columns(len(own), len(other), pairs)
    given = None if reference_signed is None else _per_token(reference_signed, other, "reference_signed")
    beside = {there: here for here, there in columns if there is not None}
    special, words = kind.is_special(other), kind.tokens(other)
    reference = []
    for place, word in enumerate(words):
        here = beside[place]
        is_shared = here is not None and bool(own[here] == other[place])
        is_missing = not is_shared and not bool(special[place])
        value = None
        if is_missing:
            value = float(given[place]) if given is not None else None if here is None else float(values[here])
        reference.append(Token(show_word(word), value, bool(special[place]), is_missing, is_shared))
    if given is None:  # at a special token's place what is missing has the color, so the sum is not hidden
        hidden -= sum(
            float(values[here])
            for place, here in beside.items()
            if here is not None and is_special[here] and reference[place].is_missing
        )
    said = f"The first of {len(reference_ids)} references is shown; R is the mean over all." if several else ""
    return ReadText(tokens, tuple(reference), tuple(columns), hidden, compared=said)


def _one_text(ids: Any, name: str) -> Tensor:
    if not isinstance(ids, Tensor) or ids.is_floating_point() or ids.is_complex():
        found = ids.dtype if isinstance(ids, Tensor) else type(ids).__name__
        raise TypeError(f"{name} is {found}; pass token ids, a tensor of integers [T]")
    own = ids.detach().cpu()
    own = own[0] if own.dim() == 2 and len(own) == 1 else own
    if own.dim() != 1 or not len(own):
        raise ValueError(f"{name} has shape {tuple(ids.shape)}; pass one text, [T]")
    return own


def _per_token(signed: Any, ids: Tensor, name: str) -> Tensor:
    values = take_entries(signed, name)
    if values.dim() > 1 and len(values) == 1 and values.shape[1] == len(ids):
        values = values[0]
    if values.dim() not in (1, 2) or len(values) != len(ids):
        raise ValueError(f"{name} has shape {tuple(signed.shape)} for {len(ids)} tokens; pass [T], or [T, D]")
    return values if values.dim() == 1 else values.sum(-1)


# -- Drawing ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Cell:
    """A place in a line: a column of tokens, or what is left out."""

    width: float
    here: int | None = None
    there: int | None = None
    words: tuple[str, str] = ("", "")
    left_out: tuple[str, ...] = ()


def _draw(read: ReadText, most: int | None, title: str, positive: str, negative: str) -> Figure:
    limit = max((abs(value) for value in read.values), default=0.0) or 1.0
    shown = torch.tensor([read.values or [0.0]], dtype=torch.float64)
    bar = ColorBar(Panel("signed", shown, "text", positive=positive, negative=negative), _BAR, limit, SOFT_COLORS)
    has_reference = bool(read.reference)
    margin = _MARGIN if has_reference else _PAD
    lines = _break_lines(_cells(read, most), _WIDTH - margin - _PAD)
    step = 2 * _BOX + _BETWEEN + _LINES if has_reference else _BOX + _LINES / 2
    heading = wrap(title, _WIDTH - 2 * _PAD, HEADING - 1, "bold") if title else []
    top = _PAD + len(heading) * LINE + (0.08 if heading else 0.0)
    notes = _notes(read, lines)
    below = top + len(lines) * step + 0.02
    said = [line for note in notes for line in wrap(note, _WIDTH - _BAR - 0.35, SMALL + 0.5)]
    sheet = Sheet(_WIDTH, below + max(bar.height, len(said) * LINE) + _PAD)
    canvas = sheet.canvas()
    is_right = is_right_to_left([one.word for one in read.tokens])
    for number, line in enumerate(lines):
        y, x = top + number * step, margin
        if has_reference:
            side, start = ("right", _WIDTH - _PAD) if is_right else ("left", _PAD)
            for name, row in (("text", 0), ("reference", 1)):
                _write(canvas, start, y + row * (_BOX + _BETWEEN) + _BOX / 2, name, SMALL, MUTED, ha=side)
        for cell in line:
            left = _WIDTH - x - cell.width if is_right else x
            _draw_cell(canvas, cell, read, left, y, limit)
            x += cell.width + _APART
    sheet.text(_PAD, _PAD, heading, fontsize=HEADING - 1, weight="bold", color=INK)
    bar.draw(sheet.axes(_PAD, below, _BAR, BAR))
    sheet.text(_BAR + 0.3, below - 0.02, said, fontsize=SMALL + 0.5, color=MUTED)
    return sheet.figure


def _notes(read: ReadText, lines: Sequence[Sequence[_Cell]]) -> list[str]:
    found = []
    if any(one.is_missing for one in read.reference):
        found.append("Outlined: the reference has this token, the text has not.")
    if read.compared:
        found.append(read.compared)
    if any(cell.left_out for line in lines for cell in line):
        found.append("Only passages around the strongest tokens are shown; the sum of each gap is given.")
    if any(one.is_special for one in read.tokens):
        found.append(f"Gray: special tokens, never evidence (R there sums to {say_number(read.hidden)}).")
    if read.moved:
        found.append(f"Tokens that stand in another place: R sums to {say_number(read.moved)}.")
    found.append(f"All of R sums to {say_number(read.total)}.")
    return found


def _cells(read: ReadText, most: int | None) -> list[_Cell]:
    def strength(column: tuple[int | None, int | None]) -> float:
        here, there = column
        found = [read.tokens[here].value if here is not None else None]
        found.append(read.reference[there].value if there is not None else None)
        return max((abs(value) for value in found if value is not None), default=0.0)

    cells = []
    for stretch in choose_passages(read.columns, [strength(one) for one in read.columns], most):
        if stretch.is_shown:
            cells += _shown_cells(read, stretch)
        else:
            two = (f"… {len(stretch.columns)} tokens …", f"sum {say_number(read.sum_of(stretch.columns))}")
            said = two if read.reference else (" ".join(two),)
            cells.append(_Cell(max(measure(one, SMALL) for one in said) + 2 * _INSIDE, left_out=said))
    return cells


def _shown_cells(read: ReadText, stretch: Stretch) -> list[_Cell]:
    """Cells of a stretch; a run of the same special token is one, counted."""
    found: list[_Cell] = []
    for run in read.runs(stretch.columns):
        here, there = ([one for one in side if one is not None] for side in zip(*run, strict=True))
        words = (_counted(read.tokens, here), _counted(read.reference, there))
        width = max(measure(word, SIZE) for word in words) + 2 * _INSIDE
        found.append(_Cell(width, here[0] if here else None, there[0] if there else None, words))
    return found


def _counted(tokens: Sequence[Token], places: Sequence[int]) -> str:
    if not places:
        return ""
    return fit(tokens[places[0]].word + (f" ×{len(places)}" if len(places) > 1 else ""), _WIDEST, SIZE)


def _break_lines(cells: Sequence[_Cell], width: float) -> list[list[_Cell]]:
    lines: list[list[_Cell]] = [[]]
    filled = 0.0
    for cell in cells:
        if lines[-1] and filled + cell.width > width:
            lines.append([])
            filled = 0.0
        lines[-1].append(cell)
        filled += cell.width + _APART
    return lines


def _draw_cell(axes: Axes, cell: _Cell, read: ReadText, left: float, y: float, limit: float) -> None:
    if cell.left_out:
        for row, said in enumerate(cell.left_out):
            place = y + row * (_BOX + _BETWEEN) + _BOX / 2
            _write(axes, left + cell.width / 2, place, said, SMALL, MUTED, style="italic")
        return
    if cell.here is not None:
        _draw_token(axes, read.tokens[cell.here], f"text-{cell.here}", cell.words[0], left, y, cell.width, limit)
    if cell.there is not None:
        place = y + _BOX + _BETWEEN
        one = read.reference[cell.there]
        _draw_token(axes, one, f"reference-{cell.there}", cell.words[1], left, place, cell.width, limit)


def _draw_token(
    axes: Axes, token: Token, gid: str, word: str, left: float, y: float, width: float, limit: float
) -> None:
    own = measure(word, SIZE) + 2 * _INSIDE
    left, width = left + (width - own) / 2, own
    fill = "white" if token.value is None else SOFT_COLORS(0.5 + 0.5 * token.value / limit)
    fill = EMPTY if token.is_special else fill
    edge, thick = (INK, 0.9) if token.is_missing else ("none", 0.0)
    inset = 0.012 if token.is_missing else 0.0
    box = FancyBboxPatch(
        (left + inset, y + inset), width - 2 * inset, _BOX - 2 * inset, boxstyle="round,pad=0,rounding_size=0.03",
        facecolor=fill, edgecolor=edge, linewidth=thick, gid=gid, mutation_aspect=1,
    )  # fmt: skip
    axes.add_patch(box)
    color = MUTED if token.is_special else GRAY if token.is_shared else INK
    _write(axes, left + width / 2, y + _BOX / 2, word, SIZE, color)


def _write(axes: Axes, x: float, y: float, text: str, size: float, color: str, **more: Any) -> None:
    style: dict[str, Any] = {"ha": "center", "va": "center", **set_letters(text), **more}
    axes.text(x, y, text, fontsize=size, color=color, **style)
