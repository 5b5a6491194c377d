"""Minimal sets with a certificate: the fewest pieces whose insertion takes a decision away, or already gives it.

The sign everywhere: evidence above 0 raises u on x compared with the reference.
"""

from absence_plugins.methods.missing.finding import exhaustive_set, missing_set, sufficient_set
from absence_plugins.methods.missing.pasting import Given
from absence_plugins.methods.missing.pieces import Pieces, cut_pieces
from absence_plugins.methods.missing.questions import Question
from absence_plugins.methods.missing.result import MissingSet
from absence_plugins.methods.missing.search import Search

__all__ = [
    "Given",
    "MissingSet",
    "Pieces",
    "Question",
    "Search",
    "cut_pieces",
    "exhaustive_set",
    "missing_set",
    "sufficient_set",
]
