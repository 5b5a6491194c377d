"""``absence-plugins bench planted``: which method finds absences, and which cannot, on networks whose absences are
known.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from absence_plugins.bench.pages import require_marks
from absence_plugins.bench.planted_cam import CAM, cam_methods
from absence_plugins.bench.planted_pages import (
    MARK,
    MARK_ALL,
    MARK_QUESTIONS,
    format_page,
    format_views,
    insert_tables,
)
from absence_plugins.bench.planted_relevance import OURS, relevance_methods
from absence_plugins.bench.planted_rivals import rival_methods
from absence_plugins.bench.run import Run
from absence_plugins.bench.sources import fingerprint_sources
from absence_plugins.bench.surroundings import describe_environment, steady
from absence_plugins.core.files import whole_file, write_json, write_whole
from absence_plugins.core.ownership import own_folder
from absence_plugins.data.planted import PROBLEMS
from absence_plugins.methods.checkpoint import read_record, write_record
from absence_plugins.methods.faithfulness import (
    HELD_OUT,
    IMAGE_ONLY,
    PlantedTable,
    planted_benchmark,
    random_map,
    smooth_random_map,
)

SEEDS = (0, 1)
SAMPLES, REFERENCES, STEPS = 8, 2, 16  # images per training seed and view
CHANCE = {"Random map": random_map, "Smooth random map": smooth_random_map, **IMAGE_ONLY, **HELD_OUT}
MEASURED_BY = (
    *("core", "relevance", "captum", "zennit", "data/planted", "methods/faithfulness", "bench/scores.py"),
    *(f"bench/planted_{part}.py" for part in ("methods", "layers", "relevance", "rivals", "cam")),
)
RIVALS = {"autolrp": "AttnLRP ", "shap": "SHAP ", "grad-cam": CAM}  # package -> how the names of its rows begin
WITHIN = 0.02  # ours may be this much below the best
QUICK = (*CHANCE, "IntegratedGradients", "IntegratedGradients (unit)", "AbsenceIntegratedGradients", "DeepLift")
LEGEND = """\
Names without "Absence" are the host's own classes: Captum's ask about the class that the images belong to, against blank, or "(unit)"
    about the unit that encodes the absence (in the reference view that is the images' class); Zennit's (+1, logit: their
    seed) ask about that unit
Absence* of Captum: the unit against blank (non-target view), against the nearest references (reference view);
    of Zennit: against the nearest references in both views; relevance RULE: the unit, as Captum's
AttnLRP: autoLRP's, the unit, seeded as Zennit's; SHAP: the unit against blank, or against the nearest references;
grad-cam: pytorch-grad-cam's maps of the unit, which have no minus, in both views"""


@dataclass(frozen=True, eq=False, repr=False)
class PlantedResult:
    """The table and the verdict.

    Attributes:
        scores: the table.
        environment: versions and where it ran.
        judged: whether the verdict counts.
    """

    scores: PlantedTable
    environment: dict[str, Any]
    judged: bool

    @property
    def behind(self) -> list[str]:
        """Problems with a known region in which the best of ours is more than 0.02 below the best of all."""
        found = []
        ours = [name for name in self.scores.methods if name.startswith(("Absence", OURS))]
        for one in {(one.problem, one.view): one for one in self.scores.scores if one.is_exact}.values():
            for measure in ("share", "faithfulness"):
                best = self.scores.best(one.problem, one.view, measure)
                own = self.scores.best(one.problem, one.view, measure, ours)
                if best and (own is None or getattr(own, measure) < getattr(best, measure) - WITHIN):
                    found.append(f"{one.problem}, {one.view} view, {measure}: {best.method} {getattr(best, measure):.2f}, best Absence* {'none' if own is None else f'{own.method} {getattr(own, measure):.2f}'}")  # fmt: skip
        return found

    @property
    def ok(self) -> bool:
        """Whether the best ``Absence*`` or relevance is the best, or within 0.02 of it, in every problem with a known
        region.
        """
        return not self.judged or not self.behind

    def table(self) -> str:
        """All methods, what the names mean, and the verdict."""
        behind = self.behind
        verdict = ["Absence* is best, or within 0.02 of the best, in every problem whose region is known"]
        if behind:
            verdict = ["Absence* is behind in:", *(f"    {line}" for line in behind)]
        where = ", ".join(f"{name} {value}" for name, value in self.environment.items() if name != "note")
        return "\n".join([self.scores.table(), LEGEND, *verdict, "", where])

    def __repr__(self) -> str:
        return f"PlantedResult\n{self.table()}"

    def to_dict(self) -> dict[str, Any]:
        """Plain lists, numbers and strings, ready for JSON."""
        return {**self.scores.to_dict(), "environment": dict(self.environment), "behind": self.behind, "ok": self.ok}


def run_planted_bench(
    *,
    rounds: int = 5,
    quick: bool = False,
    device: str = "auto",
    progress: bool = True,
    out: Path | None = None,
    into: Sequence[Path] = (),
    problems: Sequence[str] | None = None,
    measured: Path | None = None,
) -> PlantedResult:
    """Score every Captum class and every Zennit composite, as shipped and as ``Absence*``, and relevance on all planted
    problems.

    With the extras ``rivals``, ``shap`` and ``grad-cam`` autoLRP's AttnLRP, SHAP and pytorch-grad-cam are asked, too.

    Args:
        rounds: not used: nothing is timed.
        quick: one problem, few methods and images, nothing judged: shows that the bench works.
        device: checked only: the networks are small and stay on the CPU.
        progress: show a progress bar on stderr.
        out: folder for planted.json, planted.md, planted.html and planted.png. Every answer is kept in it: a repeated
            command asks only the methods and problems that are new.
        into: Markdown files in which what stands between ``<!-- bench planted: begin -->`` (``planted all``: every
            method, ``planted questions``: a sentence for each) and
            ``<!-- bench planted: end -->`` is replaced by the tables.
        problems: names; None: all.
        measured: planted.json of an earlier run, whose tables are written; nothing is measured.

    Raises:
        ValueError: a file without the markers, an ``out`` that is a file, an unknown problem, a ``measured`` that is no
            planted.json.
        ImportError: Captum, Zennit or scikit-learn is missing.
    """
    run = Run.start(rounds, quick, device, progress)
    require_marks(into, [MARK, MARK_ALL, MARK_QUESTIONS])
    with own_folder(out):
        result = _measure(run, out, problems) if measured is None else read_result(measured)
        if out is not None:
            write_result(result, out)
    for path in into:
        write_whole(path, insert_tables(path.read_text(encoding="utf-8"), result.scores))
    return result


def read_result(path: Path) -> PlantedResult:
    """What an earlier run wrote to planted.json. Raises ValueError for a file that is none."""
    try:
        plain = json.loads(path.read_text(encoding="utf-8"))
        scores = PlantedTable.from_dict(plain)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path} is no planted.json of bench planted ({error}); pass one that --out wrote") from error
    return PlantedResult(scores, plain.get("environment", {}), judged=False)  # the run that measured was judged


