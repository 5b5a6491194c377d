"""The relevance of differences, by rule, as methods of the planted benchmark."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from torch import Tensor

from absence_plugins.methods.faithfulness import Question
from absence_plugins.relevance import relevance

OURS = "relevance "  # how the names of these rows begin
RULES = ("epsilon", "lower_gamma", "lower_zplus")


@dataclass(frozen=True)
class RelevanceMethod:
    """:func:`~absence_plugins.relevance.relevance` of the unit: against blank (non-target view) or the nearest
    references.
    """

    rule: str

    def __call__(self, question: Question) -> Tensor:
        """The signed map [N, 1, H, W], or per reference [N, k, 1, H, W]."""
        against = question.blank[None] if question.view == "nontarget" else question.drawn.transpose(0, 1)
        found = relevance(question.model, question.x, against.contiguous(), question.unit, rule=self.rule)
        maps: Tensor = found.per_reference.detach().sum(-3, keepdim=True)
        return maps[0] if question.view == "nontarget" else maps.transpose(0, 1).contiguous()


def relevance_methods() -> Iterator[tuple[str, RelevanceMethod]]:
    """``relevance RULE`` for the rules that are recommended, by depth of the network."""
    for rule in RULES:
        yield f"{OURS}{rule}", RelevanceMethod(rule)
