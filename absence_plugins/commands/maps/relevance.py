"""The maps of relevance of differences, the default of ``absence-plugins explain`` and of the report."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

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
from absence_plugins.relevance import Relevance, relevance
from absence_plugins.relevance.shared_graph import SharedGraph

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
        found = self._compare(model, x, others, own)
        if references.is_made:
            return signed_parts(found.attribution, float(found.output[0]))
        blank = references.empty[0].to(x).expand_as(x)
        absent = [
            split_by_content(signed, x, other, blank)[1]
            for signed, other in zip(found.per_reference, others, strict=True)
        ]
        return Found(found.attribution, torch.stack(absent).mean(0).clamp(min=0), float(found.output[0]))

    @contextmanager
    def on_image(self, model: nn.Module, x: Tensor) -> Iterator[RelevanceMaps]:
        """The same maps, all of one image: x runs once, and so does each image that it is compared with."""
        graph = SharedGraph(model, x, rule=self.rule)
        try:
            yield _MapsOfImage(self.rule, self.standard_caption, graph=graph)
        finally:
            graph.close()  # a traceback that holds it shall not hold its memory

    def _read(self, model: nn.Module, x: Tensor) -> Tensor:
        with torch.no_grad():
            return run_scores(model, (x,), samples=len(x))[0]

    def _compare(self, model: nn.Module, x: Tensor, reference: Tensor | list[Tensor], output: Output) -> Relevance:
        return relevance(model, x, reference, output, rule=self.rule)

    def _chosen(self, model: nn.Module, x: Tensor, target: int, other: int | str) -> Choice:
        return choose(self._read(model, x), target, other)  # type: ignore[arg-type]

    def _map(self, model: nn.Module, x: Tensor, blank: Tensor, output: Output) -> tuple[Tensor, float]:
        found = self._compare(model, x, blank.expand_as(x), output)
        return found.attribution, float(found.output[0])


@dataclass(frozen=True)
class _MapsOfImage(RelevanceMaps):
    """The maps of the one image that the graph is of."""

    graph: SharedGraph = field(kw_only=True)

    def _read(self, model: nn.Module, x: Tensor) -> Tensor:
        return self.graph.logits

    def _compare(self, model: nn.Module, x: Tensor, reference: Tensor | list[Tensor], output: Output) -> Relevance:
        return self.graph.explain(reference, output)
