"""``absence-plugins bench directions``: who recovers known directions, how well, and at what cost, over size and
difficulty.
"""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tqdm.auto import tqdm  # type: ignore[import-untyped,unused-ignore]

from absence_plugins.bench.directions_pages import MARK, draw_rows, insert_rows, text_table
from absence_plugins.bench.directions_rows import Row, measure_methods
from absence_plugins.bench.pages import require_marks
from absence_plugins.bench.run import Run
from absence_plugins.bench.sources import fingerprint_sources
from absence_plugins.bench.surroundings import describe_environment, steady
from absence_plugins.core.files import whole_file, write_json, write_whole
from absence_plugins.core.ownership import own_folder
from absence_plugins.experiments.directions.settings import (
    AUTOENCODER,
    CHEAP,
    ICA,
    OURS,
    PAPER,
    QUICK,
    SETTINGS,
    TRUTH,
    Setting,
)

FIRST_SEED = 1000
MOST = {ICA: 3, AUTOENCODER: 1, PAPER: 1}  # data sets at most
WITHIN = 0.02  # ours may be this much below the cheap baseline
# what a method's rows depend on, besides the data and the measures
DATA = (
    *("data/synthetic_directions.py", "data/synthetic_truth.py"),
    *("experiments/directions/recovery.py", "bench/directions_rows.py"),
)
SHARED = tuple(f"methods/directions/{name}.py" for name in ("features", "signals", "starts", "whitening"))
BASELINE = (*SHARED, "experiments/directions/baselines.py")
CODE = {
    OURS: ("methods/directions",),
    PAPER: (*SHARED, *(f"methods/directions/{name}.py" for name in ("paper", "lagrangian", "losses"))),
    TRUTH: (),
}
LEGEND = """\
found: share of the concepts, over all data sets, with a cosine of at least .95 and an IoU at most .05 below that of linear detectors
    that know the truth; IoU, cosine, RMSE: of the worst and of the median concept, in the median data set
CPU s: median of the fit, one thread; MiB: by how much it raises the peak of the memory
ICA and the top-k autoencoder get the threshold, sign and scale that fit the truth best"""


@dataclass(frozen=True, repr=False)
class DirectionsResult:
    """All rows, and where they were measured.

    Attributes:
        rows: one per setting, method and data set.
        environment: versions, threads.
        judged: whether the verdict counts.
    """

    rows: tuple[Row, ...]
    environment: Mapping[str, Any]
    judged: bool

    def median(self, setting: str, method: str, measure: str, *, worst: bool = True) -> float:
        """The median over the data sets of a measure ("iou", "cosine", "rmse") of the worst, or median, concept."""
        rows = [one for one in self.rows if (one.setting, one.method) == (setting, method)]
        return float(statistics.median(getattr(one, measure)[0 if worst else 1] for one in rows))

    @property
    def settings(self) -> list[str]:
        """Names, in the order of measuring."""
        return list(dict.fromkeys(one.setting for one in self.rows))

    @property
    def behind(self) -> list[str]:
        """Settings in which ours is more than .02 below k-means + logistic in the IoU or cosine of the worst concept."""
        found = []
        asked = {(one.setting, one.method) for one in self.rows}
        for setting in self.settings:
            if {(setting, OURS), (setting, CHEAP)} <= asked:
                for measure in ("iou", "cosine"):
                    ours, cheap = (self.median(setting, name, measure) for name in (OURS, CHEAP))
                    if ours < cheap - WITHIN:
                        found.append(f"{setting}, {measure}: {OURS} {ours:.3f}, {CHEAP} {cheap:.3f}")
        return found

    @property
    def exponents(self) -> dict[str, float]:
        """b of CPU seconds = a size^b of ours, over the numbers of concepts and of dimensions; NaN below 3 sizes."""
        return {
            group: fit_exponent(
                [(row.size[axis], row.seconds) for row in self.rows if row.method == OURS and row.setting in names]
            )
            for axis, group in enumerate(("concepts", "dimensions"))
            for names in [[one.name for one in (*SETTINGS.values(), *QUICK.values()) if group in one.groups]]
        }

    @property
    def ok(self) -> bool:
        """Whether ours is nowhere behind the cheap baseline; True where it is not judged."""
        return not self.judged or not self.behind

    def table(self) -> str:
        """One line per setting and method, what the columns mean, and the verdict."""
        behind = self.behind
        verdict = [f"{OURS} is nowhere more than {WITHIN} below {CHEAP}"] if not behind else ["behind:", *behind]
        exponents = [f"CPU time of {OURS} grows like {name}^{b:.2f}" for name, b in self.exponents.items() if b == b]
        where = ", ".join(f"{name} {value}" for name, value in self.environment.items() if value != "")
        return "\n".join([text_table(self.rows), "", LEGEND, *exponents, *verdict, "", where])

    def __repr__(self) -> str:
        return f"DirectionsResult of {len(self.rows)} rows\n{self.table()}"

    def to_dict(self) -> dict[str, Any]:
        """Plain lists, numbers and strings, ready for JSON."""
        exponents = {name: round(b, 2) for name, b in self.exponents.items() if b == b}
        return {
            "rows": [one.to_dict() for one in self.rows],
            "exponents": exponents,
            "behind": self.behind,
            "environment": dict(self.environment),
        }

    @classmethod
    def from_dict(cls, plain: dict[str, Any]) -> DirectionsResult:
        """The way back from :meth:`to_dict`; not judged again."""
        return cls(tuple(Row.from_dict(one) for one in plain["rows"]), plain["environment"], judged=False)


