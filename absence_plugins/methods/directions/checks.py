"""Checks of what a fit is given; every error names the value and the remedy."""

from __future__ import annotations

import warnings
from collections.abc import Iterable

import torch
from torch import Tensor

from absence_plugins.core import AbsenceWarning
from absence_plugins.methods.directions.features import Features
from absence_plugins.methods.directions.few import MOST
from absence_plugins.methods.directions.recipe import Head
from absence_plugins.methods.directions.whitening import Whitening

FEWEST_PER_DIRECTION = 20  # positions; rejected below
PUBLISHED = {"steps", "batch_size", "step_range", "n_background"}  # options of the published recipe
RELIABLE_PER_DIRECTION = 100  # positions; measured: below it some encoding directions are wrong


def find_unused(recipe: str, directions: int, given: Iterable[str]) -> set[str]:
    """Those of the options that were given which the recipe does not read; an ``AbsenceWarning`` names them.

    >>> find_unused("robust", 3, ["starts"]), find_unused("paper", 3, ["steps", "step_range"])
    (set(), set())
    """
    reads = PUBLISHED if recipe == "paper" else {"starts"} if recipe == "robust" and directions <= MOST else set[str]()
    unused = set(given) - reads
    if unused:
        several = len(unused) > 1
        why = (
            f"of {directions} directions" if unused == {"starts"} and recipe == "robust" else f"with recipe={recipe!r}"
        )
        also = "; recipe='paper' reads" + (" them" if several else " it") if unused <= PUBLISHED else ""
        warnings.warn(
            f"{' and '.join(sorted(unused))} {'have' if several else 'has'} no effect {why}{also}; leave out",
            AbsenceWarning,
            stacklevel=3,
        )
    return unused


def check_positions(features: Features, directions: int) -> None:
    """Raise where there are too few positions for anything; warn where there are too few to be trusted."""
    n, h, w, _ = features.shape
    positions = n * h * w
    if positions < FEWEST_PER_DIRECTION * directions:
        raise ValueError(
            f"features has {positions} positions for {directions} directions; pass at least "
            f"{FEWEST_PER_DIRECTION} per direction, better {RELIABLE_PER_DIRECTION}: more images, or an earlier layer"
        )
    if positions < RELIABLE_PER_DIRECTION * directions:
        warnings.warn(
            f"features has {positions} positions for {directions} directions; below {RELIABLE_PER_DIRECTION} per "
            "direction some of the directions are wrong in part of our measurements",
            AbsenceWarning,
            stacklevel=4,
        )


def check_rank(whitening: Whitening, directions: int) -> None:
    """Raise for more directions than the features have dimensions."""
    if directions > whitening.rank:
        raise ValueError(
            f"n_directions={directions} is more than the rank of the features, {whitening.rank}; ask for at most "
            f"{whitening.rank}: more concepts than dimensions cannot be told apart"
        )


def check_head(head: Head, features: Features, *, of_classes: bool) -> None:
    """Run the head once on two images, with a gradient.

    Raises:
        TypeError: it is not callable, or does not return a tensor.
        ValueError: outputs that are not [n, classes], NaN, or no gradient; with ``of_classes``: one class.
    """
    if not callable(head):
        raise TypeError(f"head must map features [n, H, W, D] to logits [n, classes], got a {type(head).__name__}")
    some = features.batch(torch.arange(min(2, features.shape[0]))).detach().clone().requires_grad_()
    with torch.enable_grad():
        outputs = head(some)
    if not isinstance(outputs, Tensor):
        raise TypeError(f"head returned a {type(outputs).__name__}; it must return logits [n, classes]")
    if outputs.dim() != 2 or len(outputs) != len(some):
        raise ValueError(
            f"head returned shape {tuple(outputs.shape)} for {len(some)} images; it must return [n, classes]"
        )
    if outputs.shape[1] < (2 if of_classes else 1):
        raise ValueError(
            f"head returned {outputs.shape[1]} logits per image; recipe='paper' asks for the uncertainty of classes, "
            "so return two logits, for example torch.cat([z, -z], 1) of a single logit z, or pass head=None"
            if of_classes
            else "head returned no logits; it must return at least one for each image"
        )
    if not bool(outputs.isfinite().all()):
        raise ValueError(
            "head returned NaN or infinite logits; check that it takes features [n, H, W, D], channels last"
        )
    gradient = None
    if outputs.requires_grad:
        weights = torch.linspace(0.5, 1.5, outputs.shape[1], dtype=outputs.dtype, device=outputs.device)
        (gradient,) = torch.autograd.grad((outputs * weights).sum(), some, allow_unused=True)
    if gradient is None:
        raise ValueError(
            "head has no gradient with respect to its features (torch.no_grad() or detach() inside?); remove it"
        )
