"""Names of any script in figures: which fonts are chosen, what is transliterated, one warning, no TeX."""

from __future__ import annotations

import builtins
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from matplotlib.figure import Figure
from matplotlib.text import Text

from absence_plugins.core import AbsenceWarning
from absence_plugins.methods.invert import label_units
from absence_plugins.report import Panel, row_figure
from absence_plugins.report.pages.pictures import draw_png
from absence_plugins.report.plots import lettering
from absence_plugins.report.plots.bars import bars
from absence_plugins.report.plots.directions import GalleryEntry, gallery_figure
from absence_plugins.report.plots.labels import label_figure
from absence_plugins.report.plots.lettering import choose_fonts, find_fonts, set_letters, spell, transliterate, wrap
from absence_plugins.report.plots.models import GRADES, matrix_figure
from absence_plugins.report.plots.patches import patches_figure
from absence_plugins.report.plots.placing import draw_bars

CAT = "\u732b"
CACHED = ("_charmap", "_installed", "_advance", "_warn_once")
# By script: a name, and how it is written in Latin letters.
SCRIPTS = {
    "Chinese": ("\u732b\u54aa", "MaoMi"),
    "Japanese": ("\u306d\u3053 3", "neko 3"),
    "Korean": ("\uace0\uc591\uc774", "GoYangI"),
    "Devanagari": ("\u092c\u093f\u0932\u094d\u0932\u0940", "billi"),
    "Thai": ("\u0e41\u0e21\u0e27", "aemw"),
    "Amharic": ("\u12f5\u1218\u1275", "dmet"),
    "emoji": ("\U0001f469\u200d\U0001f680", ":woman::rocket:"),
    "private": ("\ue000\ue001", "\\ue000\\ue001"),
}
CHARMAP = lettering._charmap


@pytest.fixture(autouse=True)
def _forget() -> Iterator[None]:
    forget()
    yield
    forget()


def forget() -> None:
    for name in CACHED:
        getattr(getattr(lettering, name), "cache_clear", lambda: None)()


