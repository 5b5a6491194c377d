"""A page in a real browser: values under the pointer, one panel large, filter and sort, colors, widths, paper."""

from __future__ import annotations

import base64
import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from browser import Browser, in_a_browser

from absence_plugins.report import Page, Panel, Row, Table, page_html

pytestmark = in_a_browser

HOSTILE = """<script>alert('x')</script>"><img src=x onerror=alert(1)> & {{ 7*7 }}"""
VALUES = torch.arange(64.0).reshape(8, 8) - 20  # -20 to 43, at (x, y): 8 y + x - 20
ROWS = ("gamma", "alpha", "epsilon", "beta", "zeta", "delta")


IMAGE = Panel("image", torch.rand(8, 8, generator=torch.Generator().manual_seed(0)), "Image")
PANELS = (
    Panel("signed", VALUES, "Fine", "pixel by pixel"),
    IMAGE,
    Panel("signed", VALUES, "Coarse", resolution=4),
    Panel("absence", VALUES[:4].clamp(min=0), "Flat"),  # of other proportions
)


def row(name: str, share: str) -> Row:
    panels = PANELS if name == "gamma" else (IMAGE, IMAGE)
    return Row(name, f"All about {name}.", panels, (("Share", share), ("Kind", "even")))


WHOLE = Page(
    "Pages that live",
    "A lead.",
    tuple(row(name, share) for name, share in zip(ROWS, ("10 %", "9 %", "−3 %", "0.5 %", "–", "1e2 %"), strict=True)),
    how_to_read=(("Fine", "Every pixel."),),
    provenance={"command": "absence-plugins demo"},
)
UNITS = Table(
    "Units",
    ("Unit", "Verdict", "q"),
    (("unit 10", "encodes an absence", "1e-3"), ("unit 9", "not confirmed", "0.5"), ("unit 2", "not confirmed", "–")),
    ("", "", ""),
)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with Browser() as one:
        yield one


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return written(WHOLE, tmp_path_factory.mktemp("page"))


def written(page: Page, folder: Path) -> Path:
    path = folder / "index.html"
    path.write_text(page_html(page), encoding="utf-8")
    return path


@pytest.fixture(autouse=True)
def quiet(browser: Browser) -> Iterator[None]:
    """Whatever a test does: nothing in the console, nothing asked for but the page and what it embeds."""
    yield
    assert browser.console() == []
    asked = [address for address in browser.requests() if not address.startswith("data:")]
    assert len(set(asked)) == 1
    assert asked[0].startswith("file://")


def box(browser: Browser, selector: str, number: int = 0) -> dict[str, float]:
    """Where an element is in the window, after it was scrolled there."""
    found: dict[str, float] = browser.run(
        f"(() => {{ const it = document.querySelectorAll('{selector}')[{number}];"
        "it.scrollIntoView({block: 'center', behavior: 'instant'}); return it.getBoundingClientRect().toJSON(); })()"
    )
    return found


def point(browser: Browser, number: int, across: float, down: float, selector: str = ".picture") -> tuple[float, float]:
    at = box(browser, selector, number)
    place = (at["left"] + across * at["width"], at["top"] + down * at["height"])
    browser.mouse("mouseMoved", *place)
    return place


def readouts(browser: Browser, row: int = 1) -> list[str]:
    selector = f"#row-{row:02d} .picture > span"
    found: list[str] = browser.run(f"[...document.querySelectorAll('{selector}')].map(one => one.textContent)")
    return found


def texts(browser: Browser, selector: str) -> list[str]:
    """The texts of the elements that can be seen, from top to bottom."""
    found: list[str] = browser.run(
        f"[...document.querySelectorAll('{selector}')].filter(one => one.checkVisibility())"
        ".sort((a, b) => a.getBoundingClientRect().top - b.getBoundingClientRect().top).map(one => one.textContent.trim())"
    )
    return found


