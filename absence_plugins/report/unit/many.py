"""Several units of a layer: on one page if they are few, else one page each with an index; what was done is not done
again.
"""

from __future__ import annotations

import hashlib
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tqdm.auto import tqdm

from absence_plugins.core.durations import LONG, describe_time
from absence_plugins.core.files import write_whole
from absence_plugins.core.ownership import own_folder
from absence_plugins.methods.checkpoint import read_record
from absence_plugins.methods.ranks import alone, from_first, gather, own_share, ranks
from absence_plugins.report.pages.page import Page, Row, Table, page_html, row_id
from absence_plugins.report.pages.pictures import thumbnail
from absence_plugins.report.unit.explain import report_of
from absence_plugins.report.unit.interrupt import interruptions
from absence_plugins.report.unit.kept import find_kept, keep_report
from absence_plugins.report.unit.result import SCHEMA, TERMS, UnitReport, json_text
from absence_plugins.report.unit.study import Study
from absence_plugins.report.unit.truth import both_scores

FEW = 8  # units that stand on one page
INDEX_EVERY = 60.0  # seconds between two indices of the pages that are there
COLUMNS = ("Unit", "Verdict", "High on images with", "q", "Effect", "Faithfulness")
COLUMN_TERMS = (
    ("Verdict", "A unit encodes an absence if its q is low enough and it passes the mirror test; else it is not confirmed."),
    ("q", "Of the insertion test: the share of false flags to be expected among all units with at most this value."),
    ("Effect", "By how much more its lowest patches pull the unit down than random ones do, in the unit's own values."),
    ("Faithfulness", "Whether the unit follows its maps, first where they name what holds it down, then where they name what images lack: 1 as in the best order that was found, 0 as in a random one."),
)  # fmt: skip


@dataclass(frozen=True)
class Texts:
    """What the pages say besides their findings.

    Attributes:
        title: of the index, or of the one page.
        lead: under it.
        notes: what the reader must know, on every page.
        provenance: pairs for the foot of every page.
    """

    title: str
    lead: str = ""
    notes: tuple[str, ...] = ()
    provenance: Mapping[str, str] | None = None


def write_reports(
    study: Study,
    units: Sequence[int],
    out: Path | str,
    texts: Texts,
    *,
    fingerprint: str = "",
    few: int = FEW,
    make: Callable[..., UnitReport] = report_of,
) -> Path:
    """Write the reports of these units of a study; returns the path of ``index.html``.

    Up to ``few`` units stand on one page, ``index.html``, and in ``units.json``. More: ``unit-000.html``,
    ``unit-000.json`` and ``unit-000.jpg`` (for the index) each, with links back, to the one before and the one after,
    ``index.html`` with a table of all, and ``units.json``; meanwhile, once a minute, an index of those that are there.
    A unit whose JSON carries the same ``fingerprint`` is not made again; on one page neither, if there is a
    fingerprint: its report is kept in ``state/units``. Every page is self-contained; links are relative. Under
    ``torchrun`` the ranks take the units in turn, and rank 0 writes the index.

    Args:
        study: made for (at least) these units.
        units: in the order of the table.
        out: a folder, made where it is missing.
        texts: title, lead and foot.
        fingerprint: of everything that the reports hang on.
        few: see above.
        make: makes a report; its provenance and notes are those of ``texts``.

    Raises:
        ValueError: ``out`` is a file, no units.

    Ctrl-C, a full disk and exhausted memory end it as they are; the index of the finished units is written before.
    """
    if not units:
        raise ValueError("units is empty; name at least one")
    with own_folder(out):
        return _write_all(study, units, Path(out), texts, fingerprint, few, make)