@pytest.fixture
def no_fonts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever is installed here: DejaVu Sans alone, without scripts that some versions of it have."""
    letters = frozenset(CHARMAP(lettering.FONT, "normal")) - set(range(0x0900, 0x1400)) - set(range(0x1F400, 0x1F700))
    monkeypatch.setattr(lettering, "_installed", lambda _weight: {})
    monkeypatch.setattr(lettering, "_charmap", lambda _name, _weight: letters)


@pytest.mark.parametrize("script", SCRIPTS)
def test_what_no_font_has_is_transliterated(script: str, no_fonts: None) -> None:
    name, latin = SCRIPTS[script]
    with pytest.warns(AbsenceWarning, match=r"no installed font has all letters.*install fonts"):
        assert spell(f"a {name} b") == f"a {latin} b"


def test_without_anyascii_it_is_an_escape(monkeypatch: pytest.MonkeyPatch) -> None:
    plain = builtins.__import__

    def refuse(name: str, *more: Any, **options: Any) -> Any:
        if name == "anyascii":
            raise ImportError(name)
        return plain(name, *more, **options)

    monkeypatch.setattr(builtins, "__import__", refuse)
    assert transliterate(f"{CAT}\U0001f408\u200d") == "\\u732b\\U0001f408"


def test_an_installed_font_with_the_letters_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    fonts = {"Kana": frozenset({0x306D}), "Han": frozenset({0x732B, 0x306D}), "Thai": frozenset({0x0E41})}
    monkeypatch.setattr(lettering, "_installed", lambda _weight: fonts)
    assert find_fonts("cat \u00e9 \u2192 \u0416") == ["DejaVu Sans"]
    assert find_fonts(f"{CAT}\u306d") == ["DejaVu Sans", "Han"]
    assert find_fonts("\u306d") == ["DejaVu Sans", "Kana"]
    assert find_fonts(f"{CAT}\u0e41") == ["DejaVu Sans", "Han", "Thai"]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert spell(f"{CAT}\u306d \u0e41") == f"{CAT}\u306d \u0e41"
    assert set_letters(CAT) == {"parse_math": False, "usetex": False, "family": ["DejaVu Sans", "Han"]}
    assert "family" not in set_letters("cat", always=False)


def test_few_fonts_are_chosen() -> None:
    fonts = {"a": {1}, "b": {2, 3}, "c": {1, 2}}
    assert choose_fonts({1, 2, 3}, fonts) == ["b", "a"]
    assert choose_fonts({1, 9}, fonts) == ["a"]
    assert choose_fonts({9}, fonts) == choose_fonts({1}, {}) == []


def test_a_fallback_is_drawn_with_its_own_glyphs() -> None:
    """Fonts that come with matplotlib: DejaVu Sans lacks a letter that STIXGeneral has."""
    letter = chr(min(CHARMAP("STIXGeneral", "normal") - CHARMAP(lettering.FONT, "normal") - set(range(0xE000, 0xF900))))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert spell(letter) == letter
        fonts = find_fonts(letter)
        assert len(fonts) == 2
        figure = Figure()
        figure.text(0.5, 0.5, letter, **set_letters(letter))
        drawn = draw_png(figure)
    figure.texts[0].set_text(" ")
    assert drawn != draw_png(figure)


def test_fonts_without_letters_are_never_chosen() -> None:
    assert not [name for name in lettering._installed("normal") if "resort" in name.lower() or "Blank" in name]


@pytest.mark.parametrize("name", ["\u0642\u0637\u0629 3", "\u05d7\u05ea\u05d5\u05dc"])
def test_names_from_right_to_left(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """matplotlib orders and joins their letters from 3.11 on; older versions draw them from the left, so not at all."""
    monkeypatch.setattr(lettering, "SHAPES", True)
    assert spell(name) == name
    monkeypatch.setattr(lettering, "SHAPES", False)
    with pytest.warns(AbsenceWarning):
        assert spell(name).isascii()


SAMPLES = [f"$a_b^c$ {CAT}", "\\frac \u0642\u0637\u0629", "caf\udce9 \x07 $", "x" * 300, "a\nb$", "\u202egnp"]
UNITS = (torch.arange(60)[:, None] // torch.tensor([1, 2, 3, 5, 7, 11])) % 2 == 1


def gallery() -> Figure:
    entries = [
        GalleryEntry(name, torch.rand(2, 1, 4, 4), ((name, -1.0), (SAMPLES[0], 2.0)), name) for name in SAMPLES[:3]
    ]
    return gallery_figure(entries, title=SAMPLES[0])


def labels() -> Figure:
    found = label_units(UNITS[:, 0].float(), UNITS, SAMPLES, progress=False)
    return label_figure(found[0], UNITS[:, 0].float(), UNITS, SAMPLES)


FIGURES: dict[str, Callable[[], Figure]] = {
    "maps": lambda: row_figure([Panel("signed", torch.ones(2, 2), n, n, positive=n) for n in SAMPLES[:2]], title=SAMPLES[0]),
    "bars": lambda: draw_bars(None, SAMPLES, [1.0] * 6, SAMPLES[0], title=SAMPLES[0]),
    "groups": lambda: bars(SAMPLES, {SAMPLES[0]: [[0.5]] * 6}, SAMPLES[0]),
    "gallery": gallery,
    "labels": labels,
    "models": lambda: matrix_figure([(SAMPLES[0], SAMPLES[1], "1")], ["m"], [[next(iter(GRADES))]]),
    "patches": lambda: patches_figure((torch.rand(2, 3, 4, 4), torch.ones(2)), (torch.rand(2, 3, 4, 4), torch.ones(2)), SAMPLES[0]),
}  # fmt: skip


@pytest.mark.parametrize("kind", FIGURES)
def test_figures_with_any_names_are_drawn_with_one_warning_and_without_tex(kind: str, no_fonts: None) -> None:
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        figure = FIGURES[kind]()
        assert draw_png(figure)
    assert [one.category for one in seen] == [AbsenceWarning], [str(one.message) for one in seen]
    texts = [one for one in figure.findobj(Text) if one.get_text().strip()]  # type: ignore[attr-defined]
    assert any("Mao" in one.get_text() for one in texts)
    assert not [one.get_text() for one in texts if "$" in one.get_text() and one.get_parse_math()]


def test_lines_of_any_script_fit(no_fonts: None) -> None:
    with pytest.warns(AbsenceWarning):
        lines = wrap(CAT * 60 + " \u0642\u0637\u0629 " + "x" * 300, 1.0, 9)
    assert "".join(lines).replace(" ", "").startswith("Mao" * 60)
    assert max(map(len, lines)) < 20
