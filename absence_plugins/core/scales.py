"""Whether references are on the scale of the inputs: type and range are compared before anything is computed."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from absence_plugins.core import AbsenceWarning
from absence_plugins.core.blank import may_be_pictures
from absence_plugins.core.kinds import Kind

LOOKED_AT = 64  # samples whose single values are looked at; the range is that of all
BYTES = 256.0  # no picture of 8 bits has higher values
BRIGHT = 100.0  # what half of all pictures of 8 bits reach somewhere
BELOW, SHARE = -0.5, 0.05  # of normalized pictures so many values lie below this; pictures have none below 0
DARK, WHITE = 0.05, 0.95  # what several pictures in [0, 1] reach between them
SPREAD = 0.2  # a smaller range is that of a constant, which fits every scale
MANY = 16  # references from which on it counts that nearly all of them have values below
REMEDY = "prepare both as the model's inputs are prepared"


@dataclass(frozen=True)
class Scale:
    """The type and the range of a batch.

    Attributes:
        dtype: of the values.
        low, high: of all values.
        peak: the median of the samples' highest values.
        is_whole: all values are whole numbers.
        below: the share of values below -0.5.
        deep: the share of samples that have such a value.
        samples: how many there are.
        is_pictures: the batch has the shape of pictures.
    """

    dtype: torch.dtype
    low: float
    high: float
    peak: float
    is_whole: bool
    below: float
    deep: float
    samples: int
    is_pictures: bool

    @property
    def is_integer(self) -> bool:
        """Whether the values are integers by their type."""
        return not self.dtype.is_floating_point and self.dtype != torch.bool

    @property
    def is_unit(self) -> bool:
        """Whether all values are in [0, 1] and some lie between."""
        return self.low >= 0 and self.high <= 1 and not self.is_whole

    @property
    def is_bytes(self) -> bool:
        """Whether the values are those of pictures of 8 bits."""
        return self.low >= 0 and self.peak >= BRIGHT and self.high <= BYTES

    @property
    def is_normalized(self) -> bool:
        """Whether the values are those of pictures whose mean was subtracted."""
        return self.below >= SHARE and self.high - self.low > SPREAD

    @property
    def is_raw(self) -> bool:
        """Whether the values are those of pictures in [0, 1], which they span."""
        return self.is_unit and self.low <= DARK and self.high >= WHITE

    def __str__(self) -> str:
        return f"{str(self.dtype).removeprefix('torch.')} from {self.low:.3g} to {self.high:.3g}"


def measure_scale(images: Tensor, kind: Kind | None = None) -> Scale | None:
    """The scale of a batch [N, ...]; None of what has none: complex numbers, nothing. What is of a kind is no picture.

    >>> print(measure_scale(torch.tensor([[0, 204]], dtype=torch.uint8)))
    uint8 from 0 to 204
    """
    if images.is_complex() or not images.numel() or images.is_meta:
        return None
    flat = images.detach().reshape(len(images), -1) if images.dim() > 1 else images.detach().reshape(1, -1)
    lows, highs = (flat.amin(1), flat.amax(1)) if flat.dtype != torch.bool else (flat.all(1), flat.any(1))
    some = flat[:: max(1, len(flat) // LOOKED_AT)]
    is_whole = not some.is_floating_point() or bool((some == some.trunc()).all())
    low, high, peak = float(lows.min()), float(highs.max()), float(highs.float().median())
    below, deep = 0.0, 0.0
    if low < BELOW:
        below, deep = float((some < BELOW).float().mean()), float((lows < BELOW).float().mean())
    return Scale(
        images.dtype, low, high, peak, is_whole, below, deep, len(flat), kind is None and may_be_pictures(images)
    )


def check_scales(
    inputs: Sequence[Tensor], references: Sequence[Scale | None], what: str = "references", kind: Kind | None = None
) -> None:
    """Compare inputs with what they will be compared with; the check that all methods share.

    Warns (AbsenceWarning): one of both is normalized, the other is not; one has values up to 255 that are no whole
    numbers, as resized pictures and other quantities have, the other is in [0, 1] or normalized.

    Raises:
        ValueError: integers for inputs that are none, or the other way round; whole numbers from 0 to 255 for inputs in
            [0, 1] or normalized ones that are not whole, or the other way round.

    >>> pictures = torch.tensor([[[[0.2, 0.7]]]])
    >>> check_scales([pictures], [measure_scale((255 * pictures).trunc())])
    Traceback (most recent call last):
    ...
    ValueError: the references are float32 from 51 to 178, the inputs float32 from 0.2 to 0.7: prepare both as the model's inputs are prepared, here by dividing the references by 255
    """
    for x, other in zip(inputs, references, strict=True):
        own = measure_scale(x, kind)
        if own is None or other is None or (other.low == other.high == 0) or (own.low == own.high == 0):
            continue
        fault = find_mismatch(own, other, what)
        if fault:
            raise ValueError(f"the {what} are {other}, the inputs {own}: {fault}")
        doubt = _find_bytes(own, other, what)
        if doubt:
            warnings.warn(
                f"the {what} are {other}, the inputs {own}: if these are pictures, {doubt}",
                AbsenceWarning,
                stacklevel=5,
            )
        elif own.is_pictures and _differs_by_normalization(own, other):
            normalized = what if other.below >= SHARE else "inputs"
            warnings.warn(
                f"the {what} are {other}, the inputs {own}: the {normalized} seem to be normalized and the others not, so "
                f"that they differ everywhere; {REMEDY}",
                AbsenceWarning,
                stacklevel=5,
            )


def find_mismatch(own: Scale, other: Scale, what: str = "references") -> str:
    """What to do about references that cannot be on the scale of the inputs; "" where they can be."""
    if other.is_integer and not own.is_integer and own.dtype != torch.bool and (other.low < 0 or other.high > 1):
        is_unit = own.low >= 0 and own.high <= 1
        fits = own.low >= 0 and own.high > 1.5  # the bytes of pictures, kept as such
        if (is_unit and other.peak > 8) or not (own.is_whole or fits or is_unit):
            is_bytes = own.is_pictures and other.low >= 0 and other.high <= BYTES
            return REMEDY + ", here by what ToTensor does, images.float() / 255" * is_bytes
    if own.is_integer and other.dtype.is_floating_point and not other.is_whole:
        return f"the {what} would be cut to whole numbers; {REMEDY}"
    high, low = (other, own) if other.is_bytes else (own, other)
    return _find_bytes(own, other, what) if high.is_whole and not low.is_whole else ""


def _find_bytes(own: Scale, other: Scale, what: str) -> str:
    """What to do where one of both has the values of pictures of 8 bits and the other is in [0, 1] or normalized; or
    "".
    """
    if not own.is_pictures:
        return ""
    if other.is_bytes and (own.is_unit or (own.is_normalized and own.high < BRIGHT / 4)):
        return f"{REMEDY}, here by dividing the {what} by 255{'' if own.is_unit else ' and normalizing them'}"
    if own.is_bytes and (other.is_unit or (other.is_normalized and other.high < BRIGHT / 4)):
        return f"{REMEDY}, here by dividing the inputs by 255{'' if other.is_unit else ' and normalizing them'}"
    return ""


def _differs_by_normalization(own: Scale, other: Scale) -> bool:
    """Whether one of both was normalized and the other is as pictures are, in [0, 1]."""
    if own.is_normalized and other.is_raw:
        return True
    if other.is_normalized and own.is_raw:
        return True
    is_usual = other.samples >= MANY and other.deep >= 0.99  # so that an input without any is no chance
    return is_usual and own.is_unit and own.high - own.low > SPREAD
