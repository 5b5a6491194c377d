"""The page as a browser would meet it: parsed, decoded, and never half written."""

from __future__ import annotations

import base64
import dataclasses
import hashlib
import importlib.util
import io
import os
import re
import sys
import tomllib
from html.parser import HTMLParser
from importlib import resources
from pathlib import Path
from typing import IO, Any

import numpy as np
import pytest
import torch
from PIL import Image

from absence_plugins import report
from absence_plugins.report import Page, Panel, Row, Table, page_html, write_page
from absence_plugins.report.pages.citation import citation
from absence_plugins.report.pages.pictures import INDEXED_FROM, draw_for_page, pack_values, thumbnail
from absence_plugins.report.plots.palette import SIGNED_COLORS

HOSTILE = """<script>alert('x')</script>"><img src=http://evil.example/x onerror=alert(1)> & {{ 7*7 }}"""


class Reader(HTMLParser):
    """Collects tags with their attributes, and the text between them."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text: list[str] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text.append(data)

    def with_class(self, name: str) -> list[dict[str, str | None]]:
        return [attributes for _, attributes in self.tags if name in (attributes.get("class") or "").split()]

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]


def row(heading: str = "Why a 3", facts: tuple[tuple[str, str], ...] = (("u(x)", "2.1"),)) -> Row:
    signed = torch.linspace(-1, 2, 64).view(8, 8)
    return Row(
        heading,
        "The bar is missing.",
        (
            Panel("image", signed.clamp(0, 1), "Input"),
            Panel("signed", signed, "Non-target: 8", "what rules it out", positive="raises 8", negative="stops 8"),
            Panel("absence", signed.clamp(min=0), "Absence part"),
        ),
        facts,
    )


def page(rows: int = 2, **changes: object) -> Page:
    whole = Page(
        "Digits",
        "First paragraph.\n\nSecond paragraph.",
        tuple(row(f"Why a {i}", (("share", f"{i} %"), ("error", "1e-7"))) for i in range(rows)),
        how_to_read=(("Target map", "Moves the score."),),
        footer="The end.",
        provenance={"torch": "2.15", "command": "absence-plugins demo"},
    )
    return dataclasses.replace(whole, **changes)


def test_everything_said_is_on_the_page(tmp_path: Path) -> None:
    index = write_page(page(), tmp_path / "new" / "out")
    assert index == tmp_path / "new" / "out" / "index.html"
    reader = Reader(index.read_text(encoding="utf-8"))
    for said in ("Digits", "Second paragraph.", "Why a 1", "The bar is missing.", "what rules it out", "share", "1 %",
                 "Target map", "Moves the score.", "The end.", "absence-plugins demo"):  # fmt: skip
        assert said in reader.text
    assert [t for t in reader.text if t.endswith("paragraph.")] == ["First paragraph.", "Second paragraph."]


def test_figures_are_files_and_their_pictures_are_on_the_page(tmp_path: Path) -> None:
    """The files have color bars, for papers; the page's pictures are bare, and their bars are text."""
    reader = Reader(write_page(page(), tmp_path).read_text(encoding="utf-8"))
    names = sorted(path.name for path in (tmp_path / "figures").iterdir())
    assert names[:3] == [
        "row-01-panel-01-input.png", "row-01-panel-02-non-target-8.png", "row-01-panel-03-absence-part.png",
    ]  # fmt: skip
    assert len(names) == 6
    assert all(Image.open(tmp_path / "figures" / name).size[0] >= 500 for name in names)
    for image in reader.all("img"):
        png = base64.b64decode((image["src"] or "").removeprefix("data:image/png;base64,"))
        assert Image.open(io.BytesIO(png)).size == (int(image["width"] or 0), int(image["height"] or 0))
    assert {"stops 8", "raises 8", "−2", "+2"} <= set(reader.text)


