"""What rendering returns: pictures, and how far they drove what was asked for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from absence_plugins.core.results import Result, load_registered
from absence_plugins.core.table import Grid

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MOST = 6  # pictures of a figure


@dataclass(frozen=True)
class Reached:
    """What one part of the objective has come to, on the rendered images as they are (no jitter, no rotation).

    Attributes:
        description: of the objective, such as ``Absence_Channel [conv1, 3]``.
        layer: the layer whose pre-activation was driven.
        lowered: whether rendering drove the value down (else up).
        values: [thresholds][images], in the units of the pre-activation.
        below: the share of the data whose value lies below, of the same form; None without a data range.
        data: lowest and highest value in the data; None without a data range.
    """

    description: str
    layer: str
    lowered: bool
    values: tuple[tuple[float, ...], ...]
    below: tuple[tuple[float, ...], ...] | None
    data: tuple[float, float] | None

    def to_dict(self) -> dict[str, Any]:
        """Plain lists and numbers."""
        return {**vars(self), "values": [list(row) for row in self.values]}


class Rendering(Result, list[np.ndarray]):
    """What :func:`~absence_plugins.lucent.render_vis` returns: Lucent's list of arrays [B, H, W, C] in [0, 1], one per
    threshold, and what was reached.

    Attributes:
        reached: one :class:`Reached` per part of the objective.
    """

    def __init__(self, images: Sequence[np.ndarray], reached: tuple[Reached, ...]) -> None:
        super().__init__(images)
        self.reached = reached

    def __repr__(self) -> str:
        shape = "x".join(map(str, self[-1].shape)) if self else "none"
        ends = "; ".join(f"{one.description} {_way(one)} to {_last(one)}" for one in self.reached)
        return f"Rendering({len(self)} thresholds, pictures {shape}; {ends or 'no absence objective'})"

    def _heading(self) -> str:
        return "Rendering"

    def _grid(self) -> Grid:
        rows = [("objective", "layer", "driven", "reached", "in the data")]
        for one in self.reached:
            data = "-" if one.data is None else f"{one.data[0]:.3g} to {one.data[1]:.3g}"
            rows.append((one.description, one.layer, _way(one), _last(one), data))
        foot = "reached: the value before the nonlinearity, of every picture of the last threshold"
        return Grid(tuple(rows), left=(0, 1, 2), foot=(foot,))

    def figure(self, ax: Any = None) -> Figure:
        """The pictures of the last threshold with the values reached; needs matplotlib. ax: axes to draw into.

        Raises:
            ImportError: matplotlib is missing.
            ValueError: there are no pictures.
        """
        if not self:
            raise ValueError("there are no pictures")
        titles = [f"picture {number}" for number in range(len(self[-1]))]
        captions = [
            "; ".join(f"{one.description} {one.values[-1][number]:.3g}" for one in self.reached if _has(one, number))
            for number in range(len(self[-1]))
        ]
        drawn: Figure = load_registered("rendering.figure")(self[-1][:MOST], titles, captions, ax)
        return drawn

    def to_dict(self) -> dict[str, Any]:
        """What was reached, without the pictures, ready for JSON."""
        shapes = [list(images.shape) for images in self]
        return {"reached": [one.to_dict() for one in self.reached], "shapes": shapes}


def _way(one: Reached) -> str:
    return "down" if one.lowered else "up"


def _last(one: Reached) -> str:
    return ", ".join(f"{value:.3g}" for value in one.values[-1]) if one.values else "-"


def _has(one: Reached, number: int) -> bool:
    return bool(one.values) and number < len(one.values[-1])
