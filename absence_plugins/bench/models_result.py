"""The matrix of ``bench models``: model x method, as text, Markdown, figure and JSON."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from absence_plugins.bench.result import surroundings
from absence_plugins.core.table import align

if TYPE_CHECKING:
    from matplotlib.figure import Figure

CONSERVED, ANTISYMMETRIC = 0.01, 1e-3  # largest relative errors
SAID = 0.05  # of u(x) - u(r): beyond it a class of ours has to warn (docs/limits.md)
PRECISE = 1e-3  # of u: smaller differences are measured in float64
LEGEND = (
    "cells: by how much the sum of the map misses what it divides, u(x) - u(r), or u(x) for methods without a "
    f"reference, relative to it; !: more than {CONSERVED:.0%}; ~: R(x; r) is not -R(r; x); -: does not run; w: our "
    "class warns, or rejects the model, in words; ok: a gradient, which has no sum to be checked; x and r "
    "are noise, weights are random; float32, or float64 where u(x) - u(r) is less than a thousandth of u"
)


@dataclass(frozen=True)
class ModelScore:
    """One method on one model.

    Attributes:
        source, model, method: which.
        runs: whether it returns a map.
        error: abs(sum of R - t) / abs(t), t = u(x) - u(r), or u(x) where there is no reference; None without a finite
            map.
        asymmetry: max abs(R(x; r) + R(r; x)) / max abs(R(x; r)); None without a reference or a map.
        note: why there is no finite map; "" if there is.
        said: what our own class warned of, or with which words it rejected the model; "" for others' methods.
        is_ours: a class of this package.
        is_complete: whether the method promises the sum.
    """

    source: str
    model: str
    method: str
    runs: bool
    error: float | None
    asymmetry: float | None
    note: str
    said: str = ""
    is_ours: bool = False
    is_complete: bool = True

    @property
    def is_right(self) -> bool:
        """Whether what the method promises holds."""
        if not self.is_complete:
            return self.runs and not self.note
        return self.is_conserved and (self.asymmetry is None or self.is_antisymmetric)

    @property
    def fault(self) -> str:
        """What must not happen to a class of ours: "crash"; "silently wrong", by more than 5 %; "" otherwise."""
        is_near = self.error is not None and self.error <= SAID and (self.asymmetry or 0.0) <= ANTISYMMETRIC
        if not self.is_ours or self.is_right or is_near or self.said:
            return ""
        return "silently wrong" if self.runs else "crash"

    @property
    def is_conserved(self) -> bool:
        """Whether the sum is right to 1 %."""
        return self.error is not None and self.error <= CONSERVED

    @property
    def is_antisymmetric(self) -> bool:
        """Whether exchanging x and r changes the sign of the map."""
        return self.asymmetry is not None and self.asymmetry <= ANTISYMMETRIC

    def cell(self) -> str:
        """The error with its marks, "-" where the method does not run.

        >>> ModelScore("timm", "resnet10t", "DeepLift", True, 0.25, 0.0, "").cell()
        '.25!'
        """
        said = "w" if self.said else ""
        if not self.runs:
            return f"-{said}"
        if self.error is None:
            return f"{'NaN!' if self.note else 'ok'}{said}"
        crooked = self.asymmetry is not None and not self.is_antisymmetric
        return f"{short_number(self.error)}{'' if self.is_conserved else '!'}{'~' if crooked else ''}{said}"

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers and strings, ready for JSON."""
        return asdict(self)


