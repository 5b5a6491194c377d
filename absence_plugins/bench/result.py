"""What the bench measured: one ratio a row, and a table of them."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

from absence_plugins.core.table import align

if TYPE_CHECKING:
    from absence_plugins.bench.growth import Grown


@dataclass(frozen=True)
class Measurement:
    """One ratio of the adapter to the plain host.

    Attributes:
        name: network and question.
        what: what the two sides compute.
        ours: the adapter's median (time) or increase of the peak (memory), in ``unit``.
        plain: the same of the host.
        unit: "ms" or "MiB".
        ratio: median over the rounds of ours / plain; above 1 the adapter costs more.
        limit: what the ratio may be; None where none is promised.
        ok: whether it keeps the limit; None where it is not judged.
        rounds: the ratio of every round, to see the spread.
        growth: the same work at three sizes; None where it was not measured.
    """

    name: str
    what: str
    ours: float
    plain: float
    unit: str
    ratio: float
    limit: float | None
    ok: bool | None
    rounds: tuple[float, ...] = ()
    growth: Grown | None = None

    def to_dict(self) -> dict[str, Any]:
        """Plain lists, numbers and strings, ready for JSON."""
        own = {each.name: getattr(self, each.name) for each in fields(self)}
        return own | {"rounds": list(self.rounds), "growth": None if self.growth is None else self.growth.to_dict()}


@dataclass(frozen=True, repr=False)
class BenchResult:
    """All ratios of one run, and where it ran.

    Attributes:
        measurements: in the order of measuring.
        environment: versions, device, threads, rounds, and a "note" on what was left out.
        host: what it was compared with.
        ours: what is ours.
    """

    measurements: tuple[Measurement, ...]
    environment: dict[str, Any]
    host: str = "Captum"
    ours: str = "adapter"

    @property
    def ok(self) -> bool:
        """Whether every ratio that is judged keeps its limit."""
        return all(one.ok is not False for one in self.measurements)

    def table(self) -> str:
        """One line per measurement, limits and verdicts included; how it grows; below it what the names mean."""
        head = ("", self.host, self.ours, "ratio", "rounds", "limit", "")
        lines = align([head, *(cells(one) for one in self.measurements)])
        legend = [f"{one.name}: {one.what}" for one in self.measurements]
        return "\n".join([*lines, *self._growth(), "", *legend, "", *surroundings(self.environment)])

    def _growth(self) -> list[str]:
        """The exponents of what was measured at three sizes."""
        grown = [(one.name, *one.growth.cells()) for one in self.measurements if one.growth is not None]
        if not grown:
            return []
        head = ("exponents of growth", "sizes", f"time, {self.host}", f"time, {self.ours}")
        return ["", *align([(*head, f"memory, {self.host}", f"memory, {self.ours}", ""), *grown])]

    def __repr__(self) -> str:
        return f"BenchResult of {len(self.measurements)} measurements\n{self.table()}"

    def to_dict(self) -> dict[str, Any]:
        """Plain lists, numbers and strings, ready for JSON."""
        rows = [one.to_dict() for one in self.measurements]
        return {"measurements": rows, "environment": dict(self.environment), "ok": self.ok}


def surroundings(environment: dict[str, Any]) -> list[str]:
    """Where it was measured, and the note if there is one, as lines."""
    note = environment.get("note")
    where = ", ".join(f"{name} {value}" for name, value in environment.items() if name != "note")
    return [where, *([f"note: {note}"] if note else [])]


def verdict(ratio: float, limit: float | None) -> bool | None:
    """Whether a ratio keeps its limit; None where there is none."""
    return None if limit is None else ratio <= limit


def cells(one: Measurement) -> tuple[str, ...]:
    """A measurement as one row of the table."""
    digits = 1 if one.plain < 1000 else 0
    count = len(one.rounds)
    spread = f"{count} x {min(one.rounds):.2f}..{max(one.rounds):.2f}" if count > 1 else ""
    verdict = "" if one.ok is None else "ok" if one.ok else "TOO HIGH"
    limit = "-" if one.limit is None else f"{one.limit:.2f}"
    costs = (f"{value:.{digits}f} {one.unit}" for value in (one.plain, one.ours))
    return (one.name, *costs, f"{one.ratio:.3f}", spread, limit, verdict)
