"""u(x) - u(r) divided among units."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from absence_plugins.core.turns import working_on
from absence_plugins.core.units import Layer
from absence_plugins.methods.carriers.features import Features
from absence_plugins.methods.carriers.points import Points
from absence_plugins.methods.carriers.result import Carriers, LayerCarriers, stack_mean
from absence_plugins.relevance.asking import Answer, ask
from absence_plugins.relevance.selection import Selection


@torch.inference_mode(False)
def find_carriers(
    model: nn.Module,
    x: Any,
    reference: Any,
    output: Selection = None,
    *,
    layers: Sequence[str | Layer] | str | Layer,
    features: Mapping[str, Features] | None = None,
    rule: Any = "epsilon",
) -> Carriers:
    """Divide u(x) - u(r) among the units of layers, those included that are inactive on x.

    R_h = sum over positions of m_h (h(x) - h(r)), with the multiplier m of
    :func:`~absence_plugins.relevance.relevance`. Over a layer that all paths run through, R sums to u(x) - u(r); what
    passes around it is the layer's ``rest``.

    Args:
        model: a module in evaluation mode; it is neither changed nor copied.
        x: the input, as in :func:`~absence_plugins.relevance.relevance`.
        reference: what it is compared with, one or several, as there.
        output: which output, as in :func:`~absence_plugins.relevance.relevance`.
        rule: as in :func:`~absence_plugins.relevance.relevance`.
        layers: names, or :class:`~absence_plugins.Layer`; read at the module's output unless a Layer says
            ``side="input"``.
        features: by the name of a layer the :class:`Features` of a sparse autoencoder, which take its units' place.

    Returns:
        Carriers. **Sign**: R > 0 raises u on x compared with the reference. Silent on x, active on the reference and
        R > 0: the unit carries an absence that raises u.

    Raises:
        RelevanceError, ValueError, TypeError: as in ``relevance``; a layer that does not exist, or runs several times.

    >>> net = nn.Sequential(nn.Linear(2, 2, bias=False), nn.ReLU(), nn.Linear(2, 1, bias=False))
    >>> net[0].weight.data, net[2].weight.data = torch.eye(2), torch.tensor([[1.0, -2.0]])
    >>> found = find_carriers(net, torch.tensor([[1.0, 0.0]]), torch.tensor([[0.0, 5.0]]), layers="1")
    >>> found.strongest(count=1)[0].words()  # silent here: it would have lowered the output
    'unit 1 of 1 is silent here and 5 on the references: that raises the output by 10'
    """
    points = Points.of(model, layers, x)
    unknown = set(features or {}) - set(points.layers)
    if unknown:
        raise ValueError(f"features are given for {', '.join(sorted(unknown))}, which is none of the layers")
    with working_on(model):
        asked = ask(model, x, reference, output, rule=rule, layers=points.modules())
        parts: dict[str, list[tuple[Tensor, Tensor, Tensor]]] = {name: [] for name in points.layers}
        outputs = []
        for answer in map(asked.answer, asked.references):
            outputs.append(answer.output)
            for name in points.layers:
                values = asked.comparison.values_at(name)
                parts[name].append(_split(points, name, answer, values, (features or {}).get(name)))
        on_references = torch.stack(outputs)
        difference = asked.u - on_references.mean(0)
        found = {}
        for name, each in parts.items():
            relevance, here, there = (stack_mean(list(column)) for column in zip(*each, strict=True))
            found[name] = LayerCarriers(relevance, here, there, difference - relevance.sum(1))
        return Carriers(found, asked.u, on_references)


def _split(
    points: Points, name: str, answer: Answer, values: tuple[Tensor, Tensor], features: Features | None
) -> tuple[Tensor, Tensor, Tensor]:
    """Of one reference: relevance, value on x and on the reference of every unit [B, U]."""
    entry = answer.pulled.layers[name]
    if features is not None:
        arrange = points.axes(name, values[0]).maps
        return features.split(arrange(entry.multiplier), *map(arrange, values))
    here, there = (points.averaged(name, value) for value in values)
    return points.summed(name, entry.relevance), here, there
