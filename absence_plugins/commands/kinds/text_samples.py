"""Texts, explained against the nearest texts of another class: every token, and those that only the reference has."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from absence_plugins.commands.kinds.asked import Asked, Question
from absence_plugins.commands.kinds.finding import MISSING, PRESENT, Finding
from absence_plugins.commands.kinds.models import KindModel
from absence_plugins.commands.kinds.pool import Pool
from absence_plugins.commands.kinds.text_tests import GAP, measure_tokens, with_gap
from absence_plugins.core.names import spell_name
from absence_plugins.core.outputs import Logit, Margin, Output
from absence_plugins.core.scores import run_scores
from absence_plugins.core.token_space import TokenSpace
from absence_plugins.methods.regions import ThingTests
from absence_plugins.methods.regions.strongest_things import LONGEST_RUN
from absence_plugins.methods.texts import TextExplanation, explain_text
from absence_plugins.methods.texts.calls import Interface, longest_text
from absence_plugins.methods.texts.words import Encoder
from absence_plugins.report.plots.explained_text import read_explained_text

SAID = 3  # sentences
FEW = 100  # words of the references, of which other words are drawn
LONGEST = 60  # letters of a text in a heading
FULL = "The text is as long as the model takes, so that tokens in addition were not put in as a test."
LEAST = 5e-3  # of a difference: what is less is not said
BATCH = 32  # texts of one length in a forward


@dataclass(frozen=True, eq=False)
class TextSamples:
    """Texts, and the texts that they are compared with.

    Attributes:
        loaded: the model and its tokenizer.
        encoder: the tokenizer, as the methods use it.
        texts, names: of the samples.
        pool: the references' classes.
        references: texts.
        points: of the references in the space of the model's embedding [R, D].
        asked: what is asked.
        words: ids of the references' words, for the control.
    """

    loaded: KindModel
    encoder: Encoder
    texts: tuple[str, ...]
    names: tuple[str, ...]
    pool: Pool
    references: tuple[str, ...]
    points: Tensor
    asked: Asked
    words: Tensor
    noun: str = "text"

    def __len__(self) -> int:
        return len(self.texts)

    def name(self, number: int) -> str:
        """Of one text: its number and beginning."""
        return name_text(self.names[number], self.texts[number])

    def explain(self, number: int) -> Finding:
        """One text against its nearest references, and the tests of the strongest tokens."""
        text = self.texts[number]
        question = Question.of(read_text_outputs(self.loaded, self.encoder, [text]), self.asked)
        same = torch.tensor([other == text for other in self.references])
        target = self.loaded.name(question.own)
        members, wanted, notes = self.pool.choose(question.own, self.asked.contrast, question.runner_up, same, target)
        own = find_points(self.loaded, self.encoder, [text])
        order = (self.points[members] - own).square().sum(1).argsort(stable=True)
        places = members[order[: self.asked.k]].tolist()
        found = explain_text(
            self.loaded.model,
            self.loaded.tokenizer,
            text,
            [self.references[place] for place in places],
            name_output(question),
            names=self.loaded.categories or None,
        )
        nearest = self.pool.names[places[0]]
        of = "" if wanted is None else f" of {self.loaded.name(wanted)}"
        which = (
            f"the nearest of {len(members)} references{of}"
            if len(places) == 1
            else f"the {len(places)} nearest of {len(members)} references{of}"
        )
        if len(members) == 1:
            which = f"the only reference{of}"
        quoted = f"“{shorten(self.references[places[0]])}”"
        values = [one.output for one in found.comparisons]
        return Finding(
            name=self.name(number),
            question=question,
            loaded=self.loaded,
            kind=found.kind,
            x=found.ids.cpu(),
            signed=found.present.detach().cpu(),
            references=found.reference_ids.cpu(),
            nearest=nearest,
            compared=f"{which} ({'it' if len(places) == 1 else 'the first'} is {nearest}, {quoted})",
            reference_value=sum(values) / len(values),
            tests=self._test(found, question),
            described=describe_text(found),
            rest=say_rest(found),
            notes=(*notes, *[FULL] * self._is_full(found)),
            text=read_explained_text(found),
        )

    def _is_full(self, found: TextExplanation) -> bool:
        """Whether the model takes no text that is longer by some tokens."""
        takes = longest_text(self.loaded.model)
        return takes is not None and len(found.ids) + LONGEST_RUN > takes

    def _test(self, found: TextExplanation, question: Question) -> dict[str, ThingTests]:
        """The tokens that the text lacks are put in, and those that the reference lacks taken out.

        In a text as long as the model takes tokens replace others only.
        """
        one = found.comparisons[0]
        x = torch.tensor([GAP if own is None else int(found.ids[own]) for own, _ in found.pairs])
        reference = torch.tensor([GAP if other is None else int(one.ids[other]) for _, other in found.pairs])
        kind = with_gap(found.kind)
        values = (-1.0 if question.is_held_down else 1.0) * one.relevance.detach().cpu()
        differ = (x != reference) & ~(kind.is_special(x) & kind.is_special(reference))
        is_full = self._is_full(found)
        if is_full:
            differ &= x != GAP
        tests = {}
        for part, where in ((MISSING, differ & (reference != GAP)), (PRESENT, differ & (reference == GAP))):
            tests[part] = measure_tokens(
                lambda texts: question.read(_read_ids(self.loaded, texts)),
                kind,
                x,
                reference,
                torch.where(where, values, 0.0),
                self.words,
                is_missing=part == MISSING,
                rises=question.is_held_down,
                seed=self.asked.seed,
            )
        return {part: test for part, test in tests.items() if (part == MISSING and not is_full) or test.tests}


def describe_text(found: TextExplanation) -> tuple[str, ...]:
    """Sentences on the strongest tokens, compared with the first reference."""
    said = tuple(f"{one[0].upper()}{one[1:]}." for one in map(spell_name, found.words(SAID)))
    return ("Compared with the first reference:", *said) if said and len(found.comparisons) > 1 else said


def say_rest(found: TextExplanation) -> str:
    """What is in no word: the mean of special tokens, and of words that both texts have."""
    count = len(found.comparisons)
    special, moved = (sum(getattr(one, part) for one in found.comparisons) / count for part in ("special", "moved"))
    difference = found.output - sum(one.output for one in found.comparisons) / count
    if max(abs(special), abs(moved)) <= LEAST * abs(difference):
        return ""
    return f": {special:+.2g} of it are in special tokens, {moved:+.2g} in words that both texts have, by their places"


def name_output(question: Question) -> Output:
    """The explained output, as texts say it."""
    choice = question.choice
    if choice.single:
        return Logit(0, 1 if choice.kind == "target" else -1)
    if choice.nontargets is None:
        return Logit(question.own)
    other = int(choice.nontargets[0])
    return Margin(question.own, other) if choice.kind == "margin" else Logit(other)


def read_text_outputs(loaded: KindModel, encoder: Encoder, texts: Sequence[str]) -> Tensor:
    """Outputs [N, K] of texts, each alone, so that padding plays no part.

    Raises:
        ValueError: a text that the model cannot take, with its beginning.
    """
    return _read_ids(loaded, [encoder.read(text, f"the text {shorten(text)!r}")[0] for text in texts])


def _read_ids(loaded: KindModel, texts: Sequence[Tensor]) -> Tensor:
    """Outputs [N, K]; texts of the same length together."""
    interface = Interface.of(loaded.model)
    lengths: dict[int, list[int]] = {}
    for number, ids in enumerate(texts):
        lengths.setdefault(len(ids), []).append(number)
    found: dict[int, Tensor] = {}
    with torch.no_grad():
        for alike in lengths.values():
            for start in range(0, len(alike), BATCH):
                part = alike[start : start + BATCH]
                batch = loaded.fit(torch.stack([texts[number] for number in part]))
                read = run_scores(lambda given: interface.call(loaded.model, given), (batch,), samples=len(part))[0]
                if read.dim() not in (1, 2) or len(read) != len(part):
                    raise ValueError(f"the model must return one row of logits per text, got {tuple(read.shape)}")
                found |= zip(part, read.reshape(len(part), -1).cpu(), strict=True)
    return torch.stack([found[number] for number in range(len(texts))])


def find_points(loaded: KindModel, encoder: Encoder, texts: Sequence[str]) -> Tensor:
    """Texts as points [N, D] whose squared distances say how near they are."""
    space = TokenSpace(loaded.model, encoder.kind)
    return torch.cat([space.points(encoder.read(text)[0][None]) for text in texts])


def find_words(encoder: Encoder, texts: Sequence[str]) -> Tensor:
    """The ids of all words of texts, each once; where these are few, those of the whole vocabulary."""
    ids = sorted({number for text in texts for number in encoder.read(text)[0].tolist()})
    if len(ids) < FEW:
        ids = sorted(encoder.kind.words)
    found = torch.tensor(ids)
    return found[~encoder.kind.is_special(found)]


def shorten(text: str) -> str:
    """The beginning of a text.

    >>> shorten("good " * 20)
    'good good good good good good good good good good good go...'
    """
    return text if len(text) <= LONGEST else f"{text[: LONGEST - 3]}..."


def name_text(name: str, text: str) -> str:
    """As "Text 0: good"."""
    return f"{name}: “{spell_name(shorten(text))}”"
