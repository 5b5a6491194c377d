"""Are the two left strokes missing that make a 3 an 8? Real handwritten digits and the bundled network."""

from __future__ import annotations

from functools import cache

import torch
from torch import Tensor

from absence_plugins.core.references import ReferenceSet
from absence_plugins.data.digits import digits_cnn, load_digits
from absence_plugins.data.planted.problem import Planted, accuracy

EIGHT, THREE = 8, 3
INK, BLANK = 0.4, 0.3  # pixel values from which there is a stroke, and below which there is none
NEIGHBORS = 8


@cache
def stroke_missing(seed: int = 0) -> Planted:
    """Is a 3 an 8 without its left strokes? Logit 3 encodes their absence, as far as one knows; real digits on black 0.

    Region: where an 8 has ink and most of its 8 nearest 3s have none. That is a guess (``is_exact`` is False): the
    network may look elsewhere. Nothing is trained; ``seed`` draws the 50 of the held-out 3s and 8s.

    Raises:
        ImportError: scikit-learn, which contains the digits, is missing.
    """
    data, model = load_digits(), digits_cnn()
    generator = torch.Generator().manual_seed(seed)
    drawn = torch.cat([_members(data.test_labels, digit, generator)[:25] for digit in (EIGHT, THREE)])
    images, labels = data.test_images[drawn], data.test_labels[drawn]
    threes = ReferenceSet(data.train_images, data.train_labels, k=NEIGHBORS)
    return Planted(
        model=model,
        images=images,
        labels=labels,
        regions=_strokes(images, labels, threes),
        pool_images=data.train_images,
        pool_labels=data.train_labels,
        pool_regions=_strokes(data.train_images, data.train_labels, threes),
        empty=0.0,
        pixels=(0.0, 1.0),
        accuracy=accuracy(model, images, labels),
        absence_unit=THREE,
        presence_unit=EIGHT,
        is_exact=False,
    )


def _members(labels: Tensor, digit: int, generator: torch.Generator) -> Tensor:
    members = (labels == digit).nonzero().flatten()
    return members[torch.randperm(len(members), generator=generator)]


def _strokes(images: Tensor, labels: Tensor, threes: ReferenceSet) -> Tensor:
    """Where every 8 has ink and most of the nearest 3s have none: [N, 1, H, W] bool, False for other digits."""
    regions = torch.zeros_like(images, dtype=torch.bool)
    eights = (labels == EIGHT).nonzero().flatten()
    nearest = threes.nearest(images[eights], label=THREE)
    assert isinstance(nearest, Tensor)
    regions[eights] = (images[eights] > INK) & ((nearest < BLANK).float().mean(1) > 0.5)
    return regions
