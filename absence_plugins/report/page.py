"""One HTML page that needs nothing else: text, figures and style in a single file."""

from __future__ import annotations

import base64
import io
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import Any

from jinja2 import Environment, StrictUndefined
from PIL import Image

from absence_plugins.core.files import write_whole
from absence_plugins.report.figures import BLUES, REDS, Panel, panel_figure

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

    Example:
        >>> Row("Logit 3", "Nothing on the left.", (), facts=(("u(x)", "2.1"),)).facts[0]
        ('u(x)', '2.1')
    """

    heading: str
    sentence: str
    panels: tuple[Panel, ...]
    facts: tuple[tuple[str, str], ...] = ()


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
    out = Path(out)
    figures = out / "figures"
    for folder in (out, figures):
        if folder.exists() and not folder.is_dir():
            raise ValueError(f"{folder} is an existing file; name a folder for the page, or remove it")
    pictures = {
        _file_name(i, j, panel.title): _png(panel)
        for i, row in enumerate(page.rows, 1)
        for j, panel in enumerate(row.panels, 1)
    }
    html = _render(page, pictures)
    figures.mkdir(parents=True, exist_ok=True)
    for name, content in pictures.items():
        write_whole(figures / name, content)
    write_whole(out / "index.html", html)
    for stale in figures.glob("row-*-panel-*.png"):
        if stale.name not in pictures:
            stale.unlink()
    return out / "index.html"


def _render(page: Page, pictures: Mapping[str, bytes]) -> str:
    template = resources.files(__package__).joinpath("page.html.jinja").read_text(encoding="utf-8")
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    source = iter(pictures.values())
    rows = []
    for i, row in enumerate(page.rows, 1):
        across = min(len(row.panels), 7)  # on a wide screen; half of that on a middling one
        half = across if across <= 3 else (across + 1) // 2
        most = "22rem" if across <= 3 else "13.75rem"
        panels = [_shown(panel, next(source)) for panel in row.panels]
        rows.append({"row": row, "id": f"row-{i:02d}", "panels": panels, "across": across, "half": half, "most": most})
    kinds = {panel.kind for row in page.rows for panel in row.panels}
    return environment.from_string(template).render(
        page=page,
        paragraphs=[p for p in re.split(r"\n\s*\n", page.lead.strip()) if p],
        rows=rows,
        summary=len(rows) >= SUMMARY_FROM,
        keyed=any(row.facts for row in page.rows),
        kinds=kinds,
        has_maps=bool(kinds - {"image"}),
        explains=bool(page.how_to_read or kinds - {"image"}),
        signed_gradient=", ".join([*BLUES[:0:-1], *REDS]),
        absence_gradient=", ".join(REDS),
    )


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
    return buffer.getvalue() if buffer.tell() <= INDEXED_FROM else _indexed(buffer)


def _indexed(png: io.BytesIO) -> bytes:
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
