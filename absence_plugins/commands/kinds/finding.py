"""What was found of one sample: its map against references, and what replacing things by the reference's does."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from torch import Tensor

from absence_plugins.commands.kinds.asked import Question
from absence_plugins.commands.kinds.models import KindModel
from absence_plugins.core.kinds import Kind, TextKind
from absence_plugins.methods.regions import ThingTests
from absence_plugins.report.plots.text import ReadText

MISSING, PRESENT = "missing", "present"  # what a test is about
ENTRIES = {"signal": "time step", "volume": "voxel"}


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
        text: of a text its tokens, for the page.
        rest: of the map, what is in no thing, as the end of a sentence.
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
    text: ReadText | None = None
    rest: str = ""

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

    def sentences(self) -> list[str]:
        """What is said of the sample, the most important first."""
        question, value = self.question, self.question.value
        other = question.is_held_down or question.own != question.predicted
        whose = f"The output of {self.explained}" if other else "Its output"
        if question.choice.single and question.choice.kind == "negated":
            whose = "Minus its one output"
        first = (
            f"The model predicts {self.loaded.name(question.predicted)}. {whose} is {value:.4g}; on {self.compared} "
            "it is "
            f"{self.reference_value:.4g}. The difference of {value - self.reference_value:+.4g} is divided exactly "
            "among "
            f"the {self.kind.thing if self.kind.thing in ('column', 'token') else ENTRIES[self.kind.name]}s{self.rest}."
        )
        notes = [f"Note: {note}" for note in self.notes]
        return [first, *([" ".join(self.described)] if self.described else []), *([" ".join(notes)] if notes else [])]

    def verdicts(self) -> list[str]:
        """What the tests found."""
        words = {MISSING: "What is missing", PRESENT: "What is there"}
        return [f"{words[part]}: {say_test(tests)}" for part, tests in self.tests.items()]

    def facts(self) -> list[tuple[str, str]]:
        """The numbers, the output first."""
        words = {MISSING: "What is missing", PRESENT: "What is there"}
        return [
            ("Output", f"{self.question.value:.4g}"),
            ("References", f"{self.reference_value:.4g}"),
            ("Nearest", self.nearest),
            *(
                (words[part], f"{say_state(tests)}, p {tests.p:.2g}")
                for part, tests in self.tests.items()
                if tests.tests
            ),
        ]

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
    moved = f"the output is {best.after:.4g} instead of {best.before:.4g}"
    return f"{what}. With the nearest reference's in place {moved}. {tests.verdict()}"


def say_state(tests: ThingTests) -> str:
    """As "borne out", "not borne out" or "undecided"."""
    if tests.is_borne:
        return "borne out"
    return "undecided" if tests.verdict().startswith("Undecided") else "not borne out"


def _short(tests: ThingTests | None) -> str:
    if tests is None or tests.best is None:
        return "-"
    best = tests.tests[tests.best]
    name = best.replaced if isinstance(tests.kind, TextKind) else best.name
    return f"{name} ({best.change:+.2f}, {say_state(tests)})"
