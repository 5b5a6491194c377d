"""Folder names and options as numbers: only if they are spelled so, all of them, and the model has the outputs (F30)."""

from __future__ import annotations

import unicodedata

import pytest

from absence_plugins import Unit
from absence_plugins.cli.app import two_channels, unit_numbers
from absence_plugins.commands.class_folders import match_folders
from absence_plugins.commands.class_names import find_class

NAMES = ("tench", "Löwe", "3", "red fox")


@pytest.mark.parametrize(
    ("folders", "count", "classes", "said"),
    [
        (("0", "2"), 3, (0, 2), "read as numbers of outputs, from 0"),
        (("1", "2"), 3, (1, 2), "from 0 and not from 1"),
        (("1", "2", "3"), 3, (0, 1, 2), "counted from 1 in alphabetical order, as there is no output 3"),
        (tuple(map(str, range(1, 10))), 9, tuple(range(9)), "counted from 1"),
        (("²", "3"), 4, (None, None), ""),
        (("²", "3"), 2, (1, 0), "alphabetical"),  # as many as outputs
        (("①", "②", "③"), 3, (0, 1, 2), "alphabetical"),
        (("01", "02", "03"), 3, (0, 1, 2), "alphabetical"),
        (("01", "02"), 3, (None, None), ""),
        (("0", "1", "other"), 4, (None, None, None), ""),  # not all are numbers
        (("-1", "0"), 3, (None, None), ""),
        (("2019", "2020"), 1000, (None, None), ""),  # years
        (("0", "1", "9" * 30), 2, (None, None, None), ""),
    ],
)
def test_folders_are_numbers_only_if_all_are(
    folders: tuple[str, ...], count: int, classes: tuple[int | None, ...], said: str
) -> None:
    names = sorted(folders)
    found = match_folders(names, (), count)
    assert found.classes == dict(zip(folders, classes, strict=True))
    assert said in found.note
    assert bool(said) == bool(found.note)


def test_where_numbers_and_the_alphabet_differ_it_is_said_or_refused() -> None:
    ten = sorted(map(str, range(11)))
    assert "(torchvision's ImageFolder would count them as 0, 1, 10, 2, 3, 4, ...)" in match_folders(ten, (), 11).note
    assert match_folders(ten, (), 11).classes["10"] == 10
    with pytest.raises(ValueError, match=r"either they are counted from 1, or in alphabetical order \(1, 10, 2"):
        match_folders(sorted(map(str, range(1, 11))), (), 10)
    with pytest.raises(ValueError, match="either they are counted from 1, or there is no output for 5; rename them"):
        match_folders(["1", "2", "5"], (), 5)


@pytest.mark.parametrize(
    ("agree", "said"),
    [
        ((8, 1, 1), "counted from 1, as the model predicts so for 8 of 10 images (1 if counted in alphabetical order)"),
        ((1, 6, 3), "counted in alphabetical order, as the model predicts so for 6 of 10 images (1 if counted from 1)"),
        ((4, 1, 5), "the model predicts the former for 4 and the latter for 1 of 10 images; rename"),  # fewer than half
        (
            (6, 4, 0),
            "the model predicts the former for 6 and the latter for 4 of 10 images; rename",
        ),  # less than twice as often
        ((0, 0, 10), "the model predicts the former for 0 and the latter for 0 of 10 images; rename"),
    ],
)
def test_the_models_predictions_tell_the_order_from_ten_on(agree: tuple[int, int, int], said: str) -> None:
    names = sorted(map(str, range(1, 13)))  # 1, 10, 11, 12, 2, ...; the folder 2 is class 1 or 4
    predicted = [("2", index) for index, times in zip((1, 4, 7), agree, strict=True) for _ in range(times)]
    if "rename" in said:
        with pytest.raises(ValueError, match=said):
            match_folders(names, (), 12, predicted)
        return
    found = match_folders(names, (), 12, predicted)
    assert found.note == said
    assert found.classes["10"] == (9 if "counted from 1," in said else 1)


def test_the_names_of_the_model_go_before_numbers() -> None:
    assert match_folders(["1", "2"], ("2", "1", "0"), 3).classes == {"1": 1, "2": 0}
    assert "not as numbers" in match_folders(["1", "2"], ("2", "1", "0"), 3).note
    assert match_folders(["1", "2"], tuple("0123456789"), 10).note == ""
    assert match_folders(["3", "7"], NAMES, 4).classes == {"3": 2, "7": None}
    decomposed = unicodedata.normalize("NFD", "löwe")
    assert match_folders([decomposed], NAMES, 4).classes == {decomposed: 1}


@pytest.mark.parametrize("text", ["²", "01", "+1", "1_0", "٣"])
def test_options_are_numbers_only_if_they_are_spelled_so(text: str) -> None:
    with pytest.raises(ValueError, match="is no class of the model"):
        find_class("--target", text, NAMES, 4)
    with pytest.raises(ValueError, match="must read LAYER:INDEX"):
        Unit.parse(f"features.3:{text}")
    with pytest.raises(ValueError, match="must be unit numbers such as"):
        unit_numbers(f"3,{text}")
    with pytest.raises(ValueError, match="must be unit numbers such as"):
        unit_numbers(f"0-{text}")
    with pytest.raises(ValueError, match="must be auto, first or last"):
        two_channels(text)


def test_numbers_still_are() -> None:
    assert unit_numbers("0, 5,8-10") == [0, 5, 8, 9, 10]
    assert two_channels("1,last") == (1, "last")
    assert find_class("--target", " 3 ", NAMES, 4) == 3
    assert find_class("--target", unicodedata.normalize("NFD", "LÖWE"), NAMES, 4) == 1
    for text in ("5-", "-5", "1-2-3", ""):
        with pytest.raises(ValueError, match="must be unit numbers"):
            unit_numbers(text)
