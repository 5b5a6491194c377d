"""Every method on one image of a model: whether there is a map, how far its sum is off, how long it takes."""

from __future__ import annotations

import logging
import math
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn

from absence_plugins.commands.check_candidates import Candidate, Subject, default_candidates
from absence_plugins.core import AbsenceWarning
from absence_plugins.core.hooks import unchanged
from absence_plugins.core.randomness import seeded

# The default of `explain` is the first of these that is right on the model; by the largest error of its sum.
DEFAULTS = {"relevance": 0.01, "captum:IntegratedGradients": 0.05, "captum:Occlusion": None}
TINY = 1e-4  # of the map's absolute sum: below it, a difference u(x) - u(blank) is rounding
SHARE, LARGE_SHARE = 1 / 40, 1 / 10  # of the time for all methods that one of them, or a default, may take
WORKS, REJECTED, NOT_TRIED = "yes", "no", "not tried"
SPENT, IMAGES = "the time was spent", "it is tried on images [1, C, H, W] only"


@dataclass(frozen=True)
class MethodCheck:
    """A method on one image.

    Attributes:
        family: where it comes from.
        method: as ``--method`` takes it, or the name of the class or command.
        works: "yes", "no", or "not tried" where the time was spent before.
        error: abs(sum of R - (u(x) - u(blank))) / abs(u(x) - u(blank)), of methods whose sum is to be that; None for
            others, and where only a part was run.
        seconds: of one map (of pictures and patches: of one unit on one image); None without one.
        is_estimate: whether they are estimated from a smaller run.
        reason: why there is no map; "" if there is.
    """

    family: str
    method: str
    works: str
    error: float | None = None
    seconds: float | None = None
    is_estimate: bool = False
    reason: str = ""

    def is_right(self, limit: float | None) -> bool:
        """Whether there is a map, and its sum is off by no more than ``limit``; None: whatever its sum."""
        return self.works == WORKS and (limit is None or (self.error is not None and self.error <= limit))

    def to_dict(self) -> dict[str, Any]:
        """Plain strings and numbers, ready for JSON."""
        return asdict(self)


def try_method(
    candidate: Candidate, subject: Subject, small: Subject | None = None, *, at_most: float = math.inf
) -> MethodCheck:
    """One method on the subject's image; whatever it raises is its ``reason``. The model is as before.

    A method that is expected to take more than ``at_most`` seconds is run on the small image, if there is one, or on a
    part of its work; its seconds are estimated from that. What fails on the small image is tried on the other one.
    """
    if candidate.needs_image and not subject.is_image:
        return MethodCheck(candidate.family, candidate.method, NOT_TRIED, reason=IMAGES)
    made = ""
    for plan in _plans(candidate, subject, small, at_most):
        started = time.perf_counter()
        try:
            with _alone(plan.subject.model):
                found = plan.run(plan.subject)
        except MemoryError:
            raise
        except Exception as error:  # that a method does not run on a model is what is asked
            made = first_sentence(error)
            continue
        seconds = (time.perf_counter() - started) * plan.scale
        if found is not None and not bool(torch.isfinite(found).all()):
            made = "the map has NaN or infinite values"
            continue
        off = None
        if candidate.is_complete and plan.is_whole and found is not None:
            off = _relative_error(found, plan.subject.difference)
        return MethodCheck(candidate.family, candidate.method, WORKS, off, seconds, plan.is_estimate)
    return MethodCheck(candidate.family, candidate.method, REJECTED, reason=made)


@dataclass(frozen=True)
class _Plan:
    """What is run for a method: on which image, all of its work or a part, and the factor to its whole time."""

    subject: Subject
    run: Callable[[Subject], Tensor | None]
    is_whole: bool = True
    scale: float = 1.0
    is_estimate: bool = False


def _plans(candidate: Candidate, subject: Subject, small: Subject | None, at_most: float) -> Iterator[_Plan]:
    """The first that runs counts."""
    passes = candidate.passes(subject)
    rest = passes / candidate.part_passes if candidate.part_passes else 1.0
    if candidate.part is None:
        is_part, run = candidate.part_passes > 0, candidate.run
    else:
        is_part, run = False, candidate.part
    if passes * subject.seconds > at_most and not is_part:
        if small is not None and candidate.scales:
            ratio = subject.seconds / small.seconds
            if passes * small.seconds <= at_most or candidate.part is None:
                yield _Plan(small, candidate.run, True, ratio, True)
            yield _Plan(small, run, False, ratio * rest, True)
        if candidate.part is not None:
            yield _Plan(subject, candidate.part, False, rest, True)
            return
    yield _Plan(subject, candidate.run, not is_part, rest if is_part else 1.0, is_part)


def recommend_method(model: nn.Module, inputs: Tensor, blank: Tensor | None = None) -> str:
    """The method, as ``--method`` takes it, that ``explain`` uses on a model by default.

    The relevance of differences where it runs and its sum is right within 1 %; else integrated gradients where theirs
    is within 5 %; else Occlusion, which needs forwards only.

    Args:
        model: returns one row of logits per image.
        inputs: one image [1, C, H, W]; the predicted class is explained.
        blank: an image without content [1, C, H, W]; default: zeros.

    Raises:
        ValueError: none of them runs; with what each of them says.

    >>> recommend_method(nn.Sequential(nn.Flatten(), nn.Linear(12, 2)), torch.ones(1, 3, 2, 2))
    'relevance'
    """
    subject = Subject.of(model, inputs, blank, timed=1)  # what is tried here is run whole, whatever it takes
    said: list[MethodCheck] = []
    for name in DEFAULTS:
        (candidate,) = default_candidates([name])  # one by one: most need no Captum
        said.append(try_method(candidate, subject))
        if said[-1].is_right(DEFAULTS[candidate.method]):
            return candidate.method
    reasons = (f"{one.method}: {one.reason or f'its sum is {one.error or 0:.0%} off'}" for one in said)
    raise ValueError(f"no method explains this model on this image; {'; '.join(reasons)}")


def recommended(checks: Sequence[MethodCheck]) -> str:
    """The recommended one of methods that were tried; "" if none of the defaults works.

    >>> recommended([MethodCheck("relevance", "relevance", "yes", 0.3), MethodCheck("Captum", "captum:Occlusion", "yes")])
    'captum:Occlusion'
    """
    tried = {one.method: one for one in checks}
    right = (name for name, limit in DEFAULTS.items() if name in tried and tried[name].is_right(limit))
    return next(right, "")


def first_sentence(error: BaseException) -> str:
    """The first sentence of a message, on one line.

    >>> first_sentence(ValueError("a softmax, so no sign. Drop it"))
    'a softmax, so no sign'
    """
    text = " ".join(str(error).split()) or type(error).__name__
    return text.partition(". ")[0].rstrip(".")


def _relative_error(found: Tensor, difference: float) -> float:
    found = found.double()
    gross = max(abs(difference), TINY * float(found.abs().sum()))
    return abs(float(found.sum()) - difference) / gross if gross else 0.0


@contextmanager
def _alone(model: nn.Module) -> Iterator[None]:
    """The same random numbers for every method, no words of the hosts, and the model as before."""
    before = logging.root.manager.disable
    with warnings.catch_warnings(), seeded(0), unchanged(model):
        warnings.simplefilter("ignore")
        warnings.simplefilter("ignore", AbsenceWarning)
        logging.disable(logging.WARNING)  # Captum's and Lucent's
        try:
            yield
        finally:
            logging.disable(before)
