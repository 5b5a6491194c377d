"""A scan over several processes, and one that is killed: who reads which images, what is saved, how it is merged.

The images come in fixed blocks; ranks take blocks in turn, so what runs in one forward does not depend on how many
ranks there are. Every rank saves which blocks are done and what it found in them. Merging is a union, and the same
window twice counts once, so any set of such files, of any number of ranks, can be resumed.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from absence_plugins.methods.checkpoint import Checkpoint
from absence_plugins.methods.identity import Identity
from absence_plugins.methods.patches.windows import RunningExtremes
from absence_plugins.methods.ranks import gather

SIDES = {"high": 1, "low": -1, "high_apart": 1, "low_apart": -1}  # and their sign


@dataclass
class State:
    """What a scan knows so far.

    Attributes:
        done: [blocks] uint8.
        high, low: the extremes in these blocks (of the lowest, scores are negated).
        high_apart, low_apart: the same, at most one window per image.
        sample: [units, m] values of the sampled windows; NaN where their image was not read yet.
        keys: [m] the sampled windows; -1 where not yet known.
        seen: [images] int64, a hash of every image that was read, 0 of the others.
    """

    done: Tensor
    high: RunningExtremes
    low: RunningExtremes
    high_apart: RunningExtremes
    low_apart: RunningExtremes
    sample: Tensor
    keys: Tensor
    seen: Tensor

    def tensors(self) -> dict[str, Tensor]:
        """All tensors by name, as a checkpoint holds them."""
        found = {"done": self.done, "sample": self.sample, "keys": self.keys, "seen": self.seen}
        for name in SIDES:
            found |= {f"{name}.scores": getattr(self, name).scores, f"{name}.keys": getattr(self, name).keys}
        return found

    def merge(self, other: dict[str, Tensor]) -> None:
        """Take in what another rank, or an earlier run, knows: tensors on the CPU."""
        self.done |= other["done"]
        self.seen = torch.where(self.seen == 0, other["seen"], self.seen)
        for name in SIDES:
            getattr(self, name).update(other[f"{name}.scores"], other[f"{name}.keys"])
        known = other["keys"] >= 0
        self.keys[known] = other["keys"][known]
        self.sample[:, known] = other["sample"][:, known]


def gather_states(state: State) -> None:
    """Give every rank what all ranks know."""
    for found in gather({name: tensor.cpu() for name, tensor in state.tensors().items()}):
        state.merge(found)


def open_scan(
    folder: Path | str, settings: dict[str, Any], belongs: Identity, rank: int, save_every: float
) -> Checkpoint:
    """The checkpoint of a scan, in which every rank saves its state.

    Raises:
        ValueError: the folder is a file, or holds another scan.
    """
    checkpoint = Checkpoint(folder, settings, "scan", belongs=belongs, writes=rank == 0, save_every=save_every)
    checkpoint.writes = True  # the settings come from rank 0, a state from everyone
    return checkpoint


def load_ranks(checkpoint: Checkpoint, state: State) -> None:
    """Take in the states of all ranks, of however many there were; damaged ones are left out with a warning."""
    for found in checkpoint.load_all("rank-"):
        state.merge(found)
