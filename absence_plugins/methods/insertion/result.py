"""What the insertion test found, unit by unit and over all."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from torch import Tensor

from absence_plugins.core.results import Result
from absence_plugins.core.table import Grid
from absence_plugins.methods.patches import ExtremePatches

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class UnitInsertion:
    """One unit's result.

    Attributes:
        unit: its number in the layer.
        means: mean value over the images, by arm.
        effect: mean(random) - mean(lowest); positive: the lowest patches pull the unit down.
        d: Cohen's d of the paired differences random - lowest.
        p: the largest of ``parts``.
        q: after Benjamini-Hochberg over the units.
        parts: p-values by control ("random", "median", "blank": over images, paired) and of "patches" (a patch as the
            sample); of the paper's protocol "published".
        mirror: how much more the unit rises where its lowest patch is painted over than where another place is;
            None with the paper's protocol.
        mirror_p: one-sided paired t-test of it, over patches.
        images: how many were pasted into.
        patches: from how many different images the lowest patches come.
        flagged: an encoded absence: q <= alpha and mirror > 0 (of the paper's protocol: p <= alpha).
    """

    unit: int
    means: dict[str, float]
    effect: float
    d: float
    p: float
    q: float
    parts: dict[str, float]
    mirror: float | None
    mirror_p: float | None
    images: int
    patches: int
    flagged: bool

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers."""
        return asdict(self)


@dataclass(frozen=True, eq=False, repr=False)
class InsertionResult(Result, Sequence[UnitInsertion]):
    """All units' results, in the order of the scan.

    Attributes:
        units: one :class:`UnitInsertion` each.
        values: [units, images, arms], the unit's value.
        images: [units, images], their numbers; the highest first.
        arms: names of the last axis.
        protocol: "controlled" or "paper".
        layer: the layer's name.
        alpha: the level of the flags.
        patches: the patches that were pasted.
    """

    units: tuple[UnitInsertion, ...]
    values: Tensor
    images: Tensor
    arms: tuple[str, ...]
    protocol: str
    layer: str
    alpha: float
    patches: ExtremePatches

    def __len__(self) -> int:
        return len(self.units)

    def __iter__(self) -> Iterator[UnitInsertion]:
        return iter(self.units)

    def __getitem__(self, index: Any) -> Any:
        return self.units[index]

    def of(self, unit: int) -> UnitInsertion:
        """A unit's result by its number in the layer. Raises ValueError if it was not tested."""
        return self.units[self.patches.row(unit)]

    @property
    def flagged(self) -> tuple[UnitInsertion, ...]:
        """The encoded absences, the largest effect first."""
        return tuple(sorted((one for one in self.units if one.flagged), key=lambda one: -one.d))

    @property
    def overall(self) -> dict[str, Any]:
        """Means over units, and how many are flagged."""
        count = len(self.units)
        return {
            "units": count,
            "flagged": len(self.flagged),
            "alpha": self.alpha,
            "protocol": self.protocol,
            "means": {arm: sum(one.means[arm] for one in self.units) / count for arm in self.arms},
            "effect": sum(one.effect for one in self.units) / count,
        }

    def table(self, most: int = 20) -> str:
        """One line per unit, the most certain first; below it the totals."""
        return self._grid(most).text()

    def _heading(self) -> str:
        return f"InsertionResult of {len(self.units)} units of {self.layer!r}"

    def _grid(self, most: int = 20) -> Grid:
        shown = sorted(self.units, key=lambda one: (not one.flagged, one.q, -one.d))[:most]
        head = ["unit", *self.arms, "d", "p", "q", "mirror", ""]
        rows = [head]
        for one in shown:
            means = (f"{one.means[arm]:.4g}" for arm in self.arms)
            mirror = "-" if one.mirror is None else f"{one.mirror:+.2g}"
            rows.append(
                [
                    str(one.unit),
                    *means,
                    f"{one.d:.2f}",
                    f"{one.p:.2g}",
                    f"{one.q:.2g}",
                    mirror,
                    "*" if one.flagged else "",
                ]
            )
        level = f"p <= {self.alpha}" if self.protocol == "paper" else f"q <= {self.alpha} and the mirror test"
        total = self.overall
        averages = ", ".join(f"{arm} {value:.4g}" for arm, value in total["means"].items())
        flagged = f"{total['flagged']} of {total['units']} units flagged ({level}); means over units: {averages}"
        return Grid(tuple(map(tuple, rows)), left=(), foot=("", flagged))

    def __repr__(self) -> str:
        return f"{self._heading()}\n{self.table(5)}"

    def to_dict(self) -> dict[str, Any]:
        """Plain lists, numbers and strings, ready for JSON."""
        return {"layer": self.layer, "overall": self.overall, "units": [one.to_dict() for one in self.units]}

    def figure(self, most: int = 12, ax: Any = None) -> Figure:
        """The most certain units: mean value under every arm, with the lowest patch's in blue; needs matplotlib.

        most: units shown; ax: axes to draw into.
        """
        from absence_plugins.report.plots.insertion import insertion_figure

        shown = sorted(self.units, key=lambda one: (not one.flagged, one.q, -one.d))[:most]
        return insertion_figure(shown, self.arms, self.layer, ax=ax)
