"""A text against one reference of another length: exact relevance in one graph, and which token gets it.

Two ways. *Gaps*: both texts are written in one length, in which every token that only one of them has stands in both,
but is hidden from the attention of the other; every token keeps the position that it has in its own text. So both
values are those of the texts alone, and the relevance of "hidden or not" belongs to that token. Of a model that takes
no mask, padding stands there. *Places*: tokens are compared place by place, the shorter text is filled up behind its
end, and what stands at one place is divided: R_t = m_t (e(x_t) - e) + m_t (e - e(r_t)), with e the embedding of padding. Each way is tried in forwards first, and
taken only where both texts have their own values.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from absence_plugins.core.kinds import TextKind
from absence_plugins.core.outputs import Output
from absence_plugins.core.scores import run_scores
from absence_plugins.core.token_space import embedding_matrix
from absence_plugins.methods.texts.align import align_tokens
from absence_plugins.methods.texts.calls import AlignedModel, Call, Inputs, Interface, list_calls, place_of
from absence_plugins.methods.texts.result import Pair
from absence_plugins.relevance import RelevanceError, relevance

SAME = 1e3  # of two values of the output: rounding steps of the larger one, or of 1
REFUSED = (RuntimeError, ValueError, TypeError, IndexError, KeyError)  # of a model that does not take such inputs


@dataclass(frozen=True)
class Text:
    """Token ids [T] on the model's device, and token types [T] or None."""

    ids: Tensor
    types: Tensor | None


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
        alone = AlignedModel(self.model, self.interface, Call("none", None)).eval()
        return self._value(alone, (text.ids[None], None, None, None if text.types is None else text.types[None]))

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
    own, other = values.of(x), values.of(r)
    failed: RelevanceError | None = None
    for chosen, first, second, call, way in _list_ways(values, x, r, pairs, kind, padding):
        if not (_keeps(values, first, call, own) and _keeps(values, second, call, other)):
            continue
        try:
            found = _relevance_of(values, first, second, call)
        except RelevanceError as error:
            failed = failed or error
            continue
        if way == "places":
            parts = _divide_places(values.model, x, r, chosen, found, padding)
        else:
            parts = found.words + found.hidden
        return Divided(tuple(chosen), parts, float(found.positions.sum()), float(other), way)
    if failed is not None:
        raise RelevanceError(f"{failed} (or pass a reference with as many tokens, so that nothing has to be hidden)")
    raise ValueError(
        f"the text has {len(x.ids)} tokens and the reference {len(r.ids)}, and the model gives them other values in one "
        "length, whether tokens are hidden by an attention mask or the shorter one is filled up with padding; pass a "
        "reference with as many tokens, or a model that takes attention_mask= and position_ids="
    )


def _compare_in_place(values: Values, x: Text, r: Text, pairs: list[Pair]) -> Divided:
    call = Call("none", None)
    length = len(x.ids)
    ones = torch.ones(1, length, device=x.ids.device)
    positions = torch.arange(length, device=x.ids.device)[None]
    first, second = (
        Inputs(text.ids[None], ones, positions, None if text.types is None else text.types[None]) for text in (x, r)
    )
    found = _relevance_of(values, first, second, call)
    return Divided(tuple(pairs), found.words, 0.0, float(values.aligned(second, call)), "places")


def _list_ways(
    values: Values, x: Text, r: Text, pairs: list[Pair], kind: TextKind, padding: int | None
) -> Iterator[tuple[list[Pair], Inputs, Inputs, Call, str]]:
    calls = list_calls(values.model, values.interface, padding=padding)
    dtype = place_of(values.model, x.ids)[1]
    is_maskless = values.interface.mask is None
    filling = padding if is_maskless else None
    if not is_maskless or filling is not None:
        for chosen in _list_alignments(x, r, pairs, kind):
            first, second = _with_gaps(x, r, chosen, dtype, filling)
            yield from ((chosen, first, second, call, "gaps") for call in calls)
    if is_maskless and filling is None and len(x.ids) != len(r.ids):
        return
    first, second = _filled_up(x, r, dtype, filling)
    yield from ((pairs, first, second, call, "places") for call in calls)