def test_a_map_is_drawn_pixel_by_pixel_and_an_image_as_it_is() -> None:
    values = torch.tensor([[0.0, 1.0], [-1.0, 0.5]])
    drawn = draw_for_page(Panel("signed", values, "Map"))
    colors = np.asarray(Image.open(io.BytesIO(base64.b64decode(drawn.uri.partition(",")[2]))).convert("RGB"))
    assert np.abs(colors - SIGNED_COLORS(0.5 + 0.5 * values.numpy())[..., :3] * 255).max() < 3
    outlined = draw_for_page(Panel("signed", values, "Map", underlay=torch.rand(2, 2)))
    colors = np.asarray(Image.open(io.BytesIO(base64.b64decode(outlined.uri.partition(",")[2]))).convert("RGB"))
    assert colors.shape == (640, 640, 3)
    for row in range(2):
        for column in range(2):  # the corners, where there is no outline
            y, x = 630 * row, 630 * column
            square = colors[y : y + 10, x : x + 10].reshape(-1, 3)
            expected = SIGNED_COLORS(0.5 + 0.5 * float(values[row, column]))[:3]
            assert np.abs(square - np.asarray(expected) * 255).max() < 3
    image = torch.arange(12).reshape(3, 2, 2) / 11
    drawn = draw_for_page(Panel("image", image, "Image"))
    shown = np.asarray(Image.open(io.BytesIO(base64.b64decode(drawn.uri.partition(",")[2]))))
    assert np.abs(shown / 255 - image.permute(1, 2, 0).numpy()).max() < 0.003
    assert drawn.pixelated
    assert drawn.values is None


@pytest.mark.parametrize(("side", "bits"), [(16, 16), (128, 16), (129, 8)])
def test_the_values_of_a_map_are_on_the_page(side: int, bits: int) -> None:
    values = torch.randn(side, side, generator=torch.Generator().manual_seed(0)).double()
    packed = pack_values(values)
    assert packed.bits == bits
    numbers = np.frombuffer(base64.b64decode(packed.text), "<i2" if bits == 16 else "i1").reshape(side, side)
    assert np.abs(numbers * packed.step - values.numpy()).max() <= packed.step * 0.5000001
    assert packed.step == pytest.approx(float(values.abs().max()) / (2 ** (bits - 1) - 1))


def test_what_is_shown_in_cells_is_read_in_cells() -> None:
    panel = Panel("signed", torch.arange(20.0).reshape(4, 5), "Map", resolution=2)
    found = Reader(page_html(Page("t", "", (Row("h", "s", (panel,)),)))).with_class("picture")[0]
    assert {name: found[f"data-{name}"] for name in ("rows", "columns", "cell", "grid")} == {
        "rows": "4", "columns": "5", "cell": "2", "grid": "3",
    }  # fmt: skip
    numbers = np.frombuffer(base64.b64decode(found["data-values"] or ""), "<i2").reshape(2, 3)
    assert numbers * float(found["data-step"] or 0) == pytest.approx(panel.shown.numpy(), abs=1e-2)
    assert pack_values(torch.zeros(2, 2)).step == 1.0


def test_every_image_has_an_alternative_text_that_says_the_sign(tmp_path: Path) -> None:
    images = Reader(write_page(page(), tmp_path).read_text(encoding="utf-8")).all("img")
    assert len(images) == 6
    assert all((image["alt"] or "").strip() for image in images)
    assert images[1]["alt"] == "Signed map: Non-target: 8; red raises 8, blue stops 8; values from -1 to 2"


