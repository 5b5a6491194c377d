"""One HTML page that needs nothing else: text, figures and style in a single file."""

from __future__ import annotations

import base64
import io
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from importlib import resources
from pathlib import Path
from typing import Any

from jinja2 import Environment, StrictUndefined, Template
from PIL import Image

from absence_plugins.core.files import require_folder, write_whole
from absence_plugins.report.plots.maps import Panel, panel_figure
from absence_plugins.report.plots.palette import BLUES, REDS

SUMMARY_FROM = 4  # rows from which on the page opens with a table of them
INDEXED_FROM = 60_000  # bytes of a PNG from which on it gets a palette; photographs, not digits


@dataclass(frozen=True)
class Row:
    """One finding: a heading, a sentence, panels side by side, and the numbers behind them.

    Attributes:
        heading: A few words; also the row's name in the summary.
        sentence: What the panels show.
        panels: In reading order; shapes, units and the sign are those of :class:`Panel`.
        facts: Pairs of label and value. The first is the key fact that the summary repeats.
        wide: Whether panels stand one below the other on a phone, as diagrams must to be read.

    Example:
        >>> Row("Logit 3", "Nothing on the left.", (), facts=(("u(x)", "2.1"),)).facts[0]
        ('u(x)', '2.1')
    """

    heading: str
    sentence: str
    panels: tuple[Panel, ...]
    facts: tuple[tuple[str, str], ...] = ()
    wide: bool = False


@dataclass(frozen=True)
class Table:
    """An overview with links; it stands at the top of a page, in place of the summary of its rows.

    Attributes:
        title: over it.
        columns: their headings.
        rows: one text per column.
        links: per row where its first cell leads: "#row-01" on this page (:func:`row_id`), or a file beside it; "" for
            nowhere.

    Raises:
        ValueError: another number of cells or links, or a link to elsewhere.

    Example:
        >>> Table("Units", ("unit", "q"), (("3", "0.01"),), ("unit-003.html",)).columns
        ('unit', 'q')
    """

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    links: tuple[str, ...]

    def __post_init__(self) -> None:
        if len(self.links) != len(self.rows) or any(len(row) != len(self.columns) for row in self.rows):
            raise ValueError(
                f"table {self.title!r} has {len(self.columns)} columns, {len(self.rows)} rows and {len(self.links)} "
                "links; "
                "every row needs one cell per column and one link"
            )
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


def row_id(number: int) -> str:
    """The anchor of the row of this number, from 1.

    >>> row_id(3)
    'row-03'
    """
    return f"row-{number:02d}"


def _check_links(targets: Sequence[str]) -> None:
    for target in targets:
        if target and not re.fullmatch(r"#?[A-Za-z0-9][A-Za-z0-9._-]*", target):
            raise ValueError(
                f"link {target!r} must be a file beside the page, or #ROW; letters, digits, dots and dashes"
            )


def write_page(page: Page, out: Path | str) -> Path:
    """Write ``out/index.html``, and every panel as ``out/figures/row-01-panel-01-title.png``.

    The page embeds its figures and refers to no other file or address. Everything is drawn before
    the first file is touched, each file replaces its predecessor in one step, and the page comes
    last: a run that fails or is killed leaves the former page whole.

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
        _file_name(i, j, panel.title): _png(panel)
        for i, row in enumerate(page.rows, 1)
        for j, panel in enumerate(row.panels, 1)
    }
    html = _render(page, list(pictures.values()))
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
    return _render(page, [_png(panel) for row in page.rows for panel in row.panels])


def _render(page: Page, pictures: Sequence[bytes]) -> str:
    source = iter(pictures)
    rows = []
    for i, row in enumerate(page.rows, 1):
        lines = -(-len(row.panels) // 7)
        across = -(-len(row.panels) // max(1, lines))  # on a wide screen; half of that on a middling one
        half = across if across <= 3 else (across + 1) // 2
        most = "22rem" if across <= 3 else "13.75rem"
        panels = [_shown(panel, next(source)) for panel in row.panels]
        rows.append({"row": row, "id": row_id(i), "panels": panels, "across": across, "half": half, "most": most})
    kinds = {panel.kind for row in page.rows for panel in row.panels}
    return _template().render(
        page=page,
        paragraphs=[p for p in re.split(r"\n\s*\n", page.lead.strip()) if p],
        rows=rows,
        summary=len(rows) >= SUMMARY_FROM and page.table is None,
        keyed=any(row.facts for row in page.rows),
        kinds=kinds,
        has_maps=bool(kinds - {"image"}),
        explains=bool(page.how_to_read or kinds - {"image"}),
        signed_gradient=", ".join([*BLUES[:0:-1], *REDS]),
        absence_gradient=", ".join(REDS),
    )


@lru_cache(maxsize=1)
def _template() -> Template:
    text = resources.files(__package__).joinpath("page.html.jinja").read_text(encoding="utf-8")
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    return environment.from_string(text)


def _shown(panel: Panel, png: bytes) -> dict[str, Any]:
    # Width and height, from the file's header, keep the page from jumping while it loads.
    width, height = (int.from_bytes(png[i : i + 4], "big") for i in (16, 20))
    return {
        "title": panel.title,
        "caption": panel.caption,
        "alt": _alt(panel),
        "uri": "data:image/png;base64," + base64.b64encode(png).decode(),
        "width": width,
        "height": height,
    }


def _alt(panel: Panel) -> str:
    if panel.kind == "image":
        return f"Picture: {panel.title}"
    values = panel.map
    extent = f"values from {float(values.min()):.3g} to {float(values.max()):.3g}"
    if panel.kind == "absence":
        return f"Absence map: {panel.title}; red: {panel.positive}; {extent}"
    return f"Signed map: {panel.title}; red {panel.positive}, blue {panel.negative}; {extent}"


def _png(panel: Panel) -> bytes:
    buffer = io.BytesIO()
    # Title and caption are text of the page, where they can be read aloud, searched and copied.
    figure = panel_figure(panel, labels=False)
    figure.savefig(buffer, format="png", facecolor="white", metadata={"Software": None})
    return buffer.getvalue() if buffer.tell() <= INDEXED_FROM else _index_colors(buffer)


def _index_colors(png: io.BytesIO) -> bytes:
    """The picture in 256 colors, a third of the size, with white still white."""
    picture = Image.open(png).convert("RGB").quantize(256, method=Image.Quantize.MEDIANCUT)
    palette = picture.getpalette() or []
    margin = picture.tobytes()[0]  # white before, as is every zero of a map
    palette[3 * margin : 3 * margin + 3] = [255, 255, 255]
    picture.putpalette(palette)
    buffer = io.BytesIO()
    picture.save(buffer, format="png", optimize=True)
    return buffer.getvalue()


def _file_name(row: int, panel: int, title: str) -> str:
    words = re.sub(r"[^a-z0-9]+", "-", title.lower())[:40].strip("-")
    return "-".join(filter(None, [f"row-{row:02d}-panel-{panel:02d}", words])) + ".png"
