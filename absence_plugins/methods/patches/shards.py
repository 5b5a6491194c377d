"""A scan over several processes, and one that is killed: who reads which images, what is saved, how it is merged.

The images come in fixed blocks; ranks take blocks in turn, so what runs in one forward does not depend on how many
ranks there are. Every rank saves which blocks are done and what it found in them. Merging is a union, and the same
window twice counts once, so any set of such files, of any number of ranks, can be gone on from.
"""

from __future__ import annotations

import atexit
import hashlib
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, distributed, nn

from absence_plugins.methods.patches.windows import RunningExtremes

SETTINGS = "scan.json"
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
    """

    done: Tensor
    high: RunningExtremes
    low: RunningExtremes
    high_apart: RunningExtremes
    low_apart: RunningExtremes
    sample: Tensor
    keys: Tensor

    def tensors(self) -> dict[str, Tensor]:
        """Everything by name."""
        found = {"done": self.done, "sample": self.sample, "keys": self.keys}
        for name in SIDES:
            found |= {f"{name}.scores": getattr(self, name).scores, f"{name}.keys": getattr(self, name).keys}
        return found

    def merge(self, other: dict[str, Tensor]) -> None:
        """Take in what another rank, or an earlier run, knows."""
        self.done |= other["done"]
        for name in SIDES:
            getattr(self, name).update(other[f"{name}.scores"], other[f"{name}.keys"])
        known = other["keys"] >= 0
        self.keys[known] = other["keys"][known]
        self.sample[:, known] = other["sample"][:, known]


def ranks(device: torch.device) -> tuple[int, int]:
    """This process's rank and how many there are; under ``torchrun`` the group is started (gloo on CPU, nccl on GPU)."""
    if not distributed.is_available():
        return 0, 1
    if not distributed.is_initialized():
        if "RANK" not in os.environ or int(os.environ.get("WORLD_SIZE", "1")) < 2:
            return 0, 1
        distributed.init_process_group("nccl" if device.type == "cuda" else "gloo")
        atexit.register(_leave)
    return distributed.get_rank(), distributed.get_world_size()


def _leave() -> None:
    if distributed.is_initialized():
        distributed.destroy_process_group()


def wait() -> None:
    """Until every rank is here."""
    if distributed.is_available() and distributed.is_initialized():
        distributed.barrier()


def gather(state: State, world: int, device: torch.device) -> None:
    """Give every rank what all ranks know."""
    if world == 1:
        return
    where = device if distributed.get_backend() == "nccl" else torch.device("cpu")
    everyone: list[dict[str, Tensor]] = [{} for _ in range(world)]
    for name, tensor in state.tensors().items():
        own = tensor.to(where).contiguous()
        parts = [torch.empty_like(own) for _ in range(world)]
        distributed.all_gather(parts, own)
        for found, part in zip(everyone, parts, strict=True):
            found[name] = part.to(tensor.device)
    for found in everyone:
        state.merge(found)


class Checkpoint:
    """A folder in which every rank keeps its state.

    Raises (when opened):
        ValueError: the folder is a file, or holds another scan.
    """

    def __init__(self, folder: Path | str, settings: dict[str, Any], rank: int) -> None:
        self.folder, self.settings, self.rank = Path(folder), settings, rank
        if self.folder.is_file():
            raise ValueError(f"checkpoint={str(folder)!r} is a file; name a folder")
        self.folder.mkdir(parents=True, exist_ok=True)
        known = self.folder / SETTINGS
        if known.is_file():
            self._compare(json.loads(known.read_text(encoding="utf-8")))
        elif rank == 0:
            _replace(known, json.dumps(settings, indent=1).encode())

    def _compare(self, before: dict[str, Any]) -> None:
        for name in {**before, **self.settings}:
            if before.get(name) != self.settings.get(name):
                raise ValueError(
                    f"checkpoint {self.folder} belongs to another scan: {name} is {before.get(name)!r} there and "
                    f"{self.settings.get(name)!r} here; name another folder, or delete it"
                )

    def load(self, state: State) -> None:
        """Everything that is there, of however many ranks."""
        from safetensors.torch import load_file

        for path in sorted(self.folder.glob("rank-*.safetensors")):
            state.merge({name: tensor.to(state.done.device) for name, tensor in load_file(path).items()})

    def save(self, state: State) -> None:
        """In one step: a kill leaves the former file or the new one."""
        from safetensors.torch import save

        _replace(
            self.folder / f"rank-{self.rank:05d}.safetensors",
            save({k: v.cpu().contiguous() for k, v in state.tensors().items()}),
        )


def fingerprint(model: nn.Module, first: Tensor) -> dict[str, str]:
    """What tells this model and these images from others: hashes of the weights and of the first image."""
    digest = hashlib.sha256()
    for name, tensor in model.state_dict().items():
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    image = hashlib.sha256(first.contiguous().view(torch.uint8).numpy().tobytes())
    return {"model": digest.hexdigest()[:16], "first image": image.hexdigest()[:16]}


def _replace(path: Path, content: bytes) -> None:
    draft = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with draft.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(draft, path)
    finally:
        draft.unlink(missing_ok=True)
