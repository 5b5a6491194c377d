"""The experiments' pages, the baselines, the command for a user's model, the bench."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

from absence_plugins.cli import app
from absence_plugins.data import load_digits
from absence_plugins.data.synthetic_directions import synthetic_directions
from absence_plugins.experiments.directions.baselines import BASELINES, baseline
from absence_plugins.experiments.directions.compare import compare_methods
from absence_plugins.experiments.directions.digits import run_digits
from absence_plugins.experiments.directions.recovery import compare
from absence_plugins.experiments.directions.settings import OURS
from absence_plugins.experiments.directions.synthetic import run_synthetic
from absence_plugins.report.plots.directions import GalleryEntry, gallery_figure, gallery_panels


def test_recovery_of_the_truth_is_perfect_and_matches_any_order() -> None:
    data = synthetic_directions(0, images=300)
    order = torch.tensor([2, 0, 1])
    fires, values = data.present.flatten(0, 2)[:, order], data.signal_values.flatten(0, 2)[:, order] - 2.5
    found = compare(data, fires, data.encoding[:, order], values)
    assert found.ok
    assert found.matched == (1, 2, 0)
    assert min(found.iou) == 1
    assert min(found.cosine) > 0.9999
    assert max(found.rmse) < 1e-5
    assert not compare(data, ~fires, data.encoding[:, order], values).ok
    assert json.dumps(found.to_dict())
    assert "IoU >= 1.000" in repr(found)


@pytest.mark.slow
def test_baselines_do_not_recover_all_pairs() -> None:
    data = synthetic_directions(1, images=900)
    found = {name: baseline(name, data) for name in BASELINES}
    assert not any(one.ok for one in found.values())
    # the strong cheap one sees where concepts are
    assert min(found["k-means + logistic"].iou) > 0.9
    assert min(found["k-means + logistic"].cosine) > 0.85
    assert all(min(found[name].cosine) < 0.9 for name in BASELINES if name != "k-means + logistic")
    with pytest.raises(ValueError, match="unknown"):
        baseline("LDA", data)


def test_the_cheap_baseline_cannot_see_the_head() -> None:
    data = synthetic_directions(1, images=1500, decoys=True)
    assert min(baseline("k-means + logistic", data).iou) < 0.5


@pytest.mark.slow
def test_synthetic_page(tmp_path: Path) -> None:
    before = torch.get_rng_state()
    path = run_synthetic(tmp_path, seeds=1, quick=True, progress=False)
    assert torch.equal(torch.get_rng_state(), before)
    page = path.read_text(encoding="utf-8")
    results = json.loads((tmp_path / "results.json").read_text(encoding="utf-8"))["methods"]
    assert {one["name"] for one in results} == {OURS, *BASELINES}
    assert all(name.lower() in page.lower() for name in BASELINES)
    assert "quick run" in page
    ours = next(one for one in results if one["name"] == OURS)
    assert ours["median_worst_iou"] > 0.9
    with pytest.raises(ValueError, match="seeds=0"):
        run_synthetic(tmp_path, seeds=0)
    with pytest.raises(ValueError, match="unknown"):
        compare_methods([0], names=["best"])


@pytest.mark.slow
def test_digits_page(tmp_path: Path) -> None:
    path = run_digits(tmp_path, directions=4, quick=True, progress=False)
    page = path.read_text(encoding="utf-8")
    assert "painted over" in page
    assert "its absence is encoded by" in page
    assert (tmp_path / "gallery.png").stat().st_size > 5000
    results = json.loads((tmp_path / "results.json").read_text(encoding="utf-8"))
    assert results["influence"]["outputs"] == [f"class {k}" for k in range(10)]
    from absence_plugins.methods.directions import DirectionPairs

    assert DirectionPairs.load(tmp_path / "pairs").n_directions == 4


@pytest.mark.filterwarnings("ignore:features has")
def test_the_command_for_a_users_model(tmp_path: Path) -> None:
    folder = tmp_path / "images"
    folder.mkdir()
    for number, image in enumerate(load_digits().test_images[:20]):
        Image.fromarray((image[0] * 255).byte().numpy()).save(folder / f"{number}.png")
    arguments = ["directions", str(folder), "--layer", "conv3", "--model", "digits", "--quiet"]
    done = CliRunner().invoke(app, [*arguments, "--count", "2", "--out", str(tmp_path / "page")])
    assert done.exit_code == 0, done.output
    assert "no effect" not in done.output
    read = "conv3: 32 channels x 8 x 8 positions, each a sample"
    assert f"reading {read}" in done.output
    assert f"Read: {read}." in (tmp_path / "page" / "index.html").read_text(encoding="utf-8")
    assert (tmp_path / "page" / "index.html").is_file()
    assert (tmp_path / "page" / "pairs" / "pairs.json").is_file()
    rows = [*arguments, "--steps", "9", "--count", "2", "--no-head", "--channels", "last"]
    rows += ["--out", str(tmp_path / "rows")]
    done = CliRunner().invoke(app, rows)
    assert done.exit_code == 0, done.output
    assert "warning: steps has no effect with recipe='robust'; recipe='paper' reads it" in done.output
    assert "reading conv3: 8 channels x 32 x 8 positions, each a sample" in done.output
    for bad, words in (
        (["directions", str(tmp_path / "none"), "--layer", "conv3", "--model", "digits"], "does not exist"),
        ([*arguments, "--count", "1"], "--count 1 must be at least 2"),
        ([*arguments, "--channels", "middle"], "auto, first or last"),
        ([*arguments[:3], "conv9", *arguments[4:]], "conv9"),
    ):
        done = CliRunner().invoke(app, bad)
        assert done.exit_code == 2
        assert words in done.output


def entry(**changes: Any) -> GalleryEntry:
    effects = (("a", 2.0), ("b", -3.0), ("c", 0.5), ("d", -0.1))
    return GalleryEntry(**({"name": "n", "patches": torch.rand(5, 1, 6, 6), "effects": effects} | changes))


def test_gallery() -> None:
    one = entry()
    assert one.pushed_up == (("a", 2.0), ("c", 0.5))
    assert one.held_down == (("b", -3.0), ("d", -0.1))
    figure = gallery_figure([one, entry(patches=torch.rand(2, 3, 6, 6))], most=1, title="t")
    bars = figure.axes[5].patches
    assert [bar.get_width() for bar in bars] == [-3.0, 2.0]
    red, blue = bars[1].get_facecolor(), bars[0].get_facecolor()
    assert red[0] > red[2]
    assert blue[2] > blue[0]
    assert [panel.kind for panel in gallery_panels(one)] == ["image", "image"]
    for bad in ({"patches": torch.rand(6, 6)}, {"patches": torch.full((1, 1, 2, 2), 3.0)}):
        with pytest.raises(ValueError, match="patches of"):
            entry(**bad)
    with pytest.raises(ValueError, match="empty"):
        gallery_figure([])