def test_the_page_loads_nothing_from_elsewhere(tmp_path: Path) -> None:
    html = write_page(page(5), tmp_path).read_text(encoding="utf-8")
    reader = Reader(html)
    for tag, attributes in reader.tags:
        assert tag not in {"iframe", "object", "embed", "base", "audio", "video", "source"}
        assert not attributes.keys() & {"srcset", "action", "background", "poster", "data"}
        for name in ("src", "href"):
            assert (attributes.get(name) or "#").startswith(("data:", "#")), (tag, attributes.get(name))
    style = html[html.index("<style>") : html.index("</style>")]
    assert not re.search(r"url\(|@import|@font-face|https?:|//", style)
    assert "http" not in re.sub(r"base64,[^\"]*|http-equiv", "", html)
    policy = next(m["content"] for m in reader.all("meta") if m.get("http-equiv") == "Content-Security-Policy")
    script = html[html.index("<script>") + len("<script>") : html.index("</script>")]
    assert policy == (
        "default-src 'none'; img-src data:; style-src 'unsafe-inline'; "
        f"script-src 'sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()}'; "
        "base-uri 'none'; form-action 'none'"
    )
    assert not re.search(r"fetch|XMLHttp|import|eval|innerHTML|https?:", script)


def test_hostile_text_stays_text(tmp_path: Path) -> None:
    bad = Row(
        HOSTILE,
        HOSTILE,
        (Panel("signed", torch.ones(2, 2), HOSTILE, HOSTILE, positive=HOSTILE),),
        ((HOSTILE, HOSTILE),),
    )
    whole = Page(HOSTILE, HOSTILE, (bad,) * 5, ((HOSTILE, HOSTILE),), HOSTILE, {HOSTILE: HOSTILE})
    reader = Reader(write_page(whole, tmp_path / "hostile").read_text(encoding="utf-8"))
    assert len(reader.all("script")) == 1  # our own
    assert len(reader.all("img")) == 5
    assert all("\n" not in (button["data-copy"] or "") for button in reader.with_class("copy")[:-1])
    assert not any(name.startswith("on") for _, attributes in reader.tags for name in attributes)
    assert HOSTILE in reader.text
    written = [path.relative_to(tmp_path) for path in tmp_path.rglob("*.png")]
    assert len(written) == 5
    assert all(re.fullmatch(r"hostile/figures/row-\d\d-panel-01-[a-z0-9-]+\.png", str(p)) for p in written)


def test_titles_cannot_leave_the_folder(tmp_path: Path) -> None:
    panels = tuple(Panel("signed", torch.ones(2, 2), title) for title in ("../../etc/passwd", "缺失", "", "a" * 500))
    write_page(Page("t", "", (Row("h", "s", panels),)), tmp_path / "out")
    assert {path.name for path in (tmp_path / "out" / "figures").iterdir()} == {
        "row-01-panel-01-etc-passwd.png", "row-01-panel-02.png", "row-01-panel-03.png",
        f"row-01-panel-04-{'a' * 40}.png",
    }  # fmt: skip
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_more_than_three_rows_get_a_summary_whose_links_arrive(tmp_path: Path) -> None:
    assert Reader(write_page(page(3), tmp_path).read_text(encoding="utf-8")).all("table") == []
    html = write_page(page(4), tmp_path).read_text(encoding="utf-8")
    reader = Reader(html)
    links = [a["href"] for a in reader.all("a") if (a["href"] or "").startswith("#row")]
    assert links == ["#row-01", "#row-02", "#row-03", "#row-04"]
    ids = [attributes["id"] for _, attributes in reader.tags if "id" in attributes]
    assert len(ids) == len(set(ids))
    assert {(a["href"] or "")[1:] for a in reader.all("a")} <= set(ids)
    table = html[html.index("<table>") : html.index("</table>")]
    assert "3 %" in table
    assert "1e-7" not in table


def test_the_legend_is_only_of_the_maps_there_are(tmp_path: Path) -> None:
    picture = Row("h", "s", (Panel("image", torch.ones(2, 2), "Input"),))
    plain = write_page(Page("t", "l", (picture,)), tmp_path).read_text(encoding="utf-8")
    assert "linear-gradient" not in plain
    signed = Row("h", "s", (Panel("signed", torch.ones(2, 2), "Map"),))
    with_map = write_page(Page("t", "l", (signed,)), tmp_path).read_text(encoding="utf-8")
    assert "red: raises the output" in with_map
    assert "evidence of absence" not in with_map


