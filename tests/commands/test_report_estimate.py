"""Before a report: what it will ask of the model is counted, and that is what is then run."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from typer.testing import CliRunner

from absence_plugins.cli import app
from absence_plugins.commands.layers import Scan, Subject, scan_layer
from absence_plugins.commands.maps.unit import default_maps
from absence_plugins.commands.report_estimate import ReportEstimate, Trial, say_estimate
from absence_plugins.commands.scan_estimate import Finished, ScanCount, ScanTime
from absence_plugins.core.hooks import counting
from absence_plugins.data import digits_cnn, load_digits
from absence_plugins.methods.checkpoint import read_tensors, write_tensors
from absence_plugins.methods.faithfulness import absence_scores
from absence_plugins.methods.faithfulness.controls import score_controls
from absence_plugins.methods.faithfulness.cost import CONTROLS, count_forwards
from absence_plugins.report.unit import report_of, study_of
from absence_plugins.report.unit.costs import UnitCost
from absence_plugins.report.unit.study import Study

IMAGES = load_digits().images[:40]
ONCE = 12  # forwards, at most, that find out how windows and pasted images run
SCAN = Scan(size=12, stride=10, mode="mask", k=4, images_per_unit=100, batch_size=64)


def ran(model: nn.Module, work: Any) -> int:
    """How many images go through the model."""
    seen: list[int] = []
    with counting(model, seen.append):
        work()
    return sum(seen)


@pytest.mark.parametrize("protocol", ["controlled", "paper"])
@pytest.mark.parametrize("units", [[3, 10], None])
def test_scan_and_test_run_what_was_counted(protocol: str, units: list[int] | None) -> None:
    """Every image is pasted into by every unit, so that the most there can be is what there is."""
    model, scan = digits_cnn(), replace(SCAN, protocol=protocol, units=units)
    subject = Subject(model, IMAGES, lambda images: images, 0.0, "")
    windows = 9
    count = ScanCount.of(len(IMAGES), windows, 32 if units is None else 2, scan)
    measured: list[ScanTime] = []
    probing = ran(
        model, lambda: measured.append(ScanTime.measure(model, IMAGES, study().at, scan, 32 if units is None else 2))
    )
    assert measured[0].count == count
    assert probing <= ONCE + 1 + windows + 1 + 4
    look = study().look
    total = ran(model, lambda: scan_layer(subject, "conv3", scan, look=look, is_estimated=True, progress=False))
    assert 0 <= total - (count.scanned * windows + count.forwards) <= ONCE


def study(**options: Any) -> Study:
    return study_of(
        digits_cnn(), "conv3", [3, 10], IMAGES, size=12, stride=10, mode="mask", k=4, images_per_unit=100,
        **{"maps": default_maps, "pictures": None, "scored": 2, "examples": 1, "references": 3, "progress": False, **options},
    )  # fmt: skip


def test_scores_run_what_was_counted() -> None:
    """All cells differ from blank and in their effects, and only the last of them lifts the unit, so nothing is cut off."""
    generator = torch.Generator().manual_seed(0)
    net = nn.Sequential(nn.Flatten(), nn.Linear(3 * 8 * 8, 1)).double()
    x, other = (torch.rand(2, 3, 8, 8, generator=generator, dtype=torch.float64) + 0.1 for _ in range(2))
    signed = torch.randn(2, 3, 8, 8, generator=generator, dtype=torch.float64)
    net[1].weight.data = -torch.rand(1, 192, generator=generator, dtype=torch.float64)
    scores = partial(absence_scores, net, x, lambda images: net(images)[:, 0], progress=False, cell=1)
    assert ran(net, partial(scores, signed)) == count_forwards(2, 64, "nontarget")
    more = partial(scores, signed, view="reference", reference=other, standard=-signed, empty=9.0)
    assert ran(net, more) <= count_forwards(2, 64, "reference", has_standard=True)


def test_a_report_runs_about_what_was_counted() -> None:
    """Black cells of digits tie, which makes the scores more, and cannot be blanked, which makes them less."""
    found = study()
    assert found.tested is not None
    found.peaks(3)
    cost, trial = UnitCost.of(found), Trial.run(found)
    assert trial.map_forwards == 2
    without = study(scored=0)
    without.peaks(3), without.tested
    bare = UnitCost.of(without)
    assert bare.scores == 0
    assert (cost.maps, bare.maps) == (12, 6)  # blank and 3 references, and blank; 3 for each of 2 scored; the reasons'
    said = bare.others + bare.maps * trial.map_forwards
    assert 0.4 * said <= ran(without.model, partial(report_of, without, 3)) <= said
    total = cost.scores + cost.others + cost.maps * trial.map_forwards
    assert 0.8 * total <= ran(found.model, partial(report_of, found, 3)) <= 1.2 * total


def test_the_parts_add_up_and_are_said(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    found = study()
    times = ScanTime.measure(found.model, IMAGES, found.at, SCAN, 32)
    estimate = ReportEstimate(times, len(IMAGES), 5, UnitCost.of(found), Trial.run(found))
    twice = replace(estimate, units=10)
    assert estimate.forwards["scan"] == 20 * 9
    for name in ("scores", "pages"):
        assert twice.forwards[name] == 2 * estimate.forwards[name] > 0
        assert twice.seconds[name] == pytest.approx(2 * estimate.seconds[name])
    before = times.seconds + len(IMAGES) * (times.whole + times.reading)
    assert sum(estimate.seconds[name] for name in ("scan", "test", "values")) == pytest.approx(before)
    assert twice.bytes == 2 * estimate.bytes > 0
    state = torch.get_rng_state()
    say_estimate(replace(found, pairs=3), SCAN, 32, 5, tmp_path, ["less"])
    assert torch.equal(torch.get_rng_state(), state)
    said = capsys.readouterr().err
    assert "the fit says its own time" in said
    assert "report of 5 units of conv3 on 40 images: about" in said
    for part in ("20 images x 9 windows = 180 forwards of whole images", "insertion test of 32 units", "disk: "):
        assert part in said
    assert f"5 x {UnitCost.of(found).scores:,} forwards" in said
    assert "pictures:" not in said


def test_what_is_kept_is_not_estimated_again(tmp_path: Path) -> None:
    """A finished scan and test cost nothing more; of two ranks' states that of either counts."""
    found, scan = study(), replace(SCAN, units=[3, 10], checkpoint=tmp_path)
    times = ScanTime.measure(found.model, IMAGES, found.at, scan, 2)
    assert times.finished == Finished()
    assert min(times.scanning, times.testing, times.loading) > 0
    subject = Subject(found.model, IMAGES, lambda images: images, 0.0, "")
    scan_layer(subject, "conv3", scan, look=found.look, is_estimated=True, progress=False)
    after = ScanTime.measure(found.model, IMAGES, found.at, scan, 2)
    assert after.finished == Finished(1.0, 1.0)
    assert after.seconds == 0
    folder = tmp_path / "conv3"
    tensors = read_tensors(folder / "rank-00000.safetensors")
    done = tensors["done"]
    assert len(done) > 1
    for rank, part in enumerate((slice(None, 1), slice(-1, None))):
        some = torch.zeros_like(done)
        some[part] = 1
        write_tensors(folder / f"rank-{rank:05d}.safetensors", {**tensors, "done": some})
    assert Finished.of(folder).scan == pytest.approx(2 / len(done))