def _measure(run: Run, out: Path | None, problems: Sequence[str] | None) -> PlantedResult:
    """Every method on these problems."""
    from absence_plugins.bench.planted_methods import all_methods

    quick, progress = run.quick, run.progress
    names = list(problems or (["shape_missing"] if quick else PROBLEMS))
    methods = {**CHANCE, **all_methods(), **dict(relevance_methods()), **dict(rival_methods()), **dict(cam_methods())}
    settings: dict[str, Any] = {"seeds": SEEDS, "samples": SAMPLES, "references": REFERENCES, "steps": STEPS}
    if quick:
        methods = {name: methods[name] for name in QUICK}
        settings = {"seeds": (0,), "samples": 2, "references": 1, "steps": 4}
    with steady():
        tables = [_one(name, methods, settings, out, progress) for name in names]
    merged = PlantedTable(tuple(score for table in tables for score in table.scores), tables[0].settings)
    environment = {"captum": version("captum"), **describe_environment("zennit", run)}
    return PlantedResult(merged, environment, judged=not quick)


def _one(
    name: str, methods: Mapping[str, Any], settings: dict[str, Any], out: Path | None, progress: bool
) -> PlantedTable:
    """One problem's table; answers are kept in the folder, and only those that are missing there are measured.

    Kept answers hold for the code that a question, a measure and the methods consist of, and those of another package
    for its version; a method that is new, or was stopped, does not cost the others' time.
    """
    if out is None:
        return planted_benchmark(methods, [name], progress=progress, **settings)
    path = out / f"planted-{name}.json"
    key = json.dumps([settings, fingerprint_sources(parts=MEASURED_BY)])
    mark = hashlib.sha256(key.encode()).hexdigest()
    kept, versions = read_record(path, mark) or {}, rival_versions()
    known = {question: dict(own) for question, own in kept.get("answers", {}).items()}
    for package, prefix in RIVALS.items():
        if package in versions and kept.get("rivals", {}).get(package) != versions[package]:
            known = {
                q: {row: one for row, one in own.items() if not row.startswith(prefix)} for q, own in known.items()
            }
    before = json.dumps(known)
    try:
        return planted_benchmark(methods, [name], known=known, progress=progress, **settings)
    finally:
        if json.dumps(known) != before:
            write_record(path, mark, {"answers": known, "rivals": {**kept.get("rivals", {}), **versions}})


def rival_versions() -> dict[str, str]:
    """Package -> its version, of those that are installed."""
    found = {}
    for package in RIVALS:
        with suppress(PackageNotFoundError):
            found[package] = version(package)
    return found


def write_result(result: PlantedResult, out: Path) -> None:
    """planted.json, planted.md (both views, all methods), planted.html (a column per question) and planted.png."""
    write_json(out / "planted.json", result.to_dict())
    write_whole(out / "planted.md", format_views(result.scores, result.scores.methods) + "\n")
    write_whole(out / "planted.html", format_page(result.scores))
    with whole_file(out / "planted.png") as file:
        figure = result.scores.figure()
        figure.savefig(
            file, format="png", facecolor="white", dpi=120, metadata={"Software": None}, pil_kwargs={"optimize": True}
        )
