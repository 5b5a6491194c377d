"""What the search found: formulas with their scores, one label per unit, a table of all units."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, overload

from absence_plugins.core.files import write_whole
from absence_plugins.core.results import Result
from absence_plugins.core.table import Grid, write_csv
from absence_plugins.methods.invert.formula import Formula
from absence_plugins.methods.invert.measures import TITLES

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MOST = 30  # units that a notebook shows
COLUMNS = (
    "unit", "rank", "formula", "length", "auc", "fraction", "heldout_auc", "heldout_fraction", "p", "q", "not", "not_worth", "not_heldout_worth", "not_q", "score", "heldout_score",
)  # fmt: skip


@dataclass(frozen=True)
class Negation:
    """What a NOT of a formula is worth: by how much the AUC falls when that literal is taken out.

    Attributes:
        concept: the one that is absent.
        worth: AUC of the formula minus AUC of the formula without ``NOT concept``, on the samples of the search. If
            nothing else is left, minus 0.5, which is chance.
        heldout_worth: the same on the held-out samples, where it is no result of the search; None without any, or if
            one of the two holds there on no sample or on all.
        p: on the held-out samples, of "the NOT is worth nothing": the larger one of a permutation test among the
            samples whose truth it decides, and of DeLong's test of the two AUCs, paired. None without held-out samples.
        q: p after Benjamini-Hochberg over all NOTs of the units' formulas of the same rank.

    Sign: above 0 the absence is part of what the unit responds to; 0 or below it is decoration.
    """

    concept: str
    worth: float
    heldout_worth: float | None
    p: float | None = None
    q: float | None = None

    @property
    def evidence(self) -> float:
        """The held-out worth, or the search's where there is none."""
        return self.worth if self.heldout_worth is None else self.heldout_worth


