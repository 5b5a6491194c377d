"""Is a map's absence evidence true? The network is asked: change what the map names, and see whether the unit
follows.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any, get_args

import torch
from torch import Tensor, nn
from tqdm.auto import tqdm

from absence_plugins.core import AbsenceWarning
from absence_plugins.core.checks import check_choice, check_integers, check_seed
from absence_plugins.core.direction import Direction
from absence_plugins.core.empties import blank_value
from absence_plugins.core.hooks import evaluating, quiet_forward
from absence_plugins.core.kinds import Kind, TextKind
from absence_plugins.core.outputs import Output
from absence_plugins.core.randomness import seeded
from absence_plugins.core.references import ReferenceSet
from absence_plugins.core.suitability import warn_unsuitable
from absence_plugins.core.units import Unit
from absence_plugins.methods.faithfulness.cells import FINE_UP_TO, Cells
from absence_plugins.methods.faithfulness.claims import deletion, insertion
from absence_plugins.methods.faithfulness.controls import score_controls
from absence_plugins.methods.faithfulness.cost import DRAWS, STEPS
from absence_plugins.methods.faithfulness.curves import Curves
from absence_plugins.methods.faithfulness.explained import class_of, nearest, resolved, unit_value
from absence_plugins.methods.faithfulness.result import AbsenceScores, View
from absence_plugins.methods.faithfulness.summary import summarize

Attribution = Callable[[Tensor], Any] | Tensor
BATCHES = {"cpu": (128, 8), "cuda": (256, 32)}  # of small and of large inputs: on a CPU larger ones are slower
SECONDS_QUIET = 3  # before a progress bar appears


def absence_scores(
    model: nn.Module,
    x: Tensor,
    unit: int | Tensor | Unit | Direction | Output | Callable[[Tensor], Tensor],
    attribution: Attribution,
    *,
    view: View = "nontarget",
    reference: ReferenceSet | Tensor | None = None,
    empty: Any = None,
    standard: Attribution | None = None,
    steps: int = STEPS,
    draws: int = DRAWS,
    cell: int | None = None,
    batch_size: int | None = None,
    seed: int = 0,
    kind: Kind | None = None,
    progress: bool = True,
) -> AbsenceScores:
    """Check the claims of a signed map R of unit u on the network itself.

    *Deletion of suppressors* (``view="nontarget"``): what the map says holds u down (R < 0) is replaced by the blank
    value, the most negative relevance first; u must **rise**. Only pixels that differ from blank take part.
    *Insertion of the missing* (``view="reference"``): where the reference has content and x has none, the reference's
    pixels are copied into x, the largest R > 0 first; u must **fall**.

    With A the mean gain along the curve (trapezoids), score = sum (A - A_random) / sum (A_best - A_random), sums over
    the samples.
    A curve ends where the measured order that gets furthest has reached 90 % of its peak: what is left hardly moves u
    the claimed way, and its order earns nothing. A_random is the mean of ``draws`` random orders. A_best is that of the
    best order found for the sample: by measured effects (of every cell changed alone, left alone, and in windows), or
    the map's own. Only the order of the map's values counts, ties at random, so multiplying the map changes nothing.

    Random cells are scattered, a smooth map's are not, and a convolutional network reacts to the two differently. The
    ``placebo_score`` is that of the same map where it says nothing: shifted at random and given to another sample. Read
    the score against it. So does the input itself: maps that never saw the network (the distance from the image's
    median color or from what replaces the pixel, edges, a blob in the middle, smooth noise, curvature, contrast) can
    score well where what matters is salient as well. ``control_score`` is the best of theirs: only what a score has
    above it speaks for the map.

    Source: this package (docs/faithfulness); pixel flipping (Samek et al., 2017) and insertion/deletion (Petsiuk et
    al., 2018) ask the
    same of evidence for what is present.

    Args:
        model: outputs [N, K]; logits, not probabilities. Of one logit z, unit 0 is z and unit 1 is -z.
        x: images [N, C, H, W] or features [N, F]. For the non-target view inputs that u does not belong to (they have
            what holds it down), for the reference view inputs it belongs to.
        unit: the explained unit: a logit (or one per sample [N]), a :class:`Unit` or ``Direction``, an ``Output`` such
            as a ``Margin``, or a callable from inputs to values [N].
        attribution: callable from x to the signed map of u, or the map: [N, C, H, W], [N, 1, H, W], [N, H, W] or [N,
            F]; in the
            reference view also one per reference, [N, k, C or 1, H, W]. The sign: R > 0 raises u, R < 0 holds it down.
        view: "nontarget" or "reference", which of the two is checked.
        reference: for the reference view: real inputs [N, C, H, W] or [N, k, C, H, W], or a :class:`ReferenceSet`,
            whose nearest are taken (of its contrast class, or of any class but the unit's). For the non-target view a
            :class:`~absence_plugins.MadeReferences`, whose images then take the place of blank.
        empty: value of a blank pixel, as ``ReferenceSet`` takes it; or one blank image per input [N, C, H, W]; None:
            the set's, else 0.
        standard: the map the host shows by default (target, blank baseline), to compare with; as ``attribution``.
        steps: points of the curve.
        draws: random orders.
        cell: side in pixels of what is changed at once; None: so that at most 32 cells (over 64 pixels: 14) fit on a
            side.
        batch_size: inputs per forward; None: 128, and 8 for images over 64 pixels; on a GPU 256 and 32.
        seed: of random orders, ties and the interval.
        kind: what the entries are, if not pixels; None: as the ReferenceSet says. Columns of a table are changed one by
            one, tokens of a text (never padding or special tokens; ``empty`` is then the id that stands for no word,
            such as that of the mask), spans of a signal, blocks of a volume. What is missing is the kind's ``lacks``.
            Maps may have one value per thing, and of a text be those of its embedding [N, T, D].
        progress: show a progress bar on stderr if it takes more than three seconds.

    Forwards: about N k (4 cells + 240) to find the best order, and N k steps x (2 draws + 16) for the curves, draws
    more with ties.

    The model runs in evaluation mode and is as before afterwards, as is the random state.

    Raises:
        TypeError: maps that are no tensors.
        ValueError: a shape that does not fit, NaN in a map or in the unit's values, a reference view without reference,
            probabilities, another number of units than samples.

    Warns:
        AbsenceWarning: references on which u is not lower, a non-target map without any negative value.

    Example (u = x_0 + x_1 - 2 x_2 - x_3; the last two features hold it down):
        >>> weights = torch.tensor([[1.0, 1.0, -2.0, -1.0]])
        >>> model = torch.nn.Linear(4, 1, bias=False)
        >>> _ = model.weight.data.copy_(weights)
        >>> scores = absence_scores(model, torch.ones(4, 4), 0, lambda x: weights * x)
        >>> scores.score, scores.curves["map"].tolist(), scores.areas["map"][0].item()
        (1.0, [0.0, 2.0, 3.0], 1.75)
        >>> absence_scores(model, torch.ones(4, 4), 0, lambda x: -weights * x).score < 0
        True
    """
    _check(view, steps, draws, 1 if batch_size is None else batch_size, seed)
    kind = _choose_kind(kind, reference)
    cells = Cells.of(x, cell, kind)
    if batch_size is None:
        batch_size = BATCHES["cuda" if x.is_cuda else "cpu"][0 if _is_small(x, kind) else 1]
    index = resolved(unit, len(x))
    detached = x.detach()
    value = unit_value(model, index, detached)
    is_module = isinstance(model, nn.Module)
    with seeded(), evaluating(model) if is_module else torch.enable_grad():
        maps = {"map": _evaluate(attribution, x)}
        if standard is not None:
            maps["standard"] = _evaluate(standard, x)
    blank = _blank(view, empty, reference, detached, kind)
    if not bool(torch.isfinite(blank).all()):
        raise ValueError(f"empty={empty!r} is NaN or infinite; pass the value of a blank pixel")
    with tqdm(
        desc=f"faithfulness ({view})", unit="input", delay=SECONDS_QUIET, disable=not progress, leave=False
    ) as bar:
        if view == "reference":
            drawn = nearest(reference, detached, class_of(model, index, detached), kind)
            claim = insertion(detached, drawn, blank, cells, value, batch_size, tick=bar.update)
        else:
            claim = deletion(detached, blank, cells, value, batch_size, tick=bar.update)
        tables = {name: claim.scores(signed, "attribution" if name == "map" else name) for name, signed in maps.items()}
        with evaluating(model) if is_module else torch.no_grad(), quiet_forward([x]):
            if view == "reference":
                many = drawn.shape[1]
                warn_unsuitable("target", claim.start[::many], claim.end.reshape(-1, many), 4)
            elif not bool((tables["map"] > 0).any()) and bool((maps["map"] != 0).any()):
                _warn_of_magnitudes()
            curves = Curves(claim, steps, draws, seed)
            found = {name: curves.of_map(table) for name, table in tables.items()}
            best = {name: curves.best([curve]) for name, curve in found.items()}
            found["placebo"] = curves.placebo(tables["map"])
            controls = {name: curves.of_map(table) for name, table in score_controls(claim).items()}
            return summarize(view, curves, found, best, controls)


def _blank(view: View, empty: Any, reference: Any, x: Tensor, kind: Kind | None) -> Tensor:
    """What stands for no content: an image or a part of one, or of made references one image per input.

    Raises:
        ValueError: made references in the reference view, or together with ``empty``; a text without ``empty`` where it
            is needed.
    """
    if isinstance(kind, TextKind) and view == "nontarget" and empty is None:
        raise ValueError(
            "a token cannot be blanked without a token that stands for no word; pass empty=, the id of the mask or of "
            "padding"
        )
    if isinstance(reference, ReferenceSet) and reference.is_made:
        if view == "reference" or empty is not None:
            raise ValueError(
                f"nothing is missing compared with {reference!r}, which stands for blank; pass it with view='nontarget' "
                "and without empty"
            )
        made = reference.nearest(x)
        assert isinstance(made, Tensor)
        return made[:, 0]
    if empty is None:
        empty = reference.empty[0] if isinstance(reference, ReferenceSet) else 0.0
    if isinstance(empty, Tensor) and empty.shape == x.shape and view == "nontarget":
        return empty.detach().to(x)
    return blank_value(empty, x, kind).to(x)


def _choose_kind(kind: Kind | None, reference: Any) -> Kind | None:
    """The kind that was passed, or that of the ReferenceSet."""
    own = reference.kind if isinstance(reference, ReferenceSet) else None
    if kind is not None and not isinstance(kind, Kind):
        raise TypeError(f"kind must be a TableKind, TextKind, SignalKind or VolumeKind, got a {type(kind).__name__}")
    return own if kind is None else kind


def _is_small(x: Tensor, kind: Kind | None) -> bool:
    """Whether many inputs fit in a forward."""
    if kind is not None:
        return x[0].numel() <= FINE_UP_TO**2
    return max(x.shape[1:]) <= FINE_UP_TO or x.dim() == 2


def _evaluate(attribution: Attribution, x: Tensor) -> Any:
    if isinstance(attribution, Tensor):
        return attribution.detach()
    if not callable(attribution):
        raise TypeError(f"attribution must be a callable or a tensor, got {type(attribution).__name__}")
    signed = attribution(x)
    return signed.detach() if isinstance(signed, Tensor) else signed


def _warn_of_magnitudes() -> None:
    warnings.warn(
        "the map has no negative value, so it claims that nothing holds the unit down; of an absence map (magnitudes) "
        "pass the negative",
        AbsenceWarning,
        stacklevel=3,
    )


def _check(view: str, steps: int, draws: int, batch_size: int, seed: int) -> None:
    check_choice("view", view, get_args(View))
    check_integers(steps=steps, draws=draws, batch_size=batch_size)
    check_seed(seed)
