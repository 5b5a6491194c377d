"""Is the event missing? Signals and volumes: small patterns in slots, and a key pattern or none."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, replace
from functools import cache
from itertools import product

import torch
from torch import Tensor, nn

from absence_plugins.data.planted.problem import Drawn, Planted, Problem, Scenes
from absence_plugins.data.planted.training import Recipe

NOTHING = -1
SLOTS, SHIFTS = 8, 3
LENGTH, SIDE = 8, 6  # of a slot: samples of a signal, voxels of a volume
EVENTS = ("##..##", "#.##.#", ".####.", "###..#", "#..###")  # the key comes first; all have four samples
BLOCKS = ((2, 2, 2), (4, 2, 1), (1, 4, 2), (2, 1, 4))  # the key comes first; all have eight voxels


@cache
def signal_missing(seed: int = 0) -> Planted:
    """Is the double event missing? Logit 1 encodes its absence; a signal of 64 samples, 1-D convolutions.

    Inputs [N, 1, 1, 64]. Region: the samples of the event. Other events of as many samples stand beside it.
    """
    waves = [[sample == "#" for sample in wave] for wave in EVENTS]
    bank = torch.zeros(len(EVENTS), SHIFTS, 1, LENGTH)
    for shift in range(SHIFTS):
        bank[:, shift, 0, shift : shift + len(EVENTS[0])] = torch.tensor(waves).float()
    return SlotProblem(bank, (1, SLOTS), seed).solve(_signal_network(), Recipe(epochs=6))


@cache
def volume_missing(seed: int = 0) -> Planted:
    """Is the cube missing? Logit 1 encodes its absence; a volume of 12 x 12 x 12 voxels, 3-D convolutions.

    Inputs [N, 1, 144, 12], the slices below each other. Region: the voxels of the cube. Other blocks of as many voxels
    stand beside it.
    """
    bank = torch.zeros(len(BLOCKS), SHIFTS, SIDE, SIDE, SIDE)
    for kind, size in enumerate(BLOCKS):
        for shift in range(SHIFTS):
            depth, height, width = (slice(shift, shift + side) for side in size)
            bank[kind, shift, depth, height, width] = 1
    return SlotProblem(bank, (2, 2, 2), seed).solve(_volume_network(), Recipe(epochs=6))


@dataclass(frozen=True, eq=False)
class Slots(Scenes):
    """``kind``, ``shift`` and ``level`` of every slot [N, SLOTS]; ``key`` [N]: the key's slot or its counterfactual."""

    kind: Tensor
    shift: Tensor
    level: Tensor
    key: Tensor


class SlotProblem(Problem[Slots]):
    """Other patterns in two to four of eight slots; the key pattern, kind 0, in one of the others, or nowhere.

    bank: every pattern at every shift, [kinds, SHIFTS, *slot]; layout: slots along every axis.
    """

    def __init__(self, bank: Tensor, layout: tuple[int, ...], seed: int) -> None:
        super().__init__(seed)
        self.bank, self.layout = bank, layout

    def scenes(self, count: int) -> Slots:
        """The key's slot is free."""
        order = torch.rand(count, SLOTS, generator=self.generator).argsort(1)
        rank = order.argsort(1)
        occupied = (rank >= 1) & (rank <= self.integers(2, 5, count, 1))
        kind = torch.where(occupied, self.integers(1, len(self.bank), count, SLOTS), NOTHING)
        shift = self.integers(0, SHIFTS, count, SLOTS)
        return Slots(kind, shift, self.uniform(0.6, 1.0, count, SLOTS), order[:, 0])

    def with_key(self, scenes: Slots) -> Slots:
        """The key in its slot."""
        return replace(scenes, kind=scenes.kind.scatter(1, scenes.key[:, None], 0))

    def without_key(self, scenes: Slots) -> Slots:
        """Nothing where the key was."""
        return replace(scenes, kind=torch.where(scenes.kind == 0, NOTHING, scenes.kind))

    def jittered(self, scenes: Slots) -> Slots:
        """All a little weaker or stronger."""
        level = (scenes.level + self.uniform(-0.1, 0.1, *scenes.level.shape)).clamp(0.5, 1.0)
        return replace(scenes, level=level)

    def elsewhere(self, scenes: Slots) -> Slots:
        """The key's slot at another free one."""
        free = torch.rand(scenes.kind.shape, generator=self.generator) * (scenes.kind == NOTHING)
        return replace(scenes, key=free.argmax(1))

    def render(self, scenes: Slots) -> Drawn:
        """Inputs [N, 1, H, W], labels and the key's region."""
        patterns = self.bank[scenes.kind.clamp(min=0), scenes.shift]  # [N, SLOTS, *slot]
        shape = (-1, SLOTS, *[1] * (self.bank.dim() - 2))
        there, key = (mask.reshape(shape) for mask in (scenes.kind != NOTHING, scenes.kind == 0))
        images = self._assemble(patterns * there * scenes.level.reshape(shape))
        labels = (~(scenes.kind == 0).any(1)).long()
        return images, labels, self._assemble(patterns * key) > 0

    def _assemble(self, slots: Tensor) -> Tensor:
        """[N, SLOTS, *slot] put together along every axis, then as an image [N, 1, H, W]."""
        size = slots.shape[2:]
        whole = slots.new_zeros(len(slots), *(many * side for many, side in zip(self.layout, size, strict=True)))
        for number, place in enumerate(product(*(range(many) for many in self.layout))):
            where = tuple(slice(at * side, (at + 1) * side) for at, side in zip(place, size, strict=True))
            whole[:, *where] = slots[:, number]
        return whole.flatten(1, -2)[:, None]


def _signal_network() -> nn.Sequential:
    with torch.device("meta"):
        return nn.Sequential(
            OrderedDict(
                series=nn.Flatten(2),
                conv1=nn.Conv1d(1, 16, 5, padding=2),
                relu1=nn.ReLU(),
                conv2=nn.Conv1d(16, 24, 5, padding=2),
                relu2=nn.ReLU(),
                pool2=nn.MaxPool1d(4),
                conv3=nn.Conv1d(24, 32, 3, padding=1),
                relu3=nn.ReLU(),
                pool3=nn.MaxPool1d(16),
                flatten=nn.Flatten(),
                linear=nn.Linear(32, 2),
            )
        )


def _volume_network() -> nn.Sequential:
    with torch.device("meta"):
        return nn.Sequential(
            OrderedDict(
                volume=nn.Unflatten(2, (2 * SIDE, 2 * SIDE)),
                conv1=nn.Conv3d(1, 12, 3, padding=1),
                relu1=nn.ReLU(),
                pool1=nn.MaxPool3d(2),
                conv2=nn.Conv3d(12, 24, 3, padding=1),
                relu2=nn.ReLU(),
                pool2=nn.MaxPool3d(6),
                flatten=nn.Flatten(),
                hidden=nn.Linear(24, 24),
                relu3=nn.ReLU(),
                linear=nn.Linear(24, 2),
            )
        )
