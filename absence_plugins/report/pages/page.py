"""One HTML page that needs nothing else: text, figures and style in a single file."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from absence_plugins.core.files import require_folder, write_whole
from absence_plugins.report.pages.pictures import draw_for_page, draw_png
from absence_plugins.report.pages.rendering import render, row_id
from absence_plugins.report.plots.maps import panel_figure
from absence_plugins.report.plots.panel import Panel

__all__ = ["Page", "Row", "Table", "page_html", "row_id", "write_page"]


@dataclass(frozen=True)
class Row:
    """One finding: a heading, a sentence, panels side by side, and the numbers behind them.

    Attributes:
        heading: A few words; also the row's name in the summary.
        sentence: What the panels show. Of several paragraphs (a blank line between them) the first is set large.
        panels: In reading order; shapes, units and the sign are those of :class:`Panel`.
        facts: Pairs of label and value. The first is the key fact that the summary repeats.
        wide: Whether panels stand one below the other on a phone, as diagrams must to be read.
        code: Python or a command line that makes this row; without it the page's own command is copied.

    Example:
        >>> Row("Logit 3", "Nothing on the left.", (), facts=(("u(x)", "2.1"),)).facts[0]
        ('u(x)', '2.1')
    """

    heading: str
    sentence: str
    panels: tuple[Panel, ...]
    facts: tuple[tuple[str, str], ...] = ()
    wide: bool = False
    code: str = ""


@dataclass(frozen=True)
class Table:
    """An overview with links; it stands at the top of a page, in place of the summary of its rows.

    Attributes:
        title: over it.
        columns: their headings.
        rows: one text per column.
        links: per row where its first cell leads: "#row-01" on this page (:func:`row_id`), or a file beside it; "" for
            nowhere.
        thumbnails: per row a JPEG (:func:`~absence_plugins.report.pages.pictures.thumbnail`), or b""; () for none.
        thumbnails_title: what the thumbnails show.
        shades: per row a number from 0 (white) to 1 (green) per column, or None for no color; () for none at all.

    Raises:
        ValueError: another number of cells, links, shades or thumbnails, or a link to elsewhere.

    Example:
        >>> Table("Units", ("unit", "q"), (("3", "0.01"),), ("unit-003.html",)).columns
        ('unit', 'q')
    """

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    links: tuple[str, ...]
    thumbnails: tuple[bytes, ...] = ()
    thumbnails_title: str = ""
    shades: tuple[tuple[float | None, ...], ...] = ()

    def __post_init__(self) -> None:
        if self.thumbnails and len(self.thumbnails) != len(self.rows):
            raise ValueError(
                f"table {self.title!r} has {len(self.rows)} rows and {len(self.thumbnails)} thumbnails; every row needs "
                'one, b"" where there is none'
            )
        if len(self.links) != len(self.rows) or any(len(row) != len(self.columns) for row in self.rows):
            raise ValueError(
                f"table {self.title!r} has {len(self.columns)} columns, {len(self.rows)} rows and {len(self.links)} "
                "links; "
                "every row needs one cell per column and one link"
            )
        if self.shades and [len(row) for row in self.shades] != [len(self.columns)] * len(self.rows):
            raise ValueError(f"table {self.title!r} needs one shade, or None, per cell")
        _check_links(self.links)


@dataclass(frozen=True)
class Page:
    """All that a page says, as plain text and panels; the text is escaped when it is written.

    Attributes:
        title: The heading and the name of the browser tab.
        lead: What the reader should know first; a blank line starts a new paragraph.
        rows: The findings.
        how_to_read: Pairs of a term and its explanation.
        footer: One closing line.
        provenance: How to make the page again: versions, seed, command line.
        links: Pairs of a label and a file beside the page, such as the page before and the one after; a label without
            a file is shown without a link.
        table: An overview with links.
        verdict: What was found, in a sentence, in front of the lead.

    Example:
        >>> Page("Digits", "Ten digits.", rows=()).how_to_read
        ()
    """

    title: str
    lead: str
    rows: tuple[Row, ...]
    how_to_read: tuple[tuple[str, str], ...] = ()
    footer: str = ""
    provenance: Mapping[str, str] = field(default_factory=dict)
    links: tuple[tuple[str, str], ...] = ()
    table: Table | None = None
    verdict: str = ""

    def __post_init__(self) -> None:
        _check_links([target for _, target in self.links])


def _check_links(targets: Sequence[str]) -> None:
    for target in targets:
        if target and not re.fullmatch(r"#?[A-Za-z0-9][A-Za-z0-9._-]*", target):
            raise ValueError(
                f"link {target!r} must be a file beside the page, or #ROW; letters, digits, dots and dashes"
            )


def write_page(page: Page, out: Path | str) -> Path:
    """Write ``out/index.html``, and every panel as ``out/figures/row-01-panel-01-title.png``.

    The page embeds its pictures, with the values of its maps, and refers to no other file or address; the files are the
    same panels with their color bars, for papers. Everything is drawn before the first file is touched, each file
    replaces its predecessor in one step, and the page comes last: a run that fails or is killed leaves the former page
    whole.

    Args:
        page: What to write; the sign of its maps is that of :class:`Panel`.
        out: A folder, made where it is missing. Other files in it are left alone, panels of an
            earlier page are removed.

    Returns:
        The path of ``index.html``.

    Raises:
        ValueError: ``out`` or ``out/figures`` is an existing file.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     write_page(Page("Digits", "Ten digits.", rows=()), folder).name
        'index.html'
    """
    out = require_folder(out)
    figures = require_folder(out / "figures")
    pictures = {
        _file_name(i, j, panel.title): draw_png(panel_figure(panel, labels=False))
        for i, row in enumerate(page.rows, 1)
        for j, panel in enumerate(row.panels, 1)
    }
    html = _render(page)
    figures.mkdir(parents=True, exist_ok=True)
    for name, content in pictures.items():
        write_whole(figures / name, content)
    write_whole(out / "index.html", html)
    for stale in figures.glob("row-*-panel-*.png"):
        if stale.name not in pictures:
            stale.unlink()
    return out / "index.html"


def page_html(page: Page) -> str:
    """The page as one self-contained HTML text, without files beside it.

    Example:
        >>> page_html(Page("Digits", "Ten digits.", rows=())).startswith("<!doctype html>")
        True
    """
    return _render(page)


def _render(page: Page) -> str:
    return render(page, [[draw_for_page(panel) for panel in row.panels] for row in page.rows])


def _file_name(row: int, panel: int, title: str) -> str:
    words = re.sub(r"[^a-z0-9]+", "-", title.lower())[:40].strip("-")
    return "-".join(filter(None, [f"row-{row:02d}-panel-{panel:02d}", words])) + ".png"