def test_more_than_five_rows_and_tables_can_be_filtered() -> None:
    assert Reader(page_html(page(5))).with_class("tools") == []
    assert len(Reader(page_html(page(6))).with_class("tools")) == 1
    table = Table("Units", ("Unit",), (("3",),), ("",))
    assert len(Reader(page_html(page(2, table=table))).with_class("tools")) == 1


def test_what_needs_the_script_is_hidden_without_it() -> None:
    reader = Reader(page_html(page(6)))
    controls = [reader.with_class(name) for name in ("tools", "theme", "copy", "hint")]
    assert [len(found) for found in controls] == [1, 1, 8, 1]
    assert all("hidden" in attributes for found in controls for attributes in found)


def test_the_citation_is_that_of_the_repository() -> None:
    cited = (Path(__file__).resolve().parents[2] / "CITATION.cff").read_text(encoding="utf-8")
    found = citation()
    for label in ("title", "family-names", "given-names"):
        for said in re.findall(rf'\b{label}: "?(.*?)"?$', cited, re.MULTILINE):
            assert said in found
    assert f"version = {{{re.findall('^version: (.*)$', cited, re.MULTILINE)[0]}}}" in found
    assert re.findall(r"abs/(\d+\.\d+)", cited)[0] in found
    assert found in Reader(page_html(page())).text


def test_a_row_says_how_to_make_it() -> None:
    rows = (row("Why a\n3; rm -r x"), dataclasses.replace(row(), code="print('<&\"')"))
    buttons = Reader(page_html(dataclasses.replace(page(0), rows=rows))).with_class("copy")
    assert [button["data-copy"] for button in buttons[:3]] == [
        "absence-plugins demo  # row 1: Why a 3; rm -r x", "print('<&\"')", "absence-plugins demo",
    ]  # fmt: skip
    assert len(Reader(page_html(page(2, provenance={}))).with_class("copy")) == 1  # the citation


def test_a_table_shows_thumbnails() -> None:
    small = thumbnail([Panel("image", torch.zeros(3, 8, 16), "High"), Panel("image", torch.ones(8, 8), "Low")])
    picture = Image.open(io.BytesIO(small))
    assert (picture.format, picture.size) == ("JPEG", (192 + 6 + 96, 96))
    table = Table("Units", ("Unit", "q"), (("3", "0.1"), ("4", "0.2")), ("", ""), (small, b""), "Patches")
    images = Reader(page_html(Page("t", "", (), table=table))).all("img")
    assert [image["alt"] for image in images] == ["Patches of 3"]
    with pytest.raises(ValueError, match="2 rows and 1 thumbnails"):
        Table("Units", ("Unit",), (("3",), ("4",)), ("", ""), (small,))


def test_the_templates_are_in_the_package_data() -> None:
    root = Path(__file__).resolve().parents[2]
    data = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["setuptools"]["package-data"]
    folder = resources.files("absence_plugins.report.pages")
    found = {path.name for pattern in data["absence_plugins.report.pages"] for path in Path(str(folder)).glob(pattern)}
    assert {"page.html.jinja", "page.css", "page.js"} <= found


def test_dark_colors_are_said_twice_alike() -> None:
    """Once for the system's wish, once for the button's."""
    style = resources.files("absence_plugins.report.pages").joinpath("templates", "page.css").read_text()
    blocks = [block.split() for block in re.findall(r"color-scheme: dark;(.*?)\}", style, re.DOTALL)]
    assert len(blocks) == 2
    assert blocks[0] == blocks[1]


def test_a_page_without_rows_is_a_page(tmp_path: Path) -> None:
    assert "<main" in write_page(Page("t", "", ()), tmp_path).read_text(encoding="utf-8")


def test_the_same_page_gives_the_same_bytes(tmp_path: Path) -> None:
    assert write_page(page(), tmp_path / "a").read_bytes() == write_page(page(), tmp_path / "b").read_bytes()


