"""One column of a table: its name, its values in their own unit, and the entries it takes in a network's input."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch  # noqa: F401  (examples)
from torch import Tensor


@dataclass(frozen=True)
class Column:
    """One column of a table, as a person knows it, and how the network's entries are made of it.

    Attributes:
        name: as people call it.
        categories: of a categorical column its values, in the order of the entries or codes; () of a number.
        one_hot: a categorical column takes one entry per category; else it is one entry, the category's code.
        mean, std: a number is ``entry * std + mean`` in its own unit.
        unit: of the number, "" where it has none.
    """

    name: str
    categories: tuple[str, ...] = ()
    one_hot: bool = True
    mean: float = 0.0
    std: float = 1.0
    unit: str = ""

    def __post_init__(self) -> None:
        if not (math.isfinite(self.mean) and math.isfinite(self.std) and self.std != 0):
            raise ValueError(
                f"column {self.name!r} has mean {self.mean} and std {self.std}; a number is entry * std + mean, so std must not "
                "be 0 (of a constant column pass 1, as scikit-learn's scalers do)"
            )

    @property
    def entries(self) -> int:
        """How many entries of the network's input the column takes."""
        return len(self.categories) if self.categories and self.one_hot else 1

    def says(self, entries: Tensor) -> str:
        """The column's value in its own unit, of its entries [E].

        >>> Column("age", mean=40.0, std=10.0, unit="years").says(torch.tensor([-1.0]))
        '30 years'
        >>> Column("color", ("red", "blue")).says(torch.tensor([0.0, 1.0]))
        'blue'
        """
        values = entries.detach().double().flatten()
        if not self.categories:
            return self._say_number(float(values[0]) * self.std + self.mean) + (f" {self.unit}" if self.unit else "")
        if not self.one_hot:
            code = float(values[0])
            known = code == int(code) and 0 <= code < len(self.categories)
            return self.categories[int(code)] if known else f"code {code:.4g}"
        is_one_hot = bool(((values == 0) | (values == 1)).all()) and float(values.sum()) == 1
        if is_one_hot:
            return self.categories[int(values.argmax())]
        return "none" if not bool(values.any()) else f"mixed ({', '.join(f'{value:.3g}' for value in values.tolist())})"

    def _say_number(self, value: float) -> str:
        if self.mean and abs(value) < 1e-6 * abs(self.std):  # what rounding leaves of 0
            return "0"
        return f"{value:,.0f}" if 1e4 <= abs(value) < 1e9 else f"{value:.4g}"
