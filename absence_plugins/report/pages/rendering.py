"""A page as HTML: its template, style and script, which lie as files in ``templates``."""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Iterable, Sequence
from functools import lru_cache
from importlib import resources
from typing import TYPE_CHECKING, Any

from jinja2 import Environment, StrictUndefined, Template
from markupsafe import Markup
from matplotlib.colors import to_hex, to_rgb

from absence_plugins.core.printable import make_printable
from absence_plugins.report.pages.citation import citation, code_of_row
from absence_plugins.report.pages.pictures import PagePicture
from absence_plugins.report.plots.palette import BLUES, GREEN, INK, REDS

if TYPE_CHECKING:
    from absence_plugins.report.pages.kind_bodies import Body
    from absence_plugins.report.pages.page import Page

SUMMARY_FROM = 4  # rows from which on the page opens with a table of them
BRIEF = 12  # characters up to which a cell of a table stays in one line
MANY = 5  # rows above which they can be filtered and sorted


def row_id(number: int) -> str:
    """The anchor of the row of this number, from 1.

    >>> row_id(3)
    'row-03'
    """
    return f"row-{number:02d}"


def _shade(share: float | None) -> str:
    """Background of a cell of a table, from white to green; "" for none."""
    if share is None:
        return ""
    red, green, blue = (1 - share * (1 - part) for part in to_rgb(GREEN))
    return to_hex((red, green, blue))


def render(page: Page, pictures: Iterable[Sequence[PagePicture]], bodies: Sequence[Markup] = ()) -> str:
    """The page's HTML; ``pictures``: those of each row's panels; ``bodies``: what else stands in each row."""
    command = str(page.provenance.get("command", ""))
    rows = [
        {
            "row": row,
            "id": row_id(i),
            "pictures": shown,
            "body": bodies[i - 1] if bodies else Markup(),
            "code": row.code or code_of_row(command, i, row.heading),
            **{name: _across(len(shown), most) for name, most in (("two", 2), ("three", 3), ("four", 4))},
        }
        for i, (row, shown) in enumerate(zip(page.rows, pictures, strict=True), 1)
    ]
    kinds = {panel.kind for row in page.rows for panel in row.panels}
    script = _text("page.js")
    thumbnails = page.table.thumbnails if page.table else ()
    return _template().render(
        page=page,
        paragraphs=[p for p in re.split(r"\n\s*\n", page.lead.strip()) if p],
        rows=rows,
        many=MANY,
        brief=BRIEF,
        thumbnails=["data:image/jpeg;base64," + base64.b64encode(one).decode() if one else "" for one in thumbnails],
        shades=[[_shade(one) for one in row] for row in page.table.shades] if page.table else (),
        ink=INK,
        summary=len(rows) >= SUMMARY_FROM and page.table is None,
        keyed=any(row.facts for row in page.rows),
        kinds=kinds,
        has_maps=bool(kinds - {"image"}),
        explains=bool(page.how_to_read or kinds - {"image"}),
        signed_gradient=", ".join([*BLUES[:0:-1], *REDS]),
        absence_gradient=", ".join(REDS),
        command=command,
        citation=citation(),
        style=_text("page.css"),
        script=script,
        script_hash=_hash(script),
    )


def _across(panels: int, most: int) -> int:
    """How many panels stand side by side where there is room for ``most``: lines of one length.

    >>> [_across(panels, 4) for panels in (1, 4, 5, 7, 8)]
    [1, 4, 3, 4, 4]
    """
    return -(-panels // max(1, -(-panels // most)))


def render_body(body: Body) -> Markup:
    """What a row of a page of kinds shows, its texts escaped."""
    return Markup(_template("kinds.html.jinja").render(body=body))


@lru_cache(maxsize=2)
def _template(name: str = "page.html.jinja") -> Template:
    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True, finalize=_show
    )
    return environment.from_string(_text(name))


def _show(value: Any) -> Any:
    """Names may hold what no page can show: control characters, bytes that are no text, marks that turn the
    direction.
    """
    return make_printable(value) if isinstance(value, str) and not isinstance(value, Markup) else value


@lru_cache(maxsize=4)
def _text(name: str) -> Markup:
    """A file of ``templates``; our own, so it is not escaped."""
    return Markup(resources.files(__package__).joinpath("templates", name).read_text(encoding="utf-8"))


def _hash(script: str) -> str:
    """What the page's policy allows to run: this script and no other."""
    return "sha256-" + base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
