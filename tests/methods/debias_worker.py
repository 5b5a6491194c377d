"""One process of a step for test_debias_step.py: `debias_worker.py OUT`; rank 0 saves the gradients of all."""

from __future__ import annotations

import sys

import torch
import torch.distributed as dist
from debias_nets import batch, cnn
from torch import Tensor
from torch.nn import functional as F
from torch.nn.parallel import DistributedDataParallel

from absence_plugins.methods.debias import AttributionPrior


def steps(call: str) -> list[Tensor]:
    """This rank's gradients after the second of two steps: the reducer must be ready again after the first."""
    x, y, mask = (part[dist.get_rank() :: 2] for part in batch())
    mask = mask & (y == 0)[:, None, None, None]
    model = DistributedDataParallel(cnn())
    prior = AttributionPrior(model)
    for _ in range(2):
        model.zero_grad()
        if call == "with_logits":
            logits, penalty = prior.with_logits(x, y, mask)
        else:
            x.requires_grad_(call == "logits=")
            logits = model(x)
            penalty = prior(x, y, mask, logits=logits if call == "logits=" else None)
        (F.cross_entropy(logits, y) + 3 * penalty).backward()
    return [value.grad for value in model.parameters() if value.grad is not None]


def main(out: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo")
    found = {}
    for call in ("with_logits", "logits=", "own"):
        found[call] = [[], []]
        dist.all_gather_object(found[call], steps(call))
    if dist.get_rank() == 0:
        torch.save(found, out)
    dist.destroy_process_group()


if __name__ == "__main__":
    main(*sys.argv[1:])