def test_hovering_tells_values_at_the_same_place_of_a_row(browser: Browser, page: Path) -> None:
    browser.open(page, 1280)
    point(browser, 0, 5.5 / 8, 2.5 / 8)
    sums = VALUES[:4, 4:].sum()
    assert readouts(browser) == ["+1 at x 5, y 2", "x 5, y 2", f"{sums:+.0f} at x 4–7, y 0–3".replace("-", "−"), ""]
    places = browser.run(
        "[...document.querySelectorAll('#row-01 .picture')].map(one => one.classList.contains('at')"
        "? [one.style.getPropertyValue('--x'), one.style.getPropertyValue('--y')].map(Number) : null)"
    )
    assert places[0] == pytest.approx([5.5 / 8, 2.5 / 8], abs=0.01)
    assert places[0] == places[1] == places[2]
    assert places[3] is None
    point(browser, 2, 0.99, 0.01)  # from another panel of the row
    assert readouts(browser)[0] == "−13 at x 7, y 0"
    point(browser, 3, 0.5, 0.5)
    assert readouts(browser)[0] == ""
    assert readouts(browser)[3] == "0 at x 4, y 2"
    point(browser, 0, 0.5, 0.5, "h1")
    assert readouts(browser) == [""] * 4


def test_the_keyboard_and_a_finger_tell_values_too(browser: Browser, page: Path) -> None:
    browser.open(page, 1280)
    browser.run("document.querySelector('.picture').focus()")
    browser.press("ArrowRight")
    assert readouts(browser)[0] == "+16 at x 4, y 4"  # the middle
    browser.press("ArrowRight")
    browser.press("ArrowUp")
    assert readouts(browser)[0] == "+9 at x 5, y 3"
    said = browser.run("document.getElementById('said').textContent")
    assert said.startswith("x 5, y 3. Fine: +9. Coarse: ")
    browser.press("ArrowDown", shift=True)
    assert readouts(browser)[0] == "+41 at x 5, y 7"  # no further than the edge
    browser.press("Escape")
    assert readouts(browser) == [""] * 4
    at = box(browser, ".picture", 1)
    finger = {"x": at["left"] + 0.1 * at["width"], "y": at["top"] + 0.1 * at["height"]}
    browser.call("Input.dispatchTouchEvent", type="touchStart", touchPoints=[finger])
    browser.call("Input.dispatchTouchEvent", type="touchCancel", touchPoints=[])
    assert readouts(browser)[0] == "−20 at x 0, y 0"


LARGE = """(() => { const it = document.getElementById('large'); const sheet = it.querySelector('.sheet').getBoundingClientRect();
return { open: it.open, title: it.querySelector('h2').textContent, count: it.querySelector('.count').textContent,
  read: it.querySelector('.read').textContent, width: sheet.width, left: sheet.left, top: sheet.top,
  bar: it.querySelectorAll('.bar').length, cross: it.querySelector('.sheet').classList.contains('at') }; })()"""


def test_a_panel_opens_large_by_the_keyboard(browser: Browser, page: Path) -> None:
    browser.open(page, 1280)
    browser.run("document.querySelectorAll('.picture')[1].focus()")
    browser.press("ArrowRight")
    browser.press("Enter")
    large = browser.run(LARGE)
    assert (large["open"], large["title"], large["count"]) == (True, "Image", "2 of 14 · gamma")
    assert large["width"] > 500
    assert large["read"].startswith("x 4, y 4. Fine: +16.")
    browser.press("ArrowRight")
    large = browser.run(LARGE)
    assert (large["title"], large["bar"], large["cross"]) == ("Coarse", 1, True)
    browser.press("+")
    assert browser.run(LARGE)["width"] == pytest.approx(1.5 * large["width"], rel=1e-3)
    browser.press("ArrowLeft")  # the same part of another panel of the same proportions
    assert browser.run(LARGE)["width"] == pytest.approx(1.5 * large["width"], rel=1e-3)
    browser.press("0")
    assert browser.run(LARGE)["width"] == pytest.approx(large["width"], rel=1e-3)
    browser.press("ArrowLeft")
    browser.press("ArrowLeft")
    assert browser.run(LARGE)["count"] == "14 of 14 · delta"  # from the first to the last of the page
    browser.press("ArrowRight")
    browser.press("ArrowRight")
    browser.press("Escape")
    assert not browser.run(LARGE)["open"]
    focused = "document.activeElement === document.querySelectorAll('.picture')[1]"
    assert browser.run(focused)


