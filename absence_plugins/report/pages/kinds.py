"""A page of explained rows of tables, texts, signals and volumes: one self-contained HTML file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from matplotlib.figure import Figure
from torch import Tensor

from absence_plugins.core.explanation import Explanation
from absence_plugins.core.files import require_folder, write_whole
from absence_plugins.core.kinds import Kind, TextKind
from absence_plugins.core.wording import Names
from absence_plugins.report.pages.kind_bodies import Body, draw_body
from absence_plugins.report.pages.page import Page, Row
from absence_plugins.report.pages.pictures import draw_png
from absence_plugins.report.pages.rendering import render, render_body, row_id
from absence_plugins.report.plots.explained_text import read_explained_text
from absence_plugins.report.plots.kinds import kind_figure
from absence_plugins.report.plots.placing import cut
from absence_plugins.report.plots.text import ReadText, draw_text, read_text

if TYPE_CHECKING:
    from absence_plugins.methods.texts.result import TextExplanation

SIGN = (
    "Red, blue",
    "Red raises the explained output, blue holds it down, white is 0. R is in units of that output; of a complete method it "
    "sums to the output here minus the output at the reference.",
)
TERMS: dict[str, tuple[tuple[str, str], ...]] = {
    "table": (
        (
            "Below, above",
            "The row's value stands below, or above, the reference's (of several the mean; of a category the most "
            "frequent one). What stands below is what the row lacks. Whether that raises the output is what the bar says.",
        ),
        ("Other columns", "One bar is the sum over all columns without a bar of their own: the bars sum to the whole."),
    ),
    "text": (
        (
            "Outlined token",
            "The reference has it, the text has not. Red: that it is missing raises the output; blue: that it is missing "
            "holds the output down.",
        ),
        ("Gray token", "Padding, class and separator tokens are never evidence. Light letters: text and reference agree."),
    ),
    "signal": (
        ("Dark and gray line", "The input, and the reference (of several the mean). The colors behind them are R."),
    ),
    "volume": (
        (
            "Slices",
            "Three slices that cross at one voxel, at first at the strongest. A slider steps through the slices of its "
            "axis (arrow keys, too), and the lines in the other slices show where it is.",
        ),
    ),
}  # fmt: skip


@dataclass(frozen=True, eq=False)
class KindRow:
    """One explained sample of a page.

    Attributes:
        heading: a few words; also its name in the summary.
        kind: what its entries are; None: ``figure`` shows it.
        signed: R of the sample, as :func:`~absence_plugins.report.kind_figure` takes it, in units of the output.
        x: the sample; of a text its token ids.
        reference: what it is compared with, one or several [k, ...].
        sentences: what was found, in plain text, the most important first.
        verdict: what a test of it found, in a sentence; "" where none was made.
        facts: pairs of label and value; the summary repeats the first one.
        positive: what red means.
        negative: what blue means.
        code: Python or a command line that makes it; without it the page's own command is copied.
        text: the tokens with their colors, where they are known better than by ``signed``.
        figure: drawn already, as of a segmentation; in place of the one of its kind.

    The sign: R > 0, red, raises the output; R < 0, blue, holds it down.

    Example:
        >>> import torch
        >>> from absence_plugins import SignalKind
        >>> KindRow("beat 3", SignalKind(), torch.ones(4), torch.zeros(4)).heading
        'beat 3'
    """

    heading: str
    kind: Kind | None = None
    signed: Tensor | None = None
    x: Tensor | None = None
    reference: Tensor | None = None
    sentences: tuple[str, ...] = ()
    verdict: str = ""
    facts: tuple[tuple[str, str], ...] = ()
    positive: str = "raises the output"
    negative: str = "holds the output down"
    code: str = ""
    text: ReadText | None = None
    figure: Figure | None = None

    def __post_init__(self) -> None:
        if self.figure is None and self.text is None and (self.kind is None or self.signed is None or self.x is None):
            raise ValueError(f"row {self.heading!r} shows nothing; pass kind, signed and x, or a figure")

    @classmethod
    def of(cls, explanation: Explanation, sample: int = 0, *, names: Names = None, **options: Any) -> KindRow:
        """The row of one sample of an explanation with a kind; ``options``: further fields.

        Raises:
            ValueError: an explanation without a kind, or of several inputs.
        """
        if explanation.kind is None or explanation.inputs is None or not isinstance(explanation.attribution, Tensor):
            raise ValueError("the explanation has no kind of data; give its ReferenceSet one, as kind=SignalKind()")
        positive, negative = explanation.legend(sample, names)
        there = None if explanation.references is None else explanation.references[sample]
        chosen: dict[str, Any] = {
            "heading": explanation.title(sample, names),
            "facts": (
                ("Explained", explanation.words(names)[sample]),
                ("u(x)", f"{float(explanation.output[sample]):.4g}"),
            ),
            "positive": positive,
            "negative": negative,
            **options,
        }
        one, x = explanation.attribution[sample], explanation.inputs[sample]
        return cls(kind=explanation.kind, signed=one, x=x, reference=there, **chosen)

    @classmethod
    def of_text(cls, explanation: TextExplanation, *, reference: int = 0, most: int = 3, **options: Any) -> KindRow:
        """The row of what ``explain_text`` found, against one of its references; ``options``: further fields."""
        said = explanation.explained_words()
        other = explanation.comparisons[reference]
        chosen: dict[str, Any] = {
            "heading": f"“{cut(explanation.text, 80)}”",
            "sentences": tuple(f"{one[:1].upper()}{one[1:]}." for one in explanation.words(most, reference=reference)),
            "facts": (("Explained", said), ("u(x)", f"{explanation.output:.4g}"), ("u(r)", f"{other.output:.4g}")),
            "positive": f"raises {said}",
            "negative": f"holds {said} down",
            **options,
        }
        return cls(kind=explanation.kind, text=read_explained_text(explanation, reference), **chosen)

    def read(self) -> ReadText | None:
        """The tokens of a text; None of another kind."""
        if self.text is not None or not isinstance(self.kind, TextKind) or self.signed is None or self.x is None:
            return self.text
        return read_text(self.kind, self.signed, self.x, self.reference)

    def draw(self) -> Figure:
        """The row as a figure, without a title."""
        if self.figure is not None:
            return self.figure
        if self.text is not None:
            return draw_text(self.text, positive=self.positive, negative=self.negative)
        assert self.kind is not None
        assert self.signed is not None
        assert self.x is not None
        return kind_figure(
            self.kind, self.signed, self.x, self.reference, positive=self.positive, negative=self.negative
        )


def write_kind_page(
    rows: Sequence[KindRow],
    folder: Path | str,
    *,
    title: str,
    lead: str,
    notes: Sequence[tuple[str, str]] = (),
    verdict: str = "",
    footer: str = "",
    provenance: Mapping[str, str] | None = None,
) -> Path:
    """Write ``folder/index.html``, and every row's figure as ``folder/figures/row-01-panel-01-KIND.png``.

    The page embeds all that it shows and refers to no other file or address: bars and lines as pictures, texts as text,
    volumes as slices that can be stepped through; below each, its numbers as a table.

    Args:
        rows: the explained samples; the sign of their maps is that of :class:`KindRow`.
        folder: made where it is missing. Other files in it are left alone, figures of an earlier page are removed.
        title: the heading and the name of the browser tab.
        lead: what the reader should know first; a blank line starts a new paragraph.
        notes: pairs of a term and its explanation, after those that the kinds bring.
        verdict: what was found, in a sentence, in front of the lead.
        footer: one closing line.
        provenance: how to make the page again: versions, seed, command line.

    Returns:
        The path of ``index.html``.

    Raises:
        ValueError: the folder is an existing file; what a row's figure rejects.

    Example:
        >>> import tempfile, torch
        >>> from absence_plugins import SignalKind
        >>> row = KindRow("beat 3", SignalKind(), torch.ones(4), torch.zeros(4))
        >>> write_kind_page([row], tempfile.mkdtemp(), title="Beats", lead="One beat.").name
        'index.html'
    """
    folder = require_folder(folder)
    figures = require_folder(folder / "figures")
    pictures = [draw_png(row.draw()) for row in rows]
    html = kind_page_html(
        rows, title=title, lead=lead, notes=notes, verdict=verdict, footer=footer, provenance=provenance,
        pictures=pictures,
    )  # fmt: skip
    figures.mkdir(parents=True, exist_ok=True)
    kept = set()
    for number, (row, picture) in enumerate(zip(rows, pictures, strict=True), 1):
        name = f"row-{number:02d}-panel-01-{row.kind.name if row.kind else 'figure'}.png"
        write_whole(figures / name, picture)
        kept.add(name)
    write_whole(folder / "index.html", html)
    for stale in figures.glob("row-*-panel-*.png"):
        if stale.name not in kept:
            stale.unlink()
    return folder / "index.html"


def kind_page_html(
    rows: Sequence[KindRow],
    *,
    title: str,
    lead: str,
    notes: Sequence[tuple[str, str]] = (),
    verdict: str = "",
    footer: str = "",
    provenance: Mapping[str, str] | None = None,
    pictures: Sequence[bytes] | None = None,
) -> str:
    """The page as one self-contained HTML text; ``pictures``: the rows' figures as PNG, where they are drawn already."""
    drawn = [draw_png(row.draw()) for row in rows] if pictures is None else pictures
    terms = dict.fromkeys(term for row in rows if row.kind is not None for term in TERMS.get(row.kind.name, ()))
    page = Page(
        title,
        lead,
        tuple(Row(row.heading, "\n\n".join(row.sentences), (), row.facts, code=row.code) for row in rows),
        (SIGN, *terms, *((str(term), str(text)) for term, text in notes)),
        footer,
        dict(provenance or {}),
        verdict=verdict,
    )
    bodies = [
        render_body(_body(row, picture, row_id(number)))
        for number, (row, picture) in enumerate(zip(rows, drawn, strict=True), 1)
    ]
    return render(page, [() for _ in rows], bodies)


def _body(row: KindRow, picture: bytes, name: str) -> Body:
    return draw_body(
        row.kind if row.figure is None else None,
        row.signed,
        row.x,
        row.reference,
        text=row.read() if row.figure is None else None,
        words=(row.positive, row.negative),
        picture=picture,
        verdict=row.verdict,
        name=name,
    )
