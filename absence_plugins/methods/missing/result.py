"""A minimal set with its certificate."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from absence_plugins.core.memory_layout import PLAIN
from absence_plugins.core.results import Result
from absence_plugins.core.table import Grid
from absence_plugins.core.turns import working_on
from absence_plugins.core.wording import Names
from absence_plugins.methods.missing.pasting import Given, Pasting, What
from absence_plugins.methods.missing.pieces import plural
from absence_plugins.methods.missing.questions import call_class

if TYPE_CHECKING:
    from matplotlib.figure import Figure

ROWS = 20  # members that a table shows
LISTED = 4  # members that a sentence names
LISTED_THINGS = ("column", "token", "span", "entry", "region", "cell")


@dataclass(frozen=True, eq=False, repr=False)
class MissingSet(Result):
    """The pieces that x lacks for another decision (or, presence, that are enough for its own), and the proof.

    Attributes:
        given: what is asked of which input and reference: ``given.what``, ``.paste``, ``.question``, ``.x``,
            ``.reference`` (of several, the one that needs the fewest pieces) and its ``.number``.
        numbers: of the members among the pieces that can be pasted, strongest evidence first.
        scores: evidence of all these pieces [P] float64. Above 0 raises u on x compared with the reference.
        certificate: u with every member left out in turn [n] float64: none of these crosses the bound.
        before: u of the input that pieces are pasted into.
        after: u with the set pasted in.
        whole: u with all pieces pasted in.
        decided: the class before, and with the set; None where no classes are decided between.
        least: no set of fewer pieces crosses the bound, proven by trying all of them (of this reference).
        forwards: how many images the network was asked about.
    """

    given: Given
    numbers: tuple[int, ...]
    scores: Tensor
    certificate: Tensor
    before: float
    after: float
    whole: float
    decided: tuple[int | None, int | None]
    least: int
    forwards: int

    def __len__(self) -> int:
        return len(self.members)

    @property
    def what(self) -> What:
        """Either "missing" or "sufficient"."""
        return self.given.what

    @property
    def thing(self) -> str:
        """What one piece is: "pixel", "cell", "region", "column", "token", "span", ..."""
        return self.given.pieces.thing

    @property
    def members(self) -> tuple[int, ...]:
        """The labels of the set's pieces, strongest evidence first: numbers of pixels or cells in rows, of columns, of
        tokens, or your own labels.
        """
        return tuple(self.given.labels[number] for number in self.numbers)

    @property
    def names(self) -> tuple[str, ...]:
        """What the members are called."""
        return tuple(self.given.pieces.name(one, self.given.x, self.given.reference) for one in self.members)

    @property
    def evidence(self) -> Tensor:
        """Of every member [n] float64: relevance summed over the piece, or the measured effect."""
        return self.scores[list(self.numbers)]

    @property
    def pieces(self) -> int:
        """How many pieces there are that could be pasted."""
        return len(self.given.labels)

    @property
    def mask(self) -> Tensor:
        """The entries that the set replaces, boolean, shaped like x[0]."""
        return self.given.mask(self._sets()[:1])[0]

    @property
    def image(self) -> Tensor:
        """The changed input [1, ...]."""
        return torch.where(self.mask, self.given.source, self.given.base)

    def _sets(self) -> Tensor:
        """The set, and it without each member in turn: [1 + n, P]."""
        return _with_each_left_out(self.numbers, self.pieces)

    @property
    def is_minimal(self) -> bool:
        """Whether the set crosses the bound, and no longer does with any one member left out."""
        reached = self.given.question.is_reached(torch.cat([torch.tensor([self.after]).double(), self.certificate]))
        return bool(reached[0]) and not bool(reached[1:].any())

    @property
    def is_smallest(self) -> bool:
        """Whether it is proven that no smaller set exists (of this reference's pieces)."""
        return self.least == len(self)

    @property
    def gap(self) -> int:
        """By how many pieces at most the smallest set is smaller; 0 where that is proven."""
        return len(self) - self.least

    def verify(self, model: Callable[..., Any], *, tolerance: float = 1e-4) -> bool:
        """Ask the network again: whether the set crosses the bound, no set without one member does, and u is as it was.

        Args:
            model: the same model.
            tolerance: of the values, relative to the largest one (batches of another size round differently).
        """
        with working_on(model):
            read = Pasting(self.given, model).values(self._sets())
        known = torch.cat([torch.tensor([self.after]).double(), self.certificate])
        reached = self.given.question.is_reached(read)
        is_same = bool(((read - known).abs() <= tolerance * known.abs().max().clamp(min=1e-12)).all())
        return is_same and bool(reached[0]) and not bool(reached[1:].any())

    def sentence(self, names: Names = None) -> str:
        """The result in words; ``names`` of the classes."""
        count = len(self)
        listed = ""
        if self.thing in LISTED_THINGS and count <= LISTED:
            listed = f": {'; '.join(self.names)}"
        things = f"{'this' if count == 1 else 'these'} {f'{count} ' if count > 1 else ''}{plural(self.thing, count)}"
        foil = self.given.question.foil if self.what == "missing" else None
        decided = self.decided if foil is None else (self.decided[0], foil)
        before, after = (None if one is None else call_class(one, names) for one in decided)
        if foil is not None and self.decided[1] != foil:
            after = f"{after} (the decision is then {call_class(self.decided[1] or 0, names)})"
        verb = "is" if count == 1 else "are"
        what = self.given.question.words(names)
        numbers = f"{what} is {self.before:.4g} before and {self.after:.4g} with {'it' if count == 1 else 'them'}"
        if self.what == "sufficient":
            own = after if after is not None else "as it is" if self.given.question.output is None else None
            lead = f"{own} because {things} of it {verb} enough" if own else f"{things} of x {verb} enough"
        elif before is not None:
            lead = f"{before} and not {after} {self._because(things, count)}"
        elif self.given.question.is_decision:
            lead = f"decided as it is {self._because(things, count)}"
        else:
            lead = f"{what} is this high {self._because(things, count)}"
        return f"{lead[0].upper()}{lead[1:]}{listed}. {numbers[0].upper()}{numbers[1:]}; {self._proof(count)}."

    def _because(self, things: str, count: int) -> str:
        if self.given.paste == "content":
            return f"because {things} {'is' if count == 1 else 'are'} missing"
        return f"because of {things}, which {'is' if count == 1 else 'are'} different in the reference"

    def _proof(self, count: int) -> str:
        kept = "it cannot be left out" if count == 1 else "none of them can be left out"
        if self.is_smallest:
            return f"{kept}, and no smaller set does it with this reference"
        return f"{kept} (a smaller set would need at least {self.least} of the {self.pieces} {plural(self.thing)})"

    def __repr__(self) -> str:
        proof = "smallest" if self.is_smallest else f"minimal, least {self.least}" if self.is_minimal else "not minimal"
        return (
            f"MissingSet({self.what}: {len(self)} of {self.pieces} {plural(self.thing)}, u {self.before:.4g} -> "
            f"{self.after:.4g}, bound {self.given.question.bound:.4g}, {proof}, {self.forwards} forwards)"
        )

    def _heading(self) -> str:
        return f"MissingSet: {self.what} {plural(self.thing)}"

    def _grid(self) -> Grid:
        rows = [("piece", "evidence", "u without it")]
        for name, evidence, value in list(
            zip(self.names, self.evidence.tolist(), self.certificate.tolist(), strict=True)
        )[:ROWS]:
            rows.append((name, f"{evidence:+.4g}", f"{value:.4g}"))
        more = (f"and {len(self) - ROWS} more",) if len(self) > ROWS else ()
        return Grid(tuple(rows), foot=(*more, self.sentence()))

    def figure(self, ax: Any = None, *, names: Names = None) -> Figure:
        """An image: x, the reference, and x with the set outlined in it; else u without each member; needs matplotlib.

        ax: matplotlib's axes to draw the changed input into; None: a new figure. names: of the classes.
        """
        from absence_plugins.report.plots.missing import missing_figure

        return missing_figure(self, ax, names=names)

    def to_dict(self) -> dict[str, Any]:
        """The numbers, without the images, ready for JSON."""
        return {
            "what": self.what,
            "thing": self.thing,
            "members": list(self.members),
            "names": list(self.names),
            "evidence": self.evidence.tolist(),
            "certificate": self.certificate.tolist(),
            "before": self.before,
            "after": self.after,
            "whole": self.whole,
            "u": self.given.question.words(),
            "bound": self.given.question.bound,
            "decided": list(self.decided),
            "pieces": self.pieces,
            "least": self.least,
            "is_minimal": self.is_minimal,
            "is_smallest": self.is_smallest,
            "forwards": self.forwards,
            "paste": self.given.paste,
            "reference": self.given.number,
        }


def read_set(pasting: Pasting, members: Tensor, scores: Tensor, least: int) -> MissingSet:
    """The result for members [P], with its certificate read from the network as it is."""
    pasting = replace(pasting, way=PLAIN)
    inside = members.nonzero().flatten()
    numbers = tuple(inside[scores[inside].argsort(descending=True, stable=True)].tolist())
    none, every = torch.zeros_like(members), torch.ones_like(members)
    read = pasting.values(torch.cat([torch.stack([none, every]), _with_each_left_out(numbers, pasting.count)]))
    given = pasting.given
    before, after = given.question.decide(pasting.model, torch.cat([given.base, pasting.paste(members[None])]))
    pasting.forwards[0] += 2
    return MissingSet(
        given=given,
        numbers=numbers,
        scores=scores,
        certificate=read[3:],
        before=float(read[0]),
        after=float(read[2]),
        whole=float(read[1]),
        decided=(before, after),
        least=least,
        forwards=pasting.forwards[0],
    )


def _with_each_left_out(numbers: tuple[int, ...], count: int) -> Tensor:
    """A set of pieces, and it without each member in turn: [1 + n, count] boolean."""
    inside = torch.tensor(numbers)
    sets = torch.zeros(1 + len(numbers), count, dtype=torch.bool)
    sets[:, inside] = True
    sets[torch.arange(1, len(sets)), inside] = False
    return sets