@pytest.mark.parametrize("units", ["3,10", "0-8"])
def test_a_resumed_report_says_what_is_finished(units: str, tmp_path: Path) -> None:
    """Units on one page, and on a page each; the same command in another folder begins with nothing."""
    rest = "--skip maps,pictures,faithfulness,name --stride 20 --images-per-unit 3 --out".split()
    command = ["report", "--layer", "conv3", "--units", units, *rest, str(tmp_path / "out")]
    first, again = (CliRunner().invoke(app, command) for _ in range(2))
    assert first.exit_code == again.exit_code == 0
    count = 2 if units == "3,10" else 9
    assert f"  pages: {count} x " in first.stderr
    assert f"  pages ({count} more are finished): 0 x " in again.stderr
    assert "of whole images (100% finished)" in again.stderr
    assert "finished" not in first.stderr
    assert "a former run" not in again.stderr


def test_the_number_of_controls_is_that_of_the_cost() -> None:
    from absence_plugins.methods.faithfulness.cells import Cells
    from absence_plugins.methods.faithfulness.claims import deletion

    x = torch.rand(1, 3, 8, 8)
    claim = deletion(x, torch.zeros_like(x), Cells.of(x), lambda images, samples: images.sum((1, 2, 3)), 8)
    assert len(score_controls(claim)) == CONTROLS
