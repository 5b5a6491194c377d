"""Two texts written in one length: what stands at every place, and which tokens are hidden there."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from absence_plugins.core.kinds import TextKind
from absence_plugins.methods.texts.align import align_tokens
from absence_plugins.methods.texts.calls import Call, Inputs
from absence_plugins.methods.texts.result import Pair


@dataclass(frozen=True)
class Text:
    """Token ids [T] on the model's device, and token types [T] or None."""

    ids: Tensor
    types: Tensor | None

    def alone(self, dtype: torch.dtype = torch.float32) -> Inputs:
        """The text as it is."""
        positions = torch.arange(len(self.ids), device=self.ids.device)[None]
        visible = torch.ones(1, len(self.ids), dtype=dtype, device=self.ids.device)
        return Inputs(self.ids[None], visible, positions, None if self.types is None else self.types[None])


@dataclass(frozen=True)
class Way:
    """One way to write two texts in one length.

    Attributes:
        name: "gaps", "holes" or "places" (:mod:`absence_plugins.methods.texts.compare`).
        pairs: the alignment.
        first, second: the text and the reference.
        call: how the model is called.
    """

    name: str
    pairs: list[Pair]
    first: Inputs
    second: Inputs
    call: Call


def list_ways(
    x: Text,
    r: Text,
    kind: TextKind,
    calls: list[Call],
    dtype: torch.dtype,
    *,
    padding: int | None,
    is_masked: bool,
) -> Iterator[Way]:
    """All ways, the best first. ``padding``: the id that fills gaps of a model without a mask (``is_masked``)."""
    pairs = align_tokens(x.ids.tolist(), r.ids.tolist(), kind.special)
    filling = None if is_masked else padding
    if is_masked or filling is not None:
        alignments = _list_alignments(x, r, pairs, kind)
        for chosen in alignments:
            both = _with_gaps(x, r, chosen, dtype, filling)
            yield from (Way("gaps", chosen, *both, call) for call in calls)
        for chosen in alignments if is_masked else ():
            both = _with_gaps(x, r, chosen, dtype, None)
            places = torch.arange(len(chosen), device=x.ids.device)[None]
            held = [replace(one, positions=places) for one in both]
            yield from (Way("holes", chosen, held[0], held[1], call) for call in calls)
    if is_masked or filling is not None or len(x.ids) == len(r.ids):
        both = _filled_up(x, r, dtype, filling)
        yield from (Way("places", pairs, *both, call) for call in calls)


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


def replace_hidden(inputs: Inputs, ids: Tensor) -> Inputs:
    """The same with another token, one of ``ids``, in the place of each that is hidden; the value must not change."""
    known = torch.unique(ids)
    other = torch.stack([known[known != one][:1].sum() if len(known) > 1 else one for one in inputs.ids[0]])[None]
    return replace(inputs, ids=torch.where(inputs.visible > 0, inputs.ids, other))
