"""Maps of what reaches the output through one unit only."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from absence_plugins.core.checks import check_distinct
from absence_plugins.core.results import Result
from absence_plugins.core.table import Grid
from absence_plugins.core.turns import working_on
from absence_plugins.core.units import Layer
from absence_plugins.methods.carriers.points import Points
from absence_plugins.relevance.asking import ask
from absence_plugins.relevance.selection import Selection

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True, eq=False, repr=False)
class ConditionalMaps(Result):
    """The map of u(x) - u(r), cut into what runs through each of some units, and the rest. B samples, N units.

    **Sign**: R > 0 raises the output through the unit. The maps and the rest add up to the whole map exactly.

    Attributes:
        layer: the units' layer.
        units: their numbers [N].
        maps: [N, B, ...] in the shape of the input, averaged over the references.
        rest: what runs through other units of the layer, or around it [B, ...].
        relevance: of every unit [B, N]: the sum of its map.
    """

    layer: str
    units: tuple[int, ...]
    maps: Tensor
    rest: Tensor
    relevance: Tensor

    @property
    def whole(self) -> Tensor:
        """The map of all paths [B, ...]."""
        return self.maps.sum(0) + self.rest

    def _heading(self) -> str:
        return f"Maps through {len(self.units)} units of {self.layer}"

    def _grid(self) -> Grid:
        rows = [("unit", "R of sample 0")]
        rows += [(str(unit), f"{float(own):+.4g}") for unit, own in zip(self.units, self.relevance[0], strict=True)]
        rows.append(("rest", f"{float(self.rest[0].sum()):+.4g}"))
        return Grid(tuple(rows), foot=("R > 0 raises the output through the unit, R < 0 holds it down",))

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._heading()})\n{self.table()}"

    def figure(self, ax: Any = None, *, sample: int = 0, image: Tensor | None = None) -> Figure:
        """The maps of one sample side by side, on one scale; needs matplotlib. ax: axes to draw into, as a picture.

        Raises:
            ImportError: matplotlib is missing.
            ValueError: no such sample, or maps that are no images.
        """
        from absence_plugins.report.plots.carriers import conditional_figure

        return conditional_figure(self, ax=ax, sample=sample, image=image)

    def to_dict(self) -> dict[str, Any]:
        """The numbers without the maps."""
        return {"layer": self.layer, "units": list(self.units), "relevance": self.relevance.tolist()}


@torch.inference_mode(False)
def conditional_maps(
    model: nn.Module,
    x: Tensor,
    reference: Any,
    units: Sequence[int],
    output: Selection = None,
    *,
    layer: str | Layer,
    rule: Any = "epsilon",
) -> ConditionalMaps:
    """The relevance of the input through one unit of a layer at a time, exactly additive.

    The multiplier of the layer, all but the unit's set to zero, is pulled back to the input; by conservation the map
    of unit h sums to R_h = m_h (h(x) - h(r)). Source: the idea is that of concept relevance propagation (Achtibat et
    al., Nature Machine Intelligence 2023), here between two inputs, so that inactive units have maps, too.

    Args:
        model: a module in evaluation mode; it is neither changed nor copied.
        x: one tensor [B, ...].
        reference: what it is compared with, one or several, as in ``relevance``.
        output: which output, as in :func:`~absence_plugins.relevance.relevance`.
        rule: as in :func:`~absence_plugins.relevance.relevance`.
        units: numbers of channels of the layer.
        layer: a name, or a :class:`~absence_plugins.Layer`.

    **Sign**: R > 0 raises the output through the unit.

    Raises:
        RelevanceError, ValueError, TypeError: as in ``relevance``; units that the layer has not.

    >>> net = nn.Sequential(nn.Linear(2, 2, bias=False), nn.ReLU(), nn.Linear(2, 1, bias=False))
    >>> net[0].weight.data, net[2].weight.data = torch.eye(2), torch.tensor([[1.0, -2.0]])
    >>> found = conditional_maps(net, torch.tensor([[1.0, 0.0]]), torch.tensor([[0.0, 5.0]]), [1], layer="1")
    >>> found.maps[0], found.rest
    (tensor([[ 0., 10.]]), tensor([[1., 0.]]))
    """
    if not isinstance(x, Tensor):
        raise TypeError(f"x must be one tensor [B, ...], got a {type(x).__name__}")
    numbers = check_distinct("units", units)
    points = Points.of(model, layer, x)
    (name,) = points.layers
    maps: list[Tensor] = []
    wholes: list[Tensor] = []
    with working_on(model):
        asked = ask(model, x, reference, output, rule=rule, layers=points.modules())
        for answer in map(asked.answer, asked.references):
            (whole,) = answer.pulled.inputs
            if whole is None:
                raise ValueError("the input gets no relevance; pass embedded inputs")
            multiplier, place = answer.pulled.layers[name].multiplier, asked.comparison.leaf_at(name)
            through = []
            for unit in numbers:
                (own,) = asked.comparison.pull(place, points.only(name, multiplier, unit)).inputs
                assert own is not None
                through.append(own.relevance)
            maps.append(torch.stack(through))
            wholes.append(whole.relevance)
    mean, total = torch.stack(maps).mean(0), torch.stack(wholes).mean(0)
    return ConditionalMaps(name, tuple(numbers), mean, total - mean.sum(0), mean.flatten(2).sum(2).T)
