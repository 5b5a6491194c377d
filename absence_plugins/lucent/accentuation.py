"""What :func:`~absence_plugins.lucent.accentuate` returns."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from torch import Tensor

from absence_plugins.core.results import Result, load_registered
from absence_plugins.core.table import Grid

if TYPE_CHECKING:
    from matplotlib.figure import Figure


VISIBLE = 0.01  # root mean square of a change that a person notices, about


@dataclass(frozen=True, eq=False, repr=False)
class Accentuation(Result):
    """A photograph, changed as little as was found until a unit has another value.

    **Sign**: ``lowered`` says which way the unit was driven; what the picture shows more of than the photograph is then
    what suppresses the unit, and what it shows less of is what the unit needs.

    Attributes:
        description: of the unit.
        photograph, picture: [C, H, W] in [0, 1].
        before, after: the unit's value on both, in the units of the pre-activation.
        goal: the value that was asked for; None: as far as the steps led.
        lowered: whether the unit was driven down.
        distance: root mean square of picture minus photograph, of pixels in [0, 1].
        feature_distance: norm of the change of the first layer's output, relative to that of the output.
        data: lowest and highest value in real data; None without.
        below: share of the data whose value lies below ``after``; None without.

    >>> import torch
    >>> black, white = torch.zeros(1, 2, 2), torch.ones(1, 2, 2)
    >>> Accentuation("unit 3 of conv", black, white, 2.0, -1.0, -1.0, True, 1.0, 0.4, (0.0, 3.0), 0.0)
    Accentuation(unit 3 of conv driven down from 2 to -1 by a change of 1.000 (root mean square, pixels in [0, 1]): below every real image (0 to 3))
    """

    description: str
    photograph: Tensor
    picture: Tensor
    before: float
    after: float
    goal: float | None
    lowered: bool
    distance: float
    feature_distance: float
    data: tuple[float, float] | None
    below: float | None

    @property
    def is_reached(self) -> bool:
        """Whether the goal was reached."""
        if self.goal is None:
            return True
        return self.after <= self.goal if self.lowered else self.after >= self.goal

    def words(self) -> str:
        """What was reached, in a sentence."""
        way = "down" if self.lowered else "up"
        said = f"{self.description} driven {way} from {self.before:.3g} to {self.after:.3g}"
        if not self.is_reached:
            said += f" (the goal {self.goal:.3g} was not reached)"
        said += f" by a change of {self.distance:.3f} (root mean square, pixels in [0, 1])"
        if self.distance < VISIBLE:
            said += ", too small to be seen"
        if self.data is None or self.below is None:
            return said
        if self.after < self.data[0]:
            return f"{said}: below every real image ({self.data[0]:.3g} to {self.data[1]:.3g})"
        if self.after > self.data[1]:
            return f"{said}: above every real image ({self.data[0]:.3g} to {self.data[1]:.3g})"
        return f"{said}: above {self.below:.0%} of the real images ({self.data[0]:.3g} to {self.data[1]:.3g})"

    def __repr__(self) -> str:
        return f"Accentuation({self.words()})"

    def _heading(self) -> str:
        return f"Accentuation of {self.description}"

    def _grid(self) -> Grid:
        data = "-" if self.data is None else f"{self.data[0]:.4g} to {self.data[1]:.4g}"
        goal = "-" if self.goal is None else f"{self.goal:.4g}"
        rows = [
            ("unit", self.description),
            ("driven", "down" if self.lowered else "up"),
            ("photograph", f"{self.before:.4g}"),
            ("picture", f"{self.after:.4g}"),
            ("goal", goal),
            ("real images", data),
            ("change of the pixels", f"{self.distance:.4f}"),
            ("change of the first layer", f"{self.feature_distance:.1%}"),
        ]
        return Grid((("", "value"), *rows), left=(0,))

    def figure(self, ax: Any = None, *, patches: Any = None) -> Figure:
        """Photograph, picture and what changed, with the values; needs matplotlib.

        ax: axes to draw into, as a picture; patches: real images [N, C, H, W] to stand beside them, such as the unit's
        lowest patches.

        Raises:
            ImportError: matplotlib is missing.
            ValueError: patches of another form.
        """
        drawn: Figure = load_registered("accentuation.figure")(self, ax=ax, patches=patches)
        return drawn

    def to_dict(self) -> dict[str, Any]:
        """The numbers, without the pictures."""
        return {name: value for name, value in vars(self).items() if not isinstance(value, Tensor)}
