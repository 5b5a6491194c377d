"""Many units: pages with an index, made once, and read by a real browser."""

from __future__ import annotations

import contextlib
import json
import signal
from collections.abc import Callable, Iterator
from functools import partial
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
import torch
from browser import Browser, in_a_browser
from unit_subjects import HOSTILE, SMALL, Files, images, linear_maps, net, plain_pictures

from absence_plugins.report import Panel, UnitReport
from absence_plugins.report.unit import report_of, study_of
from absence_plugins.report.unit.many import FEW, Texts, page_name, write_reports
from absence_plugins.report.unit.section import Section

TEXTS = Texts("Units of conv", "All of them.", ("A note.",), {"command": "absence-plugins report"})


@pytest.fixture(scope="module")
def study() -> Any:
    pixels, block = images()
    concepts = (block[:, None], ["block"])
    return study_of(
        net(), "conv", [0, 1, 2], pixels, labels=block.long(), concepts=concepts, maps=linear_maps,
        pictures=plain_pictures, **SMALL,
    )  # fmt: skip


def light(_study: Any, unit: int, *, picture: bool = False, **texts: Any) -> UnitReport:
    """A report without work, for tests of the pages around it."""
    panels = (
        (Panel("image", torch.rand(4, 4, generator=torch.Generator().manual_seed(unit)), "Patch"),) if picture else ()
    )
    run = [Section(key, key, "Said.", panels) for key in ("patches", "insertion", "maps_high", "maps_low", "pictures")]
    rest = [Section.not_run(key, key, "nothing") for key in ("name", "directions", "faithfulness")]
    return UnitReport("conv", unit, f"Verdict of {unit}.", unit % 2 == 0, 0.01, 1.0, (*run, *rest), **texts)


