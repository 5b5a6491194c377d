"""Captum's ``TokenReferenceBase``, which also makes references of texts: what the explained text lacks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from captum.attr import TokenReferenceBase
from torch import Tensor

from absence_plugins.core.kinds import TextKind
from absence_plugins.core.references import ReferenceSet
from absence_plugins.core.token_pairs import align_tokens


class AbsenceTokenReferenceBase(TokenReferenceBase):
    """References for token ids: padding alone as Captum's, and other texts, aligned with the explained one.

    Args:
        reference_token_idx: id of the padding token.
        tokenizer: has ``encode(text) -> ids``, or is such a function; needed where texts are given as strings.
        special: ids of further special tokens ([CLS], [SEP]), which pair with each other alone.

    Against padding a map shows what is there. Against a text that has what x lacks, R > 0 at that text's token says:
    its absence raises the output.

    >>> reference = AbsenceTokenReferenceBase(reference_token_idx=0)
    >>> reference.generate_reference(3, device="cpu")
    tensor([0, 0, 0])
    """

    def __init__(self, reference_token_idx: int = 0, tokenizer: Any = None, special: Sequence[int] = ()) -> None:
        super().__init__(reference_token_idx)
        self.tokenizer, self.special = tokenizer, tuple(int(one) for one in special)

    def generate_aligned(self, input_ids: Tensor, texts: str | Tensor | Sequence[Any]) -> tuple[Tensor, Tensor]:
        """Texts and their references, token by token at the same places, with padding where one has no counterpart.

        Args:
            input_ids: explained texts [B, T] (or one, [T]); padding at the end is taken off and put on again.
            texts: a reference for each, or one for all: strings, or token ids.

        Returns:
            The texts and the references, both [B, L] of the type and device of ``input_ids``. The texts are unchanged
            where their reference has no token more; else there is padding at its place, and the model must be asked
            what it says of them.

        Raises:
            ValueError: another number of references than texts; strings without a tokenizer.

        >>> x = torch.tensor([[5, 6, 8]])
        >>> AbsenceTokenReferenceBase(0).generate_aligned(x, torch.tensor([[5, 6, 7, 8]]))
        (tensor([[5, 6, 0, 8]]), tensor([[5, 6, 7, 8]]))
        """
        rows = input_ids if input_ids.dim() == 2 else input_ids[None]
        TextKind({}).check(rows)
        others = self._rows(texts)
        others = others * len(rows) if len(others) == 1 else others
        if len(others) != len(rows):
            raise ValueError(f"{len(others)} references for {len(rows)} texts; pass one for each, or one for all")
        pad = self.reference_token_idx
        sides = [[self._trimmed(row) for row in part] for part in (rows.tolist(), others)]
        pairs = [align_tokens(own, other, {pad, *self.special}) for own, other in zip(*sides, strict=True)]
        length = max([rows.shape[1], *map(len, pairs)])
        filled = [
            torch.tensor(
                [
                    self._filled(row, [place[side] for place in places], length)
                    for row, places in zip(texts_of_side, pairs, strict=True)
                ]
            )
            for side, texts_of_side in enumerate(sides)
        ]
        own, other = (part.to(input_ids) for part in filled)
        return (own, other) if input_ids.dim() == 2 else (own[0], other[0])

    def reference_set(
        self, texts: Sequence[Any] | Tensor, labels: Any = None, *, sequence_length: int, **options: Any
    ) -> ReferenceSet:
        """A ReferenceSet of texts with ``sequence_length`` tokens each, padded at the end.

        Args:
            texts: strings, or token ids.
            labels: as of :class:`~absence_plugins.ReferenceSet`.
            sequence_length: of the explained texts.
            **options: as of :class:`~absence_plugins.ReferenceSet`; without ``kind`` it is a TextKind without words.

        Raises:
            ValueError: a text is longer; strings without a tokenizer.

        >>> AbsenceTokenReferenceBase(0).reference_set([[5, 6], [5, 7, 8]], sequence_length=4, k=1).images[0]
        tensor([[5, 6, 0, 0],
                [5, 7, 8, 0]])
        """
        pad, rows = self.reference_token_idx, self._rows(texts)
        for number, row in enumerate(rows):
            if len(row) > sequence_length:
                raise ValueError(
                    f"reference {number} has {len(row)} tokens, and the explained texts have {sequence_length}; pad those "
                    "to the longest, or leave it out"
                )
        ids = torch.tensor([row + [pad] * (sequence_length - len(row)) for row in rows])
        kind = options.pop("kind", None) or TextKind({}, (pad, *self.special))
        return ReferenceSet(ids, labels, kind=kind, **options)

    def _rows(self, texts: Any) -> list[list[int]]:
        """Token ids of every text."""
        if isinstance(texts, Tensor):
            return texts.tolist() if texts.dim() == 2 else [texts.tolist()]
        if isinstance(texts, str):
            return [self._encode(texts)]
        if all(isinstance(one, int) for one in texts):
            return [list(texts)]
        return [self._encode(one) if isinstance(one, str) else [int(token) for token in one] for one in texts]

    def _encode(self, text: str) -> list[int]:
        if self.tokenizer is None:
            raise ValueError(f"{text!r} is a text, and there is no tokenizer; pass tokenizer=, or token ids")
        encode = getattr(self.tokenizer, "encode", self.tokenizer)
        return torch.as_tensor(encode(text)).flatten().tolist()

    def _filled(self, row: list[int], places: Sequence[int | None], length: int) -> list[int]:
        """The tokens at some places, padding at None and up to a length."""
        pad = self.reference_token_idx
        found = [pad if place is None else row[place] for place in places]
        return found + [pad] * (length - len(found))

    def _trimmed(self, row: list[int]) -> list[int]:
        """Without the padding at the end."""
        end = len(row)
        while end and row[end - 1] == self.reference_token_idx:
            end -= 1
        return row[:end]
