"""What every recipe is told, and what it returns."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

from torch import Tensor

from absence_plugins.methods.directions.signals import Signal

Background = Literal["none", "virtual", "detectors"]
Head = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Options:
    """What a recipe is told; see :class:`~absence_plugins.methods.directions.DirectionPairs` for the meaning.

    ``starts`` 0: 24, or 4 per direction if that is more; ``steps`` 0: as published.
    """

    n_directions: int
    background: Background = "none"
    n_background: int = 1
    signal: Signal | None = None
    seed: int = 0
    starts: int = 0
    steps: int = 0
    batch_size: int = 250
    head_batch: int = 64
    step_range: tuple[float, float] = (0.5, 0.9)
    progress: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "starts", self.starts or max(24, 4 * self.n_directions))

    @property
    def detectors(self) -> int:
        """All that are trained, those for the background included."""
        return self.n_directions + (self.n_background if self.background == "detectors" else 0)


@dataclass(frozen=True, eq=False)
class Solution:
    """Detectors in whitened coordinates: y = sigmoid(slope (x @ v - t)); v [R, I], t and slope [I].

    ``history``: the mean of every loss over the last tenth of each step's iterations, of the chosen start.
    ``signals`` [R, I]: joint encoding directions, if they are not to be the dual basis of v. ``notes``: see ``notes_``.
    ``stability`` [I]: see :class:`~absence_plugins.methods.directions.DirectionReport`.
    ``resolved`` [I]: whether the positions suffice to tell the direction; None where that was not asked.
    ``open_sign`` [I]: whether the direction may as well be the absence of a concept; None where that was not asked.
    """

    v: Tensor
    t: Tensor
    slope: Tensor
    history: dict[str, float] = field(default_factory=dict)
    signals: Tensor | None = None
    notes: tuple[str, ...] = ()
    resolved: Tensor | None = None
    stability: Tensor | None = None
    open_sign: Tensor | None = None
