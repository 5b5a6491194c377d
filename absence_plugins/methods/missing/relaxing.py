"""Orders of the pieces from a relaxation: how much of each is pasted becomes a number that a gradient moves."""

from __future__ import annotations

import torch
from torch import Tensor

from absence_plugins.methods.missing.pasting import Pasting

STEPS, RATE = 40, 0.05
WEIGHTS = (1.0, 2.0, 4.0, 8.0, 16.0)  # of the bound against the number of pieces, relative to a set that is known
BEYOND = 0.01  # of the distance from the bound: so far beyond it the relaxation aims


@torch.inference_mode(False)
def relax_weights(pasting: Pasting, size: int) -> Tensor:
    """Weights a in [0, 1] of the pieces, one row for every weight of the bound: [rows, P] float64, best row first.

    min over a of c max(distance from the bound, 0) + sum(a), on base + a (source - base), by proximal gradient steps
    with momentum (FISTA); c = factor * size / (distance at a = 0).

    Source: Dhurandhar et al., 2018 (pertinent negatives; without their autoencoder and the square of the norm).

    Args:
        pasting: the input and its pieces, of floating type.
        size: of a set that crosses the bound.
    """
    given, count = pasting.given, pasting.count
    rows = len(WEIGHTS)
    base, difference = given.base.detach(), (given.source - given.base).detach()
    start = -float(pasting.slack(torch.zeros(1, count, dtype=torch.bool)))
    force = torch.tensor(WEIGHTS, dtype=torch.float64) * size / max(start, 1e-12)
    a = torch.zeros(rows, count, dtype=base.dtype, device=base.device)
    slow, distance = a, torch.zeros(rows, dtype=torch.float64)
    for step in range(STEPS):
        point = slow.clone().requires_grad_()
        with torch.enable_grad():
            padded = torch.cat([point, point.new_zeros(rows, 1)], 1)
            images = base + padded[:, given.place.flatten()].view(rows, *given.place.shape) * difference
            distance = -given.question.slack(given.question.compute(pasting.model, images).double().cpu())
            loss = (force * (distance + BEYOND * start).clamp(min=0)).sum()
        (gradient,) = torch.autograd.grad(loss, point)
        pasting.forwards[0] += 2 * rows
        rate = RATE * (1 - step / STEPS) ** 0.5
        fresh = (slow - rate * torch.nan_to_num(gradient) - rate).clamp(0, 1)
        slow, a = (fresh + step / (step + 3) * (fresh - a)).clamp(0, 1), fresh
    found = a.detach().double().cpu()
    used = (found > 0).sum(1)
    crossed = distance.detach() < BEYOND * start  # nearly
    order = torch.where(crossed, used, count + used).argsort(stable=True)
    return found[order[used[order] > 0]]
