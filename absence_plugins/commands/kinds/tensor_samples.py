"""Rows, signals and volumes: samples of one shape, explained against the nearest references of another class."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from absence_plugins import ReferenceSet
from absence_plugins.commands.kinds.asked import Asked, Question
from absence_plugins.commands.kinds.finding import MISSING, PRESENT, Finding
from absence_plugins.commands.kinds.models import KindModel
from absence_plugins.commands.kinds.pool import Pool
from absence_plugins.commands.predictions import read_outputs
from absence_plugins.core.kinds import Kind, TableKind
from absence_plugins.core.spaces import Space
from absence_plugins.methods.regions import ThingTests, measure_things, strongest_things
from absence_plugins.relevance import relevance

THINGS = 3  # that a test looks at: of a row together
SAME = 1e-5  # of an entry: by so much a copy may differ, which was saved in another number format


@dataclass(frozen=True, eq=False)
class TensorSamples:
    """Samples [N, *entries] and the references that they are compared with.

    Attributes:
        loaded: the model.
        kind: what the entries are.
        noun: what a sample is, as "row".
        inputs: [N, *entries], as the model takes them.
        names: of the samples, as "Row 5".
        pool: the references' classes.
        references: [R, *entries].
        asked: what is asked.
        space: where the nearest are searched; None: among the entries.
        own: of references that are the samples' own file, each sample's place among them; () elsewhere.
        describe: sentences on one map, from kind, signed, x and reference.
    """

    loaded: KindModel
    kind: Kind
    noun: str
    inputs: Tensor
    names: tuple[str, ...]
    pool: Pool
    references: Tensor
    asked: Asked
    space: Space | None = None
    own: tuple[int, ...] = ()
    describe: Callable[[Finding], Sequence[str]] = lambda found: ()

    def __len__(self) -> int:
        return len(self.inputs)

    def name(self, number: int) -> str:
        """Of one sample."""
        return self.names[number]

    def explain(self, number: int) -> Finding:
        """The map of one sample against its nearest references, and the tests of the strongest things in it."""
        x = self.inputs[number : number + 1]
        question = Question.of(self.loaded.read(x), self.asked)
        nearest, compared, notes = self._nearest(x, question, number)
        fit = self.loaded.fit
        found = relevance(
            self.loaded.model, fit(x), [fit(one[None]) for one in nearest], question.choice, rule=self.asked.rule
        )
        tests = self._test(x[0], nearest, found.per_reference[:, 0].cpu().to(x), question)
        finding = Finding(
            name=self.names[number],
            question=question,
            loaded=self.loaded,
            kind=self.kind,
            x=x[0],
            signed=found.attribution[0].detach().cpu(),
            references=nearest,
            nearest=compared[1],
            compared=compared[0],
            reference_value=float(found.reference_output.mean()),
            tests=tests,
            notes=notes,
        )
        return finding.with_words(self.describe(finding))

    def _nearest(self, x: Tensor, question: Question, number: int) -> tuple[Tensor, tuple[str, str], tuple[str, ...]]:
        """The nearest references, what they are in words with the nearest one's name, and what was left out."""
        same = self._same(x, number)
        target = self.loaded.name(question.own)
        members, wanted, notes = self.pool.choose(question.own, self.asked.contrast, question.runner_up, same, target)
        chosen = ReferenceSet(
            self.references[members], k=min(self.asked.k, len(members)), kind=self.kind, nearest_in=self.space
        )
        places = members[chosen.nearest_indices(x)[0]]
        count, total = len(places), len(members)
        of = "" if wanted is None else f" of {self.loaded.name(wanted)}"
        which = f"the nearest of {total}" if count == 1 else f"the {count} nearest of {total} references"
        which = f"all {total} references" if count == total and count > 1 else which
        nearest = self.pool.names[int(places[0])]
        if count == 1:
            which = f"{which} references" if total > 1 else "the only reference"
        if count < self.asked.k:
            notes = (
                *notes,
                f"Only {count} reference{'s are' if count > 1 else ' is'} left, fewer than --k {self.asked.k}.",
            )
        compared = f"{which}{of} ({'it' if count == 1 else 'the first'} is {nearest})"
        return self.references[places], (compared, nearest), notes

    def _same(self, x: Tensor, number: int) -> Tensor:
        """Which references are the sample itself, or a copy of it [R]."""
        own, others = x.double(), self.references.double()
        same = ((others - own).abs() <= SAME * own.abs()).flatten(1).all(1)
        if self.own:
            same[self.own[number]] = True
        return same

    def _test(self, x: Tensor, references: Tensor, maps: Tensor, question: Question) -> dict[str, ThingTests]:
        """Things that raise the output and that x lacks, and such that it has: replaced by the nearest reference's.

        Of an output that is held down (a non-target) those that lower it.
        """
        sign = -1.0 if question.is_held_down else 1.0
        lacks = self.kind.lacks(x.expand_as(references), references)
        tests = {}
        for part, where in ((MISSING, lacks), (PRESENT, ~lacks)):
            # what the nearest reference puts in place has to be missing, too
            differs = self.kind.things((where[0] & (x != references[0]))[None].to(maps))[0] > 0
            evidence = self.kind.things((sign * maps * where).mean(0, keepdim=True))[0]
            things = strongest_things(self.kind, torch.where(differs, evidence, 0.0), THINGS)
            if isinstance(self.kind, TableKind) and len(things):
                things = things.any(0, keepdim=True)  # the strongest columns at once: a row rests on several
            if part == MISSING or len(things):
                tests[part] = measure_things(
                    lambda batch: question.read(read_outputs(self.loaded.model, self.loaded.fit(batch)).cpu()),
                    x,
                    references[0],
                    self.kind,
                    things,
                    rises=question.is_held_down,
                    seed=self.asked.seed,
                )
        return tests
