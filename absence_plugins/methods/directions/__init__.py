"""Encoding-decoding direction pairs: the concepts a layer writes and reads, and whose absence drives a unit.

``DirectionPairs(n).fit_model(model, layer, images)`` finds them, ``DirectionPairs.from_directions`` takes those of
somebody else, ``match_directions`` compares both; ``influence`` tells which of them suppress which
output (its ``encoded_absences``), ``delete``, ``insert`` and ``unlearn`` with the context ``edited`` try it out.
"""

from absence_plugins.methods.directions.edits import (
    RemovalCheck,
    delete,
    edited,
    insert,
    random_way,
    removal_check,
    unlearn,
)
from absence_plugins.methods.directions.features import FeatureStore
from absence_plugins.methods.directions.heads import head_of, layer_features
from absence_plugins.methods.directions.influence import EncodedAbsence, Influence, influence
from absence_plugins.methods.directions.interpretability import Interpretability, interpretability, name_directions
from absence_plugins.methods.directions.match import DirectionMatch, match_directions
from absence_plugins.methods.directions.pairs import DirectionPairs
from absence_plugins.methods.directions.report import DirectionReport

__all__ = [
    "DirectionMatch",
    "DirectionPairs",
    "DirectionReport",
    "EncodedAbsence",
    "FeatureStore",
    "Influence",
    "Interpretability",
    "RemovalCheck",
    "delete",
    "edited",
    "head_of",
    "influence",
    "insert",
    "interpretability",
    "layer_features",
    "match_directions",
    "name_directions",
    "random_way",
    "removal_check",
    "unlearn",
]
