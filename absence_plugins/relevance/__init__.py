"""Relevance of differences: u(x) - u(r) divided exactly among the inputs, for any PyTorch graph."""

import absence_plugins.relevance.secants  # noqa: F401  (registers the rules)
from absence_plugins.relevance.api import relevance
from absence_plugins.relevance.comparison import Comparison
from absence_plugins.relevance.operation import SECANTS, Operation, RelevanceError, secant
from absence_plugins.relevance.result import Relevance

__all__ = ["SECANTS", "Comparison", "Operation", "Relevance", "RelevanceError", "relevance", "secant"]
