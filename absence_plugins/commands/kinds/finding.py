"""What was found of one sample: its map against references, and what replacing things by the reference's does."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from torch import Tensor

from absence_plugins.commands.kinds.asked import Question
from absence_plugins.commands.kinds.models import KindModel
from absence_plugins.core.kinds import Kind, TextKind
from absence_plugins.methods.regions import ThingTests

MISSING, PRESENT = "missing", "present"  # what a test is about


@dataclass(frozen=True, eq=False)
class Finding:
    """One explained sample.

    Attributes:
        name: of the sample, as "Row 5".
        question: what was explained.
        loaded: the model.
        kind: what the entries are.
        x: the sample [*entries].
        signed: the map, shaped like x (of a text [T]). R > 0 raises the explained output compared with the references.
        references: [k, *entries], or of a text the aligned one.
        nearest: the nearest reference's name.
        compared: what it was compared with, in a sentence's part: "the 8 nearest of 40 references of class 0".
        reference_value: the explained output on the references, the mean.
        tests: by "missing" and "present".
        described: sentences on the strongest things.
        notes: what was left out, and what was warned of.
        options: for the figure.
    """

    name: str
    question: Question
    loaded: KindModel
    kind: Kind
    x: Tensor
    signed: Tensor
    references: Tensor
    nearest: str
    compared: str
    reference_value: float
    tests: dict[str, ThingTests]
    described: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    options: dict[str, Any] = field(default_factory=dict)

    def with_words(self, described: Sequence[str]) -> Finding:
        """The same with sentences on its strongest things."""
        return replace(self, described=tuple(described))

    @property
    def heading(self) -> str:
        """As "Row 5: class 1 (benign)"."""
        return f"{self.name}: {self.explained}"

    @property
    def explained(self) -> str:
        """The explained output by its classes' names."""
        choice, name = self.question.choice, self.loaded.name
        if choice.kind == "nontarget" and choice.nontargets is not None:
            return name(int(choice.nontargets[0]))
        if choice.kind == "margin" and choice.nontargets is not None:
            return f"{name(self.question.own)} minus {name(int(choice.nontargets[0]))}"
        return name(self.question.own)

    @property
    def names(self) -> tuple[str, ...]:
        """The classes' names, for titles and legends."""
        return self.loaded.categories

    @property
    def title(self) -> str:
        """Of the figure."""
        if self.question.choice.single:
            return f"What raises {self.explained} or holds it down"
        return self.question.choice.heading(0, self.names or None)

    @property
    def legend(self) -> tuple[str, str]:
        """What red and blue mean."""
        if self.question.choice.single:
            return f"raises {self.explained}", f"holds {self.explained} down"
        return self.question.choice.legend(0, self.names or None)

    def paragraphs(self) -> list[str]:
        """What is said of the sample, the most important first."""
        difference = self.question.value - self.reference_value
        target = (
            f" The output of {self.explained}"
            if self.question.is_held_down or self.question.own != self.question.predicted
            else " Its output"
        )
        first = (
            f"The model predicts {self.loaded.name(self.question.predicted)}.{target} is {self.question.value:.4g}; on "
            f"{self.compared} it is {self.reference_value:.4g}. The difference of {difference:+.4g} is divided exactly among the "
            f"{self.kind.thing}s."
        )
        said = [first]
        if self.described:
            said.append(" ".join(self.described))
        said += [
            f"{'What is missing' if part == MISSING else 'What is there'}: {say_test(tests)}"
            for part, tests in self.tests.items()
        ]
        if self.notes:
            said.append(" ".join(f"Note: {note}" for note in self.notes))
        return said

    def facts(self) -> list[tuple[str, str]]:
        """The numbers, the output first."""
        found = [
            ("output", f"{self.question.value:.4g}"),
            ("references", f"{self.reference_value:.4g}"),
            ("nearest", self.nearest),
        ]
        words = {MISSING: "missing", PRESENT: "there"}
        return found + [(words[part], f"{_short(tests)}, p {tests.p:.2g}") for part, tests in self.tests.items()]

    def line(self) -> tuple[str, ...]:
        """For the table on the terminal."""
        verdicts = [_short(self.tests.get(part)) for part in (MISSING, PRESENT)]
        return (
            self.name,
            self.loaded.name(self.question.predicted),
            self.explained,
            f"{self.question.value:.3g}",
            f"{self.reference_value:.3g}",
            *verdicts,
        )


HEAD = ("sample", "predicted", "explained", "output", "references", "missing", "there")


def say_test(tests: ThingTests) -> str:
    """The strongest thing of a test, by name, and the verdict on it."""
    if tests.best is None:
        return f"the map names no {tests.kind.thing}."
    best = tests.tests[tests.best]
    what = best.replaced if isinstance(tests.kind, TextKind) else best.name
    if best.replaced and not isinstance(tests.kind, TextKind):
        what = f"{best.name} ({best.replaced})"
    return f"{what}. With the nearest reference's in place the output is {best.after:.4g} instead of {best.before:.4g}. {tests.verdict()}"


def _short(tests: ThingTests | None) -> str:
    if tests is None or tests.best is None:
        return "-"
    best = tests.tests[tests.best]
    name = best.replaced if isinstance(tests.kind, TextKind) else best.name
    verdict = (
        "borne out" if tests.is_borne else "undecided" if tests.verdict().startswith("Undecided") else "not borne out"
    )
    return f"{name} ({best.change:+.2f}, {verdict})"
