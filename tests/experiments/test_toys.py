"""The published toy problems: exact scores of the motion detector, and the absence of green from every seed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from absence_plugins.data.reichardt import reichardt_detector, reichardt_frames
from absence_plugins.experiments.toys import PIXEL_SEEDS, PUBLISHED_PIXELS, pixel_run, run_colored_pixels, run_reichardt
from absence_plugins.methods.patches import find_extreme_patches


def test_reichardt_scores_are_the_published_ones() -> None:
    frames, _ = reichardt_frames()
    found = find_extreme_patches(reichardt_detector(), "2", frames, k=8, size=6, stride=1, progress=False)
    seventh = 1 / 7
    assert torch.allclose(found.highest.scores, torch.full((2, 8), seventh), atol=1e-7)
    assert torch.allclose(found.lowest.scores[0], torch.full((8,), -seventh), atol=1e-7)
    assert torch.equal(found.lowest.scores[1], torch.zeros(8))
    assert f"{float(found.highest.scores[0, 0]):.6f}" == "0.142857"
    low = found.lowest.cut(frames)[0]  # every one holds a bar that moves left
    moved_left = (low[:, 0, 0, 1:] * low[:, 1, 0, :-1]).sum(1)
    assert bool((moved_left >= 1).all())


def test_reichardt_page(tmp_path: Path) -> None:
    page = run_reichardt(tmp_path / "out", progress=False).read_text(encoding="utf-8")
    assert "0.143, 0.143" in page
    results = json.loads((tmp_path / "out" / "results.json").read_text())
    assert results["patches"]["lowest"]["scores"][0][0] == pytest.approx(-1 / 7)
    first, second = results["insertion"]["units"]
    assert first["flagged"]
    assert not second["flagged"]


@pytest.mark.slow
def test_colored_pixels_recover_the_absence_of_green_from_every_seed(tmp_path: Path) -> None:
    page = run_colored_pixels(tmp_path / "out", progress=False).read_text(encoding="utf-8")
    results = json.loads((tmp_path / "out" / "results.json").read_text())
    assert PIXEL_SEEDS == len(results["runs"]) == 5
    assert all(run["recovered"] and run["accuracy"] >= 0.99 and run["q"][1] <= 0.05 for run in results["runs"])
    low, high = (torch.tensor([run[side] for run in results["runs"]]) for side in ("lowest", "highest"))
    assert bool((low[:, 1] < low[:, 0]).all() and (low < 0).all() and (high[:, 0] > high[:, 1]).all())  # as published
    assert "Published run: -3.21 and -6.88, 6.99 and 3.18" in page
    assert "Recovered in 5 of 5 trainings" in page
    assert {key: tuple(value) for key, value in results["published"].items()} == PUBLISHED_PIXELS


@pytest.mark.slow
def test_a_run_is_repeatable() -> None:
    first, again = pixel_run(1), pixel_run(1)
    assert first["lowest"] == again["lowest"]
    assert first["q"] == again["q"]
