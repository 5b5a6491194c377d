"""The maps of relevance of differences, the default of ``absence-plugins explain`` and of the report."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from absence_plugins import ReferenceSet
from absence_plugins.commands.early_checks import check_method_name
from absence_plugins.commands.maps.explainers import Found, signed_parts
from absence_plugins.commands.pace import Passes
from absence_plugins.core.choices import Choice, choose
from absence_plugins.core.maps import split_by_content
from absence_plugins.core.outputs import Logit, Output
from absence_plugins.core.scores import run_scores
from absence_plugins.relevance import relevance

DEFAULT_RULE = "lower_gamma"  # the best on a trained network and photographs, see docs/relevance.md


@dataclass(frozen=True)
class RelevanceMaps:
    """The maps of one rule: exact, and as many references as there are against one graph of x."""

    rule: str = DEFAULT_RULE
    standard_caption: str = "Against blank: only what is there."

    @property
    def name(self) -> str:
        """As the page calls it."""
        return "Relevance" if self.rule == DEFAULT_RULE else f"Relevance ({self.rule})"

    @classmethod
    def named(cls, name: str) -> RelevanceMaps:
        """From ``relevance`` or ``relevance:RULE``.

        Raises:
            ValueError: a rule that does not exist, with those that do.

        >>> RelevanceMaps.named("relevance:epsilon").name
        'Relevance (epsilon)'
        """
        check_method_name(name)
        return cls(name.partition(":")[2] or DEFAULT_RULE)

    def refuse_references(self) -> str:
        """It takes references."""
        return ""

    def count_passes(self, x: Tensor, k: int) -> Passes:
        """One for x and one for every image that it is compared with."""
        return Passes(0, 5 + (1 + k) * bool(k))

    def standard(self, model: nn.Module, x: Tensor, target: int, classes: int, blank: Tensor) -> Tensor:
        """The target against blank."""
        return self._map(model, x, blank, Logit(target))[0]

    def nontarget(self, model: nn.Module, x: Tensor, target: int, other: int | str, blank: Tensor) -> Found:
        """The other output against blank."""
        signed, u = self._map(model, x, blank, self._chosen(model, x, target, other))
        return signed_parts(signed, u)

    def against(self, model: nn.Module, x: Tensor, target: int, references: ReferenceSet) -> Found:
        """The target against the nearest references: the mean over them, and the part where only they have content."""
        own = self._chosen(model, x, target, "target")
        nearest = references.nearest(x, own.contrast()[0])
        assert isinstance(nearest, Tensor)
        others = list(nearest.unbind(1))
        found = relevance(model, x, others, own, rule=self.rule)
        if references.is_made:
            return signed_parts(found.attribution, float(found.output[0]))
        blank = references.empty[0].to(x).expand_as(x)
        absent = [
            split_by_content(signed, x, other, blank)[1]
            for signed, other in zip(found.per_reference, others, strict=True)
        ]
        return Found(found.attribution, torch.stack(absent).mean(0).clamp(min=0), float(found.output[0]))

    @staticmethod
    def _chosen(model: nn.Module, x: Tensor, target: int, other: int | str) -> Choice:
        with torch.no_grad():
            return choose(run_scores(model, (x,), samples=len(x))[0], target, other)  # type: ignore[arg-type]

    def _map(self, model: nn.Module, x: Tensor, blank: Tensor, output: Output) -> tuple[Tensor, float]:
        found = relevance(model, x, blank.expand_as(x), output, rule=self.rule)
        return found.attribution, float(found.output[0])
