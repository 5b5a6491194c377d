"""The best set of every reference: from the evidence, reduced, and improved."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from absence_plugins.core import AbsenceWarning
from absence_plugins.core.outputs import Output
from absence_plugins.methods.missing.pasting import Given, Pasting, What
from absence_plugins.methods.missing.pieces import PASTES, Paste, find_allowed, plural
from absence_plugins.methods.missing.questions import Question
from absence_plugins.methods.missing.relaxing import relax_weights
from absence_plugins.methods.missing.result import MissingSet, read_set
from absence_plugins.methods.missing.search import (
    Budget,
    Search,
    exchange,
    find_prefix,
    find_smaller,
    grow_sets,
    measure_effects,
    reduce_set,
    rescore_set,
)
from absence_plugins.methods.missing.setting import Setting
from absence_plugins.relevance import relevance
from absence_plugins.relevance.operation import RelevanceError

NEAR, CLOSE = 3, 1.5  # references that are searched on: so many, and none whose set is larger by this factor


@dataclass(eq=False)
class Candidate:
    """The best set of one reference so far."""

    pasting: Pasting
    members: Tensor
    scores: Tensor
    score: Callable[[Tensor], Tensor] | None

    @property
    def key(self) -> tuple[int, int]:
        """Fewest pieces first, then fewest entries."""
        return int(self.members.sum()), int(self.pasting.given.mask(self.members[None]).sum())


def find_best(setting: Setting, what: What, question: Question, paste: Paste | None, search: Search) -> MissingSet:
    """The best set of all references.

    Raises:
        ValueError: none of them crosses the bound.
    """
    has_content = setting.pieces.kind is not None or setting.x.is_floating_point()
    tried: tuple[Paste, ...] = PASTES[not has_content :] if paste is None else (paste,)
    forwards = [0]
    candidates: list[Candidate] = []
    refused: list[str] = []
    for how in tried:
        if not candidates:
            candidates, refused = _first_sets(setting, _cut_all(setting, what, question, how), search, forwards)
    if not candidates:
        raise ValueError(f"{'' if len(setting.references) == 1 else 'no reference does it; the last: '}{refused[-1]}")
    candidates.sort(key=lambda one: one.key)
    if search.budget:
        near = [one for one in candidates[:NEAR] if one.key[0] <= CLOSE * candidates[0].key[0] + 1]
        for one in near:
            _improve(one, Budget(one.pasting, search.budget // len(near)))
        candidates.sort(key=lambda one: one.key)
    best = candidates[0]
    smaller, least = find_smaller(best.pasting, int(best.members.sum()) - 1, search.proof)
    return read_set(best.pasting, best.members if smaller is None else smaller, best.scores, least)


def _cut_all(setting: Setting, what: What, question: Question, paste: Paste) -> list[Given]:
    """The question for every reference."""
    found = []
    for number, reference in enumerate(torch.split(setting.references, 1)):
        base, source = (setting.x, reference) if what == "missing" else (reference, setting.x)
        allowed = find_allowed(base, source, paste, setting.pieces.kind, setting.empty, setting.pieces)
        labels = setting.pieces.expand(setting.x)
        known = torch.unique(labels[allowed])
        place = torch.full_like(labels, len(known))
        place[allowed] = torch.searchsorted(known, labels[allowed])
        own = tuple(known.tolist())
        found.append(Given(what, paste, question, setting.pieces, own, place, setting.x, reference, number))
    return found


class _NotReached(Exception):
    """A reference that does not do it, in words."""


def _first_sets(
    setting: Setting, questions: list[Given], search: Search, forwards: list[int]
) -> tuple[list[Candidate], list[str]]:
    """A 1-minimal set from the order of the evidence for every reference that has one; of the others, why not."""
    found, refused = [], []
    for given in questions:
        pasting = Pasting(given, setting.model, search.batch_size, forwards, search.way)
        try:
            _check_whole(pasting)
        except _NotReached as error:
            refused.append(str(error))
            continue
        scores, score = _score(setting, search, pasting)
        members = reduce_set(pasting, find_prefix(pasting, scores), scores)
        found.append(Candidate(pasting, members, scores, score))
    return found, refused


def _check_whole(pasting: Pasting) -> None:
    """Reject a reference that does not cross the bound with all pieces at once, or does without any."""
    given, question = pasting.given, pasting.given.question
    name = f"reference {given.number}"
    if not pasting.count:
        has, lacks = (name, "x") if given.what == "missing" else ("x", name)
        raise _NotReached(
            f"{has} has no content that {lacks} lacks (measured from empty); pass another reference, the right empty=, "
            "or paste='all'"
        )
    none, whole = pasting.values(torch.tensor([[False], [True]]).expand(2, pasting.count))
    if bool(question.is_reached(none)):
        raise _NotReached(f"{name} is decided as x by itself, so no piece of x is needed; pass one of another class")
    if bool(question.is_reached(whole)):
        return
    bound = f"{'above' if question.rises else 'below'} {question.bound:.4g}"
    said = (
        f"even all {pasting.count} {plural(given.pieces.thing, pasting.count)} of {name} together bring "
        f"{question.words()} to {float(whole):.4g} only, not {bound}"
    )
    full = pasting.read(given.source)
    if given.paste == "content" and bool(question.is_reached(full)):
        remedy = f"what is taken away counts as well (replaced as a whole, it is {float(full):.4g}): pass paste='all'"
    else:
        remedy = "pass another reference, a smaller margin, or leave foil out"
    raise _NotReached(f"{said}; {remedy}")


def _score(setting: Setting, search: Search, pasting: Pasting) -> tuple[Tensor, Callable[[Tensor], Tensor] | None]:
    """The scores of the pieces [P] float64 (above 0 raises u on x compared with the reference), and how to get them
    again for a half-pasted input; None where they do not depend on it.
    """
    order = search.order
    if isinstance(order, str) and order == "effects":
        return measure_effects(pasting)[-1], None
    if isinstance(order, Tensor):
        if order.shape != setting.x.shape or not bool(torch.isfinite(order).all()):
            raise ValueError(
                f"order of shape {tuple(order.shape)} must be finite evidence of x's shape {tuple(setting.x.shape)}"
            )
        return _sum_pieces(pasting, order[0]), None
    given, own = pasting.given, setting.classes[0]
    rival = setting.classes[1 + given.number]
    output = setting.question.explained(rival if rival != own else None)
    is_unit = not isinstance(output, Output)
    model, selection = (output.of(setting.model), None) if is_unit else (setting.model, output)

    def score(pasted: Tensor) -> Tensor:
        one, other = (pasted, given.source) if given.what == "missing" else (given.source, pasted)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", AbsenceWarning)  # said once, of x
                found = relevance(model, one, other, selection).attribution[0]
        except RelevanceError as error:
            raise RelevanceError(
                f"{error}; or order the pieces by what they do: search=Search(order='effects')"
            ) from None
        return _sum_pieces(pasting, found)

    return score(given.base), score


def _sum_pieces(pasting: Pasting, found: Tensor) -> Tensor:
    """Evidence [...] summed over every piece: [P] float64."""
    place, flat = pasting.given.place.cpu(), found.detach().double().cpu()
    if flat.dim() > place.dim():
        flat = flat.flatten(place.dim()).sum(-1)  # of tokens: over their embedding
    sums = torch.zeros(pasting.count + 1, dtype=torch.float64)
    return sums.index_add_(0, place.flatten(), flat.flatten())[:-1]


def _improve(candidate: Candidate, budget: Budget) -> None:
    """Other orders, a search forward, exchanges: whatever gives a smaller 1-minimal set."""
    pasting, scores, best = candidate.pasting, candidate.scores, candidate.members
    if int(best.sum()) < 2:
        return
    orders = [scores]
    if candidate.score is not None and pasting.given.base.is_floating_point():
        for weights in relax_weights(pasting, int(best.sum())):
            if budget.left > 2 * int(best.sum()):
                best = _smaller(best, reduce_set(pasting, find_prefix(pasting, weights), weights))
    if candidate.score is not None:
        again = rescore_set(pasting, candidate.score, 2 * int(best.sum()), budget)
        if again is not None:
            best = _smaller(best, reduce_set(pasting, *again))
    if budget.left > 2 * pasting.count:
        effects = measure_effects(pasting)
        orders.append(effects[-1])
        for order in effects:
            if budget.left > 2 * int(best.sum()):
                best = _smaller(best, reduce_set(pasting, find_prefix(pasting, order), order))
    for order in orders:
        grown = grow_sets(pasting, order, int(best.sum()) - 1, budget)
        best = best if grown is None else _smaller(best, reduce_set(pasting, grown, order))
    candidate.members = exchange(pasting, best, scores, budget)


def _smaller(one: Tensor, other: Tensor) -> Tensor:
    return other if int(other.sum()) < int(one.sum()) else one
