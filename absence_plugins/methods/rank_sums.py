"""A sum over samples whose batches several ranks share out, kept in a file of each rank."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager

import torch
from torch import Tensor

from absence_plugins.core.interrupts import uncut
from absence_plugins.methods.checkpoint import Checkpoint, keep_state
from absence_plugins.methods.ranks import from_first, gather, ranks


class RankSums:
    """Sums of whole numbers (in float64 they are exact in any order), and of how many samples; all ranks make it
    together.

    A batch is known by its first sample. No batch is in two files: a rank goes on in its own one, of the others it
    learns what is done.

    Args:
        checkpoint: of the work; None: nothing is kept.
        name: of the sum's files.

    >>> sums = RankSums(None, "votes")
    >>> sums.wants(range(2)), sums.add(range(2), torch.ones(3, dtype=torch.float64))
    (True, None)
    >>> sums.total()
    (tensor([1., 1., 1.], dtype=torch.float64), 2)
    """

    def __init__(self, checkpoint: Checkpoint | None, name: str) -> None:
        self.rank, self.world = ranks()
        self.checkpoint, self.name = checkpoint, f"{name}-{self.rank:05d}"
        known = from_first(lambda: self._read(name))
        self.state = known.get(self.name, {})
        current = {f"{name}-{rank:05d}" for rank in range(self.world)}
        self.others = [state for file, state in known.items() if file not in current]
        self.done = {first for state in known.values() for first in state["firsts"].tolist()}
        self.turn = 0

    def wants(self, numbers: range) -> bool:
        """Whether this rank is the one to add a batch; to be asked of every batch, in their order."""
        if numbers.start in self.done:
            return False
        self.turn += 1
        return (self.turn - 1) % self.world == self.rank

    def add(self, numbers: range, found: Tensor) -> None:
        """Add what a batch gave."""
        first, images = torch.tensor([numbers.start]), torch.tensor(len(numbers))
        state = {"sums": found, "images": images, "firsts": first}
        if self.state:
            state = {"sums": self.state["sums"] + found, "images": self.state["images"] + images,
                     "firsts": torch.cat([self.state["firsts"], first])}  # fmt: skip
        with uncut():
            self.state = state

    def keeping(self) -> AbstractContextManager[Callable[[], None]]:
        """As :func:`~absence_plugins.methods.checkpoint.keep_state`."""
        return keep_state(self.checkpoint, self.name, lambda: self.state)

    def total(self) -> tuple[Tensor, int]:
        """The sum of all ranks, and the number of samples; all ranks must ask together."""
        every = [state for state in (*gather(self.state), *self.others) if state]
        return sum(state["sums"] for state in every), sum(int(state["images"]) for state in every)  # type: ignore[return-value]

    def _read(self, name: str) -> dict[str, dict[str, Tensor]]:
        if self.checkpoint is None:
            return {}
        files = sorted(path.stem for path in self.checkpoint.folder.glob(f"{name}-*.safetensors"))
        return {file: state for file in files if (state := self.checkpoint.load(file))}
