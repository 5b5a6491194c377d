"""What :func:`~absence_plugins.methods.carriers.find_carriers` returns."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from absence_plugins.core.checks import check_integer
from absence_plugins.core.results import Result
from absence_plugins.core.table import Grid

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SHOWN = 5  # carriers of a layer that a table shows
ROUNDING = 1e-5  # of the difference; a smaller rest is none
SILENT = 1e-6  # of the reference's value: a smaller value on x counts as silent


@dataclass(frozen=True)
class Carrier:
    """One unit's part in a decision.

    Attributes:
        layer, unit: which one; the unit of features is that of a sparse autoencoder.
        relevance: its part of u(x) - u(r), summed over positions, averaged over the references.
        value, reference_value: its activation on x and on the references, the mean over positions.
    """

    layer: str
    unit: int
    relevance: float
    value: float
    reference_value: float

    @property
    def is_silent(self) -> bool:
        """Whether it is inactive on x and active on the references: what it carries is an absence."""
        return abs(self.value) <= SILENT * abs(self.reference_value)

    def words(self) -> str:
        """The unit's part in a sentence.

        >>> Carrier("conv3", 7, 2.14, 0.0, 5.0).words()
        'unit 7 of conv3 is silent here and 5 on the references: that raises the output by 2.14'
        """
        here = "silent here" if self.is_silent else f"{self.value:.3g} here"
        does = "raises the output by" if self.relevance >= 0 else "holds the output down by"
        there = f"{self.reference_value:.3g} on the references"
        return f"unit {self.unit} of {self.layer} is {here} and {there}: that {does} {abs(self.relevance):.3g}"


@dataclass(frozen=True, eq=False)
class LayerCarriers:
    """The units of one layer. B samples, U units.

    Attributes:
        relevance: of every unit [B, U], summed over positions, averaged over the references.
        values, reference_values: activations on x and on the references [B, U], the mean over positions.
        rest: of u(x) - u(r) what passes around the layer, or is no feature's [B].
    """

    relevance: Tensor
    values: Tensor
    reference_values: Tensor
    rest: Tensor


@dataclass(frozen=True, eq=False, repr=False)
class Carriers(Result):
    """How u(x) - u(r) is divided among the units of layers, inactive ones included.

    **Sign**: R > 0 raises the explained output on x compared with the references. A unit that is silent on x and active
    on the references has no relevance for any method that looks at active units; here R = m (0 - h(r)).

    Attributes:
        layers: by name.
        output: u(x) [B].
        reference_output: u(r) [R, B].
    """

    layers: dict[str, LayerCarriers]
    output: Tensor
    reference_output: Tensor

    @property
    def difference(self) -> Tensor:
        """u(x) - u(r), averaged over the references [B]."""
        return self.output - self.reference_output.mean(0)

    def strongest(self, layer: str | None = None, count: int = SHOWN, *, sample: int = 0) -> list[Carrier]:
        """The units of the largest magnitude of relevance, strongest first.

        Raises:
            ValueError: no such layer or sample; several layers, and none is named.
        """
        check_integer("count", count)
        found = self._layer(layer)
        if not 0 <= sample < len(self.output):
            raise ValueError(f"sample={sample} does not exist; there are {len(self.output)}, from 0")
        own = found[1].relevance[sample]
        order = own.abs().argsort(descending=True, stable=True)[:count]
        return [self._carrier(found[0], sample, unit) for unit in order.tolist()]

    def silent(self, layer: str | None = None, count: int = SHOWN, *, sample: int = 0) -> list[Carrier]:
        """Of the units that are inactive on x and active on the references those of the largest magnitude."""
        name, own = self._layer(layer)
        units = [one for one in self.strongest(name, own.relevance.shape[1], sample=sample) if one.is_silent]
        return [one for one in units if one.relevance != 0][: check_integer("count", count)]

    def _layer(self, layer: str | None) -> tuple[str, LayerCarriers]:
        if layer is None and len(self.layers) == 1:
            layer = next(iter(self.layers))
        if layer not in self.layers:
            raise ValueError(f"layer={layer!r} must be one of {', '.join(self.layers)}")
        return layer, self.layers[layer]

    def _carrier(self, layer: str, sample: int, unit: int) -> Carrier:
        own = self.layers[layer]
        parts = (part[sample, unit] for part in (own.relevance, own.values, own.reference_values))
        return Carrier(layer, unit, *map(float, parts))

    def _heading(self) -> str:
        samples = len(self.output)
        return f"Carriers of u(x) - u(r) of {samples} sample{'s' * (samples != 1)} in {', '.join(self.layers)}"

    def _grid(self) -> Grid:
        rows = [("layer", "unit", "R", "here", "on the references", "")]
        for name in self.layers:
            for one in self.strongest(name):
                numbers = (f"{one.relevance:+.4g}", f"{one.value:.4g}", f"{one.reference_value:.4g}")
                rows.append((name, str(one.unit), *numbers, "silent here" if one.is_silent else ""))
        total = float(self.difference[0])
        around = [
            f", {float(own.rest[0]):+.3g} of it around {name}"
            for name, own in self.layers.items()
            if abs(float(own.rest[0])) > ROUNDING * abs(total)
        ]
        more = f"sample 0 of {len(self.output)}; " if len(self.output) > 1 else ""
        foot = (f"{more}u(x) - u(r) = {total:+.4g}{''.join(around)}", "R > 0 raises the output, R < 0 holds it down")
        return Grid(tuple(rows), left=(0, 5), foot=foot)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._heading()})\n{self.table()}"

    def figure(self, ax: Any = None, *, layer: str | None = None, sample: int = 0, count: int = 12) -> Figure:
        """The strongest units of a layer (default: the last) as bars; needs matplotlib.

        Raises:
            ImportError: matplotlib is missing.
            ValueError: no such layer or sample.
        """
        name = list(self.layers)[-1] if layer is None else layer
        from absence_plugins.report.plots.carriers import carriers_figure

        return carriers_figure(self, ax=ax, layer=name, sample=sample, count=count)

    def to_dict(self) -> dict[str, Any]:
        """Plain lists, ready for JSON."""
        return {
            "output": self.output.tolist(),
            "reference_output": self.reference_output.tolist(),
            "layers": {
                name: {field: value.tolist() for field, value in vars(own).items()} for name, own in self.layers.items()
            },
        }


def stack_mean(parts: list[Tensor]) -> Tensor:
    """The mean over references."""
    return torch.stack(parts).mean(0)
