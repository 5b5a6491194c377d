"""Reports that stand on a page with others, kept one by one until the page is written: a stopped run makes the rest."""

from __future__ import annotations

import json
import warnings
from dataclasses import fields
from pathlib import Path
from typing import Any

from torch import Tensor

from absence_plugins.core import AbsenceWarning
from absence_plugins.methods.checkpoint import read_metadata, read_tensors, write_tensors
from absence_plugins.report.plots.panel import Panel
from absence_plugins.report.unit.result import UnitReport
from absence_plugins.report.unit.section import Section, plain

FOLDER = Path("state", "units")
HEAD = ("layer", "index", "verdict", "flagged", "q", "effect", "notes", "terms", "provenance")
PARTS = ("key", "heading", "sentence", "facts", "data", "ran", "wide")


def keep_report(report: UnitReport, out: Path, mark: str) -> UnitReport:
    """Write a report with its panels below ``out``, and return it as :func:`find_kept` reads it."""
    tensors: dict[str, Tensor] = {}
    names: dict[int, str] = {}  # a picture under a map is often a panel of its own

    def pack(value: Any) -> Any:
        if not isinstance(value, Tensor):
            return value
        if id(value) not in names:
            names[id(value)] = f"tensor-{len(names)}"
            tensors[names[id(value)]] = value.detach().cpu().clone()
        return {"tensor": names[id(value)]}

    sections = [
        {
            **{name: plain(getattr(one, name)) for name in PARTS},
            "panels": [{own.name: pack(getattr(panel, own.name)) for own in fields(Panel)} for panel in one.panels],
        }
        for one in report.sections
    ]
    head = {name: getattr(report, name) for name in HEAD} | {"provenance": dict(report.provenance)}
    path = _path(out, report.index)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_tensors(path, tensors, metadata={"mark": mark, "report": json.dumps({**head, "sections": sections})})
    found = find_kept(out, report.index, mark)
    return report if found is None else found


def find_kept(out: Path, unit: int, mark: str) -> UnitReport | None:
    """The report of a unit that was kept with the same mark; None for none, and for a damaged file (with a warning)."""
    path = _path(out, unit)
    if not path.is_file() or (metadata := read_metadata(path)).get("mark", mark) != mark:
        return None
    try:
        tensors, read = read_tensors(path), json.loads(metadata["report"])
    except (ValueError, KeyError) as error:
        warnings.warn(f"{path} is damaged ({error}): what it held is made again", AbsenceWarning, stacklevel=2)
        return None

    def unpack(value: Any) -> Any:
        return tensors[value["tensor"]] if isinstance(value, dict) else value

    sections = []
    for one in read.pop("sections"):
        panels = tuple(Panel(**{name: unpack(value) for name, value in panel.items()}) for panel in one.pop("panels"))
        facts = tuple((name, value) for name, value in one.pop("facts"))
        sections.append(Section(**one, facts=facts, panels=panels))
    terms = tuple((name, said) for name, said in read.pop("terms"))
    return UnitReport(**{**read, "notes": tuple(read["notes"])}, terms=terms, sections=tuple(sections))


def _path(out: Path, unit: int) -> Path:
    return out / FOLDER / f"unit-{unit:03d}.safetensors"
