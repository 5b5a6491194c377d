"""Shapley values: the features of x that join a baseline, in drawn orders or in all of them.

A *coalition* is the set of features that a sample has from x, the others being the baseline's. What is known needs no
forward: all of x, a coalition that came before, and features in which a sample is its baseline.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice, permutations

import torch
from torch import Tensor

from absence_plugins.captum.features import Groups, Inputs
from absence_plugins.captum.forwards import Changes, Forwards

WHOLE = -1  # names the coalition of all features
BITS = 62  # features that one integer holds
MOST_EXACT = 14  # features of which all 2^K coalitions are run
FEW = 8  # features of which the gains of all orders are added one after the other, to the bits of Captum's sum
MOST_STEPS = 2**21  # of orders, samples and features that are planned at a time


class Joined(Changes):
    """Coalitions of samples. Rows: sample, and what :meth:`members` reads."""

    def __init__(self, inputs: Inputs, baselines: Inputs, features: Groups) -> None:
        self.inputs, self.baselines, self.features = inputs, baselines, features
        pairs = zip(inputs, baselines, strict=True)
        self.differing = features.touched([part != own for part, own in pairs]).cpu()  # [B, count]

    @abstractmethod
    def members(self, rows: Tensor) -> Tensor:
        """Which features the coalitions of rows hold: bool [N, count]."""

    def make(self, rows: Tensor) -> Inputs:
        """As :class:`Changes`."""
        images = rows[:, 0]
        held = self.features.hold(self.members(rows), images)
        changed = []
        for part, baseline, inside in zip(self.inputs, self.baselines, held, strict=True):
            of = images.to(part.device)
            changed.append(torch.where(inside, part[of], baseline[of]))
        return tuple(changed)


class InOrders(Joined):
    """The coalitions along orders [n, count] of the features. Rows: sample, order, step; step -1 is the baseline."""

    def __init__(self, inputs: Inputs, baselines: Inputs, features: Groups, orders: Tensor) -> None:
        super().__init__(inputs, baselines, features)
        self.orders, self._places = orders, orders.argsort(1).int()
        found: dict[tuple[bool, ...], tuple[Tensor, Tensor]] = {}
        rows, index, start = [], [], 0
        for sample, differs in enumerate(self.differing):
            pattern = tuple(differs.tolist())
            if pattern not in found:
                found[pattern] = self._plan(differs)
            run, of_steps = found[pattern]
            rows.append(torch.cat([torch.full((len(run), 1), sample), run], 1))
            index.append((of_steps + start).where(of_steps >= 0, sample - len(self.differing)))
            start += len(run)
        self.rows = torch.cat(rows)
        self._index = torch.stack(index)  # [B, 1 + n * count] into the values of rows, and u(x) behind them

    def _plan(self, differs: Tensor) -> tuple[Tensor, Tensor]:
        """Of a sample the orders and steps that are run, one for each coalition [R, 2]; and which of them is that of
        the baseline and of every step [1 + n * count], -1 where it is x itself.
        """
        names, count = self._name_coalitions(differs), self.orders.shape[1]
        known, which = torch.unique(names, return_inverse=True)
        steps = torch.full((len(known),), len(names)).scatter_reduce_(0, which, torch.arange(len(names)), "amin")
        is_run = known != WHOLE
        own = steps[is_run] - 1
        orders = own.div(count, rounding_mode="floor").clamp(min=0)
        run = torch.stack([orders, own.remainder(count).where(own >= 0, -1)], 1)
        return run, (is_run.cumsum(0) - 1).where(is_run, -1)[which]

    def _name_coalitions(self, differs: Tensor) -> Tensor:
        """A number for the baseline and for every step of every order [1 + n * count] of a sample; the same where what
        it has from x is the same.
        """
        own = differs[self.orders]
        if self.orders.shape[1] <= BITS:
            names = (own.long() << self.orders).cumsum(1)
        else:  # such orders hardly meet
            places = torch.arange(1, 1 + self.orders.numel()).reshape(self.orders.shape)
            names = places.where(own, 0).cummax(1).values
        names[own.cumsum(1) == differs.sum()] = WHOLE
        start = torch.tensor([0 if bool(differs.any()) else WHOLE])
        return torch.cat([start, names.flatten()])

    def members(self, rows: Tensor) -> Tensor:
        """As :class:`Joined`."""
        return self._places[rows[:, 1]] <= rows[:, 2:]

    def middle(self) -> Tensor:
        """As :class:`Changes`."""
        return torch.tensor([0, 0, (self.orders.shape[1] - 1) // 2])

    def find_values(self, values: Tensor, row: Tensor, output: Tensor) -> Tensor:
        """As :class:`Changes`."""
        order, step = row[1:].tolist()
        column = self._index[:, 1 + order * self.orders.shape[1] + step]
        return torch.cat([values, output])[column.to(values.device)]

    def sum_gains(self, values: Tensor, output: Tensor, sums: Tensor) -> None:
        """Add what every feature changes when it joins, order by order, to sums [B, count]."""
        table = torch.cat([values, output])[self._index.to(values.device)]
        steps = table[:, 1:].reshape(len(table), *self.orders.shape)
        start = table[:, :1].expand(-1, len(self.orders))[:, :, None]
        gains = steps - torch.cat([start, steps[:, :, :-1]], 2)
        for number, order in enumerate(self.orders.to(sums.device)):
            sums[:, order] += gains[:, number].to(sums.device)


class InAllOrders(Joined):
    """All coalitions of at most :data:`MOST_EXACT` features. Rows: sample, coalition as bits."""

    def __init__(self, inputs: Inputs, baselines: Inputs, features: Groups) -> None:
        super().__init__(inputs, baselines, features)
        self._bits = torch.arange(features.count)
        self._every = torch.arange(2**features.count)
        self._wholes = (self.differing.long() << self._bits).sum(1).tolist()
        self.rows = torch.cat([self._rows_of(sample) for sample in range(len(self._wholes))])

    def _rows_of(self, sample: int) -> Tensor:
        whole = self._wholes[sample]
        run = self._every[((self._every & ~whole) == 0) & (self._every != whole)]
        return torch.stack([torch.full_like(run, sample), run], 1)

    def members(self, rows: Tensor) -> Tensor:
        """As :class:`Joined`."""
        return (rows[:, 1:] >> self._bits & 1).bool()

    def middle(self) -> Tensor:
        """As :class:`Changes`; every other feature."""
        return torch.tensor([0, len(self._every) * 2 // 3])

    def find_values(self, values: Tensor, row: Tensor, output: Tensor) -> Tensor:
        """As :class:`Changes`."""
        return self._table(values, output)[:, int(row[1])]

    def average_gains(self, values: Tensor, output: Tensor) -> Tensor:
        """The mean over all orders of what a feature changes when it joins [B, count], in float64.

        R_i = sum over coalitions S without i of |S|! (count - |S| - 1)! / count! * (u(S with i) - u(S)).
        """
        table, count = self._table(values, output).double(), self.features.count
        sizes = (self._every[:, None] >> self._bits & 1).sum(1)
        weights = table.new_tensor([1 / (count * math.comb(count - 1, size)) for size in range(count)] + [0.0])
        found = []
        for bit in range(count):
            without = self._every[self._every >> bit & 1 == 0]
            gains = table[:, without | 1 << bit] - table[:, without]
            found.append(gains @ weights[sizes[without].to(table.device)])
        return torch.stack(found, 1)

    def _table(self, values: Tensor, output: Tensor) -> Tensor:
        """The values of all coalitions [B, 2^count]."""
        found = values.new_zeros(len(output), len(self._every))
        images, coalitions = self.rows.to(values.device).unbind(1)
        found[images, coalitions] = values
        for sample, whole in enumerate(self._wholes):
            found[sample, whole] = output[sample]
            found[sample] = found[sample][(self._every & whole).to(found.device)]
        return found


def measure_shapley(
    forwards: Forwards, baselines: Inputs, features: Groups, orders: Iterable[Sequence[int]] | None
) -> Tensor:
    """The Shapley values [B, count] of the features against baselines, per input [B, ...], in float32 as Captum's.

    orders: over which gains are averaged; None: all, of at most :data:`MOST_EXACT` features.

    Raises:
        Entangled: samples in a batch change each other's values.
    """
    if orders is None:
        if features.count > FEW:
            coalitions = InAllOrders(forwards.inputs, baselines, features)
            return coalitions.average_gains(forwards.measure(coalitions), forwards.output).float()
        orders = permutations(range(features.count))
    sums = torch.zeros(len(forwards.output), features.count, device=forwards.inputs[0].device)
    total = 0
    for some in _in_groups(orders, max(1, MOST_STEPS // (len(forwards.output) * features.count))):
        along = InOrders(forwards.inputs, baselines, features, some)
        along.sum_gains(forwards.measure(along), forwards.output, sums)
        total += len(some)
    return sums / total


def _in_groups(orders: Iterable[Sequence[int]], size: int) -> Iterator[Tensor]:
    """Orders [n, count], at most ``size`` of them at a time."""
    coming = iter(orders)
    while some := list(islice(coming, size)):
        yield torch.tensor(some)
