"""``bench directions``: the kept rows are today's, only missing rows are measured, the verdict."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from absence_plugins import bench
from absence_plugins.bench import run_directions_bench
from absence_plugins.bench.directions import DirectionsResult, fit_exponent
from absence_plugins.bench.directions_pages import draw_rows, insert_rows, summarize_rows
from absence_plugins.bench.directions_rows import Row, measure_methods
from absence_plugins.cli import app
from absence_plugins.experiments.directions.settings import CHEAP, OURS, QUICK, SETTINGS, TRUTH

DOCS = Path(__file__).resolve().parents[2] / "docs"
ROW = Row("published", OURS, 0, (3, 16, 6000), (0.9, 0.95), (0.8, 0.85), (0.3, 0.2), 1.0, 2.0, 30.0)


def read_kept() -> DirectionsResult:
    return DirectionsResult.from_dict(json.loads((DOCS / "_static" / "directions.json").read_text(encoding="utf-8")))


def find_row(setting: str, method: str) -> Row:
    return next(row for row in read_kept().rows if (row.setting, row.method) == (setting, method))


def test_the_page_shows_the_kept_rows() -> None:
    kept = read_kept()
    page = (DOCS / "directions-benchmark.md").read_text(encoding="utf-8")
    assert insert_rows(page, kept.rows) == page
    assert set(kept.settings) <= set(SETTINGS)
    assert {OURS, CHEAP, TRUTH} <= {row.method for row in kept.rows}


@pytest.mark.parametrize(("setting", "method"), [("published", CHEAP), ("20 % overlap", TRUTH)])
def test_kept_rows_are_measured_again(setting: str, method: str) -> None:
    kept = find_row(setting, method)
    (row,) = measure_methods(SETTINGS[setting], kept.seed, (method,))
    assert row.size == kept.size
    assert row.iou == pytest.approx(kept.iou, abs=0.01)
    assert row.cosine == pytest.approx(kept.cosine, abs=0.02)
    assert row.rmse == pytest.approx(kept.rmse, abs=0.05)


@pytest.mark.slow
def test_a_kept_row_of_ours_is_measured_again() -> None:
    kept = find_row("one pair in 80 %", OURS)
    (row,) = measure_methods(SETTINGS[kept.setting], kept.seed, (OURS,))
    assert row.iou == pytest.approx(kept.iou, abs=0.02)
    assert row.cosine == pytest.approx(kept.cosine, abs=0.02)


def test_only_missing_rows_are_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: dict[str, Any] = {"quick": True, "progress": False, "out": tmp_path, "settings": ["9 concepts in 48"]}
    first = run_directions_bench(**asked, methods=[CHEAP])
    assert [row.method for row in first.rows] == [CHEAP]
    second = run_directions_bench(**asked, methods=[CHEAP, TRUTH])
    assert [row.method for row in second.rows] == [CHEAP, TRUTH]
    assert second.rows[0] == first.rows[0]  # the seconds, too: it was not measured again

    def fail(*_: object, **__: object) -> None:
        raise AssertionError

    monkeypatch.setattr("absence_plugins.bench.directions.measure_methods", fail)
    page = tmp_path / "page.md"
    page.write_text("<!-- bench directions: begin -->\nold\n<!-- bench directions: end -->\n", encoding="utf-8")
    third = run_directions_bench(**asked, methods=[CHEAP, TRUTH], into=[page])
    assert third.rows == second.rows
    assert "k-means + logistic | 1 |" in page.read_text(encoding="utf-8")
    assert (tmp_path / "directions.png").stat().st_size > 5000
    written = DirectionsResult.from_dict(json.loads((tmp_path / "directions.json").read_text(encoding="utf-8")))
    assert written.rows == third.rows
    with pytest.raises(AssertionError):
        run_directions_bench(**(asked | {"settings": ["12 concepts in 48"]}), methods=[CHEAP])


def test_bad_arguments(tmp_path: Path) -> None:
    (tmp_path / "page.md").write_text("no marks", encoding="utf-8")
    bad: list[dict[str, Any]] = [
        {"rounds": 0},
        {"device": "cuda"},
        {"settings": ["easy"]},
        {"into": [tmp_path / "page.md"]},
    ]
    for options in bad:
        with pytest.raises(ValueError):
            run_directions_bench(**options, quick=True, progress=False)
    with pytest.raises(ValueError, match="unknown"):
        next(measure_methods(QUICK["published"], 0, ("LDA",)))


def test_the_verdict() -> None:
    worse = replace(ROW, method=CHEAP, iou=(0.91, 0.95), cosine=(0.81, 0.85))
    better = replace(ROW, method=CHEAP, iou=(0.91, 0.95), cosine=(0.83, 0.85))
    within, behind = (DirectionsResult((ROW, other), {}, judged=True) for other in (worse, better))
    assert within.ok
    assert within.behind == []
    assert not behind.ok
    assert behind.behind == [f"published, cosine: {OURS} 0.800, {CHEAP} 0.830"]
    assert "published, cosine" in behind.table()
    assert replace(behind, judged=False).ok
    # by the median over the data sets
    rows = (ROW, better, *(replace(ROW, seed=s, cosine=(0.9, 0.95)) for s in (1, 2)))
    assert DirectionsResult(rows, {}, judged=True).ok


def test_the_command_exits_by_the_verdict(monkeypatch: pytest.MonkeyPatch) -> None:
    cheap = replace(ROW, method=CHEAP, iou=(0.99, 1.0))
    for result, code in ((DirectionsResult((ROW,), {}, True), 0), (DirectionsResult((ROW, cheap), {}, True), 1)):
        monkeypatch.setitem(bench.BENCHES, "directions", lambda result=result, **options: result)
        assert CliRunner().invoke(app, ["bench", "directions"]).exit_code == code


def test_exponents_are_those_of_their_settings() -> None:
    assert fit_exponent([(1.0, 1.0), (2.0, 2.0)]) != fit_exponent([(1.0, 1.0), (2.0, 2.0)])  # NaN of two sizes
    sizes = {"16 concepts in 512": 16, "64 concepts in 512": 64, "128 concepts in 512": 128}
    rows = tuple(replace(ROW, setting=name, size=(n, 512, 1), seconds=n**1.5) for name, n in sizes.items())
    other = replace(ROW, setting="128 concepts in 512, 20 % overlap, scales x10", size=(128, 512, 1), seconds=1e6)
    assert DirectionsResult((*rows, other), {}, True).exponents["concepts"] == pytest.approx(1.5)


def test_lines_and_figure() -> None:
    rows = [ROW, replace(ROW, seed=1, iou=(0.7, 0.8), found=0.5), replace(ROW, method=TRUTH)]
    lines = summarize_rows(rows)
    assert lines[0][:5] == ("published", OURS, "2", "75 %", "0.800 / 0.875")
    assert lines[1][1] == TRUTH
    figure = draw_rows(rows)
    assert len(figure.axes) == 3
    assert [text.get_text() for text in figure.axes[0].get_yticklabels()] == ["published"]
