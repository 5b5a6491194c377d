"""The row of a photograph: which region holds which output down, on networks where that is known."""

from __future__ import annotations

import html
from pathlib import Path
from typing import cast

import pytest
import torch
from PIL import Image
from torch import nn

from absence_plugins.commands.explain import explain_images
from absence_plugins.commands.maps.explainers import Found, explainer
from absence_plugins.commands.models import LoadedModel, Preprocessing
from absence_plugins.commands.photograph_row import (
    _elsewhere,
    _numbers,
    find_held_down,
    find_missing,
    find_target_held_down,
    outline,
)
from absence_plugins.commands.question import Question
from absence_plugins.methods.regions import RegionTest

SIDE = 80


class ByColor(nn.Module):
    """Class 0 adds up red, 1 green less all blue, 2 and 3 a little red and green: blue content suppresses class 1 alone."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        red, green, blue = (10 * x.mean((2, 3))).unbind(1)
        return torch.stack([10 + red, 5 + green - 4 * blue, 1 + red / 9, green / 9], 1)


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    """A gray field with a red, a green and a blue square, the blue one at rows and columns 44 to 63."""
    picture = torch.full((SIDE, SIDE, 3), 0.3)
    picture += torch.rand(SIDE, SIDE, 1, generator=torch.Generator().manual_seed(0)) * 0.05
    picture[8:28, 8:28] = torch.tensor([0.9, 0.2, 0.2])
    picture[8:28, 48:68] = torch.tensor([0.2, 0.9, 0.2])
    picture[44:64, 44:64] = torch.tensor([0.2, 0.2, 0.9])
    path = tmp_path / "photo.png"
    Image.fromarray((picture * 255).byte().numpy()).save(path)
    return path


@pytest.fixture
def loaded() -> LoadedModel:
    return LoadedModel(ByColor(), Preprocessing(SIDE, 3, (0.0,) * 3, (1.0,) * 3), ("red", "green", "rose", "lime"))


def ask(photo: Path, loaded: LoadedModel, nontarget: int | None = None) -> Question:
    return Question.ask(loaded.preprocessing.picture(photo), loaded, None, nontarget)


def test_the_suppressed_output_is_found_among_several(photo: Path, loaded: LoadedModel) -> None:
    found = find_held_down(ask(photo, loaded), explainer("relevance"), 3, 0)
    assert found.is_borne
    assert found.sentence.startswith(
        "The outlined region holds 'green' down; with it blurred, 'green' rises from -5.3 to "
    )
    assert "'red' goes from 13.4 to 13." in found.sentence
    assert "Looked at: 9 regions for 3 outputs" in found.sentence
    assert "in 0 of 19 draws (p = 0.05)" in found.sentence
    assert [panel.title for panel in found.panels[:3]] == [
        "What holds 'green' down", "The strongest region", "The region, blurred",
    ]  # fmt: skip
    yellow = (found.panels[1].data == torch.tensor([1.0, 0.85, 0.0])[:, None, None]).all(0).nonzero().float()
    assert 40 < yellow[:, 0].mean() < 68, "around the blue square"
    assert 40 < yellow[:, 1].mean() < 68


def test_a_named_non_target_is_the_only_one(photo: Path, loaded: LoadedModel) -> None:
    found = find_held_down(ask(photo, loaded, 2), explainer("relevance"), 1, 0)
    assert found.panels[0].title == "What holds 'rose' down"
    assert "outputs" not in found.sentence


def test_missing_content_is_pasted_region_by_region(photo: Path, loaded: LoadedModel) -> None:
    """Blue is missing in the reference's place; class 1 would fall if it were there."""
    asked = Question.ask(loaded.preprocessing.picture(photo), loaded, 1, 0)
    reference = asked.x[0].clone()
    reference[:, 20:40, 20:40] = torch.tensor([0.1, 0.1, 1.0])[:, None, None]
    absence = torch.zeros(3, SIDE, SIDE)
    absence[2, 20:40, 20:40] = 1.0
    found = find_missing(asked, Found(absence[None], absence[None], 0.0), reference, "other.png", (), 0)
    assert "what other.png has in the outlined region is missing here, and that raises 'green'" in found.sentence
    assert "'green' falls from" in found.sentence
    assert not found.is_borne, "the network looks at colors alone, so blue content does the same elsewhere"
    assert "not further than at random places" in found.sentence


def test_maps_that_name_nothing_say_what_was_looked_for(photo: Path, loaded: LoadedModel) -> None:
    asked = ask(photo, loaded)
    nothing = Found(torch.zeros(1, 3, SIDE, SIDE), torch.zeros(1, 3, SIDE, SIDE), 0.0)
    missing = find_missing(asked, nothing, asked.x[0], "other.png", (), 0)
    assert missing.sentence.startswith("The map names no region of other.png whose absence here raises 'red'")
    held = find_target_held_down(asked, nothing, (), 0)
    assert held.sentence.startswith("No region of the image holds 'red' itself down")
    assert not missing.is_borne
    assert not held.is_borne


def test_an_output_that_does_not_move_stays(photo: Path, loaded: LoadedModel) -> None:
    """The region that the map names is the same in the reference."""
    asked = ask(photo, loaded)
    absence = torch.zeros(1, 3, SIDE, SIDE)
    absence[:, :, 44:64, 44:64] = 1.0
    found = find_missing(asked, Found(absence, absence, 0.0), asked.x[0], "other.png", (), 0)
    assert "'red' stays at 13.4 (elsewhere" in found.sentence
    assert not found.is_borne


@pytest.mark.parametrize(
    ("after", "said"),
    [(11.44, "11.40 → 11.44"), (9.2, "11.4 → 9.2"), (11.4, "11.4 → 11.4"), (11.37, "11.40 → 11.37")],
)
def test_a_small_change_shows_in_the_numbers(after: float, said: str) -> None:
    test = RegionTest(
        torch.ones(3, 3, dtype=torch.bool), torch.zeros(3, 3, 3), True, 11.4, after, torch.full((2,), 11.399)
    )
    asked = cast("Question", None)
    assert _numbers(asked, test, "'cup'") == f"'cup' {said}"
    assert "-0.0 " not in _elsewhere(test)


@pytest.mark.slow
def test_the_page(photo: Path, loaded: LoadedModel) -> None:
    found = explain_images([photo], loaded, photo.parent / "page", method="relevance", progress=False)
    page = html.unescape(found.page.read_text(encoding="utf-8"))
    assert "What holds 'green' down" in page
    assert "the network bears out 1 of 1 non-target maps" in found.summary()


def test_an_outline_lies_around_the_region() -> None:
    where = torch.zeros(9, 9, dtype=torch.bool)
    where[3:6, 3:6] = True
    drawn = outline(torch.zeros(3, 9, 9), where)
    assert not drawn[:, where].any()
    assert int((drawn[0] > 0).sum()) == 25 - 9
