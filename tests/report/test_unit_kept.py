"""A report that was killed is resumed page by page, and unit by unit of one page, to the same bytes."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import pytest
from unit_subjects import SMALL, images, linear_maps, net, plain_pictures

from absence_plugins.core import AbsenceWarning
from absence_plugins.report import UnitReport
from absence_plugins.report.pages.page import page_html
from absence_plugins.report.unit import many, report_of, study_of
from absence_plugins.report.unit.kept import find_kept, keep_report
from absence_plugins.report.unit.many import FEW, Texts, page_name, write_reports

TEXTS = Texts("Units of conv", "All of them.", ("A note.",), {"command": "absence-plugins report"})
UNITS = [2, 0, 1]


@pytest.fixture(scope="module")
def study() -> Any:
    pixels, block = images()
    found = study_of(
        net(), "conv", UNITS, pixels, labels=block.long(), concepts=(block[:, None], ["block"]), maps=linear_maps,
        pictures=plain_pictures, **SMALL,
    )  # fmt: skip
    assert len(found.tested) == 3
    return found


class Making:
    """The reports, counted; the process is killed in the middle of one."""

    def __init__(self, killed_at: int | None = None) -> None:
        self.made: list[int] = []
        self.killed_at = killed_at

    def __call__(self, study: Any, unit: int, **texts: Any) -> UnitReport:
        report = report_of(study, unit, **texts)
        if unit == self.killed_at:
            os.kill(os.getpid(), signal.SIGKILL)
        self.made.append(unit)
        return report


def content(folder: Path) -> dict[str, bytes]:
    """What is looked at, by file; not what is kept (safetensors orders its header at random)."""
    return {path.name: path.read_bytes() for path in sorted(folder.glob("[!.]*")) if path.is_file()}


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.parametrize("few", [FEW, 1])
def test_a_killed_run_is_resumed_to_the_same_bytes(few: int, study: Any, tmp_path: Path) -> None:
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    write_reports(study, UNITS, whole, TEXTS, fingerprint="a", few=few)
    child = os.fork()
    if child == 0:
        write_reports(study, UNITS, killed, TEXTS, fingerprint="a", few=few, make=Making(killed_at=1))
        os._exit(0)
    _, status = os.waitpid(child, 0)
    assert os.WIFSIGNALED(status)
    assert not (killed / "index.html").exists()
    rest = Making()
    write_reports(study, UNITS, killed, TEXTS, fingerprint="a", few=few, make=rest)
    assert rest.made == [1]
    assert content(killed) == content(whole)
    again = Making()
    write_reports(study, UNITS, killed, TEXTS, fingerprint="a", few=few, make=again)
    assert again.made == []
    assert content(killed) == content(whole)
    write_reports(study, UNITS, killed, TEXTS, fingerprint="b", few=few, make=again)
    assert again.made == UNITS


def test_a_kept_report_is_the_one_that_was_made(study: Any, tmp_path: Path) -> None:
    made = report_of(study, 0, notes=("A note.",), provenance={"command": "report"})
    kept = keep_report(made, tmp_path, "a")
    assert page_html(kept.page()) == page_html(made.page())
    assert kept.to_dict() == made.to_dict()
    assert repr(kept) == repr(made)
    assert find_kept(tmp_path, 0, "b") is None
    assert find_kept(tmp_path, 1, "a") is None


def test_a_damaged_one_is_made_again_with_a_warning(study: Any, tmp_path: Path) -> None:
    write_reports(study, UNITS, tmp_path, TEXTS, fingerprint="a")
    before = content(tmp_path)
    (path,) = (tmp_path / "state" / "units").glob("unit-000.*")
    path.write_bytes(path.read_bytes()[:-9])
    rest = Making()
    with pytest.warns(AbsenceWarning, match="is damaged"):
        write_reports(study, UNITS, tmp_path, TEXTS, fingerprint="a", make=rest)
    assert rest.made == [0]
    assert content(tmp_path) == before


def test_an_index_of_the_pages_that_are_there(study: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(many, "INDEX_EVERY", -1.0)
    seen: list[str] = []

    def make(study: Any, unit: int, **texts: Any) -> UnitReport:
        index = tmp_path / "index.html"
        seen.append(index.read_text(encoding="utf-8") if index.is_file() else "")
        return report_of(study, unit, **texts)

    write_reports(study, UNITS, tmp_path, TEXTS, few=1, make=make)
    assert seen[0] == ""
    for missing, html, unit in ((2, seen[1], 2), (1, seen[2], 0)):
        assert f"{missing} units are missing" in html
        assert page_name(unit) in html
    assert page_name(1) not in seen[2]
    assert "units are missing" not in (tmp_path / "index.html").read_text(encoding="utf-8")
