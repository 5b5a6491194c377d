"""Which directions of two sets are the same: their cosines, matched one to one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor
from torch.nn import functional as F

from absence_plugins.core.checks import check_choice
from absence_plugins.core.results import Result
from absence_plugins.core.table import Grid
from absence_plugins.methods.directions.given import check_directions
from absence_plugins.methods.directions.pairs import DirectionPairs

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Of = Literal["encoding", "decoding"]


@dataclass(frozen=True, eq=False)
class DirectionMatch(Result):
    """Cosines of two sets of directions; see :func:`match_directions`.

    Attributes:
        cosine: [I, J]. The sign: 1: the same; -1: opposite, one rises where the other falls; 0: nothing in common.
        matched: (i, j) one to one, by the largest sum of absolute cosines, the most alike first; min(I, J) of them.
        of: what was compared, ``"encoding"`` or ``"decoding"`` directions.
    """

    cosine: Tensor
    matched: tuple[tuple[int, int], ...]
    of: Of

    @property
    def cosines(self) -> tuple[float, ...]:
        """Of the matched, signed."""
        return tuple(float(self.cosine[i, j]) for i, j in self.matched)

    def __repr__(self) -> str:
        first, second = self.cosine.shape
        middle = float(torch.tensor(self.cosines).abs().median())
        opposite = sum(one < 0 for one in self.cosines)
        return (
            f"DirectionMatch({first} and {second} {self.of} directions, median |cosine| {middle:.2f} of "
            f"{len(self.matched)} matched, {opposite} of them opposite)"
        )

    def _heading(self) -> str:
        return repr(self)

    def _grid(self) -> Grid:
        rows = [
            (str(i), str(j), f"{value:+.3f}", "opposite" if value < 0 else "")
            for (i, j), value in zip(self.matched, self.cosines, strict=True)
        ]
        rest = (
            f"{size - len(self.matched)} of the {which} have no partner"
            for which, size in zip(("first", "second"), self.cosine.shape, strict=True)
            if size > len(self.matched)
        )
        return Grid((("first", "second", "cosine", "sign"), *rows), left=(), foot=tuple(rest))

    def figure(self, ax: Any = None) -> Figure:
        """The matched directions' cosines as bars; needs matplotlib. ax: axes to draw into. Blue: opposite."""
        from absence_plugins.report.plots.palette import DOWN, UP
        from absence_plugins.report.plots.placing import draw_bars

        names = [f"{i} and {j}" for i, j in self.matched]
        colors = [UP if value > 0 else DOWN for value in self.cosines]
        return draw_bars(ax, names, self.cosines, f"cosine of {self.of} directions; blue: opposite", colors=colors)

    def to_dict(self) -> dict[str, Any]:
        """Plain lists, numbers and strings, ready for JSON."""
        matched = [{"first": i, "second": j, "cosine": float(self.cosine[i, j])} for i, j in self.matched]
        return {"of": self.of, "matched": matched, "cosine": self.cosine.tolist()}


def match_directions(
    first: DirectionPairs | Tensor, second: DirectionPairs | Tensor, *, of: Of = "encoding"
) -> DirectionMatch:
    """Compare two sets of directions of one layer: fitted pairs, given ones, or rows of a tensor.

    Args:
        first: pairs, or a tensor [I, D], a row for each.
        second: pairs, or a tensor [J, D].
        of: of pairs the ``"encoding"`` directions, which say what the concept does to the features, or the
            ``"decoding"`` ones, which also depend on what they have to ignore.

    Returns:
        A :class:`DirectionMatch`. The sign: below 0 the two point opposite ways.

    Raises:
        ValueError, TypeError: other numbers of dimensions, NaN, rows of zeros, pairs that are not fitted.

    Example:
        >>> found = match_directions(torch.eye(3), torch.tensor([[0.0, -2.0, 0.0], [3.0, 0.0, 0.0]]))
        >>> found.matched, found.cosines
        (((0, 1), (1, 0)), (1.0, -1.0))
        >>> print(found.table())
        first  second  cosine      sign
            0       1  +1.000
            1       0  -1.000  opposite
        1 of the first have no partner
    """
    check_choice("of", of, ("encoding", "decoding"))
    rows: list[Tensor] = []
    for name, one in (("first", first), ("second", second)):
        if isinstance(one, DirectionPairs):
            one._check_fitted()
            one = getattr(one, of).T
        known = rows[0].shape[1] if rows else one.shape[-1] if isinstance(one, Tensor) and one.dim() else 0
        rows.append(check_directions(one, known, name).cpu())
    cosine = F.normalize(rows[0], dim=1) @ F.normalize(rows[1], dim=1).T
    chosen = zip(*(index.tolist() for index in linear_sum_assignment(-cosine.abs().numpy())), strict=True)
    matched = sorted(chosen, key=lambda pair: -abs(float(cosine[pair])))
    return DirectionMatch(cosine, tuple((int(i), int(j)) for i, j in matched), of)