@dataclass(frozen=True, eq=False, repr=False)
class ModelsResult:
    """All scores, by model and method, and where they were made."""

    scores: tuple[ModelScore, ...]
    environment: dict[str, Any]

    @property
    def models(self) -> list[tuple[str, str]]:
        """Source and name, in order."""
        return list(dict.fromkeys((one.source, one.model) for one in self.scores))

    @property
    def methods(self) -> list[str]:
        """Names, in order."""
        return list(dict.fromkeys(one.method for one in self.scores))

    @property
    def ok(self) -> bool:
        """Whether relevance is right on every model, and no other class of ours crashes or is silently wrong."""
        exact = [one for one in self.scores if one.method.startswith("relevance ")]
        return all(one.is_right for one in exact) and not any(one.fault for one in self.scores)

    def rows(self) -> list[list[str]]:
        """A row per model: package, name, a cell per method."""
        cells = {(one.source, one.model, one.method): one.cell() for one in self.scores}
        return [[*model, *(cells[(*model, method)] for method in self.methods)] for model in self.models]

    def counts(self) -> list[list[str]]:
        """A row per method: on how many models it runs, is conserved, and antisymmetric."""
        rows = []
        for method in self.methods:
            own = [one for one in self.scores if one.method == method]
            compares = any(one.asymmetry is not None for one in own)
            straight = str(sum(one.is_antisymmetric for one in own)) if compares else "no reference"
            runs, conserved = sum(one.runs for one in own), sum(one.is_conserved for one in own)
            summed = str(conserved) if any(one.is_complete for one in own) else "no sum"
            is_ours = any(one.is_ours for one in own)
            faults = str(sum(bool(one.fault) for one in own)) if is_ours else "not ours"
            rows.append([method, str(runs), summed, straight, faults])
        return rows

    def table(self) -> str:
        """Both tables and the reasons why a method does not run."""
        head = [f"of {len(self.models)} models", "runs", "conserved", "antisymmetric", "wrong without a word"]
        notes: dict[str, list[str]] = {}
        for one in self.scores:
            if one.note:
                notes.setdefault(f"{one.method}: {one.note}", []).append(one.model)
            if one.fault:
                notes.setdefault(f"FAULT: {one.method}, {one.fault}", []).append(one.model)
        lines = [*align([head, *self.counts()]), "", *align([["", "", *self.methods], *self.rows()], left=(0, 1))]
        lines += ["", LEGEND, *(f"{note} [{', '.join(models)}]" for note, models in notes.items())]
        return "\n".join([*lines, "", *surroundings(self.environment)])

    def __repr__(self) -> str:
        return f"ModelsResult of {len(self.methods)} methods on {len(self.models)} models\n{self.table()}"

    def markdown(self) -> str:
        """Both tables as Markdown."""
        counts = [
            [f"of {len(self.models)} models", "runs", "conserved", "antisymmetric", "wrong without a word"],
            *self.counts(),
        ]
        return f"{_markdown(counts, 1)}\n\n{_markdown([['package', 'model', *self.methods], *self.rows()], 2)}"

    def figure(self) -> Figure:
        """The matrix, colored by what holds; needs matplotlib."""
        from absence_plugins.report.plots.models import matrix_figure

        grades = {(one.source, one.model, one.method): self._grade(one) for one in self.scores}
        colors = [[grades[(*model, method)] for method in self.methods] for model in self.models]
        return matrix_figure(self.rows(), self.methods, colors)

    @staticmethod
    def _grade(one: ModelScore) -> str:
        if one.is_right:
            return "right"
        if one.said:
            return "says why it is not"
        return "runs, but the sum or the sign is wrong" if one.runs else "does not run"

    def to_dict(self) -> dict[str, Any]:
        """Plain lists, numbers and strings, ready for JSON."""
        return {"scores": [one.to_dict() for one in self.scores], "environment": dict(self.environment), "ok": self.ok}

    @classmethod
    def from_dict(cls, plain: dict[str, Any]) -> ModelsResult:
        """The way back from :meth:`to_dict`."""
        return cls(tuple(ModelScore(**one) for one in plain["scores"]), dict(plain["environment"]))


def short_number(value: float) -> str:
    """Two digits between .01 and 100, a power of ten elsewhere.

    >>> short_number(3.2e-7), short_number(0.254), short_number(12.3), short_number(4e9)
    ('3e-7', '.25', '12', '4e9')
    """
    if value == 0:
        return "0"
    if 0.01 <= value < 100:
        return (f"{value:.2f}" if value < 1 else f"{value:.2g}").replace("0.", ".", 1)
    digits, power = f"{value:.0e}".split("e")
    return f"{digits}e{int(power)}"


def _markdown(rows: list[list[str]], left: int) -> str:
    width = len(rows[0])
    marks = ["---"] * left + ["---:"] * (width - left)
    return "\n".join("| " + " | ".join(row) + " |" for row in [rows[0], marks, *rows[1:]])