def fit_exponent(points: Sequence[tuple[float, float]]) -> float:
    """b of y = a x^b by least squares of the logarithms; NaN below 3 different x.

    >>> round(fit_exponent([(1, 2), (2, 8), (4, 32)]), 3)
    2.0
    """
    if len({x for x, _ in points}) < 3:
        return math.nan
    logs = [(math.log(x), math.log(y)) for x, y in points]
    slope, _ = statistics.linear_regression([x for x, _ in logs], [y for _, y in logs])
    return slope


def run_directions_bench(
    *,
    rounds: int = 5,
    quick: bool = False,
    device: str = "auto",
    progress: bool = True,
    out: Path | None = None,
    into: Sequence[Path] = (),
    settings: Sequence[str] | None = None,
    methods: Sequence[str] | None = None,
) -> DirectionsResult:
    """Fit every method to generated features whose directions are known.

    Args:
        rounds: data sets of a small setting; ICA gets at most 3, the autoencoder and the published
            recipe 1, a large setting 1.
        quick: small data and few settings, nothing judged: shows that the bench works.
        device: "auto" or "cpu"; seconds are CPU time.
        progress: show a progress bar on stderr.
        out: folder for directions.json and directions.png. Every row is kept in it: a repeated command measures only
            those that are missing, or whose code has changed.
        into: Markdown files in which what stands between ``<!-- bench directions: begin -->`` and ``<!-- bench
            directions: end -->`` is replaced by the table.
        settings: names; None: all.
        methods: names; None: all.

    Raises:
        ValueError: fewer than one round, another device, a file without the markers, an unknown setting or method.
    """
    if device not in ("auto", "cpu"):
        raise ValueError(f"device={device!r} is not measured here; use 'auto' or 'cpu'")
    run = Run.start(rounds, quick, "cpu", progress)
    require_marks(into, [MARK])
    known = QUICK if quick else SETTINGS
    names = list(known) if settings is None else list(settings)
    unknown = [name for name in names if name not in known]
    if unknown:
        raise ValueError(f"setting {unknown[0]!r} is unknown; use some of {', '.join(known)}")
    with own_folder(out), steady():
        rows = _measure(run, [known[name] for name in names], methods, out)
        result = DirectionsResult(tuple(rows), describe_environment("scikit-learn", run), judged=not quick)
        if out is not None:
            write_json(out / "directions.json", result.to_dict())
            with whole_file(out / "directions.png") as file:
                draw_rows(result.rows).savefig(
                    file, format="png", facecolor="white", dpi=130, metadata={"Software": None}
                )
    for path in into:
        write_whole(path, insert_rows(path.read_text(encoding="utf-8"), result.rows))
    return result


def _measure(run: Run, settings: Sequence[Setting], methods: Sequence[str] | None, out: Path | None) -> list[Row]:
    """All rows; those that a folder keeps are not measured again."""
    path = None if out is None else out / "directions-rows.json"
    kept: dict[str, Any] = json.loads(path.read_text(encoding="utf-8")) if path is not None and path.is_file() else {}
    rows: dict[tuple[str, str, int], Row] = {}
    numbers = [(setting, FIRST_SEED + n) for setting in settings for n in range(min(run.rounds, setting.most))]
    with tqdm(numbers, desc="directions", disable=not run.progress) as bar:
        for setting, seed in bar:
            bar.set_postfix_str(f"{setting.name}, data {seed}")
            names = [
                name
                for name in (*setting.methods, TRUTH)
                if (methods is None or name in methods) and seed < FIRST_SEED + MOST.get(name, run.rounds)
            ]
            marks = {
                name: fingerprint_sources("scikit-learn", parts=(*DATA, *CODE.get(name, BASELINE))) for name in names
            }
            keys = {
                name: json.dumps([setting.name, sorted(setting.options.items()), seed, name, run.quick])
                for name in names
            }
            missing = tuple(name for name in names if kept.get(keys[name], {}).get("code") != marks[name])
            for row in measure_methods(setting, seed, missing, quick=run.quick) if missing else ():
                kept[keys[row.method]] = {"code": marks[row.method], "row": row.to_dict()}
                if path is not None:
                    write_json(path, kept)
            rows |= {(setting.name, name, seed): Row.from_dict(kept[keys[name]]["row"]) for name in names}
    order = {(setting.name, name): None for setting in settings for name in (*setting.methods, TRUTH)}
    return [row for one in order for (setting, method, _), row in rows.items() if (setting, method) == one]