def test_wheel_and_drag_move_what_is_under_the_pointer(browser: Browser, page: Path) -> None:
    browser.open(page, 1280)
    place = point(browser, 0, 0.5, 0.5)
    for kind in ("mousePressed", "mouseReleased"):
        browser.mouse(kind, *place, button="left", clickCount=1)
    before = browser.run(LARGE)
    x, y = before["left"] + 0.3 * before["width"], before["top"] + 0.4 * before["width"]
    browser.mouse("mouseMoved", x, y)
    read = browser.run(LARGE)["read"]
    assert read.startswith("x 2, y 3. Fine: +6.")
    browser.mouse("mouseWheel", x, y, deltaX=0, deltaY=-400)
    browser.run("new Promise(done => requestAnimationFrame(done))")
    after = browser.run(LARGE)
    assert after["width"] == pytest.approx(2.718 * before["width"], rel=0.01)
    assert (x - after["left"]) / after["width"] == pytest.approx(0.3, abs=0.01)
    assert (y - after["top"]) / after["width"] == pytest.approx(0.4, abs=0.01)
    browser.mouse("mousePressed", x, y, button="left", buttons=1)
    browser.mouse("mouseMoved", x + 50, y + 20, button="left", buttons=1)
    browser.mouse("mouseReleased", x + 50, y + 20, button="left")
    dragged = browser.run(LARGE)
    assert dragged["left"] - after["left"] == pytest.approx(50, abs=1)
    assert dragged["top"] - after["top"] == pytest.approx(20, abs=1)
    browser.run("document.querySelector('[data-do=close]').click()")
    assert not browser.run(LARGE)["open"]


def type_into(browser: Browser, text: str) -> None:
    browser.run(
        f"(() => {{ const field = document.querySelector('.tools input'); field.value = {text!r};"
        "field.dispatchEvent(new Event('input')); })()"
    )


def choose(browser: Browser, name: str) -> None:
    browser.run(
        "(() => { const select = document.querySelector('.tools select');"
        f"select.value = [...select.options].find(one => one.text === {name!r}).value;"
        "select.dispatchEvent(new Event('change')); })()"
    )


def test_rows_are_filtered_and_sorted(browser: Browser, page: Path) -> None:
    browser.open(page, 1280)
    assert browser.run("[...document.querySelectorAll('.tools option')].map(one => one.text)") == [
        "order of the page", "Name", "Share",  # "Kind" holds no numbers
    ]  # fmt: skip
    assert texts(browser, ".row h2") == list(ROWS)
    type_into(browser, "ABOUT ta")
    assert texts(browser, ".row h2") == ["beta", "zeta", "delta"]
    assert texts(browser, "nav.box td a") == ["beta", "zeta", "delta"]
    assert texts(browser, ".shown") == ["3 of 6 shown"]
    browser.run("location.hash = '#row-01'")  # a link to a row that is hidden
    browser.run("new Promise(done => setTimeout(done, 50))")
    assert texts(browser, ".row h2") == list(ROWS)
    choose(browser, "Share")
    ascending = ["epsilon", "beta", "alpha", "gamma", "delta", "zeta"]  # the one without a number is the last
    assert texts(browser, ".row h2") == texts(browser, "nav.box td a") == ascending
    browser.run("document.querySelector('.turn').click()")
    assert texts(browser, ".row h2") == ["delta", "gamma", "alpha", "beta", "epsilon", "zeta"]
    choose(browser, "order of the page")
    assert texts(browser, ".row h2") == list(ROWS)


