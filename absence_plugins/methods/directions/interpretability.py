"""Do the directions agree with concepts that people have labelled? Masks, scores S1 and S2, and names."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from absence_plugins.core.results import Result
from absence_plugins.core.table import Grid
from absence_plugins.methods.directions.features import Features, as_features, chunks
from absence_plugins.methods.directions.pairs import DirectionPairs
from absence_plugins.methods.invert import label_units

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True, eq=False)
class Interpretability(Result):
    """Agreement of I detectors with C labelled concepts; see :func:`interpretability`.

    Attributes:
        iou: [I, C], intersection over union of detector and concept, over all positions.
        best: [I], each direction's best concept on the choosing half.
        held_out: [I], its IoU on the other half.
        s1: sum over directions of ``held_out``: between 0 and I.
        s2: the same, of each concept only its best direction: between 0 and min(I, C).
        names: of the concepts.
    """

    iou: Tensor
    best: tuple[int, ...]
    held_out: tuple[float, ...]
    s1: float
    s2: float
    names: tuple[str, ...]

    def __repr__(self) -> str:
        rows = [
            f"  direction {i}: {self.names[c]}, IoU {value:.2f} held out"
            for i, (c, value) in enumerate(zip(self.best, self.held_out, strict=True))
        ]
        return "\n".join([f"Interpretability(S1 {self.s1:.2f}, S2 {self.s2:.2f})", *rows])

    def _heading(self) -> str:
        return f"Interpretability of {len(self.best)} directions (S1 {self.s1:.2f}, S2 {self.s2:.2f})"

    def _grid(self) -> Grid:
        pairs = zip(self.best, self.held_out, strict=True)
        rows = [(str(i), self.names[c], f"{value:.2f}") for i, (c, value) in enumerate(pairs)]
        foot = "IoU: intersection over union of where the detector fires and where the concept is"
        return Grid((("direction", "concept", "IoU held out"), *rows), left=(0, 1), foot=(foot,))

    def figure(self, ax: Any = None) -> Figure:
        """Each direction's best concept with its held-out IoU; needs matplotlib. ax: axes to draw into."""
        from absence_plugins.report.plots.palette import INK
        from absence_plugins.report.plots.placing import draw_bars

        names = [f"direction {i}: {self.names[c]}" for i, c in enumerate(self.best)]
        return draw_bars(ax, names, self.held_out, "IoU, held out", colors=[INK] * len(names))

    def to_dict(self) -> dict[str, Any]:
        """Plain lists, numbers and strings, ready for JSON."""
        return {
            "iou": self.iou.tolist(),
            "best": list(self.best),
            "held_out": list(self.held_out),
            "s1": self.s1,
            "s2": self.s2,
            "names": list(self.names),
        }


def interpretability(
    pairs: DirectionPairs,
    features: Tensor | Features,
    masks: Tensor,
    *,
    names: Sequence[str] | None = None,
    seed: int = 0,
) -> Interpretability:
    """How well every detector's positions agree with a concept's, judged on images that had no part in the choice.

    phi_i(c) = IoU of {y_i > 0.5} and concept c. c* = the best concept on one random half of the images; on the other
    half S1 = integral over thresholds of the number of directions with phi_i(c*) above it, which is the sum of these
    phi, and S2 = the same of the number of distinct concepts.

    Source: Doumanoglou et al., arXiv 2509.23926.

    Args:
        pairs: fitted.
        features: [N, H, W, D], or a feature store.
        masks: [N, H, W, C] of 0, 1 and, where unknown, NaN, at the features' resolution (of Broden:
            :func:`~absence_plugins.data.labels.read_broden_masks`). Positions where a concept is unknown count neither
            for nor against it.
        names: of the C concepts.
        seed: of the halves.

    Raises:
        ValueError: masks of another shape or with other values, another number of names, fewer than two images.

    Example:
        >>> from absence_plugins.data.synthetic_directions import synthetic_directions
        >>> data = synthetic_directions(images=600)
        >>> pairs = DirectionPairs(3, starts=8).fit(data.features, head=data.head)
        >>> interpretability(pairs, data.features, data.present).s2 > 2.7
        True
    """
    source = as_features(features)
    count = source.shape[0]
    if masks.dim() != 4 or masks.shape[:3] != source.shape[:3]:
        raise ValueError(
            f"masks has shape {tuple(masks.shape)}; it must be [N, H, W, C] with N, H, W = {source.shape[:3]}"
        )
    if not bool(((masks == 0) | (masks == 1) | masks.isnan()).all()):
        raise ValueError("masks must hold only 0 and 1 (or False and True), and NaN where a concept is unknown")
    concepts = masks.shape[3]
    names = tuple(names) if names is not None else tuple(f"concept {c}" for c in range(concepts))
    if len(names) != concepts:
        raise ValueError(f"names has {len(names)} entries for {concepts} concepts")
    if count < 2:
        raise ValueError("one image cannot be split into halves; pass more")
    half = torch.zeros(count, dtype=torch.bool)
    half[torch.randperm(count, generator=torch.Generator().manual_seed(seed))[: count // 2]] = True
    sums = torch.zeros(2, 3, pairs.n_directions, concepts, dtype=torch.float64)
    first = 0
    for chunk in chunks(source):
        fires = (pairs.logits(chunk) > 0).flatten(1, 2).cpu().double()
        own = masks[first : first + len(chunk)].flatten(1, 2).cpu()
        there, known = (own == 1).double(), (~own.isnan()).double()
        for part in (0, 1):
            chosen = half[first : first + len(chunk)] == bool(part)
            y, m, k = (one[chosen].flatten(0, 1) for one in (fires, there, known))
            sums[part] += torch.stack([y.T @ m, y.T @ k, m.sum(0).expand(y.shape[1], -1)])
        first += len(chunk)
    best = _iou(sums[0]).argmax(1)
    held_out = _iou(sums[1]).gather(1, best[:, None])[:, 0]
    of_concept = torch.zeros(concepts, dtype=torch.float64).scatter_reduce(0, best, held_out, "amax")
    return Interpretability(
        _iou(sums.sum(0)),
        tuple(best.tolist()),
        tuple(held_out.tolist()),
        float(held_out.sum()),
        float(of_concept.sum()),
        names,
    )


def name_directions(
    pairs: DirectionPairs, features: Tensor | Features, concepts: Tensor, names: Sequence[str], **options: Any
) -> Any:
    """Name every direction with a formula of image labels: ``label_units`` on its largest signal value per image.

    Args:
        pairs: fitted.
        features: [N, H, W, D], or a feature store.
        concepts: [N, K] of 0 and 1, what is in each image.
        names: K.
        **options: of :func:`absence_plugins.methods.invert.label_units`.

    Returns:
        Its result, one entry per direction.
    """
    source = as_features(features)
    strongest = torch.cat([pairs.signal_values(chunk).flatten(1, 2).amax(1) for chunk in chunks(source)])
    return label_units(strongest, concepts, names, **options)


def _iou(sums: Tensor) -> Tensor:
    """Intersections, detector sizes and concept sizes [3, I, C] -> [I, C]; 0 where both are empty."""
    together, detected, labelled = sums
    union = detected + labelled - together
    share: Tensor = together / union.clamp(min=1)
    return share
