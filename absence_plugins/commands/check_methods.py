"""One map of a method on one image: whether there is one, how far its sum is off, how long it takes."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from absence_plugins.commands.maps.explainers import explainer
from absence_plugins.core import AbsenceWarning
from absence_plugins.core.outputs import class_scores
from absence_plugins.core.scores import run_scores

# The default of `explain` is the first of these that is right on the model; by the largest error of its sum.
CANDIDATES = {"relevance": 0.01, "captum:IntegratedGradients": 0.05, "captum:Occlusion": None}
TINY = 1e-4  # of the map's absolute sum: below it, a difference u(x) - u(blank) is rounding


@dataclass(frozen=True)
class Tried:
    """A method on one image.

    Attributes:
        method: as ``--method`` takes it.
        error: abs(sum - (u(x) - u(blank))) / abs(u(x) - u(blank)); None without a finite map.
        seconds: of one map.
        reason: why there is no finite map; "" if there is.
    """

    method: str
    error: float | None
    seconds: float
    reason: str = ""


def try_method(method: str, model: nn.Module, inputs: Tensor, blank: Tensor, target: int, classes: int) -> Tried:
    """The target's map against an empty image by one method; whatever the method raises is its ``reason``."""
    started = time.perf_counter()
    try:
        found = _quiet(
            lambda: explainer(method).standard(model, inputs.clone(), target, classes, blank.expand_as(inputs))
        ).detach()
    except MemoryError:
        raise
    except Exception as error:  # that a method does not run on a model is what is asked
        return Tried(method, None, time.perf_counter() - started, first_sentence(error))
    seconds = time.perf_counter() - started
    if not bool(torch.isfinite(found).all()):
        return Tried(method, None, seconds, "the map has NaN or infinite values")
    with torch.no_grad():
        u = read_scores(model, torch.cat([inputs, blank.expand_as(inputs)]))[:, target].double()
    return Tried(method, _relative_error(found, float(u[0] - u[1])), seconds)


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
    blank = torch.zeros_like(inputs) if blank is None else blank
    outputs = read_scores(model, inputs)
    target, classes, said = int(outputs[0].argmax()), outputs.shape[1], []
    for method, limit in CANDIDATES.items():
        tried = try_method(method, model, inputs, blank, target, classes)
        if tried.error is not None and (limit is None or tried.error <= limit):
            return method
        said.append(f"{method}: {tried.reason or f'its sum is {tried.error:.0%} off'}")
    raise ValueError(f"no method explains this model on this image; {'; '.join(said)}")


def read_scores(model: nn.Module, inputs: Tensor) -> Tensor:
    """A model's scores, in front of a softmax or sigmoid that it ends in: [B, ...] -> [B, K], without gradients.

    Of maps [B, K, H, W] the sums over the image.
    """
    with torch.no_grad():
        return class_scores(run_scores(model, (inputs,))[0])


def first_sentence(error: BaseException) -> str:
    """The first sentence of a message, on one line.

    >>> first_sentence(ValueError("a softmax, so no sign. Drop it"))
    'a softmax, so no sign'
    """
    text = " ".join(str(error).split()) or type(error).__name__
    return text.partition(". ")[0].partition("; ")[0].rstrip(".")


def _relative_error(found: Tensor, difference: float) -> float:
    found = found.double()
    gross = max(abs(difference), TINY * float(found.abs().sum()))
    return abs(float(found.sum()) - difference) / gross if gross else 0.0


def _quiet(run: Callable[[], Any]) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", AbsenceWarning)
        return run()