def test_a_table_is_sorted_by_its_columns(browser: Browser, tmp_path: Path) -> None:
    browser.open(written(Page("Units", "", (), table=UNITS), tmp_path), 1280)
    names = ".units td:first-child"
    assert texts(browser, names) == ["unit 10", "unit 9", "unit 2"]
    assert texts(browser, ".units th button") == ["Unit", "Verdict", "q"]
    heads = "[...document.querySelectorAll('.units th')].map(one => one.getAttribute('aria-sort'))"
    browser.run("document.querySelectorAll('.units th button')[0].click()")
    assert texts(browser, names) == ["unit 2", "unit 9", "unit 10"]
    assert browser.run(heads) == ["ascending", None, None]
    browser.run("document.querySelectorAll('.units th button')[2].click()")
    assert texts(browser, names) == ["unit 10", "unit 9", "unit 2"]
    browser.run("document.querySelectorAll('.units th button')[2].click()")
    assert texts(browser, names) == ["unit 9", "unit 10", "unit 2"]
    assert browser.run(heads) == [None, None, "descending"]
    type_into(browser, "not confirmed")
    assert texts(browser, names) == ["unit 9", "unit 2"]


DARK = """({ dark: getComputedStyle(document.body).backgroundColor === 'rgb(15, 18, 22)',
pressed: document.querySelector('.theme').getAttribute('aria-pressed') })"""
WHITE = """(() => { const image = document.querySelector('.picture img'); const canvas = document.createElement('canvas');
[canvas.width, canvas.height] = [image.naturalWidth, image.naturalHeight]; const context = canvas.getContext('2d');
context.drawImage(image, 0, 0); return [...context.getImageData(4.5 / 8 * canvas.width, 2.5 / 8 * canvas.height, 1, 1).data]; })()"""


def test_dark_and_light(browser: Browser, page: Path) -> None:
    for system in (False, True):
        browser.open(page, 1280, dark=system)
        assert browser.run(DARK) == {"dark": system, "pressed": str(system).lower()}
        assert browser.run(WHITE) == [255, 255, 255, 255]  # the value there is 0
        assert browser.run("getComputedStyle(document.querySelector('.picture img')).filter") == "none"
        browser.run("document.querySelector('.theme').click()")
        assert browser.run(DARK) == {"dark": not system, "pressed": str(not system).lower()}
        browser.open(page, 1280, dark=system)  # remembered
        assert browser.run(DARK)["dark"] is not system
        browser.run("localStorage.clear()")


def test_a_page_works_where_nothing_can_be_stored(browser: Browser, page: Path) -> None:
    refuse = (
        "Object.defineProperty(window, 'localStorage', { get() { throw new DOMException('no', 'SecurityError'); } });"
    )
    script = browser.call("Page.addScriptToEvaluateOnNewDocument", source=refuse)["identifier"]
    try:
        browser.open(page, 1280)
        browser.run("document.querySelector('.theme').click()")
        assert browser.run(DARK)["dark"]
        point(browser, 0, 0.01, 0.01)
        assert readouts(browser)[0] == "−20 at x 0, y 0"
    finally:
        browser.call("Page.removeScriptToEvaluateOnNewDocument", identifier=script)


def test_panels_are_large_on_wide_screens_and_fit_on_a_phone(browser: Browser, page: Path, tmp_path: Path) -> None:
    with_table = written(dataclasses.replace(WHOLE, table=UNITS), tmp_path)
    for path in (page, with_table):
        for width in (360, 700, 1280, 1600):
            found = browser.open(path, width)
            assert found["broken"] == 0
            assert browser.run("document.scrollingElement.scrollWidth") <= width, found["beyond"]
            sides = browser.run(
                "[...document.querySelectorAll('.picture')].map(one => one.getBoundingClientRect().width)"
            )
            assert min(sides) >= (320 if width >= 1280 else 130)
        browser.open(path, 360)
        browser.run("document.querySelector('.picture').click()")
        assert browser.run("document.scrollingElement.scrollWidth") <= 360
        buttons = browser.run(
            "[...document.querySelectorAll('.buttons button')].map(one => one.getBoundingClientRect().right)"
        )
        assert max(buttons) <= 360


