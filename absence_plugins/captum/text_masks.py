"""Attention masks: a sample's mask holds for its references, too, and may hide what they have."""

from __future__ import annotations

import warnings

import torch  # noqa: F401  (examples)
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
