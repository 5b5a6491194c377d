"""A small graph of one decision: the strongest units of several layers, and what flows between them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from absence_plugins.core.checks import check_integer
from absence_plugins.core.results import Result
from absence_plugins.core.table import Grid
from absence_plugins.core.turns import working_on
from absence_plugins.core.units import Layer
from absence_plugins.methods.carriers.points import Points
from absence_plugins.methods.carriers.result import Carrier, stack_mean
from absence_plugins.relevance.asking import Question, ask
from absence_plugins.relevance.selection import Selection

if TYPE_CHECKING:
    from matplotlib.figure import Figure


SHOWN = 12  # edges that a table shows


@dataclass(frozen=True)
class Edge:
    """What flows from a unit of one layer through a unit of the next: its part of that unit's relevance."""

    source: tuple[str, int]
    target: tuple[str, int]
    relevance: float


@dataclass(frozen=True, eq=False, repr=False)
class CarrierGraph(Result):
    """The strongest units of every layer for one sample, and the relevance that flows between them.

    **Sign** of a unit: R > 0 raises the output. Of an edge: what the source contributes to the target's R, so the edges
    of all of a layer's units into one target sum to that target's R where all its paths run through the layer.

    Attributes:
        nodes: by layer, strongest first; the layers in the order in which they were named (input side first).
        edges: between the nodes of successive layers.
        difference: u(x) - u(r), averaged over the references.
    """

    nodes: dict[str, tuple[Carrier, ...]]
    edges: tuple[Edge, ...]
    difference: float

    def _heading(self) -> str:
        return f"Units of {', '.join(self.nodes)} that carry u(x) - u(r) = {self.difference:+.4g}"

    def _grid(self) -> Grid:
        rows = [("from", "through", "R")]
        rows += [
            (_name(edge.source), _name(edge.target), f"{edge.relevance:+.4g}")
            for edge in sorted(self.edges, key=lambda edge: -abs(edge.relevance))[:SHOWN]
        ]
        last = list(self.nodes.values())[-1]
        rows += [(f"{one.layer}:{one.unit}", "output", f"{one.relevance:+.4g}") for one in last]
        return Grid(tuple(rows), left=(0, 1), foot=("R > 0 raises the output, R < 0 holds it down",))

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._heading()})\n{self.table()}"

    def figure(self, ax: Any = None) -> Figure:
        """Layers as columns, units as circles, edges as wide as their relevance; needs matplotlib."""
        from absence_plugins.report.plots.carriers import graph_figure

        return graph_figure(self, ax=ax)

    def to_dict(self) -> dict[str, Any]:
        """Plain lists, ready for JSON."""
        return {
            "difference": self.difference,
            "nodes": {name: [vars(one) for one in units] for name, units in self.nodes.items()},
            "edges": [vars(edge) for edge in self.edges],
        }


@torch.inference_mode(False)
def carrier_graph(
    model: nn.Module,
    x: Tensor,
    reference: Any,
    output: Selection = None,
    *,
    layers: Sequence[str | Layer],
    most: int = 4,
    rule: Any = "epsilon",
) -> CarrierGraph:
    """The strongest units of several layers for one decision, and what flows between units of successive layers.

    An edge from unit i to unit j of the next layer is the relevance of i when only the multiplier of j is pulled back:
    R_ij = sum over positions of (dj/di secant) m_j (h_i(x) - h_i(r)).

    Args:
        model: a module in evaluation mode; it is neither changed nor copied.
        x: one sample [1, ...].
        reference: what it is compared with, one or several, as in ``relevance``.
        output: which output, as in :func:`~absence_plugins.relevance.relevance`.
        rule: as in :func:`~absence_plugins.relevance.relevance`.
        layers: at least two, input side first.
        most: units per layer, by the magnitude of R.

    Raises:
        ValueError: more than one sample, layers in another order than the model runs them.
        RelevanceError, TypeError: as in ``relevance``.

    >>> net = nn.Sequential(nn.Linear(1, 2, bias=False), nn.ReLU(), nn.Linear(2, 1, bias=False), nn.ReLU())
    >>> net[0].weight.data, net[2].weight.data = torch.tensor([[1.0], [2.0]]), torch.tensor([[1.0, 1.0]])
    >>> found = carrier_graph(net, torch.ones(1, 1), torch.zeros(1, 1), layers=["1", "3"])
    >>> [(edge.source, edge.target, edge.relevance) for edge in found.edges]
    [(('1', 1), ('3', 0), 2.0), (('1', 0), ('3', 0), 1.0)]
    """
    check_integer("most", most)
    if not isinstance(x, Tensor) or len(x) != 1:
        raise ValueError("a graph is of one decision: pass one sample [1, ...]")
    points = Points.of(model, layers, x)
    names = list(points.layers)
    if len(names) < 2:
        raise ValueError("a graph needs at least two layers")
    with working_on(model):
        asked = ask(model, x, reference, output, rule=rule, layers=points.modules())
        answers = []
        for answer in map(asked.answer, asked.references):
            values = {name: asked.comparison.values_at(name) for name in names}
            answers.append((answer.output, answer.pulled.layers, values))
        nodes = {name: _strongest(points, name, answers, most) for name in names}
        edges = _edges(points, asked, nodes)
        others = torch.stack([found for found, _, _ in answers])
        return CarrierGraph(nodes, tuple(edges), float((asked.u - others.mean(0))[0]))


def _strongest(points: Points, name: str, answers: list[Any], most: int) -> tuple[Carrier, ...]:
    relevance = stack_mean([points.summed(name, layers[name].relevance)[0] for _, layers, _ in answers])
    here = stack_mean([points.averaged(name, values[name][0])[0] for _, _, values in answers])
    there = stack_mean([points.averaged(name, values[name][1])[0] for _, _, values in answers])
    order = relevance.abs().argsort(descending=True, stable=True)[:most].tolist()
    return tuple(Carrier(name, unit, float(relevance[unit]), float(here[unit]), float(there[unit])) for unit in order)


def _edges(points: Points, asked: Question, nodes: dict[str, tuple[Carrier, ...]]) -> list[Edge]:
    """Edges between the nodes of successive layers, averaged over the references."""
    names = list(nodes)
    totals: dict[tuple[tuple[str, int], tuple[str, int]], float] = {}
    for answer in map(asked.answer, asked.references):
        for lower, upper in pairwise(names):
            multiplier, place = answer.pulled.layers[upper].multiplier, asked.comparison.leaf_at(upper)
            for target in nodes[upper]:
                pulled = asked.comparison.pull(place, points.only(upper, multiplier, target.unit))
                own = points.summed(lower, pulled.layers[lower].relevance)[0]
                for source in nodes[lower]:
                    key = ((lower, source.unit), (upper, target.unit))
                    totals[key] = totals.get(key, 0.0) + float(own[source.unit]) / len(asked.references)
    return [Edge(source, target, value) for (source, target), value in totals.items()]


def _name(unit: tuple[str, int]) -> str:
    return f"{unit[0]}:{unit[1]}"
