"""Pages of rows, texts, signals and volumes: what they say, that nothing of it is run, and what a browser shows."""

from __future__ import annotations

import base64
import csv
import io
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
import torch
from browser import Browser, in_a_browser
from matplotlib.figure import Figure
from PIL import Image
from torch import Tensor

from absence_plugins import Column, Explanation, SignalKind, TableKind, TextKind, VolumeKind
from absence_plugins.report.pages.kinds import KindRow, kind_page_html, write_kind_page
from absence_plugins.report.pages.slices import shrink

HOSTILE = '<img src=x onerror="alert(1)">'
WORDS = {
    0: "[PAD]", 1: "this", 2: "not", 3: "good", 4: HOSTILE, 5: "漢字", 6: "😀", 7: "שלום", 8: "{{ 7*7 }}", 9: "</style>",
    10: "=1+1", 11: "a\u202eb",
}  # fmt: skip
TEXT = TextKind(WORDS, special=(0,))
TABLE = TableKind((Column("age", mean=40.0, std=10.0, unit="years"), Column(HOSTILE), Column("=cmd|'/C calc'!A0")))


class Reader(HTMLParser):
    """All elements with their attributes, and the text inside each."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self._open: list[int] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        self.texts.append("")
        if tag not in ("meta", "link", "img", "input", "br"):
            self._open.append(len(self.texts) - 1)

    def handle_endtag(self, tag: str) -> None:
        while self._open and self.elements[self._open.pop()][0] != tag:
            pass

    def handle_data(self, data: str) -> None:
        for place in self._open:
            self.texts[place] += data

    def of(self, tag: str, name: str = "") -> list[tuple[dict[str, str | None], str]]:
        """Attributes and text of the elements of a tag, with a class."""
        return [
            (attributes, text.strip())
            for (found, attributes), text in zip(self.elements, self.texts, strict=True)
            if found == tag and (not name or name in (attributes.get("class") or "").split())
        ]


def volume() -> tuple[Tensor, Tensor, Tensor]:
    """R, x and a reference with one blob that x lacks."""
    x, reference = torch.zeros(5, 8, 6), torch.zeros(5, 8, 6)
    reference[3, 6, 1] = 1.0
    return 2.0 * (reference - x), x, reference


def rows() -> list[KindRow]:
    signed, x, reference = volume()
    words = {"positive": "raises logit 1", "negative": "holds logit 1 down"}
    return [
        KindRow(
            "Row 3", TABLE, torch.tensor([1.0, -0.5, 0.25]), torch.tensor([-1.0, 0.0, 2.0]), torch.zeros(3),
            sentences=("Age stands below the reference.", HOSTILE), verdict="Falls by 0.9, others by 0.1.", **words,
            facts=(("u(x)", "2.5"),),
        ),
        KindRow("A text", TEXT, torch.tensor([1.0, -2.0, 0.0]), torch.tensor([1, 3, 0]), torch.tensor([1, 2, 3]), **words),
        KindRow("A beat", SignalKind(rate=10.0), torch.tensor([0.0, 3.0]), torch.zeros(2), torch.ones(2), **words),
        KindRow("A volume", VolumeKind(), signed, x, reference, **words),
    ]  # fmt: skip


def test_a_page_has_heading_sentences_figures_tests_and_facts(tmp_path: Path) -> None:
    path = write_kind_page(
        rows(), tmp_path, title="What they lack", lead="First.\n\nSecond.", notes=[("Nearest", "of class 1")],
        verdict="It is missing.", footer="End.", provenance={"seed": "3"},
    )  # fmt: skip
    page = Reader(path.read_text(encoding="utf-8"))
    said = page.of("body")[0][1]
    for text in ("What they lack", "First.", "Second.", "Nearest", "of class 1", "It is missing.", "End.", "Row 3",
                 "Age stands below the reference.", "Falls by 0.9, others by 0.1.", "u(x)", "2.5", "raises logit 1",
                 "holds logit 1 down"):  # fmt: skip
        assert text in said, text
    names = sorted(one.name for one in (tmp_path / "figures").iterdir())
    assert names == [f"row-0{i}-panel-01-{kind}.png" for i, kind in enumerate(("table", "text", "signal", "volume"), 1)]
    (tmp_path / "figures" / "mine.png").write_bytes(b"mine")
    write_kind_page(rows()[:1], tmp_path, title="t", lead="")
    assert sorted(one.name for one in (tmp_path / "figures").iterdir()) == ["mine.png", names[0]]


def test_a_page_is_one_file_that_loads_nothing(tmp_path: Path) -> None:
    text = write_kind_page(rows(), tmp_path, title="t", lead="").read_text(encoding="utf-8")
    page = Reader(text)
    assert len(page.of("script")) == 1
    for tag, attributes in page.elements:
        for name in ("src", "href", "srcset", "action"):
            value = attributes.get(name) or ""
            assert value.startswith(("data:", "#")) or not value, (tag, value[:60])
    assert "http://" not in text.replace("http://www.w3.org", "")
    assert text == kind_page_html(rows(), title="t", lead="")


def test_hostile_words_are_text() -> None:
    ids = torch.arange(1, 12)
    row = KindRow(
        HOSTILE, TEXT, torch.ones(11), ids, ids.flip(0), sentences=(HOSTILE,), verdict=HOSTILE, positive=HOSTILE
    )
    table = KindRow("t", TABLE, torch.ones(3), torch.ones(3), torch.zeros(3))
    text = kind_page_html([row, table], title=HOSTILE, lead=HOSTILE, notes=[(HOSTILE, HOSTILE)], footer=HOSTILE)
    page = Reader(text)
    assert not [
        attributes for tag, attributes in page.elements if "onerror" in attributes or attributes.get("src") == "x"
    ]
    tokens = [said for _, said in page.of("span", "token")]
    assert HOSTILE in tokens
    assert "{{ 7*7 }}" in tokens
    assert "49" not in tokens
    assert "</style>" in tokens
    assert "\u202e" not in text  # a mark that turns the direction of what follows
    assert HOSTILE in [said for _, said in page.of("td")]


def test_any_script_stands_on_a_page_as_it_is() -> None:
    row = KindRow("t", TEXT, torch.ones(2), torch.tensor([5, 6]))
    page = Reader(kind_page_html([row], title="t", lead=""))
    assert [said for _, said in page.of("span", "token")] == ["漢字", "😀"]
    assert page.of("div", "tokens")[0][0]["dir"] == "ltr"
    row = KindRow("t", TEXT, torch.ones(2), torch.tensor([7, 7]))
    assert Reader(kind_page_html([row], title="t", lead="")).of("div", "tokens")[0][0]["dir"] == "rtl"


def color_of(attributes: dict[str, str | None]) -> int:
    """+1 of red, -1 of blue, 0 of white and of no color."""
    found = re.search(r"background: #(..)(..)(..)", attributes.get("style") or "")
    if not found:
        return 0
    red, blue = int(found[1], 16), int(found[3], 16)
    return (red > blue) - (red < blue)


def test_tokens_have_the_color_of_their_sign_and_missing_ones_a_frame() -> None:
    row = KindRow(
        "t", TEXT, torch.tensor([1.0, -2.0, 0.0, 5.0]), torch.tensor([1, 3, 3, 0]), torch.tensor([1, 2, 3, 2])
    )
    page = Reader(kind_page_html([row], title="t", lead=""))
    pairs = [said for _, said in page.of("span", "pair")]
    assert pairs == ["thisthis", "goodnot", "goodgood", "[PAD]not"]
    tokens = page.of("span", "token")
    assert [color_of(attributes) for attributes, _ in tokens] == [1, 0, -1, -1, 0, 0, 0, 1]
    kinds = [(attributes["class"] or "").split()[1:] for attributes, _ in tokens]
    assert kinds == [[], ["shared"], [], ["missing"], [], ["shared"], ["special"], ["missing"]]
    assert tokens[2][0]["title"] == "R = −2"
    row = KindRow("t", TEXT, torch.tensor([0.1, -0.05]), torch.tensor([1, 3]))
    bar = Reader(kind_page_html([row], title="t", lead="")).of("span", "numbers")[0][1]
    assert bar == "−0.10+0.1"  # its ends are the strongest token's, in the map's own precision


def test_512_tokens_stand_on_a_page_and_padding_is_counted() -> None:
    ids = torch.tensor([1, 3] * 206 + [0] * 100)
    page = Reader(kind_page_html([KindRow("t", TEXT, torch.ones(512), ids)], title="t", lead=""))
    tokens = [said for _, said in page.of("span", "token")]
    assert len(tokens) == 413
    assert tokens[-1] == "[PAD] ×100"


def test_the_numbers_of_a_table_are_complete_and_safe_as_csv() -> None:
    kind = TableKind((*(Column(f"column {i}") for i in range(499)), Column("=1+1")))
    signed = torch.randn(500, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    page = Reader(kind_page_html([KindRow("t", kind, signed, torch.ones(500), torch.zeros(500))], title="t", lead=""))
    assert len(page.of("tr")) >= 501
    (copied,) = [attributes["data-copy"] for attributes, said in page.of("button", "copy") if said == "Copy as CSV"]
    assert copied is not None
    cells = list(csv.reader(io.StringIO(copied)))
    assert cells[0] == ["column", "here", "compared", "reference", "R"]
    assert sum(float(one[-1]) for one in cells[1:]) == pytest.approx(float(signed.sum()))
    assert "'=1+1" in [one[0] for one in cells]
    assert [attributes for attributes, _ in page.of("details", "numbers-table")] == [
        {"class": "numbers-table"}
    ]  # folded


def strips(page: Reader) -> list[np.ndarray]:
    found = []
    for tag, attributes in page.elements:
        if tag == "img" and "slices" in (attributes.get("alt") or ""):
            data = (attributes["src"] or "").removeprefix("data:image/png;base64,")
            found.append(np.asarray(Image.open(io.BytesIO(base64.b64decode(data))).convert("RGB")).astype(int))
    return found


def test_a_volume_holds_every_slice_of_every_axis_and_opens_at_the_strongest_voxel() -> None:
    page = Reader(kind_page_html(rows()[3:], title="t", lead=""))
    pictures = strips(page)
    assert [one.shape[:2] for one in pictures] == [(40, 6)] * 3 + [(40, 6)] * 3 + [(30, 8)] * 3
    sliders = [attributes for tag, attributes in page.elements if tag == "input" and attributes["type"] == "range"]
    assert [(one["max"], one["value"]) for one in sliders] == [("4", "3"), ("7", "6"), ("5", "1")]
    along_depth, along_height, along_width = (one for one in pictures[2::3])
    # Strips: slices below each other. R is red at the one voxel and white elsewhere.
    for strip, (row, column) in (
        (along_depth, (3 * 8 + 6, 1)),
        (along_height, (6 * 5 + 3, 1)),
        (along_width, (1 * 5 + 3, 6)),
    ):
        red = (strip[..., 0] - strip[..., 2] > 50).nonzero()
        assert [int(one[0]) for one in red] == [row, column]
        assert len(red[0]) == 1
        assert int((strip == 255).all(-1).sum()) == strip.shape[0] * strip.shape[1] - 1
    first, reference = pictures[0], pictures[1]
    assert first.max() == 0
    assert reference[3 * 8 + 6, 1].tolist() == [255, 255, 255]


def test_large_volumes_are_shown_in_blocks_that_keep_the_strongest_voxel() -> None:
    signed = torch.zeros(200, 4, 4)
    signed[131, 2, 2] = -3.0
    assert shrink(signed, keeps=True).min() == -3.0
    mean = shrink(torch.arange(200.0)[:, None, None].expand(200, 1, 1))
    assert float(mean.mean()) == pytest.approx(99.5, rel=0.01)
    row = KindRow("t", VolumeKind(), signed, signed * 0)
    page = Reader(kind_page_html([row], title="t", lead=""))
    slider = next(attributes for tag, attributes in page.elements if tag == "input" and attributes["type"] == "range")
    assert slider["max"] == "95"
    at = int(slider["value"] or 0)
    assert at * 200 // 96 <= 131 < (at + 1) * 200 // 96
    strip = strips(page)[1]
    assert strip[at * 4 + 2, 2].tolist() != [255, 255, 255]
    assert "At most 96 slices" in page.of("body")[0][1]


def test_a_figure_of_ones_own_takes_the_place_of_the_kind() -> None:
    figure = Figure(figsize=(2, 1))
    page = Reader(kind_page_html([KindRow("t", figure=figure)], title="t", lead=""))
    assert len(page.of("div", "drawn-figure")) == 1
    with pytest.raises(ValueError, match="shows nothing"):
        KindRow("t", TABLE, torch.ones(3))


def test_a_row_of_an_explanation_says_what_is_explained() -> None:
    maps, inputs = torch.tensor([[1.0, -0.5, 0.25]]), torch.tensor([[-1.0, 0.0, 2.0]])
    found = Explanation(
        maps, maps, maps, "target", None, None, torch.tensor([2.5]), None, None, None,
        kind=TABLE, inputs=inputs, references=torch.zeros(1, 2, 3),
    )  # fmt: skip
    row = KindRow.of(found, verdict="tested")
    assert row.facts[1] == ("u(x)", "2.5")
    assert row.verdict == "tested"
    assert (row.positive, row.negative) == found.legend()
    assert len(row.draw().axes[1].patches) == 3
    with pytest.raises(ValueError, match="no kind"):
        KindRow.of(Explanation(maps, maps, maps, "target", None, None, torch.ones(1), None, None, None))


@in_a_browser
@pytest.mark.slow
def test_in_a_browser_the_slices_follow_the_sliders_and_nothing_leaves_the_page(tmp_path: Path) -> None:
    path = write_kind_page(rows(), tmp_path, title="t", lead="")
    place = "[...document.querySelectorAll('.slice')].map(one => one.style.getPropertyValue('--at')).join()"
    with Browser() as browser:
        for width, dark in ((360, False), (1200, True)):
            found = browser.open(path, width, dark=dark)
            assert found["broken"] == 0
            assert found["scroll"] <= found["width"]
            assert browser.console() == []
            assert [one[:5] for one in browser.requests() if not one.startswith("data:")] == ["file:"]
        assert browser.run(place) == "3,3,3,6,6,6,1,1,1"
        browser.run("document.querySelector('.scroller input').focus()")
        browser.press("ArrowLeft")
        assert browser.run(place) == "2,2,2,6,6,6,1,1,1"
        assert browser.run("document.querySelector('.scroller output').textContent") == "depth 2 of 5"
        across = "getComputedStyle(document.querySelectorAll('.slice')[3]).getPropertyValue('--y')"
        assert float(browser.run(across)) == pytest.approx(2.5 / 5)  # the line of that depth in the slice along height
        shown = "document.querySelector('.slice img').getBoundingClientRect().top - document.querySelector('.slice').getBoundingClientRect().top"
        height = browser.run("document.querySelector('.slice').getBoundingClientRect().height")
        assert browser.run(shown) == pytest.approx(-2 * height, abs=1.0)
        browser.run("document.querySelector('.numbers-table summary').click()")
        assert browser.run("document.querySelector('.numbers-table').open") is True
