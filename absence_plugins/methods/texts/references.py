"""Nearest reference texts of a contrast class, and a text explained against them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from absence_plugins.core.kinds import TextKind
from absence_plugins.core.outputs import Logit, Margin, Output
from absence_plugins.core.references import ReferenceSet
from absence_plugins.core.suitability import warn_unsuitable
from absence_plugins.core.token_space import TokenSpace
from absence_plugins.core.wording import Names
from absence_plugins.methods.texts.explain import (
    check_model,
    choose_output,
    explain_text,
    is_single,
    read_text,
)
from absence_plugins.methods.texts.result import TextExplanation
from absence_plugins.methods.texts.words import Encoder, check_length, read_tokenizer

Distance = Literal["cosine", "euclidean"]


def text_references(
    model: Any,
    tokenizer: Any,
    texts: Sequence[Any],
    labels: Tensor | Sequence[int] | None = None,
    *,
    length: int | None = None,
    distance: Distance = "cosine",
    kind: TextKind | None = None,
    **options: Any,
) -> ReferenceSet:
    """Texts as a ReferenceSet of token ids [N, T], whose nearest are those of the nearest mean embedding.

    Shorter texts are filled up with padding, which is no part of a mean embedding.

    Args:
        model: whose embedding measures nearness (a module, its embedding, or a matrix [V, D]).
        tokenizer: as in :func:`explain_text`.
        texts: N texts, or token ids.
        labels: the class of each [N].
        length: T; None: that of the longest text.
        distance: "cosine" or "euclidean", between mean embeddings.
        kind: words and special tokens; None: from the tokenizer.
        options: of :class:`~absence_plugins.ReferenceSet`: ``k``, ``contrast``, ``seed``.

    Raises:
        ValueError: no texts; one longer than ``length``; texts of several lengths without a token for padding.

    >>> matrix = torch.tensor([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
    >>> kind = TextKind({0: "<pad>", 1: "good", 2: "bad"}, special=(0,))
    >>> references = text_references(matrix, kind, ["bad", "good good"], [0, 1], k=1)
    >>> references.nearest(torch.tensor([[1, 2]]), target=1)
    tensor([[[2, 0]]])
    """
    encoder = read_tokenizer(tokenizer, kind)
    read = [encoder.read(text, f"text {number}")[0] for number, text in enumerate(texts)]
    if not read:
        raise ValueError("there are no reference texts; pass at least one")
    longest = max(map(len, read)) if length is None else length
    ids = torch.stack([fill_up(one, longest, encoder, f"text {number}") for number, one in enumerate(read)])
    space = TokenSpace(model, encoder.kind, distance)
    empty = 0 if encoder.padding is None else encoder.padding
    return ReferenceSet(ids, labels, kind=encoder.kind, nearest_in=space, empty=empty, **options)


def fill_up(ids: Tensor, length: int, encoder: Encoder, what: str = "the text") -> Tensor:
    """Token ids [T] with padding at the end [length]."""
    check_length(len(ids), length, what, "the references have")
    if len(ids) == length:
        return ids
    padding = encoder.padding if encoder.padding is not None else next(iter(encoder.kind.special), None)
    if padding is None:
        raise ValueError(
            "the texts have several lengths, and the tokenizer has no special token to fill them up with; set its "
            "pad_token, or pass kind=TextKind(words, special=(<padding>,))"
        )
    return torch.cat([ids, torch.full((length - len(ids),), padding, dtype=ids.dtype, device=ids.device)])


@dataclass(frozen=True)
class Contrast:
    """Which class a text is explained as, and which one its references are taken from (None: any other)."""

    target: int | None
    label: int | None


def explain_nearest(
    model: Callable[..., Any],
    tokenizer: Any,
    text: Any,
    texts: Sequence[Any],
    labels: Tensor | Sequence[int],
    output: Output | int | str | None = None,
    *,
    k: int = 4,
    contrast: int | None = None,
    distance: Distance = "cosine",
    kind: TextKind | None = None,
    names: Names = None,
) -> TextExplanation:
    """Explain a text against its k nearest among many texts: those of the contrast class.

    References are of ``contrast``; else of a margin's other class; of a single logit z (class 1) of class 0, of -z of
    class 1; else of any class but the explained one. The text itself is left out, and a text that comes again
    counts once. Nearest first, by
    :class:`~absence_plugins.TokenSpace`.

    Args:
        model: as in :func:`explain_text`.
        tokenizer: as there.
        text: as there.
        texts: N texts, or token ids.
        labels: the class of each [N].
        output: as in :func:`explain_text`.
        k: how many references.
        contrast: the class of the references.
        distance: "cosine" or "euclidean".
        kind: as in :func:`explain_text`.
        names: as there.

    Returns:
        TextExplanation against k references, nearest first. **Sign** as in :func:`explain_text`.

    Warns (AbsenceWarning): the explained output is not lower on a reference than on the text.

    Raises:
        ValueError: as :func:`explain_text`; fewer than k different texts of the contrast class.
    """
    check_model(model)
    encoder = read_tokenizer(tokenizer, kind)
    texts = list(texts)
    if len(labels) != len(texts):
        raise ValueError(f"{len(labels)} labels for {len(texts)} texts; pass one each")
    x = read_text(model, encoder, text, "the text")
    explained = choose_output(model, x, output)
    asked = _contrast_of(explained, single=is_single(model, x), contrast=contrast)
    read = [read_text(model, encoder, one, f"text {number}").ids for number, one in enumerate(texts)]
    first = {
        (tuple(ids.tolist()), int(label)): number
        for number, (ids, label) in reversed([*enumerate(zip(read, labels, strict=True))])
    }
    other = sorted(number for number in first.values() if not torch.equal(read[number], x.ids))
    length = max([len(x.ids), *(len(read[number]) for number in other)])
    references = text_references(
        model,
        encoder.kind,
        [read[number].cpu() for number in other],
        torch.as_tensor(labels)[other],
        length=length,
        distance=distance,
        k=k,
    )
    own = fill_up(x.ids.cpu(), length, encoder)[None]
    nearest = references.nearest_indices(own, asked.target, label=asked.label)[0].tolist()
    found = explain_text(
        model, tokenizer, text, [texts[other[one]] for one in nearest], explained, kind=kind, names=names
    )
    warn_unsuitable(
        "target", torch.tensor([found.output]), torch.tensor([[one.output for one in found.comparisons]]), level=3
    )
    return found


def _contrast_of(explained: Output, *, single: bool, contrast: int | None) -> Contrast:
    index = getattr(explained, "index", None)
    if not isinstance(index, int):
        if contrast is None:
            raise ValueError(
                f"{explained.describe()} is no class, so it has no contrast class; name one with contrast=<class>"
            )
        return Contrast(None, contrast)
    sign = getattr(explained, "sign", 1)
    if single:
        target = int(sign == 1)
        return Contrast(target, 1 - target if contrast is None else contrast)
    if contrast == index and sign == 1:
        raise ValueError(f"class {index} would be compared with itself; name another contrast class")
    if contrast is None and isinstance(explained, Margin) and isinstance(explained.other, int):
        contrast = explained.other
    if contrast is None and isinstance(explained, Logit) and sign == -1:
        contrast = index
    return Contrast(index, contrast)
