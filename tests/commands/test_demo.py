"""The demo: what it claims on its page is measured, and the measurement is right."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from absence_plugins import ReferenceSet, Unit
from absence_plugins.commands.demo import Pair, distinct, rank_pairs, run_demo
from absence_plugins.commands.pasting import insert_missing, remove_suppressor, strongest
from absence_plugins.data import digits_cnn, load_digits
from absence_plugins.methods.missing import missing_set


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(3)
    before = torch.random.get_rng_state(), np.random.get_state()[1].copy()
    path = run_demo(tmp_path_factory.mktemp("demo") / "out", pairs=2, progress=False)
    assert torch.equal(before[0], torch.random.get_rng_state())
    assert (before[1] == np.random.get_state()[1]).all()
    return path


def test_page_says_what_was_measured(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    results = json.loads((page.parent / "results.json").read_text(encoding="utf-8"))
    assert len(results["pairs"]) == 90
    assert len(results["shown"]) == 2
    model, digits = digits_cnn(), load_digits()
    for shown in results["shown"]:
        image = digits.test_images[shown["image"] : shown["image"] + 1]
        assert int(digits.test_labels[shown["image"]]) == shown["digit"]
        with torch.no_grad():
            assert float(model(image)[0, shown["digit"]]) == pytest.approx(shown["before"], abs=1e-4)
        assert f"from {shown['before']:.1f} to {shown['after']:.1f}" in text
        assert shown["change"] < shown["random_change"] - 1, "the missing strokes must matter more than random pixels"
    # two pairs; of the first Zennit's maps, the missing set, the unit, the digit switched off, the two sides of its logit
    panels = 2 * 6 + 4 + 3 + 5 + 3 + 4
    assert len(re.findall(r"<img ", text)) == panels
    assert len(list((page.parent / "figures").glob("*.png"))) == panels


def test_table_says_what_its_order_is(page: Path) -> None:
    """The pairs stand by the difference of two columns, and the lead says so."""
    text = page.read_text(encoding="utf-8")
    results = json.loads((page.parent / "results.json").read_text(encoding="utf-8"))
    assert "the table begins with the pair for which the logit falls furthest beyond the control" in " ".join(
        text.split()
    )
    effects = []
    for shown in results["shown"]:
        pair = next(p for p in results["pairs"] if (p["digit"], p["other"]) == (shown["digit"], shown["other"]))
        effects.append(pair["random_change"] - pair["change"])
        assert f"{effects[-1]:.1f}" in text
        assert f"{shown['digit']}, because not {shown['other']}" in text
    assert effects == sorted(effects, reverse=True)


def test_the_last_row_shows_a_logit_from_both_sides(page: Path) -> None:
    """Its real values are the extremes over the training images; the rendered ones lie outside, on either side."""
    text = page.read_text(encoding="utf-8")
    results = json.loads((page.parent / "results.json").read_text(encoding="utf-8"))
    digit = results["shown"][0]["digit"]
    assert f"Logit {digit}, from both sides" in text
    with torch.no_grad():
        values = digits_cnn()(load_digits().train_images)[:, digit]
    assert f"lies between {float(values.min()):.3g} and {float(values.max()):.3g}" in text
    found = re.search(r"raises logit \d to (\S+), the other lowers it to (\S+);", text)
    assert found is not None
    assert float(found[1]) > float(values.max())
    assert float(found[2]) < float(values.min())


def test_ranking_is_by_effect_and_each_digit_comes_once(page: Path) -> None:
    results = json.loads((page.parent / "results.json").read_text(encoding="utf-8"))
    effects = [pair["random_change"] - pair["change"] for pair in results["pairs"]]
    assert effects == sorted(effects, reverse=True)
    best = results["pairs"][0]
    assert (results["shown"][0]["digit"], results["shown"][0]["other"]) == (best["digit"], best["other"])
    pairs = [Pair(3, 8, -5, 0, (0,)), Pair(8, 3, -4, 0, (0,)), Pair(3, 9, -3, 0, (0,)), Pair(8, 1, -2, 0, (0,))]
    assert [(pair.digit, pair.other) for pair in distinct(pairs, 3)] == [(3, 8), (8, 1)]


def test_missing_strokes_of_most_pairs_lower_the_logit(page: Path) -> None:
    results = json.loads((page.parent / "results.json").read_text(encoding="utf-8"))
    assert sum(pair["change"] < pair["random_change"] for pair in results["pairs"]) >= 75


@pytest.mark.slow
def test_same_seed_same_ranking() -> None:
    model, data = digits_cnn(), load_digits()
    small = type(data)(data.train_images[:400], data.train_labels[:400], data.test_images[:80], data.test_labels[:80])
    first, second = (rank_pairs(model, small, seed=1, progress=False) for _ in range(2))
    assert first == second


@pytest.mark.parametrize("pairs", [0, 10])
def test_demo_refuses_a_number_of_pairs_it_cannot_show(pairs: int, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=f"pairs={pairs} must lie between 1 and 9"):
        run_demo(tmp_path, pairs=pairs, progress=False)


def test_demo_refuses_to_overwrite_a_file(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    with pytest.raises(ValueError, match="is an existing file"):
        run_demo(tmp_path / "file", progress=False)
    assert (tmp_path / "file").read_text() == "mine"


def weighted(images: Tensor) -> Tensor:
    """An output that pixel (0, 0) holds down by 5 and every other pixel raises by 1."""
    flat = images.flatten(1)
    return flat.sum(1) - 6 * flat[:, 0]


def test_insertion_in_closed_form() -> None:
    """x is empty, the reference is full: pasting pixel (0, 0) lowers u by 5; any other pixel raises it by 1."""
    x, reference, absence = torch.zeros(1, 6, 6), torch.ones(1, 6, 6), torch.zeros(1, 6, 6)
    absence[0, 0, 0] = 1
    test = insert_missing(weighted, x, reference, absence)
    assert (test.pixels, test.before, test.change, test.random_change, test.random_sd) == (1, 0.0, -5.0, 1.0, 0.0)


def test_removal_in_closed_form() -> None:
    x, negative = torch.ones(1, 6, 6), torch.zeros(1, 6, 6)
    negative[0, 0, 0] = 1
    test = remove_suppressor(weighted, x, negative, 0.0)
    assert (test.before, test.change, test.random_change) == (30.0, 5.0, -1.0)


def test_strongest_takes_only_positive_evidence() -> None:
    magnitude = torch.zeros(2, 10, 10)
    magnitude[:, 0, :3] = torch.tensor([1.0, 3.0, 2.0])
    assert strongest(magnitude, 0.02).nonzero().tolist() == [[0, 1], [0, 2]]
    assert int(strongest(magnitude, 0.5).sum()) == 3
    assert int(strongest(torch.zeros(1, 4, 4)).sum()) == 0


def test_the_silent_unit_and_the_change_are_measured(page: Path) -> None:
    """The unit is 0 on the image, and the page's picture takes the logit to 0."""
    text = " ".join(page.read_text(encoding="utf-8").split())
    shown = json.loads((page.parent / "results.json").read_text(encoding="utf-8"))["shown"][0]
    digits, model = load_digits(), digits_cnn()
    x = digits.test_images[shown["image"] : shown["image"] + 1]
    found = re.search(r"unit (\d+) is silent on this \d, and (\S+) on the", text)
    assert found is not None
    with torch.no_grad():
        assert float(Unit("relu4", int(found[1]), side="output").values(model, x)) == 0.0
    changed = re.search(r"takes the logit from (\S+) to (\S+): (\S+) root mean square", text)
    assert changed is not None
    assert float(changed[1]) == pytest.approx(shown["before"], abs=0.06)
    assert float(changed[2]) <= 0.0


def test_the_missing_set_is_measured(page: Path) -> None:
    text = " ".join(page.read_text(encoding="utf-8").split())
    shown = json.loads((page.parent / "results.json").read_text(encoding="utf-8"))["shown"][0]
    digits, model = load_digits(), digits_cnn()
    x = digits.test_images[shown["image"] : shown["image"] + 1]
    pool = ReferenceSet(digits.train_images, digits.train_labels, contrast=shown["other"], k=4)
    found = missing_set(model, x, pool, foil=shown["other"])
    assert found.verify(model)
    assert found.sentence() in text
