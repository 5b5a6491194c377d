"""The last stage of detectors: separate the positions with a concept from those without it, close to what was found."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from absence_plugins.methods.directions.thresholds import Thresholds

SLOPE = 64.0  # of a detector's logit, per standard deviation
PULL = 1.0  # towards the filters that were found
STEPS = 60
ALLOWED = 0.01  # positions with several or without any concept, beyond what errors of thresholds explain
ERRORS = 0.06  # the most positions at which thresholds that are about right leave several, or none


@dataclass(frozen=True)
class Firing:
    """The shares of positions at which no detector fires, exactly one, and several.

    Errors of thresholds leave a few positions without any and about as many with several. More are the data's own.
    """

    none: float
    one: float
    several: float

    @classmethod
    def of(cls, fires: Tensor) -> Firing:
        """Count detections, bool [P, I].

        >>> Firing.of(torch.tensor([[True, False], [True, True], [False, True], [False, False]]))
        Firing(none=0.25, one=0.5, several=0.25)
        """
        count = fires.sum(1)
        return cls(*(float(some.double().mean()) for some in (count == 0, count == 1, count > 1)))

    @property
    def overlaps(self) -> bool:
        """Whether several concepts at a position may be right."""
        return self.several > 2 * self.none + ALLOWED or self.several > ERRORS

    @property
    def empty(self) -> bool:
        """Whether no concept at a position may be right."""
        return self.none > 2 * self.several + ALLOWED or self.none > ERRORS


def sharpen(z: Tensor, w: Tensor, thresholds: Thresholds) -> tuple[Tensor, Tensor]:
    """Detectors that separate better: z [P, R], filters w [R, I] of unit length -> the same, and their thresholds [I].

    Filters that read strengths are not the best separators: where every position shows one concept, the others' tell
    which. So labels are made that use this, and a logistic separator of each is fitted that is pulled towards its
    filter. Where concepts overlap, or positions are empty, the labels keep that (:func:`presence_labels`).
    """
    labels = presence_labels(z @ w, thresholds).to(z.dtype)
    v, t = w.clone().requires_grad_(), thresholds.threshold.clone().requires_grad_()
    optimizer = torch.optim.LBFGS(
        [v, t], max_iter=STEPS, tolerance_grad=1e-7, tolerance_change=1e-10, line_search_fn="strong_wolfe"
    )

    def loss() -> Tensor:
        optimizer.zero_grad()
        wrong = F.binary_cross_entropy_with_logits(SLOPE * (z @ v - t), labels, reduction="none").mean(0).sum()
        value = wrong + PULL * ((v - w) ** 2).sum()
        v.grad, t.grad = torch.autograd.grad(value, [v, t])
        return value

    with torch.enable_grad():
        optimizer.step(loss)  # type: ignore[no-untyped-call]
    length = v.detach().norm(dim=0)
    return v.detach() / length, t.detach() / length


def presence_labels(u: Tensor, thresholds: Thresholds) -> Tensor:
    """Which concepts are at each position, given how often several or none are in all: u [P, I] -> bool [P, I].

    At positions where no detector fires: the strongest, unless too many are empty for that to be an error. At positions
    where several fire: the strongest alone, unless too many overlap.
    """
    fires = u > thresholds.threshold
    firing = Firing.of(fires)
    relative = (u - thresholds.threshold) / (thresholds.typical - thresholds.threshold).clamp(min=1e-6)
    strongest = F.one_hot(relative.argmax(1), u.shape[1]).bool()
    if not firing.overlaps:
        fires = fires & strongest
    return fires if firing.empty else fires | strongest