def _write_all(
    study: Study,
    units: Sequence[int],
    out: Path,
    texts: Texts,
    fingerprint: str,
    few: int,
    make: Callable[..., UnitReport],
) -> Path:
    mark = _mark(fingerprint, texts.notes, units if len(units) > few else ())
    options = {"notes": texts.notes, "provenance": texts.provenance}
    is_many, (rank, world) = len(units) > few, ranks()
    keeps = bool(fingerprint) and not is_many
    done = from_first(lambda: _all_finished(out, units, mark)) if is_many else {}
    reports: dict[int, UnitReport] = from_first(lambda: _all_kept(out, units, mark)) if keeps else {}
    done |= {unit: report.to_dict() for unit, report in reports.items()}
    rest = [unit for unit in units if unit not in done]
    if rest and world > 1:
        study.compute_shared()
    bar = tqdm(total=len(units), initial=len(done), desc="reports", unit="unit", disable=not study.progress or rank > 0)
    try:
        with interruptions() as interrupted, alone(), own_share():
            written = time.monotonic()
            for turn, unit in enumerate(rest[rank::world]):
                started = time.monotonic()
                report = make(study, unit, **options)
                if interrupted:  # a host may have ended early instead of passing it on, as Lucent's optimization does
                    raise KeyboardInterrupt
                if keeps:
                    report = keep_report(report, out, mark)
                done[unit] = report.to_dict()
                if is_many:
                    done[unit]["fingerprint"] = mark
                    _write(report, done[unit], _around(units, units.index(unit)), out)
                else:
                    reports[unit] = report
                if is_many and rank == 0 and time.monotonic() - written > INDEX_EVERY:
                    written = _write_partial(study, units, done, out, texts)
                _say_rest((time.monotonic() - started) / world, len(rest) - world, turn > 0, study.progress)
                bar.update(min(world, len(units) - bar.n))
        for found, made in gather((done, reports)):
            done, reports = {**done, **found}, {**reports, **made}
    except (KeyboardInterrupt, OSError, MemoryError, RuntimeError):  # torch says the latter of memory
        if done and rank == 0:
            with suppress(OSError):  # the disk may be full
                known = [unit for unit in units if unit in done]
                _write_index(study, known, done, reports, out, texts, missing=len(units) - len(known))
        raise
    finally:
        bar.close()
    if rank == 0:
        _write_index(study, list(units), done, reports, out, texts)
    return out / "index.html"


def _all_kept(out: Path, units: Sequence[int], mark: str) -> dict[int, UnitReport]:
    """What an earlier run has finished of one page, by unit."""
    return {unit: found for unit in units if (found := find_kept(out, unit, mark)) is not None}


def _write_partial(
    study: Study, units: Sequence[int], done: Mapping[int, Mapping[str, Any]], out: Path, texts: Texts
) -> float:
    """The index of the pages that are there, for whoever looks in meanwhile or finds a killed run; returns when."""
    known = [unit for unit in units if unit in done]
    if len(known) < len(units):
        _write_index(study, known, done, {}, out, texts, missing=len(units) - len(known))
    return time.monotonic()


def _all_finished(out: Path, units: Sequence[int], mark: str) -> dict[int, dict[str, Any]]:
    """What an earlier run has finished, by unit."""
    return {unit: found for unit in units if (found := _finished(out, unit, mark)) is not None}


def _say_rest(seconds: float, others: int, said: bool, progress: bool) -> None:
    """After the first unit that was made: how long the others take, above a minute, and what shortens it."""
    if progress and not said and seconds * others > LONG:
        tqdm.write(
            f"reports: about {describe_time(seconds * others)} for the other {others} units; shorter with --skip "
            "maps,pictures,faithfulness (any of them), --scored 0, or fewer units",
            file=sys.stderr,
        )


def _write(report: UnitReport, found: Mapping[str, Any], links: tuple[tuple[str, str], ...], out: Path) -> None:
    """A unit's page and its thumbnail, and then its JSON: that says that they are done."""
    if small := _thumbnail(report):
        write_whole(out / thumbnail_name(report.index), small)
    else:
        (out / thumbnail_name(report.index)).unlink(missing_ok=True)
    write_whole(out / page_name(report.index), page_html(report.page(links)))
    write_whole(out / f"unit-{report.index:03d}.json", json_text(found))


def page_name(unit: int) -> str:
    """The file of a unit's page.

    >>> page_name(7)
    'unit-007.html'
    """
    return f"unit-{unit:03d}.html"


def thumbnail_name(unit: int) -> str:
    """The file of a unit's highest and lowest patches, for the index.

    >>> thumbnail_name(7)
    'unit-007.jpg'
    """
    return f"unit-{unit:03d}.jpg"