class Links(HTMLParser):
    def __init__(self, page: Path) -> None:
        super().__init__()
        self.targets: list[str] = []
        self.ids: set[str] = set()
        self.feed(page.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = dict(attrs)
        if tag == "a":
            self.targets.append(found["href"] or "")
        if found.get("id"):
            self.ids.add(found["id"] or "")


def test_few_units_stand_on_one_page(study: Any, tmp_path: Path) -> None:
    index = write_reports(study, [0, 2], tmp_path, TEXTS, make=light)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["index.html", "units.json"]
    links = Links(index)
    assert {target[1:] for target in links.targets} <= links.ids
    assert [target for target in links.targets if target.startswith("#row")] == ["#row-01", "#row-10"]
    html = index.read_text(encoding="utf-8")
    for unit in (0, 2):
        assert f"Unit {unit} of conv: insertion" in html
    data = json.loads((tmp_path / "units.json").read_text())
    assert [one["unit"] for one in data["units"]] == [0, 2]
    assert all(one["verdict"] in html for one in data["units"])


def test_many_units_get_a_page_each_and_an_index(study: Any, tmp_path: Path) -> None:
    units = [7, 3, *range(10, 17)]
    assert len(units) > FEW
    index = write_reports(study, units, tmp_path, TEXTS, make=light)
    links = Links(index)
    assert [target for target in links.targets if target.endswith(".html")] == [page_name(unit) for unit in units]
    for page in tmp_path.glob("*.html"):
        for target in Links(page).targets:
            assert target.startswith("#") or (tmp_path / target).is_file(), (page, target)
    around = [target for target in Links(tmp_path / page_name(3)).targets if not target.startswith("#")]
    assert around == ["index.html", page_name(7), page_name(10)] * 2  # at the top and at the end
    ends = [target for target in Links(tmp_path / page_name(7)).targets if not target.startswith("#")]
    assert ends == ["index.html", page_name(3)] * 2
    html = index.read_text(encoding="utf-8")
    assert "not confirmed" in html
    assert "4 of these 9 units encode an absence" in html


def test_the_index_shows_thumbnails_also_of_units_that_were_done_before(study: Any, tmp_path: Path) -> None:
    def make(study: Any, unit: int, **texts: Any) -> UnitReport:
        return light(study, unit, picture=unit != 4, **texts)

    for units, few in (([0, 1], FEW), (range(9), FEW), (range(9), FEW)):  # the last one reads what is there
        html = write_reports(study, list(units), tmp_path / str(len(units)), TEXTS, make=make, few=few).read_text()
        assert html.count('src="data:image/jpeg') == sum(unit != 4 for unit in units)
    assert 'alt="Highest and lowest patches of unit 4' not in html


class Counting:
    """A report maker that counts, and can fail at one unit."""

    def __init__(self, fails_at: int | None = None, error: BaseException | None = None) -> None:
        self.made: list[int] = []
        self.fails_at, self.error = fails_at, error

    def __call__(self, study: Any, unit: int, **texts: Any) -> UnitReport:
        if unit == self.fails_at and self.error is not None:
            raise self.error
        self.made.append(unit)
        return light(study, unit, **texts)


@pytest.fixture
def write(study: Any, tmp_path: Path) -> Callable[..., Path]:
    return partial(write_reports, study, list(range(10)), tmp_path, TEXTS)


def test_a_finished_page_is_not_made_again(write: Callable[..., Path], tmp_path: Path) -> None:
    write(make=Counting(), fingerprint="a")
    again = Counting()
    before = (tmp_path / "index.html").read_bytes()
    write(make=again, fingerprint="a")
    assert again.made == []
    assert (tmp_path / "index.html").read_bytes() == before
    (tmp_path / page_name(4)).unlink()
    (tmp_path / "unit-006.json").write_text("{half")
    write(make=again, fingerprint="a")
    assert again.made == [4, 6]
    other = Counting()
    write(make=other, fingerprint="b")
    assert other.made == list(range(10))


@pytest.mark.parametrize("error", [KeyboardInterrupt(), OSError(28, "No space left on device"), MemoryError("full")])
def test_a_run_that_ends_early_keeps_what_was_done(
    error: BaseException, write: Callable[..., Path], tmp_path: Path
) -> None:
    with pytest.raises(type(error)) as ended:
        write(make=Counting(4, error))
    assert ended.value is error
    index = (tmp_path / "index.html").read_text(encoding="utf-8")
    assert "6 units are missing" in index
    assert not list(tmp_path.glob("*.part"))
    rest = Counting()
    write(make=rest)
    assert rest.made == [4, 5, 6, 7, 8, 9]
    assert "units are missing" not in (tmp_path / "index.html").read_text(encoding="utf-8")
    missing = {target for target in Links(tmp_path / "index.html").targets if not target.startswith("#")}
    assert len(missing) == 10


def test_a_swallowed_ctrl_c_still_stops(write: Callable[..., Path], tmp_path: Path) -> None:
    """Python drops one that comes up while an object is freed, and Lucent's optimization returns what it has."""
    before = signal.getsignal(signal.SIGINT)

    def make(study: Any, unit: int, **texts: Any) -> UnitReport:
        if unit == 4:
            with contextlib.suppress(KeyboardInterrupt):
                signal.raise_signal(signal.SIGINT)
        return light(study, unit, **texts)

    with pytest.raises(KeyboardInterrupt):
        write(make=make)
    assert not (tmp_path / page_name(4)).exists()  # it may be half made
    assert "6 units are missing" in (tmp_path / "index.html").read_text(encoding="utf-8")
    assert signal.getsignal(signal.SIGINT) is before


def test_few_units_that_end_early_are_on_the_page(study: Any, tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        write_reports(study, [0, 1, 2], tmp_path, TEXTS, make=Counting(1, KeyboardInterrupt()))
    assert "Verdict of 0." in (tmp_path / "index.html").read_text(encoding="utf-8")


def test_wrong_arguments(study: Any, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="units is empty"):
        write_reports(study, [], tmp_path, TEXTS)
    (tmp_path / "file").write_text("mine")
    with pytest.raises(ValueError, match="file is an existing file"):
        write_reports(study, [0], tmp_path / "file", TEXTS)


# -- in a browser --------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with Browser() as one:
        yield one


@in_a_browser
def test_the_browser_sees_what_is_wrong(browser: Browser, tmp_path: Path) -> None:
    """The tests below can fail: a broken image, a wide element, a refused script are found."""
    page = tmp_path / "bad.html"
    page.write_text(
        '<!doctype html><meta http-equiv="Content-Security-Policy" content="script-src \'none\'"><body>'
        '<img src="data:image/png;base64,AAAA"><div style="width:900px">wide</div><script>alert(1)</script></body>'
    )
    found = browser.open(page)
    assert (found["images"], found["broken"], found["width"], found["scripts"]) == (1, 1, 360, 1)
    assert found["scroll"] >= 900
    assert len(found["beyond"]) == 1
    assert any("Content Security Policy" in line for line in browser.console())


@in_a_browser
def test_a_units_page_in_a_browser(browser: Browser, study: Any, tmp_path: Path) -> None:
    page = report_of(study, 0, notes=("A note.",)).write(tmp_path / "page")
    colors = set()
    for width, dark in ((360, False), (1280, False), (390, True)):
        found = browser.open(page, width, dark=dark)
        assert found["images"] >= 15
        assert found["broken"] == 0
        assert found["width"] == width
        assert found["scroll"] <= width, found["beyond"]
        assert browser.console() == []
        colors.add((found["background"], found["ink"]))
    assert len(colors) == 2  # dark is dark
    assert "encodes an absence" in found["text"]
    order = [browser.tab() for _ in range(5)]
    assert order == [
        "Skip to the findings",
        "Dark colors",
        "",  # the field of the filter
        "Its highest and lowest patches",
        "Insertion test: do they really hold it down?",
    ]


@in_a_browser
def test_index_and_pages_in_a_browser(browser: Browser, study: Any, tmp_path: Path) -> None:
    def make(study: Any, unit: int, **texts: Any) -> UnitReport:
        return light(study, unit, picture=unit == 5, **texts)

    index = write_reports(study, list(range(200)), tmp_path / "out", TEXTS, make=make)
    one = tmp_path / "out" / page_name(5)
    for page, there in ((index, 1), (one, 5)):
        found = browser.open(page)
        assert (found["images"], found["broken"]) == (there, 0)
        assert found["scroll"] <= 360, found["beyond"]
        assert browser.console() == []
    assert [browser.tab() for _ in range(4)] == ["Skip to the findings", "All units", "Previous", "Next"]
    browser.run("document.querySelectorAll('nav a')[2].click()")
    browser._until(lambda event: event.get("method") == "Page.loadEventFired")
    assert browser.run("document.title") == "Unit 6 of conv"


@in_a_browser
def test_hostile_names_in_a_browser(browser: Browser, tmp_path: Path) -> None:
    _, block = images()
    layer = HOSTILE.replace(".", "")
    names = [HOSTILE, "x" * 400, "مرحبا‮ right to left\nsecond line"]
    concepts = (torch.stack([block, torch.arange(60) % 3 == 0, torch.arange(60) % 5 == 0], 1), names)
    files = Files(tmp_path, HOSTILE + "x" * 400)
    study = study_of(net(layer), layer, [0], files, concepts=concepts, maps=linear_maps, pictures=None, **SMALL)
    index = write_reports(study, [0], tmp_path / "out", Texts(HOSTILE, HOSTILE, (HOSTILE,), {HOSTILE: HOSTILE}))
    found = browser.open(index)
    assert found["scripts"] == 1  # our own
    assert found["broken"] == 0
    assert found["scroll"] <= 360, found["beyond"]
    assert browser.console() == []
    assert HOSTILE in found["text"]