def _list_alignments(x: Text, r: Text, pairs: list[Pair], kind: TextKind) -> list[list[Pair]]:
    """The alignment, and those in which the first or last tokens, which some models read, pair with each other."""
    found, a, b = [pairs], x.ids.tolist(), r.ids.tolist()
    if min(len(a), len(b)) < 2:
        return found
    for head, tail in ((0, 1), (1, 0), (1, 1)):
        inner = align_tokens(a[head : len(a) - tail], b[head : len(b) - tail], kind.special)
        moved = [(None if i is None else i + head, None if j is None else j + head) for i, j in inner]
        made: list[Pair] = [(0, 0)] * head + moved + [(len(a) - 1, len(b) - 1)] * tail
        found += [made] if made not in found else []
    return found


def _with_gaps(x: Text, r: Text, pairs: list[Pair], dtype: torch.dtype, padding: int | None) -> tuple[Inputs, Inputs]:
    """Both in one length: a token that only one has stands in both, with its position, and is hidden in the other; or
    padding stands for it there.
    """
    sides = []
    for side in (0, 1):
        ids, visible, positions, types = [], [], [], []
        for pair in pairs:
            text, place = ((x, r)[side], pair[side]) if pair[side] is not None else ((r, x)[side], pair[1 - side])
            assert place is not None
            is_own = pair[side] is not None
            ids.append(text.ids[place] if is_own or padding is None else text.ids.new_tensor(padding))
            types.append(None if text.types is None else text.types[place])
            visible.append(float(is_own))
            positions.append(place)
        device = x.ids.device
        sides.append(
            Inputs(
                torch.stack(ids)[None],
                torch.tensor([visible], dtype=dtype, device=device),
                torch.tensor([positions], device=device),
                None if any(one is None for one in types) else torch.stack(types)[None],  # type: ignore[arg-type]
            )
        )
    return sides[0], sides[1]


def _filled_up(x: Text, r: Text, dtype: torch.dtype, padding: int | None) -> tuple[Inputs, Inputs]:
    """Both in one length: the shorter one is filled up with padding, or (None) with the hidden end of the longer."""
    length = max(len(x.ids), len(r.ids))
    sides = []
    for text, other in ((x, r), (r, x)):
        missing = length - len(text.ids)
        end = other.ids[length - missing :]
        end = end if padding is None else torch.full_like(end, padding)
        visible = torch.ones(1, length, dtype=dtype, device=x.ids.device)
        visible[:, length - missing :] = 0
        types = None
        if text.types is not None and other.types is not None:
            types = torch.cat([text.types, other.types[length - missing :]])[None]
        positions = torch.arange(length, device=x.ids.device)[None]
        sides.append(Inputs(torch.cat([text.ids, end])[None], visible, positions, types))
    return sides[0], sides[1]


def _keeps(values: Values, inputs: Inputs, call: Call, value: Tensor) -> bool:
    """Whether a text in the common length has its own value."""
    try:
        found = values.aligned(inputs, call)
    except REFUSED:
        return False
    step = torch.finfo(found.dtype).eps * SAME
    return bool(torch.isfinite(found).all()) and float((found - value).abs()) <= step * max(1.0, float(value.abs()))


def _relevance_of(values: Values, first: Inputs, second: Inputs, call: Call) -> _Found:
    """R of all that differs between two texts in one length."""
    model = AlignedModel(values.model, values.interface, call)
    result = relevance(model, *_differing(first.of(call), second.of(call)), values.output)
    words, hidden, positions, types = result.attribution
    if words is None:
        raise RelevanceError(
            "the model looks its ids up in no embedding, so no token has relevance; pass a model with nn.Embedding"
        )
    none = words.new_zeros(words.shape[1])
    summed = [none if part is None else part[0].reshape(len(none), -1).sum(1) for part in (words, types)]
    return _Found(
        summed[0] + summed[1],
        none if hidden is None else hidden[0],
        none if positions is None else positions[0].sum(-1),
        result.multipliers[0][0, 0],
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
