"""Attention masks: a sample's mask holds for its references, too, and may hide what they have."""

from __future__ import annotations

import warnings

import torch
from torch import Tensor

from absence_plugins.captum.plan import Plan
from absence_plugins.core import AbsenceWarning
from absence_plugins.core.kinds import Kind, TextKind


def find_mask(kind: TextKind, ids: Tensor, extra: tuple[object, ...]) -> Tensor | None:
    """The attention mask [B, T] among the additional arguments of a model, as booleans; None without one.

    It holds 0 and 1 for every token and is 0 at special tokens alone, which tells it from token types.

    >>> kind = TextKind({}, special=(0,))
    >>> find_mask(kind, torch.tensor([[5, 6, 0]]), (None, torch.tensor([[1, 1, 0]])))
    tensor([[ True,  True, False]])
    >>> find_mask(kind, torch.tensor([[5, 6, 0]]), (torch.tensor([[0, 1, 1]]),)) is None
    True
    """
    for one in extra:
        if not isinstance(one, Tensor) or one.shape != ids.shape or not bool(((one == 0) | (one == 1)).all()):
            continue
        hidden = one == 0
        if bool(hidden.any()) and bool(kind.is_special(ids)[hidden].all()):
            return ~hidden
    return None


def warn_hidden_tokens(kind: Kind | None, plan: Plan, level: int) -> None:
    """Say which samples' masks hide tokens of their references: what those have there cannot show as missing."""
    if not isinstance(kind, TextKind) or plan.references is None:
        return
    ids, references = plan.real[0], plan.references[0][:: plan.copies]
    mask = find_mask(kind, ids, plan.extra(plan.copies))
    _warn_seen_padding(kind, ids, references, mask, plan.extra(plan.copies), level + 1)
    if mask is None:
        return
    hidden = (~mask[:, None] & ~kind.is_special(references)).flatten(1).sum(1)
    if bool(hidden.any()):
        rows = hidden.nonzero().flatten()[:8].tolist()
        warnings.warn(
            f"the attention mask of samples {rows} hides {int(hidden.sum())} tokens of their references, which are "
            "longer: the mask of a sample holds for its references, and what these have behind its end is not seen as "
            "missing; use references of the same length, or a mask that is 1 wherever a reference has a token",
            AbsenceWarning,
            stacklevel=level,
        )


def _warn_seen_padding(
    kind: TextKind, ids: Tensor, references: Tensor, mask: Tensor | None, extra: tuple[object, ...], level: int
) -> None:
    """Say which samples' masks show padding of their references, which is then no longer their own value.

    Padding is what the mask hides; where it hides nothing, the special token that comes twice at an end of a reference.
    """
    if mask is not None:
        padding = ids[~mask]
    elif any(isinstance(one, Tensor) and one.shape == ids.shape and bool((one == 1).all()) for one in extra):
        mask = torch.ones_like(ids, dtype=torch.bool)
        ends = torch.cat([references[..., :2].flatten(0, 1), references[..., -2:].flatten(0, 1)])
        padding = ends[(ends[:, :1] == ends[:, -1:]).all(1) & kind.is_special(ends[:, 0])]
    else:
        return
    seen = (mask[:, None] & torch.isin(references, padding)).flatten(1).sum(1)
    if bool(seen.any()):
        rows = seen.nonzero().flatten()[:8].tolist()
        warnings.warn(
            f"the attention mask of samples {rows} shows {int(seen.sum())} tokens of padding of their references, which are "
            "shorter: the mask of a sample holds for its references, so that the value of these is not that of their own "
            "text; use references of the same length, or absence_plugins.methods.texts.explain_text",
            AbsenceWarning,
            stacklevel=level,
        )
