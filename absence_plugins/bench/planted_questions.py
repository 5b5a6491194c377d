"""A column per question and a sentence per method: what ``bench planted`` found, by rules on its scores."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from absence_plugins.bench.scores import SHARE_LIMIT, SIGN_LIMIT
from absence_plugins.data.planted import ATTENTION
from absence_plugins.methods.faithfulness import PlantedScore, PlantedTable
from absence_plugins.methods.faithfulness.table import NO_ANSWER, NOT_MEASURED

BALANCED = (
    0.75  # least `sign`: content that moves the unit the other way has the other sign in more than half of the samples
)
Check = Callable[[PlantedScore], bool | None]  # None: cannot be asked of this score
KINDS: dict[str, frozenset[str]] = {
    "inside": frozenset({"hidden_unit", "transformer_unit"}),
    "attention": ATTENTION,
    "dead units": frozenset({"shape_missing_dead"}),
    "tables": frozenset({"column_missing"}),
    "text": frozenset({"negation_missing"}),
    "signals": frozenset({"signal_missing"}),
    "volumes": frozenset({"volume_missing"}),
}
WORDS = {"inside": "units inside a network"}


def has_key_sign(one: PlantedScore) -> bool | None:
    """Whether the key has the right sign in 99 % of the samples."""
    if not one.is_exact or one.note == NO_ANSWER:
        return None
    return one.key_sign is not None and one.key_sign >= SIGN_LIMIT


def has_both_sides(one: PlantedScore) -> bool | None:
    """Whether other content has the other sign, too; None where that cannot be asked, or the key's sign is not
    right.
    """
    return None if not has_key_sign(one) or one.sign is None else one.sign >= BALANCED


def has_right_sign(one: PlantedScore) -> bool | None:
    """Whether the key has the right sign in 99 % of the samples, and other content, where it can be asked, the other
    sign.
    """
    return None if (key := has_key_sign(one)) is None else key and has_both_sides(one) is not False


def has_right_place(one: PlantedScore) -> bool | None:
    """Whether 80 % of the evidence lie at the key."""
    if not one.is_exact or one.note == NO_ANSWER:
        return None
    return one.share is not None and one.share >= SHARE_LIMIT


def is_above_control(one: PlantedScore) -> bool | None:
    """Whether its order is better than those of all maps that never saw the network; None where every order is the
    same.
    """
    if one.note == NO_ANSWER or (one.faithfulness is None and not one.note):
        return None
    return (one.faithfulness or 0) > 0


def is_shown(one: PlantedScore) -> bool | None:
    """Sign, place and order are right, each where it can be asked."""
    checks = [check(one) for check in (has_right_sign, has_right_place, is_above_control)]
    return None if not one.is_exact or one.note == NO_ANSWER else all(check is not False for check in checks)


REASONS = {
    "a wrong sign, or none, at the key": has_key_sign,
    "one side only: other content lacks the other sign": has_both_sides,
    "the place is wrong": has_right_place,
    "no better than the image alone": is_above_control,
}


def _in_view(view: str) -> Callable[[PlantedScore], bool]:
    return lambda one: one.view == view


def _of_kind(kind: str) -> Callable[[PlantedScore], bool]:
    return lambda one: one.problem in KINDS[kind]


QUESTIONS: dict[str, tuple[Check, Callable[[PlantedScore], bool]]] = {
    "non-target: sign": (has_right_sign, _in_view("nontarget")),
    "non-target: place": (has_right_place, _in_view("nontarget")),
    "reference: sign": (has_right_sign, _in_view("reference")),
    "reference: place": (has_right_place, _in_view("reference")),
    "above the image alone": (is_above_control, lambda one: True),
    **{WORDS.get(kind, kind): (is_shown, _of_kind(kind)) for kind in KINDS},
}


@dataclass(frozen=True)
class Tally:
    """On how many of the questions that were asked the answer is right.

    >>> Tally(14, 17).text(), Tally(0, 0).text(), Tally(1, 4).share
    ('14 of 17', '-', 0.25)
    """

    good: int
    asked: int

    @property
    def share(self) -> float | None:
        """From 0 to 1; None where nothing was asked."""
        return self.good / self.asked if self.asked else None

    def text(self) -> str:
        """As in "14 of 17"."""
        return f"{self.good} of {self.asked}" if self.asked else "-"


@dataclass(frozen=True)
class MethodSummary:
    """What a method can and cannot do.

    Attributes:
        method: its name.
        tallies: per question in ``QUESTIONS``.
        sentence: the same in words.
    """

    method: str
    tallies: dict[str, Tally]
    sentence: str


def summarize_methods(table: PlantedTable) -> list[MethodSummary]:
    """Every method of the table; who shows most comes first."""
    found = []
    for method in table.methods:
        own = [one for one in table.scores if one.method == method and one.note != NOT_MEASURED]
        tallies = {name: _count(check, filter(belongs, own)) for name, (check, belongs) in QUESTIONS.items()}
        found.append(MethodSummary(method, tallies, _describe(own)))
    order = {one.method: sum(_shown(table, one.method)) for one in found}
    return sorted(found, key=lambda one: -order[one.method])


def _shown(table: PlantedTable, method: str) -> list[bool]:
    return [is_shown(one) is True for one in table.scores if one.method == method]


def _count(check: Check, scores: Iterable[PlantedScore]) -> Tally:
    answers = [answer for answer in map(check, scores) if answer is not None]
    return Tally(sum(answers), len(answers))


def _describe(own: Sequence[PlantedScore]) -> str:
    """What a method shows, where it is blind, and why it has no answer."""
    if not own:
        return "Not measured."
    parts = []
    for view, words in (("nontarget", "what holds the unit down"), ("reference", "what is missing")):
        asked = [one for one in own if one.view == view]
        tally = _count(is_shown, asked)
        if asked and not tally.asked:
            parts.append(f"has no answer to {words}")
        elif tally.asked:
            parts.append(f"shows {words} on {tally.text()} networks{_find_reason(asked)}")
    text = ", ".join(parts)
    sentences = [text[:1].upper() + text[1:] + "." if text else "No answers."]
    missed = {WORDS.get(kind, kind): tally.asked for kind, names in KINDS.items() if not (tally := _answered(own, names)).good and tally.asked}  # fmt: skip
    if missed and len(missed) < len(KINDS):
        blind, once = ([kind for kind, asked in missed.items() if (asked > 1) == many] for many in (True, False))
        sentences += [f"Blind on {_enumerate(blind)}."] if blind else []
        sentences += [f"Wrong on the only question{' each' * (len(once) > 1)} on {_enumerate(once)}."] if once else []
    measured = [one.sign for one in own if one.sign is not None and one.is_exact]
    if measured and all(abs(sign - 0.5) < 1e-9 for sign in measured):
        sentences.append("Its maps have one sign: what raises the unit and what holds it down look alike.")
    notes = Counter(one.note for one in own if one.note and one.note != NO_ANSWER)
    if notes:
        note, _ = notes.most_common(1)[0]
        sentences.append(
            f"Fails on {sum(notes.values())} of {len(own)} questions, as in: {note}{'' if note.endswith('.') else '.'}"
        )
    return " ".join(sentences)


def _find_reason(asked: Sequence[PlantedScore]) -> str:
    """Which of the three is most often wrong where an answer shows nothing."""
    failing = [one for one in asked if is_shown(one) is False and not one.note]
    wrong = Counter(words for one in failing for words, check in REASONS.items() if check(one) is False)
    return f" (elsewhere mostly {wrong.most_common(1)[0][0]})" if wrong else ""


def _answered(own: Sequence[PlantedScore], problems: frozenset[str]) -> Tally:
    """On how many of the questions on these problems that the method answered it is right: a failure shows no
    blindness.
    """
    return _count(is_shown, [one for one in own if one.problem in problems and not one.note])


def _enumerate(words: Sequence[str]) -> str:
    """Words as in a sentence.

    >>> _enumerate(["text"]), _enumerate(["text", "tables", "volumes"])
    ('text', 'text, tables and volumes')
    """
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"


def describe_counts(table: PlantedTable) -> str:
    """Which networks count for sign and place, as a sentence."""
    guessed = list(dict.fromkeys(one.problem for one in table.scores if not one.is_exact))
    known = len(table.problems) - len(guessed)
    names = _enumerate([f"`{name}`" for name in guessed]) if guessed else ""
    left_out = f", as the true region of {names} is a guess" if guessed else ""
    return f"Sign, place and \"shows\" count on {known} of the {len(table.problems)} networks{left_out}; on fewer where a method has no answer or was not measured."  # fmt: skip


def format_questions(table: PlantedTable) -> str:
    """The summary as a sentence on what counts and a Markdown table."""
    rows = [
        "| " + " | ".join([one.method, *(tally.text() for tally in one.tallies.values()), one.sentence]) + " |"
        for one in summarize_methods(table)
    ]
    head = "| " + " | ".join(["method", *QUESTIONS, "in a sentence"]) + " |"
    return "\n".join([describe_counts(table), "", head, "| --- |" + " ---: |" * len(QUESTIONS) + " --- |", *rows])
