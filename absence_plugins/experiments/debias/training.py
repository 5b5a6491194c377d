"""Training with an attribution prior, and the evaluation of what was trained: of small digits and of whole folders."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from absence_plugins.methods.debias import AttributionPrior

CLEAN, NONE = "no artefact", "none"  # trained without the artefact; with it, but without a prior
SETS = {"biased": (1.0, 0.0), "inverted": (0.0, 1.0), "unbiased": (0.0, 0.0)}  # chance of the artefact, per class

Batch = tuple[Tensor, Tensor, Tensor]  # inputs [N, C, H, W], classes 0 and 1 [N], masks [N, 1, H, W]


@dataclass(frozen=True)
class Evaluation:
    """What a network of two outputs does on the sets.

    Attributes:
        accuracy: per set the accuracy of the first and of the second class.
        target, nontarget: |input x gradient| of the true and of the other logit per pixel of the artefact, in logits,
            over the biased images that carry it.
    """

    accuracy: dict[str, tuple[float, float]]
    target: float
    nontarget: float

    @property
    def inside(self) -> float:
        """The attribution inside the mask, of both logits: (target + nontarget) / 2."""
        return (self.target + self.nontarget) / 2


def prior_of(model: nn.Module, mode: str) -> AttributionPrior | None:
    """The prior of a mode; None where it trains without one."""
    return None if mode in (CLEAN, NONE) else AttributionPrior(model, mode)  # type: ignore[arg-type]


def train_epoch(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    batches: Iterable[Batch],
    prior: AttributionPrior | None,
    weight: float,
) -> tuple[float, float]:
    """Take one step per batch, as published: sigmoid cross-entropy on one-hot labels, plus ``weight`` times the prior.

    Returns the mean loss without the prior, and the mean prior.
    """
    losses, penalties = [], []
    model.train()
    for x, y, mask in batches:
        with torch.enable_grad():
            if prior is None:
                logits, penalty = model(x), x.new_zeros(())
            else:
                logits, penalty = prior.with_logits(x, y, mask)
            loss = F.binary_cross_entropy_with_logits(logits, F.one_hot(y, 2).to(x.dtype))
            optimizer.zero_grad()
            torch.autograd.backward(loss + weight * penalty)
            optimizer.step()
        losses.append(float(loss.detach()))
        penalties.append(float(penalty.detach()))
    return average(losses), average(penalties)


@torch.no_grad()
def evaluate(model: nn.Module, batches: Iterable[tuple[str, Batch]]) -> Evaluation:
    """Accuracies by the set's name that comes with every batch, and the attribution on the carriers of the biased
    one.
    """
    model.eval()
    prior = AttributionPrior(model, "both")
    right: dict[str, Tensor] = {}
    counts: dict[str, Tensor] = {}
    parts: tuple[list[float], list[float]] = ([], [])
    for name, (x, y, mask) in batches:
        hits = model(x).argmax(1) == y
        right[name] = right.get(name, 0) + torch.bincount(y[hits], minlength=2).cpu()
        counts[name] = counts.get(name, 0) + torch.bincount(y, minlength=2).cpu()
        carriers = mask.flatten(1).any(1)
        if name == "biased" and bool(carriers.any()):
            prior(x[carriers], y[carriers], mask[carriers])
            if prior.last is None or prior.last.presence is None or prior.last.absence is None:
                raise RuntimeError("a prior with mode='both' keeps both parts")
            parts[0].append(float(prior.last.presence.mean()))
            parts[1].append(float(prior.last.absence.mean()))
    accuracy = {name: _shares(right[name], counts[name]) for name in counts}
    return Evaluation(accuracy, average(parts[0]), average(parts[1]))


def _shares(right: Tensor, counts: Tensor) -> tuple[float, float]:
    first, second = (right.double() / counts.clamp(min=1)).tolist()
    return first, second


def average(values: Sequence[float]) -> float:
    """The mean, 0 of nothing.

    >>> average([1.0, 2.0]), average([])
    (1.5, 0.0)
    """
    return sum(values) / len(values) if values else 0.0


def pack_training(model: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """The weights and the optimizer's state as tensors by name, for a checkpoint."""
    found = {f"model.{name}": value for name, value in model.state_dict().items()}
    for number, own in optimizer.state_dict()["state"].items():
        found |= {f"optimizer.{number}.{name}": value for name, value in own.items()}
    return found


def unpack_training(tensors: Mapping[str, Tensor], model: nn.Module, optimizer: torch.optim.Optimizer | None) -> None:
    """Set the weights and the optimizer's state to those of :func:`pack_training`."""
    prefix = "model."
    model.load_state_dict({name[len(prefix) :]: value for name, value in tensors.items() if name.startswith(prefix)})
    if optimizer is None:
        return
    state: dict[int, dict[str, Tensor]] = {}
    for name, value in tensors.items():
        kind, _, rest = name.partition(".")
        if kind == "optimizer":
            number, _, own = rest.partition(".")
            state.setdefault(int(number), {})[own] = value
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})
