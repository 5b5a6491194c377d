"""A page whose titles, headings, cells and captions are names of any kind: every link of its table leads to its row."""

from __future__ import annotations

import html
from pathlib import Path

import pytest
import torch
from browser import Browser, in_a_browser

from absence_plugins.core.printable import make_printable
from absence_plugins.core.shell import join_command
from absence_plugins.report import Page, Panel, Row, write_page
from absence_plugins.report.pages.page import Table, page_html, row_id

NAMES = [
    "\u732b cat", "\u0642\u0637\u0629 3", "\u05d7\u05ea\u05d5\u05dc", "\u092c\u093f\u0932\u094d\u0932\u0940", "\U0001f469\u200d\U0001f680", "$a_b^c$ \\x",
    "caf\udce9\n2\x07", "\ud800", "\u202egnp.exe", "</script></style><img src=x onerror=alert(1)>", "l" * 300, "e\u0301", "\u00e9", "E\u0301",
    "cat", "CAT", "con", "--out", "..", "\"quoted\" 'it' `id`", "{{ 7 * 7 }} {% raw %}", "#row-01", "javascript:alert(1)", "a&amp;b", "",
]  # fmt: skip


def page(names: list[str], drawn: int) -> Page:
    rows = [
        Row(name, f"logit 3 ({name}).", (Panel("image", torch.zeros(2, 2), name, name),) * (i < drawn), ((name, name),))
        for i, name in enumerate(names)
    ]
    links = tuple(f"#{row_id(i)}" for i in range(1, len(names) + 1))
    table = Table(names[0], ("unit", names[1]), tuple((name, name) for name in names), links)
    command = join_command(["absence-plugins", "explain", *names])
    return Page(names[0], names[1], tuple(rows), ((names[2], names[3]),), names[4], {"command": command}, table=table)


def test_every_name_is_on_the_page_as_text() -> None:
    text = page_html(page(NAMES, 0))
    assert text.isprintable() or not [letter for letter in text if letter in "\x07\u202e\ud800\udce9"]
    text.encode()
    for name in NAMES:
        assert html.escape(make_printable(name)).replace("&quot;", "&#34;").replace("&#x27;", "&#39;") in text
    assert text.count("</script>") == 1
    assert text.count("<img") == 0


def test_files_of_panels_have_names_of_their_own(tmp_path: Path) -> None:
    chosen = ["cat", "CAT", "e\u0301", "\u00e9", "..", "con"]
    write_page(page([*chosen, *NAMES[:5]], len(chosen)), tmp_path)
    files = sorted(path.name for path in (tmp_path / "figures").iterdir())
    assert len(files) == len({name.lower() for name in files}) == len(chosen)
    assert all(name.isascii() and name.startswith("row-0") and len(name) < 80 for name in files)


@in_a_browser
def test_every_link_leads_to_its_row_in_a_browser(tmp_path: Path) -> None:
    path = write_page(page(NAMES, 0), tmp_path)
    with Browser() as browser:
        found = browser.open(path, 360)
        assert found["scroll"] <= found["width"]
        assert found["beyond"] == []
        assert browser.console() == []
        assert browser.requests() == [path.as_uri()]
        said = browser.run(
            "[...document.querySelectorAll('.units tbody tr')].map(line => {const link = line.querySelector('a');"
            "link.click(); const row = document.querySelector(location.hash);"
            "return [link.textContent, row.querySelector('h2').textContent, location.hash];})"
        )
    assert len(said) == len(NAMES)
    for place, (link, heading, anchor) in enumerate(said, 1):
        assert link == heading == make_printable(NAMES[place - 1])
        assert anchor == f"#{row_id(place)}"


def test_a_link_is_a_file_beside_the_page_or_a_row() -> None:
    for target in ("javascript:alert(1)", "../up.html", "a b.html", "\u732b.html", "-x", "http://a", "#"):
        with pytest.raises(ValueError, match="must be a file beside the page"):
            Table("t", ("unit",), (("a",),), (target,))
