"""Networks whose encoded absences are known by construction, to check what a method says against the truth.

Each problem is a function of a seed that returns a :class:`Planted`: a network in which the logit ``absence_unit``
encodes the absence of a *key*, held-out images and a reference pool, and the key's pixels in each of them
(``regions``).

================================ ================== ==================================================================
problem                          the key            what makes it hard
================================ ================== ==================================================================
:func:`shape_missing`            a plus             batch norm before ReLU and max pooling
:func:`shape_missing_normalized` a cross            pixels in [-1, 1]: black is not zero
:func:`patch_missing`            a colored patch    three channels, a background that is not black
:func:`shape_missing_residual`   a plus             residual sums, average pooling
:func:`shape_missing_dead`       a ring             the unit that carries the absence is dead wherever the key is
:func:`conjunction`              a cross            only beside a ring: "ring AND NOT cross", pixels in [-1, 1]
:func:`hidden_unit`              a plus             a channel in the middle of a residual net, not an output
:func:`shape_missing_attention`  a plus             self-attention, layer norm, GELU: a small vision transformer
:func:`green_missing`            a green pixel      one pixel of 1024; without it there is nothing else to see
:func:`stroke_missing`           left strokes of 8  real digits; the region is a guess
:func:`either_missing`           a plus or a cross  "NOT (plus AND cross)": one of two is enough
:func:`segmentation_missing`     a plus             a segmentation head: the unit is the mean over all positions
:func:`transformer_unit`         a plus             a unit of an MLP inside a vision transformer
:func:`signal_missing`           a double event     1-D convolutions; other events of the same size
:func:`volume_missing`           a cube             3-D convolutions; other blocks of the same size
:func:`column_missing`           a column           a residual MLP on rows of a table
:func:`negation_missing`         "not"              text tokens; the same word elsewhere does not matter
================================ ================== ==================================================================

Networks are trained on the first call (one to three seconds each, up to ten for attention and green), on one thread,
and kept: treat what is returned as read-only. The same seed gives the same bits on the same build of torch.

Tables, texts, signals and volumes are images here, so that every method can be asked about all problems;
:func:`natural` gives them as rows, token ids, signals and volumes, with the same outputs.
"""

from collections.abc import Callable

from absence_plugins.data.planted.attention import shape_missing_attention
from absence_plugins.data.planted.conjunction import conjunction
from absence_plugins.data.planted.either import either_missing
from absence_plugins.data.planted.hidden import hidden_unit
from absence_plugins.data.planted.inside_transformer import transformer_unit
from absence_plugins.data.planted.lesions import patch_missing
from absence_plugins.data.planted.natural_forms import NATURAL, Natural, natural
from absence_plugins.data.planted.networks import Sum
from absence_plugins.data.planted.pixels import green_missing
from absence_plugins.data.planted.problem import Planted, dilate
from absence_plugins.data.planted.segmentation import segmentation_missing
from absence_plugins.data.planted.shapes import (
    shape_missing,
    shape_missing_dead,
    shape_missing_normalized,
    shape_missing_residual,
)
from absence_plugins.data.planted.slots import signal_missing, volume_missing
from absence_plugins.data.planted.strokes import stroke_missing
from absence_plugins.data.planted.tables import column_missing
from absence_plugins.data.planted.text import negation_missing

PROBLEMS: dict[str, Callable[[int], Planted]] = {
    problem.__name__: problem
    for problem in (
        shape_missing,
        shape_missing_normalized,
        patch_missing,
        shape_missing_residual,
        shape_missing_dead,
        conjunction,
        hidden_unit,
        shape_missing_attention,
        green_missing,
        stroke_missing,
        either_missing,
        segmentation_missing,
        transformer_unit,
        signal_missing,
        volume_missing,
        column_missing,
        negation_missing,
    )
}

ATTENTION = frozenset(
    problem.__name__ for problem in (shape_missing_attention, transformer_unit, negation_missing)
)  # for these networks Zennit has no rules

LATER = tuple(PROBLEMS)[10:]  # newer than the maps of Zennit's composites that the tests pin

__all__ = [
    "ATTENTION",
    "LATER",
    "NATURAL",
    "PROBLEMS",
    "Natural",
    "Planted",
    "Sum",
    "column_missing",
    "conjunction",
    "dilate",
    "either_missing",
    "green_missing",
    "hidden_unit",
    "natural",
    "negation_missing",
    "patch_missing",
    "segmentation_missing",
    "shape_missing",
    "shape_missing_attention",
    "shape_missing_dead",
    "shape_missing_normalized",
    "shape_missing_residual",
    "signal_missing",
    "stroke_missing",
    "transformer_unit",
    "volume_missing",
]