def test_photographs_are_indexed_and_zero_stays_white(tmp_path: Path) -> None:
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(224, 224, generator=generator)
    noise[50:150, 50:150] = 0
    write_page(Page("t", "", (Row("h", "s", (Panel("signed", noise, "Map"),)),)), tmp_path)
    path = tmp_path / "figures" / "row-01-panel-01-map.png"
    picture = Image.open(path)
    assert picture.mode == "P"
    assert path.stat().st_size < 1.5 * INDEXED_FROM
    colors = np.asarray(picture.convert("RGB"))
    inside = colors[150:370, 150:370]
    assert (inside == 255).all()
    assert (colors[..., 0].astype(int) - colors[..., 2] > 100).any()
    assert (colors[..., 2].astype(int) - colors[..., 0] > 100).any()


def test_a_second_page_replaces_the_first_and_leaves_other_files(tmp_path: Path) -> None:
    write_page(page(3), tmp_path)
    (tmp_path / "figures" / "mine.png").write_bytes(b"mine")
    (tmp_path / "notes.txt").write_text("mine")
    write_page(page(1), tmp_path)
    assert sorted(p.name[:6] for p in (tmp_path / "figures").iterdir()) == ["mine.p", "row-01", "row-01", "row-01"]
    assert (tmp_path / "notes.txt").read_text() == "mine"


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_page_that_cannot_be_drawn_leaves_the_former_one(tmp_path: Path) -> None:
    write_page(page(2), tmp_path)
    before = contents(tmp_path)
    broken = dataclasses.replace(page(1), rows=(row(), "not a row"))  # type: ignore[arg-type]
    with pytest.raises(AttributeError):
        write_page(broken, tmp_path)
    assert contents(tmp_path) == before


def test_a_run_killed_while_writing_leaves_no_half_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_page(page(1), tmp_path)
    before = (tmp_path / "index.html").read_bytes()
    real, seen = Path.open, []

    def dies_half_way(path: Path, mode: str = "r", **options: Any) -> IO[Any]:
        file = real(path, mode, **options)
        if mode == "wb":
            seen.append(path)
            if len(seen) == 7:  # six figures, then the page
                file.write(b"<!doctype ht")
                file.close()
                raise KeyboardInterrupt
        return file

    monkeypatch.setattr(Path, "open", dies_half_way)
    with pytest.raises(KeyboardInterrupt):
        write_page(page(2), tmp_path)
    assert len(seen) == 7
    assert not any(path.name == "index.html" or path.suffix == ".png" for path in seen)
    assert (tmp_path / "index.html").read_bytes() == before
    assert all(Image.open(p).size for p in (tmp_path / "figures").glob("*.png"))
    assert not list(tmp_path.rglob("*.part"))


def test_files_are_readable_as_any_other(tmp_path: Path) -> None:
    (tmp_path / "plain").write_text("")
    index = write_page(page(1), tmp_path / "out")
    assert os.stat(index).st_mode == os.stat(tmp_path / "plain").st_mode


def test_a_file_in_the_way_is_refused(tmp_path: Path) -> None:
    taken = tmp_path / "report.html"
    taken.write_text("mine")
    with pytest.raises(ValueError, match=r"report\.html is an existing file"):
        write_page(page(1), taken)
    assert taken.read_text() == "mine"
    (tmp_path / "figures").write_text("mine")
    with pytest.raises(ValueError, match="figures is an existing file"):
        write_page(page(1), tmp_path)


@pytest.mark.parametrize("missing", ["matplotlib", "jinja2"])
def test_a_missing_package_says_how_to_get_it(missing: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, missing, None)
    spec = importlib.util.spec_from_file_location("report_again", report.__file__)
    assert spec is not None
    assert spec.loader is not None
    with pytest.raises(ImportError, match=r'pip install "absence-plugins\[report\]"'):
        spec.loader.exec_module(importlib.util.module_from_spec(spec))
