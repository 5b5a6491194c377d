"""What replacing columns, tokens, spans or regions of a sample by the reference's does to an output."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from absence_plugins.core.kinds import Kind
from absence_plugins.core.table import align
from absence_plugins.methods.regions.result import LEVEL, RegionTest, RegionTests

Control = Literal["others", "moved"]
PLACES = {"span": "times"}  # where things are moved to, if not to "places"


def describe_control(kind: Kind, control: Control) -> str:
    """What the control is: as "other columns", "other times"."""
    return f"other {f'{kind.thing}s' if control == 'others' else PLACES.get(kind.thing, 'places')}"


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class ThingTest(RegionTest):
    """The explained output before and after replacing things by the reference's, and after replacing others.

    Attributes:
        where: the things, boolean [columns], [T] or [D, H, W].
        image: the changed sample, shaped like x.
        kind: what the entries are.
        name: what the things are called: columns' names, the reference's tokens, a span of time, a box.
        replaced: what by what, as "30 years -> 50 years"; "" of signals and volumes.
        control: "others": others of the same size were replaced; "moved": the reference's content was put elsewhere.
        available: how many other things that differ (or places) there are to draw the control from.
        rises, before, after, random_values, column, least: as in :class:`RegionTest`.
    """

    kind: Kind
    name: str
    replaced: str
    control: Control
    available: int

    @property
    def _noun(self) -> str:  # type: ignore[override]
        return self.kind.thing

    @property
    def _elsewhere(self) -> tuple[str, str]:  # type: ignore[override]
        words = describe_control(self.kind, self.control)
        return f"{'with' if self.control == 'others' else 'at'} {words}", words

    @property
    def changed(self) -> Any:
        """The changed sample, shaped like x."""
        return self.image

    @property
    def random_change(self) -> float:
        """The same with others (or elsewhere), the mean over the draws; NaN without any."""
        return super().random_change if len(self.random_values) else float("nan")

    @property
    def random_sd(self) -> float:
        """The standard deviation of u over the draws; 0 for a single one, NaN without any."""
        return super().random_sd if len(self.random_values) else float("nan")

    def describe_draws(self) -> str:
        """Why there are so few draws, as in "only 4 other columns differ from the reference, so"."""
        draws, words = len(self.random_values), describe_control(self.kind, self.control)
        if self.available == 0:
            word = words.removesuffix("s").removeprefix("other ")
            return (
                f"no other {word} differs from the reference, so"
                if self.control == "others"
                else f"there are no {words}, so"
            )
        if draws < self.available:
            return f"with {draws} draw{'s' * (draws != 1)}"
        words = words if self.available > 1 else words.removesuffix("s")
        if self.control == "moved":
            return f"there {'are' if self.available > 1 else 'is'} only {self.available} {words}, so"
        return f"only {self.available} {words} differ{'s' * (self.available == 1)} from the reference, so"

    def verdict(self) -> str:
        """In a sentence; without a control "Undecided"."""
        if self.pixels and self.moved and not len(self.random_values):
            return f"Undecided: {self.describe_draws()} there is nothing to compare with."
        return super().verdict()

    def __repr__(self) -> str:
        return (
            f"ThingTest({self.kind.thing} {self.name}: {self.before:.2f} -> {self.after:.2f}, "
            f"{describe_control(self.kind, self.control)} {_control_text(self)}; "
            f"{'borne out' if self.is_borne else 'not borne out'})"
        )

    def to_dict(self) -> dict[str, Any]:
        """The numbers and names, without the samples."""
        found = super().to_dict()
        del found["others"], found["pixels"], found["share"]
        names = {"thing": self.kind.thing, "name": self.name, "replaced": self.replaced, "count": self.pixels}
        found = names | found | {"control": self.control, "available": self.available}
        return {name: None if isinstance(value, float) and value != value else value for name, value in found.items()}


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class ThingTests(RegionTests):
    """Several things, replaced one by one; the control of the strongest of them looked for the strongest as well.

    Attributes:
        tests: one :class:`ThingTest` per thing, in the order in which they were passed.
        how: what was done to them.
        kind: what the entries are.
        control: "others" or "moved".
    """

    tests: tuple[ThingTest, ...]
    kind: Kind
    control: Control

    @property
    def _nouns(self) -> tuple[str, str]:  # type: ignore[override]
        return self.kind.thing, describe_control(self.kind, self.control)

    @property
    def p_values(self) -> tuple[float, ...]:
        """One per thing, corrected for how many there are; 1 of those without a control, which the others do not count.

        With others: (1 + others that go as far) / (1 + others), by Holm's step-down. Moved: as of :class:`RegionTests`.
        """
        known = tuple(test for test in self.tests if len(test.random_values))
        corrected = RegionTests(known, self.how).p_values if self.control == "moved" else _correct(known)
        found = iter(corrected)
        return tuple(next(found) if len(test.random_values) else 1.0 for test in self.tests)

    def verdict(self) -> str:
        """On the strongest thing, in a sentence.

        Undecided where the output moved as the map says, and there are too few others for p to be 0.05.
        """
        if self.best is None or self.is_borne:
            return super().verdict()
        own = self.tests[self.best]
        draws = len(own.random_values)
        if not own.moved:
            return own.verdict()
        many = sum(len(test.random_values) > 0 for test in self.tests) if self.control == "others" else 1
        one_of = f" for one of {many} {self.kind.thing}s" if many > 1 else ""
        if (1 + draws) * LEVEL < many or not draws:
            return f"Undecided: {own.describe_draws()} p cannot be {LEVEL}{one_of} (p = {self.p:.2f})."
        if self.control == "moved" or not own.is_borne:
            return super().verdict()
        words = describe_control(self.kind, self.control)
        return (
            f"That is no more than chance: with {words} the output moves as far too often{one_of} (p = {self.p:.2f})."
        )

    def table(self) -> str:
        """One line per thing."""
        control = describe_control(self.kind, self.control)
        rows: list[tuple[str, ...]] = [(self.kind.thing, "replaced", "before", "after", "change", control, "borne out")]
        rows += [
            (
                test.name,
                test.replaced,
                f"{test.before:.2f}",
                f"{test.after:.2f}",
                f"{test.change:+.2f}",
                _control_text(test),
                "yes" if is_borne else "no",
            )
            for test, is_borne in zip(self.tests, self.borne, strict=True)
        ]
        if not any(test.replaced for test in self.tests):
            rows = [(row[0], *row[2:]) for row in rows]
        return "\n".join(align(rows, left=(0, 1) if any(test.replaced for test in self.tests) else (0,)))

    def __repr__(self) -> str:
        many = f"{len(self.tests)} {self.kind.thing}{'s' * (len(self.tests) != 1)}"
        return f"ThingTests({many}, {self.how}; p = {self.p:.2f})\n{self.table()}"

    def to_dict(self) -> dict[str, Any]:
        """The numbers and names, without the samples."""
        return {**super().to_dict(), "kind": self.kind.name, "control": self.control, "verdict": self.verdict()}


def _correct(tests: tuple[ThingTest, ...]) -> list[float]:
    """The p value of every test among all, by Holm's step-down."""
    alone = []
    for test in tests:
        reached = int((test.gains >= test.gain - 1e-9 * (1 + abs(test.gain))).sum())
        alone.append((1 + reached) / (1 + len(test.gains)))
    found, largest = [1.0] * len(alone), 0.0
    for rank, number in enumerate(sorted(range(len(alone)), key=lambda i: alone[i])):
        largest = max(largest, (len(alone) - rank) * alone[number])
        found[number] = min(1.0, largest)
    return found


def _control_text(test: ThingTest) -> str:
    return f"{test.random_change:+.2f} ± {test.random_sd:.2f}" if len(test.random_values) else "none"
