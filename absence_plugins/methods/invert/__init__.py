"""INVERT: names for units, as formulas of concepts with AND, OR and NOT (Bykov et al., NeurIPS 2023).

A unit that encodes an absence is high where something is missing; its name then has a NOT, and what that NOT is worth
is measured. :func:`label_units` searches, :class:`Formula` is what it finds, :func:`auroc` is the score;
:func:`concepts_from_folder` and :func:`expand_hypernyms` make labels.
"""

from absence_plugins.methods.invert.concepts import FolderConcepts, concepts_from_folder, expand_hypernyms
from absence_plugins.methods.invert.formula import Formula
from absence_plugins.methods.invert.labels import label_units
from absence_plugins.methods.invert.metrics import SanityTest, name_scores, sanity_test
from absence_plugins.methods.invert.reading import PackedConcepts
from absence_plugins.methods.invert.results import Negation, ScoredFormula, UnitLabel, UnitLabels
from absence_plugins.methods.invert.scores import auroc
from absence_plugins.methods.invert.thresholds import ConceptScores, choose_threshold, score_concepts

__all__ = [
    "ConceptScores",
    "FolderConcepts",
    "Formula",
    "Negation",
    "PackedConcepts",
    "SanityTest",
    "ScoredFormula",
    "UnitLabel",
    "UnitLabels",
    "auroc",
    "choose_threshold",
    "concepts_from_folder",
    "expand_hypernyms",
    "label_units",
    "name_scores",
    "sanity_test",
    "score_concepts",
]
