"""A text against one reference of another length: exact relevance in one graph, and which token gets it.

The texts are written in one length in one of three ways; each is tried in forwards first.

*Gaps*: every token that only one text has stands in both, but is hidden from the attention of the other; every token
keeps the position that it has in its own text. So both values are those of the texts alone, and the relevance of
"hidden or not" belongs to that token. Of a model that takes no mask, padding stands there.

*Holes*: the same, but the tokens behind a hidden one keep their distance to those in front of it, as where positions
are angles or distances, which have no exact relevance. u(x) - u(r) = (u(x) - u(x')) + (u(x') - u(r')) + (u(r') - u(r)),
with ' for a text with holes: the middle is divided among the tokens, the rest is what closing the holes does: moved.

*Places*: tokens are compared place by place, the shorter text is filled up behind its end, and what stands at one place
is divided: R_t = m_t (e(x_t) - e) + m_t (e - e(r_t)), with e the embedding of padding.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from absence_plugins.core.kinds import TextKind
from absence_plugins.core.outputs import Output
from absence_plugins.core.precision import is_coarse
from absence_plugins.core.scores import run_scores
from absence_plugins.core.token_space import embedding_matrix
from absence_plugins.methods.texts.align import align_tokens
from absence_plugins.methods.texts.calls import AlignedModel, Call, Inputs, Interface, list_calls, place_of
from absence_plugins.methods.texts.lengths import Text, Way, list_ways, replace_hidden
from absence_plugins.methods.texts.result import Pair
from absence_plugins.relevance import RelevanceError, relevance

SAME, COARSE_SAME = 1e3, 16  # of two values of the output: rounding steps of the larger one, or of 1
REFUSED = (RuntimeError, ValueError, TypeError, IndexError, KeyError)  # of a model that does not take such inputs


@dataclass(frozen=True)
class Divided:
    """What :func:`compare_texts` finds.

    ``relevance``: R of every pair [P]; ``moved``: R of the positions, of all pairs; ``output``: u(r).
    """

    pairs: tuple[Pair, ...]
    relevance: Tensor
    moved: float
    output: float
    way: str


@dataclass(frozen=True)
class _Found:
    """R of every place [L]: of words and types, of being hidden, of positions; and at the embedding [L, D]."""

    words: Tensor
    hidden: Tensor
    positions: Tensor
    multiplier: Tensor
    embedded: Tensor


class Values:
    """The explained output of texts as they are: [1, T] -> u."""

    def __init__(self, model: Callable[..., Any], output: Output) -> None:
        self.model, self.output, self.interface = model, output, Interface.of(model)

    def of(self, text: Text) -> Tensor:
        """u [1]; tokens that the model does not have, or too many, raise what it raises."""
        return self.aligned(text.alone(), Call("none", None))

    def aligned(self, inputs: Inputs, call: Call) -> Tensor:
        """u [1] of a text in the common length."""
        return self._value(AlignedModel(self.model, self.interface, call), inputs.of(call))

    def _value(self, model: AlignedModel, inputs: tuple[Any, ...]) -> Tensor:
        with torch.no_grad():
            return self.output.values(run_scores(model, inputs)[0])


def compare_texts(values: Values, x: Text, r: Text, kind: TextKind, padding: int | None) -> Divided:
    """Divide u(x) - u(r) among the pairs of two texts.

    Raises:
        ValueError: in no way that is known both texts keep their own values.
        RelevanceError: the model cannot be explained by differences.
    """
    pairs = align_tokens(x.ids.tolist(), r.ids.tolist(), kind.special)
    if all(i == j for i, j in pairs):
        return _compare_in_place(values, x, r, pairs)
    own, other, failed = values.of(x), values.of(r), None
    interface, dtype = values.interface, place_of(values.model, x.ids)[1]
    calls = list_calls(values.model, interface, padding=padding)
    for way in list_ways(x, r, kind, calls, dtype, padding=padding, is_masked=interface.mask is not None):
        moved = _measure_moved(values, way, x, r, own, other)
        if moved is None:
            continue
        try:
            found = _relevance_of(values, way.first, way.second, way.call)
        except RelevanceError as error:
            failed = failed or error
            continue
        if way.name == "places":
            filling = padding if interface.mask is None else None
            parts = _divide_places(values.model, x, r, way.pairs, found, filling)
        else:
            parts = found.words + found.hidden
        return Divided(tuple(way.pairs), parts, moved + float(found.positions.sum()), float(other), way.name)
    if failed is not None:
        raise RelevanceError(f"{failed} (or pass a reference with as many tokens, so that nothing has to be hidden)")
    raise ValueError(
        f"the text has {len(x.ids)} tokens and the reference {len(r.ids)}, and the model gives them other values in one "
        "length, whether tokens are hidden by an attention mask or the shorter one is filled up with padding; pass a "
        "reference with as many tokens, or a model that takes attention_mask="
    )


def _compare_in_place(values: Values, x: Text, r: Text, pairs: list[Pair]) -> Divided:
    call, first, second = Call("none", None), x.alone(), r.alone()
    found = _relevance_of(values, first, second, call)
    return Divided(tuple(pairs), found.words, 0.0, float(values.aligned(second, call)), "places")


def _measure_moved(values: Values, way: Way, x: Text, r: Text, own: Tensor, other: Tensor) -> float | None:
    """What closing the holes does to u(x) - u(r), 0 without holes; None: the model does not take the texts so."""
    call = way.call
    if way.name != "holes":
        return 0.0 if _keeps(values, way.first, call, own) and _keeps(values, way.second, call, other) else None
    moved = 0.0
    for inputs, text, value, sign in ((way.first, x, own, 1), (way.second, r, other, -1)):
        if not _keeps(values, text.alone(inputs.visible.dtype), call, value):
            return None
        try:
            with_holes = values.aligned(inputs, call)
        except REFUSED:
            return None
        swapped = replace_hidden(inputs, torch.cat([x.ids, r.ids]))
        if not _keeps(values, swapped, call, with_holes):  # what is hidden must not be seen
            return None
        moved += sign * float(value - with_holes)
    return moved


def _keeps(values: Values, inputs: Inputs, call: Call, value: Tensor) -> bool:
    """Whether a text in the common length has its own value."""
    try:
        found = values.aligned(inputs, call)
    except REFUSED:
        return False
    step = torch.finfo(found.dtype).eps * (COARSE_SAME if is_coarse(found.dtype) else SAME)
    return bool(torch.isfinite(found).all()) and float((found - value).abs()) <= step * max(1.0, float(value.abs()))


def _relevance_of(values: Values, first: Inputs, second: Inputs, call: Call) -> _Found:
    """R of all that differs between two texts in one length."""
    model = AlignedModel(values.model, values.interface, call)
    result = relevance(model, *_differing(first.of(call), second.of(call)), values.output)
    words, hidden, positions, types = result.attribution
    multiplier = result.multipliers[0]
    if words is None:
        raise RelevanceError(
            "the model looks its ids up in no embedding, so no token has relevance; pass a model with nn.Embedding"
        )
    length = first.ids.shape[1]
    if words.shape[:2] == (length, 1):  # models that put the batch second
        words, multiplier = words.transpose(0, 1), multiplier.transpose(1, 2)
    none = words.new_zeros(length)
    summed = [none if part is None else part.reshape(length, -1).sum(1) for part in (words, types)]
    return _Found(
        summed[0] + summed[1],
        none if hidden is None else hidden[0],
        none if positions is None else positions.reshape(length, -1).sum(1),
        multiplier[0, 0],
        words[0],
    )


def _differing(first: tuple[Any, ...], second: tuple[Any, ...]) -> tuple[tuple[Any, ...], tuple[Any, ...]]:
    """Both inputs; integers that are the same in both are one tensor, which is compared by its memory."""
    return first, tuple(
        a if isinstance(a, Tensor) and isinstance(b, Tensor) and torch.equal(a, b) else b
        for a, b in zip(first, second, strict=True)
    )


def _divide_places(model: Any, x: Text, r: Text, pairs: list[Pair], found: _Found, padding: int | None) -> Tensor:
    """R of every pair, from what stands at the same place: each token's part is its distance from padding.

    Raises:
        ValueError: the relevance is not at the rows of the embedding.
    """
    matrix = embedding_matrix(model).detach()
    empty = matrix.mean(0) if padding is None else matrix[padding]
    shared = min(len(x.ids), len(r.ids))
    own, other = (matrix[text.ids[:shared]] - empty for text in (x, r))
    multiplier = found.multiplier[:shared].to(matrix)
    embedded = found.embedded[:shared].to(matrix)
    if not torch.allclose(multiplier * (own - other), embedded, rtol=1e-3, atol=1e-5 * float(embedded.abs().max())):
        raise ValueError(
            "the model changes its embeddings before the words get relevance, so what stands at one place cannot be "
            "divided; pass a reference that differs from the text in replaced words only"
        )
    rest = found.words + found.hidden  # of the longer text alone, behind the end of the other
    present = torch.cat([(multiplier * own).sum(1), rest[shared : len(x.ids)]])
    missing = torch.cat([-(multiplier * other).sum(1), rest[shared : len(r.ids)]])
    present[:shared] += rest[:shared] - embedded.sum(1)  # of token types
    zero = present.new_zeros(())
    return torch.stack([(zero if i is None else present[i]) + (zero if j is None else missing[j]) for i, j in pairs])
