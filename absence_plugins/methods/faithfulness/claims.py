"""A claim of a map as a series of changed inputs: which pixels may change, into what, and what the unit says to it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from absence_plugins.core.kinds import TextKind
from absence_plugins.core.maps import absence_part
from absence_plugins.methods.faithfulness.cells import Cells

Value = Callable[[Tensor, Tensor], Tensor]  # images [M, ...] and the samples they come from [M] -> u [M]
SCALES = (1, 2)  # radii of the windows that are changed at once to find good orders; 0, the cell alone, always is
ROUNDING = 32  # times the spacing of floating point numbers: so near to blank is blank


@dataclass(frozen=True, eq=False)
class Claim:
    """N inputs, what their cells are replaced by, and the direction in which the unit must move.

    Inputs stay on their device; scores, orders and gains are kept on the CPU, in float64.

    Attributes:
        x: [N, ...].
        changed: [N, ...], what replaces it.
        content: as x, bool: the entries the claim is about.
        cells: the grid.
        value: u of changed inputs.
        samples: [N], the sample each row belongs to (several references make several rows of one sample).
        sign: +1 where u must rise, -1 where it must fall.
        batch_size: inputs per forward.
        tick: called with the number of inputs after every forward.
    """

    x: Tensor
    changed: Tensor
    content: Tensor
    cells: Cells
    value: Value
    samples: Tensor
    sign: int
    batch_size: int
    tick: Callable[[int], object] = lambda count: None

    @cached_property
    def allowed(self) -> Tensor:
        """The pixels with such entries [N, 1, H, W] (features: [N, F]) bool; a pixel changes in all its channels."""
        return self.cells.find_allowed(self.content)

    @cached_property
    def universe(self) -> Tensor:
        """The cells with at least one such pixel [N, cells] bool."""
        return self.cells.total(self.allowed.cpu().double()) > 0

    @cached_property
    def start(self) -> Tensor:
        """u(x) [N]."""
        return self._values(self.x)

    @cached_property
    def end(self) -> Tensor:
        """u of the references, or of blank [N]."""
        return self._values(self.changed)

    def _values(self, images: Tensor) -> Tensor:
        return torch.cat(
            [self._ask(images[part], self.samples[part]) for part in _slices(len(images), self.batch_size)]
        )

    def _ask(self, images: Tensor, samples: Tensor) -> Tensor:
        values = self.value(images, samples.to(images.device)).detach().cpu().double()
        if values.shape != (len(images),):
            raise ValueError(
                f"the unit has values of shape {tuple(values.shape)} for {len(images)} inputs; there must be one each"
            )
        bad = ~torch.isfinite(values)
        if bool(bad.any()):
            raise ValueError(
                f"the unit of sample {int(samples[bad][0])} is NaN or infinite; check the input and `empty`"
            )
        self.tick(len(images))
        return values

    def gains(self, rows: Tensor, masks: Callable[[slice], Tensor]) -> Tensor:
        """How far the unit moves the claimed way, for changed inputs of ``rows`` [M]: [M].

        masks: of a slice of M, which cells are changed [m, cells].
        """
        start, found = self.start, []
        for part in _slices(len(rows), self.batch_size):
            row = rows[part]
            own = row.to(self.x.device)
            pixels = self.cells.pixels(masks(part).to(self.x.device)) & self.allowed[own]
            images = torch.where(pixels, self.changed[own], self.x[own])
            found.append(self.sign * (self._ask(images, self.samples[row]) - start[row]))
        return torch.cat(found) if found else start.new_zeros(0)

    def scores(self, signed: Tensor, name: str = "attribution") -> Tensor:
        """A signed map as scores of cells [N, cells]: above 0 it claims that changing the cell moves the unit that way.

        signed: as x, with channels summed ([N, 1, H, W], [N, H, W]), or one map per sample and reference [samples, k, C
            or 1, H, W]. Of a kind also one value per thing, and of a text a map of its embedding [N, T, D].

        Raises:
            TypeError: no tensor.
            ValueError: another shape, NaN or infinite values.
        """
        if not isinstance(signed, Tensor):
            raise TypeError(f"{name} must be a tensor, got {type(signed).__name__}; of a tuple pass one input's map")
        samples, form = int(self.samples.max()) + 1, tuple(signed.shape)
        if form[:2] == (samples, len(self.x) // samples) and self._fits(form[2:], self.cells.has_channels):
            signed = signed.flatten(0, 1)  # one map per reference
        elif form[:1] == (samples,) and self._fits(form[1:], False):
            signed = signed[self.samples]
        else:
            raise ValueError(
                f"{name} has shape {form}, the inputs {(samples, *self.x.shape[1:])}; pass one value per "
                f"{'pixel' if self.cells.kind is None else 'entry'} (channels may be summed)"
            )
        bad = ~torch.isfinite(signed.reshape(len(signed), -1)).all(1).cpu()
        if bool(bad.any()):
            raise ValueError(f"{name} of sample {int(self.samples[bad][0])} holds NaN or infinite values")
        # float64, so that no scale of the map is lost
        return -self.sign * self.cells.total_allowed(signed.detach().cpu().double(), self.allowed.cpu())

    def _fits(self, form: tuple[int, ...], needs_channels: bool) -> bool:
        """Whether one sample's map can have this shape."""
        shape, cells = tuple(self.x.shape[1:]), self.cells
        if form == shape or (cells.has_channels and form == (1, *shape[1:])):
            return True
        if isinstance(cells.kind, TextKind):
            return len(form) == 2 and form[:1] == shape
        return not needs_channels and form == cells.shape

    @cached_property
    def effects(self) -> list[Tensor]:
        """Effects of cells measured on the network [N, cells], as candidates for the best order.

        The mean of those of a cell changed alone and of a cell alone left unchanged; each of the two; and of windows of
        3 and 5 cells (a unit may need much of a shape gone before it moves at all).
        """
        return list(self._measure())

    def _measure(self) -> Iterator[Tensor]:
        universe = self.universe
        rows, cells = universe.nonzero(as_tuple=True)
        full = self.gains(torch.arange(len(self.x)), lambda part: universe[part])

        def table(gains: Tensor) -> Tensor:
            effects = gains.new_zeros(universe.shape)
            effects[rows, cells] = gains
            return effects

        def window(radius: int) -> Callable[[slice], Tensor]:
            return lambda part: self.cells.windows(cells[part], radius)

        alone = table(self.gains(rows, window(0)))
        left = self.gains(rows, lambda part: universe[rows[part]] & ~self.cells.windows(cells[part], 0))
        last = table(full[rows] - left)
        yield (alone + last) / 2
        yield alone
        yield last
        if self.cells.is_flat:
            return
        for radius in SCALES:
            effects = table(self.gains(rows, window(radius)))
            yield self.cells.around(effects, radius) / self.cells.around(universe.double(), radius).clamp(min=1e-9)

    def along(self, ranks: Tensor, limits: Tensor) -> Tensor:
        """The gain after the first ``limits`` [N, points] cells were changed in order of ``ranks`` [N, cells]: [N,
        points].

        Rank 0 goes first; cells outside the universe rank last and never change.
        """
        rows = torch.arange(len(self.x)).repeat_interleave(limits.shape[1])
        each = limits.flatten()
        return self.gains(rows, lambda part: ranks[rows[part]] < each[part, None]).reshape(limits.shape)


