"""The processes of one ``torchrun``: how many there are, and how they meet."""

from __future__ import annotations

import atexit
import os

import torch
from torch import distributed


def ranks(device: torch.device) -> tuple[int, int]:
    """This process's rank and how many there are; under ``torchrun`` the group is started (gloo on CPU, nccl on
    GPU).
    """
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
