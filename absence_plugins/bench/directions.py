"""``absence-plugins bench directions``: who recovers known directions, how well, and in what time."""

from __future__ import annotations

import statistics
from dataclasses import dataclass
from typing import Any

from absence_plugins.bench.result import surroundings
from absence_plugins.bench.run import Run
from absence_plugins.bench.surroundings import describe_environment, steady
from absence_plugins.experiments.directions.compare import SyntheticResult, compare_methods
from absence_plugins.experiments.directions.recovery import COSINE, IOU, RMSE

OURS = "ours, robust"
SUCCESS_LIMIT, SECONDS_LIMIT = 0.95, 15.0
LEGEND = f"""\
recovered: share of the data sets in which all three concepts have IoU >= {IOU}, cosine >= {COSINE} and RMSE <= {RMSE}; the
    columns after it are those of the worst concept in the median data set
seconds: median of the fit, one thread; baselines get the threshold, sign and scale that fit the truth best, Pattern-CAV labels
limits, of {OURS}: recovered at least {100 * SUCCESS_LIMIT:.0f} %, at most {SECONDS_LIMIT:.0f} s"""


@dataclass(frozen=True, repr=False)
class DirectionsResult:
    """Success and time of every method, and where it ran.

    Attributes:
        synthetic: all methods on the same data sets.
        environment: versions, threads, number of data sets.
        judged: whether the limits were asked of it.
    """

    synthetic: SyntheticResult
    environment: dict[str, Any]
    judged: bool

    @property
    def ok(self) -> bool:
        """Whether our default recipe keeps both limits; True where it is not judged."""
        ours = self.synthetic[OURS]
        kept = ours.success >= SUCCESS_LIMIT and statistics.median(ours.seconds) <= SECONDS_LIMIT
        return kept or not self.judged

    def table(self) -> str:
        """One line per method, and what the columns mean."""
        verdict = ("ok" if self.ok else "MISSED") if self.judged else "not judged"
        return "\n".join(
            [self.synthetic.table(), "", LEGEND, f"limits: {verdict}", "", *surroundings(self.environment)]
        )

    def __repr__(self) -> str:
        return f"DirectionsResult of {len(self.synthetic.methods)} methods\n{self.table()}"

    def to_dict(self) -> dict[str, Any]:
        """Plain lists, numbers and strings, ready for JSON."""
        return {**self.synthetic.to_dict(), "environment": dict(self.environment), "ok": self.ok}


def run_directions_bench(
    *, rounds: int = 5, quick: bool = False, device: str = "auto", progress: bool = True
) -> DirectionsResult:
    """Fit every method to the published synthetic set-up, one fresh data set per round.

    Args:
        rounds: data sets.
        quick: small data and short fits, nothing judged: shows that the bench works.
        device: "auto" or "cpu"; the fits are too small for a GPU to help.
        progress: show a progress bar on stderr.

    Raises:
        ValueError: fewer than one round, another device.
    """
    if device not in ("auto", "cpu"):
        raise ValueError(f"device={device!r} is not measured here; use 'auto' or 'cpu'")
    run = Run.start(rounds, quick, "cpu", progress)
    with steady():
        synthetic = compare_methods(range(1000, 1000 + rounds), quick=quick, progress=progress)
    return DirectionsResult(synthetic, describe_environment("scikit-learn", run), judged=not quick)
