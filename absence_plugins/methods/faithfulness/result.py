"""What a check of a map's claims found."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import torch  # noqa: F401  (examples)
from torch import Tensor

from absence_plugins.core.results import Result
from absence_plugins.core.table import Grid, format_interval
from absence_plugins.methods.faithfulness.intervals import Ratio

if TYPE_CHECKING:
    from matplotlib.figure import Figure

View = Literal["nontarget", "reference"]
WORDS = {
    "nontarget": ("blanking", "content in the order of the map's most negative relevance", "rise", "fall"),
    "reference": ("copying in", "what is missing in the order of the map's largest absence evidence", "fall", "rise"),
}

ORDERS = {
    "map": "this map",
    "placebo": "this map where it says nothing",
    "control": "the best map that never saw the network",
    "standard": "the standard map",
    "random": "a random order",
    "best": "the best order found",
}


@dataclass(frozen=True, eq=False, repr=False)
class AbsenceScores(Result):
    """How much of a map's absence evidence is true, measured on the network. N samples.

    The sign: 1 as good as the best order found, 0 as good as a random order, below 0 the map points away from what it
    claims.

    Attributes:
        view: "nontarget" (deletion of suppressors: u must rise) or "reference" (insertion of the missing: u must fall).
        score: (A - A_random) / (A_best - A_random), A the mean gain along the curve, summed over the samples before
            dividing.
        interval: its 95 % interval over the samples; (-inf, 1) where they are too few, or one weighs too much, to bound
            it; NaN with one sample.
        placebo_score: the score of the same map where it says nothing (shifted at random, another sample's): what its
            smoothness alone is worth.
        control: which order that never saw the network scores highest ("color", "difference", "edges", "center",
            "smooth noise"); None where there is no score.
        control_score: its score: what the input alone earns. Only what ``score`` has above it speaks for the map.
        standard_score: the same of the standard map; None where none was given.
        standard_interval: its interval.
        over_random: A / A_random; NaN where a random order gains nothing.
        over_standard: A / A_standard; None where no standard map was given, NaN where it gains nothing.
        per_sample: the score of every sample [N]; NaN where no order gains more than a random one.
        areas: name -> mean gain of every sample [N], in the unit's own units: "map", "random", "best", and "standard"
            if given.
        curves: name -> gain after every step, mean over the samples [steps + 1].
        samples: how many samples count.
        empty_samples: numbers of those without anything to change; they do not count.
        cell: side of a cell in pixels.
        seed: of the random orders and of the interval.
        thing: what was changed at once: "cell", or of a kind of data "column", "token", "span", "region".
    """

    view: View
    score: float
    interval: tuple[float, float]
    placebo_score: float | None
    control: str | None
    control_score: float | None
    standard_score: float | None
    standard_interval: tuple[float, float] | None
    over_random: Ratio
    over_standard: Ratio | None
    per_sample: Tensor
    areas: dict[str, Tensor]
    curves: dict[str, Tensor]
    samples: int
    empty_samples: tuple[int, ...]
    cell: int
    seed: int
    thing: str = "cell"

    def sentence(self) -> str:
        """The result in words.

        >>> from absence_plugins.methods.faithfulness import absence_scores
        >>> scores = absence_scores(torch.nn.Identity(), torch.tensor([[-2.0, 1.0, 1.0]]), lambda x: x.sum(1), lambda x: x)
        >>> scores.sentence()  # doctest: +ELLIPSIS
        "Deletion of suppressors: 1.00 over 1 sample (1: the best order found, 0: a random one, ..."
        """
        deed, order, way, back = WORDS[self.view]
        title = "Deletion of suppressors" if self.view == "nontarget" else "Insertion of the missing"
        samples = f"{self.samples} sample{'s' * (self.samples != 1)}"
        if math.isnan(self.score):
            return f"{title}: no order of the {self.thing}s makes the unit {way} (further than a random one) on {samples}, so there is no score."
        text = f"{title}: {self.score:.2f}{format_interval(self.interval)} over {samples} (1: the best order found, 0: a random one"
        if self.placebo_score is not None:
            text += f", {self.placebo_score:.2f}: the same map where it says nothing"
        if self.control_score is not None:
            text += f", {self.control_score:.2f}: the best map that never saw the network, {self.control}"
        text += ")"
        if self.standard_score is not None:
            text += f", the standard map {self.standard_score:.2f}"
        gains = (float(self.areas[name].mean()) for name in ("map", "random"))
        own, chance = (f"{way if gain >= 0 else back} by {abs(gain):.3g}" for gain in gains)
        return f"{text}; {deed} {order} makes the unit {own} on average along the way, in random order {chance}."

    def __repr__(self) -> str:
        return f"AbsenceScores({self.view}: {self.sentence()})"

    def _heading(self) -> str:
        return f"AbsenceScores, {'non-target' if self.view == 'nontarget' else 'reference'} view"

    def _grid(self) -> Grid:
        rows = [(f"order of the {self.thing}s", "score", "interval", "mean gain")]
        scores = {
            "map": (self.score, self.interval), "placebo": (self.placebo_score, None),
            "control": (self.control_score, None), "standard": (self.standard_score, self.standard_interval), "random": (0.0, None), "best": (1.0, None),
        }  # fmt: skip
        for name, (score, interval) in scores.items():
            if score is not None:
                gain = f"{float(self.areas[name].mean()):.4g}" if name in self.areas else "-"
                spread = "" if interval is None else format_interval(interval).strip()
                rows.append((ORDERS[name], f"{score:.2f}", spread or "-", gain))
        return Grid(tuple(rows), foot=(self.sentence(),))

    def to_dict(self) -> dict[str, Any]:
        """Plain lists, numbers and strings, ready for JSON (NaN and infinite as None)."""

        def plain(value: Any) -> Any:
            if isinstance(value, Tensor):
                return plain(value.tolist())
            if isinstance(value, Ratio):
                return plain({"value": value.value, "low": value.low, "high": value.high})
            if isinstance(value, dict):
                return {name: plain(own) for name, own in value.items()}
            if isinstance(value, (tuple, list)):
                return [plain(own) for own in value]
            return None if isinstance(value, float) and not math.isfinite(value) else value

        return {name: plain(value) for name, value in vars(self).items()}

    def figure(self, ax: Any = None) -> Figure:
        """The curves: the map's between the best and a random order; needs matplotlib. ax: axes to draw into."""
        from absence_plugins.report.plots.faithfulness import curves_figure

        return curves_figure(self, ax)
