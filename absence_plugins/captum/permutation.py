"""Features that are exchanged between the samples of a batch: the draws are Captum's, in its order."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from absence_plugins.captum.ablation import find_group
from absence_plugins.captum.features import Groups, Inputs
from absence_plugins.captum.forwards import Changes

FEWEST = 2  # samples that can be permuted
Permute = Callable[[Tensor, Tensor], Tensor]


class Permuted(Changes):
    """One feature at a time, taken from another sample of the batch, by Captum's own draws. Rows: sample, feature.

    partners: per input the sample that each takes a feature from [count, B].
    """

    may_be_same = True

    def __init__(self, inputs: Inputs, features: Groups) -> None:
        self.inputs, self.features = inputs, features
        total = len(inputs[0])
        own = torch.arange(total)
        drawn = [[own] * features.count for _ in inputs]
        for feature, holders in features.order():
            for number in holders:
                drawn[number][feature] = draw_permutation(own)
        self.partners = [torch.stack(partner).to(part.device) for partner, part in zip(drawn, inputs, strict=True)]
        self.rows = torch.cartesian_prod(own, torch.arange(features.count)).reshape(-1, 2)

    def make(self, rows: Tensor) -> Inputs:
        """As :class:`Changes`."""
        images, numbers = rows.unbind(1)
        changed = []
        held = self.features.inside(images, numbers)
        for part, partner, inside in zip(self.inputs, self.partners, held, strict=True):
            of, feature = images.to(part.device), numbers.to(part.device)
            changed.append(part[of] if inside is None else torch.where(inside, part[partner[feature, of]], part[of]))
        return tuple(changed)

    def middle(self) -> Tensor:
        """As :class:`Changes`."""
        return torch.tensor([0, self.features.count // 2])

    def find_values(self, values: Tensor, row: Tensor, output: Tensor) -> Tensor:
        """As :class:`Changes`."""
        return find_group(self.rows, values, row, output)

    def effects(self, values: Tensor, output: Tensor) -> Tensor:
        """u(x) - u(x with a feature of another sample) [1, B, count]."""
        found = output.new_zeros(1, len(output), self.features.count)
        images, numbers = self.rows.to(output.device).unbind(1)
        found[0, images, numbers] = output[images] - values
        return found


class PermutedBy(Permuted):
    """The same by the caller's own function of a batch and a mask, which is called once per feature, in order."""

    def __init__(self, inputs: Inputs, features: Groups, permute: Permute) -> None:
        self.inputs, self.features, self._permute = inputs, features, permute
        order = features.order()
        every = torch.arange(len(inputs[0]))
        self.rows = torch.cartesian_prod(torch.tensor([feature for feature, _ in order]), every).flip(1)
        self._coming = iter(order)
        self._made: dict[int, Inputs] = {}

    def make(self, rows: Tensor) -> Inputs:
        """As :class:`Changes`. Rows come in order: what was made for features before them is given up."""
        images, numbers = rows[:, 0], rows[:, 1].tolist()
        places = {feature: place for place, feature in enumerate(dict.fromkeys(numbers))}
        while not places.keys() <= self._made.keys():
            feature, holders = next(self._coming)
            self._made[feature] = self._permuted(feature, holders)
        self._made = {feature: self._made[feature] for feature in places}
        at = torch.tensor([places[feature] for feature in numbers])
        stacked = (torch.stack(parts) for parts in zip(*self._made.values(), strict=True))
        return tuple(part[at.to(part.device), images.to(part.device)] for part in stacked)

    def middle(self) -> Tensor:
        """As :class:`Changes`; the first, as features come in order."""
        return self.rows[0]

    def _permuted(self, feature: int, holders: list[int]) -> Inputs:
        changed = list(self.inputs)
        for number in holders:
            changed[number] = self.inputs[number].clone()  # takes what is returned as Captum's does
            changed[number][:] = self._permute(self.inputs[number], self.features.mask_of(number, feature))
        return tuple(changed)


def draw_permutation(unchanged: Tensor) -> Tensor:
    """A permutation that is not the identity [B], drawn from torch's global generator as Captum draws it."""
    found = torch.randperm(len(unchanged))
    while torch.equal(found, unchanged):
        found = torch.randperm(len(unchanged))
    return found
