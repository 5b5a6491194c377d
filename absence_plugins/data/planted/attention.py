"""Is the key shape missing? Asked of a small vision transformer."""

from __future__ import annotations

from functools import cache

from absence_plugins.data.planted.problem import Planted
from absence_plugins.data.planted.shapes import SIZE, ShapeProblem
from absence_plugins.data.planted.training import Recipe
from absence_plugins.data.planted.transformer import transformer_network

SCENES = 2500  # a transformer does not know that a shape is the same elsewhere, so it needs more of them
RECIPE = Recipe(epochs=6, batch=64, rate=7e-3)


@cache
def shape_missing_attention(seed: int = 0) -> Planted:
    """Is the plus missing? Logit 1 encodes its absence; self-attention, layer norm, GELU, a class token.

    A pre-norm transformer block on patches of 4 x 4 pixels. Region: the plus. Otherwise as
    :func:`~absence_plugins.data.planted.shape_missing`; five seconds of training instead of one or two.
    Relevance propagation has no rule for attention.
    """
    problem = ShapeProblem("plus", ("square", "dot", "ring", "horizontal", "vertical"), seed)
    problem.train_scenes = SCENES
    return problem.solve(transformer_network(SIZE), RECIPE)
