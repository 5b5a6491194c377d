"""Is a map's absence evidence true? The network is asked: change what the map names, and see whether the unit follows."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any, get_args

import torch
from torch import Tensor, nn

from absence_plugins.core import AbsenceWarning
from absence_plugins.core.hooks import evaluating, quiet_forward
from absence_plugins.core.references import ReferenceSet, blank_value
from absence_plugins.core.targets import as_columns, check_logits
from absence_plugins.core.units import Unit
from absence_plugins.methods.faithfulness.cells import Cells
from absence_plugins.methods.faithfulness.claims import Claim, Value, area, deletion, has_ties, insertion, ranks
from absence_plugins.methods.faithfulness.result import AbsenceScores, Ratio, View

Attribution = Callable[[Tensor], Any] | Tensor
RESAMPLES = 2000


def absence_scores(
    model: nn.Module,
    x: Tensor,
    unit: int | Tensor | Unit | Callable[[Tensor], Tensor],
    attribution: Attribution,
    *,
    view: View = "nontarget",
    reference: ReferenceSet | Tensor | None = None,
    empty: Any = None,
    standard: Attribution | None = None,
    steps: int = 32,
    draws: int = 8,
    cell: int | None = None,
    batch_size: int = 256,
    seed: int = 0,
) -> AbsenceScores:
    """Check the claims of a signed map R of unit u on the network itself.

    *Deletion of suppressors* (``view="nontarget"``): what the map says holds u down is replaced by the blank value, the most
    negative relevance first; u must **rise**. Only pixels that differ from blank take part.
    *Insertion of the missing* (``view="reference"``): where the reference has content and x has none, the reference's pixels are
    copied into x, the largest R first; u must **fall**.

    With A the mean gain along the curve (trapezoids), over ``steps`` steps from nothing to everything changed:
    score = sum (A - A_random) / sum (A_best - A_random), sums over the samples. A_random is the mean of ``draws`` random
    orders; A_best that of the best order found per sample: orders by effects measured on the network (of every cell changed
    alone, left alone, and in windows), and the maps' own. Ties of the map are broken at random. Only the order of the map's
    values counts, so the score does not change when the map is multiplied by a positive number.

    Source: this package (docs/faithfulness); pixel flipping (Samek et al., 2017) and insertion/deletion (Petsiuk et al., 2018) ask the same of
    evidence for what is present.

    Args:
        model: outputs [N, K]; logits, not probabilities.
        x: images [N, C, H, W] or features [N, F]. For the non-target view inputs that u does not belong to (they have what
            holds it down), for the reference view inputs it belongs to.
        unit: the explained unit: a logit (or one per sample [N]), a :class:`Unit`, or a callable from inputs to values [N].
        attribution: callable from x to the signed map of u, or the map: [N, C, H, W], [N, H, W] or [N, F]; in the reference
            view also one per reference, [N, k, C, H, W]. The sign: R > 0 raises u, R < 0 holds it down.
        view: "nontarget" or "reference", which of the two is checked.
        reference: for the reference view: real inputs [N, C, H, W] or [N, k, C, H, W], or a :class:`ReferenceSet`, whose nearest
            are taken (of its contrast class, or of any class but the unit's).
        empty: value of a blank pixel, as ``ReferenceSet`` takes it; None: the set's, else 0.
        standard: the map the host shows by default (target, blank baseline), to compare with; as ``attribution``.
        steps: points of the curve.
        draws: random orders.
        cell: side in pixels of what is changed at once; None: so that at most 32 cells (over 64 pixels: 14) fit on a side.
        batch_size: inputs per forward.
        seed: of random orders, ties and bootstrap.

    Forwards: about N k cells x 4 to find the best order, and N k steps x (draws + 8) for the curves.

    The model runs in evaluation mode, without gradients, and is as before afterwards, as is the random state.

    Raises:
        TypeError: maps that are no tensors.
        ValueError: a shape that does not fit, NaN in a map, a reference view without reference, probabilities, another
            number of units than samples.

    Example (u = x_0 + x_1 - 2 x_2; the third feature holds it down):
        >>> weights = torch.tensor([[1.0, 1.0, -2.0]])
        >>> model = torch.nn.Linear(3, 1, bias=False)
        >>> _ = model.weight.data.copy_(weights)
        >>> scores = absence_scores(model, torch.ones(4, 3), 0, lambda x: weights * x, steps=3)
        >>> scores.score, scores.curves["map"].tolist(), scores.areas["map"][0].item()
        (1.0, [0.0, 2.0, 1.0, 0.0], 1.0)
        >>> absence_scores(model, torch.ones(4, 3), 0, lambda x: -weights * x).score < 0
        True
    """
    _check(view, steps, draws, batch_size)
    cells = Cells.of(x, cell)
    maps = {"map": _evaluated(attribution, x, "attribution")}
    if standard is not None:
        maps["standard"] = _evaluated(standard, x, "standard")
    detached = x.detach()
    value = unit_value(model, unit, detached)
    blank = _blank(empty, reference, detached)
    if view == "reference":
        claim = insertion(detached, nearest(reference, detached, unit), blank, cells, value, batch_size)
    else:
        claim = deletion(detached, blank, cells, value, batch_size)
        _warn_of_magnitudes(maps["map"])
    tables = {name: claim.scores(signed, "attribution" if name == "map" else name) for name, signed in maps.items()}
    with evaluating(model) if isinstance(model, nn.Module) else torch.no_grad(), quiet_forward([x]):
        curves = Curves(claim, steps, draws, seed)
        found = {name: curves.of_map(table) for name, table in tables.items()}
        return summarized(view, curves, found, curves.best(list(found.values())))


class Curves:
    """Gains of a claim along orders, all with the same random keys.

    ``random``: the mean of ``draws`` random orders [N, steps + 1].
    """

    def __init__(self, claim: Claim, steps: int, draws: int, seed: int) -> None:
        self.claim, self.seed, self.universe = claim, seed, claim.universe
        self.steps = max(1, min(steps, int(self.universe.sum(1).max())))  # finer than the cells says nothing more
        generator = torch.Generator().manual_seed(seed)
        keys = torch.rand(draws, *self.universe.shape, generator=generator, dtype=torch.float64)
        self.keys = keys.to(self.universe.device)
        nothing = torch.zeros(self.universe.shape, device=self.universe.device)
        self.random = self._mean(nothing, draws)

    def of_map(self, score: Tensor) -> Tensor:
        """The curve of an order by ``score`` [N, cells], highest first; the mean over the tie-breakings where there are ties."""
        return self._mean(score, len(self.keys) if has_ties(score, self.universe) else 1)

    def best(self, others: list[Tensor]) -> Tensor:
        """Per row the curve with the largest area: of the orders by measured effects, and of ``others``."""
        measured = [self._mean(effects, 1) for effects in self.claim.measured()]
        curves = torch.stack([*others, self.random, *measured])
        chosen = torch.stack([area(curve) for curve in curves]).argmax(0)
        return curves[chosen, torch.arange(curves.shape[1], device=curves.device)]

    def _mean(self, score: Tensor, draws: int) -> Tensor:
        found = [self.claim.curve(ranks(score, self.universe, keys), self.steps) for keys in self.keys[:draws]]
        return torch.stack(found).mean(0)


def summarized(view: View, curves: Curves, found: dict[str, Tensor], best: Tensor) -> AbsenceScores:
    """Scores from curves: rows of one sample averaged, samples without anything to change left out, bootstrap."""
    claim = curves.claim
    total = int(claim.samples.max()) + 1
    counts = torch.bincount(claim.samples[curves.universe.any(1)], minlength=total)
    kept = counts > 0
    if not bool(kept.any()):
        what = (
            "content that differs from blank" if view == "nontarget" else "pixel where only its reference has content"
        )
        raise ValueError(
            f"no sample has a {what}, so there is nothing to change; is `empty` the value of a blank pixel?"
        )

    def by_sample(curve: Tensor) -> Tensor:
        summed = curve.new_zeros(total, curve.shape[1]).index_add_(0, claim.samples, curve)
        return (summed[kept] / counts[kept, None]).cpu()

    every = {name: by_sample(curve) for name, curve in {**found, "random": curves.random, "best": best}.items()}
    areas = {name: area(curve) for name, curve in every.items()}
    generator = torch.Generator().manual_seed(curves.seed)
    drawn = torch.randint(int(kept.sum()), (RESAMPLES, int(kept.sum())), generator=generator)
    room = areas["best"] - areas["random"]

    def score(name: str) -> Ratio:
        return _ratio(areas[name] - areas["random"], room, drawn)

    own = score("map")
    other = score("standard") if "standard" in areas else None
    per_sample = torch.full((total,), torch.nan, dtype=torch.float64)
    per_sample[kept.cpu()] = torch.where(room > _tiny(areas), (areas["map"] - areas["random"]) / room, torch.nan)
    return AbsenceScores(
        view=view,
        score=own.value,
        interval=(own.low, own.high),
        standard_score=None if other is None else other.value,
        standard_interval=None if other is None else (other.low, other.high),
        over_random=_ratio(areas["map"], areas["random"], drawn),
        over_standard=_ratio(areas["map"], areas["standard"], drawn) if "standard" in areas else None,
        per_sample=per_sample,
        areas=areas,
        curves={name: curve.mean(0) for name, curve in every.items()},
        samples=int(kept.sum()),
        empty_samples=tuple((~kept).nonzero().flatten().tolist()),
        cell=claim.cells.size,
        seed=curves.seed,
    )


def _tiny(areas: dict[str, Tensor]) -> float:
    """Below this a difference of areas is rounding."""
    return 1e-9 + 1e-6 * max(float(values.abs().max()) for values in areas.values())


def _ratio(above: Tensor, below: Tensor, drawn: Tensor) -> Ratio:
    """sum(above) / sum(below) with its bootstrap interval; NaN where the sum below is not positive."""
    tiny = _tiny({"above": above, "below": below}) * len(below)

    def divided(top: Tensor, bottom: Tensor) -> Tensor:
        return torch.where(bottom > tiny, top / bottom, torch.nan)

    value = float(divided(above.sum(), below.sum()))
    many = divided(above[drawn].sum(1), below[drawn].sum(1))
    many = many[torch.isfinite(many)]
    if value != value or not len(many):
        return Ratio(torch.nan, torch.nan, torch.nan)
    low, high = many.quantile(torch.tensor([0.025, 0.975], dtype=many.dtype)).tolist()
    return Ratio(value, low, high)


def unit_value(model: Any, unit: Any, x: Tensor) -> Value:
    """The unit's value as a function of inputs and of the samples they come from."""
    if isinstance(unit, Unit):
        unit.module(model)
        return lambda images, rows: unit.values(model, images)
    if callable(unit) and not isinstance(unit, Tensor):
        return lambda images, rows: unit(images)
    with evaluating(model) if isinstance(model, nn.Module) else torch.no_grad(), quiet_forward([x]):
        outputs = as_columns(model(x[:8]))
        check_logits(outputs, lambda: model(x[:8] * 0.37 + 0.21))
    index = torch.as_tensor(unit, device=x.device)
    if index.is_floating_point() or index.dtype == torch.bool or index.dim() > 1:
        raise ValueError(f"unit={unit!r} must be a logit's number, one per sample, a Unit, or a callable")
    index = index.expand(len(x)) if index.dim() == 0 else index
    if len(index) != len(x):
        raise ValueError(f"{len(index)} units for {len(x)} samples; pass one per sample, or one for all")
    if outputs.dim() != 2 or bool(((index < 0) | (index >= outputs.shape[1])).any()):
        raise ValueError(f"unit={unit!r} does not exist: the model's outputs have shape {tuple(outputs.shape)}")
    return lambda images, rows: as_columns(model(images)).gather(1, index[rows, None])[:, 0]


def nearest(reference: Any, x: Tensor, unit: Any) -> Tensor:
    """References [N, k, ...]: as given, or the nearest of a set."""
    if reference is None:
        raise ValueError("view='reference' needs reference=..., a ReferenceSet or real inputs that have what x lacks")
    if isinstance(reference, ReferenceSet):
        target = unit if isinstance(unit, (int, Tensor)) else None
        found = reference.nearest(x, target)
        assert isinstance(found, Tensor)
        return found
    if not isinstance(reference, Tensor):
        raise TypeError(f"reference must be a ReferenceSet or a tensor, got {type(reference).__name__}")
    many = reference[:, None] if reference.dim() == x.dim() else reference
    if many.dim() != x.dim() + 1 or many.shape[0] != len(x) or many.shape[2:] != x.shape[1:]:
        raise ValueError(
            f"reference has shape {tuple(reference.shape)}, x {tuple(x.shape)}; pass [N, ...] or [N, k, ...]"
        )
    return many.detach().to(x)


def _blank(empty: Any, reference: Any, x: Tensor) -> Tensor:
    if empty is None:
        empty = reference.empty[0] if isinstance(reference, ReferenceSet) else 0.0
    return blank_value(empty, x).to(x)


def _evaluated(attribution: Attribution, x: Tensor, name: str) -> Tensor:
    signed = attribution if isinstance(attribution, Tensor) else attribution(x)
    if not isinstance(signed, Tensor):
        raise TypeError(f"{name} must give a tensor, got {type(signed).__name__}; of a tuple pass one input's map")
    bad = ~torch.isfinite(signed.detach().reshape(len(signed), -1)).all(1)
    if bool(bad.any()):
        raise ValueError(f"{name} of sample {int(bad.nonzero()[0])} holds NaN or infinite values")
    return signed.detach().to(x.device)


def _warn_of_magnitudes(signed: Tensor) -> None:
    if bool((signed >= 0).all()) and bool((signed > 0).any()):
        warnings.warn(
            "the map has no negative value, so it claims that nothing holds the unit down; of an absence map (magnitudes) pass the negative",
            AbsenceWarning,
            stacklevel=3,
        )


def _check(view: str, steps: int, draws: int, batch_size: int) -> None:
    if view not in get_args(View):
        raise ValueError(f"view={view!r} must be 'nontarget' or 'reference'")
    for name, value in (("steps", steps), ("draws", draws), ("batch_size", batch_size)):
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise ValueError(f"{name}={value!r} must be an integer, at least 1")
