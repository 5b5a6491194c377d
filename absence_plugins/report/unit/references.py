"""Which real images a unit's high images are compared with: such on which it is low."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from absence_plugins import FeatureSpace, ReferenceSet
from absence_plugins.report.unit.study import Study

POOL = 400  # images among which the nearest ones are searched
LOW_SHARE = 4  # without classes: among the lowest quarter


@dataclass(frozen=True, eq=False)
class Compared:
    """Images on which the unit is high, each with references on which it is lower.

    Attributes:
        numbers: n of the data set.
        images: [n, C, H, W].
        values: u(x) [n].
        references: [n, k, C, H, W], nearest first.
        reference_values: u(r) [n, k].
        pool: what they were chosen from, in words.
    """

    numbers: tuple[int, ...]
    images: Tensor
    values: Tensor
    references: Tensor
    reference_values: Tensor
    pool: str


def compared(study: Study, unit: int, numbers: list[int]) -> Compared:
    """The nearest references for these images.

    With classes the references are those of one contrast class: of all classes but the image's own that on whose
    images the unit is lowest on average. Without, they come from the lowest quarter of all images. In either case u(r)
    < u(x).

    Raises:
        ValueError: no image on which the unit is lower than on one of these.
    """
    values, labels = study.values(unit), study.labels
    count = study.settings.references
    drawn, kept = [], []
    named: set[int] = set()
    space = FeatureSpace(study.model) if study.settings.nearest_in == "features" else None
    for number in numbers:
        allowed = values < values[number]
        if labels is None:
            allowed &= values <= values.quantile(1 / LOW_SHARE)
        else:
            contrast = _contrast_class(values, labels, int(labels[number]))
            if contrast is not None:
                named.add(contrast)
                allowed &= labels == contrast
        pool = allowed.nonzero()[:, 0]
        if not len(pool):
            raise ValueError("there is no image on which the unit is lower, so nothing to compare with")
        generator = torch.Generator().manual_seed(study.settings.seed)
        pool = pool[torch.randperm(len(pool), generator=generator)[:POOL].sort().values]
        images = study.images(pool.tolist())
        near = ReferenceSet(images, k=min(count, len(pool)), nearest_in=space).nearest_indices(study.images([number]))[
            0
        ]
        drawn.append(images[near.to(images.device)])
        kept.append(values[pool[near]])
    fewest = min(len(one) for one in drawn)
    words = "the quarter of the images on which it is lowest" if not named else (
        "the class on which it is lowest" if len(named) == 1 else "the other class on which it is lowest"
    )  # fmt: skip
    return Compared(
        tuple(numbers),
        study.images(numbers),
        values[numbers],
        torch.stack([one[:fewest] for one in drawn]),
        torch.stack([one[:fewest] for one in kept]),
        words,
    )


def _contrast_class(values: Tensor, labels: Tensor, own: int) -> int | None:
    """The class of lowest mean, other than the image's own; None if there is no other."""
    means = {one: float(values[labels == one].mean()) for one in sorted(set(labels.tolist())) if one != own}
    return min(means, key=lambda one: (means[one], one)) if means else None
