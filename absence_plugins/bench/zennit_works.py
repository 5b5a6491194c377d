"""What the ``Absence*`` composites cost next to Zennit's: input and reference run together, so about twice as much."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor

from absence_plugins.bench.subjects import subject
from absence_plugins.bench.works import Growth, Work

PAIR_LIMIT = 2.2
NAMES = ("EpsilonPlus", "EpsilonGammaBox", "EpsilonAlpha2Beta1", "ExcitationBackprop")
# (network, quick): images, side
SIZES = {
    ("digits", False): (16, 0),
    ("digits", True): (2, 0),
    ("resnet18", False): (2, 224),
    ("resnet18", True): (1, 32),
}


def build_zennit_works(network: str, quick: bool, device: torch.device) -> dict[str, Work]:
    """What is measured on one network, by the name of Zennit's composite."""
    batch, pixels = SIZES[network, quick]
    sides = partial(_sides, network, pixels, device)

    def work(name: str) -> Work:
        what = f"Absence{name} and AbsenceGradient against a tensor, {name} and Gradient; batch {batch}"
        growth = Growth("images", (batch, 2 * batch, 4 * batch), lambda size: sides(size, name), name == NAMES[0])
        return Work(what, PAIR_LIMIT, *sides(batch, name), is_same=False, growth=growth)

    return {name: work(name) for name in NAMES}


def _sides(
    network: str, pixels: int, device: torch.device, batch: int, name: str
) -> tuple[Callable[[], Tensor], Callable[[], Tensor]]:
    """The map of our composite, and of Zennit's."""
    from zennit.attribution import Gradient
    from zennit.canonizers import SequentialMergeBatchNorm

    from absence_plugins.bench.scores import composites
    from absence_plugins.zennit import AbsenceGradient

    loaded, x, reference, _ = subject(network, batch, batch, pixels)
    model, x, reference = loaded.to(device), x.to(device), reference.to(device)
    canonizer: Callable[[], Any] = SequentialMergeBatchNorm
    if network == "resnet18":
        from zennit.torchvision import ResNetCanonizer

        canonizer = ResNetCanonizer
    with torch.no_grad():
        outputs = model(x)
    seed = torch.eye(outputs.shape[1], device=device)[outputs.argmax(1)]
    standard, ours = composites(absence=False), composites(absence=True)

    box = {}
    if name == "EpsilonGammaBox":
        low, high = (torch.full_like(x[:1], value) for value in (float(x.min()), float(x.max())))
        box = {"low": low, "high": high}

    def plain_map() -> Tensor:
        with Gradient(model, standard[name](canonizers=[canonizer()], **box)) as attributor:
            result: Tensor = attributor(x, seed)[1]
        return result

    def our_map() -> Tensor:
        composite = ours[f"Absence{name}"](**box)
        with AbsenceGradient(model, composite, reference=reference) as attributor:
            result: Tensor = attributor(x, seed)[1]
        return result

    return our_map, plain_map
