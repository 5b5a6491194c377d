"""A claim of a map as a series of changed inputs: which pixels may change, into what, and what the unit says to it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from absence_plugins.core.maps import absence_part
from absence_plugins.methods.faithfulness.cells import Cells

Value = Callable[[Tensor, Tensor], Tensor]  # images [M, ...] and the samples they come from [M] -> u [M]
SCALES = (1, 2)  # radii of the windows that are changed at once to find good orders; 0, the cell alone, always is


@dataclass(frozen=True, eq=False)
class Claim:
    """N inputs, what their cells are replaced by, and the direction in which the unit must move.

    Attributes:
        x: [N, ...].
        changed: [N, ...], what replaces it.
        content: as x, bool: the entries the claim is about.
        cells: the grid.
        value: u of changed inputs.
        samples: [N], the sample each row belongs to (several references make several rows of one sample).
        sign: +1 where u must rise, -1 where it must fall.
        batch_size: inputs per forward.
    """

    x: Tensor
    changed: Tensor
    content: Tensor
    cells: Cells
    value: Value
    samples: Tensor
    sign: int
    batch_size: int

    @cached_property
    def allowed(self) -> Tensor:
        """The pixels with such entries [N, 1, H, W] (features: [N, F]) bool; a pixel changes in all its channels."""
        return self.content if self.x.dim() == 2 else self.content.any(1, keepdim=True)

    @cached_property
    def universe(self) -> Tensor:
        """The cells with at least one such pixel [N, cells] bool."""
        return self.cells.total(self.allowed.to(self.x.dtype)) > 0

    def gains(self, rows: Tensor, masks: Callable[[slice], Tensor]) -> Tensor:
        """How far the unit moves the claimed way, for changed inputs of ``rows`` [M]: [M] float64.

        masks: of a slice of M, which cells are changed [m, cells].
        """
        start = self.start
        found = []
        for part in _slices(len(rows), self.batch_size):
            row = rows[part]
            pixels = self.cells.pixels(masks(part)) & self.allowed[row]
            images = torch.where(pixels, self.changed[row], self.x[row])
            values = self.value(images, self.samples[row]).double()
            found.append(self.sign * (values - start[row]))
        return torch.cat(found) if found else start.new_zeros(0)

    @cached_property
    def start(self) -> Tensor:
        """u(x) [N] float64."""
        parts = [self.value(self.x[part], self.samples[part]) for part in _slices(len(self.x), self.batch_size)]
        return torch.cat(parts).double()

    def scores(self, signed: Tensor, name: str = "attribution") -> Tensor:
        """A signed map as scores of cells [N, cells]: the highest is what moves the unit the claimed way most, if the map is right.

        signed: as x, with channels summed ([N, 1, H, W], [N, H, W]), or one map per sample and reference [samples, k, ...].

        Raises:
            ValueError: another shape.
        """
        samples, shape = int(self.samples.max()) + 1, tuple(self.x.shape[1:])
        form = tuple(signed.shape[1:])
        if len(signed) == samples and len(form) == len(shape) + 1:
            signed = signed.flatten(0, 1)  # one map per reference
        elif len(signed) == samples:
            signed = signed[self.samples]
        if len(shape) == 3 and signed.dim() == 3:
            signed = signed[:, None]
        if len(signed) != len(self.x) or tuple(signed.shape[1:]) not in {shape, (1, *shape[1:])[: len(shape)]}:
            raise ValueError(
                f"{name} has shape ({samples}, {', '.join(map(str, form))}), the inputs ({samples}, {', '.join(map(str, shape))}); "
                "pass one value per pixel (channels may be summed)"
            )
        part = self.content if signed.shape == self.x.shape else self.allowed
        return -self.sign * self.cells.total(signed.to(self.x) * part)

    def curve(self, ranks: Tensor, steps: int) -> Tensor:
        """The gain after 0, 1/steps, ..., all of a row's cells were changed in order of ``ranks`` [N, cells]: [N, steps + 1].

        Rank 0 goes first; cells outside the universe rank last and never change.
        """
        count = self.universe.sum(1)
        many = torch.arange(1, steps + 1, device=ranks.device)
        upto = torch.div(many * count[:, None] + steps - 1, steps, rounding_mode="floor")  # [N, steps], rounded up
        rows = torch.arange(len(self.x), device=ranks.device).repeat_interleave(steps)
        limits = upto.flatten()
        gains = self.gains(rows, lambda part: ranks[rows[part]] < limits[part, None])
        return torch.cat([gains.new_zeros(len(self.x), 1), gains.reshape(-1, steps)], 1)

    def measured(self) -> Iterator[Tensor]:
        """Effects of cells measured on the network [N, cells], as candidates for the best order.

        Of a cell changed alone, of a cell alone left unchanged, the mean of both, and of windows of 3 and 5 cells (a unit may
        need much of a shape gone before it moves at all).
        """
        universe = self.universe
        rows, cells = universe.nonzero(as_tuple=True)
        full = self.gains(torch.arange(len(self.x), device=rows.device), lambda part: universe[part])

        def table(gains: Tensor) -> Tensor:
            effects = gains.new_zeros(universe.shape)
            effects[rows, cells] = gains
            return effects

        def window(radius: int) -> Callable[[slice], Tensor]:
            return lambda part: self.cells.windows(cells[part], radius)

        alone = table(self.gains(rows, window(0)))
        left = self.gains(rows, lambda part: universe[rows[part]] & ~self.cells.windows(cells[part], 0))
        last = table(full[rows] - left)
        yield alone
        yield last
        yield alone + last
        if len(self.cells.shape) == 1:
            return
        for radius in SCALES:
            effects = table(self.gains(rows, window(radius)))
            yield self.cells.around(effects, radius) / self.cells.around(universe.double(), radius).clamp(min=1e-9)


def _slices(length: int, size: int) -> Iterator[slice]:
    for start in range(0, length, size):
        yield slice(start, min(start + size, length))


def deletion(x: Tensor, blank: Tensor, cells: Cells, value: Value, batch_size: int) -> Claim:
    """The claim of the non-target view: what a map calls suppressing, replaced by blank, lets u rise."""
    changed = blank.expand_as(x)
    return Claim(x, changed, x != changed, cells, value, torch.arange(len(x), device=x.device), 1, batch_size)


def insertion(x: Tensor, references: Tensor, blank: Tensor, cells: Cells, value: Value, batch_size: int) -> Claim:
    """The claim of the reference view: what x lacks, copied in from its reference, lets u fall. References [N, k, ...]."""
    many = references.shape[1]
    rows, changed = x.repeat_interleave(many, 0), references.flatten(0, 1)
    samples = torch.arange(len(x), device=x.device).repeat_interleave(many)
    return Claim(rows, changed, absence_part(rows, changed, blank), cells, value, samples, -1, batch_size)


def ranks(score: Tensor, universe: Tensor, keys: Tensor) -> Tensor:
    """The place of every cell when the highest score goes first [N, cells]; ties by ``keys``, cells outside last.

    >>> ranks(torch.tensor([[1.0, 3.0, 2.0]]), torch.tensor([[True, True, False]]), torch.zeros(1, 3))
    tensor([[1, 0, 2]])
    """
    score = score.double().masked_fill(~universe, -torch.inf)
    mixed = keys.argsort(dim=1)
    order = mixed.gather(1, score.gather(1, mixed).argsort(dim=1, descending=True, stable=True))
    return torch.empty_like(order).scatter_(
        1, order, torch.arange(order.shape[1], device=order.device).expand_as(order)
    )


def has_ties(score: Tensor, universe: Tensor) -> bool:
    """Whether two cells of a row's universe have the very same score."""
    values, order = score.double().masked_fill(~universe, torch.inf).sort(dim=1)
    return bool(((values.diff() == 0) & torch.isfinite(values[:, 1:]) & universe.gather(1, order)[:, 1:]).any())


def area(curve: Tensor) -> Tensor:
    """The mean gain along a curve [N, steps + 1] (trapezoids) -> [N].

    >>> area(torch.tensor([[0.0, 1.0, 1.0]])).tolist()
    [0.75]
    """
    return ((curve[:, 1:] + curve[:, :-1]) / 2).mean(1)
