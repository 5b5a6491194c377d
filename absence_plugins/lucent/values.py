"""A unit's values on given images: how far rendered pictures have gone shows only next to them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from absence_plugins.core.devices import device_of
from absence_plugins.core.direction import Direction
from absence_plugins.core.units import Unit
from absence_plugins.lucent.layers import Activations
from absence_plugins.lucent.objectives import AbsenceObjective, Term, as_objective
from absence_plugins.lucent.surroundings import frozen


def unit_values(model: nn.Module, objective: Any, images: Tensor, *, batch_size: int = 64) -> Tensor:
    """What an absence objective drives, on each of these images: the ``data_range`` of :func:`render_vis`.

    The value is the pre-activation itself, whichever way the objective drives it; with several terms that of the
    first, of a contrast that of its unit.

    Args:
        model: in any mode; it is as before afterwards.
        objective: an absence objective, ``"-layer:3"``, or a :class:`~absence_plugins.Unit` or ``Direction``.
        images: model inputs [N, C, H, W] (as they come out of the preprocessing), on any device.
        batch_size: images per forward.

    Returns:
        [N] on the CPU.

    Raises:
        ValueError: no images, no such layer or channel.
        TypeError: an objective of Lucent's, which does not say what it drives.

    >>> net = nn.Sequential(nn.Flatten(), nn.Linear(2, 1, bias=False), nn.ReLU())
    >>> net[1].weight.data = torch.tensor([[1.0, -1.0]])
    >>> unit_values(net, "-2:0", torch.tensor([[3.0, 1.0], [1.0, 3.0]])).tolist()  # in front of the ReLU
    [2.0, -2.0]
    """
    term, device = _driven_term(objective), device_of(model)
    if len(images) == 0:
        raise ValueError("there are no images")
    found = []
    with frozen(model), torch.no_grad(), Activations(model, lambda: images) as T:
        T.watch(term.at.name, term.at.side)
        for part in images.split(batch_size):
            T.run(part.to(device))
            found.append(term.values(T).float().cpu())
    return torch.cat(found)


def _driven_term(objective: Any) -> Term:
    """What an objective drives first, in all images. Raises TypeError where it does not say."""
    if isinstance(objective, (Unit, Direction)):
        return Term(objective.at, objective.describe(), objective.select)
    chosen = as_objective(objective)
    if not isinstance(chosen, AbsenceObjective) or not chosen.terms:
        raise TypeError(f"{objective!r} is no absence objective; write absence_channel(layer, n), or '-layer:n'")
    return replace(chosen.terms[0], batch=None)