@dataclass(frozen=True, repr=False)
class ScoredFormula:
    """A formula as a name for a unit, and how well it fits.

    Attributes:
        formula: the name.
        auc: AUROC of the unit as its detector on the samples of the search (mode "negative": of the negated unit).
        fraction: share of the samples of the search on which it holds.
        heldout_auc, heldout_fraction: the same on the held-out samples. None without any; ``heldout_auc`` also if the
            formula holds there on no sample or on all.
        p: one-sided permutation test of the rank sum on the held-out samples (or groups of samples), of "no higher
            where the formula holds"; 1 where that cannot be told; None without held-out samples, because after a search
            over thousands of formulas none is valid.
        q: p after Benjamini-Hochberg over the units' formulas of the same rank.
        negations: one entry per NOT.
        score, heldout_score: by what it was chosen (:attr:`UnitLabel.score`), on the searched and the held-out samples;
            the AUCs again where that was AUC.
    """

    formula: Formula
    auc: float
    fraction: float
    heldout_auc: float | None
    heldout_fraction: float | None
    p: float | None
    q: float | None
    negations: tuple[Negation, ...] = ()
    score: float | None = None
    heldout_score: float | None = None

    def __repr__(self) -> str:
        shown = [f"AUC {self.auc:.3f}", f"on {self.fraction:.1%}"]
        shown += [] if self.heldout_auc is None else [f"held out {self.heldout_auc:.3f}"]
        shown += ["no p: nothing was held out"] if self.q is None else [f"q {self.q:.2g}"]
        shown += [f"NOT {one.concept}: {one.evidence:+.3f}" for one in self.negations]
        return f"ScoredFormula({self.formula}; {', '.join(shown)})"

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers and strings; the formula as text."""
        own = {
            name: getattr(self, name)
            for name in ("auc", "fraction", "heldout_auc", "heldout_fraction", "p", "q", "score", "heldout_score")
        }
        return {"formula": str(self.formula), "length": self.formula.length, **own, "negations": [asdict(n) for n in self.negations]}  # fmt: skip


@dataclass(frozen=True, repr=False)
class UnitLabel(Result):
    """The names of one unit, best first, the others by their score; no two hold on the same samples.

    Attributes:
        unit: its column in the activations.
        formulas: at least one.
        mode: "positive" if the unit is high where they hold, "negative" if it is low.
        gap: by how much the score of any formula of the length asked for, within the bounds, can exceed the highest one
            found, on the searched samples: 0.0 if that is proven to be the best, None after a beam.
        score: what chose the formulas: "auc", "auprc", "f1", "iou" or "correlation".
        threshold: "f1" and "iou": the unit fires where its activation is at least this (mode "negative": at most). It
            was chosen on the searched samples. None for the other scores.
    """

    unit: int
    formulas: tuple[ScoredFormula, ...]
    mode: str = "positive"
    gap: float | None = None
    score: str = "auc"
    threshold: float | None = None

    @property
    def certified(self) -> bool:
        """Whether the highest score found is proven to be that of the best formula of the length asked for."""
        return self.gap == 0.0

    @property
    def bound(self) -> float | None:
        """No formula of the length asked for has a higher score on the searched samples; None if nobody knows."""
        highest = max(one.auc if one.score is None else one.score for one in self.formulas)
        return None if self.gap is None else highest + self.gap

    @property
    def score_title(self) -> str:
        """What the score is called in figures and tables, such as "IoU"."""
        return TITLES[self.score]

    @property
    def is_bound_empty(self) -> bool:
        """Whether the bound is 1, the highest value of every score, and so excludes nothing."""
        return bool(self.gap) and self.bound is not None and self.bound >= 1 - 1e-9

    @property
    def best(self) -> ScoredFormula:
        """The name: of the formulas found the one of shortest description, with ``prefer="score"`` of highest score."""
        return self.formulas[0]

    @property
    def absence(self) -> Negation | None:
        """The NOT of the best formula that is worth most on the searched samples, which the held-out ones then test.

        None if there is none, or if it is worth nothing on the held-out samples.
        """
        chosen = max(self.best.negations, key=lambda one: one.worth, default=None)
        return chosen if chosen is not None and chosen.evidence > 0 else None

    def __repr__(self) -> str:
        low = ", low where it holds" * (self.mode == "negative")
        return f"UnitLabel({self.unit}{low}: {self.best!r} and {len(self.formulas) - 1} more)"

    def _heading(self) -> str:
        return f"Names of unit {self.unit}" + ", which is low where they hold" * (self.mode == "negative")

    def _grid(self) -> Grid:
        names = [_cells(self.unit, one, self.score) for one in self.formulas]
        head = _head(self.score)
        return Grid((head, *names), left=(1, len(head) - 1), foot=(_certainty((self,)),))

    def figure(self, ax: Any = None) -> Figure:
        """The formulas with their AUC and the share of samples on which they hold; needs matplotlib.

        ax: axes to draw into. With activations: ``absence_plugins.report.labels.label_figure``.
        """
        from absence_plugins.report.plots.labels import label_figure
        from absence_plugins.report.plots.placing import place_figure

        return place_figure(label_figure(self), ax)

    def to_dict(self) -> dict[str, Any]:
        """Plain lists, numbers and strings."""
        return {
            "unit": self.unit,
            "mode": self.mode,
            "gap": self.gap,
            "score": self.score,
            "threshold": self.threshold,
            "certified": self.certified,
            "bound": self.bound,
            "formulas": [one.to_dict() for one in self.formulas],
        }


@dataclass(frozen=True, repr=False)
class UnitLabels(Result, Sequence[UnitLabel]):
    """All units' labels, a sequence in the order of the units.

    Attributes:
        units: one :class:`UnitLabel` each.
        searched, heldout: number of samples in either part.
        settings: how the search was asked for.
    """

    units: tuple[UnitLabel, ...]
    searched: int
    heldout: int
    settings: dict[str, Any]

    @overload
    def __getitem__(self, index: int) -> UnitLabel: ...
    @overload
    def __getitem__(self, index: slice) -> tuple[UnitLabel, ...]: ...
    def __getitem__(self, index: int | slice) -> UnitLabel | tuple[UnitLabel, ...]:
        return self.units[index]

    def __len__(self) -> int:
        return len(self.units)

    def __iter__(self) -> Iterator[UnitLabel]:
        return iter(self.units)

    def with_not(self, q: float = 0.05) -> list[UnitLabel]:
        """The units whose best name has a NOT that is worth something, strongest first.

        q: the highest q-value of the name and of the NOT, where there are any.
        """
        named = []
        for one in self.units:
            chosen = one.absence
            if chosen is not None and all(each is None or each <= q for each in (one.best.q, chosen.q)):
                named.append((chosen.evidence, one))
        return [one for _, one in sorted(named, key=lambda pair: (-pair[0], pair[1].unit))]

    def table(self) -> str:
        """One line per unit: its best formula, the scores, and what each NOT is worth."""
        return self._grid().text()

    def _heading(self) -> str:
        return f"UnitLabels of {len(self)} units"

    def _grid(self, most: int | None = None) -> Grid:
        score = self.units[0].score
        head, names = _head(score), [_cells(one.unit, one.best, score) for one in self.units[:most]]
        where = "low" if self.settings.get("mode") == "negative" else "high"
        foot = f"{self.searched} samples searched, {self.heldout} held out; a unit is {where} where its formula holds"
        foot += "" if self.heldout else "; nothing was held out, so there are no p- and q-values"
        more = () if most is None or len(self) <= most else (f"and {len(self) - most} more units",)
        return Grid((head, *names), left=(1, len(head) - 1), foot=(*more, foot, self.certainty))

    @property
    def certainty(self) -> str:
        """What chose the formulas, and how many of the best are proven, in a sentence."""
        return _certainty(self.units)

    def _table_html(self) -> str:
        return self._grid(MOST).html()

    def figure(self, ax: Any = None) -> Figure:
        """The AUC of the first 30 units' best formulas; needs matplotlib. ax: axes to draw into.

        Red: the unit is higher (mode "negative": lower) where the formula holds; blue: the other way round.
        """
        from absence_plugins.report.plots.placing import draw_bars

        shown = self.units[:MOST]
        names, scores = [f"{one.unit}: {one.best.formula}" for one in shown], [one.best.auc for one in shown]
        return draw_bars(ax, names, scores, "AUC (0.5: chance)", base=0.5, title="how well the best names fit")

    def __repr__(self) -> str:
        return f"{self._heading()}\n{self.table()}"

    def to_dict(self) -> dict[str, Any]:
        """Plain lists, numbers and strings, ready for JSON."""
        sizes = {"searched": self.searched, "heldout": self.heldout, "settings": dict(self.settings)}
        return sizes | {"units": [one.to_dict() for one in self.units]}

    def to_json(self, path: str | Path | None = None) -> str:
        """``to_dict`` as JSON; also written to ``path``."""
        return _written(json.dumps(self.to_dict(), indent=1, ensure_ascii=False), path)

    def to_csv(self, path: str | Path | None = None) -> str:
        """One line per unit and formula, several NOTs separated by ``;``; also written to ``path``.

        Names that a spreadsheet would compute, such as ``=1+1``, have an apostrophe in front.
        """
        rows: list[tuple[Any, ...]] = [COLUMNS]
        for label in self.units:
            for rank, one in enumerate(label.formulas, 1):
                scores = (one.auc, one.fraction, one.heldout_auc, one.heldout_fraction, one.p, one.q)
                nots = one.negations
                worth = (";".join(n.concept for n in nots), ";".join(f"{n.worth:.6f}" for n in nots),
                         ";".join("" if n.heldout_worth is None else f"{n.heldout_worth:.6f}" for n in nots),
                         ";".join("" if n.q is None else f"{n.q:.6g}" for n in nots))  # fmt: skip
                rows.append(
                    (
                        label.unit,
                        rank,
                        str(one.formula),
                        one.formula.length,
                        *scores,
                        *worth,
                        one.score,
                        one.heldout_score,
                    )
                )
        return _written(write_csv(rows), path)


def _head(score: str) -> tuple[str, ...]:
    own = () if score == "auc" else (TITLES[score], "held out")
    return ("unit", "formula", *own, "AUC", "on", "held out", "q", "what a NOT is worth")


def _cells(unit: int, best: ScoredFormula, score: str) -> tuple[str, ...]:
    def spell(value: float | None) -> str:
        return "-" if value is None else f"{value:.3f}"

    own = () if score == "auc" else (spell(best.score), spell(best.heldout_score))
    q = "-" if best.q is None else f"{best.q:.2g}"
    nots = ", ".join(
        f"NOT {one.concept} {one.evidence:+.3f}{'' if one.q is None else f' (q {one.q:.2g})'}" for one in best.negations
    )
    return (
        str(unit),
        str(best.formula),
        *own,
        spell(best.auc),
        f"{best.fraction:.1%}",
        spell(best.heldout_auc),
        q,
        nots,
    )


def _certainty(units: Sequence[UnitLabel]) -> str:
    title = TITLES[units[0].score]
    proven = sum(one.certified for one in units)
    head = f"formulas chosen by {title}" + ", of the firing at a threshold" * (units[0].threshold is not None)
    if len(units) == proven:
        return f"{head}; the highest is proven" + f" for all {len(units)} units" * (len(units) > 1)
    gaps = [one.gap for one in units if one.gap and not one.is_bound_empty]
    empty = sum(one.is_bound_empty for one in units)
    parts = [f"proven for {proven} of {len(units)} units"] if len(units) > 1 else []
    parts += [f"at most {max(gaps):.3f} higher is possible" + f" for {len(gaps)}" * (len(units) > 1)] if gaps else []
    if empty:
        parts += [
            "bounded by 1 only"
            + f" for {empty}" * (len(units) > 1)
            + ", which excludes nothing: a larger budget says more"
        ]
    if len(gaps) + empty + proven < len(units):
        parts += ["not certified" + f" for {len(units) - len(gaps) - empty - proven}" * (len(units) > 1)]
    return f"{head}; the highest is {', '.join(parts)}"


def _written(text: str, path: str | Path | None) -> str:
    if path is not None:
        write_whole(path, text)
    return text