def fractions(counts: Tensor, points: int) -> Tensor:
    """1/points, 2/points, ... of ``counts`` [N], rounded up: [N, points].

    >>> fractions(torch.tensor([4, 5]), 2)
    tensor([[2, 4],
            [3, 5]])
    """
    many = torch.arange(1, points + 1)
    return torch.div(many * counts[:, None] + points - 1, points, rounding_mode="floor")


def deletion(
    x: Tensor, blank: Tensor, cells: Cells, value: Value, batch_size: int, **more: Callable[[int], object]
) -> Claim:
    """The claim of the non-target view: what a map calls suppressing, replaced by blank, lets u rise."""
    changed = blank.expand_as(x)
    samples = torch.arange(len(x))
    if isinstance(cells.kind, TextKind):
        content = (x != changed) & ~cells.kind.is_special(x)
        return Claim(x, changed, content, cells, value, samples, 1, batch_size, **more)
    distance = (x - changed).abs()
    spacing = torch.finfo(x.dtype).eps if x.is_floating_point() else 0.0
    least = ROUNDING * spacing * torch.maximum(x.abs(), changed.abs()).flatten(1).amax(1)
    content = distance > least.reshape(-1, *[1] * (x.dim() - 1))
    return Claim(x, changed, content, cells, value, samples, 1, batch_size, **more)


def insertion(
    x: Tensor,
    references: Tensor,
    blank: Tensor,
    cells: Cells,
    value: Value,
    batch_size: int,
    **more: Callable[[int], object],
) -> Claim:
    """The claim of the reference view: what x lacks, copied in from its reference, lets u fall. References [N, k,
    ...].
    """
    many = references.shape[1]
    rows, changed = x.repeat_interleave(many, 0), references.flatten(0, 1)
    samples = torch.arange(len(x)).repeat_interleave(many)
    lacks = absence_part if cells.kind is None else cells.kind.lacks
    return Claim(rows, changed, lacks(rows, changed, blank), cells, value, samples, -1, batch_size, **more)


def _slices(length: int, size: int) -> Iterator[slice]:
    for start in range(0, length, size):
        yield slice(start, min(start + size, length))


def ranks(score: Tensor, universe: Tensor, keys: Tensor) -> Tensor:
    """The place of every cell when the highest score goes first [N, cells]; ties by ``keys``, cells outside last.

    >>> ranks(torch.tensor([[1.0, 3.0, 2.0]]), torch.tensor([[True, True, False]]), torch.zeros(1, 3))
    tensor([[1, 0, 2]])
    """
    score = score.double().masked_fill(~universe, -torch.inf)
    mixed = keys.argsort(dim=1)
    order = mixed.gather(1, score.gather(1, mixed).argsort(dim=1, descending=True, stable=True))
    return torch.empty_like(order).scatter_(1, order, torch.arange(order.shape[1]).expand_as(order))


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
