"""The table of the planted benchmark: method x problem, as text, Markdown, figure and JSON."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from absence_plugins.core.results import Result
from absence_plugins.core.table import align
from absence_plugins.methods.faithfulness.result import View

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MEASURES = {
    "share": "share of the evidence within two pixels of the key",
    "sign": "right signs, half for the key and half for content that moves the unit the other way (one sign everywhere: .5); none where no content outside of the key does",
    "key_sign": "share of the samples whose map has the right sign at the key",
    "pointing": "share of the samples whose strongest evidence lies there",
    "faithfulness": "1: changing pixels in this order moves the unit as the best order found, 0: as the best order that never saw the network; below 0: less than that, in units of best minus random",
    "over_random": "the same with 0: as a random order, below 0: the wrong way",
}
NO_ANSWER = "has no answer in this view"  # the note of a method that returns None
FAILED = "x"  # the cell of a method that raised, or whose answer was rejected
NOT_MEASURED = "not measured"  # the note of a score that a table does not hold
TITLES: dict[str, str] = {
    "nontarget": "Non-target view: what holds the unit down in images that have the key?",
    "reference": "Reference view: what do images lack that references with the key have?",
}


@dataclass(frozen=True)
class PlantedScore:
    """One method on one problem in one view, all training seeds pooled.

    Attributes:
        problem, method, view: which. share, sign, pointing, faithfulness, key_sign, over_random: see ``MEASURES``; None
        where there is no answer, or no score.
        samples: images that count.
        is_exact: whether the true region is known; if not, share, sign and pointing are against a guess.
        note: why there is no answer; "" if there is.
        control: which order that never saw the network is the best ("random" where none is better than a random one).
        control_score: its ``over_random``: where ``faithfulness`` is 0.
    """

    problem: str
    method: str
    view: View
    share: float | None
    sign: float | None
    pointing: float | None
    faithfulness: float | None
    samples: int
    is_exact: bool
    note: str
    key_sign: float | None = None
    over_random: float | None = None
    control: str = ""
    control_score: float | None = None

    @property
    def mark(self) -> str:
        """What a table shows where there is no score ("-" without an answer, "x" of a failure, " " if not measured),
        else nothing.
        """
        return {"": "", NOT_MEASURED: " ", NO_ANSWER: "-"}.get(self.note, FAILED)

    def text(self) -> str:
        """Share and faithfulness, as in ``".95/.80"``."""
        return f"{number(self.share)}/{number(self.faithfulness)}"


@dataclass(frozen=True, eq=False, repr=False)
class PlantedTable(Result):
    """All scores of a benchmark.

    Attributes:
        scores: by problem, view and method.
        settings: seeds, samples, references, steps.
    """

    scores: tuple[PlantedScore, ...]
    settings: dict[str, Any]

    @property
    def short_names(self) -> list[str]:
        """The problems' names as they stand in a head."""
        return [short(problem) for problem in self.problems]

    @cached_property
    def problems(self) -> list[str]:
        """Names of the problems, in the order of the scores."""
        return list(dict.fromkeys(one.problem for one in self.scores))

    @cached_property
    def methods(self) -> list[str]:
        """Names of the methods, in the order of the scores."""
        return list(dict.fromkeys(one.method for one in self.scores))

    @cached_property
    def views(self) -> list[View]:
        """Views with scores, in the order of the scores."""
        return list(dict.fromkeys(one.view for one in self.scores))

    @cached_property
    def _found(self) -> dict[tuple[str, str, str], PlantedScore]:
        return {(one.method, one.problem, one.view): one for one in self.scores}

    def of(self, method: str, problem: str, view: View) -> PlantedScore:
        """One score; one with the note "not measured" where the table has others of the method and of the problem.

        Raises:
            ValueError: there is no score of the method, on the problem or in the view.
        """
        found = self._found.get((method, problem, view))
        if found is None:
            if method not in self.methods or problem not in self.problems or view not in self.views:
                raise ValueError(
                    f"no score of {method!r} on {problem!r} in the {view} view; methods: {', '.join(self.methods)}"
                )
            exact = all(one.is_exact for one in self.scores if one.problem == problem)
            return PlantedScore(problem, method, view, None, None, None, None, 0, exact, NOT_MEASURED)
        return found

    def best(self, problem: str, view: View, measure: str, methods: Sequence[str] | None = None) -> PlantedScore | None:
        """The highest of some methods (all) on a problem; None where none has a score."""
        known = [
            one
            for one in self.scores
            if one.problem == problem and one.view == view and (methods is None or one.method in methods)
            and getattr(one, measure) is not None
        ]  # fmt: skip
        return max(known, key=lambda one: float(getattr(one, measure)), default=None)

    def table(self, measures: Sequence[str] = ("share", "faithfulness")) -> str:
        """A block per view, a line per method; cells are the measures, "-" without an answer, "x" where the method
        failed; a key's sign right in < 99 % has a "!".
        """
        lines: list[str] = []
        for view in self.views:
            head = ["", *self.short_names]
            rows = [
                head,
                *(
                    [method, *(self._cell(method, problem, view, measures) for problem in self.problems)]
                    for method in self.methods
                ),
            ]
            lines += [TITLES[view], *align(rows), ""]
        lines += [f"{name}: {MEASURES[name]}" for name in measures]
        lines.append(
            "!: sign at the key right in fewer than 99 % of the samples; -: no answer in this view; x: the method "
            "failed, or its answer was rejected (why: below); ?: no score (every order is the same); in "
            "brackets: the true region is a guess"
        )
        notes: dict[str, list[str]] = {}
        for one in self.scores:
            if one.note and one.note != NOT_MEASURED:
                notes.setdefault(f"{one.method}: {one.note}", []).append(f"{short(one.problem)} ({one.view})")
        lines += [
            f"{note} [{', '.join(where) if len(where) < 4 else f'{len(where)} questions'}]"
            for note, where in notes.items()
        ]
        return "\n".join(lines)

    def _cell(self, method: str, problem: str, view: View, measures: Sequence[str]) -> str:
        one = self.of(method, problem, view)
        if one.note:
            return one.mark
        numbers = "/".join(number(getattr(one, name)) for name in measures)
        wrong = "!" if one.key_sign is not None and one.key_sign < 0.99 else ""
        return f"{numbers}{wrong}" if one.is_exact else f"({numbers}{wrong})"

    def markdown(self, view: View, methods: Sequence[str], measures: Sequence[str] = ("share", "faithfulness")) -> str:
        """One view as a Markdown table, for these methods."""
        rows = [["method", *self.short_names], ["---", *(["---:"] * len(self.problems))]]
        rows += [
            [method, *(self._cell(method, problem, view, measures) for problem in self.problems)] for method in methods
        ]
        return "\n".join("| " + " | ".join(row) + " |" for row in rows)

    def figure(self, ax: Any = None) -> Figure:
        """Heat maps, one per view: share of the evidence in the true region; needs matplotlib. ax: axes to draw
        into.
        """
        from absence_plugins.report.plots.faithfulness import planted_figure
        from absence_plugins.report.plots.placing import place_figure

        return place_figure(planted_figure(self), ax)

    def __repr__(self) -> str:
        return f"{self._heading()}\n{self.table()}"

    def _heading(self) -> str:
        return f"PlantedTable of {len(self.methods)} methods on {len(self.problems)} problems"

    def to_dict(self) -> dict[str, Any]:
        """Plain lists, numbers and strings, ready for JSON."""
        return {"settings": dict(self.settings), "scores": [asdict(one) for one in self.scores]}

    @classmethod
    def from_dict(cls, plain: dict[str, Any]) -> PlantedTable:
        """The way back from :meth:`to_dict`."""
        return cls(tuple(PlantedScore(**one) for one in plain["scores"]), dict(plain["settings"]))


def number(value: float | None) -> str:
    """Two digits without a leading zero.

    >>> number(0.954), number(1.0), number(-0.2), number(None)
    ('.95', '1.0', '-.20', '?')
    """
    if value is None:
        return "?"
    text = f"{value:.2f}"
    return "1.0" if text == "1.00" else text.replace("0.", ".", 1)


def short(problem: str) -> str:
    """A problem's name in a head: words without "missing"."""
    return problem.replace("_missing", "").replace("_", " ")
