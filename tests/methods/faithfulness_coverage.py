"""Scores whose true value is known, as pairs (above, room) of many samples, to draw few of. `import faithfulness_coverage`."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from absence_plugins.data.planted import PROBLEMS
from absence_plugins.methods.faithfulness import absence_scores
from absence_plugins.methods.faithfulness.intervals import bound_ratio

Pairs = tuple[Tensor, Tensor]
FEATURES = 12
SCORED = {  # noise of the map, share of the features that are there, factor of the map
    "a map with some truth": (0.6, 0.7, 1),
    "a noisy map": (3.0, 0.7, 1),
    "a good map": (0.1, 0.7, 1),
    "few features per sample": (0.6, 0.25, 1),
    "a map of the wrong sign": (0.6, 0.7, -1),
}


class Quadratic(nn.Module):
    """u = w x + x V x: features [N, 12] -> [N, 1]."""

    def __init__(self) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.w = torch.randn(FEATURES, generator=generator)
        self.v = torch.randn(FEATURES, FEATURES, generator=generator) * 0.3

    def forward(self, x: Tensor) -> Tensor:
        return (x @ self.w + ((x @ self.v) * x).sum(1))[:, None]


def score_many(kind: str, count: int = 1500) -> Pairs:
    """The pairs of one of ``SCORED``, measured on the network: [count] each."""
    noise, there, factor = SCORED[kind]
    generator = torch.Generator().manual_seed(1)
    x = torch.rand(count, FEATURES, generator=generator)
    x = x * torch.bernoulli(torch.full(x.shape, there), generator=generator)
    net = Quadratic()
    signed = x * net.w + noise * x * torch.randn(x.shape, generator=generator)
    areas = absence_scores(net, x, 0, factor * signed, progress=False).areas
    return areas["map"] - areas["random"], areas["best"] - areas["random"]


def score_patches(count: int = 120) -> Pairs:
    """Gradient times input on the planted patches: images."""
    planted = PROBLEMS["patch_missing"](0)
    x = planted.pool_images[planted.pool_labels == planted.presence_unit][:count].requires_grad_()
    (gradient,) = torch.autograd.grad(planted.model(x)[:, planted.absence_unit].sum(), x)
    blank = torch.tensor(planted.empty).reshape(1, -1, 1, 1)
    options = {"empty": planted.empty, "steps": 8, "draws": 4, "cell": 2, "progress": False}
    areas = absence_scores(planted.model, x.detach(), planted.absence_unit, gradient * (x - blank).detach(), **options).areas  # type: ignore[arg-type]  # fmt: skip
    return areas["map"] - areas["random"], areas["best"] - areas["random"]


def make_pairs(kind: str, count: int = 3000) -> Pairs:
    """Pairs that no network was asked for: scores that most samples share, sizes that differ."""
    generator = torch.Generator().manual_seed(2)
    size = torch.randn(count, generator=generator, dtype=torch.float64)
    chance, place = (torch.rand(count, generator=generator, dtype=torch.float64) for _ in range(2))
    if kind == "9 in 10 at 1, the rest anywhere":
        return torch.where(chance < 0.9, 1.0, 1.4 * place - 0.5) * (0.4 * size).exp(), (0.4 * size).exp()
    if kind == "7 in 10 at 1, the rest near it":
        return torch.where(chance < 0.7, 1.0, 0.8 + 0.19 * place) * (0.4 * size).exp(), (0.4 * size).exp()
    if kind in SHARED:
        most, spread, rest, share = SHARED[kind]
        noise = spread * torch.randn(count, generator=generator, dtype=torch.float64)
        return torch.where(chance < share, most + noise, rest) * (0.4 * size).exp(), (0.4 * size).exp()
    if kind == "samples of very different size":
        return (0.5 + place) * size.exp() * 0.75, size.exp()
    raise ValueError(kind)


SHARED = {  # the score of most samples, its spread, the score of the rest, the share of the first
    "9 in 10 at 0, the rest at 1": (0.0, 0.0, 1.0, 0.9),
    "9 in 10 near 0, the rest at 1": (0.0, 0.03, 1.0, 0.9),
    "7 in 10 at 0, the rest at 1": (0.0, 0.0, 1.0, 0.7),
    "9 in 10 at -0.3, the rest at 0.9": (-0.3, 0.0, 0.9, 0.9),
    "9 in 10 at 0, the rest at -1": (0.0, 0.0, -1.0, 0.9),
    "half at 0, half at 1": (0.0, 0.0, 1.0, 0.5),
}
MADE = ("9 in 10 at 1, the rest anywhere", "7 in 10 at 1, the rest near it", "samples of very different size")


def cover(pairs: Pairs, count: int, draws: int, resamples: int = 1000) -> tuple[float, float]:
    """The share of ``draws`` samples of ``count`` whose interval holds the true ratio, and that of bounded ones."""
    generator = torch.Generator().manual_seed(count)
    above, room = (column.double() for column in pairs)
    truth, held, bounded = float(above.sum() / room.sum()), 0, 0
    top = 1.0 if bool((above <= room + 1e-9).all()) else torch.inf
    for _ in range(draws):
        rows = torch.randint(len(room), (count,), generator=generator)
        drawn = torch.randint(count, (resamples, count), generator=generator)
        found = bound_ratio(above[rows], room[rows], drawn, 1e-9, top)
        held += found.low <= truth <= found.high
        bounded += found.low > -torch.inf
    return held / draws, bounded / draws
