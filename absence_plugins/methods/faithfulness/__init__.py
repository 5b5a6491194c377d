"""Is a map's absence evidence true? Scores measured on the network itself, and a benchmark on networks whose absences
are known.

The sign everywhere: R > 0 raises the explained unit, R < 0 holds it down; a score of 1 is the best order that could be
found, 0 a random one, below 0 the map points away from what it claims.
"""

from absence_plugins.methods.faithfulness.intervals import Ratio
from absence_plugins.methods.faithfulness.planted import planted_benchmark
from absence_plugins.methods.faithfulness.questions import HELD_OUT, IMAGE_ONLY, Question, random_map, smooth_random_map
from absence_plugins.methods.faithfulness.result import AbsenceScores
from absence_plugins.methods.faithfulness.scores import absence_scores
from absence_plugins.methods.faithfulness.table import PlantedScore, PlantedTable

__all__ = [
    "HELD_OUT",
    "IMAGE_ONLY",
    "AbsenceScores",
    "PlantedScore",
    "PlantedTable",
    "Question",
    "Ratio",
    "absence_scores",
    "planted_benchmark",
    "random_map",
    "smooth_random_map",
]