def _thumbnail(report: UnitReport) -> bytes:
    """The unit's first two pictures: its highest and its lowest patches; b"" where these were not looked for."""
    panels = report.section("patches").panels
    return thumbnail([panel for panel in panels if panel.kind == "image"][:2])


def _thumbnails(units: Sequence[int], reports: Mapping[int, UnitReport], out: Path) -> tuple[bytes, ...]:
    """One per unit, of its report or of its file; () where there is none at all."""
    found = []
    for unit in units:
        file = out / thumbnail_name(unit)
        found.append(_thumbnail(reports[unit]) if unit in reports else file.read_bytes() if file.is_file() else b"")
    return tuple(found) if any(found) else ()


def count_finished(units: Sequence[int], out: Path, notes: tuple[str, ...], fingerprint: str, *, few: int = FEW) -> int:
    """How many of these units :func:`write_reports` would not make again."""
    is_many = len(units) > few
    mark = _mark(fingerprint, notes, units if is_many else ())
    return sum((_finished if is_many else find_kept)(out, unit, mark) is not None for unit in units)


def _mark(fingerprint: str, notes: tuple[str, ...], units: Sequence[int]) -> str:
    """Of everything that a page shows: links to the neighbors hang on the units."""
    return hashlib.sha256(repr((SCHEMA, fingerprint, notes, tuple(units))).encode()).hexdigest()[:16]


def _finished(out: Path, unit: int, mark: str) -> dict[str, Any] | None:
    """The unit's JSON if its page is there and was made with the same settings."""
    return read_record(out / f"unit-{unit:03d}.json", mark) if (out / page_name(unit)).is_file() else None


def _around(units: Sequence[int], place: int) -> tuple[tuple[str, str], ...]:
    before = page_name(units[place - 1]) if place else ""
    after = page_name(units[place + 1]) if place + 1 < len(units) else ""
    return (("All units", "index.html"), ("Previous", before), ("Next", after))


def _write_index(
    study: Study,
    units: Sequence[int],
    done: Mapping[int, Mapping[str, Any]],
    reports: Mapping[int, UnitReport],
    out: Path,
    texts: Texts,
    missing: int = 0,
) -> Path:
    flagged = sum(bool(done[unit]["flagged"]) for unit in units)
    lead = [texts.lead]
    if len(units) > 1:
        lead.append(f"{flagged} of these {len(units)} units encode an absence by the insertion test.")
    lead += (
        [f"{missing} units are missing: the run goes on, or was stopped. Run the same command again to resume."]
        if missing
        else []
    )
    rows: list[Row] = []
    anchors: dict[int, str] = {}
    for unit in units:
        if unit in reports:
            anchors[unit] = "#" + row_id(len(rows) + 1)
            rows += reports[unit].rows()
        else:
            anchors[unit] = page_name(unit)
    terms = {name: said for report in reports.values() for name, said in report.terms}
    page = Page(
        title=texts.title,
        lead="\n\n".join([*filter(None, lead), *dict.fromkeys((*texts.notes, *study.notes))]),
        rows=tuple(rows),
        how_to_read=tuple({**dict(COLUMN_TERMS), **dict(TERMS), **terms}.items()) if reports else COLUMN_TERMS,
        provenance=texts.provenance or {},
        table=Table(
            "Units",
            COLUMNS,
            tuple(_cells(done[unit]) for unit in units),
            tuple(anchors[unit] for unit in units),
            _thumbnails(units, reports, out),
            "Highest and lowest patches",
        ),
    )
    write_whole(
        out / "units.json",
        json_text({"layer": study.layer, "missing": missing, "units": [done[unit] for unit in units]}),
    )
    index = out / "index.html"
    write_whole(index, page_html(page))
    return index


def _cells(one: Mapping[str, Any]) -> tuple[str, ...]:
    return (
        str(one["name"]),
        "encodes an absence" if one["flagged"] else "not confirmed",
        one["formula"] or "–",
        f"{float(one['q']):.2g}",
        f"{float(one['effect']):.3g}",
        both_scores(one["sections"]["faithfulness"]),
    )
