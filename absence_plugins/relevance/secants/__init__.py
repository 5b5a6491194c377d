"""Secants by family of operation; importing this package registers all of them."""

from absence_plugins.relevance.secants import (  # noqa: F401  (imported for what they register)
    attention,
    binary,
    distances,
    elementwise,
    extrema,
    norms,
    products,
    quadratic,
    recurrent,
    softmax,
    weighted,
)
