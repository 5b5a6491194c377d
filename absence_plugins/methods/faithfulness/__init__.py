"""Is a map's absence evidence true? Scores measured on the network itself, and a benchmark on networks whose absences are known.

The sign everywhere: R > 0 raises the explained unit, R < 0 holds it down; a score of 1 is the best order that could be found, 0
a random one, below 0 the map points away from what it claims.
"""

from absence_plugins.methods.faithfulness.result import AbsenceScores, Ratio
from absence_plugins.methods.faithfulness.scores import absence_scores

__all__ = ["AbsenceScores", "Ratio", "absence_scores"]