def test_paper_is_light_and_without_controls(browser: Browser, page: Path) -> None:
    browser.open(page, 1280, dark=True, media="print")
    assert browser.run(DARK)["dark"] is False
    assert texts(browser, "button:not(.picture), .tools, .hint, dialog") == []
    assert len(texts(browser, ".picture")) == 14
    cut = "[...document.querySelectorAll('.panel')].filter(one => getComputedStyle(one).breakInside !== 'avoid').length"
    assert browser.run(cut) == 0
    browser.open(page, 1280)
    paper = base64.b64decode(browser.call("Page.printToPDF", printBackground=True)["data"])
    assert paper.startswith(b"%PDF")


def test_without_scripts_all_of_it_can_be_read(browser: Browser, page: Path) -> None:
    browser.call("Emulation.setScriptExecutionDisabled", value=True)
    try:
        found = browser.open(page, 360)
        assert found["broken"] == 0
        assert found["scroll"] <= 360
        assert texts(browser, "button, .tools, .hint, dialog") == []
        for said in (
            "All about zeta.",
            "pixel by pixel",
            "holds the output down",
            "+43",
            "absence-plugins demo",
            "How to cite",
        ):
            assert said in found["text"]
    finally:
        browser.call("Emulation.setScriptExecutionDisabled", value=False)


def test_copying(browser: Browser, page: Path) -> None:
    browser.open(page, 1280)
    browser.run("navigator.clipboard.writeText = async text => { window.copied = text; }")
    for selector, expected in (
        ("#row-02 .copy", "absence-plugins demo  # row 2: alpha"),
        ('.end [data-copy="absence-plugins demo"]', "absence-plugins demo"),
        (".end .cite + p .copy", "@inproceedings{hesse2026missing,"),
    ):
        browser.run(f"document.querySelector('{selector}').click()")
        browser.run("new Promise(done => setTimeout(done, 20))")
        assert browser.run("window.copied").startswith(expected)
        assert texts(browser, selector) == ["Copied"]
    browser.run(
        "navigator.clipboard.writeText = async () => { throw new Error('refused'); }; document.execCommand = () => false"
    )
    browser.run("document.querySelector('#row-01 .copy').click()")
    browser.run("new Promise(done => setTimeout(done, 20))")
    assert texts(browser, "#row-01 .copy") == ["Not copied"]


def test_hostile_texts_stay_texts(browser: Browser, tmp_path: Path) -> None:
    panels = (Panel("signed", VALUES, HOSTILE, HOSTILE, positive=HOSTILE, negative=HOSTILE),)
    rows = tuple(Row(HOSTILE, HOSTILE, panels, ((HOSTILE, f"{i}{HOSTILE}"),), code=HOSTILE) for i in range(6))
    table = Table(HOSTILE, (HOSTILE, "q"), ((HOSTILE, HOSTILE),) * 2, ("", ""))
    for one in (None, table):
        path = written(
            Page(HOSTILE, HOSTILE, rows, ((HOSTILE, HOSTILE),), HOSTILE, {"command": HOSTILE}, table=one), tmp_path
        )
        browser.open(path, 360)
        count = "document.querySelectorAll('script').length + document.querySelectorAll('img').length"
        before: Any = browser.run(count)
        type_into(browser, "alert")
        browser.run("document.querySelector('.tools select').selectedIndex = 1")
        browser.run("document.querySelector('.tools select').dispatchEvent(new Event('change'))")
        browser.run("document.querySelector('.picture').focus()")
        browser.press("ArrowRight")
        browser.press("Enter")
        assert browser.run(LARGE)["title"] == " ".join(HOSTILE.split())
        assert browser.run(count) == before + 1  # the large picture
        assert before == 1 + 6
        assert browser.run("document.scrollingElement.scrollWidth") <= 360
