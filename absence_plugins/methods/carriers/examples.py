"""Example images of a unit, chosen by what it does for a decision, not by how active it is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from tqdm.auto import tqdm  # type: ignore[import-untyped,unused-ignore]

from absence_plugins.core.checks import check_integers
from absence_plugins.core.results import Result
from absence_plugins.core.table import Grid
from absence_plugins.core.units import Unit
from absence_plugins.methods.carriers.find import find_carriers
from absence_plugins.relevance.selection import Selection

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True, eq=False, repr=False)
class UnitExamples(Result):
    """The samples for whose decision a unit does most, and least. N samples.

    **Sign**: a high relevance raises the output on the sample compared with its references, by the unit.

    Attributes:
        unit: which one.
        relevance: of the unit on every sample [N].
        values: its activation on every sample [N], the mean over positions.
        highest, lowest: numbers of samples, the most extreme first.
    """

    unit: Unit
    relevance: Tensor
    values: Tensor
    highest: tuple[int, ...]
    lowest: tuple[int, ...]

    def _heading(self) -> str:
        return f"Examples of {self.unit.describe()} by relevance, of {len(self.relevance)} samples"

    def _grid(self) -> Grid:
        rows = [("", "sample", "R", "activation")]
        for side, numbers in (("highest", self.highest), ("lowest", self.lowest)):
            for number in numbers:
                relevance, value = float(self.relevance[number]), float(self.values[number])
                rows.append((side, str(number), f"{relevance:+.4g}", f"{value:.4g}"))
        return Grid(tuple(rows), foot=("R > 0 raises the output, R < 0 holds it down",))

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._heading()})\n{self.table()}"

    def figure(self, ax: Any = None) -> Figure:
        """The unit's relevance on the highest and the lowest samples as bars; needs matplotlib. ax: axes to draw into."""
        from absence_plugins.report.plots.carriers import examples_figure

        return examples_figure(self, ax=ax)

    def to_dict(self) -> dict[str, Any]:
        """Plain lists, ready for JSON."""
        return {
            "unit": self.unit.to_dict(),
            "relevance": self.relevance.tolist(),
            "values": self.values.tolist(),
            "highest": list(self.highest),
            "lowest": list(self.lowest),
        }


def relevant_examples(
    model: nn.Module,
    x: Tensor,
    references: Callable[[Tensor], Tensor] | Tensor,
    unit: Unit,
    output: Selection = None,
    *,
    count: int = 8,
    batch_size: int = 16,
    rule: Any = "epsilon",
    progress: bool = True,
) -> UnitExamples:
    """The samples on which a unit has the highest and the lowest relevance for what the model puts out.

    A unit that is silent on a sample can be what decides there; by activation such samples are never found.

    Args:
        model: a module in evaluation mode; it is neither changed nor copied.
        x: samples [N, ...].
        references: from samples [B, ...] to their references [R, B, ...], as
            ``lambda x: pool.nearest(x).movedim(1, 0)`` of a ReferenceSet; or references [R, ...], the
            same for all samples, or [R, N, ...].
        unit: of which layer; its positions are summed.
        output: a class index or None, as in ``relevance``; a list or tensor of one index per sample [N].
        count: samples on each side.
        batch_size: samples per forward.
        rule: as in ``relevance``.
        progress: whether to show a bar.

    Raises:
        ValueError: no samples, numbers below 1; as in :func:`find_carriers`.

    >>> net = nn.Sequential(nn.Linear(1, 2, bias=False), nn.ReLU(), nn.Linear(2, 1, bias=False))
    >>> net[0].weight.data, net[2].weight.data = torch.tensor([[1.0], [-1.0]]), torch.tensor([[1.0, -1.0]])
    >>> x = torch.tensor([[2.0], [-3.0], [0.5]])
    >>> relevant_examples(net, x, torch.tensor([[-1.0]]), Unit("1", 1), count=1, progress=False).highest
    (0,)
    """
    check_integers(count=count, batch_size=batch_size)
    if len(x) == 0:
        raise ValueError("there are no samples")
    relevance, values = [], []
    for start in tqdm(range(0, len(x), batch_size), desc="relevance", disable=not progress):
        batch = x[start : start + batch_size]
        asked = output
        if isinstance(output, (list, Tensor)) and len(output) == len(x):
            asked = output[start : start + batch_size]
        if callable(references):
            others = references(batch)
        else:
            is_own = references.dim() == x.dim() + 1 and references.shape[1] == len(x)
            others = references[:, start : start + batch_size] if is_own else references
        own = find_carriers(model, batch, others, asked, layers=unit.at, rule=rule).layers[unit.layer]
        if unit.index >= own.relevance.shape[1]:
            raise ValueError(f"layer {unit.layer!r} has {own.relevance.shape[1]} units, and no {unit.index}")
        relevance.append(own.relevance[:, unit.index].cpu())
        values.append(own.values[:, unit.index].cpu())
    found = torch.cat(relevance)
    order = found.argsort(descending=True, stable=True).tolist()
    least = found.argsort(stable=True).tolist()
    return UnitExamples(unit, found, torch.cat(values), tuple(order[:count]), tuple(least[:count]))
