"""One process of a scan for test_patches_ranks.py: `scan_worker.py OUT CHECKPOINT KILL [PRECISION]`.

KILL: "RANK:IMAGE" sends SIGKILL to that rank when it reads that image; "-" nobody.
"""

from __future__ import annotations

import os
import signal
import sys
from typing import Any

import torch
from torch import Tensor, nn

from absence_plugins.methods.patches import find_extreme_patches


class Images(torch.utils.data.Dataset[Any]):
    def __init__(self, kill: str) -> None:
        generator = torch.Generator().manual_seed(1)
        self.images = torch.randint(-3, 4, (37, 3, 16, 19), generator=generator).float()  # ties
        self.rank, _, self.number = kill.partition(":")

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> Tensor:
        if self.number and index == int(self.number) and os.environ.get("RANK", "0") == self.rank:
            os.kill(os.getpid(), signal.SIGKILL)
        return self.images[index]


def main(out: str, checkpoint: str, kill: str, precision: str = "exact") -> None:
    torch.set_num_threads(1)
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 6, 2), nn.ReLU())
    folder = None if checkpoint == "-" else checkpoint
    options: dict[str, Any] = {"checkpoint": folder, "save_every": 0, "progress": False, "precision": precision}
    found = find_extreme_patches(model, "3", Images(kill), k=5, size=6, stride=3, batch_size=50, **options)
    if os.environ.get("RANK", "0") == "0":
        found.save(out)


if __name__ == "__main__":
    main(*sys.argv[1:])
