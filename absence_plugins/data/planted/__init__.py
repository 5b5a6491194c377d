"""Networks whose encoded absences are known by construction, to check what a method says against the truth.

Each problem is a function of a seed that returns a :class:`Planted`: a network in which the logit ``absence_unit`` encodes
the absence of a *key*, held-out images and a reference pool, and the key's pixels in each of them (``regions``).

================================ ================== ====================================================================
problem                          the key            what makes it hard
================================ ================== ====================================================================
:func:`shape_missing`            a plus             batch norm before ReLU and max pooling
:func:`shape_missing_normalized` a cross            pixels in [-1, 1]: black is not zero
:func:`patch_missing`            a colored patch    three channels, a background that is not black
:func:`shape_missing_residual`   a plus             residual sums, average pooling
:func:`shape_missing_dead`       a ring             the unit that carries the absence is dead wherever the key is
:func:`stroke_missing`           left strokes of 8  real digits; the region is a guess
================================ ================== ====================================================================

Networks are trained on the first call (a second or two each), on one thread, and kept: treat what is returned as
read-only. The same seed gives the same bits on the same build of torch.
"""

from collections.abc import Callable

from absence_plugins.data.planted.lesions import patch_missing
from absence_plugins.data.planted.networks import Sum
from absence_plugins.data.planted.problem import Planted, dilate
from absence_plugins.data.planted.shapes import (
    shape_missing,
    shape_missing_dead,
    shape_missing_normalized,
    shape_missing_residual,
)
from absence_plugins.data.planted.strokes import stroke_missing

PROBLEMS: dict[str, Callable[[int], Planted]] = {
    problem.__name__: problem
    for problem in (
        shape_missing,
        shape_missing_normalized,
        patch_missing,
        shape_missing_residual,
        shape_missing_dead,
        stroke_missing,
    )
}

__all__ = [
    "PROBLEMS",
    "Planted",
    "Sum",
    "dilate",
    "patch_missing",
    "shape_missing",
    "shape_missing_dead",
    "shape_missing_normalized",
    "shape_missing_residual",
    "stroke_missing",
]
