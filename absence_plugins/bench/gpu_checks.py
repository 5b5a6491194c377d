"""What a GPU computes, next to the CPU in float64."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from absence_plugins.data import digits_cnn, load_digits
from absence_plugins.data.synthetic_directions import many_directions
from absence_plugins.methods.directions import DirectionPairs
from absence_plugins.methods.patches import find_extreme_patches
from absence_plugins.relevance import relevance

IMAGES = 32
DIRECTIONS = 12  # more than the 8 up to which another method is in force


@dataclass(frozen=True)
class Check:
    """One result on two devices.

    Attributes:
        name: what was computed.
        error: the largest distance, relative to the largest value; of directions 1 - the smallest cosine.
        allowed: of float32.
    """

    name: str
    error: float
    allowed: float

    @property
    def ok(self) -> bool:
        """Whether the distance is one of rounding."""
        return self.error <= self.allowed


def compare_with_cpu(device: torch.device) -> tuple[Check, ...]:
    """Relevance by three rules, the scores of a scan, and fitted directions."""
    rules = [_check_relevance(rule, device) for rule in ("epsilon", "gamma", "lower_gamma")]
    return (*rules, _check_sum(device), _check_scan(device), _check_directions(device))


def _check_relevance(rule: str, device: torch.device) -> Check:
    maps = [_map(*side, rule) for side in _sides(device)]
    return Check(f"relevance, {rule}", _distance(*maps), 1e-3)


def _check_sum(device: torch.device) -> Check:
    """The sum of a map on the device, and what it has to be."""
    model, x, r = _subject(device, torch.float32)
    with torch.no_grad():
        wanted = (model(x) - model(r))[:, 3].double()
    found = _map(model, x, r, "epsilon").double().flatten(1).sum(1)
    return Check("relevance, its sum", _distance(found, wanted), 1e-4)


def _check_scan(device: torch.device) -> Check:
    scores = []
    for model, x, _ in _sides(device):
        found = find_extreme_patches(model, "conv3", x.cpu(), k=4, size=12, stride=4, mode="mask", progress=False)
        scores.append(torch.cat([found.highest.scores, found.lowest.scores]))
    return Check("scan, the scores", _distance(*scores), 1e-4)


def _check_directions(device: torch.device) -> Check:
    """Fits on both devices, next to the directions that are known."""
    data = many_directions(0, dimensions=48, concepts=DIRECTIONS, distractors=4, images=400)
    fits = []
    for where in (device, torch.device("cpu")):
        pairs = DirectionPairs(DIRECTIONS, seed=0, progress=False)
        pairs.fit(data.features.to(where))
        fits.append(nn.functional.normalize(pairs.decoding.double().cpu(), dim=1))
    cosines = (fits[0] @ fits[1].T).abs().amax(1)
    return Check("directions, 1 - cosine", float(1 - cosines.min()), 1e-2)


def _sides(device: torch.device) -> list[tuple[nn.Module, Tensor, Tensor]]:
    return [_subject(device, torch.float32), _subject(torch.device("cpu"), torch.float64)]


def _subject(device: torch.device, dtype: torch.dtype) -> tuple[nn.Module, Tensor, Tensor]:
    data = load_digits()
    images, references = data.test_images[:IMAGES], data.train_images[:IMAGES]
    return digits_cnn().to(device, dtype), images.to(device, dtype), references.to(device, dtype)


def _map(model: nn.Module, x: Tensor, r: Tensor, rule: str) -> Tensor:
    convolutions = {name for name, module in model.named_modules() if isinstance(module, nn.Conv2d)}
    chosen: str | Callable[[str], str | None] = rule
    if rule == "gamma":
        chosen = lambda name: rule if name in convolutions else None  # noqa: E731
    found: Tensor = relevance(model, x, r, 3, rule=chosen).attribution
    return found


def _distance(one: Tensor, other: Tensor) -> float:
    one, other = one.double().cpu(), other.double().cpu()
    return float((one - other).abs().max() / other.abs().max())
